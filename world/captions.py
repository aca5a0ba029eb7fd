"""Signs with sentences that say what is seen: pictures to learn from words.

    facts = imagine(12, np.random.default_rng(0))        # a stop sign
    draw_picture(facts, rng).show()
    caption_of(facts, rng)                               # "a stop sign at dusk in front of trees"
    draw_captions(Path("data/captions"))                 # train/ val/ test/ CLASS/ NNNNN.jpg

Unlike `world.signs`, which shows a network all that can make a sign hard to read, this draws what
is to be painted: each sign can be read, and each detail that a sentence may name can be seen.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image, ImageDraw

from world.buildings import house
from world.camera import GAMMA, LINEAR, noise, through_lens
from world.canvas import BUILDING, TREE, Camera, Canvas, Window, upright
from world.colours import lit
from world.ground import FAR, draw_horizon
from world.parallel import Chunk, Drawing
from world.plants import bush, tree
from world.scene import LEAVES, WALLS, Thing, choose, new_seed, pick, tinted
from world.scene import tree as imagine_tree
from world.signs import CLASSES, NAMES, SCENE, contrast, height_of, put_up

PIXELS = 64  # a side; scenes are drawn at SCENE
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


def imagine(label: int, rng: Generator) -> Facts:
    """A picture of a class that nobody has seen."""
    return Facts(
        label,
        choose(rng, TIMES, (0.5, 0.2, 0.3)),
        choose(rng, WEATHERS, (0.4, 0.2, 0.14, 0.13, 0.13)),
        choose(rng, PLACES),
        bool(rng.random() < 0.15),
    )


# ---------------------------------------------------------------- in words

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
NOUNS = ("picture", "photo", "photograph", "image")


def names(label: int) -> tuple[str, ...]:
    """What a sign of a class is called, without "sign"."""
    name = NAMES[label]
    if name.startswith("speed_limit_"):
        return tuple(form.format(name.removeprefix("speed_limit_")) for form in LIMITS)
    return SIGNS[name]


def caption_of(facts: Facts, rng: Generator) -> str:
    """A sentence about a picture; it always names the sign, and some of the details."""

    def article(noun: str) -> str:
        return f"a{'n' * (noun[0] in 'aeiou8')} {noun}"

    name = choose(rng, names(facts.label))
    sign = name if rng.random() < 0.1 else f"{name} sign"
    if rng.random() < 0.15:
        sign = f"sign that says {name}" if rng.random() < 0.5 else f"traffic sign {name}"

    # How often a detail is said, and how.
    said = (0.75, WHEN[facts.time]), (0.6, SKIES[facts.weather]), (0.75, WHERE[facts.behind])
    details = [choose(rng, forms) for often, forms in said if rng.random() < often]
    blurred = rng.random() < (0.6 if facts.blurred else 0.3)
    adjectives = []
    if blurred and rng.random() < 0.5:
        adjectives.append(choose(rng, BLURS[facts.blurred][:2] if facts.blurred else ("sharp",)))
    elif blurred:
        details.append(choose(rng, BLURS[facts.blurred]))
    details = [details[k] for k in rng.permutation(len(details))]

    known = [word for key in (facts.time, facts.weather) for word in ADJECTIVES.get(key, ())]
    start = article(sign) if "sign" in sign else sign
    if rng.random() < 0.25:  # "a dark photo of a stop sign"
        if rng.random() < 0.5:
            adjectives.append(choose(rng, known))
        start = f"{article(' '.join([*adjectives, choose(rng, NOUNS)]))} of {article(sign)}"
    elif adjectives:
        start = article(f"{adjectives[0]} {sign}")
    elif rng.random() < 0.15:
        start = sign
    joint = ", " if rng.random() < 0.5 else " "
    if details and rng.random() < 0.1:  # the details first
        return f"{joint.join(details)}{joint}{start}"
    return joint.join([start, *details])


# ---------------------------------------------------------------- what is behind the sign

GRASS = ((88, 118, 44), (112, 132, 60), (140, 138, 70), (70, 98, 40), (170, 156, 84))
BRICKS = ((150, 74, 56), (168, 92, 66), (128, 66, 54), (176, 120, 88), (150, 140, 130))
SNOWED = (226, 230, 236)
PLASTER = tuple(colour for colour in WALLS if sum(colour) > 330)


def backdrop(facts: Facts, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours (SCENE, SCENE, 3) uint8 of what is behind the sign, and the share of sky in 255."""
    low, high = rng.uniform(0.45, 0.6), rng.uniform(0.7, 0.85)
    horizon = {"sky": 1.3, "field": low}.get(facts.behind, high)
    camera = Camera(1.5, rng.uniform(1.0, 1.3), horizon, rng.uniform(0.35, 0.65),
                    rng.normal(0, 0.02), 0.0, 0.0)  # fmt: skip
    canvas = Canvas(camera, Window(SCENE, SCENE, 0, 0, SCENE, SCENE))
    if facts.behind == "field":
        draw_horizon(canvas, rng)
    if facts.behind != "sky":
        meadow = SNOWED if facts.weather == "snow" else pick(rng, GRASS)
        land = [(-FAR, 0, 0.8), (-FAR, 0, FAR), (FAR, 0, FAR), (FAR, 0, 0.8)]
        canvas.polygon(land, meadow, canvas.surface(TREE, 0.0))
    if facts.behind in BACKGROUNDS:
        BACKGROUNDS[facts.behind](canvas, rng)
    colours, _, sky = canvas.finish()
    return colours, sky


def plant_trees(canvas: Canvas, rng: Generator) -> None:
    """A row of trees that closes the view, and some before it."""
    kind = choose(rng, ("leafy", "conifer", "bare"), (0.6, 0.25, 0.15))
    things = []
    for z, count, height in ((26, 9, 11), (15, 5, 8)):
        for x in np.linspace(-0.55, 0.55, count) * z + rng.normal(0, 0.05 * z, count):
            made = imagine_tree(rng, x, z * rng.uniform(0.9, 1.1), height * rng.uniform(0.8, 1.3))
            colour = pick(rng, LEAVES[:5]) if kind != "bare" else made.colour
            things.append(made._replace(kind=kind, colour=colour))
    for x in np.linspace(-12, 12, 7):
        things.append(Thing("bush", x, 22, 6, 3, 0, new_seed(rng), pick(rng, LEAVES)))
    for thing in sorted(things, key=lambda thing: -thing.z):
        (bush if thing.kind == "bush" else tree)(canvas, thing, default_rng(thing.seed))


def build_houses(canvas: Canvas, rng: Generator) -> None:
    """Fronts on both sides, and the street between them."""
    for z in (24, 14):
        for side in (-1, 1):
            gap, width = rng.uniform(0.3, 3), rng.uniform(7, 12)
            seed, colour = new_seed(rng), pick(rng, PLASTER)
            height = rng.uniform(5, 9)
            thing = Thing("house", side * gap, z, width, height, 8, seed, colour)
            house(canvas, thing, default_rng(seed))


def lay_bricks(canvas: Canvas, rng: Generator) -> None:
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


BACKGROUNDS = {"trees": plant_trees, "houses": build_houses, "wall": lay_bricks}


# ---------------------------------------------------------------- light

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


def light_on(rng: Generator, lights: tuple[float, float, tuple[float, float, float]]) -> np.ndarray:
    low, high, colour = lights
    return (rng.uniform(low, high) * np.array(colour)).astype(np.float32)


def heaven(facts: Facts, rng: Generator) -> np.ndarray:
    """(SCENE, SCENE, 3) linear light of the sky."""
    kind = "clear" if facts.weather == "clear" else "dull"
    low, high = (np.array(c, np.float32) for c in HEAVENS[facts.time, kind])
    height = np.linspace(1, 0, SCENE, dtype=np.float32)[:, None, None]
    sky = np.broadcast_to(low + (high - low) * height**0.7, (SCENE, SCENE, 3))
    if kind == "dull":
        clouds = noise(rng, SCENE, smooth=True)[..., None]
        sky = sky * np.clip(1 + 0.35 * clouds, 0.3, 1.8)
    return sky * np.float32(rng.uniform(0.85, 1.15))


def draw_picture(facts: Facts, rng: Generator) -> Image.Image:
    """A picture of `facts`, PIXELS a side; one whose sign nobody can read is drawn again."""
    while True:
        picture, plate = photograph(facts, rng)
        if contrast(picture, plate) >= READABLE:
            return Image.fromarray(picture)


def photograph(facts: Facts, rng: Generator) -> tuple[np.ndarray, Image.Image]:
    """A picture, (PIXELS, PIXELS, 3) uint8, and the plate in it, SCENE pixels a side and clean."""
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

    plate, pole = plate_on_a_post(facts.label, rng)
    clean = np.asarray(plate)
    alpha = clean[..., 3:] * np.float32(1 / 255)
    falls = light_on(rng, SHINES[facts.time])
    light += pole[..., None] * (np.float32(rng.uniform(0.1, 0.35)) * falls - light)
    sign = LINEAR.take(clean[..., :3]) * falls
    if fog:
        sign += rng.uniform(0.15, 0.3) * (air - sign)
    light += alpha * (sign - light)
    if facts.weather in ("rain", "snow"):
        veil = falling(facts.weather, rng)[..., None]
        light += veil * (max(air, 0.35 if facts.weather == "snow" else 0.2) * 1.3 - light)
    return expose(light, facts.blurred, rng), plate


def plate_on_a_post(label: int, rng: Generator) -> tuple[Image.Image, np.ndarray]:
    """A plate on a post: an RGBA image, and the post's share of each pixel; SCENE pixels a side."""
    radius = SCENE * rng.uniform(0.34, 0.4)
    x, y = SCENE / 2 + rng.normal(0, 0.02, 2) * SCENE
    plate = put_up(label, rng, x, y, radius, min(height_of(label), 1.1))
    post = Image.new("L", (SCENE, SCENE))
    half = rng.uniform(0.05, 0.09) * radius
    ImageDraw.Draw(post).rectangle((x - half, y, x + half, SCENE), fill=255)
    return plate, np.asarray(post) * np.float32(1 / 255)


def falling(weather: str, rng: Generator) -> np.ndarray:
    """(SCENE, SCENE) in [0, 1]: how much of each pixel rain or falling snow covers."""
    image = Image.new("L", (2 * SCENE, 2 * SCENE))
    draw = ImageDraw.Draw(image)
    if weather == "rain":
        slant = rng.normal(0, 0.2)
        for x, y, length in rng.uniform((0, -0.1, 0.1), (1, 1, 0.2), (45, 3)) * 2 * SCENE:
            draw.line((x, y, x + slant * length, y + length), fill=150)
    else:
        for x, y, radius in rng.uniform((0, 0, 0.8), (2 * SCENE, 2 * SCENE, 2.2), (40, 3)):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=235)
    return np.asarray(image.reduce(2)) * np.float32(1 / 255)


def expose(light: np.ndarray, blurred: bool, rng: Generator) -> np.ndarray:
    """Lens and sensor, without the faults that `camera.expose` has: (PIXELS, PIXELS, 3) uint8."""
    sigma = rng.uniform(1.1, 1.6) if blurred else rng.uniform(0.35, 0.5)
    planes = np.ascontiguousarray(light.transpose(2, 0, 1), np.float32)
    seen = through_lens(planes, (PIXELS, PIXELS), sigma).transpose(1, 2, 0)
    grey = np.clip(seen, 0, 1) ** (1 / GAMMA) + 0.006 * rng.standard_normal(seen.shape, np.float32)
    return (np.clip(grey, 0, 1) * 255).round().astype(np.uint8)


# ---------------------------------------------------------------- the data set


def draw_chunk_of_captions(chunk: Chunk) -> list[tuple[str, dict, list[str]]]:
    """Writes one chunk; returns each picture's file, what it shows, and sentences about it."""
    drawn = []
    for index in range(chunk.start, chunk.stop):
        rng = default_rng((chunk.seed, chunk.split, chunk.label, index))
        facts = imagine(chunk.label, rng)
        name = f"{CLASSES[chunk.label]}/{index:05d}.jpg"
        draw_picture(facts, rng).save(chunk.folder / name, quality=95, subsampling=0)
        shown = facts._asdict() | {"label": NAMES[chunk.label]}
        drawn.append((name, shown, [caption_of(facts, rng) for _ in range(SENTENCES)]))
    return drawn


def write_sentences(folder: Path, drawn: Sequence[tuple[str, dict, list[str]]]) -> None:
    """Writes a split's captions.json, as COCO has it, and what each picture shows."""
    images, annotations = [], []
    for number, (name, shown, sentences) in enumerate(drawn, 1):
        size = {"height": PIXELS, "width": PIXELS}
        images.append({"id": number, "file_name": name, **size, "shows": shown})
        for sentence in sentences:
            annotation_id = len(annotations) + 1
            annotations.append({"id": annotation_id, "image_id": number, "caption": sentence})
    content = json.dumps({"images": images, "annotations": annotations})
    (folder / "captions.json").write_text(content, "utf-8")


# root/{split}/{class}/NNNNN.jpg, root/{split}/captions.json
draw_captions = Drawing(
    draw_chunk_of_captions, {"train": 500, "val": 10, "test": 20}, 25, CLASSES, end=write_sentences
)
