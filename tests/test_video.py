"""Networks for clips: shapes, sizes, what each can see of time; loader, scripts, processes."""

import json
import tempfile
import unittest
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch.backends import cudnn

from lab import checkpoint, engine
from lab.augmentation import vary_light
from lab.console import UsageError
from lab.registry import Design
from lab.registry import build as build_network
from lab.runtime import Runtime
from tasks import Compared
from tasks.trained import load_trained
from tasks.video import DATASETS, NETWORK_NAMES, TASK
from tasks.video.data import SOURCES, ClipDataset, Split, augment_clips, make_loader, read_split
from tasks.video.networks import (
    NETWORKS,
    PARAMETERS,
    VideoConfig,
    VideoNetwork,
    count_multiply_adds,
    count_parameters,
    default_width,
)
from tasks.video.objective import VideoObjective
from tasks.video.results import mean_and_deviation, spread, table_of_networks
from tasks.video.views import shown_share
from tests.support import ScriptCase, script, script_here, stopped_at
from world.clips import KINDS

CLASSES = 10


def build(name: str, frames: int, width: int = 4) -> VideoNetwork:
    """Return a small network in evaluation mode, whose non-local block takes part."""
    torch.manual_seed(0)
    configs = {"num_classes": CLASSES, "frames": frames, "width": width}
    model = build_network(NETWORKS, name, configs)
    for module in model.modules():
        if hasattr(module, "out_conv"):  # it starts as the identity
            torch.nn.init.normal_(module.out_conv.weight, std=0.5)
    return model.eval()


def conv(inputs: int, outputs: int, kernel: int) -> int:
    """Return the parameters of a convolution with batch norm, of a kernel of so many weights."""
    return inputs * outputs * kernel + outputs + 2 * outputs


def linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


class TestSizes(unittest.TestCase):
    def test_shapes(self):
        for name in NETWORKS:
            for frames in (8, 15, 16, 40):
                with torch.no_grad():
                    logits = build(name, frames)(torch.randn(2, 3, frames, 32, 32))
                self.assertEqual(logits.shape, (2, CLASSES), (name, frames))

    def test_other_clips_are_refused(self):
        for shape in ((2, 3, 15, 32, 32), (2, 3, 16, 32, 16), (2, 16, 3, 32, 32)):
            with self.assertRaises(ValueError):
                build("late_fusion_mean", 16)(torch.zeros(shape))

    def test_parameters_in_closed_form(self):
        frames, w = 16, 12

        def frame_cnn(channels: int, features: int) -> int:
            convs = conv(channels, w, 25) + conv(w, 2 * w, 9) + conv(2 * w, 4 * w, 9)
            return convs + linear(64 * w, features)

        head = linear(8 * w, CLASSES)
        spatial = conv(3, w, 27) + conv(w, 2 * w, 27) + conv(2 * w, 4 * w, 27)
        spatial += conv(4 * w, 8 * w, 27) + linear(4 * w, CLASSES)
        expected = {
            "single_frame": frame_cnn(3, 8 * w) + head,
            "early_fusion": frame_cnn(3 * frames, 8 * w) + head,
            "late_fusion": frame_cnn(3, 4 * w) + linear(frames * 4 * w, 8 * w) + head,
            "late_fusion_mean": frame_cnn(3, 8 * w) + head,
            # After the first layer 7 moments are left, after the second 4.
            "slow_fusion": conv(3, w, 4 * 25) + conv(w, 2 * w, 2 * 9) + conv(2 * w, 4 * w, 4 * 9)
            + linear(64 * w, 8 * w) + head,
            "cnn3d": spatial + linear(2 * 4 * 8 * w, 4 * w),
            "cnn_lstm": frame_cnn(3, 8 * w) + 2 * 16 * w + head
            + 4 * (3 * (8 * w) ** 2 + 2 * 8 * w),
            "non_local": spatial + linear(4 * 8 * w, 4 * w)
            + 3 * linear(2 * w, w) + linear(w, 2 * w),
        }  # fmt: skip
        self.assertEqual(expected.keys(), NETWORKS.keys())
        for name, count in expected.items():
            self.assertEqual(count_parameters(build(name, frames, w)), count, name)

    def test_networks_are_of_one_size(self):
        """Within a tenth of half a million, whatever the clips: within a fifth of each other."""
        for frames, classes in ((16, 10), (16, 2), (64, 10), (15, 26)):
            for name in NETWORKS:
                config = VideoConfig(classes, frames, default_width(name, classes, frames))
                count = count_parameters(NETWORKS[name].build(config))
                self.assertLess(abs(count / PARAMETERS - 1), 0.1, (name, frames, count))

    def test_multiply_adds_in_closed_form(self):
        w, frames, features = 8, 16, 64
        frame = 3 * w * 25 * 256 + w * 2 * w * 9 * 64 + 2 * w * 4 * w * 9 * 16 + 64 * w * features
        lstm = frames * 4 * 3 * features**2  # features, their changes, and the state
        head = features * CLASSES
        self.assertEqual(count_multiply_adds(build("single_frame", frames, w)), frame + head)
        everything = frames * frame + lstm + head
        self.assertEqual(count_multiply_adds(build("cnn_lstm", frames, w)), everything)
        positions = 8 * 64
        convs = 27 * (3 * w * 16 * 256 + w * 2 * w * 8 * 64 + 8 * w * w * 4 * 16 + 32 * w * w * 8)
        block = 4 * 2 * w * w * positions + 2 * positions**2 * w
        fc = 2 * 32 * w * 4 * w + 4 * w * CLASSES
        self.assertEqual(count_multiply_adds(build("non_local", frames, w)), convs + block + fc)

    def test_names_that_help_tells(self):
        self.assertEqual(set(NETWORK_NAMES), NETWORKS.keys())
        self.assertEqual(DATASETS.keys(), SOURCES.keys())

    def test_too_few_frames(self):
        with self.assertRaisesRegex(UsageError, "--frames 7: the networks need at least 8"):
            default_width("cnn3d", 2, 7)

    def test_weights_are_all_there_is(self):
        """Another network of the same config says the same once it has a network's weights."""
        clips = torch.randn(2, 3, 8, 32, 32)
        for name in NETWORKS:
            trained = build(name, 8)
            network = build_network(NETWORKS, name, vars(trained.config)).eval()
            network.load_state_dict(trained.state_dict())
            with torch.no_grad():
                self.assertTrue(torch.equal(network(clips), trained(clips)), name)


class TestTime(unittest.TestCase):
    def test_who_sees_the_order_of_frames(self):
        generator = torch.Generator().manual_seed(0)
        clips = torch.randn(2, 3, 16, 32, 32, generator=generator)
        order = torch.randperm(16, generator=generator)
        order[order == 8], order[8] = order[8].item(), 8  # the middle frame stays
        for name in NETWORKS:
            model = build(name, 16).double()
            with torch.no_grad():
                before, after = model(clips.double()), model(clips[:, :, order].double())
            change = float((before - after).abs().max() / before.abs().max())
            if name in ("single_frame", "late_fusion_mean"):
                self.assertLess(change, 1e-12, name)
            else:
                self.assertGreater(change, 1e-4, name)

    def test_reach_by_gradients(self):
        """The frames that one part's features depend on; of C3D a window, of 40 frames as of 16."""
        for frames in (15, 16, 40):
            expected = dict.fromkeys(NETWORKS, frames)
            expected |= {"single_frame": 1, "late_fusion_mean": 1, "cnn3d": min(16, frames)}
            for name, reach in expected.items():
                model = build(name, frames).double()
                clips = torch.randn(1, 3, frames, 32, 32, dtype=torch.double, requires_grad=True)
                seen = []
                for part in model.features(clips).sum((0, 2)):
                    (gradient,) = torch.autograd.grad(part, clips, retain_graph=True)
                    seen.append(int((gradient.abs().amax((0, 1, 3, 4)) > 0).sum()))
                self.assertEqual((max(seen), model.reach), (reach, reach), (name, frames))

    def test_windows_cover_a_clip(self):
        for frames in (8, 16, 17, 24, 30, 64):
            starts = build("cnn3d", frames).starts
            covered = {t for start in starts for t in range(start, start + 16)}
            self.assertTrue(set(range(frames)) <= covered)
            self.assertEqual(max(starts) + min(16, frames), frames)
            self.assertEqual(len(starts), len(set(starts)))

    def test_a_single_frame(self):
        """The middle one in evaluation; in training, in time, each of them."""
        model = build("single_frame", 9)
        clips = torch.randn(1, 3, 9, 32, 32)
        with torch.no_grad():
            each = model.every_frame(clips)[0]
            torch.testing.assert_close(model(clips)[0], each[4])
            for module in model.modules():
                module.training = module is model  # batch norm as in evaluation
            chosen = {int((each - model(clips)).abs().sum(1).argmin()) for _ in range(100)}
        self.assertEqual(chosen, set(range(9)))

    def test_every_frame_counts(self):
        """Of a single frame's network, the accuracy of each by itself is measured as well."""
        model = build("single_frame", 9)
        clips = 20 * torch.randn(6, 3, 9, 1, 1).expand(-1, -1, -1, 32, 32)
        with torch.no_grad():
            labels = model.every_frame(clips)[:, 4].argmax(1)  # right about the middle, that is
        meter, runtime = VideoObjective().meter(), Runtime(torch.device("cpu"))
        loader = [(clips[:4], labels[:4]), (clips[4:], labels[4:])]
        figures = engine.evaluate(model, meter, loader, runtime)
        right = 0
        with torch.no_grad():
            for clip, label in zip(clips, labels, strict=True):
                for t in range(9):
                    still = clip[None, :, t : t + 1].expand(-1, -1, 9, -1, -1)
                    right += int(model(still).argmax() == label)
        self.assertAlmostEqual(figures["frame_accuracy"], right / 54, places=9)
        self.assertEqual(figures["accuracy"], 1.0)
        self.assertLess(figures["frame_accuracy"], 0.9)
        meter = VideoObjective().meter()
        others = engine.evaluate(build("late_fusion", 9), meter, loader, runtime)
        self.assertEqual(others.keys(), {"loss", "accuracy"})

    def test_lstm_against_its_equations(self):
        model = build("cnn_lstm", 12).double()
        clips = torch.randn(2, 3, 12, 32, 32, dtype=torch.double)
        lstm, norm = model.lstm, model.norm
        norm.running_mean.uniform_()
        norm.running_var.uniform_(0.5, 2)
        with torch.no_grad():
            frames = model.cnn.of_clips(clips)
            h = c = torch.zeros(2, frames.shape[2], dtype=torch.double)
            states = []
            for t in range(12):
                told = torch.cat((frames[:, t], frames[:, t] - frames[:, max(0, t - 1)]), 1)
                told = (told - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
                gates = told @ lstm.weight_ih_l0.T + lstm.bias_ih_l0
                gates = gates + h @ lstm.weight_hh_l0.T + lstm.bias_hh_l0
                i, f, g, o = gates.chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
                states.append(model.head(h))
            mean = torch.stack(states).mean(0)
            torch.testing.assert_close(model(clips), mean, atol=1e-6, rtol=1e-5)

    def test_an_lstm_at_rest_is_gone_back_through(self):
        """On a CUDA GPU: not by cuDNN, which knows the way for one in training alone."""
        model, by_cudnn = build("cnn_lstm", 8), []
        with mock.patch.object(torch.Tensor, "is_cuda", True):
            model.lstm.register_forward_hook(lambda *_: by_cudnn.append(cudnn.enabled))
            for training, slope in ((False, True), (False, False), (True, True)):
                model.train(training)(torch.randn(2, 3, 8, 32, 32, requires_grad=slope))
            with torch.no_grad():
                model.eval()(torch.randn(2, 3, 8, 32, 32))
        self.assertEqual(by_cudnn, [False, False, True, True])

    def test_gates_start_open(self):
        """Half of what is known lasts from a few frames to about as many as a clip has."""
        lstm = build("cnn_lstm", 64, 16).lstm
        into, forget = lstm.bias_ih_l0.view(4, -1)[:2]
        lasts = 1 / (1 - forget.sigmoid())  # frames
        self.assertGreater(lasts.min(), 1.9)
        self.assertLess(lasts.max(), 64.1)
        self.assertGreater(lasts.max() - lasts.min(), 40)
        torch.testing.assert_close(into, -forget)
        self.assertFalse(lstm.bias_hh_l0.any())

    def test_all_learn_a_batch(self):
        """Of clips that differ in the order of two frames' colours."""
        clips = torch.zeros(4, 3, 8, 32, 32)
        clips[::2, 0, :4], clips[::2, 1, 4:] = 1, 1
        clips[1::2, 1, :4], clips[1::2, 0, 4:] = 1, 1
        labels = torch.tensor([0, 1, 0, 1])
        for name in NETWORKS:
            model = build(name, 8).train()
            optimizer = torch.optim.Adam(model.parameters(), 3e-3)
            for _ in range(40):
                loss = torch.nn.functional.cross_entropy(model(clips), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            learns = name not in ("single_frame", "late_fusion_mean")
            self.assertEqual(bool(loss < 0.3), learns, (name, loss))


class TestData(unittest.TestCase):
    def test_batches(self):
        pixels = torch.randint(0, 256, (5, 8, 32, 32, 3), dtype=torch.uint8)
        split = Split(("a", "b"), pixels, torch.tensor([0, 1, 0, 1, 1]), list("vwxyz"))
        batches = list(make_loader(split, 2))
        self.assertEqual([len(labels) for _, labels in batches], [2, 2, 1])
        clips, labels = batches[1]
        self.assertEqual(labels.tolist(), [0, 1])
        expected = pixels[2, 3, 4, 5, 1].item() / 127.5 - 1
        self.assertAlmostEqual(clips[0, 1, 3, 4, 5].item(), expected, places=6)
        self.assertTrue(clips.is_contiguous(memory_format=torch.channels_last_3d))

    def test_all_frames_of_a_clip_are_varied_alike(self):
        frame = torch.rand(6, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
        clips = frame.expand(-1, -1, 7, -1, -1).clone()
        with mock.patch("lab.augmentation.BLUR_SHARE", 0.8):
            varied = augment_clips(clips, torch.Generator().manual_seed(1))
        self.assertEqual(varied.shape, clips.shape)
        torch.testing.assert_close(varied, varied[:, :, :1].expand_as(varied))
        changes = (varied - clips)[:, :, 0].flatten(1)
        self.assertTrue((changes.abs().mean(1) > 0.02).all())
        self.assertGreater(float((changes[0] - changes[1]).abs().mean()), 0.02)

    def test_light_of_clips_is_that_of_images(self):
        images = torch.rand(9, 3, 16, 16) * 2 - 1
        with mock.patch("lab.augmentation.BLUR_SHARE", 0.8):
            lit = vary_light(images, torch.Generator().manual_seed(2))
            clip = vary_light(images[:, :, None], torch.Generator().manual_seed(2))
        torch.testing.assert_close(lit, clip[:, :, 0])

    @staticmethod
    def write_tracks(root: Path, lengths: dict[str, list[int]]) -> Path:
        """Write tracks whose photographs get brighter; each length is one track's."""
        for mode in ("train", "val"):
            for name, own in lengths.items():
                (root / mode / name).mkdir(parents=True)
                for track, length in enumerate(own):
                    for t in range(length):
                        image = Image.new("RGB", (20 + t, 20 + t), (8 * t, 100, 50))
                        image.save(root / mode / name / f"{track:05d}_{t:05d}.png")
        return root

    def test_tracks(self):
        with (
            tempfile.TemporaryDirectory() as base,
            mock.patch("lab.image_folder.CACHE_FOLDER", Path(base) / "cache"),
            mock.patch("tasks.video.data.say_left_out") as said,
        ):
            root = self.write_tracks(Path(base), {"00_stop": [30, 9], "01_give_way": [15]})
            signs = read_split("tracks_sign", root, "train", 15)
            ways = read_split("tracks_direction", root, "train", 15)
        self.assertEqual(list(said.call_args_list[0].args[2].values()), ["9 photographs"])
        self.assertEqual(signs.classes, ("00_stop", "01_give_way"))
        self.assertEqual(signs.labels.tolist(), [0, 1])
        self.assertEqual(signs.names, ["00_stop/00000", "01_give_way/00000"])
        shown = signs.clips[0, :, 16, 16, 0].tolist()
        expected = [8 * t for t in np.linspace(0, 29, 15).round().astype(int)]
        self.assertEqual(shown, expected)

        self.assertEqual(ways.classes, ("forwards", "backwards"))
        self.assertEqual(ways.labels.tolist(), [0, 1, 0, 1])
        self.assertTrue((ways.clips[1] == ways.clips[0].flip(0)).all())
        counts = [ClipDataset(split).independent for split in (signs, ways)]
        self.assertEqual(counts, [2, 2])  # tracks, of which two both ways make four clips
        self.assertTrue((ways.clips[1, 7] == ways.clips[0, 7]).all())
        self.assertEqual(ways.clips[0, :, 16, 16, 0].tolist(), expected)


class TestTable(unittest.TestCase):
    def test_networks_over_data_sets(self):
        def entry(name, dataset, frames, tested, speed):
            configs = {"num_classes": CLASSES, "frames": frames, "width": 12}
            facts = {"network": name, "dataset": dataset, "configs": configs}
            history = [{"images_per_second": speed}, {"images_per_second": speed}]
            return Compared(facts, history, "accuracy", 1, tested, 0)

        lines = table_of_networks(
            {
                "a": entry("cnn3d", "motion", 16, 0.95, 100),
                "b": entry("cnn3d", "motion", 16, 0.97, 300),
                "c": entry("cnn3d", "memory", 64, 0.5, 7),
                "d": entry("late_fusion_mean", "motion", 16, None, 50),
            }
        )
        self.assertEqual(len(lines), 4)
        self.assertIn("multiply-adds a clip of 16 frames", lines[0])
        self.assertTrue(lines[0].endswith("| motion, 16 frames | memory, 64 frames |"))
        first, second = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
        model = build("cnn3d", 16, 12)
        self.assertEqual(first[1], f"{count_parameters(model):,}")
        self.assertEqual(first[2], f"{count_multiply_adds(model) / 1e6:.1f} M")
        self.assertEqual(first[3:], ["200", "16", "96.00% ± 1.41", "50.00%"])
        self.assertEqual(second[3:], ["50", "1", "–", "–"])

    def test_mean_and_deviation(self):
        self.assertEqual(mean_and_deviation([0.5, 0.6, 0.7]), "60.00% ± 10.00")

    def test_spread(self):
        self.assertEqual(spread(4, 16), [0, 1, 2, 3])
        self.assertEqual(spread(64, 3), [0, 32, 63])


# ---------------------------------------------------------------- through the scripts


@dataclass(frozen=True)
class ToyConfig:
    num_classes: int
    frames: int
    features: int = 5


class Toy(torch.nn.Module):
    """Features of the mean colour of each frame."""

    outputs = ("out",)

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.body = torch.nn.Linear(3 * config.frames, config.features)
        self.out = torch.nn.Linear(config.features, config.num_classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(clips.mean((3, 4)).flatten(1)).relu())


class TestScripts(ScriptCase):
    """The real scripts on a few drawn clips."""

    FRAMES = 8

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        small = KINDS["order"]._replace(counts={"train": 12, "val": 4, "test": 6})
        # One process: to start others takes longer than to draw these.
        patches = (mock.patch.dict(KINDS, order=small), mock.patch("os.cpu_count", lambda: 1))
        for patch in patches:
            patch.start()
            cls.addClassCleanup(patch.stop)
        cls.flags = ("--task", "video", "--dataset", "order", "--data_root", cls.base / "data",
                     "--frames", cls.FRAMES, "--width", 4, "--batch_size", 4, "--epoch", 2,
                     "--no_show")  # fmt: skip
        for network in ("non_local", "single_frame"):
            cls.train(cls.base / network, *cls.flags, "--network", network)

    @classmethod
    def train(cls, folder, *flags):
        done = script_here("train.py", *flags, "--ckpt_path", folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def done(self, *arguments):
        done = script_here(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_trains_and_tests(self):
        folder = self.base / "non_local"
        state = checkpoint.load(folder / "ckpt_epoch_2.pth")
        self.assertEqual(state["configs"], {"num_classes": 2, "frames": 8, "width": 4})
        self.assertEqual(state["settings"]["schedule"], "onecycle")
        said = self.done("test.py", "--ckpt_path", folder, "--epoch", 2, "--save", "--no_show")
        self.assertRegex(said, r"class +precision +recall +clips\n")
        self.assertIn("of 6)", said)
        strips = sorted((folder / "results").glob("[0-9]*.jpg"))
        self.assertEqual(len(strips), 6)
        with Image.open(strips[0]) as strip:
            self.assertEqual(strip.size, (8 * 32, 32))

        said = self.done("test.py", "--ckpt_path", self.base / "single_frame", "--epoch", 2,
                         "--no_show")  # fmt: skip
        self.assertRegex(said, r"accuracy of each frame by itself: \d+\.\d\d%")

    def test_stops_and_goes_on_exactly(self):
        """Stopped within the second epoch, where frames are drawn at random, bit by bit."""
        folder = self.base / "stopped"
        flags = (*self.flags, "--network", "single_frame", "--ckpt_path", folder)
        with stopped_at(4):
            done = script_here("train.py", *flags)
        self.assertEqual(done.returncode, 130, done.stderr)
        self.assertIn("epoch 2, 8 of 12 images", done.stdout)
        self.train(folder, "--resume", folder, "--no_show")
        last = "ckpt_epoch_2.pth"
        self.assert_same_weights(self.base / "single_frame" / last, folder / last)

    def view(self, kind, network, *flags):
        return self.done(
            "visualize.py", "--type", kind, "--ckpt_path", self.base / network, "--epoch", 2,
            "--save_dir", self.base / "seen", "--no_show", *flags,
        )  # fmt: skip

    def test_views(self):
        self.view("clip", "single_frame")
        with Image.open(self.base / "seen" / "clip" / "clip.gif") as film:
            self.assertEqual((film.format, film.n_frames), ("GIF", 8))
        for kind in ("saliency", "attention"):
            self.view(kind, "non_local", "--image_idx", 1)
        for name in (
            "clip/clip",
            "saliency/saliency_image_idx_1",
            "attention/attention_image_idx_1",
        ):
            self.assertTrue((self.base / "seen" / f"{name}.jpg").is_file(), name)

    def test_what_views_show(self):
        """Of a single frame's network, all the sway is the middle frame's; shares sum to one."""
        shown = {}
        with (
            mock.patch("tasks.viewing.draw", lambda picture: shown.update({picture.path: picture})),
            mock.patch("tasks.viewing.publish", lambda *_: None),
        ):
            self.view("saliency", "single_frame")
            self.view("attention", "non_local", "--position", 1, 2, 3)
        titles = {path: picture.title for path, picture in shown.items()}
        self.assertNotIn("are drawn", "".join(titles.values()))
        self.assertEqual((shown_share(16, 64), shown_share(8, 8)), (" (16 of 64 are drawn)", ""))
        for row in shown["saliency/saliency.jpg"].parts[0].tiles[1::2]:
            self.assertEqual([tile.note for tile in row], ["0%"] * 4 + ["100%"] + ["0%"] * 3)
        (grid,) = shown["attention/attention.jpg"].parts
        looker, *looks = grid.tiles[0]
        self.assertEqual(len(looks), 4)  # moments, of 8 frames
        self.assertAlmostEqual(sum(int(tile.note.rstrip("%")) for tile in looks), 100, delta=2)
        # Of 8x8 positions, x = 3 and y = 2, four pixels each.
        self.assertEqual(looker.marks[0].points.tolist(), [[13.5, 9.5]])

    def start_from(self, name, *flags):
        """Fine-tune the run with a non-local block; return both states and what was said."""
        folder = self.base / name
        done = self.train(
            folder, "--task", "video", "--weights", self.base / "non_local", "--batch_size", 4,
            "--epoch", 1, "--no_show", *flags,
        )  # fmt: skip
        states = (self.base / "non_local" / "ckpt_epoch_2.pth", folder / "ckpt_epoch_1.pth")
        return *map(checkpoint.load, states), done.stdout

    def test_starts_from_another_run(self):
        """Its network, frames and width hold; of other classes, the output layer is new."""
        with mock.patch.dict(KINDS, motion=KINDS["motion"]._replace(counts=KINDS["order"].counts)):
            body, state, said = self.start_from("tuned", "--data_root", self.base / "data")
        self.assertEqual(state["network"], "non_local")
        self.assertEqual(state["configs"], body["configs"] | {"num_classes": 10})
        self.assertEqual(state["new_layers"], ["head"])
        self.assertIn("the body, trained as well, with a new output layer, head", said)
        for name, value in body["model_state"].items():
            if name.endswith("weight"):  # biases in front of a batch norm need not move
                self.assertFalse(torch.equal(value, state["model_state"][name]), name)

    def test_starts_from_a_frozen_run(self):
        """Of the same classes all layers are kept, and the output layer alone is trained."""
        flags = ("--dataset", "order", "--data_root", self.base / "data", "--freeze")
        body, state, said = self.start_from("frozen", *flags)
        self.assertIn("the body, frozen, with its output layer, head", said)
        self.assertEqual(state["new_layers"], [])
        for name, value in body["model_state"].items():
            kept = torch.equal(value, state["model_state"][name])
            self.assertEqual(kept, not name.startswith("head."), name)
        done = script_here("train.py", "--resume", self.base / "frozen", "--epoch", 2,
                           "--no-freeze")  # fmt: skip
        self.assert_refused(done, 2, "was trained with --freeze")
        done = script_here("train.py", *self.flags, "--freeze")
        self.assert_refused(done, 2, "add --pretrained or --weights")
        done = script_here("train.py", *self.flags, "--weights", self.base / "non_local",
                           "--network", "single_frame")  # fmt: skip
        self.assert_refused(done, 1, "the weights do not fit the network")

    def test_checkpoints_of_earlier_versions(self):
        """They know no new layers and no --freeze, the oldest ones no flags."""
        folder = self.base / "earlier"
        folder.mkdir()
        network = build("late_fusion", 8)
        configs = {"num_classes": 2, "frames": 8, "width": 4}
        head = {f"head.{name}": value[:2] for name, value in network.head.state_dict().items()}
        state = {
            "model_state": network.state_dict() | head,
            "configs": configs,
            "task": "video",
            "network": "late_fusion",
            "dataset": "order",
            "class_names": list(KINDS["order"].classes),
            "data_root": str(self.base / "data"),
            "epoch": 1,
        }
        for flags in ({}, {"flags": {"stride": 1}}):
            checkpoint.save(folder / "ckpt_epoch_1.pth", state | flags)
            said = self.done("test.py", "--ckpt_path", folder, "--epoch", 1, "--no_show")
            self.assertIn("of 6)", said)
        trained = load_trained(folder / "ckpt_epoch_1.pth", "cpu")
        self.assertEqual(vars(trained.network.config), configs)

    def test_a_network_of_ones_own(self):
        """A class, its config and a line: trained, tested, shown and started from."""
        data = ("--data_root", self.base / "data", "--no_show")
        folder = self.base / "toy"
        with mock.patch.dict(NETWORKS, toy=Design(ToyConfig, Toy)):
            self.train(folder, "--task", "video", "--dataset", "order", "--network", "toy",
                       "--frames", self.FRAMES, "--epoch", 1, *data)  # fmt: skip
            state = checkpoint.load(folder / "ckpt_epoch_1.pth")
            self.assertEqual(state["configs"], {"num_classes": 2, "frames": 8, "features": 5})
            said = self.done("test.py", "--ckpt_path", folder, "--epoch", 1, "--no_show")
            self.assertIn("of 6)", said)
            self.view("saliency", "toy", "--epoch", 1)
            said = self.train(self.base / "toy_tuned", "--task", "video", "--dataset", "order",
                              "--weights", folder, "--epoch", 1, "--freeze", *data)  # fmt: skip
            self.assertIn("with its output layer, out", said.stdout)
        done = script_here("test.py", "--ckpt_path", folder, "--epoch", 1, "--no_show")
        self.assert_refused(done, 1, "unknown network 'toy'")

    def test_compared(self):
        runs = [self.base / name for name in ("non_local", "single_frame")]
        said = self.done("compare.py", *runs, "--save_dir", self.base, "--no_show")
        first, second = said.split("\n\n")
        self.assertEqual(len(first.splitlines()), 4)
        self.assertIn("| order, 8 frames |", second)
        self.assertRegex(second, r"\| single_frame \| [\d,]+ \| \d\.\d M \| [\d,]+ \| 1 \| \d")

    def test_refusals(self):
        refused = self.assert_refused
        done = script_here("train.py", *self.flags, "--network", "cnn4d")
        refused(done, 2, "cnn4d", "early_fusion", "non_local")
        done = script_here("train.py", *self.flags, "--frames", 4)
        refused(done, 2, "--frames 4", "at least 8")
        done = script_here("train.py", *self.flags, "--stride", 2)
        refused(done, 2, "--stride is of --dataset clips")
        done = script_here("train.py", "--task", "video", "--dataset", "clips")
        refused(done, 2, "--dataset clips", "--data_root")
        folder = self.base / "non_local"
        done = script_here("train.py", "--resume", folder, "--epoch", 3, "--width", 8)
        refused(done, 1, "another network", "width is 4 there, 8 here")
        done = script_here("test.py", "--ckpt_path", folder, "--epoch", 2, "--image", "gone.mp4")
        refused(done, 1, "no clip gone.mp4")
        done = script_here("visualize.py", "--type", "attention", "--epoch", 2,
                           "--ckpt_path", self.base / "single_frame")  # fmt: skip
        refused(done, 1, "no non-local block")
        done = script_here("visualize.py", "--type", "clip", "--image_idx", 6, "--epoch", 2,
                           "--ckpt_path", folder)  # fmt: skip
        refused(done, 2, "--image_idx 6", "0 to 5")


class TestProcesses(ScriptCase):
    """Two processes of torchrun share the clips, and all of them count."""

    def test_figures_are_those_of_all_clips(self):
        with tempfile.TemporaryDirectory() as base:
            data, folder = Path(base) / "data", Path(base) / "run"
            TestData.write_tracks(data, {"00_stop": [9, 8, 8], "01_give_way": [8, 8]})
            flags = ("--task", "video", "--dataset", "tracks_direction", "--data_root", data,
                     "--network", "late_fusion", "--frames", "8", "--width", "4", "--epoch", "2",
                     "--batch_size", "6", "--precision", "fp32", "--no_show",
                     "--ckpt_path", folder)  # fmt: skip
            done = script("train.py", *flags, processes=2)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.count("Epoch  2/2"), 1)
            self.assertIn("10 train, 10 val clips", done.stdout)
            done = script_here("test.py", "--ckpt_path", folder, "--epoch", 2, "--no_show")
            self.assertEqual(done.returncode, 0, done.stderr)
            tested = json.loads((folder / "test.json").read_text())
            self.assertEqual((tested["inputs"], tested["independent"]), (10, 5))
            state = checkpoint.load(folder / "ckpt_epoch_2.pth")
            objective, network = TASK.restore(state)
            split = read_split("tracks_direction", data, "val", 8)
            runtime = Runtime(torch.device("cpu"))
            figures = engine.evaluate(network, objective.meter(), make_loader(split, 64), runtime)
            for name, value in figures.items():
                self.assertAlmostEqual(state["history"][1][f"val_{name}"], value, places=5)


if __name__ == "__main__":
    unittest.main()
