"""lab/curves.py: what is drawn of a training, and of several."""

import unittest

import matplotlib.pyplot as plt

from lab.curves import draw_comparison, draw_curves
from tests.support import ODD_NAMES, assert_names_shown


def setUpModule():
    plt.switch_backend("agg")  # elsewhere a display would open windows
    unittest.addModuleCleanup(plt.close, "all")


class CurveTest(unittest.TestCase):
    def draw(self, history, **options):
        figure = draw_curves(history, **options)
        self.addCleanup(plt.close, figure)
        every = [line for axis in figure.axes for line in axis.lines]
        lines = {line.get_label(): line for line in every if line.get_label()[0] != "_"}
        curves = {label: line.get_xydata().tolist() for label, line in lines.items()}
        self.assertEqual([text.get_text() for text in figure.legends[0].texts], list(lines))
        return figure, curves

    def test_of_classification(self):
        """Both losses on the left, both accuracies in % on the right, each at its epochs."""
        history = [
            {"epoch": 1, "loss": 2.0, "accuracy": 0.3, "val_loss": 1.5, "val_accuracy": 0.4},
            {"epoch": 2, "loss": 1.0, "accuracy": 0.6, "val_loss": None, "val_accuracy": None},
            {"epoch": 3, "loss": 0.5, "accuracy": 0.9, "val_loss": 0.9, "val_accuracy": 0.75},
        ]
        figure, curves = self.draw(history, best=1)
        expected = {
            "training loss": [[1, 2], [2, 1], [3, 0.5]],
            "validation loss": [[1, 1.5], [3, 0.9]],
            "training accuracy": [[1, 30], [2, 60], [3, 90]],
            "validation accuracy": [[1, 40], [3, 75]],
        }
        self.assertEqual(curves, expected)
        losses, accuracies = figure.axes
        self.assertEqual([line.get_label() for line in losses.lines], list(expected)[:2])
        labels = (losses.get_xlabel(), losses.get_ylabel(), accuracies.get_ylabel())
        self.assertEqual(labels, ("epoch", "loss", "accuracy (%)"))
        # Best is what is called so everywhere, not the highest figure.
        title = "best epoch (\N{BLACK STAR}) 1: validation accuracy 40.00 %"
        self.assertEqual(losses.get_title(), title)
        star = accuracies.lines[2]
        self.assertEqual((star.get_marker(), star.get_xydata().tolist()), ("*", [[1, 40]]))
        self.assertEqual(losses.get_ylim()[0], 0)
        for axis in figure.axes:
            training, validation = axis.lines[:2]
            self.assertEqual((training.get_linestyle(), validation.get_linestyle()), ("-", "--"))
            self.assertEqual(training.get_color(), validation.get_color())
        self.assertNotEqual(losses.lines[0].get_color(), accuracies.lines[0].get_color())

    def test_of_old_runs(self):
        """Without training accuracy; without any validation."""
        _, curves = self.draw([{"epoch": 1, "loss": 2, "val_loss": 3, "val_accuracy": 0.5}])
        self.assertEqual(set(curves), {"training loss", "validation loss", "validation accuracy"})
        for row in ({}, {"val_loss": None, "val_accuracy": None}):
            figure, curves = self.draw([{"epoch": 1, "loss": 2} | row])
            self.assertEqual(curves, {"training loss": [[1, 2]]})
            self.assertEqual((len(figure.axes), figure.axes[0].get_title()), (1, ""))

    def test_of_other_figures(self):
        """By its name; a figure that leaves [0, 1] is drawn as it is."""
        history = [
            {"epoch": 1, "loss": -1.0, "mean_error": 7.0, "val_mean_error": 20.25},
            {"epoch": 2, "loss": float("nan"), "mean_error": 8.0, "val_mean_error": float("nan")},
        ]
        figure, curves = self.draw(history, ranks_by="mean_error", best=1)
        self.assertEqual(curves["training mean error"], [[1, 7], [2, 8]])
        self.assertEqual(curves["validation mean error"][0], [1, 20.25])
        self.assertEqual(figure.axes[1].get_ylabel(), "mean error")
        self.assertEqual(
            figure.axes[0].get_title(), "best epoch (\N{BLACK STAR}) 1: validation mean error 20.25"
        )
        self.assertLess(figure.axes[0].get_ylim()[0], -1)

    def test_names_of_runs(self):
        history = [{"epoch": 1, "loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5}]
        figure = draw_comparison(dict.fromkeys(ODD_NAMES, history))
        self.addCleanup(plt.close, figure)
        assert_names_shown(self, figure)

    def test_the_axis_of_shares(self):
        """By the logarithm of what they lack; plain where they are alike: numbered either way."""
        for shares, scale in (
            ((0.5, 0.9, 0.99), "symlog"),
            ((0, 0.08), "linear"),
            ((0,), "linear"),
        ):
            rows = [{"epoch": 1, "loss": 1.0, "val_accuracy": share} for share in shares]
            figure = draw_comparison({str(n): [row] for n, row in enumerate(rows)})
            self.addCleanup(plt.close, figure)
            axis, (low, high) = figure.axes[1], sorted(figure.axes[1].get_ylim())
            self.assertEqual(axis.get_yscale(), scale)
            write = axis.yaxis.get_major_formatter()
            shown = [write(place) for place in axis.get_yticks() if low <= place <= high]
            numbers = [float(text) for text in shown if text]
            self.assertGreater(len(numbers), 2)
            self.assertTrue(all(0 <= number <= 100 for number in numbers), numbers)

    def test_comparison_of_other_figures(self):
        """Not a share: a plain axis. Losses below 0: no logarithm. No validation: no squeeze."""
        runs = {
            "a": [{"epoch": e, "loss": -e, "val_loss": 1.0, "val_psnr": 20.0 + e} for e in (1, 2)],
            "b": [{"epoch": 1, "loss": 1.0}],
        }
        figure = draw_comparison(runs, "psnr")
        self.addCleanup(plt.close, figure)
        figure.draw_without_rendering()
        losses, axis = figure.axes
        self.assertEqual(axis.lines[0].get_xydata().tolist(), [[1, 21], [2, 22]])
        self.assertEqual((losses.get_yscale(), axis.get_yscale()), ("linear", "linear"))
        self.assertEqual((losses.get_ylabel(), axis.get_ylabel()), ("loss", "validation psnr"))
        self.assertGreater(axis.get_position().width, 0.3)
        figure = draw_comparison({"a": [{"epoch": 1, "loss": 1, "val_AP": 0.25}]}, "AP")
        self.addCleanup(plt.close, figure)
        self.assertEqual(figure.axes[1].lines[0].get_xydata().tolist(), [[1, 75]])
        self.assertEqual(figure.axes[1].get_ylabel(), "validation AP (%)")


if __name__ == "__main__":
    unittest.main()
