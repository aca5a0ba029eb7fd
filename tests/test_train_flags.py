"""What watches a training: other folders beside val, lines of progress; warm-up, the range test."""

import csv
import tempfile
import time
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch import nn

from lab import checkpoint, console, range_test
from lab.curves import draw_curves
from lab.optimizers import make_optimizer, make_schedule
from lab.runtime import Runtime
from lab.settings import TrainSettings
from tasks.classification.objective import ClassificationObjective
from tasks.classification.results import CIFAR10, submitted
from tests.support import CLASSES, ScriptCase, make_images, script, script_here, words_of
from tests.test_training import linear, loader_of

CPU = Runtime(torch.device("cpu"))


def setUpModule():
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


class BesideTest(ScriptCase):
    """--also_validate, by one small run."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_images(cls.base / "data", {"train": 8, "val": 4, "test": 4})
        cls.other = make_images(cls.base / "other photos", {"test": 5})
        cls.twin = make_images(cls.base / "twin/other photos", {"test": 3})
        cls.run_folder = cls.base / "run"
        flags = ("--data_root", cls.data, "--epoch", 2, "--batch_size", 8, "--no_show")
        cls.flags = ("train.py", *flags, "--ckpt_path", cls.run_folder)
        cls.done = script(*cls.flags, "--also_validate", cls.other, cls.twin)
        assert cls.done.returncode == 0, cls.done.stderr

    def rows(self, folder: Path) -> list[dict[str, str]]:
        with (folder / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    def test_figures_of_each_epoch(self):
        """Those that test.py finds on the folder; two of one name have two names."""
        row = self.rows(self.run_folder)[-1]
        for name, folder in (("also_other_photos", self.other), ("also_other_photos_1", self.twin)):
            column = next(key for key in row if key.startswith(name) and "_accuracy" in key
                          and (name.endswith("_1") == ("_1_" in key)))  # fmt: skip
            asked = ("--ckpt_path", self.run_folder, "--epoch", "last", "--data_root", folder)
            self.assertEqual(script_here("test.py", *asked, "--no_show").returncode, 0)
            found = (self.run_folder / "test.json").read_text()
            self.assertIn(f'"accuracy": {float(row[column])}', found)
        self.assertRegex(self.done.stdout, r"val accuracy [\d.]+%, other_photos\S* [\d.]+%, other_")

    def test_it_decides_nothing(self):
        """The weights, and the best epoch, are those of a run that measures val alone."""
        plain = self.base / "plain"
        done = script_here(*self.flags[:-1], plain)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_same_weights(*(f / "ckpt_epoch_2.pth" for f in (plain, self.run_folder)))
        states = [checkpoint.load(f / "ckpt_epoch_2.pth") for f in (plain, self.run_folder)]
        self.assertEqual(*(state["best_epoch"] for state in states))

    def test_a_resumed_run_goes_on_measuring(self):
        copy = self.base / "resumed"
        asked = ("--resume", self.run_folder, "--epoch", 3, "--ckpt_path", copy, "--no_show")
        done = script_here("train.py", *asked)
        self.assertEqual(done.returncode, 0, done.stderr)
        row = self.rows(copy)[-1]
        self.assertEqual(row["epoch"], "3")
        self.assertEqual(sum("also_" in key and bool(value) for key, value in row.items()), 4)

    def test_table(self):
        """compare.py has a column a folder, of the best epoch."""
        done = script_here("compare.py", self.run_folder, "--save_dir", self.base, "--no_show")
        head, _, row = (line.split(" | ") for line in done.stdout.splitlines()[:3])
        self.assertEqual(head[4:6], ["also other photos", "also other photos 1"])
        self.assertTrue(all(cell.endswith("%") for cell in row[4:6]), row)

    def test_submission(self):
        """Kaggle's tables: the probability of each class; of CIFAR-10's classes, the class."""
        asked = ("test.py", "--ckpt_path", self.run_folder, "--epoch", "last", "--no_show")
        table = self.base / "submission.csv"
        images = self.data / "test/blue"
        done = script_here(*asked, "--image", images, "--submission", table)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with table.open() as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(list(rows[0]), ["id", "blue", "green", "red"])
        self.assertEqual([row["id"] for row in rows], ["000", "001", "002", "003"])
        for row in rows:
            self.assertAlmostEqual(sum(float(row[name]) for name in CLASSES), 1, places=4)
        shares = torch.tensor([0.1, 0.7, 0.2] + [0.0] * 7)
        names = [CIFAR10[k] for k in (3, 1, 0, 2, 4, 5, 6, 7, 8, 9)]
        self.assertEqual(submitted("7", shares, names), {"id": "7", "label": "automobile"})
        self.assert_refused(script_here(*asked, "--submission", table), 2, "--image names")
        missing = self.base / "none/submission.csv"
        done = script_here(*asked, "--image", images, "--submission", missing)
        self.assert_refused(done, 1, f"cannot write {missing}")
        done = script_here(*asked, "--image", images, "--save", "--data_root", self.base)
        self.assert_refused(done, 2, "--image", "no use for --data_root, --save")

    def test_curves(self):
        rows = [
            {"epoch": k, "loss": 1 / k, "accuracy": 0.5, "also_photos_accuracy": k / 4}
            for k in (1, 2)
        ]
        self.assertIn("also photos accuracy", words_of(draw_curves(rows)))

    def test_folders_that_cannot_be(self):
        """Said before anything is trained, or set aside."""
        for words, *wrong in (
            (("train.py", "--task", "style"), "--also_validate is of no use to --task style"),
            (self.flags, "no folder", self.base / "none"),
        ):
            done = script_here(*words, "--also_validate", self.base / "none")
            self.assertNotEqual(done.returncode, 0)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
            self.assertIn(str(wrong[-1]), done.stderr)
        self.assertFalse((self.run_folder / "previous_1").exists())


class WarmupTest(ScriptCase):
    def rates(self, total: int, **settings: object) -> list[float]:
        settings = TrainSettings(lr=0.5, **settings)
        optimizer = make_optimizer(linear().parameters(), settings, "cpu")
        schedule, rates = make_schedule(optimizer, settings, total, 0), []
        for _ in range(total):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    def test_it_rises_then_goes_as_it_would(self):
        rates = self.rates(20, epoch=4, warmup=1)
        self.assertEqual([round(rate, 9) for rate in rates[:6]], [0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
        for schedule in ("cosine", "step"):
            plain = self.rates(20, epoch=4, schedule=schedule)
            warm = self.rates(20, epoch=4, schedule=schedule, warmup=1)
            self.assertEqual(warm[4:], plain[4:])
            self.assertLess(warm[0], plain[0])

    def test_what_it_cannot_mean(self):
        for flags, *words in (
            (("--schedule", "onecycle", "--warmup", 1), "onecycle rises by itself"),
            (
                ("--task", "segmentation", "--schedule", "onecycle", "--warmup", 1),
                "leave out --warmup",
            ),
            (("--momentum", 0.5), "--momentum is of --optim_type sgd"),
            (("--warmup", 11), "--warmup 11 is more than --epoch 10"),
            (("--warmup", "-1"), "a number of at least 0"),
            (("--find_lr", "--overfit_batch"), "leave out --overfit_batch"),
        ):
            self.assert_refused(script_here("train.py", *flags), 2, *words)


class RangeTest(ScriptCase):
    def job(self, scale: float = 1.0) -> SimpleNamespace:
        torch.manual_seed(0)
        images = torch.randn(64, 1, 4, 4)
        labels = (images.mean((1, 2, 3)) > 0).long()
        loader = loader_of(scale * images, labels, batch_size=16)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        return SimpleNamespace(
            objective=ClassificationObjective(), network=model, loaders={"train": loader},
            parameters=list(model.parameters()),
        )  # fmt: skip

    def test_steepest(self):
        """Of a loss that falls around 1e-2 alone, that; of one that rises, none."""
        rates = np.geomspace(1e-6, 10, 100)
        losses = 2 - 1 / (1 + np.exp(-3 * (np.log(rates) - np.log(1e-2))))
        self.assertAlmostEqual(np.log10(range_test.steepest(rates, losses)), -2, delta=0.1)
        self.assertIsNone(range_test.steepest(rates, 4 - losses))
        self.assertIsNone(range_test.steepest(rates[:5], losses[:5]))
        self.assertIsNone(range_test.steepest(rates, np.full(100, np.nan)))

    def test_inputs_ten_times_as_large_want_lower_rates(self):
        """A linear network's gradients grow with its inputs: plain SGD's rate must fall."""
        settings = TrainSettings(optim_type="sgd", momentum=0.0)
        found = []
        for scale in (1, 10):
            rates, losses = range_test.losses_at_rates(self.job(scale), settings, CPU)
            self.assertEqual(len(rates), len(losses))
            found.append(range_test.steepest(rates, losses))
        self.assertLess(found[1], 0.3 * found[0])

    def test_script(self):
        """A curve and a rate to try; no checkpoint, and an earlier run stays."""
        with tempfile.TemporaryDirectory() as base:
            data = make_images(Path(base) / "data", {"train": 12, "val": 2})
            run = Path(base) / "run"
            run.mkdir()
            (run / "ckpt_epoch_1.pth").write_text("an earlier run")
            flags = ("--data_root", data, "--batch_size", 8, "--ckpt_path", run, "--no_show")
            done = script("train.py", *flags, "--find_lr", "--bn")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertRegex(done.stdout, r"try --lr \S+\n$")
            left = sorted(path.name for path in run.iterdir())
            self.assertEqual(left, ["ckpt_epoch_1.pth", "find_lr.jpg"])


class ProgressTest(unittest.TestCase):
    def said(self, steps: int, every: float) -> list[str]:
        """Return what a bar says of steps of 20 ms, with so many seconds between lines."""
        lines: list[str] = []
        with (
            mock.patch.object(console, "LINE_EVERY", every),
            mock.patch.object(console, "say", lines.append),
        ):
            for _ in console.progress(range(steps), label="drawing"):
                time.sleep(0.02)
        return lines

    def test_lines_where_there_is_no_terminal(self):
        """Now and then, whole and without control characters; a short wait says nothing."""
        lines = self.said(30, 0.1)
        self.assertGreater(len(lines), 1)
        self.assertLess(len(lines), 10)
        for line in lines:
            self.assertRegex(line, r"^drawing: \d+ of 30, \d\d:\d\d gone, \S+ left$")
        self.assertEqual(self.said(5, 30.0), [])

    def test_the_log_has_them(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log.txt"
            console.keep_log(path)
            self.addCleanup(console.keep_log, None)
            with mock.patch.object(console, "LINE_EVERY", 0.05), mock.patch("builtins.print"):
                for _ in console.progress(range(20), label="drawing"):
                    time.sleep(0.02)
            self.assertRegex(path.read_text(), r"drawing: \d+ of 20")


if __name__ == "__main__":
    unittest.main()
