"""What the drawn faces promise: the right plates, none like another."""

import unittest
from itertools import combinations

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from world import faces


def on_grey(face: Image.Image) -> np.ndarray:
    """(H, W, 3) float face over mid grey."""
    ground = Image.new("RGB", face.size, (128, 128, 128))
    ground.paste(face, (0, 0), face)
    return np.asarray(ground, float)


# The benchmark's 43 classes in its own order (Stallkamp et al. 2012).
GTSRB_CLASSES = (
    "speed_limit_20",
    "speed_limit_30",
    "speed_limit_50",
    "speed_limit_60",
    "speed_limit_70",
    "speed_limit_80",
    "end_of_speed_limit_80",
    "speed_limit_100",
    "speed_limit_120",
    "no_overtaking",
    "no_overtaking_by_trucks",
    "priority_crossing",
    "priority_road",
    "give_way",
    "stop",
    "no_vehicles",
    "no_trucks",
    "no_entry",
    "general_caution",
    "curve_left",
    "curve_right",
    "double_curve",
    "bumpy_road",
    "slippery_road",
    "road_narrows",
    "road_works",
    "traffic_signals",
    "pedestrians",
    "children",
    "bicycles",
    "snow",
    "wild_animals",
    "end_of_limits",
    "turn_right",
    "turn_left",
    "ahead_only",
    "ahead_or_right",
    "ahead_or_left",
    "keep_right",
    "keep_left",
    "roundabout",
    "end_of_no_overtaking",
    "end_of_no_overtaking_by_trucks",
)


class Faces(unittest.TestCase):
    def mean_colour(self, name: str, variant: int, radii: tuple[float, float]) -> np.ndarray:
        face = np.asarray(faces.draw_face(name, 96, variant), float)
        y, x = np.mgrid[-1:1:96j, -1:1:96j]
        distance = np.hypot(x, y)
        ring = (radii[0] < distance) & (distance < radii[1])
        return face[ring].mean(0)

    def test_the_order_is_the_benchmarks(self):
        self.assertEqual(tuple(faces.FACES), GTSRB_CLASSES)

    def test_size_mode_and_transparent_corners(self):
        for name in faces.FACES:
            for variant in range(faces.num_variants(name)):
                face = faces.draw_face(name, 48, variant)
                self.assertEqual((face.mode, face.size), ("RGBA", (48, 48)))
                alpha = np.asarray(face)[..., 3]
                corners = alpha[[0, 0, -1, -1], [0, -1, 0, -1]]
                if not name.endswith("give_way"):
                    self.assertEqual(corners.tolist(), [0, 0, 0, 0])
                self.assertEqual(alpha[24, 24], 255)

    def test_rings_have_their_colour(self):
        for name in ("stop", "no_entry", "no_vehicles", "no_overtaking", "speed_limit_30"):
            for variant in range(faces.num_variants(name)):
                red, green, blue, _ = self.mean_colour(name, variant, (0.82, 0.88))
                self.assertGreater(red, 150, name)
                self.assertLess(max(green, blue), 60, name)
        for name in ("turn_right", "ahead_only", "keep_right", "roundabout"):
            red, _, blue, _ = self.mean_colour(name, 0, (0.84, 0.9))
            self.assertGreater(blue, red + 100, name)
        red, green, blue, _ = self.mean_colour("priority_road", 0, (0, 0.25))
        self.assertGreater(min(red, green), blue + 100)

    def test_left_is_the_mirror_of_right(self):
        for left in ("turn_left", "curve_left", "ahead_or_left", "keep_left"):
            right = left.replace("left", "right")
            for variant in range(faces.num_variants(left)):
                mirror = ImageOps.mirror(faces.draw_face(left, 96, variant))
                face = faces.draw_face(right, 96, variant)
                difference = np.abs(on_grey(mirror) - on_grey(face)).mean()
                self.assertLess(difference, 2.0, (left, variant))
                unlike = np.abs(on_grey(ImageOps.mirror(face)) - on_grey(face)).mean()
                self.assertGreater(unlike, 4 * difference, (left, variant))

    def test_what_ends_is_struck_out(self):
        """From the lower left to the upper right the plate is darker than across."""
        for name in (name for name in faces.FACES if name.startswith("end_of")):
            for variant in range(faces.num_variants(name)):
                face = on_grey(faces.draw_face(name, 96, variant)).mean(2)
                middle = np.arange(16, 80)
                falling, rising = face[middle, middle], face[95 - middle, middle]
                self.assertLess(rising.mean(), falling.mean() - 40, (name, variant))

    def test_mark_of_caution_stands_clear_of_the_border(self):
        """White lies between it and the red, as in the streets.

        A mark that touches the border reads as the arrow of a priority crossing.
        """
        for variant in range(faces.num_variants("general_caution")):
            face = on_grey(faces.draw_face("general_caution", 384, variant))
            black = face.max(2) < 60
            red = Image.fromarray(face[..., 0] > face[..., 1] + 80).convert("L")
            near = np.asarray(red.filter(ImageFilter.MaxFilter(9))) > 0
            self.assertFalse((black & near).any(), variant)
            self.assertGreater(np.ptp(np.flatnonzero(black.any(1))), 384 / 3, variant)

    def test_red_car_on_the_left_black_on_the_right(self):
        face = on_grey(faces.draw_face("no_overtaking", 96))
        left, right = face[50, 32], face[50, 64]
        self.assertGreater(left[0], left[1] + 100)
        self.assertLess(right.max(), 60)

    def test_roundabout_is_a_third_of_a_turn_symmetric_and_has_a_direction(self):
        face = faces.draw_face("roundabout", 96)
        third = np.abs(on_grey(face.rotate(120, Image.Resampling.BICUBIC)) - on_grey(face)).mean()
        mirror = np.abs(on_grey(ImageOps.mirror(face)) - on_grey(face)).mean()
        self.assertLess(third, 8)
        self.assertGreater(mirror, 2 * third)

    def test_every_limit_differs_from_every_other(self):
        limits = [
            on_grey(faces.draw_face(name, 64)) for name in faces.FACES if "speed_limit" in name
        ]
        for (a, first), (b, second) in combinations(enumerate(limits), 2):
            self.assertGreater(np.abs(first - second).mean(), 3, (a, b))

    def test_nearest_face_names_every_class(self):
        prints = {
            (name, variant): np.asarray(on_grey(faces.draw_face(name, 32, variant))).ravel()
            for name in faces.FACES
            for variant in range(faces.num_variants(name))
        }
        keys, bank = list(prints), np.stack(list(prints.values()))
        for name in faces.FACES:
            face = faces.draw_face(name, 96, faces.num_variants(name) - 1)
            for degrees, shift in ((2, (2, 0)), (-2, (0, -2))):
                warped = face.rotate(degrees, Image.Resampling.BICUBIC, translate=shift)
                probe = on_grey(warped.resize((32, 32), Image.Resampling.BOX)).ravel()
                nearest = np.abs(bank - probe).sum(1).argmin()
                self.assertEqual(keys[nearest][0], name)

    def test_unknown_variant_and_glyph_are_refused(self):
        with self.assertRaisesRegex(ValueError, "variant 99"):
            faces.draw_face("stop", 32, 99)
        with self.assertRaisesRegex(ValueError, "'X'"):
            faces.glyph("X", 1, 1)


if __name__ == "__main__":
    unittest.main()
