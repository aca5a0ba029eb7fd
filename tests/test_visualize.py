"""visualize.py's flags, and its pictures as files."""

import shutil
import tempfile
import unittest
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torchvision import models

from datasets import ImageDataset, Split, get_data_loader
from lab import checkpoint
from lab.console import UsageError
from lab.flags import plain_name
from lab.images import Preprocess
from lab.registry import Design, build
from looking.choice import class_index, examples, spread_over_classes
from networks import Classifier, ClassifierConfig, NonLocalBlock
from tasks.classification import TASK
from tasks.classification.networks import NETWORKS
from tasks.classification.subject import brightness
from tasks.style import networks as style
from tests.support import CLASSES, ScriptCase, make_images, script, script_here
from world import signs


class FlagTest(unittest.TestCase):
    def test_spread_over_classes(self):
        """As many of each class as there are, up to an even share; all of them if they fit."""
        labels = np.repeat([0, 1, 2], [100, 7, 40])
        chosen = spread_over_classes(labels, 47)
        self.assertEqual(np.bincount(labels[chosen]).tolist(), [20, 7, 20])
        self.assertEqual(len(set(chosen.tolist())), 47)
        every = spread_over_classes(labels, 1000)
        self.assertEqual(every.tolist(), list(range(147)))

    def test_examples_are_of_middle_brightness(self):
        """Of each class the nearest to the median of all, in the order of classes."""
        labels = np.array([2, 0, 0, 0, 2, 2, 1, 1])
        light = np.array([5, 0, 90, 42, 250, 60, 7, 7])  # half of them are below 24.5
        self.assertEqual(examples(labels, light.__getitem__, 3), [3, 6, 0])
        self.assertEqual(examples(labels, light.__getitem__, 2), [3, 5])  # first and last
        self.assertEqual(examples(labels, light.__getitem__, 1), [3])
        self.assertEqual(examples(labels, light.__getitem__, 6), [3, 1, 6, 7, 0, 5])
        self.assertEqual(sorted(examples(labels, light.__getitem__, 9)), list(range(8)))

    def test_brightness_is_that_of_the_middle(self):
        pixels = torch.full((2, 8, 6, 3), 200, dtype=torch.uint8)
        pixels[0, 2:6, 1:5] = 10
        split = Split(("a",), [], torch.zeros(2, dtype=torch.int64), pixels)
        dataset = ImageDataset(split, Preprocess((8, 6)))
        self.assertEqual([brightness(dataset, index) for index in range(2)], [10, 200])

    def test_a_class_by_index_or_name(self):
        """A name with or without its number, in any case, with spaces or underscores."""
        for text in ("14", "14_no_entry", "no_entry", "No entry", "NO_ENTRY"):
            self.assertEqual(class_index(text, signs.CLASSES), 14)
        self.assertEqual(class_index("speed limit 30", signs.CLASSES), 1)
        self.assertEqual(class_index("hot dog", ["cat", "hot dog"]), 1)

    def test_names_that_are_numbers(self):
        """Folders 0 to 11 are in the order 0, 1, 10, 11, 2: 10 is the one of that name."""
        names = sorted(map(str, range(12)))
        for text in names:
            self.assertEqual(names[class_index(text, names)], text)
        numbered = ["05_a", "10_b", "20_c"]
        self.assertEqual([class_index(text, numbered) for text in ("5", "10", "2")], [0, 1, 2])
        self.assertEqual(class_index("1", ["a", "3d", "1"]), 2)
        self.assertEqual(class_index("1", ["a", "3d", "10"]), 1)
        self.assertEqual(class_index("1", ["1_a", "1_b", "2"]), 1)

    def test_no_such_class(self):
        """An index names the range, a name those spelt alike."""
        for text, words in (
            ("26", "--target 26 is out of range: the classes are 0 to 25"),
            ("-1", "--target -1 is out of range: the classes are 0 to 25"),
            ("no_entri", "no such class; did you mean no_entry"),
            ("--5", "no such class. An index from 0 to 25"),
            ("²", "no such class. An index from 0 to 25"),
            ("zebra", "no such class. An index from 0 to 25"),
        ):
            with self.subTest(text), self.assertRaises(UsageError) as caught:
                class_index(text, signs.CLASSES)
            self.assertIn(words, str(caught.exception))


class Looker(Classifier):
    """A classifier that looks all over its first features."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        block = NonLocalBlock(32, identity_init=False, dimensions=2, sub_sample=True)
        self.conv_net[0] = torch.nn.Sequential(self.conv_net[0], block)


@dataclass
class ThreeClasses:
    """Configs of a network whose number of classes is all that is asked."""

    num_classes: int = 3


class ScriptTest(ScriptCase):
    """Without a display, on untrained checkpoints of the contract's keys alone."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_images(cls.base / "data", {"train": 2, "val": 1, "test": 12})
        torch.manual_seed(0)
        registered = {"looker": Design(ClassifierConfig, lambda config: Looker(**vars(config)))}
        patch = mock.patch.dict(NETWORKS, registered)
        patch.start()
        cls.addClassCleanup(patch.stop)
        grey = {"mean": (0.5,), "std": (0.5,)}
        for name, model, more in (
            ("plain", Classifier(3, 3, True), {"class_names": CLASSES}),
            ("stn", Classifier(3, 3, True, True), {}),
            ("grey", Classifier(1, 3), {"preprocess": grey}),
            ("looker", Looker(3, 3, True), {"network": "looker"}),
        ):
            folder = cls.base / name
            folder.mkdir()
            state = {"model_state": model.state_dict(), "configs": vars(model.config)}
            checkpoint.save(folder / "ckpt_epoch_10.pth", state | more)

    def flags(self, kind, run="plain", *more):
        flags = {"type": kind, "ckpt_path": self.base / run, "data_root": self.data}
        flags["save_dir"] = self.base / "visualized"
        given = [part for name, value in flags.items() for part in (f"--{name}", value)]
        return ("visualize.py", *given, *more)

    def assert_saved(self, done, *names: str) -> None:
        """It says nothing but what it saved, and these are pictures."""
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for name in names:
            path = self.base / "visualized" / name
            self.assertIn(f"Saved {path}", done.stdout)
            with Image.open(path) as picture:
                self.assertEqual(picture.format, "JPEG")
                self.assertGreater(picture.width, 500)
            path.unlink()

    def fool(self, run: str, *more):
        """Return what --type fooling says, and the tiles that it would draw."""
        with mock.patch("tasks.viewing.draw") as draw, mock.patch("tasks.viewing.publish"):
            done = script_here(*self.flags("fooling", run, *more))
        (tiles,) = draw.call_args.args[0].parts[0].tiles
        return done, [tile.image for tile in tiles]

    def test_pictures_have_the_documented_names(self):
        """Each kind; the first as a process of its own."""
        run = script
        for kind, folder, names, *more in (
            ("filter", "plain", ["filter/filter_layer_0.jpg"]),
            ("feature", "plain", ["feature/layer_1/feature_map.jpg"], "--layer_idx", 1),
            ("feature", "stn", ["feature/layer_0/feature_map_image_idx_5.jpg"], "--image_idx", 5),
            ("tsne", "plain", ["tsne/tsne.jpg"]),
            ("stn", "stn", ["stn/stn.jpg"]),
            ("saliency", "stn", ["saliency/saliency.jpg"]),
            ("fooling", "plain", ["fooling/fooling_steps_3.jpg"], "--steps", 3),
            (
                "class",
                "plain",
                ["class/class_steps_9.jpg", "class/course_steps_9.jpg"],
                "--steps",
                9,
            ),
            ("invert", "stn", ["invert/invert_steps_2.jpg"], "--steps", 2),
            ("attention", "looker", ["attention/attention.jpg"]),
            ("cam", "stn", ["cam/cam.jpg"]),
            ("cam", "plain", ["cam/cam_layer_idx_1.jpg"], "--layer_idx", 1),
        ):
            with self.subTest(kind, folder=folder):
                self.assert_saved(run(*self.flags(kind, folder, *more)), *names)
                run = script_here

    def test_what_was_asked_for_is_in_name_and_title(self):
        """Of two pictures none overwrites the other; the scaffold's names are those of defaults."""
        asked = ("--layer_idx", 1, "--image_idx", 5)
        for more, path, said in (
            (asked[:2], "feature/layer_1/feature_map.jpg", ""),
            (asked, "feature/layer_1/feature_map_image_idx_5.jpg", "\n--image_idx 5"),
        ):
            with (
                mock.patch("tasks.viewing.draw") as draw,
                mock.patch("tasks.viewing.publish") as publish,
            ):
                done = script_here(*self.flags("feature", "plain", *more))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(publish.call_args.args[1], self.base / "visualized" / path)
            title = "Layer 1 (conv_net.1): 64 feature maps of 16x16"
            self.assertEqual(draw.call_args.args[0].title, title + said)

    def test_the_assignment_s_picture(self):
        """The scaffold's command, which asks for image 50, makes the file the scaffold makes."""
        data = make_images(self.base / "more", {"test": 17})
        asked = ("--layer_idx", 1, "--image_idx", 50, "--data_root", data)
        path = "feature/layer_1/feature_map.jpg"
        self.assert_saved(script_here(*self.flags("feature", "plain", *asked)), path)

    def test_a_grey_network(self):
        """Pictures of one channel are drawn in grey: differences have no colour of their own."""
        self.assert_saved(
            script_here(*self.flags("saliency", "grey", "--target", 2)),
            "saliency/saliency_target_2.jpg",
        )
        self.assert_saved(
            script_here(*self.flags("class", "grey", "--steps", 1)), "class/class_steps_1.jpg"
        )
        _, tiles = self.fool("grey", "--steps", 3)
        self.assertEqual([tile.shape for tile in tiles], [(32, 32, 3)] * 4)
        for tile in tiles:
            np.testing.assert_array_equal(tile[..., 0], tile[..., 2])

    def test_what_fooling_draws(self):
        """Original, fooling image, and their difference, as it is and ten times, about grey."""
        done, (original, fooling, once, tenfold) = self.fool("plain", "--steps", 2, "--lr", 0.3)
        difference = fooling - original
        self.assertGreater(abs(difference).max(), 0)
        np.testing.assert_allclose(once, 0.5 + difference, atol=1e-6)
        np.testing.assert_allclose(tenfold, np.clip(0.5 + 10 * difference, 0, 1), atol=1e-5)
        l2, largest = np.linalg.norm(difference), abs(difference).max()
        self.assertIn(f"L2 {l2:.2f}, L-infinity {largest:.3f}", done.stdout)

    def test_fooling_says_what_became_of_it(self):
        """Already the target, or not within the steps."""
        said = [
            script_here(
                *self.flags("fooling", "plain", "--target", name, "--steps", 1, "--lr", 1e-6)
            )
            for name in CLASSES
        ]
        verdicts = [done.stdout.splitlines()[0] for done in said]
        self.assertEqual(sum("already read as" in line for line in verdicts), 1)
        unreached = [line for line in verdicts if "within 1 step; try more --steps" in line]
        self.assertEqual(len(unreached), 2)

    def test_out_of_range_names_the_range(self):
        for kind, more, words in (
            ("feature", ("--layer_idx", "5"), "--layer_idx 5 is out of range: the convolution"),
            ("filter", ("--layer_idx", "-1"), "layers are 0 to 4"),
            ("feature", ("--image_idx", "36"), "--image_idx 36 is out of range: the test images"),
            ("feature", ("--image_idx", "-1"), "images are 0 to 35"),
            ("saliency", ("--target", "3"), "--target 3 is out of range: the classes are 0 to 2"),
            ("class", ("--target", "gren"), "did you mean green"),
            ("saliency", ("--target", "0", "1"), "--type saliency takes one --target, not 2"),
        ):
            with self.subTest(words):
                self.assert_refused(script_here(*self.flags(kind, "plain", *more)), 2, words)

    def test_what_the_flags_cannot_mean(self):
        own = next((self.data / "test").rglob("*.png"))
        for kind, more, words in (
            ("dream", (), ("--type", "dream", *TASK.views)),
            ("feature", ("--image", own, "--image_idx", 1), ("--image and --image_idx",)),
            ("tsne", ("--model", "resnet18"), ("--type tsne", "--ckpt_path")),
            ("filter", ("--weights", own), ("--weights belongs to --model",)),
            ("class", ("--image", own, "--seed", 2), ("no use for --image; it takes --target,",)),
            ("tsne", ("--layer_idx", 1, "--lr", 2), ("no use for --layer_idx, --lr",)),
            ("feature", ("--image_idx", "1e3"), ("--image_idx", "1e3")),
        ):
            with self.subTest(words):
                self.assert_refused(script_here(*self.flags(kind, "plain", *more)), 2, *words)

    def test_help_names_every_view(self):
        shown = script_here("visualize.py", "--help").stdout
        for name in TASK.views:
            self.assertRegex(shown, rf"\b{name}\b")

    def test_a_network_of_another_task(self):
        """One that paints is answered with the views that it has."""
        network = build(style.NETWORKS, "transform", {"width": 2, "blocks": 1})
        state = {"model_state": network.state_dict(), "configs": {"width": 2, "blocks": 1}}
        folder = self.base / "style"
        folder.mkdir()
        checkpoint.save(folder / "ckpt_epoch_10.pth", state | {"task": "style"})
        done = script_here(*self.flags("filter", "style"))
        self.assert_refused(done, 2, "--type filter is not for", folder, "try painted")

    def test_a_network_that_tells_nothing_apart(self):
        """All features are the same, or no weight is a number: one line."""
        state = checkpoint.load(self.base / "plain" / "ckpt_epoch_10.pth")
        for name, value, words in (
            ("constant", 0.0, "features are the same of all images"),
            ("diverged", float("nan"), "training diverged"),
        ):
            folder = self.base / name
            folder.mkdir()
            weights = state["model_state"]
            weights |= {key: torch.full(w.shape, value) for key, w in weights.items() if w.dim()}
            checkpoint.save(folder / "ckpt_epoch_10.pth", state)
            done = script_here(*self.flags("tsne", name))
            self.assert_refused(done, 1, words)

    def test_names_of_classes(self):
        """Mathematics, backslashes, 250 letters, bytes that are no UTF-8: in no picture's way."""
        names = ("$a_b$", "back\\slash", "n" * 250, "no text \udcff")  # of folders
        folder, data = self.base / "names", self.base / "named"
        folder.mkdir()
        for name in names:
            (data / "test" / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), len(name)).save(data / "test" / name / "0.png")
        model = Classifier(3, len(names), True, use_non_local=True)
        state = {"model_state": model.state_dict(), "configs": vars(model.config)}
        classes = [*names[:-1], r"no text \xff"]  # as the data set gives them
        checkpoint.save(folder / "ckpt_epoch_10.pth", state | {"class_names": classes})
        here, step, third = ("--data_root", data), ("--steps", 1), ("--image_idx", 3)
        run = script
        for kind, more in (
            ("fooling", (*third, *step)), ("tsne", ()), ("class", step), ("saliency", ()),
            ("attention", third),
        ):  # fmt: skip
            asked = f"_{'_'.join(map(str, more))}".replace("--", "") if more else ""
            with self.subTest(kind):
                done = run(*self.flags(kind, "names", *here, *more))
                self.assert_saved(done, f"{kind}/{kind}{asked}.jpg")
                run = script_here
        own = data / "\udcff$x$.png"
        Image.new("RGB", (32, 32)).save(own)
        done = script_here(*self.flags("feature", "names", "--image", own))
        self.assert_saved(done, f"feature/layer_0/feature_map_image_{plain_name(str(own))}.jpg")

    def test_networks_of_torchvision(self):
        """Auxiliary classifiers that nothing runs through; images of one size alone."""
        own = next((self.data / "test").rglob("*.png"))
        googlenet = build(NETWORKS, "googlenet", {"num_classes": 3})
        vit = models.VisionTransformer(96, 16, 1, 2, 8, 16, num_classes=3)
        image = ("--image", own), f"_image_{plain_name(str(own))}"
        for kind, network, model, (more, name) in (
            ("invert", "googlenet", googlenet, (image[0], f"invert/invert{image[1]}")),
            ("filter", "vit_tiny", vit, ((), "filter/filter_layer_0")),
        ):
            folder = self.base / network
            folder.mkdir()
            state = {"model_state": model.state_dict(), "configs": {"num_classes": 3}}
            state |= {"network": network, "preprocess": {"size": (96, 96)}}
            checkpoint.save(folder / "ckpt_epoch_10.pth", state)
            with (
                self.subTest(kind, network=network),
                mock.patch.dict(NETWORKS, vit_tiny=Design(ThreeClasses, lambda _: vit)),
            ):
                flags = self.flags(kind, network, *more, "--steps", 1)
                self.assert_saved(script_here(*flags), f"{name}_steps_1.jpg")

    def test_what_needs_no_data(self):
        """Pictures that show no photograph."""
        nowhere = ("--data_root", self.base / "nowhere", "--steps", 1)
        for kind, name in (("filter", "filter/filter_layer_0"), ("class", "class/class")):
            done = script_here(*self.flags(kind, "plain", *nowhere))
            self.assert_saved(done, f"{name}_steps_1.jpg")

    def test_a_picture_of_ones_own(self):
        """--image takes a file; what is none, or no image, is refused."""
        own = next((self.data / "test").rglob("*.png"))
        done = script_here(*self.flags("saliency", "plain", "--image", own, "--data_root", "none"))
        self.assert_saved(done, f"saliency/saliency_image_{plain_name(str(own))}.jpg")
        text = self.base / "text.png"
        text.write_text("no image")
        for path, words in ((text, "not an image"), (self.base / "missing.png", "no image")):
            done = script_here(*self.flags("feature", "plain", "--image", path))
            self.assert_refused(done, 1, path, words)

    def test_what_the_network_lacks(self):
        """A spatial transformer, a non-local block: says how to train one."""
        for kind, flag in (("stn", "--stn"), ("attention", "--non_local")):
            done = script_here(*self.flags(kind))
            self.assert_refused(done, 1, self.base / "plain", f"python train.py --bn {flag}")

    def test_a_position_outside(self):
        done = script_here(*self.flags("attention", "looker", "--position", 32, 0))
        self.assert_refused(done, 1, "(32, 0)", "(31, 31)")
        done = script_here(*self.flags("attention", "looker", "--layer_idx", 1))
        self.assert_refused(done, 2, "the non-local blocks are 0 to 0")

    def test_a_folder_that_cannot_be_written(self):
        blocked = self.base / "file"
        blocked.write_text("in the way")
        done = script_here(*self.flags("feature", "plain", "--save_dir", blocked))
        self.assert_refused(done, 1, "cannot write")

    def test_no_test_split(self):
        data = Path(shutil.copytree(self.data, self.base / "untested"))
        shutil.rmtree(data / "test")
        done = script_here(*self.flags("tsne", "plain", "--data_root", data))
        self.assert_refused(done, 1, "no test/")

    def test_loader_order_is_the_index(self):
        """--image_idx counts in the order of folders and names."""
        loader = get_data_loader(self.data, "test", 32, 4)
        paths = sorted((self.data / "test").rglob("*.png"))
        self.assertEqual(loader.dataset.split.paths, paths)


if __name__ == "__main__":
    unittest.main()
