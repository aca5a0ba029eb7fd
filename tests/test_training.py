"""The loop and train.py: optimizers, schedules, averages, exact resume after a kill, seeds."""

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
from unittest import mock

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import datasets
import tasks
import train as train_script
from lab import batches, checkpoint, engine
from lab.batches import BatchSampler
from lab.console import LabError, as_text
from lab.learner import Learner
from lab.optimizers import make_optimizer, make_schedule, resume_optimizer
from lab.run import best_epoch, contenders
from lab.runtime import Runtime, place, seed_epoch, start_as
from lab.settings import OPTIMIZERS, SCHEDULES, TrainSettings
from tasks import TrainFlags
from tasks.classification import Flags
from tasks.classification.objective import ClassificationObjective
from tests.support import PROJECT, environment, make_images, network_of, script_here

FLAGS = ("--bn", "--stn", "--dropout", "0.3", "--augment", "--batch_size", "16", "--seed", "5")
CPU = Runtime(torch.device("cpu"))


def setUpModule():
    """Use one thread, as the processes started here do: runs are then bit-identical to theirs."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


def same_weights(first: Path, second: Path) -> bool:
    """True where two checkpoints hold the same weights and optimizer state, bit for bit."""
    a, b = checkpoint.load(first), checkpoint.load(second)
    tensors = [
        [*state["model_state"].values(), *state.get("raw_state", {}).values()]
        + [
            value
            for moments in state["optimizer_state"]["state"].values()
            for value in moments.values()
        ]
        for state in (a, b)
    ]
    return all(torch.equal(x, y) for x, y in zip(*tensors, strict=True))


def loader_of(*tensors: torch.Tensor, batch_size: int = 8) -> DataLoader:
    """Return a loader of what is in memory, in order, with the sampler that the loop steers."""
    sampler = BatchSampler(len(tensors[0]), batch_size, False, 0, 0, 1)
    return DataLoader(TensorDataset(*tensors), batch_sampler=sampler)


def learner_of(model, loader, settings, objective=None) -> Learner:
    """Return a learner that is ready for its first step."""
    learner = Learner(objective or ClassificationObjective(), model, settings, CPU)
    return learner.begin(settings.epoch * len(loader.batch_sampler))


def train(model, loader, settings, objective=None, **options) -> engine.EpochState:
    """Train for an epoch; return what it has added up."""
    state, learner = engine.EpochState(), learner_of(model, loader, settings, objective)
    engine.train_one_epoch(learner, loader, state, **options)
    return state


def linear(seed: int = 0, inputs: int = 12, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes))


class OptimizerTest(unittest.TestCase):
    def test_every_optimizer_reduces_the_loss(self):
        """20 steps on one batch at least halve its loss, with every optimizer and schedule."""
        torch.manual_seed(0)
        images = torch.randn(32, 1, 4, 4)
        labels = (images.sum((1, 2, 3)) > 0).long()
        batches = loader_of(images.repeat(20, 1, 1, 1), labels.repeat(20), batch_size=32)
        rates = {"sgd": 0.3, "adadelta": 10.0, "adagrad": 0.1, "muon": 0.2}
        for name in OPTIMIZERS:
            for schedule in SCHEDULES:
                with self.subTest(name, schedule=schedule):
                    torch.manual_seed(1)
                    model = nn.Sequential(
                        nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)
                    )
                    rate = rates.get(name, 0.02)
                    settings = TrainSettings(epoch=1, optim_type=name, schedule=schedule, lr=rate)
                    before = cross_entropy(model(images), labels).item()
                    train(model, batches, settings)
                    self.assertLess(cross_entropy(model(images), labels).item(), before / 2)

    def test_a_step_is_autograd_and_torch_optim(self):
        """One epoch in fp32 equals the loop written out with autograd and torch.optim."""
        torch.manual_seed(0)
        images, labels = torch.randn(32, 3, 4, 4), torch.randint(0, 5, (32,))
        for options, make, smoothing in (
            ({"optim_type": "adam"}, torch.optim.Adam, 0.0),
            ({"optim_type": "adam", "weight_decay": 0.1}, torch.optim.Adam, 0.0),
            ({"optim_type": "adamw", "weight_decay": 0.1}, torch.optim.AdamW, 0.0),
            ({"optim_type": "sgd", "momentum": 0.9, "weight_decay": 0.1}, torch.optim.SGD, 0.2),
            ({"optim_type": "sgd", "momentum": 0.0}, torch.optim.SGD, 0.0),
        ):
            with self.subTest(options):
                ours, theirs = (
                    nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(24, 5))
                    for _ in range(2)
                )
                theirs.load_state_dict(ours.state_dict())
                settings = TrainSettings(lr=1e-2, **options)
                state = train(
                    ours, loader_of(images, labels), settings, ClassificationObjective(smoothing)
                )
                own = {name: value for name, value in options.items() if name != "optim_type"}
                reference, losses = make(theirs.parameters(), lr=1e-2, **own), []
                for batch, its_labels in zip(images.split(8), labels.split(8), strict=True):
                    loss = cross_entropy(theirs(batch), its_labels, label_smoothing=smoothing)
                    reference.zero_grad()
                    loss.backward()
                    reference.step()
                    losses.append(loss.item())
                self.assertAlmostEqual(state.means()["loss"], sum(losses) / 4, places=5)
                for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    def test_clipping_is_torchs(self):
        """Plain descent at rate 1 moves all weights by the gradient, shortened to the norm."""
        torch.manual_seed(0)
        images, labels = 10 * torch.randn(8, 12), torch.randint(0, 3, (8,))
        settings = TrainSettings(lr=1.0, optim_type="sgd", momentum=0.0)
        for most in (0.0, 0.01, 0.5, 1e6):
            model, reference = linear(), linear()
            cross_entropy(reference(images), labels).backward()
            whole = nn.utils.clip_grad_norm_(reference.parameters(), most or math.inf)
            self.assertGreater(whole, 1)
            train(model, loader_of(images, labels), replace(settings, clip_norm=most))
            moved = []
            for new, old in zip(model.parameters(), reference.parameters(), strict=True):
                torch.testing.assert_close(new, old - old.grad, rtol=1e-5, atol=1e-6)
                moved.append((new - old).detach().flatten())
            expected = min(most, whole.item()) if most else whole.item()
            self.assertAlmostEqual(torch.cat(moved).norm().item() / expected, 1, places=3)


class ScheduleTest(unittest.TestCase):
    STEPS = 12

    def rates(self, settings, done=0, state=None, first=None):
        """Return a run's rates from a step on, and the optimizer's state after `first` of them."""
        optimizer = make_optimizer([nn.Parameter(torch.ones(1))], settings, "cpu")
        if state is not None:
            resume_optimizer(optimizer, {"optimizer_state": state}, settings)
        schedule = make_schedule(optimizer, settings, self.STEPS, done)
        rates, saved = [], None
        for step in range(done, self.STEPS):
            if step == first:
                saved = optimizer.state_dict()
                saved = saved | {"param_groups": [dict(saved["param_groups"][0])]}
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates, saved

    def test_closed_forms(self):
        """Every rate of every schedule, in the formula's own words."""
        n = self.STEPS
        peak = 3 * n / 10 - 1  # where torch's one-cycle turns
        half_cosine = lambda a, b, x: b + (a - b) * (1 + math.cos(math.pi * x)) / 2  # noqa: E731
        formulas = {
            "constant": lambda k: 1,
            "cosine": lambda k: half_cosine(1, 0, k / n),
            "step": lambda k: (1, 0.1, 0.01)[k // (n // 3)],
            "onecycle": lambda k: (
                half_cosine(1 / 25, 1, k / peak)
                if k <= peak
                else half_cosine(1, 1 / 25e4, (k - peak) / (n - 1 - peak))
            ),
        }
        self.assertEqual(set(formulas), set(SCHEDULES))
        for schedule, formula in formulas.items():
            settings = TrainSettings(schedule=schedule, lr=0.3, optim_type="sgd")
            for step, rate in enumerate(self.rates(settings)[0]):
                with self.subTest(schedule, step=step):
                    self.assertAlmostEqual(rate, 0.3 * formula(step), places=10)

    def test_resumed_as_if_from_the_start(self):
        """Gone on with at any step, with any schedule and rate, as if these had always been."""
        for before in SCHEDULES:
            for after in SCHEDULES:
                for done, rate in ((1, 0.1), (7, 0.1), (7, 0.025), (11, 3.0)):
                    with self.subTest(before, after=after, done=done, rate=rate):
                        first = TrainSettings(schedule=before, lr=0.1, optim_type="sgd")
                        second = replace(first, schedule=after, lr=rate)
                        state = self.rates(first, first=done)[1]
                        expected = self.rates(second)[0][done:]
                        self.assertEqual(self.rates(second, done, state)[0], expected)

    def test_momentum_and_penalty_are_new_ones_too(self):
        settings = TrainSettings(optim_type="sgd", momentum=0.9, weight_decay=0.0)
        state = self.rates(settings, first=3)[1]
        optimizer = make_optimizer([nn.Parameter(torch.ones(1))], settings, "cpu")
        new = replace(settings, momentum=0.5, weight_decay=0.01)
        resume_optimizer(optimizer, {"optimizer_state": state}, new)
        (group,) = optimizer.param_groups
        self.assertEqual((group["momentum"], group["weight_decay"]), (0.5, 0.01))


class AverageTest(unittest.TestCase):
    def test_equals_the_loop_by_hand(self):
        """Weights and batch norm's statistics of every step, in their shares; counts as last."""
        torch.manual_seed(0)
        images, labels = torch.randn(40, 12), torch.randint(0, 3, (40,))
        settings = TrainSettings(lr=0.1, optim_type="sgd")
        for decay in (0.5, 0.999):
            models = [nn.Sequential(nn.BatchNorm1d(12), linear()[1]) for _ in range(2)]
            models[1].load_state_dict(models[0].state_dict())
            loader = loader_of(images, labels)
            learner = learner_of(models[0], loader, replace(settings, ema=decay))
            engine.train_one_epoch(learner, loader, engine.EpochState())
            optimizer, mean = make_optimizer(models[1].parameters(), settings, "cpu"), {}
            for step, (batch, its) in enumerate(zip(images.split(8), labels.split(8), strict=True)):
                optimizer.zero_grad()
                cross_entropy(models[1].train()(batch), its).backward()
                optimizer.step()
                keep = min(decay, (1 + step) / (10 + step)) if step else 0.0
                now = {name: value.double() for name, value in models[1].state_dict().items()}
                mean = now if not step else {
                    name: keep * mean[name] + (1 - keep) * now[name] for name in now
                }  # fmt: skip
            for name, value in learner.tested.state_dict().items():
                expected = 5 if "num_batches" in name else mean[name].to(value.dtype)
                torch.testing.assert_close(value, torch.as_tensor(expected), rtol=1e-5, atol=1e-6)
            self.assertTrue(all(map(torch.equal, models[0].parameters(), models[1].parameters())))


class LossTest(unittest.TestCase):
    def test_non_finite_loss_names_its_step(self):
        """The epoch ends with the first step whose loss was not finite, also if later ones are."""
        images = torch.ones(8, 12)
        images[4] = math.nan
        settings = TrainSettings(lr=1e-9, optim_type="sgd", momentum=0.0)
        objective = ClassificationObjective()
        objective.criterion = lambda logits, labels: logits.sum() * 0 + logits.detach().sum()
        with self.assertRaisesRegex(engine.Diverged, "since step 3 of epoch 7"):
            labels = torch.zeros(8, dtype=torch.long)
            train(linear(), loader_of(images, labels, batch_size=2), settings, objective,
                  label="epoch 7")  # fmt: skip

    def test_the_last_step_is_judged_too(self):
        """It leaves weights that are finite, and a loss that is not."""
        images, labels = torch.ones(8, 12), torch.tensor([0, 1] * 4)
        model = nn.Sequential(linear(0, 12, 12), nn.ReLU(), linear(1, 12, 3))
        with self.assertRaisesRegex(engine.Diverged, "since step 1 of"):
            train(model, loader_of(images, labels), TrainSettings(lr=1e30))

    def test_looked_at_in_the_middle(self):
        """A long epoch does not go on to its end with numbers that are lost."""
        images = torch.full((1000, 12), math.nan)
        seen = []
        objective = ClassificationObjective()
        objective.criterion = lambda logits, labels: seen.append(1) or cross_entropy(logits, labels)
        with self.assertRaisesRegex(LabError, "since step 1 of the epoch"):
            labels = torch.zeros(1000, dtype=torch.long)
            train(linear(), loader_of(images, labels, batch_size=1), TrainSettings(), objective)
        self.assertEqual(len(seen), engine.CHECK_EVERY)

    def test_training_figures_are_means_over_images(self):
        """Loss and accuracy of batches of different size, of a network that does not move."""
        torch.manual_seed(3)
        images, labels = torch.randn(11, 12), torch.randint(0, 3, (11,))
        model = linear()
        settings = TrainSettings(lr=1e-30, optim_type="sgd", momentum=0.0)
        state = train(
            model, loader_of(images, labels, batch_size=4), settings, ClassificationObjective(0.1)
        )
        logits = model(images)
        expected = cross_entropy(logits, labels, label_smoothing=0.1).item()
        self.assertAlmostEqual(state.means()["loss"], expected, places=6)
        correct = (logits.argmax(1) == labels).sum().item()
        self.assertNotIn(correct, (0, 11))
        self.assertAlmostEqual(state.means()["accuracy"], correct / 11, places=6)
        self.assertEqual((state.images, state.trained), (11, 11))

    def test_evaluation_counts_every_image(self):
        """Loss and accuracy are means over images, not over batches of different size."""
        logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
        labels = torch.tensor([0, 0, 0])
        meter = ClassificationObjective(label_smoothing=0.3).meter()
        loader = loader_of(logits, labels, batch_size=2)
        figures = engine.evaluate(nn.Flatten(), meter, loader, CPU)
        self.assertAlmostEqual(figures["accuracy"], 2 / 3)
        self.assertAlmostEqual(figures["loss"], cross_entropy(logits, labels).item(), 6)
        self.assertEqual(meter.predictions.tolist(), [0, 1, 0])

    def test_evaluation_is_in_evaluation_mode(self):
        """Dropout and a batch's own statistics have no part in it; nothing is learned."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm1d(12), nn.Dropout(0.5), linear())
        model(torch.randn(50, 12))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        images, labels = 3 + torch.randn(20, 12), torch.randint(0, 3, (20,))
        expected = cross_entropy(model.eval()(images), labels).item()
        figures = engine.evaluate(
            model.train(), ClassificationObjective().meter(), loader_of(images, labels), CPU
        )
        self.assertAlmostEqual(figures["loss"], expected, places=5)
        for name, value in model.state_dict().items():
            self.assertTrue(torch.equal(value, before[name]), name)

    def test_whether_it_can_go_on_is_asked_as_in_testing(self):
        """By running statistics, which stay as they are: here they alone are lost."""
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        learner = Learner(ClassificationObjective(), network, TrainSettings(), CPU)
        images, labels = torch.randn(20, 12), torch.randint(0, 3, (20,))
        learner.train()
        self.assertTrue(learner.loss_is_finite(images, labels))
        self.assertEqual(int(network[1].num_batches_tracked), 0)
        network[1].running_var.fill_(math.nan)
        learner.train()
        self.assertFalse(learner.loss_is_finite(images, labels))

    def test_best_epoch_of_a_schedule(self):
        """Where the rate comes down, the last one that was validated and is finite."""
        accuracies = (0.9, 0.99, 0.9, math.nan, None)
        history = [{"epoch": n, "val_accuracy": a} for n, a in enumerate(accuracies, 1)]
        for schedule in ("onecycle", "cosine", "step"):
            self.assertEqual(best_epoch(history, "accuracy", schedule), 3)
        self.assertEqual(best_epoch(history, "accuracy"), 2)

    def test_a_single_high_epoch_is_luck(self):
        """One good epoch among bad ones does not beat a little less among its like."""
        accuracies = (0.6, 0.9, 0.6, 0.85, 0.86, 0.85)
        history = [{"epoch": n, "val_accuracy": a} for n, a in enumerate(accuracies, 1)]
        self.assertEqual(best_epoch(history, "accuracy"), 5)

    def test_best_epoch(self):
        """The most accurate, of equals the one of the lowest loss; only validated ones count."""
        rows = [(1, 0.5, 0.1), (2, 0.9, 0.4), (3, None, None), (4, 0.9, 0.3), (5, 0.9, 0.3),
                (6, 0.99, math.nan), (7, math.nan, 0.1)]  # fmt: skip
        columns = ("epoch", "val_accuracy", "val_loss")
        history = [dict(zip(columns, row, strict=True)) for row in rows]
        self.assertEqual(best_epoch(history, "accuracy"), 4)
        for losses, best in (((0.3, 0.2), 2), ((0.2, 0.3), 1), ((0.2, 0.2), 1)):  # of equals
            tied = [dict(zip(columns, (n, 0.9, loss), strict=True))
                    for n, loss in enumerate(losses, 1)]  # fmt: skip
            self.assertEqual(best_epoch(tied, "accuracy"), best)
        self.assertIsNone(best_epoch(history[-1:], "accuracy"))
        self.assertIsNone(best_epoch([{"epoch": 1}], "accuracy"))
        self.assertIsNone(best_epoch([], "accuracy"))

    def test_dropout_is_drawn_anew(self):
        """In each epoch and each process, by each seed; the same again where all are the same."""
        drawn = set()
        for numbers in ((0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1), (0, 1, 0)):
            seed_epoch(*numbers)
            drawn.add(torch.rand(1).item())
        self.assertEqual(len(drawn), 4)

    def test_figures_as_they_are_said(self):
        for figure, text in ((0.5, "50.00%"), (1, "100.00%"), (-0.25, "-0.25"), (27.314, "27.31")):
            self.assertEqual(as_text(figure), text)


class ScriptRuns(unittest.TestCase):
    """A straight run of the real train.py on a small data set, shared by the tests of a class."""

    images, epochs, more, draws = 40, 4, (), False

    @classmethod
    def setUpClass(cls):
        if not cls.draws:  # a picture takes longer than an epoch of these
            patch = mock.patch.object(tasks.Task, "publish_curves")
            patch.start()
            cls.addClassCleanup(patch.stop)
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_images(cls.base / "data", {"train": cls.images, "val": 6, "test": 6})
        cls.straight = cls.base / "straight"
        cls.done = cls.train("--ckpt_path", cls.straight, "--epoch", cls.epochs)

    @classmethod
    def train(cls, *more):
        done = script_here("train.py", *FLAGS, *cls.more, "--data_root", cls.data, *more)
        assert done.returncode == 0, done.stderr
        return done

    def rows(self, folder):
        with (folder / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))


class RunTest(ScriptRuns):
    draws = True

    def test_a_run_leaves_what_it_promises(self):
        """It learns the easy classes, logs a row an epoch, and names the next commands."""
        self.assertRegex(
            self.done.stdout, r"Epoch  4/4: loss .*, val accuracy .*images/s, 0:00 left"
        )
        self.assertRegex(self.done.stdout, r"Test accuracy of the \w+ epoch, \d: 100.00%")
        self.assertIn("python test.py --ckpt_path", self.done.stdout)
        rows = self.rows(self.straight)
        self.assertEqual([row["epoch"] for row in rows], ["1", "2", "3", "4"])
        self.assertLess(float(rows[3]["loss"]), float(rows[0]["loss"]) / 2)
        self.assertGreater(float(rows[3]["accuracy"]), 0.9)
        self.assertEqual((self.straight / "loss_and_acc.jpg").read_bytes()[:3], b"\xff\xd8\xff")
        self.assertEqual(list(checkpoint.epochs(self.straight)), [1, 2, 3, 4])

    def test_tensorboard_holds_the_curve(self):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(self.straight)).Reload()
        history = checkpoint.load(checkpoint.find(self.straight, "last"))["history"]
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
            for event, row in zip(events.Scalars(name), history, strict=True):
                self.assertEqual(event.step, row["epoch"])
                self.assertAlmostEqual(event.value, row[name], places=5)

    def test_same_seed_same_weights(self):
        """A second run with the same seed is bit-identical, one with another is not."""
        for seed, equal in ((5, True), (6, False)):
            folder = self.base / f"seed_{seed}"
            self.train("--ckpt_path", folder, "--epoch", 1, "--seed", seed)
            first = self.straight / "ckpt_epoch_1.pth"
            self.assertEqual(same_weights(first, folder / "ckpt_epoch_1.pth"), equal)

    def test_workers_and_validation(self):
        """--num_workers make the batches; --val_interval and the last epoch are validated."""
        folder, made = self.base / "sparse", []
        loader = batches.DataLoader

        def make(*arguments, **options):
            made.append(options["num_workers"])
            return loader(*arguments, **options | {"num_workers": 0})

        with mock.patch.object(batches, "DataLoader", make):
            self.train("--ckpt_path", folder, "--epoch", 5, "--val_interval", 2, "--num_workers", 3)
        self.assertEqual(made, [3, 3, 3])
        validated = [bool(row["val_accuracy"]) for row in self.rows(folder)]
        self.assertEqual(validated, [False, True, False, True, True])
        self.assertNotIn(checkpoint.load(folder / "ckpt_epoch_5.pth")["best_epoch"], (1, 3))

    def test_killed_and_resumed_is_bit_identical(self):
        """SIGKILL at random instants, resumed each time: the weights of the run undisturbed."""
        folder = self.base / "killed"
        rng = random.Random(0)
        command = [*FLAGS, "--data_root", self.data, "--ckpt_path", folder, "--epoch", 3]
        kills = 0
        for _ in range(30):
            process = subprocess.Popen(
                [sys.executable, "train.py", *map(str, command)], cwd=PROJECT, env=environment(),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            deadline = time.monotonic() + 60
            had = len(checkpoint.epochs(folder))
            while len(checkpoint.epochs(folder)) == had and process.poll() is None:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
            command = ["--resume", folder]
            if 3 in checkpoint.epochs(folder):
                break
        self.assertGreaterEqual(kills, 1)
        name = "ckpt_epoch_3.pth"
        self.assertTrue(same_weights(self.straight / name, folder / name))

    def test_rotation_keeps_the_newest_and_the_best(self):
        """--max_ckpt_save_num 1 leaves the last epoch, the best, and what may become it."""
        folder = self.base / "rotated"
        self.train("--ckpt_path", folder, "--epoch", 3, "--max_ckpt_save_num", 1)
        state = checkpoint.load(folder / "ckpt_epoch_3.pth")
        spared = contenders(state["history"], "accuracy")
        self.assertIn(state["best_epoch"], spared)
        self.assertEqual(set(checkpoint.epochs(folder)), spared | {3})
        more = script_here("train.py", "--resume", folder, "--epoch", 4)
        self.assertEqual(more.returncode, 0, more.stderr)
        self.assertTrue(
            same_weights(self.straight / "ckpt_epoch_4.pth", folder / "ckpt_epoch_4.pth")
        )


class LoadersTest(ScriptRuns):
    """What classification is trained, validated and tested on."""

    images, epochs = 8, 1

    def test_train_alone_is_varied(self):
        """Shuffled, augmented, in small batches; what is measured comes in order and as it is."""
        argv = ["train.py", "--data_root", str(self.data), "--augment", "--batch_size", "8"]
        with mock.patch.object(sys, "argv", argv):
            flags = train_script.read(task := tasks.load("classification"))
        job = task.prepare(flags, CPU, None, None)
        self.assertEqual(list(job.loaders), ["train", "val", "test"])
        for mode, loader in job.loaders.items():
            training, sampler = mode == "train", loader.batch_sampler
            self.assertEqual(
                (sampler.shuffle, sampler.batch_size), (training, 8 if training else 256)
            )
            self.assertEqual(loader.dataset.augment is not None, training)


class FlagTest(ScriptRuns):
    """Two steps are enough to see whether a flag has come to the loop."""

    images, epochs = 8, 1
    # With the flags beside which each has a part.
    flags = {
        ("--batch_size", 12): (), ("--lr", 1e-4): (), ("--weight_decay", 0.1): (),
        ("--optim_type", "rmsprop"): (), ("--momentum", 0.5): ("--optim_type", "sgd"),
        ("--schedule", "step"): (), ("--clip_norm", 1e-3): (), ("--ema", 0.9): (),
        ("--no-augment",): (), ("--label_smoothing", 0.3): (), ("--dropout", 0.1): (),
        ("--no-stn",): (), ("--precision", "fp32"): ("--precision", "bf16"), ("--seed", 6): (),
    }  # fmt: skip

    def weights(self, name, *flags):
        """Return the output layer's weights after a run with these flags."""
        self.train("--ckpt_path", self.base / name, "--epoch", 1, *flags)
        return checkpoint.load(self.base / name / "ckpt_epoch_1.pth")["model_state"][
            "fc_net.4.weight"
        ]

    def test_every_setting_reaches_the_loop(self):
        """The same again leaves the same weights; with another value of a flag, others."""
        without = {(): self.weights("same")}
        straight = checkpoint.load(self.straight / "ckpt_epoch_1.pth")["model_state"]
        self.assertTrue(torch.equal(without[()], straight["fc_net.4.weight"]))
        for index, (flag, beside) in enumerate(self.flags.items()):
            with self.subTest(flag):
                if beside not in without:
                    without[beside] = self.weights(f"beside_{index}", *beside)
                changed = self.weights(f"with_{index}", *beside, *flag)
                self.assertFalse(torch.equal(changed, without[beside]))


class AveragedRunTest(ScriptRuns):
    """Clipped gradients and averaged weights."""

    images, epochs = 16, 2
    more = ("--ema", "0.95", "--clip_norm", "1", "--schedule", "cosine", "--lr", "3e-3")

    def test_the_average_is_tested_and_resumed(self):
        """`model_state` is the average, not the raw weights; gone on with, all is bit-identical."""
        state = checkpoint.load(self.straight / "ckpt_epoch_2.pth")
        self.assertEqual(state["averaged"], 2 * 48 // 16)
        meter, runtime = ClassificationObjective().meter(), start_as(state, "cpu", None)
        val = datasets.get_data_loader(self.data, "val", 32, batch_size=256)
        figures = engine.evaluate(place(network_of(state), runtime), meter, val, runtime)
        self.assertAlmostEqual(figures["loss"], state["history"][1]["val_loss"], places=5)
        for name, value in state["raw_state"].items():
            if value.is_floating_point():
                self.assertFalse(torch.equal(value, state["model_state"][name]), name)
        folder = self.base / "half"
        folder.mkdir()
        (folder / "ckpt_epoch_1.pth").write_bytes((self.straight / "ckpt_epoch_1.pth").read_bytes())
        done = script_here("train.py", "--resume", folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        name = "ckpt_epoch_2.pth"
        self.assertTrue(same_weights(self.straight / name, folder / name))
        self.assertEqual(checkpoint.load(folder / name)["averaged"], state["averaged"])
        loss = [checkpoint.load(path / name)["history"][1]["val_loss"]
                for path in (self.straight, folder)]  # fmt: skip
        self.assertEqual(*loss)

    def test_without_going_on_averaging(self):
        """--ema 0 goes on from the raw weights, and no average is saved any more."""
        folder = self.base / "raw"
        done = script_here(
            "train.py", "--resume", self.straight, "--ema", 0, "--lr", 1e-12, "--schedule",
            "constant", "--epoch", 3, "--ckpt_path", folder,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        raw = checkpoint.load(self.straight / "ckpt_epoch_2.pth")["raw_state"]
        state = checkpoint.load(folder / "ckpt_epoch_3.pth")
        self.assertNotIn("raw_state", state)
        for name, value in state["model_state"].items():
            if "running" not in name and "num_batches" not in name:
                torch.testing.assert_close(value, raw[name], rtol=1e-5, atol=1e-8)


class InterruptTest(ScriptRuns):
    """Ctrl-C within an epoch, after the step that is asked for."""

    images, epochs, more = 20, 2, ("--schedule", "cosine")

    def interrupt(self, step, *more, signals=1):
        """Run train.py, and send it a signal within one of its steps, counted over epochs."""
        steps = iter(range(1, 1000))
        made = torch.optim.Adam.step

        def at_step(*arguments, **options):
            if next(steps) == step:
                for _ in range(signals):
                    signal.raise_signal(signal.SIGINT)
            return made(*arguments, **options)

        with mock.patch.object(torch.optim.Adam, "step", at_step):
            return script_here("train.py", *map(str, more))

    def test_saves_and_goes_on_exactly(self):
        """In the middle of an epoch it saves, says how to go on, and that is exact as well."""
        folder = self.base / "with space"
        flags = (*FLAGS, *self.more, "--data_root", self.data, "--epoch", 2, "--ckpt_path", folder)
        done = self.interrupt(6, *flags)
        self.assertEqual(done.returncode, 130, done.stderr)
        interrupted = folder / checkpoint.INTERRUPTED
        self.assertIn(
            f"Saved {interrupted} (epoch 2, 32 of 60 images). "
            f"Go on with: python train.py --resume '{interrupted}'",
            done.stdout,
        )
        again = self.interrupt(1, "--resume", folder)  # interrupted once more
        self.assertEqual(again.returncode, 130, again.stderr)
        self.assertEqual(checkpoint.load(interrupted)["epoch_state"]["images"], 48)
        resumed = script_here("train.py", "--resume", interrupted)
        self.assertEqual(resumed.returncode, 0, resumed.stderr)
        self.assertFalse(interrupted.exists())
        name = "ckpt_epoch_2.pth"
        self.assertTrue(same_weights(folder / name, self.straight / name))
        for row, expected in zip(self.rows(folder), self.rows(self.straight), strict=True):
            for column in ("loss", "accuracy", "val_loss", "val_accuracy"):
                self.assertAlmostEqual(float(row[column]), float(expected[column]), places=6)

    def test_at_the_end_of_an_epoch(self):
        """Nothing is left of it to do: it is validated and saved as a whole one."""
        folder = self.base / "end"
        flags = (*FLAGS, *self.more, "--data_root", self.data, "--epoch", 2, "--ckpt_path", folder)
        done = self.interrupt(4, *flags)
        self.assertEqual(done.returncode, 130, done.stderr)
        self.assertEqual(list(checkpoint.epochs(folder)), [1])
        self.assertFalse((folder / checkpoint.INTERRUPTED).exists())
        self.assertIn(f"--resume {folder / 'ckpt_epoch_1.pth'}", done.stdout)
        name = "ckpt_epoch_1.pth"
        self.assertTrue(same_weights(folder / name, self.straight / name))

    def test_once_more_stops_at_once(self):
        folder = self.base / "at_once"
        flags = (*FLAGS, *self.more, "--data_root", self.data, "--epoch", 2, "--ckpt_path", folder)
        done = self.interrupt(6, *flags, signals=2)
        self.assertEqual(done.returncode, 130, done.stderr)
        self.assertFalse((folder / checkpoint.INTERRUPTED).exists())

    def test_goes_on_with_another_batch_size(self):
        """The rest of the epoch's images are trained on, whatever their batches and schedule."""
        for schedule in ("constant", "onecycle"):
            for batch_size in (60, 25, 3):
                with self.subTest(schedule, batch_size=batch_size):
                    folder = self.base / f"{schedule}_{batch_size}"
                    self.interrupt(
                        3, "--data_root", self.data, "--epoch", 2, "--ckpt_path", folder,
                        "--batch_size", 8, "--schedule", schedule,
                    )  # fmt: skip
                    seen = []
                    original = ClassificationObjective.loss

                    def loss(objective, model, images, labels, seen=seen, original=original):
                        if model.training:
                            seen.append(len(images))
                        return original(objective, model, images, labels)

                    with mock.patch.object(ClassificationObjective, "loss", loss):
                        done = script_here("train.py", "--resume", folder, "--batch_size",
                                           batch_size)  # fmt: skip
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertEqual(sum(seen), 36 + 60)
                    self.assertNotIn(" 0 images/s", done.stdout)
                    self.assertEqual(len(self.rows(folder)), 2)


class OverfitTest(ScriptRuns):
    images, epochs = 8, 1

    def test_one_batch(self):
        """It is learned in seconds, or said not to be; no run is begun."""
        folder = self.base / "none"
        flags = ("--overfit_batch", "--no-augment", "--dropout", 0, "--ckpt_path", folder)
        done = self.train(*flags, "--lr", "1e-3")
        self.assertIn("Learning 16 training images by heart", done.stdout)
        self.assertRegex(done.stdout, r"Step   1: loss \d\.\d{4}, accuracy \d+\.\d\d%\n")
        self.assertRegex(done.stdout, r"It can learn: after \d+ steps")
        done = self.train(*flags, "--lr", "1e-12")
        self.assertIn("It has not learned them: try another --lr", done.stdout)
        self.assertFalse(folder.exists())

    def test_losses_are_no_shares(self):
        """What the loss consists of is said as it is, also from 0 to 1."""

        class Quarter(ClassificationObjective):
            def loss(self, network, images, labels):
                loss = network(images).square().mean()
                return loss, {"box_loss": loss.detach() * 0 + 0.25}

        with mock.patch("lab.engine.say") as said:
            batch = torch.ones(2, 12), torch.zeros(2, dtype=torch.int64)
            engine.overfit(Quarter(), linear(), batch, TrainSettings(), CPU)
        _, first, *_ = (call.args[0] for call in said.call_args_list)
        self.assertRegex(first, r"^Step   1: loss \d+\.\d{4}, box_loss 0\.25$")

    def test_the_same_batch_each_time(self):
        """The loss of the last step over the first; of labels that say nothing, 1."""
        torch.manual_seed(0)
        images = torch.randn(8, 12)
        model, settings = linear(), TrainSettings(lr=0.1)
        groups = [{"params": list(model.parameters())}]
        objective, batch = (
            ClassificationObjective(),
            (images, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])),
        )
        with mock.patch("lab.engine.say"):
            share = engine.overfit(objective, model, batch, settings, CPU, groups)
            self.assertLess(share, engine.OVERFIT_SHARE)
            more = replace(settings, schedule="onecycle", clip_norm=1e-3, ema=0.9)
            groups = [{"params": list((model := linear()).parameters())}]
            again = engine.overfit(objective, model, batch, more, CPU, groups)
            self.assertEqual(again, share)  # at a constant rate, by whole gradients
            groups = [{"params": list(linear().parameters())}]  # of another network
            share = engine.overfit(objective, linear(), batch, settings, CPU, groups)
        self.assertAlmostEqual(share, 1.0, places=6)


class SettingsTest(unittest.TestCase):
    def test_flags_and_settings_have_one_set_of_defaults(self):
        """What train.py's flags default to is what `TrainSettings` says."""
        with mock.patch.object(sys, "argv", ["train.py"]):
            flags = train_script.read(tasks.load("classification"))
        self.assertEqual(flags, TrainFlags(own=Flags()))
        with mock.patch.object(sys, "argv", ["train.py"]):
            flags = train_script.read(tasks.load("segmentation"))
        self.assertEqual(flags.settings, TrainSettings(**tasks.load("segmentation").defaults))
        for name, kind in OPTIMIZERS.items():
            self.assertEqual(kind.lower(), name)
            self.assertTrue(issubclass(getattr(torch.optim, kind), torch.optim.Optimizer))
