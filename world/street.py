"""A street, drawn: its picture, every sign and object in it, the label of every pixel, a sentence.

view = draw_street(np.random.default_rng(0), (368, 640))
view.picture, view.objects, view.labels, view.sentence
draw_street_dataset(Path("data/street"))             # train/ val/ test/
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image

from world.buildings import fence, gantry, house, poster, rail
from world.camera import compress, expose
from world.canvas import Canvas, Note, Window
from world.faces import FACES, category
from world.ground import draw_ground, draw_horizon
from world.light import shine
from world.parallel import Chunk, Drawing
from world.plants import bush, hedge, tree
from world.roadside import bollard, cyclist, lamp, person, post, traffic_light, wires
from world.scene import Scene, Thing, imagine
from world.vehicles import clutter, vehicle

DRAW: dict[str, Callable[[Canvas, Thing, Generator], None]] = {
    "house": house, "hedge": hedge, "fence": fence, "rail": rail, "gantry": gantry,
    "leafy": tree, "bare": tree, "conifer": tree, "bush": bush,
    "post": post, "lamp": lamp, "traffic_light": traffic_light, "bollard": bollard,
    "wires": wires, "poster": poster, "box": clutter, "person": person, "cyclist": cyclist,
    "car": vehicle, "van": vehicle, "lorry": vehicle, "bus": vehicle,
}  # fmt: skip
OBJECTS = ("car", "van", "lorry", "bus", "person", "cyclist", "traffic_light", "plate", "back")
NEAREST = 2.0  # metres: what ends before that is not drawn
# Of what a viewer can be asked to find. The photographs of the detection benchmark have hardly a
# sign with less, and it leaves out those below 16 pixels.
LEAST_SHARE = 0.5
LEAST_SIDE = 14  # pixels
LEAST_CONTRAST = 8.0  # grey levels


class Seen(NamedTuple):
    """Something that the picture shows."""

    kind: str  # "sign" or one of OBJECTS; a plate is no sign, a back is a sign's from behind
    name: str  # of FACES or PLATES; of what is no plate its kind
    box: tuple[int, int, int, int]  # left, top, right, bottom: tightest around its pixels
    pixels: int
    share: float  # of it that is seen, neither hidden nor cut off
    contrast: float  # standard deviation of its pixels in the picture, in grey levels
    distance: float  # metres ahead of the camera
    surface: int  # its number in View.surfaces

    @property
    def clear(self) -> bool:
        """Whether a viewer can be asked to find it."""
        left, top, right, bottom = self.box
        return (
            self.share >= LEAST_SHARE
            and max(right - left, bottom - top) >= LEAST_SIDE
            and self.contrast >= LEAST_CONTRAST
        )


class View(NamedTuple):
    picture: np.ndarray  # (H, W, 3) uint8
    labels: np.ndarray  # (H, W) uint8, in canvas.LABELS
    surfaces: np.ndarray  # (H, W) uint8
    objects: tuple[Seen, ...]  # the nearest first
    sentence: str


def draw_street(rng: Generator, size: tuple[int, int], zoom: float = 1.0) -> View:
    """A new street in a picture of `size` (height, width).

    zoom: the picture is a part, 1 / zoom as high and wide, of a larger one; in most cases a part
    that shows a sign.
    """
    scene = imagine(rng)
    frame = round(size[0] * zoom), round(size[1] * zoom)
    return see(scene, look(rng, scene, frame, size))


def look(rng: Generator, scene: Scene, frame: tuple[int, int], size: tuple[int, int]) -> Window:
    """A window of `size` in the frame (height, width)."""
    room = np.subtract(frame, size)
    corner = rng.random(2) * room
    posts = [thing for thing in scene.things if thing.kind == "post"]
    if posts and rng.random() < 0.85:
        chosen = posts[rng.integers(len(posts))]
        canvas = Canvas(scene.camera, Window(*frame, 0, 0, 1, 1))
        middle = np.array((chosen.x, chosen.plates[0].y, chosen.z))
        x, y = canvas.project(middle) / canvas.SUPERSAMPLE
        corner = (y, x) - rng.uniform(0.1, 0.9, 2) * size
    top, left = np.clip(corner, 0, room).astype(int).tolist()
    return Window(*frame, top, left, *size)


def see(scene: Scene, window: Window) -> View:
    """What a camera's window shows of the scene; the same at every call."""
    rng = default_rng(scene.seed)
    canvas = Canvas(scene.camera, window)
    draw_horizon(canvas, rng)
    draw_ground(canvas, scene, rng)
    for thing in sorted(scene.things, key=lambda thing: -(thing.z + thing.length)):
        if thing.z + thing.length > NEAREST:
            DRAW[thing.kind](canvas, thing, default_rng(thing.seed))
    layers = canvas.finish()
    surfaces = layers[1]
    labels = np.array([surface.label for surface in canvas.surfaces], np.uint8).take(surfaces)
    light = shine(scene, canvas, layers, rng)
    picture = expose(rng, light.transpose(1, 2, 0), surfaces.shape, motion=0.8, veil=0.25)
    if rng.random() < 0.6:
        picture = compress(picture, int(rng.integers(30, 92)))
    objects = find(surfaces, canvas.notes, picture)
    return View(picture, labels, surfaces, objects, sentence_of(scene, objects, window.width))


def find(surfaces: np.ndarray, notes: Mapping[int, Note], picture: np.ndarray) -> tuple[Seen, ...]:
    """The tightest box around the pixels of each object, the nearest first."""
    height, width = surfaces.shape
    numbers = surfaces.astype(np.intp)
    rows = np.bincount((numbers + 256 * np.arange(height)[:, None]).ravel(), minlength=256 * height)
    columns = np.bincount((numbers + 256 * np.arange(width)).ravel(), minlength=256 * width)
    rows, columns = rows.reshape(height, 256).T, columns.reshape(width, 256).T
    counts = rows.sum(1).tolist()
    found = []
    for surface, (kind, name, distance, whole) in notes.items():
        if count := counts[surface]:
            y, x = np.flatnonzero(rows[surface]), np.flatnonzero(columns[surface])
            box = int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1
            share = min(1.0, count / whole) if whole else 0.0
            part = np.s_[box[1] : box[3], box[0] : box[2]]
            contrast = float(picture[part][surfaces[part] == surface].std(0).max())
            found.append(Seen(kind, name, box, count, share, contrast, distance, surface))
    return tuple(sorted(found, key=lambda seen: seen.distance))


# ---------------------------------------------------------------- in words

PLACES = {
    "town": "a street in a town", "suburb": "a street of houses", "country": "a country road",
    "motorway": "a motorway",
}  # fmt: skip
SKIES = {"clear": "a clear sky", "clouds": "white clouds", "overcast": "a grey sky"}
COUNTED = {
    "car": "cars", "van": "vans", "lorry": "lorries", "bus": "buses", "person": "people",
    "cyclist": "cyclists", "traffic_light": "traffic lights",
}  # fmt: skip


def sentence_of(scene: Scene, objects: tuple[Seen, ...], width: int) -> str:
    """One sentence: the place, the sky, what moves and stands there, each sign and where it is."""
    counts = Counter(seen.kind for seen in objects if seen.clear and seen.kind in COUNTED)
    parts = [
        f"{count} {COUNTED[kind]}" if count > 1 else f"a {kind.replace('_', ' ')}"
        for kind, count in counts.items()
    ]
    for seen in objects:
        if seen.kind == "sign" and seen.clear:
            side = "left" if seen.box[0] + seen.box[2] < width else "right"
            name = seen.name.replace("_", " ")
            parts.append(f"the sign '{name}' {seen.distance:.0f} m ahead on the {side}")
    sentence = f"{PLACES[scene.place]} under {SKIES[scene.weather.sky]}"
    if parts:
        sentence += f", with {', '.join(parts[:-1])}{' and ' * (len(parts) > 1)}{parts[-1]}"
    return f"{sentence[0].upper()}{sentence[1:]}."


# ---------------------------------------------------------------- the data set

SIZE = (368, 640)  # height, width
ZOOM = (1.0, 2.2)
CATEGORIES = [
    {"id": number, "name": name, "supercategory": category(name) if name in FACES else "object"}
    for number, name in enumerate((*FACES, *OBJECTS), 1)
]
CATEGORY_ID = {entry["name"]: entry["id"] for entry in CATEGORIES}
# The colours that CamVid's own pictures of labels have.
PALETTE = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 0),
)  # fmt: skip


def draw_chunk_of_streets(
    chunk: Chunk, size: tuple[int, int]
) -> list[tuple[dict, list[dict], str]]:
    """Writes one chunk; returns COCO's entries of each picture and its objects, and a sentence."""
    drawn = []
    for index in range(chunk.start, chunk.stop):
        rng = default_rng((chunk.seed, chunk.split, index))
        view = draw_street(rng, size, rng.uniform(*ZOOM))
        image = {"file_name": f"JPEGImages/{index:05d}.jpg", "height": size[0], "width": size[1]}
        Image.fromarray(view.picture).save(chunk.folder / image["file_name"], quality=90)
        labels = Image.fromarray(view.labels)
        labels.putpalette([level for colour in PALETTE for level in colour])
        labels.save(chunk.folder / "SegmentationClass" / f"{index:05d}.png")
        drawn.append((image, [annotate(seen) for seen in view.objects], view.sentence))
    return drawn


def annotate(seen: Seen) -> dict:
    """COCO's entry of one object, without its numbers; who is not clear may be left unfound."""
    left, top, right, bottom = seen.box
    return {
        "category_id": CATEGORY_ID[seen.name if seen.kind == "sign" else seen.kind],
        "bbox": [left, top, right - left, bottom - top],
        "area": seen.pixels,
        "iscrowd": int(not seen.clear),
        "distance": round(seen.distance, 1),
    }


def make_folders(place: Path, count: int) -> None:
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (place / name).mkdir(parents=True)


def write_lists(place: Path, drawn: list[tuple[dict, list[dict], str]]) -> None:
    images, boxes, captions = [], [], []
    for k, (image, entries, sentence) in enumerate(drawn, 1):
        images.append({"id": k, **image})
        for entry in entries:
            boxes.append({"id": len(boxes) + 1, "image_id": k, **entry})
        captions.append({"id": k, "image_id": k, "caption": sentence})
    listed = place / "ImageSets" / "Segmentation" / f"{place.name}.txt"
    listed.write_text("".join(f"{index:05d}\n" for index in range(len(drawn))), "utf-8")
    instances = {"images": images, "annotations": boxes, "categories": CATEGORIES}
    (place / "annotations.json").write_text(json.dumps(instances), "utf-8")
    sentences = {"images": images, "annotations": captions}
    (place / "captions.json").write_text(json.dumps(sentences), "utf-8")


def streets_of(size: tuple[int, int]) -> Drawing:
    """Pictures of streets in formats that other tools read.

    root/{split}/JPEGImages/NNNNN.jpg                 pictures of `size` (height, width)
    root/{split}/SegmentationClass/NNNNN.png          labels as VOC has them, palette included
    root/{split}/ImageSets/Segmentation/{split}.txt   names of the split's pictures, as in VOC
    root/{split}/annotations.json                     boxes as COCO has them
    root/{split}/captions.json                        sentences as COCO has them
    """
    splits = {"train": 3000, "val": 200, "test": 300}
    draw = partial(draw_chunk_of_streets, size=size)
    return Drawing(draw, splits, chunk=20, begin=make_folders, end=write_lists)


draw_street_dataset = streets_of(SIZE)
