"""Films in and out, and what is followed through them."""

import tempfile
import time
import unittest
from argparse import Namespace
from contextlib import redirect_stdout
from dataclasses import replace
from fractions import Fraction
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from lab import films, runtime
from lab.console import LabError
from tasks.detection.films import PATIENCE, Tracker, annotate_film
from tasks.trained import load_trained
from tests.test_export import save_run


def found(*rows):
    """Return detections: (score, label, box) of each."""
    return {
        "boxes": torch.tensor([box for *_, box in rows]).float().reshape(-1, 4),
        "scores": torch.tensor([score for score, *_ in rows]),
        "labels": torch.tensor([label for _, label, _ in rows], dtype=torch.int64),
    }


def box(x: float, y: float = 50.0, side: float = 20.0):
    return (x, y, x + side, y + side)


class TrackerTest(unittest.TestCase):
    def follow(self, *frames):
        tracker = Tracker()
        for number, rows in enumerate(frames):
            tracker.update(number, found(*rows))
        return tracker

    def test_two_that_cross_keep_their_identity(self):
        """By where they were going, not by where they were: in the middle both are at one place."""
        frames = [[(0.9, 0, box(10 * t)), (0.9, 1, box(100 - 10 * t, 52))] for t in range(11)]
        tracks = self.follow(*frames).shown()
        self.assertEqual(len(tracks), 2)
        self.assertEqual([float(track.boxes[10][0]) for track in tracks], [100, 0])
        self.assertEqual([dict(track.votes).keys() for track in tracks], [{0}, {1}])

    def test_one_that_moves_by_more_than_its_size(self):
        """Once it is known how it moves; of the first two frames, the boxes must overlap."""
        places = [0, 12, 30, 54, 84]
        (track,) = self.follow(*([(0.9, 0, box(x))] for x in places)).shown()
        self.assertEqual(len(track.boxes), 5)

    def test_what_the_whole_track_says(self):
        """Against two frames of five, however sure each was of itself."""
        votes = [(0.8, 3), (0.7, 5), (0.8, 3), (0.9, 5), (0.6, 3)]
        (track,) = self.follow(
            *([(s, label, box(t))] for t, (s, label) in enumerate(votes))
        ).shown()
        self.assertEqual(track.label, 3)
        self.assertAlmostEqual(track.certainty, 2.2 / 3.8, places=5)

    def test_faint_ones_continue_and_begin_nothing(self):
        frames = [[(0.9, 0, box(0)), (0.2, 1, box(200))]] + [[(0.2, 0, box(t))] for t in (1, 2, 3)]
        (track,) = self.follow(*frames).tracks
        self.assertEqual(len(track.boxes), 4)

    def test_a_gap(self):
        """A few frames without it do not end it; more do, and what comes then is another."""
        seen, none = [(0.9, 0, box(0))], []
        self.assertEqual(len(self.follow(*[seen] * 3, *[none] * (PATIENCE - 1), seen).tracks), 1)
        self.assertEqual(len(self.follow(*[seen] * 3, *[none] * PATIENCE, seen).tracks), 2)

    def test_what_flashes_up_is_not_shown(self):
        self.assertEqual(self.follow([(0.9, 0, box(0))], [], [(0.9, 1, box(300))]).shown(), [])


class FilmTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.frames = self.folder / "drive"
        self.frames.mkdir()
        for t in range(8):  # a red square on its way, in frames of odd sides
            pixels = np.full((61, 101, 3), 128, np.uint8)
            pixels[20:40, 8 * t : 8 * t + 20] = (255, 0, 0)
            Image.fromarray(pixels).save(self.frames / f"{t:03d}.png")

    def search(self, frame):
        """Find the red square, and call it another thing in every third frame."""
        ys, xs = np.nonzero((frame[..., 0].astype(int) - frame[..., 1]) > 100)
        edges = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        return found((0.9, int(xs.min() % 3 == 0), tuple(map(float, edges))))

    def test_in_and_out(self):
        """A folder of frames to a film that is one, frame by frame, at its rate."""
        target = self.folder / "out/film.mp4"
        count = films.annotate(self.frames, target, lambda f, n: f, time.perf_counter())
        self.assertEqual((count, films.length_and_rate(target)), (8, (8, Fraction(25))))
        for t, frame in enumerate(films.frames_of(target)):
            pixels = np.array(frame)
            self.assertEqual(pixels.shape, (62, 102, 3))
            self.assertGreater(int(pixels[30, 8 * t + 10, 0]), 200)  # where the square is
            self.assertLess(int(pixels[30, (8 * t + 60) % 100, 0]), 160)
        self.assertEqual([path.name for path in target.parent.iterdir()], ["film.mp4"])

    def test_annotated(self):
        """Each frame has the one name that its whole track says, and the box where it is."""
        annotate_film(self.frames, self.search, ("stop", "go"), self.folder / "film.mp4")
        marked = [np.array(frame) for frame in films.frames_of(self.folder / "film.mp4")]
        self.assertEqual(len(marked), 8)
        for t, frame in enumerate(marked):
            edge = frame[30, max(0, 8 * t - 1) : 8 * t + 2].astype(int)
            self.assertLess(int(edge[:, 0].min()), 130, t)  # cyan has no red

    def test_others_begin_to_keep_cores_busy(self):
        """In the middle of a film; threads that wait for one another are ten times as slow."""
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        for task, network in (("detection", "center_net"), ("segmentation", "res_unet")):
            path = save_run(self.folder / task, task, network) / "ckpt_epoch_1.pth"
            trained = load_trained(path, "cpu", "fp32")
            trained = replace(trained, runtime=replace(trained.runtime, threads=2))
            flags = Namespace(image=[str(self.frames)], film=True, ckpt_path=path.parent, read=None)
            torch.set_num_threads(2)
            with (
                mock.patch.object(runtime.Looks, "due", return_value=True),
                mock.patch.object(runtime.Looks, "others", return_value=9.0),
                redirect_stdout(StringIO()),
            ):
                trained.task.read_pictures(trained, flags)
            self.assertEqual(torch.get_num_threads(), 1, task)

    def test_what_is_no_film(self):
        empty = self.folder / "empty"
        empty.mkdir()
        broken = self.folder / "broken.mp4"
        broken.write_bytes(b"nothing of a film")
        for path in (broken, empty):
            with self.assertRaises(LabError):
                films.annotate(path, self.folder / "o.mp4", lambda f, n: f, time.perf_counter())
        left = sorted(path.name for path in self.folder.iterdir())
        self.assertEqual(left, ["broken.mp4", "drive", "empty"])

    def test_the_film_is_named_that_cannot_be_read(self):
        """Not the one to be written."""
        path = self.folder / "broken.mp4"
        path.write_bytes(b"no video")
        with self.assertRaisesRegex(LabError, "^cannot read .*broken.mp4: damaged or no video"):
            films.annotate(path, self.folder / "o.mp4", lambda f, n: f)

    def test_which_are_films(self):
        """Videos always; folders of frames, and GIFs, when asked."""
        video, moving = self.folder / "a.MP4", self.folder / "b.gif"
        for path in (video, moving):
            path.touch()
        given = [str(path) for path in (video, moving, self.frames)]
        self.assertEqual(films.films_and_pictures(given, False), ([video], given[1:]))
        self.assertEqual(films.films_and_pictures(given, True)[1], [])
        with self.assertRaisesRegex(LabError, "none.mp4 is no video"):
            films.films_and_pictures(["none.mp4"], True)


if __name__ == "__main__":
    unittest.main()
