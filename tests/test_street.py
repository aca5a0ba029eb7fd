"""What the street promises: picture, boxes, labels and words of one scene that agree."""

import io
import json
import math
import tempfile
import unittest
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from faster_coco_eval import COCO
from PIL import Image
from torchvision.datasets import VOCDetection

from published import STREET_FORMATS
from tasks.detection.data import read_split
from tests.support import ScriptCase, script_here
from tests.test_signs import digests
from world import formats, ground, light, missing, scene, street, vehicles
from world.canvas import CAR, LABELS, POLE, ROAD, SIGN, SKY, TREE, Camera, Canvas, Window
from world.faces import FACES
from world.scene import Plate, Road, Scene, Thing, Weather

LEVEL = Camera(height=1.4, focal=1.0, horizon=0.5, vanish=0.5, roll=0.0, bend=0.0, hill=0.0)
BARE_ROAD = Road(-4, 4, (), 0.0, (), (), (90, 90, 90), (70, 80, 40))
NOON = Weather("overcast", 3.0, 0.0, 0.0, 0.0, 0.0, (1, 1, 1), 0.3)
# The label of what each kind draws, beside poles and signs on it.
KINDS = {
    "house": "building", "hedge": "tree", "fence": "fence", "rail": "fence", "gantry": "pole",
    "leafy": "tree", "bare": "tree", "conifer": "tree", "bush": "tree", "post": "sign",
    "lamp": "pole", "traffic_light": "sign", "bollard": "pole", "wires": "void",
    "poster": "sign", "box": "void", "person": "pedestrian", "cyclist": "bicyclist",
    "car": "car", "van": "car", "lorry": "car", "bus": "car",
}  # fmt: skip


def thing(kind: str, x: float = 0.0, z: float = 12.0, seed: int = 0, **more) -> Thing:
    sizes = {"lamp": (1.0, 5.0, 0), "traffic_light": (3.0, 3.0, 0), "wires": (40, 6, 0),
             "gantry": (9, 6.5, 0), "person": (0.5, 1.8, 0), "post": (0.08, 3.0, 0)}  # fmt: skip
    width, height, length = sizes.get(kind, (2.0, 2.5, 4.0))
    if kind == "post":
        more.setdefault("plates", (sign(),))
    return Thing(kind, x, z, width, height, length, seed, (200, 60, 40), **more)


def sign(name: str = "stop", y: float = 2.5, radius: float = 0.4, **more) -> Plate:
    return Plate(name, 0, y, radius, 0.0, 0.0, **more)


def place(*things: Thing, camera: Camera = LEVEL, weather: Weather = NOON, seed: int = 0) -> Scene:
    return Scene("country", camera, BARE_ROAD, weather, things, seed)


def frame(height: int, width: int) -> Window:
    return Window(height, width, 0, 0, height, width)


def views(count: int, size: tuple[int, int] = (184, 320), zoom: float = 1.0) -> list[street.View]:
    return [street.draw_street(np.random.default_rng(k), size, zoom) for k in range(count)]


class OneScene(unittest.TestCase):
    def test_a_box_is_the_tightest_around_the_pixels_of_its_object(self):
        kinds = set()
        for view in views(12):
            for seen in view.objects:
                own = view.surfaces == seen.surface
                y, x = np.nonzero(own)
                box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
                self.assertEqual(seen.box, box)
                self.assertEqual(seen.pixels, own.sum())
                expected = KINDS.get(seen.kind, "sign")
                self.assertEqual({LABELS[k] for k in view.labels[own]}, {expected})
                kinds.add(seen.kind)
            distances = [seen.distance for seen in view.objects]
            self.assertEqual(distances, sorted(distances))
        self.assertLessEqual({"sign", "plate", "back", "car", "person", "traffic_light"}, kinds)

    def test_what_is_drawn_belongs_to_what_drew_it(self):
        """Every kind on an empty canvas: where there is colour there is its surface."""
        self.assertEqual(street.DRAW.keys(), KINDS.keys())
        for kind, name in KINDS.items():
            for seed in range(5):
                drawn = Canvas(LEVEL, frame(180, 240))
                subject = thing(kind, x=2.0, seed=seed)
                before = len(drawn.surfaces)
                street.DRAW[kind](drawn, subject, np.random.default_rng(subject.seed))
                picture = np.asarray(drawn.image)
                coloured, owner = picture[..., :3].any(2), picture[..., 3]
                owned = np.array([not s.sky for s in drawn.surfaces])[owner]
                hard = 0.9 if kind == "post" else 1.0  # a plate's edge is soft
                self.assertGreaterEqual(owned[coloured].mean(), hard, kind)
                if kind != "fence":  # a fence owns what is seen through it
                    self.assertGreater(coloured[owned].mean(), 0.98, kind)
                labels = np.array([s.label for s in drawn.surfaces])[owner][coloured]
                named = {LABELS[label] for label in labels}
                self.assertIn(name, named)
                self.assertLessEqual(named, {name, "pole", "sign", "sky"}, kind)
                budget = 1 + len(subject.plates) + scene.MORE_SURFACES.get(kind, 0)
                new = len(drawn.surfaces) - before - len(drawn.seen_through)
                self.assertLessEqual(new, budget, kind)

    def test_a_crown_without_leaves_is_a_tree_whatever_house_is_seen_through_it(self):
        """But not a sign: that stays what it is where no twig hides it."""
        house = Thing("house", -1.0, 24, 20.0, 30.0, 4.0, 0, (150, 90, 70))
        post = thing("post", x=-6.4, z=16, plates=(sign("stop", y=4.0, radius=0.6),))
        bare = thing("bare", x=-4.0, z=10)._replace(width=4.0, height=5.0, colour=(40, 34, 30))
        alone, before = (
            street.see(place(*things), frame(200, 300)).labels
            for things in ((bare,), (house, post, bare))
        )
        crown = alone == TREE
        crown[70:] = False  # woods, and the ground, are green as well
        self.assertGreater(crown.sum(), 1000)
        self.assertEqual(set(np.unique(before[crown])) - {SIGN, POLE}, {TREE})
        behind = street.see(place(house, post), frame(200, 300)).labels == SIGN
        self.assertGreater((before[behind & crown] == SIGN).mean(), 0.3)

    def test_the_same_scene_gives_the_same_view(self):
        imagined = scene.imagine(np.random.default_rng(4))
        first, again = (street.see(imagined, frame(90, 160)) for _ in range(2))
        for a, b in zip(first, again, strict=True):
            np.testing.assert_equal(a, b)
        other = street.see(replace(imagined, seed=imagined.seed + 1), frame(90, 160))
        self.assertTrue((other.picture != first.picture).any())

    def test_a_window_shows_what_its_part_of_the_frame_shows(self):
        for seed in range(4):
            imagined = scene.imagine(np.random.default_rng(seed))
            whole = street.see(imagined, frame(240, 400))
            part = street.see(imagined, Window(240, 400, 60, 130, 100, 170))
            same = part.labels == whole.labels[60:160, 130:300]
            self.assertGreater(same.mean(), 0.99)

    def test_any_size_and_zoom(self):
        for size, zoom in (((37, 53), 1.0), ((128, 64), 3.0), ((201, 99), 1.7), ((1, 1), 1.0)):
            view = street.draw_street(np.random.default_rng(1), size, zoom)
            self.assertEqual((view.picture.shape, view.picture.dtype), ((*size, 3), np.uint8))
            self.assertEqual((view.labels.shape, view.labels.dtype), (size, np.uint8))
            self.assertLess(view.labels.max(), len(LABELS))

    def test_a_zoomed_picture_mostly_shows_a_sign_or_plate(self):
        shown = [
            any(seen.kind in ("sign", "plate", "back") for seen in view.objects)
            for view in views(30, (96, 96), 6.0)
        ]
        self.assertGreater(sum(shown), 20)

    def test_all_labels_and_all_light(self):
        found, means, skies = np.zeros(len(LABELS), int), [], []
        for view in views(40):
            found += np.bincount(view.labels.ravel(), minlength=len(LABELS)) > 0
            means.append(view.picture.mean() / 255)
            skies.append((view.labels == SKY).mean())
        self.assertGreaterEqual(found.min(), 5, dict(zip(LABELS, found.tolist(), strict=True)))
        dark, middle, bright = np.percentile(means, (5, 50, 95))
        self.assertTrue(0.1 < dark < 0.35 and 0.3 < middle < 0.65 and bright > 0.5, means)
        self.assertGreater(np.mean(skies), 0.1)


class Geometry(unittest.TestCase):
    def test_a_sign_is_as_large_as_a_pinhole_shows_it(self):
        """A square of side 2 r at z is 2 r f / z pixels wide, and as far over the horizon."""
        for z in (6, 12, 24):
            post = thing("post", x=1.0, z=z, plates=(sign("board", radius=0.5, y=2.4),))
            view = street.see(place(post), frame(400, 600))
            (seen,) = (seen for seen in view.objects if seen.kind == "plate")
            left, top, right, bottom = seen.box
            f = 600 / (z - 0.05)
            self.assertAlmostEqual(right - left, 2 * 0.72 * 0.5 * f, delta=1.1)
            self.assertAlmostEqual(bottom - top, 2 * 0.98 * 0.5 * f, delta=1.1)
            self.assertAlmostEqual((left + right) / 2, 300 + 1.0 * f, delta=1.1)
            self.assertAlmostEqual((top + bottom) / 2, 200 - (2.4 - 1.4) * f, delta=1.1)
            self.assertEqual(seen.distance, z)
            self.assertAlmostEqual(seen.share, 1.0, delta=0.05)

    def test_signs_are_spread_as_in_photographs(self):
        """Longer sides of signs in pictures 1280 wide: those of the benchmark are 15 to 120."""
        sides = []
        for seed in range(300):
            imagined = scene.imagine(np.random.default_rng(seed))
            focal = imagined.camera.focal * 1280
            for post in imagined.things:
                for plate in post.plates:
                    if plate.name in FACES and not plate.behind:
                        sides.append(2 * plate.radius * focal / post.z)
                        self.assertTrue(4 <= post.z <= 60)
        small, middle, large = np.percentile(sides, (5, 50, 95))
        self.assertTrue(12 < small < 24 and 28 < middle < 46 and 70 < large < 125)
        self.assertGreater(len(sides), 500)

    def test_signs_stand_within_the_frame(self):
        inside = total = 0
        for seed in range(100):
            imagined = scene.imagine(np.random.default_rng(seed))
            drawn = Canvas(imagined.camera, frame(368, 640))
            for post in imagined.things:
                for plate in post.plates:
                    x, y = drawn.project(np.array((post.x, plate.y, post.z))) / drawn.SUPERSAMPLE
                    inside += 0 <= x < 640 and 0 <= y < 368
                    total += 1
        self.assertGreater(inside / total, 0.9)

    def test_ground_lies_below_the_horizon_and_sky_above(self):
        labels = street.see(place(seed=3), frame(200, 300)).labels
        self.assertFalse(np.isin(labels[:99], (ROAD,)).any())
        self.assertFalse((labels[103:] == SKY).any())
        self.assertTrue((labels[120:, 150] == ROAD).all())
        self.assertGreater((labels[:60] == SKY).mean(), 0.9)
        # Nearer rows show less of the road's length and more of its width.
        widths = (labels == ROAD).sum(1)
        self.assertTrue((np.diff(widths[105:]) >= 0).all())

    def test_the_ground_has_no_holes_behind_bends_and_hilltops(self):
        """Whatever lies over itself there: no sky is seen below the ground's upper edge."""
        town = replace(BARE_ROAD, pavement=2.0)
        for bend, hill in ((4e-3, 0.0), (-3e-3, 1e-3), (0.0, 1e-3), (3e-3, -6e-4)):
            drawn = Canvas(replace(LEVEL, bend=bend, hill=hill), frame(200, 300))
            bent = replace(place(), camera=drawn.camera, road=town)
            ground.draw_ground(drawn, bent, np.random.default_rng(0))
            labels = np.array([s.label for s in drawn.surfaces])[np.asarray(drawn.image)[..., 3]]
            covered = np.maximum.accumulate(labels != SKY, 0)
            self.assertFalse(((labels == SKY) & covered).any(), (bend, hill))

    def test_a_block_shows_the_walls_that_face_the_camera(self):
        for x, height, turn, names in (
            (3.0, 1.0, 0.0, {"near", "left", "top"}),
            (-3.0, 2.0, 0.0, {"near", "right"}),
            (-3.0, 2.0, np.pi, {"far", "left"}),
        ):
            subject = thing("box", x=x, z=8, turn=turn)
            drawn, plan = Canvas(LEVEL, frame(200, 300)), (-1, 1, 0, 4)
            walls = vehicles.block(drawn, subject, plan, plan, (0, height), (200, 60, 40), 1)
            self.assertEqual(walls.keys(), names)
            for wall in walls.values():
                self.assertTrue((np.abs(wall[:, 0] - x) < 1.01).all())
                self.assertTrue(((wall[:, 2] > 7.9) & (wall[:, 2] < 12.1)).all())

    def test_the_view_is_closed_by_woods_and_houses(self):
        found = set()
        for seed in range(6):
            drawn = Canvas(LEVEL, frame(200, 300))
            ground.draw_horizon(drawn, np.random.default_rng(seed))
            owner = np.asarray(drawn.image)[..., 3]
            labels = np.array([s.label for s in drawn.surfaces])[owner]
            self.assertTrue((labels[:120] == SKY).all(), "30 m at 170 m")
            found |= {LABELS[k] for k in labels.ravel()}
        self.assertEqual(found, {"sky", "tree", "building"})

    def test_bend_hill_and_roll_move_the_road(self):
        points = np.array([(0.0, 0.0, 10.0), (0.0, 0.0, 100.0)])
        drawn = Canvas(LEVEL, frame(200, 300))
        straight = drawn.project(points)
        self.assertEqual(straight[:, 0].tolist(), [300, 300])  # the middle of a doubled frame
        for change, axis, sign in (({"bend": 1e-3}, 0, 1), ({"hill": 1e-3}, 1, -1)):
            moved = Canvas(replace(LEVEL, **change), frame(200, 300)).project(points) - straight
            self.assertAlmostEqual(moved[1, axis], sign * 2 * 300 * 1e-3 * 100)
            self.assertAlmostEqual(moved[0, axis] * 10, moved[1, axis])
        rolled = Canvas(replace(LEVEL, roll=0.1), frame(200, 300)).project(points)
        self.assertLess(rolled[0, 0], straight[0, 0])

    def test_what_stands_behind_is_hidden(self):
        plates = (sign("no_entry", y=1.0, radius=0.3),)
        alone = place(thing("post", z=20, plates=plates))
        half = place(*alone.things, thing("box", x=1.0, z=15))
        hidden = place(*alone.things, thing("bus", x=0.0, z=10))
        for case, share in ((alone, 1.0), (half, 0.5)):
            (seen,) = (s for s in street.see(case, frame(400, 600)).objects if s.kind == "sign")
            self.assertAlmostEqual(seen.share, share, delta=0.1)
        kinds = [seen.kind for seen in street.see(hidden, frame(400, 600)).objects]
        self.assertEqual(kinds, ["bus"])

    def test_nobody_is_asked_for_what_cannot_be_seen(self):
        """Too small, more than half hidden, or of one colour with the haze before it."""

        def look(z=10.0, haze=0.0, *more):
            post = thing("post", z=z, plates=(sign("no_entry", y=1.0, radius=0.3),))
            scene = place(post, *more, weather=replace(NOON, haze=haze))
            view = street.see(scene, frame(400, 600))
            (seen,) = (s for s in view.objects if s.kind == "sign")
            pixels = view.picture[view.surfaces == seen.surface].astype(float)
            spread = max(
                math.sqrt(sum((x - channel.mean()) ** 2 for x in channel) / len(channel))
                for channel in pixels.T
            )
            self.assertAlmostEqual(seen.contrast, spread, places=3)
            return seen

        self.assertTrue(look().clear)
        far = look(z=40)
        self.assertLess(far.box[2] - far.box[0], 14)
        self.assertGreater(far.contrast, 8)
        self.assertFalse(far.clear)
        hidden = look(20, 0, thing("box", x=0.9, z=15))
        self.assertTrue(0.2 < hidden.share < 0.5, hidden)
        self.assertFalse(hidden.clear)
        pale = look(haze=0.5)
        self.assertLess(pale.contrast, 8)
        self.assertFalse(pale.clear)

    def test_nobody_is_asked_for_who_is_hidden(self):
        """Of people and cars, too, it counts how much is seen, neither hidden nor cut off."""
        view = frame(400, 600)
        narrow = view._replace(left=300, width=300)  # what is at x = 0 is cut in half
        for kind, side in (
            ("person", 0.25), ("cyclist", 0.3), ("traffic_light", 0.2), ("car", 1.0), ("bus", 1.3)
        ):  # fmt: skip
            with self.subTest(kind=kind):
                own = thing(kind, x=0.0, z=12)
                own = own._replace(width=0.0) if kind == "traffic_light" else own
                wall = thing("box", x=0.5 + side / 4, z=6)._replace(width=1.0, height=6.0)
                for case, window, low, high in (
                    (place(own), view, 0.99, 1.0),
                    (place(own), narrow, 0.3, 0.7),
                    (place(own, wall), view, 0.05, 0.95),
                ):
                    seen = [s for s in street.see(case, window).objects if s.kind == kind]
                    self.assertTrue(low <= seen[0].share <= high, seen)
                    self.assertEqual(seen[0].clear, seen[0].share >= 0.5, seen)

    def test_a_plate_seen_from_behind_is_no_sign(self):
        post = thing("post", plates=(sign("no_entry", behind=True),))
        view = street.see(place(post), frame(200, 300))
        (seen,) = view.objects
        self.assertEqual((seen.kind, seen.name), ("back", "no_entry"))
        red, green, blue = view.picture[view.surfaces == seen.surface].mean(0)
        self.assertLess(abs(red - green) + abs(green - blue), 30)

    def test_a_sign_shows_its_face(self):
        for name, channel in (("no_entry", 0), ("ahead_only", 2)):
            post = thing("post", z=6, plates=(sign(name),))
            view = street.see(place(post), frame(200, 300))
            (seen,) = view.objects
            self.assertEqual((seen.kind, seen.name), ("sign", name))
            colour = view.picture[view.surfaces == seen.surface].mean(0)
            self.assertEqual(colour.argmax(), channel)

    def test_a_canvas_refuses_more_surfaces_than_it_can_tell_apart(self):
        drawn = Canvas(LEVEL, frame(8, 8))
        with self.assertRaisesRegex(ValueError, "255"):
            for _ in range(300):
                drawn.surface(POLE, 1.0)
        crowd = [thing("post", z=1.0 + k) for k in range(400)]
        kept = scene.nearest(crowd)
        self.assertLess(sum(1 + len(post.plates) for post in kept), 245)
        self.assertEqual(list(kept), crowd[: len(kept)])


class Light(unittest.TestCase):
    def test_signs_stay_readable_in_any_light(self):
        """Grey levels of each clear sign differ: none is all white or all black."""
        for weather in (replace(NOON, grey=0.13), replace(NOON, grey=0.6, brightness=0.5)):
            for seed in range(12):
                post = thing("post", z=8, seed=seed, plates=(sign("no_overtaking"),))
                view = street.see(place(post, weather=weather, seed=seed), frame(120, 160))
                (seen,) = view.objects
                left, top, right, bottom = seen.box
                inside = view.picture[top:bottom, left:right].mean(2)
                low, high = np.percentile(inside, (10, 90))
                self.assertGreater(high - low, 20, (weather.grey, seed))

    def test_the_exposure_gives_the_level_asked_for(self):
        for grey in (0.2, 0.5):
            view = street.see(place(weather=replace(NOON, grey=grey), seed=2), frame(200, 300))
            level = view.picture[view.labels != SKY].mean() / 255
            self.assertAlmostEqual(level, grey, delta=0.07)

    def test_haze_takes_what_is_far(self):
        cars = [thing("bus", x=x, z=z, seed=1) for x, z in ((-2, 8), (3, 60))]
        contrasts = []
        for haze in (0.0, 0.03):
            weather = replace(NOON, haze=haze)
            view = street.see(place(*cars, weather=weather), frame(300, 400))
            near, far = (view.picture[view.surfaces == s.surface].mean() for s in view.objects)
            contrasts.append(far - near)
        self.assertGreater(contrasts[1], contrasts[0] + 25)

    def test_shadows_fall_on_the_ground_away_from_the_sun(self):
        tree = thing("leafy", x=0.0, z=10)
        lit = place(tree, weather=replace(NOON, sun=2.0, shadow=0.8))
        drawn = Canvas(LEVEL, frame(200, 300))
        shade = light.shadows(lit, drawn, np.random.default_rng(0))
        self.assertEqual(shade.shape, (200, 300))
        self.assertGreater(shade[:, :150].sum(), 4 * shade[:, 150:].sum())
        self.assertEqual(shade[:95].max(), 0)

    def test_what_lies_in_the_shadow_is_darker(self):
        tree, pictures = thing("leafy", x=0.0, z=10), []
        for shadow in (0.0, 0.8):
            weather = replace(NOON, sun=2.0, shadow=shadow)
            view = street.see(place(tree, weather=weather), frame(200, 300))
            pictures.append(view.picture.astype(float))
        drawn = Canvas(LEVEL, frame(200, 300))
        shade = light.shadows(place(tree, weather=weather), drawn, np.random.default_rng(0)) > 0
        near = np.isin(view.labels, (ROAD, TREE)) & (np.arange(200) > 110)[:, None]
        change = (pictures[1] - pictures[0]).mean(2)
        self.assertLess(change[shade & near].mean(), change[~shade & near].mean() - 15)

    def test_the_ground_is_dark_under_what_stands_on_it(self):
        """In any weather, and nowhere else."""
        car = thing("car", x=1.0, z=8)
        drawn = Canvas(LEVEL, frame(200, 300))
        lacking = light.contact(place(car), drawn)
        under = drawn.project(np.array((1.0, 0.0, 10.0))) / drawn.SUPERSAMPLE
        self.assertGreater(lacking[round(under[1]), round(under[0])], 0.7)
        self.assertEqual(lacking[:95].max(), 0)
        self.assertEqual(lacking[:, :120].max(), 0)
        self.assertEqual(light.contact(place(thing("leafy", z=8)), drawn).max(), 0)

    def test_road_is_seen_between_the_tyres(self):
        view = street.see(place(thing("car", z=8)), frame(200, 300))
        rows = np.flatnonzero((view.labels == CAR).any(1))
        lowest = view.labels[rows[-1]] == CAR
        columns = np.flatnonzero((view.labels == CAR).any(0))
        self.assertFalse(lowest[(columns[0] + columns[-1]) // 2])
        self.assertGreater(lowest.sum(), 0.1 * len(columns))

    def test_a_field_is_a_window_of_an_endless_texture(self):
        for shape, stretch in (((30, 50), 1), ((300, 700), 1), ((40, 90), 4)):
            found = light.field(np.random.default_rng(3), shape, 0, 4, stretch)
            k, y, x = np.random.default_rng(3).integers((0, 0, 0), (4, 256, 256))
            rows = (np.arange(shape[0]) + y) % 256
            columns = (np.arange(shape[1]) // stretch + x) % 256
            np.testing.assert_array_equal(found, light.textures(256)[k][np.ix_(rows, columns)])


class Words(unittest.TestCase):
    def test_the_sentence_names_what_is_seen(self):
        things = (
            thing("post", x=2.0, z=9.0, plates=(sign("speed_limit_30", y=2.2),)),
            thing("person", x=-2.0, z=14),
            thing("car", x=-3.0, z=20),
            thing("car", x=3.0, z=30),
            thing("post", x=-3.0, z=10.0, plates=(sign("stop", behind=True),)),
        )
        sentence = street.see(place(*things), frame(300, 500)).sentence
        self.assertEqual(
            sentence,
            "A country road under a grey sky, with a person, 2 cars and the sign 'speed limit 30' "
            "9 m ahead on the right.",
        )
        alone = street.see(place(), frame(90, 120)).sentence
        self.assertEqual(alone, "A country road under a grey sky.")

    def test_every_clear_sign_is_named_and_no_other(self):
        for view in views(8):
            named = view.sentence.count("the sign '")
            signs = [seen for seen in view.objects if seen.kind == "sign" and seen.clear]
            self.assertEqual(named, len(signs))
            for seen in signs:
                self.assertIn(f"'{seen.name.replace('_', ' ')}'", view.sentence)


class DataSet(unittest.TestCase):
    SMALL = {"train": 23, "val": 2}
    SIZE = (48, 84)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def draw(self, name: str, seed: int = 0, **more) -> dict[str, str]:
        street.streets_of(self.SIZE)(self.root / name, seed, self.SMALL, **more)
        return digests(self.root / name)

    def test_same_seed_same_bytes_whatever_the_workers(self):
        steps = []
        one = self.draw("one", workers=1, progress=steps.append)
        self.assertEqual(one, self.draw("two", workers=2))
        self.assertEqual(sum(steps), 25)
        other = self.draw("other", seed=1, workers=1)
        self.assertEqual(one.keys(), other.keys())
        pictures = {name for name in one if name.endswith((".jpg", ".png"))}
        self.assertEqual(len({one[name] for name in pictures}), len(pictures), "two are alike")
        self.assertFalse({one[name] for name in pictures} & {other[name] for name in pictures})

    def test_train_comes_last(self):
        with mock.patch.object(Path, "rename", autospec=True, side_effect=Path.rename) as moved:
            self.draw("street", workers=1)
        self.assertEqual([call.args[1].name for call in moved.call_args_list], ["val", "train"])

    def test_files_as_coco_and_voc_have_them(self):
        self.draw("street", workers=1)
        shown = 0
        for number, (split, count) in enumerate(self.SMALL.items()):
            place = self.root / "street" / split
            listed = (place / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
            self.assertEqual(listed, [f"{k:05d}" for k in range(count)])
            coco = json.loads((place / "annotations.json").read_text())
            self.assertEqual([image["id"] for image in coco["images"]], list(range(1, count + 1)))
            names = {entry["id"]: entry["name"] for entry in coco["categories"]}
            self.assertEqual(list(names.values())[:43], list(FACES))
            self.assertEqual(len(set(names.values())), len(names))
            ids = [entry["id"] for entry in coco["annotations"]]
            self.assertEqual(ids, list(range(1, len(ids) + 1)))
            captions = json.loads((place / "captions.json").read_text())["annotations"]
            for k, image in enumerate(coco["images"]):
                with Image.open(place / image["file_name"]) as picture:
                    self.assertEqual((picture.mode, picture.format), ("RGB", "JPEG"))
                    self.assertEqual(picture.size, (image["width"], image["height"]))
                    self.assertEqual(picture.size, self.SIZE[::-1])
                    pixels = np.asarray(picture, float)
                with Image.open(place / "SegmentationClass" / f"{listed[k]}.png") as labels:
                    self.assertEqual(labels.mode, "P")
                    self.assertEqual(
                        labels.getpalette()[: 3 * 12], np.ravel(street.PALETTE).tolist()
                    )
                    labels = np.asarray(labels)
                rng = np.random.default_rng((0, number, k))
                view = street.draw_street(rng, self.SIZE, rng.uniform(*street.ZOOM))
                np.testing.assert_array_equal(labels, view.labels)
                self.assertLess(np.abs(pixels - view.picture).mean(), 12)
                self.assertEqual(captions[k]["caption"], view.sentence)
                self.assertEqual(captions[k]["image_id"], image["id"])
                entries = [e for e in coco["annotations"] if e["image_id"] == image["id"]]
                self.assertEqual(len(entries), len(view.objects))
                for entry, seen in zip(entries, view.objects, strict=True):
                    shown += 1
                    left, top, width, height = entry["bbox"]
                    self.assertEqual((left, top, left + width, top + height), seen.box)
                    self.assertEqual(entry["area"], seen.pixels)
                    self.assertTrue(0 < entry["area"] <= width * height)
                    name = seen.name if seen.kind == "sign" else seen.kind
                    self.assertEqual(names[entry["category_id"]], name)
                    self.assertEqual(entry["iscrowd"], 0 if seen.clear else 1)
        self.assertGreater(shown, 40)

    def test_refuses_to_overwrite_and_leaves_nothing_after_an_error(self):
        def fail(done: int) -> None:
            raise InterruptedError("stop here")

        with self.assertRaises(InterruptedError):
            self.draw("street", workers=1, progress=fail)
        self.assertEqual(list((self.root / "street").iterdir()), [])
        (self.root / "street" / "val").mkdir()
        with self.assertRaisesRegex(FileExistsError, "val"):
            self.draw("street", workers=1)


FEW = {"train": 3, "val": 1, "test": 2}


class CommandTest(ScriptCase):
    def test_streets_by_the_script(self):
        """Drawn once; a second time it is refused in one line."""
        few = replace(missing.DRAWN["street"], draw=replace(street.draw_street_dataset, splits=FEW))
        with (
            tempfile.TemporaryDirectory() as holder,
            mock.patch.dict(missing.DRAWN, street=few),
        ):
            root = Path(holder) / "street"
            done = script_here("datasets.py", "street", "--root", root)
            self.assertEqual(done.returncode, 0, done.stderr)
            for split, count in FEW.items():
                coco = json.loads((root / split / "annotations.json").read_text())
                self.assertEqual(len(coco["images"]), count)
            again = script_here("datasets.py", "street", "--root", root)
            self.assert_refused(again, 1, "remove it to draw it again")

    def test_as_many_as_asked_for(self):
        with tempfile.TemporaryDirectory() as holder:
            root, few = Path(holder) / "few", ("--train", 2, "--val", 1, "--test", 0)
            with mock.patch("os.cpu_count", return_value=1):
                done = script_here("datasets.py", "street", "--root", root, *few)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(sorted(path.name for path in root.iterdir()), ["train", "val"])
            self.assertEqual(len(list(root.glob("train/JPEGImages/*.jpg"))), 2)
            few = ("--train", 0, "--val", 0, "--test", 0)
            self.assert_refused(script_here("datasets.py", "street", *few), 2, "nothing to draw")


class FormatTest(ScriptCase):
    """The same streets in every format: what is read from each is what was drawn."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        small = replace(missing.DRAWN["street"], draw=street.streets_of((184, 320)))
        alone = mock.patch("os.cpu_count", return_value=1)  # no processes for a few pictures
        with alone, mock.patch.dict(missing.DRAWN, street=small):
            for name in (None, *formats.FORMATS):
                few = ("--train", 4, "--val", 2, "--test", 2)
                kind = ("--format", name) if name else ()
                where = ("--root", cls.base / (name or "own"))
                done = script_here("datasets.py", "street", *where, *few, *kind)
                assert done.returncode == 0, done.stderr

    def read(self, dataset, folder, mode):
        with redirect_stdout(io.StringIO()):
            names = [entry["name"] for entry in street.CATEGORIES]
            return read_split(dataset, self.base / folder, mode, names)

    def boxes_of(self, split, index, clear_alone):
        """Return names and corners of a picture's boxes, of all or of those to be found."""
        chosen = ~split.ignored[index] if clear_alone else np.ones(len(split.boxes[index]), bool)
        names = [split.classes[label] for label in split.labels[index][chosen]]
        return names, split.boxes[index][chosen].round(1).tolist()

    def test_the_same_boxes(self):
        self.assertEqual(set(formats.FORMATS), set(STREET_FORMATS))
        compared = 0
        for name in formats.FORMATS:
            for mode in ("train", "val", "test"):
                own, other = self.read("coco", "own", mode), self.read(name, name, mode)
                self.assertEqual(len(own.paths), len(other.paths))
                for k, (path, same) in enumerate(zip(own.paths, other.paths, strict=True)):
                    self.assertEqual(path.read_bytes(), same.read_bytes())
                    clear = name == "yolo"
                    expected = self.boxes_of(own, k, clear)
                    self.assertEqual(self.boxes_of(other, k, clear), expected)
                    self.assertTrue(clear or (own.ignored[k] == other.ignored[k]).all())
                    compared += len(expected[0])
        self.assertGreater(compared, 50)

    def test_others_read_them(self):
        """torchvision reads VOC's folder, COCO's own tools its files."""
        theirs = VOCDetection(self.base / "voc", image_set="train")
        own = self.read("coco", "own", "train")
        for k, (_, tree) in enumerate(theirs):
            entries = tree["annotation"]["object"]
            names = [own.classes[label] for label in own.labels[k]]
            self.assertEqual([entry["name"] for entry in entries], names)
        file = self.base / "coco" / "annotations" / "instances_val.json"
        found = COCO(str(file))
        self.assertEqual(len(found.getImgIds()), 2)
        self.assertEqual(found.loadCats(1)[0]["name"], "speed_limit_20")
        own = self.read("coco", "own", "val")
        self.assertEqual(len(found.getAnnIds()), sum(map(len, own.boxes)))

    def test_a_folder_that_is_there(self):
        done = script_here("datasets.py", "street", "--root", self.base / "voc", "--format", "voc")
        self.assert_refused(done, 1, "exists already; remove it")


if __name__ == "__main__":
    unittest.main()
