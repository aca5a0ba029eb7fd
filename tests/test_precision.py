"""fp16: what its range cannot hold is skipped, counted and said, and nothing is lost by it.

A CPU computes in fp16 as well, slowly: what is tested here is what a CUDA device runs.
"""

import csv
import io
import math
import tempfile
import unittest
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lab import checkpoint, engine
from lab.batches import BatchSampler
from lab.console import LabError
from lab.learner import Learner
from lab.run import Run
from lab.runtime import Runtime
from lab.settings import OPTIMIZERS, TrainSettings
from tasks.classification.objective import ClassificationObjective
from tests.support import stopped_at

FP16 = Runtime(torch.device("cpu"), torch.float16)
TOO_LARGE = 1e6  # finite in fp32, infinite in fp16


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


def network() -> nn.Module:
    """Return a network with all that a step can change: weights, statistics, a generator."""
    torch.manual_seed(0)
    body = (nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    return nn.Sequential(*body)


def data(count: int = 32, large: tuple[int, ...] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and labels; those inputs are beyond fp16."""
    torch.manual_seed(1)
    inputs = torch.randn(count, 12)
    labels = inputs[:, :3].argmax(1)
    inputs[list(large)] *= TOO_LARGE
    return inputs, labels


def loader_of(inputs: torch.Tensor, labels: torch.Tensor, shuffle: bool = False) -> DataLoader:
    sampler = BatchSampler(len(inputs), 8, shuffle, 0, 0, 1)
    generator = torch.Generator()  # else it would draw from dropout's
    dataset = TensorDataset(inputs, labels)
    return DataLoader(dataset, batch_sampler=sampler, generator=generator)


def learner_of(settings: TrainSettings, scale: float = 256.0, net: nn.Module | None = None):
    """Return a learner in fp16 whose first scale, unlike the usual one, suits the network."""
    learner = Learner(ClassificationObjective(), net or network(), settings, FP16)
    learner.scaler = GradScaler("cpu", init_scale=scale)
    return learner.begin(100)


def tensors_of(learner: Learner) -> list[torch.Tensor]:
    return [value.clone() for value in learner.network.state_dict().values()]


class StepTest(unittest.TestCase):
    def test_what_is_skipped_changes_nothing(self):
        """Neither weights nor statistics, by any optimizer, in the first step or after one."""
        good, bad = data(8), data(8, large=(3,))
        for name in OPTIMIZERS:
            for first in (bad, good):
                with self.subTest(name, first="bad" if first is bad else "good"):
                    learner = learner_of(TrainSettings(optim_type=name, lr=0.1))
                    learner.train()
                    learner.step(*first)
                    before = tensors_of(learner)
                    learner.step(*bad)
                    for old, new in zip(before, tensors_of(learner), strict=True):
                        self.assertTrue(torch.equal(old, new))
                    self.assertEqual(int(learner.skipped), 1 + (first is bad))
                    learner.step(*good)
                    self.assertFalse(torch.equal(before[0], tensors_of(learner)[0]))
                    self.assertTrue(all(x.isfinite().all() for x in tensors_of(learner)))
                    self.assertEqual(learner.take_skipped(), 1 + (first is bad))
                    self.assertEqual(learner.take_skipped(), 0)

    def test_steps_are_those_of_fp32(self):
        """To the precision of the type, whatever the scale, clipped or not."""
        batch = data(8)
        for clip in (0.0, 0.01):
            settings = TrainSettings(optim_type="sgd", momentum=0.0, lr=1.0, clip_norm=clip)
            reference = nn.Linear(12, 3)
            loss = cross_entropy(reference(batch[0]), batch[1])
            loss.backward()
            whole = nn.utils.clip_grad_norm_(reference.parameters(), clip or math.inf)
            self.assertGreater(whole, 0.02)
            for scale in (1.0, 1024.0):
                with self.subTest(clip=clip, scale=scale):
                    net = nn.Linear(12, 3)
                    net.load_state_dict(reference.state_dict())
                    learner_of(settings, scale, net).step(*batch)
                    for new, old in zip(net.parameters(), reference.parameters(), strict=True):
                        moved, share = old.detach() - new.detach(), old.grad.norm().item()
                        torch.testing.assert_close(moved, old.grad, rtol=0.02, atol=0.01 * share)


class EpochTest(unittest.TestCase):
    def test_what_fp16_alone_cannot_hold_is_no_divergence(self):
        """The epoch ends, its figures are those of the other batches, and count all inputs."""
        inputs, labels = data(large=(10,))  # in the second batch of four
        settings = TrainSettings(lr=1e-30, optim_type="sgd", momentum=0.0)
        plain = nn.Sequential(nn.Linear(12, 3))
        learner, state = learner_of(settings, net=plain), engine.EpochState()
        self.assertTrue(engine.train_one_epoch(learner, loader_of(inputs, labels), state))
        rest = [k for k in range(32) if not 8 <= k < 16]
        expected = cross_entropy(plain(inputs[rest]), labels[rest]).item()
        self.assertAlmostEqual(state.means()["loss"], expected, delta=0.01)
        self.assertEqual((state.images, learner.take_skipped()), (32, 1))

    def test_what_fp32_cannot_hold_either_is(self):
        inputs, labels = data()
        learner = learner_of(TrainSettings(), net=nn.Sequential(nn.Linear(12, 3)))
        with self.assertRaisesRegex(engine.Diverged, "since step 1 of the epoch"):
            engine.train_one_epoch(
                learner, loader_of(inputs * math.nan, labels), engine.EpochState()
            )

    def test_where_no_step_is_left(self):
        """It is said what to do, long before the scale has come down to nothing."""
        inputs, labels = data(800, large=range(0, 800, 8))
        learner = learner_of(TrainSettings(), 2.0**16)
        with self.assertRaisesRegex(LabError, "--precision fp32"):
            engine.train_one_epoch(learner, loader_of(inputs, labels), engine.EpochState())
        self.assertEqual(int(learner.skipped), engine.CHECK_EVERY)

    def test_learned_by_heart(self):
        """The first steps may be skipped."""
        with redirect_stdout(io.StringIO()) as said:
            share = engine.overfit(
                ClassificationObjective(), network(), data(8), TrainSettings(lr=0.03), FP16
            )
        self.assertLess(share, engine.OVERFIT_SHARE, said.getvalue())


class RunTest(unittest.TestCase):
    """Whole runs, straight and interrupted."""

    settings = TrainSettings(epoch=3, batch_size=8, optim_type="adamw", lr=0.01, ema=0.9)

    def fit(self, folder: Path, resumed: dict | None = None) -> str:
        """Train, or go on; return what was said."""
        net = network()
        if resumed is not None:
            net.load_state_dict(resumed["model_state"])
        learner = Learner(ClassificationObjective(), net, self.settings, FP16)
        if resumed is not None:
            learner.load(resumed)
        train, val = loader_of(*data(64, (10,)), shuffle=True), loader_of(*data(16, (5,)))
        run = Run(folder, FP16)
        if resumed is not None:
            run.history = resumed["history"]
        with redirect_stdout(io.StringIO()) as said:
            engine.fit(learner, train, val, run, {"configs": {}}, resumed)
        return said.getvalue()

    def test_exact_resume(self):
        """Of weights, of the scale and of the count, from the middle of an epoch."""
        with tempfile.TemporaryDirectory() as temporary:
            straight, broken = Path(temporary, "straight"), Path(temporary, "broken")
            said = self.fit(straight)
            with self.assertRaises(KeyboardInterrupt), stopped_at(11):
                self.fit(broken)
            middle = checkpoint.load(broken / checkpoint.INTERRUPTED)
            self.assertLess(middle["scaler"]["scale"], 2.0**16)
            self.assertGreater(middle["scaler"]["skipped"], 0)
            self.fit(broken, middle)
            one, other = (checkpoint.load(path / "ckpt_epoch_3.pth") for path in (straight, broken))
            self.assertEqual(one["scaler"], other["scaler"])
            for kind in ("model_state", "raw_state"):
                for name, value in one[kind].items():
                    self.assertTrue(torch.equal(value, other[kind][name]), name)
            rows = [[row["skipped_steps"] for row in state["history"]] for state in (one, other)]
            self.assertEqual(*rows)
            self.assertGreater(rows[0][0], 0)
            words = f", {rows[0][0]} step{'s' * (rows[0][0] > 1)} skipped (fp16)"
            self.assertIn(words, said.splitlines()[0])
            table = list(csv.DictReader((straight / "metrics.csv").open()))
            self.assertEqual([int(row["skipped_steps"]) for row in table], rows[0])
            # Measured in fp32 where fp16 cannot hold it.
            self.assertTrue(all(math.isfinite(row["val_loss"]) for row in one["history"]))

    def test_a_scale_that_is_none(self):
        learner = Learner(ClassificationObjective(), network(), self.settings, FP16)
        state = learner.state()
        for damaged in ({}, {"skipped": 0}, {"skipped": "many"}):
            with self.assertRaisesRegex(LabError, "holds no state of fp16's scale"):
                learner.load(state | {"scaler": damaged})
        learner.load({name: value for name, value in state.items() if name != "scaler"})

    def test_of_other_precisions_nothing_is_skipped(self):
        learner = Learner(ClassificationObjective(), network(), self.settings, FP16.in_fp32)
        self.assertNotIn("scaler", learner.state())
        self.assertEqual(replace(FP16, autocast_dtype=torch.bfloat16).scales, False)


if __name__ == "__main__":
    unittest.main()
