"""What stands in a street: one description, in metres, of all that is drawn of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator

from world.canvas import Camera
from world.colours import Colour
from world.faces import FACES, category, num_variants
from world.plates import PLATES

# Half the plate's width (or height), in metres; each comes in three sizes.
SIZES = (0.7, 1.0, 1.25)
RADII = {
    "prohibitory": 0.3, "mandatory": 0.3, "other": 0.3, "danger": 0.45,
    "stop": 0.45, "give_way": 0.45, "priority_road": 0.42,
}  # fmt: skip
SURFACES = 235  # of a canvas's 255; the rest is land and sky
MORE_SURFACES = {"house": 1, "gantry": 1, "traffic_light": 2}  # than one that a kind may take
LOW = ("keep_right", "keep_left")  # stand on islands, near the ground
NAMES = tuple(FACES)
OTHERS = tuple(name for name in PLATES if name not in ("panel", "board"))


class Plate(NamedTuple):
    """What hangs on a post: a sign, another plate, or a sign seen from behind."""

    name: str  # of FACES or of PLATES
    variant: int
    y: float  # metres, of its middle
    radius: float  # metres, half its side
    turn: float  # radians, about the post; 0 faces the camera
    roll: float  # radians
    behind: bool = False


class Thing(NamedTuple):
    """Something that stands at x, z; the details of its look follow from `seed`."""

    kind: str
    x: float
    z: float
    width: float  # metres, across the road
    height: float
    length: float  # along the road, away from the camera
    seed: int
    colour: Colour = (128, 128, 128)
    turn: float = 0.0  # radians
    plates: tuple[Plate, ...] = ()


@dataclass(frozen=True)
class Road:
    left: float  # x of its edges, metres
    right: float
    lanes: tuple[float, ...]  # x of the lines between lanes
    pavement: float  # width of the pavements; 0: none
    crossings: tuple[float, ...]  # z of zebras and stop lines
    mouths: tuple[tuple[int, float, float], ...]  # side (-1, 1), z and width of side roads
    colour: Colour
    verge: Colour  # what lies beside it


@dataclass(frozen=True)
class Weather:
    sky: str  # "clear", "clouds", "overcast"
    brightness: float  # of the sky, against a white wall in full light
    sun: float  # x of the sun's direction; shadows fall the other way
    shadow: float  # how much of the light it takes
    haze: float  # 1/m
    wet: float  # how much of the sky the road mirrors
    cast: tuple[float, float, float]  # colour of the light
    grey: float  # mean level of the photograph without its sky, in [0, 1]


@dataclass(frozen=True)
class Scene:
    place: str  # "town", "suburb", "country", "motorway"
    camera: Camera
    road: Road
    weather: Weather
    things: tuple[Thing, ...]
    seed: int  # of textures and of the camera's noise


VEHICLES = {  # width, height, length
    "car": (1.75, 1.45, 4.2), "van": (1.95, 2.1, 5.0), "lorry": (2.5, 3.6, 8.5),
    "bus": (2.5, 3.1, 11.0),
}  # fmt: skip
WALLS = (
    (196, 182, 160), (214, 208, 196), (150, 88, 70), (122, 74, 60), (176, 150, 120),
    (120, 112, 104), (226, 222, 214), (168, 130, 104), (96, 90, 88), (204, 190, 130),
    (190, 140, 120), (140, 150, 156),
)  # fmt: skip
CARS = (
    (20, 20, 24), (34, 36, 42), (150, 154, 160), (196, 198, 202), (232, 232, 232), (140, 18, 26),
    (24, 44, 110), (60, 70, 82), (30, 60, 50), (110, 100, 84), (178, 30, 34), (50, 90, 160),
)  # fmt: skip
LEAVES = (
    (34, 46, 20), (48, 58, 24), (24, 32, 16), (62, 66, 28), (120, 90, 26), (150, 108, 34),
    (92, 56, 26), (70, 56, 36), (40, 50, 30), (30, 28, 22), (44, 40, 32),
)  # fmt: skip


def imagine(rng: Generator) -> Scene:
    """A street that nobody has seen."""
    place = choose(rng, ("town", "suburb", "country", "motorway"), (0.42, 0.28, 0.18, 0.12))
    motorway, built = place == "motorway", place in ("town", "suburb")
    camera = Camera(
        height=rng.uniform(1.15, 1.6) if rng.random() < 0.9 else rng.uniform(1.6, 2.6),
        focal=rng.uniform(0.75, 1.25),
        horizon=float(np.clip(rng.normal(0.54, 0.09), 0.32, 0.75)),
        vanish=float(np.clip(rng.normal(0.5, 0.09), 0.2, 0.8)),
        roll=rng.normal(0, 0.012),
        bend=rng.normal(0, 4e-4 if motorway else 1.2e-3) * (rng.random() < 0.7),
        hill=rng.normal(0, 3e-4) * (rng.random() < 0.6),
    )
    road = lay_road(rng, place)
    weather = forecast(rng)
    things: list[Thing] = []
    for side in (-1, 1):
        things += line_up(rng, place, road, side)
        if built or rng.random() < 0.4:
            things += furnish(rng, place, road, side)
    things += traffic(rng, place, road)
    things += put_up_signs(rng, camera, road, built)
    return Scene(place, camera, road, weather, nearest(things), new_seed(rng))


def nearest(things: list[Thing]) -> tuple[Thing, ...]:
    """The nearest things, as many as a canvas has surfaces for."""
    free, kept = SURFACES, []
    for thing in sorted(things, key=lambda thing: thing.z):
        free -= 1 + len(thing.plates) + MORE_SURFACES.get(thing.kind, 0)
        if free < 0:
            break
        kept.append(thing)
    return tuple(kept)


def lay_road(rng: Generator, place: str) -> Road:
    lane = rng.uniform(2.7, 3.6)
    lanes = {"town": (2, 4), "suburb": (1, 3), "country": (2, 3), "motorway": (2, 5)}[place]
    count = int(rng.integers(*lanes))
    ours = int(rng.integers(count)) if place == "motorway" else max(0, count - 1)
    if rng.random() < 0.15:  # where they drive on the left
        ours = count - 1 - ours
    left = -(ours + 0.5) * lane + rng.normal(0, 0.3)
    pavement = rng.uniform(1.2, 4.5) if place in ("town", "suburb") else 0.0
    if place == "country" and rng.random() < 0.3:
        pavement = rng.uniform(0.8, 2)
    crossings = rng.uniform(7, 45, rng.integers(0, 3)) if pavement and rng.random() < 0.5 else ()
    mouths = tuple(
        (choose(rng, (-1, 1)), rng.uniform(5, 60), rng.uniform(4, 12))
        for _ in range(rng.integers(0, 3))
        if pavement
    )
    grey = int(rng.integers(60, 130))
    soil = ((70, 78, 36), (92, 88, 60), (58, 62, 34), (120, 112, 96), (84, 84, 82))
    return Road(
        left, left + count * lane, tuple(left + lane * k for k in range(1, count)), pavement,
        tuple(map(float, crossings)), mouths,
        tinted(rng, (grey, grey, grey), 5), tinted(rng, choose(rng, soil), 12),
    )  # fmt: skip


def forecast(rng: Generator) -> Weather:
    sky = choose(rng, ("clear", "clouds", "overcast"), (0.25, 0.3, 0.45))
    sunny = sky == "clear" or (sky == "clouds" and rng.random() < 0.5)
    warm, tint = rng.normal(0.03 if sunny else -0.05, 0.08), rng.normal(0, 0.025)
    return Weather(
        sky=sky,
        brightness=math.exp(rng.normal(1.25, 0.6)),
        sun=rng.uniform(-2.5, 2.5),
        shadow=rng.uniform(0.4, 0.85) if sunny else 0.0,
        haze=math.exp(rng.normal(-7.2, 0.9)),
        wet=rng.uniform(0.03, 0.25) if rng.random() < 0.2 else 0.0,
        cast=(math.exp(warm), math.exp(-abs(tint)), math.exp(-warm + tint)),
        grey=float(np.clip(rng.normal(0.3, 0.09), 0.13, 0.6)),
    )


T = TypeVar("T")


def new_seed(rng: Generator) -> int:
    return int(rng.integers(2**31))


def choose(rng: Generator, options: Sequence[T], weights: Sequence[float] = ()) -> T:
    """One of the options; numpy's own choice costs ten times as much."""
    if not weights:
        return options[int(rng.random() * len(options))]
    mark = rng.random() * sum(weights)
    for option, weight in zip(options, weights, strict=True):
        mark -= weight
        if mark < 0:
            return option
    return options[-1]


def tinted(rng: Generator, colour: Colour, spread: float) -> Colour:
    """The colour, a little lighter or darker and of another hue."""
    light = math.exp(rng.normal(0, 0.25))
    moved = (c * light + d for c, d in zip(colour, rng.normal(0, spread, 3).tolist(), strict=True))
    return tuple(min(250, max(4, round(c))) for c in moved)


def pick(rng: Generator, palette: tuple[Colour, ...], spread: float = 8) -> Colour:
    return tinted(rng, choose(rng, palette), spread)


def line_up(rng: Generator, place: str, road: Road, side: int) -> list[Thing]:
    """What stands beside the road, lot after lot: houses, trees, hedges, fences, fields."""
    kinds = ("house", "tree", "fence", "hedge", "field")
    likely = {
        "town": (0.68, 0.14, 0.08, 0.04, 0.06),
        "suburb": (0.36, 0.28, 0.13, 0.13, 0.1),
        "country": (0.06, 0.5, 0.06, 0.14, 0.24),
        "motorway": (0.02, 0.52, 0.12, 0.1, 0.24),
    }[place]
    edge = abs(road.right if side > 0 else road.left) + road.pavement
    things: list[Thing] = []
    garden = rng.uniform(0, 2) if place == "town" else rng.uniform(1, 9)
    high = rng.uniform(5, 16) if place == "town" else rng.uniform(3.5, 8)
    z = rng.uniform(-6, 8)
    while z < 130:
        kind = choose(rng, kinds, likely)
        length, seed = rng.uniform(7, 22), new_seed(rng)
        near = edge + garden * rng.uniform(0.7, 1.3)
        if kind == "house":
            height, depth = high * rng.uniform(0.7, 1.35), rng.uniform(7, 14)
            colour = pick(rng, WALLS)
            things.append(Thing("house", side * near, z, depth, height, length, seed, colour))
            if garden > 3 and rng.random() < 0.6:
                front = "hedge" if rng.random() < 0.5 else "fence"
                things.append(barrier(rng, front, side * (edge + 0.3), z, length))
        elif kind == "tree":
            for _ in range(rng.integers(2, 6)):
                x = side * (near + rng.uniform(0, 12))
                things.append(tree(rng, x, z + rng.uniform(0, length)))
            for k in range(rng.integers(0, 6)):  # undergrowth closes the view
                things.append(bush(rng, side * (near + rng.uniform(2, 9)), z + k * length / 5))
        elif kind in ("fence", "hedge"):
            things.append(barrier(rng, kind, side * (edge + 0.4), z, length))
            if rng.random() < 0.6:
                things.append(tree(rng, side * (near + 5), z + length / 2))
        elif rng.random() < 0.3:
            things.append(bush(rng, side * near, z + length / 2))
        z += length * (1 if place == "town" else rng.uniform(1, 1.6))
    if place == "motorway" or (place == "country" and rng.random() < 0.3):
        offset = rng.uniform(0.5, 1.5)
        for start in range(2, 120, 20):
            seed, x = new_seed(rng), side * (edge + offset)
            things.append(Thing("rail", x, start, 0.1, 0.75, 20, seed, (150, 152, 154)))
    return things


def barrier(rng: Generator, kind: str, x: float, z: float, length: float) -> Thing:
    height = rng.uniform(0.6, 2.2)
    colour = pick(rng, LEAVES if kind == "hedge" else WALLS)
    return Thing(kind, x, z, 0.6, height, length, new_seed(rng), colour)


def tree(rng: Generator, x: float, z: float, height: float | None = None) -> Thing:
    kind = choose(rng, ("leafy", "bare", "conifer"), (0.48, 0.38, 0.14))
    height = height or math.exp(rng.normal(2.0, 0.4))
    width = height * (rng.uniform(0.3, 0.5) if kind == "conifer" else rng.uniform(0.5, 1.0))
    colour = tinted(rng, (60, 48, 40), 8) if kind == "bare" else pick(rng, LEAVES)
    return Thing(kind, x, z, width, height, 0, new_seed(rng), colour)


def bush(rng: Generator, x: float, z: float) -> Thing:
    height = rng.uniform(0.6, 4)
    width, seed = height * rng.uniform(0.8, 2.2), new_seed(rng)
    return Thing("bush", x, z, width, height, 0, seed, pick(rng, LEAVES))


def furnish(rng: Generator, place: str, road: Road, side: int) -> list[Thing]:
    """Lamps, trees, bollards, boxes, people and parked cars along the kerb."""
    things: list[Thing] = []
    kerb = abs(road.right if side > 0 else road.left)

    def rows(step: float, likely: float) -> list[float]:
        if rng.random() > likely:
            return []
        return (rng.uniform(3, 12) + step * np.arange(int(90 / step))).tolist()

    dull = ((90, 92, 92), (120, 124, 122), (60, 66, 62), (150, 150, 146))
    tall, colour, arm = rng.uniform(4, 10), pick(rng, dull), rng.uniform(-2, 2)
    for z in rows(rng.uniform(18, 40), 0.5):
        things.append(Thing("lamp", side * (kerb + 0.5), z, arm, tall, 0, new_seed(rng), colour))
    offset = rng.uniform(0.8, 2)
    for z in rows(rng.uniform(7, 16), 0.3):
        things.append(tree(rng, side * (kerb + offset), z + rng.normal(0, 1), rng.uniform(4, 11)))
    for z in rows(rng.uniform(1.5, 4), 0.15)[:12]:
        things.append(Thing("bollard", side * (kerb + 0.4), z, 0.12, 0.9, 0, new_seed(rng), colour))
    for _ in range(rng.poisson(0.8)):
        x, z = side * (kerb + rng.uniform(0.5, 3)), rng.uniform(5, 50)
        size = rng.uniform(0.3, 0.9), rng.uniform(0.5, 1.5)
        things.append(Thing("box", x, z, *size, 0.6, new_seed(rng), pick(rng, CARS, 40)))
    if rng.random() < 0.15:
        x, size = side * (kerb + rng.uniform(1, 5)), (rng.uniform(1, 4), rng.uniform(2, 4))
        things.append(Thing("poster", x, rng.uniform(8, 60), *size, 0, new_seed(rng)))
    for _ in range(rng.poisson(3.0 if place == "town" else 0.8)):
        x, z = side * (kerb + rng.uniform(0.4, max(1.0, road.pavement))), rng.uniform(5, 60)
        things.append(Thing("person", x, z, 0.5, rng.uniform(1.5, 1.9), 0, new_seed(rng)))
    if road.pavement and rng.random() < 0.5:  # a row of parked cars
        x, z = side * (kerb - rng.uniform(-1, 1)), rng.uniform(4, 20)
        for _ in range(rng.integers(1, 9)):
            things.append(vehicle(rng, "car", x, z, backwards=rng.random() < 0.3))
            z += rng.uniform(5.5, 9)
    return things


def vehicle(
    rng: Generator, kind: str, x: float, z: float, backwards: bool, turn: float = 0
) -> Thing:
    scale = rng.uniform(0.92, 1.1)
    size = [scale * side for side in VEHICLES[kind]]
    if kind == "car":  # up to those that one climbs into
        size[1] *= rng.uniform(0.96, 1.22)
    turn += math.pi * backwards + rng.normal(0, 0.04)
    return Thing(kind, x, z, *size, new_seed(rng), pick(rng, CARS), turn)


def traffic(rng: Generator, place: str, road: Road) -> list[Thing]:
    things: list[Thing] = []
    kinds, likely = ("car", "van", "lorry", "bus"), (0.74, 0.11, 0.1, 0.05)
    edges = (road.left, *road.lanes, road.right)
    for left, right in zip(edges[:-1], edges[1:], strict=True):
        middle = (left + right) / 2
        oncoming = middle < -1.5 and place != "motorway"
        z = rng.uniform(7, 40) if oncoming or abs(middle) > 1.5 else rng.uniform(9, 60)
        while z < 130 and rng.random() < 0.62:
            kind, x = choose(rng, kinds, likely), middle + rng.normal(0, 0.25)
            things.append(vehicle(rng, kind, x, z, oncoming))
            z += rng.uniform(9, 45)
    if road.mouths and rng.random() < 0.4:  # one that crosses, or waits to
        side, z, _ = road.mouths[0]
        x = side * rng.uniform(2, 9)
        things.append(vehicle(rng, "car", x, z + 2, False, side * math.pi / 2))
    for _ in range(rng.poisson(0.9)):
        x, z = rng.uniform(road.left, road.right), rng.uniform(4, 40)
        things.append(Thing("cyclist", x, z, 0.6, 1.75, 1.7, new_seed(rng)))
    if rng.random() < 0.12 and road.pavement:
        x, z = rng.uniform(road.left, road.right), rng.uniform(8, 40)
        things.append(Thing("person", x, z, 0.5, 1.75, 0, new_seed(rng)))
    if rng.random() < 0.3 and place != "motorway":
        z = rng.uniform(8, 50)
        for x in (road.left - 0.6, road.right + 0.6):
            reach = rng.uniform(0, 4) * (rng.random() < 0.4)  # of an arm over the road
            arm = reach if x < 0 else -reach
            height = rng.uniform(2.6, 3.4)
            things.append(Thing("traffic_light", x, z, arm, height, 0, new_seed(rng)))
    if rng.random() < 0.15:
        things.append(Thing("wires", 0, rng.uniform(15, 60), 40, rng.uniform(5, 9), 0, 0))
    if place == "motorway" and rng.random() < 0.5:
        seed, x = new_seed(rng), (road.left + road.right) / 2
        width, z = road.right - road.left + 2, rng.uniform(25, 110)
        things.append(Thing("gantry", x, z, width, 6.5, 0, seed))
    return things


# ---------------------------------------------------------------- signs


def put_up_signs(rng: Generator, camera: Camera, road: Road, built: bool) -> list[Thing]:
    """Posts with none to six signs, plates that are no sign, and signs for those who come back."""
    posts: list[Thing] = []
    wanted, signs = choose(rng, range(7), (0.06, 0.1, 0.16, 0.2, 0.2, 0.16, 0.12)), 0
    while signs < wanted:
        plates, radius = hang(rng, wanted - signs)
        # As many far signs as a drive shows: their sides are spread as in photographs.
        side = float(np.clip(math.exp(rng.normal(math.log(38), 0.5)), 14, 140)) / 1280  # of width
        z = float(np.clip(2 * radius * camera.focal / side, 4, 60))
        posts.append(stand(rng, camera, road, z, plates, built))
        signs += sum(plate.name in FACES for plate in plates)
    for _ in range(rng.poisson(1.6)):
        name = choose(rng, OTHERS)
        plate = Plate(name, int(rng.integers(3)), 0.0, rng.uniform(0.25, 0.5), 0, 0)
        if "direction" in name:
            plate = plate._replace(radius=rng.uniform(0.5, 1.6))
        posts.append(stand(rng, camera, road, rng.uniform(5, 50), [plate], built))
    for _ in range(rng.poisson(0.5)):
        plates = [plate._replace(behind=True) for plate in hang(rng, 2)[0]]
        posts.append(stand(rng, camera, road, rng.uniform(6, 50), plates, built))
    screens = []
    for post in posts:
        if rng.random() < 0.12 and post.z > 6:  # something in front hides a part of it
            x, z = post.x + rng.normal(0, 0.5), post.z * rng.uniform(0.75, 0.95)
            screen = tree(rng, x, z, rng.uniform(2, 5)) if rng.random() < 0.5 else None
            seed, grey = new_seed(rng), (110, 112, 112)
            screens.append(screen or Thing("lamp", x, z, 0.0, rng.uniform(4, 8), 0, seed, grey))
    return posts + screens


def hang(rng: Generator, most: int) -> tuple[list[Plate], float]:
    """Plates from the top down, around y = 0, and the radius of the first."""
    scale = choose(rng, SIZES, (0.3, 0.55, 0.15))
    turn, roll = rng.normal(0, 0.2), rng.normal(0, 0.05)

    def sign(name: str) -> Plate:
        radius = RADII.get(name, RADII[category(name)]) * scale * rng.uniform(0.95, 1.05)
        return Plate(name, int(rng.integers(num_variants(name))), 0.0, radius, turn, roll)

    first = sign(choose(rng, NAMES))
    plates = [first]
    kind = rng.random()
    if kind < 0.25 and most > 1:
        plates.append(sign(choose(rng, NAMES)))
    elif kind < 0.4:
        radius = first.radius * rng.uniform(0.7, 1.1)
        plates.append(Plate("panel", int(rng.integers(3)), 0.0, radius, turn, roll))
    elif kind < 0.47:
        name = choose(rng, OTHERS)
        plates.append(Plate(name, int(rng.integers(3)), 0.0, first.radius, turn, roll))
    elif kind < 0.53 and "limit_" in first.name:
        behind = Plate("board", int(rng.integers(3)), 0.0, first.radius * 1.65, turn, roll)
        return [behind, first._replace(y=0.25 * first.radius)], first.radius
    if len(plates) > 1 and rng.random() < 0.3 and "panel" not in plates[1].name:
        plates.reverse()
    y, hung = 0.0, []
    for above, plate in zip([None, *plates[:-1]], plates, strict=True):
        if above:
            reach = 0.35 if plate.name == "panel" else 1.0
            y -= (above.radius + reach * plate.radius) * rng.uniform(0.92, 1.05)
        hung.append(plate._replace(y=y))
    return hung, first.radius


def stand(
    rng: Generator, camera: Camera, road: Road, z: float, plates: list[Plate], built: bool
) -> Thing:
    """A post z metres ahead, beside the road or on an island, where the camera sees it."""
    side = 1 if rng.random() < 0.66 else -1
    kerb = road.right if side > 0 else road.left
    island = plates[0].name in LOW and rng.random() < 0.6
    x = kerb + side * rng.uniform(0.3, 2.5)
    if island or rng.random() < 0.07:
        x = rng.uniform(road.left, road.right)
    # What has left the frame is moved towards its border.
    edges = [(share - camera.vanish) / camera.focal * z for share in (0.04, 0.96)]
    bend = camera.bend * z**2
    x = float(np.clip(x, edges[0] - bend, edges[1] - bend))
    foot = -min(plate.y - plate.radius for plate in plates)
    height = rng.uniform(0.3, 0.9) if island else rng.uniform(1.6, 2.5 if built else 2.2)
    if rng.random() < 0.05:
        height = rng.uniform(3.5, 5.5)  # over the road, or on a lamp
    rows = camera.height + (camera.horizon - 0.03) * 0.575 / camera.focal * z
    lift = min(foot + height, rows - plates[0].radius)
    lifted = tuple(plate._replace(y=plate.y + lift) for plate in plates)
    top = max(plate.y + plate.radius for plate in lifted) + rng.uniform(-0.1, 0.1)
    if rng.random() < 0.12:
        top += rng.uniform(1, 4)
    grey, width = int(rng.integers(70, 190)), rng.uniform(0.05, 0.11)
    return Thing("post", x, z, width, top, 0, new_seed(rng), (grey, grey, grey), plates=lifted)
