"""What the camera promises: a lens that only blurs and shifts, an exposure, worn plates."""

import math
import unittest
from unittest import mock

import numpy as np

from world import camera


def gaussian(length: int, size: int, sigma: float, shift: float) -> np.ndarray:
    """(size, length) weights of a lens, entry by entry."""
    step = length / size
    weights = np.zeros((size, length))
    for i in range(size):
        for j in range(length):
            distance = (j + 0.5 - (i + 0.5 + shift) * step) / (sigma * step)
            weights[i, j] = math.exp(-(distance**2) / 2)
        weights[i] /= weights[i].sum()
    return weights


class Lens(unittest.TestCase):
    def test_against_a_dense_matrix(self):
        planes = np.random.default_rng(0).random((2, 150, 90)).astype(np.float32)
        for size, sigma, shifts in (((150, 90), 0.9, (0.4, -0.3)), ((70, 41), 0.5, (0.0, 0.2))):
            rows, columns = (
                gaussian(n, m, sigma, s)
                for n, m, s in zip(planes.shape[1:], size, shifts, strict=True)
            )
            seen = camera.through_lens(planes, size, sigma, shifts)
            self.assertEqual(seen.shape, (2, *size))
            np.testing.assert_allclose(seen, rows @ planes @ columns.T, atol=1e-5)

    def test_the_span_does_not_matter(self):
        planes = np.random.default_rng(1).random((1, 200, 100)).astype(np.float32)
        whole = camera.through_lens(planes, (200, 100), 1.3, (0.5, 0.5))
        with mock.patch.object(camera, "SPAN", 7):
            parts = camera.through_lens(planes, (200, 100), 1.3, (0.5, 0.5))
        np.testing.assert_allclose(parts, whole, atol=1e-6)


class Sensor(unittest.TestCase):
    def test_each_pixel_sees_its_own_colour(self):
        light = np.random.default_rng(0).random((6, 8, 3)).astype(np.float32)
        seen = camera.demosaic(light)
        for y, x, channel in ((2, 4, 0), (2, 3, 1), (3, 4, 1), (3, 3, 2)):
            self.assertEqual(seen[y, x, channel], light[y, x, channel])
        red, green, blue = np.moveaxis(light, 2, 0)
        corners = blue[1, 3] + blue[1, 5] + blue[3, 3] + blue[3, 5]
        self.assertAlmostEqual(seen[2, 4, 2], corners / 4, places=6)
        beside = green[1, 4] + green[3, 4] + green[2, 3] + green[2, 5]
        self.assertAlmostEqual(seen[2, 4, 1], beside / 4, places=6)
        self.assertAlmostEqual(seen[2, 3, 0], (red[2, 2] + red[2, 4]) / 2, places=6)

    def test_what_changes_evenly_is_seen_as_it_is(self):
        y, x = np.indices((9, 12), np.float32)
        for light in (np.full((9, 12, 3), (0.2, 0.5, 0.7), np.float32),
                      np.dstack([0.05 * y + 0.01 * x, 0.3 + 0.02 * x, 0.9 - 0.03 * y - 0.02 * x])
                      ):  # fmt: skip
            inside = np.s_[1:-1, 1:-1]
            np.testing.assert_allclose(camera.demosaic(light)[inside], light[inside], atol=1e-6)
            sharp = camera.sharpen(light, 0.5)
            np.testing.assert_allclose(sharp[inside], light[inside], atol=1e-6)

    def test_a_thin_black_line_is_coloured(self):
        light = np.ones((8, 9, 3), np.float32)
        light[:, 4] = 0
        seen = camera.demosaic(light)
        self.assertGreater(np.ptp(seen[:, 4], axis=1).min(), 0.4)
        self.assertEqual(np.ptp(seen[:, 1], axis=1).max(), 0)
        wide = np.ones((8, 20, 3), np.float32)
        wide[:, 6:14] = 0
        self.assertEqual(np.ptp(camera.demosaic(wide)[:, 9:11], axis=2).max(), 0)

    def test_sharpening_raises_a_step_on_both_sides(self):
        light = np.full((5, 8, 3), 0.25, np.float32)
        light[:, 4:] = 0.75
        sharp = camera.sharpen(light, 0.4)[2, :, 0]  # a step of 1/2, a quarter of it, times 0.4
        expected = [0.25, 0.25, 0.25, 0.2, 0.8, 0.75, 0.75, 0.75]
        np.testing.assert_allclose(sharp, expected, atol=1e-6)


class Exposure(unittest.TestCase):
    def test_even_light_keeps_its_level(self):
        """What leaves the sensor is the light's gamma, veil and grain apart."""
        for level in (0.02, 0.2, 0.8):
            light = np.full((40, 60, 3), level, np.float32)
            for seed in range(6):
                pixels = camera.expose(np.random.default_rng(seed), light, (40, 60), veil=0.03)
                self.assertEqual((pixels.shape, pixels.dtype), ((40, 60, 3), np.uint8))
                mean = pixels.mean() / 255
                self.assertGreater(mean, 0.99 * level ** (1 / camera.GAMMA) - 0.01)
                self.assertLess(mean, (1.03 * level) ** (1 / camera.GAMMA) + 0.01)

    def test_veil_lifts_the_dark(self):
        light = np.zeros((40, 40, 3), np.float32)
        light[:20] = 1
        dark = [
            camera.expose(np.random.default_rng(s), light, (40, 40), veil=0.5)[25:35].mean()
            for s in range(40)
        ]
        self.assertGreater(max(dark), 60)
        clear = [
            camera.expose(np.random.default_rng(s), light, (40, 40), veil=0.03)[25:35].mean()
            for s in range(40)
        ]
        self.assertLess(max(clear), 45)

    def test_motion_smears_as_far_as_it_is_told(self):
        light = np.zeros((64, 64, 3), np.float32)
        light[:, 32:] = 1
        soft = {
            motion: np.mean([
                (np.abs(np.diff(camera.expose(np.random.default_rng(s), light, (64, 64), motion)
                        [..., 1].astype(int), axis=1)) > 20).sum(1).mean()
                for s in range(60)
            ])
            for motion in (0, 6)
        }  # fmt: skip
        self.assertGreater(soft[6], soft[0] + 0.5)

    def test_compression_costs_detail_not_size(self):
        grey = np.random.default_rng(0).integers(0, 256, (30, 40, 1), np.uint8)
        pixels = grey.repeat(3, 2)
        errors = [
            np.abs(camera.compress(pixels, quality).astype(int) - pixels).mean()
            for quality in (30, 95)
        ]
        self.assertEqual(camera.compress(pixels, 30).shape, pixels.shape)
        self.assertGreater(errors[0], 1.5 * errors[1])


class Textures(unittest.TestCase):
    def test_from_fine_to_cloudy_and_level(self):
        found = camera.textures(64)
        self.assertEqual(found.shape, (camera.TEXTURES, 64, 64))
        np.testing.assert_allclose(found.mean((1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(found.std((1, 2)), 1, atol=1e-3)
        steps = np.abs(np.diff(found, axis=2)).mean((1, 2))
        self.assertGreater(steps[0], 3 * steps[-1])

    def test_wear_is_of_the_faces_size(self):
        for side in (16, 72):
            face = np.full((side, side, 3), 0.5, np.float32)
            worn = [camera.wear(np.random.default_rng(seed), face) for seed in range(30)]
            self.assertEqual({w.shape for w in worn}, {face.shape})
            self.assertTrue(any((w != face).any() for w in worn))
            np.testing.assert_array_equal(face, 0.5)


if __name__ == "__main__":
    unittest.main()
