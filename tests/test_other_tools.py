"""Pictures with boxes as other tools export them: each is read, or refused with what to do."""

import io
import json
import re
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from lab.console import LabError
from tasks.detection.data import SOURCES, read_split
from tests.support import ScriptCase, script_here

SIZE = (120, 80)  # width, height
BOXES = {  # of each picture: class, left, top, right, bottom
    "a": [("cat", 10, 20, 40, 60), ("dog", 50, 10, 110, 70)],
    "b": [("dog", 5, 5, 65, 45)],
    "c": [("cat", 30, 30, 90, 70)],
    "d": [("cat", 0, 0, 30, 30), ("cat", 60, 40, 120, 80)],
}
CLASSES = ("cat", "dog")
BOM = "\ufeff"


def save_picture(path):
    """Write a picture with a square for each of its boxes, and return its boxes."""
    boxes = BOXES[path.stem[0]]
    pixels = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    for name, left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = (200, 60, 40) if name == "cat" else (40, 60, 200)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return boxes


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def voc(path, picture, boxes, corners=lambda box: (box[0] + 1, box[1] + 1, *box[2:]), more=""):
    """Write VOC's XML; `more` within each object."""
    objects = "".join(
        f"\t<object>\n\t\t<name>{escape(name)}</name>\n\t\t<pose>Unspecified</pose>\n{more}"
        "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n\t\t<bndbox>"
        + "".join(
            f"<{side}>{value}</{side}>"
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners(box), strict=True)
        )
        + "</bndbox>\n\t</object>\n"
        for name, *box in boxes
    )
    shape = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    named = f"<filename>{escape(picture)}</filename><path>C:\\Users\\x\\{escape(picture)}</path>"
    text = f"<annotation>\n<folder>images</folder>{named}{shape}\n{objects}</annotation>\n"
    write(path, text)


def yolo_rows(boxes):
    width, height = SIZE
    return "".join(
        f"{CLASSES.index(name)} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
        f"{(x2 - x1) / width} {(y2 - y1) / height}\n"
        for name, x1, y1, x2, y2 in boxes
    )


def coco(names, categories, start=1, text=False, **crowd):
    """Return COCO's content of pictures by name; ids from `start`, of boxes' pictures as text."""
    images, boxes = [], []
    for number, name in enumerate(names, start):
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for kind, x1, y1, x2, y2 in BOXES[re.split(r"[\\/]", name)[-1][0]]:
            category = [c["id"] for c in categories if c["name"] == kind][-1]
            entry = {"id": len(boxes), "image_id": str(number) if text else number}
            entry |= {"category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1]} | crowd
            boxes.append(entry)
    return {"images": images, "annotations": boxes, "categories": categories}


PLAIN = [{"id": 1, "name": "cat", "supercategory": ""}, {"id": 2, "name": "dog"}]


# ---------------------------------------------------------------- who writes what


def roboflow_coco(root):
    """A group above the classes, with the number 0 and no box; names with a hash; valid/."""
    group = {"id": 0, "name": "animals", "supercategory": "none"}
    own = [{"id": k, "name": n, "supercategory": "animals"} for k, n in enumerate(CLASSES, 1)]
    for split, names in (("train", "abc"), ("valid", "d")):
        files = [f"{name}_jpg.rf.0f3a.jpg" for name in names]
        for file in files:
            save_picture(root / split / file)
        content = coco(files, [group, *own], iscrowd=0)
        write(root / split / "_annotations.coco.json", json.dumps(content))
    write(root / "README.dataset.txt", "# cats\n")


def roboflow_voc(root):
    for split, names in (("train", "abc"), ("valid", "d")):
        for name in names:
            file = f"{name}_png.rf.77.jpg"
            boxes = save_picture(root / split / file)
            voc(root / split / f"{name}_png.rf.77.xml", file, boxes)


def roboflow_yolo(root):
    """data.yaml with ../train/images, which lies beside it, not above."""
    for split, names in (("train", "abc"), ("valid", "d")):
        for name in names:
            boxes = save_picture(root / split / "images" / f"{name}.rf.1.jpg")
            write(root / split / "labels" / f"{name}.rf.1.txt", yolo_rows(boxes).rstrip("\n"))
    lines = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
    write(root / "data.yaml", f"{lines}names: ['cat', 'dog']\n\nroboflow:\n  version: 2\n")
    write(root / "README.roboflow.txt", "0 of\n")


def ultralytics(root):
    """A path of another machine, names by number; a polygon in place of a box."""
    for split, names in (("train", "abc"), ("val", "d")):
        for name in names:
            boxes = save_picture(root / "images" / split / f"{name}.jpg")
            write(root / "labels" / split / f"{name}.txt", yolo_rows(boxes))
    polygon = "0 0.25 0.375 0.75 0.375 0.75 0.875 0.5 0.5 0.25 0.875\n"  # around c's cat
    write(root / "labels" / "train" / "c.txt", polygon)
    write(root / "labels" / "train.cache", "binary")
    lines = "path: /content/datasets/cats\ntrain: images/train\nval: images/val\ntest:\n"
    write(root / "cats.yaml", f"{lines}names:\n  0: cat\n  1: dog\n")


def cvat_coco(root):
    """No split: default."""
    for name in BOXES:
        save_picture(root / "images" / "default" / f"{name}.png")
    content = coco([f"{name}.png" for name in BOXES], PLAIN, iscrowd=0)
    write(root / "annotations" / "instances_default.json", json.dumps(content))


def cvat_voc(root):
    """default.txt, pictures in folders, PNG, more fields."""
    more = "<occluded>0</occluded><attributes><attribute><name>x</name></attribute></attributes>"
    for name in BOXES:
        boxes = save_picture(root / "JPEGImages" / "cam 1" / f"{name}.png")
        voc(root / "Annotations" / "cam 1" / f"{name}.xml", f"cam 1/{name}.png", boxes, more=more)
    names = "".join(f"cam 1/{name}\n" for name in BOXES)
    write(root / "ImageSets" / "Main" / "default.txt", names)
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\n")


def cvat_yolo(root):
    """Darknet's files: obj.data, obj.names, a list with a folder that is not there."""
    for name in BOXES:
        boxes = save_picture(root / "obj_train_data" / f"{name} 1.jpg")
        write(root / "obj_train_data" / f"{name} 1.txt", yolo_rows(boxes))
    lines = "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    write(root / "obj.data", lines)
    write(root / "obj.names", "cat\ndog\n")
    write(root / "train.txt", "".join(f"data/obj_train_data/{name} 1.jpg\n" for name in BOXES))


def labelimg_voc(root):
    """All in one folder, names with spaces, a byte order mark, Windows' line ends."""
    for name in BOXES:
        boxes = save_picture(root / f"{name} copy (1).JPG")
        voc(root / f"{name} copy (1).xml", f"{name} copy (1).JPG", boxes)
        text = (root / f"{name} copy (1).xml").read_text()
        write(root / f"{name} copy (1).xml", BOM + text.replace("\n", "\r\n"))


def labelimg_yolo(root):
    for name in BOXES:
        boxes = save_picture(root / f"{name}.jpg")
        write(root / f"{name}.txt", BOM + yolo_rows(boxes).replace("\n", "\r\n"))
    write(root / "classes.txt", BOM + "cat\r\ndog\r\n")


def labelme(root):
    """A rectangle drawn from below, a polygon, pictures in another folder of Windows'."""
    for name in BOXES:
        shapes = []
        for kind, x1, y1, x2, y2 in save_picture(root / f"{name}.jpg"):
            points, shape = [[x2, y2], [x1, y1]], "rectangle"
            if kind == "dog":
                points, shape = [[x1, y1], [x2, (y1 + y2) / 2], [(x1 + x2) / 2, y2]], "polygon"
            shapes.append({"label": kind, "points": points, "shape_type": shape, "flags": {}})
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imageData": None}
        content |= {"imagePath": f"..\\images\\{name}.jpg", "imageHeight": 80, "imageWidth": 120}
        write(root / f"{name}.json", json.dumps(content))


def raccoon(root):
    """images/ beside annotations/, and no split, as on GitHub."""
    for name in BOXES:
        boxes = save_picture(root / "images" / f"{name}-1.jpg")
        voc(root / "annotations" / f"{name}-1.xml", f"{name}-1.jpg", boxes)
    write(root / "data" / "raccoon_labels.csv", "filename,width,height,class,xmin\n")


def kaggle_png(root):
    """Capitals, PNG, numbers with a fraction; what a Mac adds to an archive."""
    for name in BOXES:
        boxes = save_picture(root / "Images" / f"{name}.png")
        voc(root / "Annotations" / f"{name}.xml", f"{name}.png", boxes)
        write(root / "Annotations" / f"._{name}.xml", "\x00\x05\x16\x07")
        write(root / "Images" / f"._{name}.png", "\x00\x05\x16\x07")


def kaggle_voc(root):
    """VOC 2012 of Kaggle: a folder in a folder of its name; the test part beside it has no list."""
    kit = root / "VOC2012_train_val" / "VOC2012_train_val"
    for name in BOXES:
        boxes = save_picture(kit / "JPEGImages" / f"{name}.jpg")
        voc(kit / "Annotations" / f"{name}.xml", f"{name}.jpg", boxes)
    write(kit / "ImageSets" / "Main" / "train.txt", "a\nb\nc\n")
    write(kit / "ImageSets" / "Main" / "val.txt", "d\n")
    write(kit / "ImageSets" / "Main" / "trainval.txt", "a\nb\nc\nd\n")
    write(kit / "ImageSets" / "Main" / "cat_train.txt", "a  1\nb -1\nc  1\n")
    (root / "VOC2012_test" / "VOC2012_test" / "JPEGImages").mkdir(parents=True)


def coco_2017(root):
    """COCO's own files, of other kinds beside those of boxes."""
    for split, names in (("train2017", "abc"), ("val2017", "d")):
        files = [f"{name}.jpg" for name in names]
        for file in files:
            save_picture(root / split / file)
        for kind in ("captions", "instances", "person_keypoints"):
            content = coco(files, PLAIN, iscrowd=0)
            if kind != "instances":
                content["annotations"] = []
            write(root / "annotations" / f"{kind}_{split}.json", json.dumps(content))


def via_coco(root):
    """VIA's export: numbers of pictures as text, of categories as both, of crowds as text."""
    for name in BOXES:
        save_picture(root / f"{name}.jpg")
    categories = [{"id": 1, "name": "cat"}, {"id": "2", "name": "dog"}]
    content = coco([f"{name}.jpg" for name in BOXES], categories, 0, text=True, iscrowd="0")
    write(root / "via_project_coco.json", json.dumps(content))


def label_studio_coco(root):
    """result.json and images/; names with Windows' separators, and quoted as in an address."""
    for name in BOXES:
        save_picture(root / "images" / f"{name}-my dog.jpg")
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    names = [f"images\\{name}-my%20dog.jpg" for name in BOXES]
    write(root / "result.json", BOM + json.dumps(coco(names, categories, 0)))


def one_class_of_roboflow(root):
    """The group is called like the only class."""
    save_picture(root / "train" / "c.jpg")
    save_picture(root / "train" / "d.jpg")
    group = {"id": 0, "name": "cat", "supercategory": "none"}
    content = coco(["c.jpg", "d.jpg"], [group, {"id": 1, "name": "cat", "supercategory": "cat"}])
    write(root / "train" / "_annotations.coco.json", json.dumps(content))


EXPORTS = {  # each with the data set to name, and whether val is a folder of its own
    roboflow_coco: ("coco", True), roboflow_voc: ("voc", True), roboflow_yolo: ("yolo", True),
    ultralytics: ("yolo", True), cvat_coco: ("coco", False), cvat_voc: ("voc", False),
    cvat_yolo: ("yolo", False), labelimg_voc: ("voc", False), labelimg_yolo: ("yolo", False),
    labelme: ("labelme", False), raccoon: ("voc", False), kaggle_png: ("voc", False),
    kaggle_voc: ("voc", True), coco_2017: ("coco", True), via_coco: ("coco", False),
    label_studio_coco: ("coco", False),
}  # fmt: skip


# ---------------------------------------------------------------- tests


class Folder(ScriptCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = Path(holder.name)

    def read(self, dataset, mode, root=None, **options):
        said = io.StringIO()
        with redirect_stdout(said):
            split = read_split(dataset, root or self.root, mode, **options)
        return split, said.getvalue()

    def train(self, dataset, *flags):
        where = ("--data_root", self.root, "--ckpt_path", self.root / "run")
        few = ("--epoch", 1, "--batch_size", 2, "--device", "cpu")
        task = ("--task", "detection", "--dataset", dataset)
        return script_here("train.py", *task, *where, *few, *flags)


class ExportTest(Folder):
    def test_read(self):
        """Every box of every picture, with its class; val as it is, or held out of train."""
        for export, (dataset, own_val) in EXPORTS.items():
            with self.subTest(export.__name__), tempfile.TemporaryDirectory() as place:
                export(root := Path(place))
                read = {}
                for mode in ("train", "val"):
                    split, said = self.read(dataset, mode, root)
                    self.assertEqual(split.classes, CLASSES)
                    for path, boxes, labels in zip(
                        split.paths, split.boxes, split.labels, strict=True
                    ):
                        names = [split.classes[label] for label in labels]
                        read[path.stem[0]] = [
                            (name, *box) for name, box in zip(names, boxes.tolist(), strict=True)
                        ]
                        self.assertNotIn("left out", said)
                    self.assertEqual("held out" in said, not own_val and mode == "val", said)
                    if mode == "val" and own_val:
                        self.assertEqual([path.stem[0] for path in split.paths], ["d"])
                self.assertEqual(read.keys(), BOXES.keys())
                for name, boxes in BOXES.items():
                    for (kind, *box), (other, *expected) in zip(read[name], boxes, strict=True):
                        self.assertEqual(kind, other)
                        np.testing.assert_allclose(box, expected, atol=1e-3)
                self.assertEqual(SOURCES[dataset].modes(root), ("train", "val"))

    def test_trained_and_tested(self):
        """Through the real scripts, a layout of each kind."""
        for export in (labelme, roboflow_yolo):
            dataset, _ = EXPORTS[export]
            with self.subTest(export.__name__), tempfile.TemporaryDirectory() as place:
                self.root = Path(place)
                export(self.root)
                done = self.train(dataset)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("2 classes of boxes", done.stdout)
                tested = script_here("test.py", "--ckpt_path", self.root / "run", "--no_show")
                self.assertEqual(tested.returncode, 0, tested.stderr)
                self.assertIn("Testing on 1 pictures", tested.stdout)

    def test_a_group_of_its_only_class(self):
        one_class_of_roboflow(self.root)
        split, said = self.read("coco", "train", val_share=0.5)
        self.assertEqual(split.classes, ("cat",))
        self.assertEqual({*np.concatenate(split.labels).tolist()}, {0})

    def test_another_name_of_the_data_set(self):
        """Who names the wrong one is told the right one."""
        for export, (dataset, _) in EXPORTS.items():
            others = {"coco", "voc", "yolo", "labelme"} - {dataset}
            with self.subTest(export.__name__), tempfile.TemporaryDirectory() as place:
                export(root := Path(place))
                for other in others:
                    with self.assertRaisesRegex(LabError, f"laid out as --dataset {dataset}$"):
                        self.read(other, "train", root)

    def test_where_it_lies(self):
        """An archive unpacks into folders of their own; of a set that lacks a split, no hint."""
        raccoon(self.root / "archive" / "raccoons")
        (self.root / "__MACOSX").mkdir()
        with self.assertRaisesRegex(
            LabError, "--data_root .*archive/raccoons is laid out as .* voc$"
        ):
            self.read("voc", "train")
        with self.assertRaisesRegex(LabError, "annotations of test as --dataset voc has them$"):
            self.read("voc", "test", self.root / "archive" / "raccoons")

    def test_two_pictures_of_a_name(self):
        raccoon(self.root)
        save_picture(self.root / "images" / "a-1.png")
        _, said = self.read("voc", "train")
        self.assertIn("1 pictures of a name that another has, not used (a-1.png)", said)

    def test_polygons_alone(self):
        """COCO's without boxes: those around the polygons."""
        cvat_coco(self.root)
        file = self.root / "annotations" / "instances_default.json"
        content = json.loads(file.read_text())
        for entry in content["annotations"]:
            x, y, w, h = entry.pop("bbox")
            entry["segmentation"] = [[x, y, x + w, y, x + w / 2, y + h]]
        write(file, json.dumps(content))
        split, said = self.read("coco", "train", val_share=0.25)
        for path, boxes in zip(split.paths, split.boxes, strict=True):
            self.assertEqual(boxes.tolist(), [[*box] for _, *box in BOXES[path.stem]])

    def test_other_lines_of_yolo(self):
        """Tabs, a certainty behind the box, key points; and class names of no use."""
        yaml = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
        for row, more in (
            ("1\t0.5\t0.5\t0.5\t0.5", ""),
            ("1 0.5 0.5 0.5 0.5 0.93", ""),
            ("1 0.5 0.5 0.5 0.5 0.1 0.1 0.9 0.9", "kpt_shape: [2, 2]\n"),
            ("1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75", ""),
        ):
            ultralytics(self.root)
            write(self.root / "cats.yaml", yaml + more)
            write(self.root / "labels" / "val" / "d.txt", row)
            split, said = self.read("yolo", "val")
            self.assertEqual((split.boxes[0].tolist(), said), ([[30, 20, 90, 60]], ""))
            self.assertEqual(split.labels[0].tolist(), [1])
        for names in ("{cat: 0}", "cat dog"):
            write(self.root / "cats.yaml", f"train: images/train\nnames: {names}\n")
            with self.assertRaisesRegex(LabError, "neither a list of classes nor a name"):
                self.read("yolo", "val")

    def test_what_roboflow_means_by_above(self):
        """../train/images is beside data.yaml, even where another set lies above."""
        roboflow_yolo(self.root / "cats")
        save_picture(self.root / "train" / "images" / "d.jpg")
        split, _ = self.read("yolo", "train", self.root / "cats")
        self.assertEqual([path.name[0] for path in split.paths], ["a", "b", "c"])

    def test_lists_of_pictures(self):
        ultralytics(self.root)
        write(self.root / "train.txt", "./images/train/a.jpg\r\nimages\\train\\b.jpg\r\n")
        write(self.root / "cats.yaml", "train: train.txt\nval: images/val\nnames: [cat, dog]\n")
        split, said = self.read("yolo", "train")
        self.assertEqual([path.name for path in split.paths], ["a.jpg", "b.jpg"])
        self.assertEqual((list(map(len, split.boxes)), said), ([2, 1], ""))


class SaidBeforeTrainingTest(Folder):
    """Through train.py: what a student would only notice afterwards is said before."""

    def write(self, splits, difficult=()):
        """Write pictures and VOC's XML of splits; of some pictures, all boxes are difficult."""
        for split, names in splits.items():
            for name in names:
                boxes = save_picture(self.root / split / f"{name}.png")
                file = self.root / split / f"{name}.xml"
                voc(file, f"{name}.png", boxes)
                if name in difficult:
                    text = file.read_text().replace("<difficult>0", "<difficult>1")
                    file.write_text(text)

    def test_classes_that_train_lacks(self):
        """One that only val has is left out there; one of which train has difficult boxes alone."""
        self.write({"train": ["c", "d", "b"], "val": ["a"]}, difficult=("b",))
        done = self.train("voc")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("train has no box of dog: nothing is learned of that", done.stdout)
        (self.root / "train" / "b.xml").unlink()
        done = self.train("voc")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("left out 1 box: 1 of the unknown class 'dog' (a.png)", done.stdout)

    def test_difficult_boxes_alone(self):
        self.write({"train": ["c", "d"], "val": ["a"]}, difficult=("a",))
        done = self.train("voc")
        self.assert_refused(done, 1, "val leaves nothing to find", "only difficult ones")

    def test_pictures_of_both_splits(self):
        """As in coco128, whose val is its train."""
        ultralytics(self.root)
        text = (self.root / "cats.yaml").read_text().replace("images/val", "images/train")
        (self.root / "cats.yaml").write_text(text)
        done = self.train("yolo")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("3 pictures of val are in train as well", done.stdout)

    def test_labels_without_a_picture(self):
        labelimg_yolo(self.root)
        (self.root / "a.jpg").unlink()
        done = self.train("yolo")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("1 files of labels without a picture (a.txt)", done.stdout)

    def test_a_broken_description(self):
        roboflow_yolo(self.root)
        (self.root / "data.yaml").write_text("names: [cat")
        self.assert_refused(self.train("yolo"), 1, "data.yaml is no YAML")


class ForeignTest(Folder):
    """What is not read is named, with what to do."""

    FILES = {
        "annotations.xml": (
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations><image name="a.jpg">'
            '<box label="cat" xtl="1" ytl="2" xbr="3" ybr="4"/></image></annotations>',
            "CVAT's own XML: export",
        ),
        "via_region_data.json": (
            json.dumps({"a.jpg123": {"filename": "a.jpg", "size": 123, "regions": []}}),
            "VIA's own project",
        ),
        "via_project.json": (json.dumps({"_via_settings": {}, "_via_img_metadata": {}}), "VIA's"),
        "tasks.json": (json.dumps([{"id": 1, "data": {}, "annotations": []}]), "Label Studio"),
        "createml.json": (json.dumps([{"image": "a.jpg", "annotations": []}]), "Create ML"),
        "_annotations.csv": (
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,120,80,cat,1,2,3,4\n",
            "a table of boxes: export",
        ),
        "cats.tfrecord": ("binary", "TensorFlow's records"),
    }

    def test_named(self):
        for file, (text, words) in self.FILES.items():
            for folder in ("", "train"):
                with self.subTest(file, folder=folder), tempfile.TemporaryDirectory() as place:
                    self.root = Path(place)
                    save_picture(self.root / folder / "a.jpg")
                    write(self.root / folder / file, text)
                    for dataset in ("coco", "voc"):
                        self.assert_refused(self.train(dataset), 1, words, file)


if __name__ == "__main__":
    unittest.main()
