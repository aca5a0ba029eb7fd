"""compare.py: its table against metrics.csv, test.py and closed forms; its picture's curves."""

import csv
import io
import re
import shutil
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_hex
from PIL import Image

import compare
from lab import checkpoint, engine, image_folder
from lab.console import LabError
from lab.curves import draw_comparison
from tasks import comparing
from tests.support import make_images, script

# Of the assignment's network with three classes, weights and biases layer by layer.
PARAMETERS = sum(
    outputs * (inputs + 1)
    for outputs, inputs in (
        (32, 3 * 25), (64, 32 * 25), (64, 64 * 9), (128, 64 * 9), (128, 128 * 9),
        (256, 128 * 16), (3, 256),
    )
)  # fmt: skip
BN_PARAMETERS = 2 * (32 + 64 + 64 + 128 + 128 + 256)  # a scale and a shift a channel


class CompareTest(unittest.TestCase):
    """Two trained runs, shared by the tests; each changes copies of them."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_images(cls.base / "data", {"train": 12, "val": 7, "test": 5})
        for name, *flags in (("plain",), ("bn", "--bn")):
            done = script(
                "train.py", "--data_root", cls.data, "--ckpt_path", cls.base / name, *flags,
                "--epoch", "2", "--batch_size", "8",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

    def setUp(self):
        patch = mock.patch.object(image_folder, "CACHE_FOLDER", self.base / "cache")
        patch.start()
        self.addCleanup(patch.stop)

    def compare(self, *arguments):
        """Run compare.main; return the table's cells a run, and what else was said."""
        printed, said = io.StringIO(), io.StringIO()
        flags = ["compare.py", *map(str, arguments), "--save_dir", str(self.base / "pictures")]
        argv = mock.patch("sys.argv", flags)
        with argv, redirect_stdout(printed), redirect_stderr(said):
            compare.main()
        return self.cells(printed.getvalue()), said.getvalue()

    def cells(self, text):
        """Parse a Markdown table; nothing may stand beside it."""
        header, rule, *rows = text.splitlines()
        columns = "run | best epoch | validation accuracy | test accuracy | parameters | seconds"
        self.assertEqual(header, f"| {columns} |")
        self.assertRegex(rule, r"^\|---\|(---:\|){5}$")
        table = [re.fullmatch(r"\| (.*) \|", row)[1].split(" | ") for row in rows]
        return {name: rest for name, *rest in table}

    def copy(self, name, change=lambda state, epoch: None):
        """Return a copy of the batch norm's run, its checkpoints changed in place by `change`."""
        folder = Path(shutil.copytree(self.base / "bn", self.base / name))
        self.addCleanup(shutil.rmtree, folder)
        for epoch, path in checkpoint.epochs(folder).items():
            state = checkpoint.load(path)
            change(state, epoch)
            checkpoint.save(path, state)
        return folder

    def test_table_and_picture(self):
        """Through the script: the figures are those of metrics.csv, of test.py and of algebra."""
        runs = [self.base / "plain", self.base / "bn"]
        done = script("compare.py", *runs, cwd=self.base)
        self.assertEqual(done.returncode, 0, done.stderr)
        table = self.cells(done.stdout)
        self.assertEqual(list(table), ["plain", "bn"])
        for folder, parameters in zip(runs, (PARAMETERS, PARAMETERS + BN_PARAMETERS), strict=True):
            best, validation, tested, counted, seconds = table[folder.name]
            with (folder / "metrics.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            ranks = [(float(row["val_accuracy"]), -float(row["val_loss"])) for row in rows]
            self.assertEqual(best, f"{ranks.index(max(ranks)) + 1} of 2")
            self.assertEqual(validation, f"{max(ranks)[0]:.2%}")
            self.assertEqual(counted, f"{parameters:,}")
            self.assertEqual(seconds, f"{sum(float(row['seconds']) for row in rows):,.0f}")
        printed = script("test.py", "--ckpt_path", folder, "--epoch", "best").stdout
        self.assertIn(f"accuracy on the test set: {tested} ", printed)
        self.assertIn("Saved visualized/compare.jpg", done.stderr)
        with Image.open(self.base / "visualized" / "compare.jpg") as picture:
            self.assertEqual(picture.format, "JPEG")
            self.assertGreater(picture.width, 1.5 * picture.height)

    def test_the_best_epoch_is_tested(self):
        """Not the last: the first one, best by the history, says blue to all, the last red."""
        data = Path(shutil.copytree(self.data, self.base / "less_red"))
        self.addCleanup(shutil.rmtree, data)
        for path in sorted((data / "test" / "red").iterdir())[:3]:
            path.unlink()

        def change(state, epoch):
            for row, accuracy in zip(state["history"], (0.75, 0.5), strict=False):
                row["val_accuracy"], row["seconds"] = accuracy, 1000.4
            bias = (1.0, 0.0, 0.0) if epoch == 1 else (0.0, 0.0, 1.0)
            state["model_state"]["fc_net.4.weight"].zero_()
            state["model_state"]["fc_net.4.bias"].copy_(torch.tensor(bias))

        table, _ = self.compare(self.copy("first", change), "--data_root", data)
        count = f"{PARAMETERS + BN_PARAMETERS:,}"
        self.assertEqual(table, {"first": ["1 of 2", "75.00%", "41.67%", count, "2,001"]})

    def test_data_that_are_gone(self):
        """A dash, and a line that says why; the other runs keep their figures."""
        gone = self.base / "gone"
        folder = self.copy("orphan", lambda state, _: state.update(data_root=str(gone)))
        table, said = self.compare(self.base / "plain", folder, self.base / "bn")
        whole, _ = self.compare(self.base / "plain", folder, self.base / "bn", "--data_root",
                                self.data)  # fmt: skip
        self.assertEqual(list(table), ["plain", "orphan", "bn"])
        self.assertEqual(table["orphan"][2], "–")
        self.assertIn(f"{folder} is not tested: no data folder {gone}", said)
        self.assertEqual(whole["orphan"], whole["bn"])
        self.assertEqual(table | {"orphan": whole["orphan"]}, whole)

    def test_data_of_other_classes(self):
        """--data_root with classes that a network does not know: a dash, and what differs."""
        images = Path(shutil.copytree(self.data, self.base / "other"))
        self.addCleanup(shutil.rmtree, images)
        (images / "test" / "red").rename(images / "test" / "pink")
        (images / "train" / "red").rename(images / "train" / "pink")
        table, said = self.compare(self.base / "plain", "--data_root", images)
        self.assertEqual(table["plain"][2], "–")
        self.assertIn("lacks red and adds pink", said)

    def test_epochs_without_validation(self):
        """No best epoch: dashes. The best epoch's file gone: a dash for its test alone."""

        def change(state, epoch):
            state["best_epoch"] = None
            for row in state["history"]:
                row["val_loss"] = row["val_accuracy"] = None

        def change_first(state, epoch):
            state["best_epoch"] = 1
            state["history"][0]["val_accuracy"] = 0.99

        blind = self.copy("blind", change)
        cut = self.copy("cut", change_first)
        (cut / "ckpt_epoch_1.pth").unlink()
        table, said = self.compare(blind, cut)
        self.assertEqual(table["blind"][:3], ["– of 2", "–", "–"])
        self.assertEqual(table["cut"][:3], ["1 of 2", "99.00%", "–"])
        self.assertIn("blind is not tested: no epoch was validated", said)
        self.assertIn("cut is not tested: no checkpoint of the best epoch, 1, in", said)

    def test_what_is_no_run(self):
        """A line each, and the others' table: no folder, and one that, as the scaffold's, has no
        history; without any other, an error."""
        table, said = self.compare(self.base / "bn", self.base / "nothing")
        self.assertEqual(list(table), ["bn"])
        self.assertRegex(said, "nothing is left out: no checkpoints in .*nothing")
        with self.assertRaisesRegex(LabError, "none of the runs"), redirect_stderr(io.StringIO()):
            self.compare(self.base / "nothing")

        def change(state, epoch):
            kept = ("model_state", "optimizer_state", "configs")
            for key in state.keys() - set(kept):
                del state[key]

        scaffold = self.copy("scaffold", change)
        table, said = self.compare(self.base / "bn", scaffold)
        self.assertEqual(list(table), ["bn"])
        self.assertRegex(said, r"scaffold is left out: it holds no history[^\n]*\n")

    def test_a_resumed_run_of_the_scaffold(self):
        """Its history begins where it was resumed: the best is told of all its epochs."""

        def change(state, epoch):
            state["history"] = [row | {"epoch": row["epoch"] + 8} for row in state["history"]]
            state["epoch"] += 8
            state["best_epoch"] += 8

        folder = self.copy("resumed", change)
        for epoch in (2, 1):
            (folder / f"ckpt_epoch_{epoch}.pth").rename(folder / f"ckpt_epoch_{epoch + 8}.pth")
        table, _ = self.compare(folder)
        self.assertRegex(table["resumed"][0], r"^(9|10) of 10$")
        self.assertNotEqual(table["resumed"][2], "–")

    def test_computes_as_the_run_did(self):
        """In the precision of the run, unless told otherwise."""
        kinds = {"bf16": torch.bfloat16, "fp32": None}
        for own in kinds:
            folder = self.copy(
                own, lambda state, _, own=own: state["settings"].update(precision=own)
            )
            for flags in ((), ("--precision", "bf16"), ("--precision", "fp32")):
                figures = {"accuracy": 1.0}
                with mock.patch.object(engine, "evaluate", return_value=figures) as evaluate:
                    self.compare(folder, *flags)
                expected = kinds[flags[1] if flags else own]
                self.assertEqual(evaluate.call_args.args[3].autocast_dtype, expected)

    def test_names(self):
        """The shortest end of a path that no other shares; a folder named twice counts once."""
        for given, names in (
            (["a/bn", "a/stn"], ["bn", "stn"]),
            (["a/bn", "b/bn", "b/stn"], ["a/bn", "b/bn", "stn"]),
            (["x/a/bn", "y/a/bn", "bn"], ["x/a/bn", "y/a/bn", f"{Path.cwd().name}/bn"]),
            (["bn", "bn/", "../" + Path.cwd().name + "/bn"], ["bn"]),
            (["/bn", "/a/bn"], ["/bn", "a/bn"]),
        ):
            self.assertEqual(list(comparing.short_names([Path(path) for path in given])), names)
        table, _ = self.compare(self.base / "bn", self.base / "bn")
        self.assertEqual(list(table), ["bn"])

    def test_patterns(self):
        """As PowerShell hands them on; a folder of such a name is meant itself."""
        table, _ = self.compare(self.base / "[bp]*n")
        self.assertEqual(list(table), ["bn", "plain"])
        table, _ = self.compare(self.copy("[bp]n"))
        self.assertEqual(list(table), ["[bp]n"])


class PictureTest(unittest.TestCase):
    def history(self, accuracies):
        return [
            {
                "epoch": epoch,
                "loss": 1 / epoch,
                "val_loss": None if accuracy is None else 2 / epoch,
                "val_accuracy": accuracy,
            }
            for epoch, accuracy in enumerate(accuracies, 1)
        ]

    def draw(self, histories):
        figure = draw_comparison(histories)
        self.addCleanup(plt.close, figure)
        figure.draw_without_rendering()
        return figure

    def test_curves(self):
        """Each run's losses and accuracies, of its own length, without epochs not validated."""
        runs = {"a": [0.5, None, 0.9], "b": [0.8], "c": [None], "d": [0.3] * 5, "e": [0.2, 1.0]}
        figure = self.draw({name: self.history(values) for name, values in runs.items()})
        losses, accuracies = figure.axes
        colours = set()
        for index, values in enumerate(runs.values()):
            training, validation = losses.lines[2 * index : 2 * index + 2]
            curve = accuracies.lines[index]
            epochs = np.arange(1, len(values) + 1)
            validated = [e for e, value in zip(epochs, values, strict=True) if value is not None]
            np.testing.assert_allclose(training.get_xydata(), np.c_[epochs, 1 / epochs])
            self.assertEqual(list(validation.get_xdata()), validated)
            self.assertEqual(list(curve.get_xdata()), validated)
            expected = [100 * (1 - value) for value in values if value is not None]
            np.testing.assert_allclose(curve.get_ydata(), expected)
            self.assertEqual({to_hex(line.get_color()) for line in (training, validation, curve)},
                             {to_hex(curve.get_color())})  # fmt: skip
            colours.add(to_hex(curve.get_color()))
        self.assertEqual(len(colours), len(runs))

    def test_nothing_but_losses(self):
        """Of runs that nothing measures, or that were not validated: no axis without a point."""
        rows = [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.0}]
        for ranks_by, history in (("", rows), ("accuracy", self.history([None, None]))):
            figure = draw_comparison({"a": history, "b": history}, ranks_by)
            self.addCleanup(plt.close, figure)
            figure.draw_without_rendering()
            (axis,) = figure.axes
            self.assertEqual(axis.get_ylabel().split()[-1], "loss")
            self.assertIsNone(axis.get_legend())  # of training and validation
            self.assertEqual([text.get_text() for text in figure.legends[0].texts], ["a", "b"])
            colours = [line.get_color() for line in figure.legends[0].get_lines()]
            self.assertEqual(colours, ["C0", "C1"])

    def test_axis(self):
        """Better is higher, ticks are accuracies, and all points lie within, 100 % included."""
        figure = self.draw({"a": self.history([0.1, 0.9, 0.99, 1.0])})
        axis = figure.axes[1]
        low, high = axis.get_ylim()
        self.assertGreaterEqual(low, 90)
        self.assertEqual(high, 0)
        heights = [axis.transData.transform((1, error))[1] for error in (90, 10, 1, 0)]
        self.assertEqual(heights, sorted(heights))
        self.assertAlmostEqual(heights[1] - heights[0], (heights[2] - heights[1]) * np.log10(9))
        ticks = {label.get_text(): label.get_position()[1] for label in axis.get_yticklabels()}
        self.assertEqual([ticks[name] for name in ("50", "90", "99", "100")], [50, 10, 1, 0])

    def test_names_as_they_are(self):
        """Neither mathematics nor hidden: each run's name is in the legend as it was given."""
        figure = self.draw({name: self.history([0.5]) for name in ("$a_b$", "_b", "c$")})
        texts = [text.get_text().replace(r"\$", "$") for text in figure.legends[0].get_texts()]
        self.assertEqual(texts, ["$a_b$", "_b", "c$"])
        self.assertTrue(all(text.get_window_extent().width for text in figure.legends[0].texts))
