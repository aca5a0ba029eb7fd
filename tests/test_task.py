"""A new task: all that it takes is in this module, and one line of `tasks.TASKS`."""

import csv
import math
import re
import tempfile
import unittest
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

import tasks
from lab import checkpoint, engine
from lab.batches import BatchSampler
from lab.console import LabError, say
from lab.flags import flag, positive_int
from lab.learner import Learner
from lab.run import Run
from lab.runtime import Runtime, to_device
from lab.settings import TrainSettings
from tests.support import ScriptCase, make_images, script_here, stopped_at

CPU = Runtime(torch.device("cpu"))


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


# ---------------------------------------------------------------- the task


class Regression:
    ranks_by = "r2"

    def loss(self, model, inputs, targets):
        return mse_loss(model(inputs)[:, 0], targets["value"])

    def meter(self):
        return R2()


class R2:
    """The share of the values' variance that a network explains."""

    def __init__(self):
        self.sums = torch.zeros(4, dtype=torch.float64)  # images, errors^2, values, values^2

    def update(self, model, inputs, targets):
        value = targets["value"].double()
        error = model(inputs)[:, 0].double() - value
        self.sums += torch.stack([part.sum() for part in (value**0, error**2, value, value**2)])

    def compute(self, runtime):
        count, error, total, square = runtime.total(self.sums).tolist()
        return {"loss": error / count, "r2": 1 - error / (square - total**2 / count)}


class Points(Dataset):
    """Points of a space with the value that a plane has there; a noisy one in training."""

    def __init__(self, count, seed, noise=0.0):
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(count, 3, generator=generator)
        self.values = self.inputs @ torch.tensor([1.0, -2.0, 0.5]) + 3
        self.values += noise * torch.randn(count, generator=generator)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], {"value": self.values[index]}


def loader_of(dataset, batch_size=16, runtime=CPU, shuffle=False, seed=0, **options):
    sampler = BatchSampler(
        len(dataset), batch_size, shuffle, seed, runtime.rank, runtime.world_size
    )
    return DataLoader(dataset, batch_sampler=sampler, generator=torch.Generator(), **options)


@dataclass(frozen=True)
class Flags:
    points: int = flag(96, positive_int, "to learn from")


class RegressionTask(tasks.Task):
    name = "regression"
    Flags = Flags
    defaults = {"lr": 0.1, "batch_size": 16}

    def prepare(self, flags, runtime, resumed, weights):
        settings, count = flags.settings, flags.own.points
        train, val, test = Points(count, 0, 0.1), Points(40, 1), Points(40, 2)
        torch.manual_seed(settings.seed)
        network = nn.Linear(3, 1)
        if resumed is not None:
            network.load_state_dict(resumed["model_state"])
        shuffled = {"shuffle": True, "seed": settings.seed}
        loaders = {
            "train": loader_of(train, settings.batch_size, runtime, **shuffled),
            "val": loader_of(val, 40, runtime),
            "test": loader_of(test, 40, runtime),
        }
        identity = {"configs": {"inputs": 3}, "flags": {"points": count}}
        parameters = [{"params": list(network.parameters())}]
        return tasks.Job(Regression(), network, loaders, identity, parameters, "points of a plane")

    def restore(self, state):
        network = nn.Linear(state["configs"]["inputs"], 1)
        network.load_state_dict(state["model_state"])
        return Regression(), network

    def test_loader(self, trained, data_root, batch_size):
        return loader_of(Points(40, 2), batch_size)

    def report(self, trained, flags, meter, dataset):
        say(f"R^2 of {len(dataset)} points: {meter.compute(trained.runtime)['r2']:.6f}")

    def read_pictures(self, trained, flags):
        say("there is nothing to look at")


TASK = RegressionTask()


# ---------------------------------------------------------------- its tests


class TaskTest(ScriptCase):
    """The scripts, unchanged, train, test and compare it."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        patch = mock.patch.dict(tasks.TASKS, {"regression": __name__})
        patch.start()
        cls.addClassCleanup(patch.stop)
        cls.run_folder = cls.base / "run"
        cls.done = cls.train(cls.run_folder, "--epoch", 12, "--max_ckpt_save_num", 20)

    @classmethod
    def train(cls, folder, *more):
        return script_here("train.py", "--task", "regression", "--ckpt_path", folder, *more)

    def test_trained(self):
        """It learns the plane; its own figure is logged, ranks epochs and is said."""
        self.assertEqual(self.done.returncode, 0, self.done.stderr)
        self.assertIn("Training 4 parameters on 96 train, 40 val, 40 test points of a plane (cpu, ",
                      self.done.stdout)  # fmt: skip
        self.assertRegex(self.done.stdout, r"Epoch 12/12: loss 0\.\d+, val r2 99\.\d\d%, ")
        self.assertRegex(self.done.stdout, r"Epoch  1/12: loss .*, val r2 (-\d|\d\d\.\d\d%)")
        self.assertRegex(self.done.stdout, r"Test r2 of the best epoch, \d+: 99\.\d\d%")
        with (self.run_folder / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(
            list(rows[0]), ["epoch", "loss", "val_loss", "val_r2", "learning_rate",
                            "images_per_second", "seconds"],
        )  # fmt: skip
        state = checkpoint.load(self.run_folder / "ckpt_epoch_12.pth")
        self.assertEqual(state["task"], "regression")
        self.assertGreater(state["best_epoch"], 5)
        self.assertEqual((self.run_folder / "loss_and_acc.jpg").read_bytes()[:3], b"\xff\xd8\xff")
        weight = state["model_state"]["weight"]
        torch.testing.assert_close(weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=0.1, rtol=0)

    def test_defaults_are_its_own(self):
        """The task's rate and batch size hold unless given; its flags are in --help."""
        settings = checkpoint.load(self.run_folder / "ckpt_epoch_1.pth")["settings"]
        self.assertEqual((settings["lr"], settings["batch_size"]), (0.1, 16))
        self.assertIn("--points", script_here("train.py", "--task", "regression", "--help").stdout)
        self.assertNotIn("--points", script_here("train.py", "--help").stdout)
        self.assertEqual(script_here("train.py", "--points", 3).returncode, 2)

    def test_tested(self):
        """By the same figure that an ordinary least-squares fit would be judged by."""
        done = script_here("test.py", "--ckpt_path", self.run_folder, "--epoch", 12, "--precision",
                           "fp32")  # fmt: skip
        model = TASK.restore(checkpoint.load(self.run_folder / "ckpt_epoch_12.pth"))[1]
        points = Points(40, 2)
        error = (model(points.inputs)[:, 0] - points.values).detach().double()
        r2 = 1 - error.square().sum() / (points.values - points.values.mean()).square().sum()
        said = re.search(r"R\^2 of 40 points: (\S+)", done.stdout)
        self.assertAlmostEqual(float(said[1]), r2.item(), places=5)

    def test_compared(self):
        """A table and a picture of its own; beside another kind of run, two of each."""
        signs, data = self.base / "signs", make_images(self.base / "data", {"train": 4, "val": 2})
        script_here("train.py", "--data_root", data, "--epoch", 1, "--ckpt_path", signs)
        done = script_here("compare.py", self.run_folder, signs, "--save_dir", self.base)
        tables = [text.splitlines() for text in done.stdout.split("\n\n")]
        self.assertEqual([len(table) for table in tables], [3, 3], done.stdout)
        self.assertIn("validation r2", tables[0][0])
        self.assertIn("validation accuracy", tables[1][0])
        self.assertTrue(tables[1][2].startswith("| signs | 1 of 1 |"))
        for kind in ("regression_r2", "classification_accuracy"):
            self.assertTrue((self.base / f"compare_{kind}.jpg").is_file())
        done = script_here("compare.py", self.run_folder, "--save_dir", self.base)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| run | best epoch | validation r2 | test r2 |", done.stdout)
        self.assertRegex(done.stdout, r"\| run \| \d+ of 12 \| 99\.\d\d% \| 99\.\d\d% \| 4 \| ")
        self.assertTrue((self.base / "compare.jpg").is_file())

    def test_resumed(self):
        """Bit-identical after an epoch, and from within one; its flags and settings hold."""
        folder = self.base / "resumed"
        self.train(folder, "--epoch", 1)
        with stopped_at(2, torch.optim.Adam):
            done = script_here("train.py", "--resume", folder, "--epoch", 3)
        self.assertEqual(done.returncode, 130, done.stderr)
        done = script_here("train.py", "--resume", folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        state, expected = (checkpoint.load(path / "ckpt_epoch_3.pth")
                           for path in (folder, self.run_folder))  # fmt: skip
        for name, value in expected["model_state"].items():
            self.assertTrue(torch.equal(state["model_state"][name], value), name)
        self.assertEqual(state["history"][2]["val_r2"], expected["history"][2]["val_r2"])
        self.assertEqual(state["flags"], {"points": 96})

    def test_one_batch(self):
        done = self.train(self.base / "none", "--overfit_batch", "--lr", "0.1")
        self.assertIn("It can learn", done.stdout, done.stderr)

    def test_what_it_does_not_have(self):
        """What nobody has written for it is refused in one line."""
        done = script_here("train.py", "--resume", self.run_folder, "--task", "classification")
        self.assert_refused(done, 2, "is a run of --task regression; leave out --task")
        done = script_here("visualize.py", "--type", "filter", "--ckpt_path", self.run_folder)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertIn(done.returncode, (1, 2))
        done = script_here("test.py", "--ckpt_path", self.run_folder, "--epoch", 1, "--image",
                           self.run_folder / "loss_and_acc.jpg")  # fmt: skip
        self.assertIn("there is nothing to look at", done.stdout, done.stderr)


class Clips(Dataset):
    """Clips, (3, T, H, W), each with its target as a dictionary."""

    def __init__(self, count=24):
        generator = torch.Generator().manual_seed(0)
        self.clips = torch.randn(count, 3, 4, 8, 8, generator=generator)

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        target = {"boxes": torch.ones(index % 3, 4), "mean": self.clips[index].mean(), "name": "a"}
        return self.clips[index], target


class ClipObjective(Regression):
    """Targets are a list with a dictionary a clip; a second figure is logged beside the loss."""

    def loss(self, model, inputs, targets):
        error = model(inputs)[:, 0] - torch.stack([target["mean"] for target in targets])
        boxes = sum(len(target["boxes"]) for target in targets) / len(targets)
        return error.square().mean(), {"boxes": torch.tensor(boxes, device=inputs.device)}

    def meter(self):
        return ClipMeter()


class ClipMeter(R2):
    def update(self, model, inputs, targets):
        super().update(model, inputs, {"value": torch.stack([t["mean"] for t in targets])})


class NothingObjective(Regression):
    """There are no targets, and nothing is measured."""

    ranks_by = ""

    def loss(self, model, inputs, targets):
        assert targets is None
        return model(inputs).square().mean()

    def meter(self):
        return None


class BatchTest(unittest.TestCase):
    def fit(self, objective, collate, val=True, **settings):
        """Train a network of three-dimensional convolutions; return the run and its history."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        loader = loader_of(Clips(), 7, collate_fn=collate)
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), nn.Flatten(), nn.Linear(288, 1)
        )
        settings = TrainSettings(epoch=2, lr=3e-3, **settings)
        with mock.patch("lab.engine.say") as said:
            learner = Learner(objective, model, settings, CPU)
            history = engine.fit(learner, loader, loader if val else None, Run(folder, CPU), {})
        state = torch.load(folder / "ckpt_epoch_2.pth", weights_only=True)
        for name, value in model.state_dict().items():  # also where it is an average
            self.assertTrue(torch.equal(value, state["model_state"][name]), name)
        return folder, history, [call.args[0] for call in said.call_args_list]

    def test_clips_with_a_list_of_dictionaries(self):
        """Inputs of five dimensions; figures beside the loss are means over the inputs."""
        folder, history, said = self.fit(ClipObjective(), lambda batch: (
            torch.stack([clip for clip, _ in batch]), [target for _, target in batch]
        ), ema=0.9)  # fmt: skip
        self.assertAlmostEqual(history[0]["boxes"], 1, places=6)  # 0, 1, 2, 0, 1, 2 ...
        self.assertEqual(set(history[1]) - {"learning_rate", "images_per_second", "seconds"},
                         {"epoch", "loss", "boxes", "val_loss", "val_r2"})  # fmt: skip
        self.assertLess(history[1]["loss"], history[0]["loss"])
        self.assertIn("val r2", said[0])
        (folder / "ckpt_epoch_2.pth").unlink()
        state = torch.load(folder / "ckpt_epoch_1.pth", weights_only=True)
        self.assertEqual((state["epoch"], state["best_epoch"]), (1, 1))

    def test_no_targets(self):
        """Nothing is validated, no epoch is best, and none is said to be."""
        folder, history, said = self.fit(NothingObjective(), lambda batch: (
            torch.stack([clip for clip, _ in batch]), None
        ), val=False)  # fmt: skip
        state = torch.load(folder / "ckpt_epoch_2.pth", weights_only=True)
        self.assertIsNone(state["best_epoch"])
        self.assertRegex(said[1], r"^Epoch  2/2: loss \d+\.\d+, [\d,]+ images/s")

    def test_weights_that_are_lost_without_a_loss(self):
        """What no loss shows is not saved either: a weight that takes no part in it."""

        class Losing(NothingObjective):
            def loss(self, model, inputs, targets):
                with torch.no_grad():
                    model[1].running_mean[0] = math.inf
                return super().loss(nn.Sequential(*model[2:]), inputs[:, :1, :2, :6, :6], targets)

        model = nn.Sequential(nn.Identity(), nn.BatchNorm3d(4), nn.Flatten(), nn.Linear(72, 1))
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        loader = loader_of(Clips(), 7, collate_fn=lambda batch: (
            torch.stack([clip for clip, _ in batch]), None))  # fmt: skip
        with self.assertRaisesRegex(LabError, "the weights are no longer finite after epoch 1/"):
            learner = Learner(Losing(), model, TrainSettings(), CPU)
            engine.fit(learner, loader, None, Run(folder, CPU), {})
        self.assertEqual(checkpoint.epochs(folder), {})

    def test_to_device(self):
        """Tensors of every kind of nest are brought; images and clips in convolutions' layout."""
        images, clips = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4, 4)
        masks = torch.zeros(2, 3, 4, 4, dtype=torch.int64)
        batch = {"a": [images, {"b": clips}], "c": (torch.ones(3), None, "text"), "d": masks}
        moved = to_device(batch, CPU)
        self.assertEqual((type(moved["a"]), type(moved["c"])), (list, tuple))
        self.assertTrue(moved["a"][0].is_contiguous(memory_format=torch.channels_last))
        self.assertTrue(moved["a"][1]["b"].is_contiguous(memory_format=torch.channels_last_3d))
        self.assertTrue(moved["d"].is_contiguous())
        self.assertEqual(moved["c"][1:], (None, "text"))
        meta = to_device(batch, Runtime(torch.device("meta")))
        for tensor in (meta["a"][0], meta["a"][1]["b"], meta["c"][0], meta["d"]):
            self.assertEqual(tensor.device.type, "meta")
