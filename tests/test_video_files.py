"""Clips from files: what PyAV decodes against the frames written, broken ones, whole folders."""

import io
import struct
import tempfile
import unittest
from contextlib import redirect_stdout
from fractions import Fraction
from pathlib import Path
from unittest import mock

import av
import numpy as np
from PIL import Image

from lab.console import LabError
from lab.images import Preprocess
from tasks.video.data import modes_of, read_split
from tasks.video.files import clip_files, frames_of, read_clip
from tests.support import ScriptCase, script_here

COUNT = 12


def frames(seed: int = 0, count: int = COUNT, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Return smooth frames that differ from each other, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 3, 4, 3)).astype(np.uint8)
    return [
        np.asarray(Image.fromarray(each).resize(size[::-1], Image.Resampling.BICUBIC))
        for each in small
    ]


def write_video(path: Path, pictures: list[np.ndarray], codec: str, pixels: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        if codec != "ffv1":
            stream.bit_rate = 4_000_000
        for picture in pictures:
            kind = "rgba" if picture.shape[2] == 4 else "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format=kind)))
        container.mux(stream.encode())
    return path


def write_frames(folder: Path, pictures: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index:03d}.png")
    return folder


def fitted(pictures: list[np.ndarray]) -> np.ndarray:
    """Return frames as a network gets them, by way of Pillow alone."""
    return np.stack([Preprocess().fit(Image.fromarray(picture)) for picture in pictures])


class TestClip(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.base, self.pictures = Path(holder.name), frames()

    def test_without_loss(self):
        """FFV1 keeps every bit, and so do PNGs; every second frame is every second one."""
        video = write_video(self.base / "a.avi", self.pictures, "ffv1", "bgr0")
        folder = write_frames(self.base / "b", self.pictures)
        for path in (video, folder):
            for stride, count in ((1, COUNT), (1, 5), (2, 6), (3, 4)):
                expected = fitted(self.pictures[::stride][:count])
                self.assertTrue((read_clip(path, count, stride) == expected).all(), path)

    def test_what_is_transparent_is_white(self):
        """In videos, animated pictures and folders of frames, whatever colour hides there."""
        clear = [Image.new("RGBA", (64, 48), (200, 40, 90, 0)) for _ in range(3)]
        for number, frame in enumerate(clear):
            frame.paste((0, 0, 255, 255), (16 * number, 0, 16 * number + 16, 48))
        first, *others = clear
        for name in ("a.gif", "b.png"):
            options = {"append_images": others, "disposal": 2}
            first.save(self.base / name, save_all=True, **options)
        write_video(self.base / "c.mov", list(map(np.asarray, clear)), "qtrle", "argb")
        write_frames(self.base / "d", list(map(np.asarray, clear)))
        for name in ("a.gif", "b.png", "c.mov", "d"):
            with self.subTest(name):
                frames = list(frames_of(self.base / name, 1))
                self.assertEqual(len(frames), 3)
                for number, frame in enumerate(frames):
                    expected = np.full((48, 64, 3), 255)
                    expected[:, 16 * number : 16 * number + 16] = (0, 0, 255)
                    np.testing.assert_allclose(frame, expected, atol=1)

    def test_a_gif_without_delays(self):
        """As Pillow writes it unasked."""
        noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), np.uint8)
        first, *others = map(Image.fromarray, noise)
        first.save(self.base / "plain.gif", save_all=True, append_images=others)
        self.assertEqual(len(list(frames_of(self.base / "plain.gif", 1))), 5)

    def test_lossy_kinds(self):
        for name, codec, pixels in (
            ("a.mp4", "mpeg4", "yuv420p"),
            ("b.webm", "libvpx", "yuv420p"),
            ("d.wmv", "wmv2", "yuv420p"),
            ("e.3gp", "mpeg4", "yuv420p"),
            ("f.ogv", "libvpx", "yuv420p"),
            ("c.gif", "gif", "rgb8"),
        ):
            path = write_video(self.base / name, self.pictures, codec, pixels)
            error = np.abs(read_clip(path, COUNT, 1).astype(int) - fitted(self.pictures))
            self.assertLess(error.mean(), 20 if codec == "gif" else 8, name)
            # The nearest of the frames written is each time the right one.
            clip = read_clip(path, COUNT, 1).astype(int)
            distances = np.abs(clip[:, None] - fitted(self.pictures)[None]).mean((2, 3, 4))
            self.assertEqual(distances.argmin(1).tolist(), list(range(COUNT)), name)

    def test_numbers_are_played_as_numbers(self):
        """frame2 comes before frame10, in upper and lower case and behind zeros alike."""
        for pattern in ("frame{}.png", "a {} b.PNG", "{:04d}.png", "x2-{}.png"):
            folder = self.base / pattern.format("N") if "04" not in pattern else self.base / "zeros"
            folder.mkdir()
            for number, picture in enumerate(self.pictures):
                Image.fromarray(picture).save(folder / pattern.format(number))
            clip = read_clip(folder, COUNT, 1)
            self.assertTrue((clip == fitted(self.pictures)).all(), pattern)

    def test_a_phone_held_upright(self):
        """Its pixels lie on their side, and the file says how it was held."""
        whole = write_video(self.base / "phone.mp4", self.pictures, "mpeg4", "yuv420p")
        body = bytearray(whole.read_bytes())
        matrix = body.index(b"tkhd") + 44  # behind times, numbers and volume of the track
        one = 1 << 16
        for numbers, turn in (
            ((0, one, 0, -one, 0, 0, 0, 0, 1 << 30), Image.Transpose.ROTATE_270),
            ((0, -one, 0, one, 0, 0, 0, 0, 1 << 30), Image.Transpose.ROTATE_90),
            ((-one, 0, 0, 0, -one, 0, 0, 0, 1 << 30), Image.Transpose.ROTATE_180),
        ):
            body[matrix : matrix + 36] = struct.pack(">9i", *numbers)
            path = self.base / f"{turn}.mp4"
            path.write_bytes(body)
            upright = [np.asarray(Image.fromarray(p).transpose(turn)) for p in self.pictures]
            error = np.abs(read_clip(path, COUNT, 1).astype(int) - fitted(upright))
            self.assertLess(error.mean(), 8)

    def test_animated_pictures(self):
        """An animated WebP is a clip; one of a single picture is a frame."""
        images = [Image.fromarray(picture) for picture in self.pictures]
        moving = self.base / "moving.webp"
        images[0].save(moving, save_all=True, append_images=images[1:], lossless=True)
        self.assertTrue((read_clip(moving, COUNT, 1) == fitted(self.pictures)).all())
        self.assertTrue((read_clip(moving, 4, 3) == fitted(self.pictures[::3])).all())
        still = self.base / "still"
        still.mkdir()
        for number, image in enumerate(images):
            image.save(still / f"{number}.webp", lossless=True)
        self.assertTrue((read_clip(still, COUNT, 1) == fitted(self.pictures)).all())
        self.assertEqual(clip_files([str(self.base)]), [moving, still])

    def test_what_is_wrong(self):
        for name, content, why in (
            ("empty.mp4", b"", "empty file"),
            ("text.mp4", b"no video at all\n" * 50, "damaged or no video"),
        ):
            (self.base / name).write_bytes(content)
            with self.assertRaisesRegex(OSError, why):
                read_clip(self.base / name, 4, 1)
        whole = write_video(self.base / "whole.mp4", self.pictures, "mpeg4", "yuv420p")
        (self.base / "cut.mp4").write_bytes(whole.read_bytes()[:700])
        with self.assertRaises(OSError):
            read_clip(self.base / "cut.mp4", 4, 1)
        with self.assertRaisesRegex(OSError, "too short: 6 of 7 frames, 2 apart"):
            read_clip(whole, 7, 2)
        sound = self.base / "sound.mkv"
        with av.open(str(sound), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            samples = np.zeros((1, 800), np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        with self.assertRaisesRegex(OSError, "no video"):
            read_clip(sound, 4, 1)
        folder = write_frames(self.base / "frames", self.pictures)
        (folder / "002.png").write_bytes(b"nothing")
        with self.assertRaisesRegex(OSError, "002.png: not an image"):
            read_clip(folder, 4, 1)


class TestFolder(ScriptCase):
    """A folder a class, from which a network is trained, and clips of one's own are read."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.root = Path(holder.name) / "data"
        for seed in range(6):
            train = cls.root / "train"
            write_video(train / "cut" / f"{seed}.mp4", frames(seed, 16), "mpeg4", "yuv420p")
            write_frames(train / "frames" / f"{seed}", frames(10 + seed, 16))
        (cls.root / "train" / "cut" / "broken.avi").write_bytes(b"?" * 99)
        write_frames(cls.root / "train" / "frames" / "short", frames(count=5))

    def test_splits(self):
        with mock.patch("lab.images.say") as said:
            train = read_split("clips", self.root, "train", 10, 1, 0.2)
            val = read_split("clips", self.root, "val", 10, 1, 0.2)
        self.assertEqual(train.classes, ("cut", "frames"))
        self.assertEqual(len(train.names) + len(val.names), 12)
        self.assertFalse(set(train.names) & set(val.names))
        self.assertEqual(
            [name.split("/")[0] for name in train.names],
            [train.classes[label] for label in train.labels],
        )
        texts = " ".join(call.args[0] for call in said.call_args_list)
        self.assertIn("cut/broken.avi (damaged or no video", texts)
        self.assertIn("frames/short (too short: 5 of 10 frames, 1 apart)", texts)
        index = train.names.index("frames/3") if "frames/3" in train.names else None
        split = train if index is not None else val
        clip = split.clips[split.names.index("frames/3")].numpy()
        self.assertTrue((clip == fitted(frames(13)[:10])).all())

    def test_other_classes_in_val(self):
        with tempfile.TemporaryDirectory() as holder:
            for split, names in (("train", ("cut", "frames")), ("val", ("cut", "fly"))):
                for name in names:
                    write_frames(Path(holder) / split / name / "0", frames(1))
            with self.assertRaisesRegex(LabError, "other classes than train/: it lacks frames"):
                read_split("clips", Path(holder), "val", 10, 1, 0.2)

    def test_other_names_of_the_splits(self):
        with tempfile.TemporaryDirectory() as holder:
            for split in ("train", "valid", "testing"):
                for name in ("cut", "frames"):
                    write_frames(Path(holder) / split / name / "0", frames(1))
            self.assertEqual(modes_of("clips", Path(holder)), ("train", "val", "test"))
            for mode in ("train", "val", "test"):
                self.assertEqual(len(read_split("clips", Path(holder), mode, 10, 1, 0.2).names), 2)

    def test_nothing_left(self):
        with self.assertRaisesRegex(LabError, "cut holds no clip of 17 frames, 1 apart"):
            read_split("clips", self.root, "train", 17, 1, 0.2)
        with self.assertRaisesRegex(LabError, "no data folder"):
            read_split("clips", self.root / "gone", "train", 8)
        with self.assertRaisesRegex(LabError, "has no test/"):
            read_split("clips", self.root, "test", 8)
        with (
            mock.patch("lab.decoding.CACHE_BUDGET", 10**5),
            self.assertRaisesRegex(LabError, "12 clips of 8 frames would take over"),
        ):
            read_split("clips", self.root, "train", 8, 1, 0.01)

    def test_a_picture_beside_videos(self):
        """Videos are found all the same; what the picture is no clip for is said."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        base = Path(holder.name)
        videos = [
            write_video(base / "in" / name, frames(k), "mpeg4", "yuv420p")
            for k, name in enumerate(("b2.mp4", "b10.MP4", "deep/er/c.avi"))
        ]
        Image.fromarray(frames()[0]).save(base / "in" / "cover.jpg")
        (base / "in" / ".hidden.mp4").write_bytes(b"?")
        loop = base / "in" / "deep" / "loop"
        loop.symlink_to(base / "in")
        self.assertEqual(clip_files([str(base / "in")]), [base / "in", *videos, loop])
        loop.unlink()
        (base / "data" / "train").mkdir(parents=True)
        (base / "in").rename(base / "data" / "train" / "one")
        for seed in range(2):
            folder = base / "data" / "train" / "two"
            write_video(folder / f"{seed}.mp4", frames(seed), "mpeg4", "yuv420p")
        with mock.patch("lab.images.say") as said:
            split = read_split("clips", base / "data", "train", 8, 1, 0)
        names = ["one/b10.MP4", "one/b2.mp4", "one/deep/er/c.avi", "two/0.mp4", "two/1.mp4"]
        self.assertEqual(split.names, names)
        self.assertIn("one (too short: 1 of 8 frames, 1 apart)", said.call_args.args[0])

    def test_films_are_held_out_whole(self):
        """Clips of one film are on one side, in whichever classes they are."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        root = Path(holder.name)
        picture = np.zeros((8, 8, 3), np.uint8)
        for kind in ("Biking", "Diving"):
            for film in range(6):
                for clip in range(3):
                    name = f"v_{kind}_g{film:02d}_c{clip:02d}"
                    write_frames(root / "train" / kind / name, [picture])
                    write_frames(root / "train" / kind / f"both{film}_clip{clip}", [picture])
        with redirect_stdout(io.StringIO()):
            splits = [read_split("clips", root, mode, 1, 1, 0.2) for mode in ("train", "val")]
        train, val = (
            {name.partition("/")[2].rpartition("_c")[0] for name in split.names} for split in splits
        )
        self.assertFalse(train & val)
        self.assertEqual((len(train), len(train | val)), (18 - len(val), 18))
        counts = np.bincount(splits[1].labels.numpy())
        self.assertTrue((counts >= 0.2 * 36 - 3).all() and (counts <= 18).all(), counts)

    def test_which_files(self):
        found = clip_files([str(self.root)])
        self.assertEqual(len(found), 14)
        self.assertEqual(found[0], self.root / "train" / "cut" / "0.mp4")
        one = self.root / "train" / "frames" / "2"
        self.assertEqual(clip_files([str(one)]), [one])
        (self.root.parent / "nothing").mkdir(exist_ok=True)
        with self.assertRaisesRegex(LabError, "no clip in"):
            clip_files([str(self.root.parent / "nothing")])

    def test_scripts(self):
        folder = self.root.parent / "run"
        done = script_here(
            "train.py", "--task", "video", "--dataset", "clips", "--data_root", self.root,
            "--network", "early_fusion", "--width", 4, "--frames", 8, "--epoch", 1, "--stride", 2,
            "--batch_size", 4, "--ckpt_path", folder, "--no_show",
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("cut/broken.avi", done.stdout)
        done = script_here("test.py", "--ckpt_path", folder, "--epoch", 1, "--no_show", "--image",
                           self.root / "train" / "cut")  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"3\.mp4 +(cut|frames) \d+\.\d%, (cut|frames) ")
        self.assertIn("left out 1 of 7 files", done.stdout)
        self.assertTrue((folder / "clips_cut.jpg").is_file())
        # As far apart as the network has learned frames to be: here the last one is not there.
        short = write_frames(self.root.parent / "short", frames(count=14))
        done = script_here("test.py", "--ckpt_path", folder, "--epoch", 1, "--image", short)
        self.assert_refused(done, 1, "none of the clips can be read")
        self.assertIn("short (too short: 7 of 8 frames, 2 apart)", done.stdout)
        done = script_here("visualize.py", "--type", "clip", "--ckpt_path", folder, "--epoch", 1,
                           "--save_dir", folder, "--image", short)  # fmt: skip
        self.assert_refused(done, 1, "7 of 8 frames, 2 apart")
        with mock.patch("tasks.video.data.read_split", side_effect=LabError("asked")) as asked:
            script_here("test.py", "--ckpt_path", folder, "--epoch", 1)
        self.assertEqual(asked.call_args.args[3:5], (8, 2))


if __name__ == "__main__":
    unittest.main()
