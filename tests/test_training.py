"""The loop and train.py: optimizers, exact resume after a kill, interrupts, logs, seeds."""

import csv
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from datasets import BatchSampler
from lab import checkpoint, engine
from lab.console import LabError
from tests.support import PROJECT, environment, make_images, script

FLAGS = ("--bn", "--stn", "--dropout", "0.3", "--augment", "--batch_size", "16", "--seed", "5")


def same_weights(first: Path, second: Path) -> bool:
    """True where two checkpoints hold the same network and optimizer state, bit for bit."""
    a, b = checkpoint.load(first), checkpoint.load(second)
    tensors = [
        [*state["model_state"].values()]
        + [
            value
            for moments in state["optimizer_state"]["state"].values()
            for value in moments.values()
        ]
        for state in (a, b)
    ]
    return all(torch.equal(x, y) for x, y in zip(*tensors, strict=True))


class FakeLoader:
    """Batches that are in memory already, with the sampler that `engine.fit` steers."""

    def __init__(self, batches):
        self.batches = batches
        self.batch_sampler = BatchSampler(len(batches), 1, False, 0, 0, 1)

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class OptimizerTest(unittest.TestCase):
    def test_every_optimizer_reduces_the_loss(self):
        """20 steps on one batch at least halve its loss, with every optimizer and schedule."""
        torch.manual_seed(0)
        images = torch.randn(32, 1, 4, 4)
        labels = (images.sum((1, 2, 3)) > 0).long()
        rates = {"sgd": 0.3, "adadelta": 10.0, "adagrad": 0.1}
        for name in engine.OPTIMIZERS:
            for schedule in ("constant", "onecycle"):
                with self.subTest(name, schedule=schedule):
                    torch.manual_seed(1)
                    model = nn.Sequential(
                        nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)
                    )
                    settings = engine.TrainSettings(
                        epoch=1, optim_type=name, schedule=schedule, lr=rates.get(name, 0.02)
                    )
                    optimizer = engine.make_optimizer(model.parameters(), settings, "cpu")
                    course = engine.make_schedule(optimizer, settings, 20, 0)
                    before = nn.functional.cross_entropy(model(images), labels)
                    engine.train_one_epoch(
                        model, nn.functional.cross_entropy, FakeLoader([(images, labels)] * 20),
                        optimizer, course, engine.Runtime(torch.device("cpu")), engine.EpochState(),
                    )  # fmt: skip
                    after = nn.functional.cross_entropy(model(images), labels)
                    self.assertLess(after.item(), before.item() / 2)

    def test_onecycle_is_the_same_resumed(self):
        """Built anew after any number of steps, the schedule goes on with the same rates."""
        settings = engine.TrainSettings(epoch=2, schedule="onecycle", lr=0.1, optim_type="sgd")

        def course(done, state=None):
            optimizer = engine.make_optimizer([nn.Parameter(torch.ones(1))], settings, "cpu")
            if state:
                optimizer.load_state_dict(state)
            schedule = engine.make_schedule(optimizer, settings, 10, done)
            rates = []
            for _ in range(done, 20):
                rates.append(optimizer.param_groups[0]["lr"])
                if len(rates) == 7:
                    saved = optimizer.state_dict()
                    saved = saved | {"param_groups": [dict(saved["param_groups"][0])]}
                optimizer.step()
                schedule.step()
            return rates, saved

        whole, state = course(0)
        self.assertAlmostEqual(max(whole), 0.1, places=3)
        self.assertEqual(whole[6:], course(6, state)[0])

    def test_a_step_is_autograd_and_torch_optim(self):
        """One epoch in fp32 equals the loop written out with autograd and torch.optim.Adam."""
        torch.manual_seed(0)
        batches = [(torch.randn(8, 3, 4, 4), torch.randint(0, 5, (8,))) for _ in range(4)]
        ours = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(24, 5))
        theirs = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(24, 5))
        theirs.load_state_dict(ours.state_dict())
        settings = engine.TrainSettings(lr=1e-2)
        optimizer = engine.make_optimizer(ours.parameters(), settings, "cpu")
        state = engine.EpochState()
        engine.train_one_epoch(
            ours, nn.functional.cross_entropy, FakeLoader(batches), optimizer,
            engine.make_schedule(optimizer, settings, 4, 0),
            engine.Runtime(torch.device("cpu")), state,
        )  # fmt: skip
        reference, losses = torch.optim.Adam(theirs.parameters(), 1e-2), []
        for images, labels in batches:
            loss = nn.functional.cross_entropy(theirs(images), labels)
            reference.zero_grad()
            loss.backward()
            reference.step()
            losses.append(loss.item())
        self.assertAlmostEqual(state.loss, sum(losses) / 4, places=5)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


class LossTest(unittest.TestCase):
    def test_non_finite_loss_names_its_step(self):
        """The epoch ends with the first step whose loss was not finite."""
        good = (torch.ones(2, 4, 1, 1), torch.zeros(2, dtype=torch.long))
        bad = (torch.full((2, 4, 1, 1), math.nan), good[1])
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        settings = engine.TrainSettings()
        optimizer = engine.make_optimizer(model.parameters(), settings, "cpu")
        with self.assertRaisesRegex(LabError, "since step 3 of epoch 7"):
            engine.train_one_epoch(
                model, nn.functional.cross_entropy, FakeLoader([good, good, bad, good]), optimizer,
                engine.make_schedule(optimizer, settings, 4, 0),
                engine.Runtime(torch.device("cpu")), engine.EpochState(), label="epoch 7",
            )  # fmt: skip

    def test_evaluation_counts_every_image(self):
        """Loss and accuracy are means over images, not over batches of different size."""
        logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
        labels = torch.tensor([0, 0, 0])
        batches = [
            (logits[:2].view(2, 2, 1, 1), labels[:2]),
            (logits[2:].view(1, 2, 1, 1), labels[2:]),
        ]
        result = engine.evaluate(
            nn.Flatten(), batches, engine.Runtime(torch.device("cpu")), nn.functional.cross_entropy
        )
        self.assertAlmostEqual(result.accuracy, 2 / 3)
        self.assertAlmostEqual(result.loss, nn.functional.cross_entropy(logits, labels).item(), 6)
        self.assertEqual(result.predictions.tolist(), [0, 1, 0])

    def test_best_epoch(self):
        """The most accurate, of equals the one of the lowest loss; only validated ones count."""
        rows = [(1, 0.5, 0.1), (2, 0.9, 0.4), (3, None, None), (4, 0.9, 0.3), (5, 0.9, 0.3)]
        columns = ("epoch", "val_accuracy", "val_loss")
        history = [dict(zip(columns, row, strict=True)) for row in rows]
        self.assertEqual(engine.best_epoch(history), 4)
        self.assertIsNone(engine.best_epoch([]))


class RunTest(unittest.TestCase):
    """Real processes of the real train.py on a small data set."""

    @classmethod
    def setUpClass(cls):
        cls.holder = tempfile.TemporaryDirectory()
        cls.base = Path(cls.holder.name)
        cls.data = make_images(cls.base / "data", {"train": 40, "val": 6, "test": 6})
        cls.straight = cls.base / "straight"
        cls.done = cls.train("--ckpt_path", cls.straight, "--epoch", 4)

    @classmethod
    def tearDownClass(cls):
        cls.holder.cleanup()

    @classmethod
    def train(cls, *more):
        return script("train.py", *FLAGS, "--data_root", cls.data, *more)

    @classmethod
    def start(cls, *more):
        return subprocess.Popen(
            [sys.executable, "train.py", *map(str, more)],
            cwd=PROJECT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_a_run_leaves_what_it_promises(self):
        """It learns the easy classes, logs a row an epoch, and names the next commands."""
        self.assertEqual(self.done.returncode, 0, self.done.stderr)
        self.assertRegex(
            self.done.stdout, r"Epoch  4/4: loss .*, val accuracy .*images/s, 0:00 left"
        )
        self.assertRegex(self.done.stdout, r"Test accuracy of the best epoch, \d: 100.00%")
        self.assertIn("python test.py --ckpt_path", self.done.stdout)
        with (self.straight / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["epoch"] for row in rows], ["1", "2", "3", "4"])
        self.assertLess(float(rows[3]["loss"]), float(rows[0]["loss"]) / 2)
        self.assertEqual((self.straight / "loss_and_acc.jpg").read_bytes()[:3], b"\xff\xd8\xff")
        self.assertEqual(list(checkpoint.epochs(self.straight)), [1, 2, 3, 4])

    def test_tensorboard_holds_the_curve(self):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(self.straight)).Reload()
        state = checkpoint.load(checkpoint.find(self.straight, "last"))
        for event, row in zip(events.Scalars("loss"), state["history"], strict=True):
            self.assertEqual(event.step, row["epoch"])
            self.assertAlmostEqual(event.value, row["loss"], places=5)

    def test_same_seed_same_weights(self):
        """A second run with the same seed is bit-identical, one with another is not."""
        for seed, equal in ((5, True), (6, False)):
            folder = self.base / f"seed_{seed}"
            self.train("--ckpt_path", folder, "--epoch", 1, "--seed", seed)
            first = self.straight / "ckpt_epoch_1.pth"
            self.assertEqual(same_weights(first, folder / "ckpt_epoch_1.pth"), equal)

    def test_killed_and_resumed_is_bit_identical(self):
        """SIGKILL at random instants, resumed each time: the weights of the run undisturbed."""
        folder = self.base / "killed"
        rng = random.Random(0)
        command = [*FLAGS, "--data_root", self.data, "--ckpt_path", folder, "--epoch", 4]
        kills = 0
        for _ in range(30):
            process = self.start(*command)
            deadline = time.monotonic() + 60
            had = len(checkpoint.epochs(folder))
            while len(checkpoint.epochs(folder)) == had and process.poll() is None:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
            kills += process.wait() == -signal.SIGKILL
            process.communicate()
            command = ["--resume", folder]
            if 4 in checkpoint.epochs(folder):
                break
        self.assertGreaterEqual(kills, 1)
        self.assertTrue(
            same_weights(self.straight / "ckpt_epoch_4.pth", folder / "ckpt_epoch_4.pth")
        )

    def test_ctrl_c_saves_within_the_epoch(self):
        """SIGINT in the middle of an epoch saves, says how to go on, and that is exact as well."""
        folder = self.base / "interrupted"
        data = make_images(self.base / "more", {"train": 400, "val": 2})
        flags = (*FLAGS, "--data_root", data, "--epoch", 1)
        process = self.start(*flags, "--ckpt_path", folder)
        while not (folder / "events").exists() and not list(folder.glob("events.*")):
            self.assertIsNone(process.poll())
            time.sleep(0.01)
        time.sleep(0.4)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        self.assertNotIn("Traceback", errors)
        interrupted = folder / checkpoint.INTERRUPTED
        self.assertIn(f"python train.py --resume {interrupted}", output)
        state = checkpoint.load(interrupted)
        self.assertGreater(state["epoch_state"]["step"], 0)
        resumed = script("train.py", "--resume", interrupted)
        self.assertEqual(resumed.returncode, 0, resumed.stderr)
        self.assertFalse(interrupted.exists())
        whole = self.base / "uninterrupted"
        script("train.py", *flags, "--ckpt_path", whole)
        name = "ckpt_epoch_1.pth"
        self.assertTrue(same_weights(folder / name, whole / name))
        losses = [checkpoint.load(run / name)["history"][0]["loss"] for run in (folder, whole)]
        self.assertAlmostEqual(*losses, places=6)

    def test_an_earlier_run_is_kept(self):
        """Training into a folder that holds a run moves that run aside, whole."""
        folder = self.base / "twice"
        self.train("--ckpt_path", folder, "--epoch", 1)
        before = (folder / "ckpt_epoch_1.pth").read_bytes()
        again = self.train("--ckpt_path", folder, "--epoch", 1, "--seed", 9)
        self.assertIn("previous_1", again.stdout)
        self.assertEqual((folder / "previous_1" / "ckpt_epoch_1.pth").read_bytes(), before)
        self.assertTrue((folder / "previous_1" / "metrics.csv").exists())

    def test_rotation_keeps_the_newest_and_the_best(self):
        """--max_ckpt_save_num 1 leaves the last epoch and the best, and resuming can extend."""
        folder = self.base / "rotated"
        self.train("--ckpt_path", folder, "--epoch", 3, "--max_ckpt_save_num", 1)
        best = checkpoint.load(folder / "ckpt_epoch_3.pth")["best_epoch"]
        self.assertEqual(set(checkpoint.epochs(folder)), {best, 3})
        more = script("train.py", "--resume", folder, "--epoch", 4)
        self.assertEqual(more.returncode, 0, more.stderr)
        self.assertTrue(
            same_weights(self.straight / "ckpt_epoch_4.pth", folder / "ckpt_epoch_4.pth")
        )


class SettingsTest(unittest.TestCase):
    def test_flags_and_settings_have_one_set_of_defaults(self):
        """What train.py's flags default to is what `TrainSettings` says."""
        import train

        args = vars(train.make_parser().parse_args([]))
        settings = engine.TrainSettings()
        self.assertEqual(replace(settings, **{k: args[k] for k in vars(settings)}), settings)
        self.assertEqual(list(engine.OPTIMIZERS), list(train.OPTIMIZER_NAMES))
