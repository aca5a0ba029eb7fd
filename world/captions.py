"""Signs with sentences that say what is seen: pictures to learn from words.

    facts = imagine(12, np.random.default_rng(0))        # a stop sign
    draw_picture(facts, rng).show()
    describe(facts, rng)                                 # "a stop sign in the dark, in a forest"
    draw_captions(Path("data/captions"))                 # train/ val/ test/ CLASS/ NNNNN.jpg

Unlike `world.signs`, which shows a network all that can make a sign hard to read, this draws what
is to be painted: each sign can be read, and each detail that a sentence may name can be seen.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageDraw

from world.buildings import house
from world.camera import GAMMA, LINEAR, noise, through_lens
from world.canvas import BUILDING, TREE, Camera, Canvas, Window, upright
from world.colours import lit
from world.faces import num_variants
from world.ground import FAR, draw_horizon
from world.parallel import build, map_chunks
from world.plants import bush, tree
from world.scene import LEAVES, WALLS, Thing, pick, tinted
from world.scene import choose as choose_weighted
from world.scene import tree as imagine_tree
from world.signs import CHUNK, CLASSES, NAMES, SCENE, Chunk, cached_face, contrast, view

SIZE = 64  # pixels a side of a picture; scenes are drawn at SCENE
SPLITS = {"train": 500, "val": 10, "test": 20}  # pictures a class
SENTENCES = 5  # a picture, as COCO has them
READABLE = 40  # grey levels between a face's inks

TIMES = ("day", "dusk", "night")
WEATHERS = ("clear", "cloudy", "fog", "rain", "snow")
PLACES = ("trees", "houses", "sky", "wall", "field")


class Facts(NamedTuple):
    """What a picture shows."""

    label: int  # of world.signs.CLASSES
    time: str  # of TIMES
    weather: str  # of WEATHERS
    behind: str  # of PLACES
    blurred: bool


def imagine(label: int, rng: np.random.Generator) -> Facts:
    """A picture of a class that nobody has seen."""
    return Facts(
        label,
        choose_weighted(rng, TIMES, (0.5, 0.2, 0.3)),
        choose_weighted(rng, WEATHERS, (0.4, 0.2, 0.14, 0.13, 0.13)),
        choose_weighted(rng, PLACES),
        bool(rng.random() < 0.15),
    )


# ---------------------------------------------------------------------------------------------
# In words
# ---------------------------------------------------------------------------------------------

# What a sign is called, to follow "a" or "the"; each also with "sign" behind it.
SIGNS = {
    "no_overtaking": ("no overtaking", "no passing", "overtaking forbidden"),
    "priority_crossing": ("priority at the crossing", "right of way at the junction",
                          "priority crossing"),
    "priority_road": ("priority road", "main road", "yellow diamond"),
    "give_way": ("give way", "yield"),
    "stop": ("stop", "stop", "red octagon"),
    "no_vehicles": ("no vehicles", "closed to all vehicles", "red ring"),
    "no_entry": ("no entry", "do not enter", "entry forbidden"),
    "general_caution": ("danger", "caution", "exclamation mark", "general caution"),
    "curve_left": ("curve to the left", "left curve", "left bend"),
    "curve_right": ("curve to the right", "right curve", "right bend"),
    "bumpy_road": ("bumpy road", "bumps", "uneven road"),
    "road_narrows": ("road narrows", "narrow road", "narrowing road"),
    "traffic_signals": ("traffic lights", "traffic signals", "traffic light ahead"),
    "turn_right": ("turn right", "right turn only", "turn right ahead"),
    "turn_left": ("turn left", "left turn only", "turn left ahead"),
    "ahead_only": ("straight on", "ahead only", "straight ahead"),
    "keep_right": ("keep right", "pass on the right"),
    "roundabout": ("roundabout", "traffic circle"),
}  # fmt: skip
LIMITS = ("speed limit {}", "speed limit of {}", "{} km/h", "maximum speed {}", "{}")
WHEN = {
    "day": ("by day", "in daylight", "at noon", "in the daytime", "on a bright day"),
    "dusk": ("at dusk", "in the evening", "at sunset", "at twilight"),
    "night": ("at night", "by night", "in the dark", "after dark", "at midnight"),
}
SKIES = {
    "clear": ("under a clear sky", "in clear weather", "in fine weather"),
    "cloudy": ("under clouds", "under a cloudy sky", "under a grey sky", "in cloudy weather"),
    "fog": ("in fog", "in the mist", "in foggy weather", "on a foggy road"),
    "rain": ("in the rain", "in rainy weather", "while it rains"),
    "snow": ("in snow", "in the snow", "in snowy weather", "while it snows", "in winter"),
}
WHERE = {
    "trees": ("in front of trees", "before trees", "with trees behind it", "in a forest",
              "among trees", "in the woods"),
    "houses": ("in front of houses", "before a house", "with houses behind it", "in a town",
               "in a street of houses", "in the city"),
    "sky": ("in front of the sky", "against the sky", "before the open sky", "high above"),
    "wall": ("in front of a wall", "before a brick wall", "with a wall behind it", "at a wall"),
    "field": ("in front of a field", "before a meadow", "in the country", "with fields behind it",
              "in a green landscape"),
}  # fmt: skip
BLURS = {
    True: ("blurred", "blurry", "out of focus", "unsharp"),
    False: ("sharp", "in focus", "clear and sharp"),
}
ADJECTIVES = {  # of the picture as a whole
    "day": ("bright", "sunlit"),
    "dusk": ("dim", "evening"),
    "night": ("dark", "nightly"),
    "fog": ("foggy", "misty"),
    "rain": ("rainy", "wet"),
    "snow": ("snowy", "wintry"),
}
PICTURES = ("picture", "photo", "photograph", "image")
SAID = {"when": 0.75, "sky": 0.6, "where": 0.75, "blur": 0.3}  # how often a detail is said

T = TypeVar("T")


def names(label: int) -> tuple[str, ...]:
    """What a sign of a class is called, without "sign"."""
    name = NAMES[label]
    if name.startswith("speed_limit_"):
        return tuple(form.format(name.removeprefix("speed_limit_")) for form in LIMITS)
    return SIGNS[name]


def describe(facts: Facts, rng: np.random.Generator) -> str:
    """A sentence about a picture; it always names the sign, and some of the details."""

    def pick_one(forms: Sequence[T]) -> T:
        return forms[int(rng.random() * len(forms))]

    def article(noun: str) -> str:
        return f"a{'n' * (noun[0] in 'aeiou8')} {noun}"

    name = pick_one(names(facts.label))
    sign = name if rng.random() < 0.1 else f"{name} sign"
    if rng.random() < 0.15:
        sign = f"sign that says {name}" if rng.random() < 0.5 else f"traffic sign {name}"

    details = []
    if rng.random() < SAID["when"]:
        details.append(pick_one(WHEN[facts.time]))
    if rng.random() < SAID["sky"]:
        details.append(pick_one(SKIES[facts.weather]))
    if rng.random() < SAID["where"]:
        details.append(pick_one(WHERE[facts.behind]))
    blurred = rng.random() < SAID["blur"] * (2 if facts.blurred else 1)
    adjectives = []
    if blurred and rng.random() < 0.5:
        adjectives.append(pick_one(BLURS[facts.blurred][:2] if facts.blurred else ("sharp",)))
    elif blurred:
        details.append(pick_one(BLURS[facts.blurred]))
    details = [details[k] for k in rng.permutation(len(details))]

    known = [word for key in (facts.time, facts.weather) for word in ADJECTIVES.get(key, ())]
    start = article(sign) if "sign" in sign else sign
    if rng.random() < 0.25:  # "a dark photo of a stop sign"
        if rng.random() < 0.5:
            adjectives.append(pick_one(known))
        start = f"{article(' '.join([*adjectives, pick_one(PICTURES)]))} of {article(sign)}"
    elif adjectives:
        start = article(f"{adjectives[0]} {sign}")
    elif rng.random() < 0.15:
        start = sign
    joint = ", " if rng.random() < 0.5 else " "
    if details and rng.random() < 0.1:  # the details first
        return f"{joint.join(details)}{joint}{start}"
    return joint.join([start, *details])


# ---------------------------------------------------------------------------------------------
# What is behind the sign
# ---------------------------------------------------------------------------------------------

GRASS = ((88, 118, 44), (112, 132, 60), (140, 138, 70), (70, 98, 40), (170, 156, 84))
BRICKS = ((150, 74, 56), (168, 92, 66), (128, 66, 54), (176, 120, 88), (150, 140, 130))
SNOWED = (226, 230, 236)
PLASTER = tuple(colour for colour in WALLS if sum(colour) > 330)


def backdrop(facts: Facts, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours (SCENE, SCENE, 3) uint8 of what is behind the sign, and the share of sky in 255."""
    horizon = {"sky": 1.3, "field": rng.uniform(0.45, 0.6)}.get(
        facts.behind, rng.uniform(0.7, 0.85)
    )
    camera = Camera(1.5, rng.uniform(1.0, 1.3), horizon, rng.uniform(0.35, 0.65),
                    rng.normal(0, 0.02), 0.0, 0.0)  # fmt: skip
    canvas = Canvas(camera, Window(SCENE, SCENE, 0, 0, SCENE, SCENE))
    if facts.behind == "field":
        draw_horizon(canvas, rng)
    if facts.behind != "sky":
        meadow = SNOWED if facts.weather == "snow" else pick(rng, GRASS)
        near, far = 0.8, FAR
        land = [(-FAR, 0, near), (-FAR, 0, far), (FAR, 0, far), (FAR, 0, near)]
        canvas.polygon(land, meadow, canvas.surface(TREE, 0.0))
    PLACE[facts.behind](canvas, rng)
    colours, _, sky = canvas.finish()
    return colours, sky


def plant_trees(canvas: Canvas, rng: np.random.Generator) -> None:
    """A row of trees that closes the view, and some before it."""
    kind = choose_weighted(rng, ("leafy", "conifer", "bare"), (0.6, 0.25, 0.15))
    things = []
    for z, count, height in ((26, 9, 11), (15, 5, 8)):
        for x in np.linspace(-0.55, 0.55, count) * z + rng.normal(0, 0.05 * z, count):
            made = imagine_tree(rng, x, z * rng.uniform(0.9, 1.1), height * rng.uniform(0.8, 1.3))
            colour = pick(rng, LEAVES[:5]) if kind != "bare" else made.colour
            things.append(made._replace(kind=kind, colour=colour))
    for x in np.linspace(-12, 12, 7):
        things.append(Thing("bush", x, 22, 6, 3, 0, int(rng.integers(2**31)), pick(rng, LEAVES)))
    for thing in sorted(things, key=lambda thing: -thing.z):
        (bush if thing.kind == "bush" else tree)(canvas, thing)


def build_houses(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fronts on both sides, and the street between them."""
    for z in (24, 14):
        for side in (-1, 1):
            gap, width = rng.uniform(0.3, 3), rng.uniform(7, 12)
            seed, colour = int(rng.integers(2**31)), pick(rng, PLASTER)
            height = rng.uniform(5, 9)
            house(canvas, Thing("house", side * gap, z, width, height, 8, seed, colour))


def lay_bricks(canvas: Canvas, rng: np.random.Generator) -> None:
    """A wall of bricks across all of the view."""
    surface = canvas.surface(BUILDING, 4)
    z, half, top = 4.0, 3.0, rng.uniform(3.4, 6)
    colour = pick(rng, BRICKS)
    canvas.polygon(upright(0, z, 2 * half, -2, top), lit(colour, 0.45), surface)  # mortar
    tall, wide = rng.uniform(0.24, 0.34), rng.uniform(0.6, 0.9)
    bricks, colours = [], []
    for row in range(int((top + 2) / tall)):
        low = -2 + row * tall
        for x in np.arange(-half, half, wide) + wide * (row % 2) / 2:
            bricks.append(upright(x, z, 0.9 * wide, low, low + 0.82 * tall))
            colours.append(tinted(rng, colour, 6))
    canvas.polygons(np.array(bricks), colours, surface)


PLACE: dict[str, Callable[[Canvas, np.random.Generator], None]] = {
    "trees": plant_trees,
    "houses": build_houses,
    "wall": lay_bricks,
    "sky": lambda canvas, rng: None,
    "field": lambda canvas, rng: None,  # draw_horizon has drawn its woods
}


# ---------------------------------------------------------------------------------------------
# Light
# ---------------------------------------------------------------------------------------------

# Of the sky at the horizon and above; linear light of red, green and blue.
HEAVENS = {
    ("day", "clear"): ((0.75, 0.85, 0.95), (0.16, 0.36, 0.85)),
    ("dusk", "clear"): ((0.95, 0.42, 0.12), (0.16, 0.14, 0.36)),
    ("night", "clear"): ((0.012, 0.018, 0.045), (0.004, 0.006, 0.02)),
    ("day", "dull"): ((0.75, 0.78, 0.8), (0.5, 0.54, 0.6)),
    ("dusk", "dull"): ((0.42, 0.3, 0.27), (0.18, 0.16, 0.22)),
    ("night", "dull"): ((0.035, 0.035, 0.045), (0.014, 0.015, 0.02)),
}
FALLS = {  # light on what is behind, from and to, and its colour
    "day": (0.75, 1.1, (1.0, 1.0, 1.0)),
    "dusk": (0.2, 0.32, (1.25, 0.9, 0.85)),
    "night": (0.07, 0.12, (0.75, 0.9, 1.3)),
}
SHINES = {  # likewise on the sign; at night, that of headlights
    "day": (0.65, 1.0, (1.0, 1.0, 1.0)),
    "dusk": (0.42, 0.6, (1.15, 0.95, 0.85)),
    "night": (0.5, 0.85, (1.08, 1.0, 0.88)),
}
AIR = {"day": 0.7, "dusk": 0.3, "night": 0.05}  # of fog, rain and snow in the air


def light_on(
    rng: np.random.Generator, lights: tuple[float, float, tuple[float, float, float]]
) -> np.ndarray:
    low, high, colour = lights
    return (rng.uniform(low, high) * np.array(colour)).astype(np.float32)


def heaven(facts: Facts, rng: np.random.Generator) -> np.ndarray:
    """(SCENE, SCENE, 3) linear light of the sky."""
    kind = "clear" if facts.weather == "clear" else "dull"
    low, high = (np.array(c, np.float32) for c in HEAVENS[facts.time, kind])
    height = np.linspace(1, 0, SCENE, dtype=np.float32)[:, None, None]
    sky = np.broadcast_to(low + (high - low) * height**0.7, (SCENE, SCENE, 3))
    if kind == "dull":
        clouds = noise(rng, SCENE, smooth=True)[..., None]
        sky = sky * np.clip(1 + 0.35 * clouds, 0.3, 1.8)
    return sky * np.float32(rng.uniform(0.85, 1.15))


def draw_picture(facts: Facts, rng: np.random.Generator) -> Image.Image:
    """A picture of `facts`, SIZE pixels a side; one whose sign nobody can read is drawn again."""
    while True:
        picture, plate = photograph(facts, rng)
        if contrast(picture, plate) >= READABLE:
            return Image.fromarray(picture)


def photograph(facts: Facts, rng: np.random.Generator) -> tuple[np.ndarray, Image.Image]:
    """A picture, (SIZE, SIZE, 3) uint8, and the plate in it, SCENE pixels a side and clean."""
    colours, sky = backdrop(facts, rng)
    share = sky[..., None] * np.float32(1 / 255)
    light = LINEAR.take(colours) * light_on(rng, FALLS[facts.time])
    if facts.weather not in ("clear", "snow"):
        light *= 0.7
    light += share * heaven(facts, rng)  # what is sky is black so far
    air = AIR[facts.time] * rng.uniform(0.8, 1.2)
    fog = facts.weather == "fog"
    if fog:
        light += rng.uniform(0.45, 0.65) * (air - light)

    plate, pole = put_up(facts.label, rng)
    clean = np.asarray(plate)
    alpha = clean[..., 3:] * np.float32(1 / 255)
    falls = light_on(rng, SHINES[facts.time])
    light += pole[..., None] * (np.float32(rng.uniform(0.1, 0.35)) * falls - light)
    sign = LINEAR.take(clean[..., :3]) * falls
    if fog:
        sign += rng.uniform(0.15, 0.3) * (air - sign)
    light += alpha * (sign - light)
    if facts.weather in FALLING:
        veil = FALLING[facts.weather](rng)[..., None]
        light += veil * (max(air, 0.35 if facts.weather == "snow" else 0.2) * 1.3 - light)
    return expose(light, facts.blurred, rng), plate


def put_up(label: int, rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """A plate on a post: an RGBA image, and the post's share of each pixel; SCENE pixels a side."""
    left, top, right, bottom = cached_face(label, 0).getbbox()
    tall = (right - left) / (bottom - top)
    radius = SCENE * rng.uniform(0.34, 0.4)
    x, y = SCENE / 2 + rng.normal(0, 0.02, 2) * SCENE
    face = cached_face(label, int(rng.integers(num_variants(NAMES[label]))))
    plate = face.transform(
        (SCENE, SCENE), Image.Transform.PERSPECTIVE,
        view(rng, x, y, radius, min(tall, 1.1)), Image.Resampling.BILINEAR,
    )  # fmt: skip
    post = Image.new("L", (SCENE, SCENE))
    half = rng.uniform(0.05, 0.09) * radius
    ImageDraw.Draw(post).rectangle((x - half, y, x + half, SCENE), fill=255)
    return plate, np.asarray(post) * np.float32(1 / 255)


def streaks(rng: np.random.Generator) -> np.ndarray:
    """(SCENE, SCENE) in [0, 1]: how much of each pixel rain covers."""
    image = Image.new("L", (2 * SCENE, 2 * SCENE))
    draw = ImageDraw.Draw(image)
    slant = rng.normal(0, 0.2)
    for x, y, length in rng.uniform((0, -0.1, 0.1), (1, 1, 0.2), (45, 3)) * 2 * SCENE:
        draw.line((x, y, x + slant * length, y + length), fill=150)
    return np.asarray(image.reduce(2)) * np.float32(1 / 255)


def flakes(rng: np.random.Generator) -> np.ndarray:
    """(SCENE, SCENE) in [0, 1]: how much of each pixel falling snow covers."""
    image = Image.new("L", (2 * SCENE, 2 * SCENE))
    draw = ImageDraw.Draw(image)
    for x, y, radius in rng.uniform((0, 0, 0.8), (2 * SCENE, 2 * SCENE, 2.2), (40, 3)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=235)
    return np.asarray(image.reduce(2)) * np.float32(1 / 255)


FALLING = {"rain": streaks, "snow": flakes}


def expose(light: np.ndarray, blurred: bool, rng: np.random.Generator) -> np.ndarray:
    """Lens and sensor, without the faults that `camera.expose` has: (SIZE, SIZE, 3) uint8."""
    sigma = rng.uniform(1.1, 1.6) if blurred else rng.uniform(0.35, 0.5)
    planes = np.ascontiguousarray(light.transpose(2, 0, 1), np.float32)
    seen = through_lens(planes, (SIZE, SIZE), sigma, (0.0, 0.0)).transpose(1, 2, 0)
    grey = np.clip(seen, 0, 1) ** (1 / GAMMA) + 0.006 * rng.standard_normal(seen.shape, np.float32)
    return (np.clip(grey, 0, 1) * 255).round().astype(np.uint8)


# ---------------------------------------------------------------------------------------------
# The data set
# ---------------------------------------------------------------------------------------------


def draw_chunk(chunk: Chunk) -> list[tuple[str, dict, list[str]]]:
    """Writes one chunk; returns each picture's file, what it shows, and sentences about it."""
    drawn = []
    for index in range(chunk.start, chunk.stop):
        rng = np.random.default_rng((chunk.seed, chunk.split, chunk.label, index))
        facts = imagine(chunk.label, rng)
        name = f"{CLASSES[chunk.label]}/{index:05d}.jpg"
        draw_picture(facts, rng).save(chunk.folder / name, quality=95, subsampling=0)
        sentences = [describe(facts, rng) for _ in range(SENTENCES)]
        shown = facts._asdict() | {"label": NAMES[chunk.label]}
        drawn.append((name, shown, sentences))
    return drawn


def draw_captions(
    root: Path,
    seed: int = 0,
    per_class: Mapping[str, int] = SPLITS,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Draws pictures with sentences; the same seed gives the same bytes.

    root/{split}/{class}/NNNNN.jpg     pictures
    root/{split}/captions.json         SENTENCES about each, as COCO has them, and what it shows

    per_class: pictures a class in each split. workers: processes, one a core if None. progress:
    called with the number of pictures finished since its last call.

    The splits appear at the end and train last: a train folder means a complete data set, after a
    kill as well. Existing splits are never touched: FileExistsError.
    """
    with build(Path(root), sorted(per_class, key="train".__eq__)) as folder:
        for number, (split, count) in enumerate(per_class.items()):
            for name in CLASSES:
                (folder / split / name).mkdir(parents=True)
            chunks = [
                Chunk(folder / split, seed, number, label, start, min(start + CHUNK, count))
                for label in range(len(CLASSES))
                for start in range(0, count, CHUNK)
            ]
            drawn: list[tuple[str, dict, list[str]]] = []
            for part in map_chunks(draw_chunk, chunks, workers):
                drawn += part
                progress(len(part))
            write_sentences(folder / split / "captions.json", drawn)


def write_sentences(path: Path, drawn: Sequence[tuple[str, dict, list[str]]]) -> None:
    images, annotations = [], []
    for number, (name, shown, sentences) in enumerate(drawn, 1):
        size = {"height": SIZE, "width": SIZE}
        images.append({"id": number, "file_name": name, **size, "shows": shown})
        for sentence in sentences:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "caption": sentence}
            )
    path.write_text(json.dumps({"images": images, "annotations": annotations}), "utf-8")
