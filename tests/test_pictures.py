"""lab/pictures.py: what is drawn is what a picture holds; figures are saved, then shown."""

import io
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from lab import checkpoint
from lab.pictures import (
    Colours,
    Confusion,
    Grid,
    Legend,
    Mark,
    Picture,
    Scatter,
    Tile,
    confusion,
    draw,
    draw_comparison,
    draw_curves,
    publish,
    save_curves,
    sheet,
    shorten,
    show_figures,
)
from networks import Classifier
from tests.support import PROJECT, script_here

ODD_NAMES = ("$a_b$", "back\\slash", r"\$c", "$", "no text \udcff", "tab\tbed", "_hidden")


def setUpModule():
    plt.switch_backend("agg")  # elsewhere a display would open windows
    unittest.addModuleCleanup(plt.close, "all")


def words(figure) -> list[str]:
    """Return the lines of text that a figure shows, as a reader sees them."""
    file = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    return re.findall(r"<text[^>]*>([^<]*)</text>", file.getvalue())


def images(count: int, side: int = 4) -> np.ndarray:
    """Return images of noise, (count, side, side, 3) in [0, 1]."""
    return np.random.default_rng(0).random((count, side, side, 3))


class GridTest(unittest.TestCase):
    def draw(self, *grids, title="title"):
        figure = draw(Picture("name.jpg", title, grids))
        self.addCleanup(plt.close, figure)
        figure.draw_without_rendering()
        return figure, [place.axes[0] for place in figure.subfigs]

    def test_each_image_stands_between_its_texts(self):
        """In the order of the tiles; caption above, note below, a row's label to the left."""
        pixels = images(5)
        tiles = [Tile(image, f"c{i}", f"n{i}") for i, image in enumerate(pixels)]
        _, (axis,) = self.draw(Grid([tiles[:3], tiles[3:]], ["upper", "lower"], title="part"))
        places = {text.get_text(): text.get_position() for text in axis.texts}
        self.assertEqual(len(axis.images), 5)
        for index, (image, shown) in enumerate(zip(pixels, axis.images, strict=True)):
            np.testing.assert_array_equal(shown.get_array(), image)
            left, right, bottom, top = shown.get_extent()
            self.assertEqual((left, bottom), (axis.images[index % 3].get_extent()[0], top + 1.5))
            (above, y), (below, under) = places[f"c{index}"], places[f"n{index}"]
            self.assertEqual({above, below}, {(left + right) / 2})
            self.assertTrue(-0.1 < y - top < 0 < under - bottom < 0.1, (y, top, bottom, under))
            x, middle = places["upper" if index < 3 else "lower"]
            self.assertLess(x, left)
            self.assertAlmostEqual(middle, (top + bottom) / 2)
        self.assertLess(axis.images[1].get_extent()[1], axis.images[2].get_extent()[0])
        self.assertLess(axis.images[0].get_extent()[2], axis.images[3].get_extent()[3])

    def test_columns_stand_above_the_first_row(self):
        tiles = [[Tile(image) for image in images(2)], [Tile(image) for image in images(2)]]
        _, (axis,) = self.draw(Grid(tiles, columns=["one", "two"]))
        for text, column in (("one", 0), ("two", 1)):
            (found,) = [each for each in axis.texts if each.get_text() == text]
            left, right, _, top = axis.images[column].get_extent()
            self.assertAlmostEqual(found.get_position()[0], (left + right) / 2)
            self.assertLess(found.get_position()[1], top)

    def test_values_and_their_bar(self):
        """Values are coloured from `low` to `high`; the bar says of what, and where some exceed."""
        values = [np.full((2, 2), value) for value in (-1.0, 2.0, 9.0)]
        colours = Colours("viridis", 0, 3, "activation")
        figure, (axis,) = self.draw(sheet(values, ["a", "b", "c"], colours=colours))
        for value, shown in zip(values, axis.images, strict=True):
            np.testing.assert_array_equal(shown.get_array(), value)
            self.assertEqual((shown.get_clim(), shown.get_cmap().name), ((0, 3), "viridis"))
        self.assertIn("activation", words(figure))
        for low, high, extend in (
            (-1, 9, "neither"),
            (0, 9, "min"),
            (-1, 3, "max"),
            (0, 3, "both"),
        ):
            colours = Colours("viridis", low, high, "")
            _, (axis,) = self.draw(sheet(values, ["a", "b", "c"], colours=colours))
            self.assertEqual(axis.images[-1].colorbar.extend, extend)

    def test_marks_lie_on_their_pixels(self):
        """The corner of pixel (0, 0) is the image's; a line is cut where the image ends."""
        corners = np.array([[-0.5, -0.5], [3.5, -0.5], [3.5, 3.5]])
        marks = (Mark(corners), Mark(np.array([[1.5, 1.5]]), "cyan"))
        _, (axis,) = self.draw(Grid([[Tile(images(1)[0]), Tile(images(1)[0], marks=marks)]]))
        left, right, bottom, top = axis.images[1].get_extent()
        line, dot = axis.lines
        np.testing.assert_allclose(line.get_xydata(), [[left, top], [right, top], [right, bottom]])
        middle = [[(left + right) / 2, (top + bottom) / 2]]
        np.testing.assert_allclose(dot.get_xydata(), middle)
        self.assertEqual([line.get_color(), dot.get_color()], ["magenta", "cyan"])
        clip = line.get_clip_box().transformed(axis.transData.inverted())
        np.testing.assert_allclose(clip.extents[[0, 2]], [left, right])

    def test_wide_images_keep_their_shape(self):
        """All of one height; a column is as wide as its widest."""
        wide = np.zeros((10, 25, 3), np.uint8)
        _, (axis,) = self.draw(Grid([[Tile(wide), Tile(images(1)[0])]], side=2))
        (a, b, *_), (c, d, *_) = (shown.get_extent() for shown in axis.images)
        self.assertEqual((b - a, d - c), (5, 2))
        self.assertGreater(c, b)

    def test_nothing_is_clipped_and_nothing_overlaps(self):
        """Long names are cut to their image's width; a long title widens the picture."""
        names = ["09_priority_crossing\nread as 10_priority_road", "n" * 300, "short"]
        grid = sheet(images(3), names, 3)
        other = Grid([[Tile(images(1)[0], "caption", "note")]], ["r" * 300], title="a part")
        figure, axes = self.draw(grid, other, title="a title as long as this " * 3)
        whole = figure.bbox.padded(1)
        for text in [figure._suptitle, *(text for axis in axes for text in axis.texts)]:
            box = text.get_window_extent()
            self.assertTrue(whole.contains(*box.p0) and whole.contains(*box.p1), text.get_text())
        boxes = [text.get_window_extent() for text in axes[0].texts if text.get_text()]
        for one, other in zip(boxes, boxes[1:], strict=False):
            self.assertFalse(one.overlaps(other))

    def test_parts_stand_one_below_the_other(self):
        _, (upper, lower) = self.draw(sheet(images(2), "ab"), sheet(images(20), "x" * 20))
        self.assertGreater(upper.get_window_extent().y0, lower.get_window_extent().y1 - 1)
        # An inch of the upper part is as long as one of the lower.
        scales = [axis.transData.transform([[0, 0], [1, 0]])[:, 0] for axis in (upper, lower)]
        np.testing.assert_allclose(*map(np.diff, scales), rtol=0.05)

    def test_a_sheet_is_filled_row_by_row(self):
        pixels = images(7)
        grid = sheet(pixels, "abcdefg", 3, title="seven")
        self.assertEqual([len(row) for row in grid.tiles], [3, 3, 1])
        self.assertEqual("".join(tile.caption for row in grid.tiles for tile in row), "abcdefg")
        for tile, image in zip([t for row in grid.tiles for t in row], pixels, strict=True):
            self.assertIs(tile.image.base, pixels)
            np.testing.assert_array_equal(tile.image, image)


class NameTest(unittest.TestCase):
    """What names may hold: `$`, `\\`, bytes that are no UTF-8, control characters."""

    def assert_shown(self, figure):
        self.addCleanup(plt.close, figure)
        shown = words(figure)
        for name in ODD_NAMES:
            self.assertIn(name.replace("\udcff", "\ufffd").replace("\t", "\ufffd"), shown)

    def test_in_every_place(self):
        """Each is drawn as it is: neither mathematics, nor hidden, nor an error."""
        count = len(ODD_NAMES)
        tiles = [
            [Tile(image, note=name)] for image, name in zip(images(count), ODD_NAMES, strict=True)
        ]
        points = np.arange(2.0 * count).reshape(count, 2)
        history = [{"epoch": 1, "loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5}]
        for part in (
            sheet(images(count), ODD_NAMES),
            Grid(tiles),
            Grid(tiles, rows=ODD_NAMES),
            Grid(tiles[:1], title="\n".join(ODD_NAMES)),
            Confusion(np.eye(count, dtype=int), ODD_NAMES),
            Legend(dict.fromkeys(ODD_NAMES, (1, 2, 3))),
        ):
            self.assert_shown(draw(Picture("a.jpg", "title", (part,))))
        self.assert_shown(draw(Picture("a.jpg", "\n".join(ODD_NAMES), (Grid(tiles),))))
        self.assert_shown(draw_comparison(dict.fromkeys(ODD_NAMES, history)))
        numbered = [f"{label}_{name}" for label, name in enumerate(ODD_NAMES)]
        figure = draw(Picture("a.jpg", "", (Scatter(points, np.arange(count), numbered, "xy"),)))
        self.addCleanup(plt.close, figure)
        self.assertIn("0_$a_b$", words(figure))

    def test_shorten(self):
        self.assertEqual(shorten("n" * 24), "n" * 24)
        self.assertEqual(shorten("n" * 25), "n" * 23 + "…")
        self.assertEqual(shorten("abcdef", 4), "abc…")


class ChartTest(unittest.TestCase):
    def test_confusion(self):
        """Counts stand where the row is the true class and the column the predicted one."""
        counts = np.array([[5, 3, 0], [0, 8, 0], [1, 0, 3]])
        picture = confusion(counts, ["a", "b", "c"])
        figure = draw(picture)
        self.addCleanup(plt.close, figure)
        (axis,) = figure.subfigs[0].axes
        found = np.zeros_like(counts)
        for text in axis.texts:
            column, row = text.get_position()
            found[row, column] = text.get_text()
        np.testing.assert_array_equal(found, counts)
        np.testing.assert_allclose(axis.images[0].get_array(), counts / [[8], [8], [4]])
        self.assertEqual((axis.get_xlabel(), axis.get_ylabel()), ("predicted class", "true class"))
        for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
            self.assertEqual([label.get_text() for label in labels], ["a", "b", "c"])
        self.assertEqual(picture.title, "16 of 20 images read correctly")
        self.assertEqual(axis.get_ylim(), (2.5, -0.5))  # the first class on top

    def test_legend(self):
        """A patch of its colour for each name, in rows, all of it on the paper."""
        colours = {f"class {k}": (10 * k, 0, 255 - 10 * k) for k in range(13)}
        part = Legend(colours)
        figure = draw(Picture("a.jpg", "title", (part,)))
        self.addCleanup(plt.close, figure)
        figure.canvas.draw()
        (legend,) = figure.subfigs[0].legends
        shown = {
            text.get_text(): tuple(round(255 * level) for level in patch.get_facecolor()[:3])
            for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
        }
        self.assertEqual(shown, colours)
        box = legend.get_window_extent()
        width, height = figure.bbox.size
        self.assertTrue(0 <= box.x0 <= box.x1 <= width and 0 <= box.y0 <= box.y1 <= height)
        self.assertEqual(part.size[1], Legend(dict(list(colours.items())[:6])).size[1] + 2 * 0.22)

    def test_scatter(self):
        """Each class's points have its colour and its name; its number is in their middle."""
        rng = np.random.default_rng(0)
        points, labels = rng.random((40, 2)), np.repeat([0, 1, 11], [20, 10, 10])
        names = [f"{label}_name" for label in range(12)]
        scatter = Scatter(points, labels, names, ("across", "up"))
        figure = draw(Picture("tsne.jpg", "title", (scatter,)))
        self.addCleanup(plt.close, figure)
        (axis,) = figure.subfigs[0].axes
        self.assertEqual((axis.get_xlabel(), axis.get_ylabel()), ("across", "up"))
        (legend,) = figure.subfigs[0].legends
        self.assertEqual([text.get_text() for text in legend.texts], names)
        styles = set()
        for label, (drawn, handle) in enumerate(
            zip(axis.collections, legend.legend_handles, strict=True)
        ):
            np.testing.assert_array_equal(drawn.get_offsets(), points[labels == label])
            self.assertEqual(drawn.get_label(), names[label])
            colour = to_hex(drawn.get_facecolor()[0])
            self.assertEqual(to_hex(handle.get_facecolor()[0]), colour)
            styles.add((colour, drawn.get_paths()[0].vertices.tobytes()))
        self.assertEqual(len(styles), 12)
        for label, text in zip((0, 1, 11), axis.texts, strict=True):
            self.assertEqual(text.get_text(), str(label))
            np.testing.assert_allclose(text.xy, np.median(points[labels == label], 0))


class CurveTest(unittest.TestCase):
    def draw(self, history, **options):
        figure = draw_curves(history, **options)
        self.addCleanup(plt.close, figure)
        lines = {line.get_label(): line for axis in figure.axes for line in axis.lines}
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
        figure, curves = self.draw(history)
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
        self.assertEqual(losses.get_title(), "best validation accuracy: 75.00 %")
        self.assertEqual(losses.get_ylim()[0], 0)
        for axis in figure.axes:
            training, validation = axis.lines
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
        """By its name; a figure that leaves [0, 1] is drawn as it is. NaN is never the best."""
        history = [
            {"epoch": 1, "loss": -1.0, "mean_error": 7.0, "val_mean_error": 20.25},
            {"epoch": 2, "loss": float("nan"), "mean_error": 8.0, "val_mean_error": float("nan")},
        ]
        figure, curves = self.draw(history, ranks_by="mean_error")
        self.assertEqual(curves["training mean error"], [[1, 7], [2, 8]])
        self.assertEqual(curves["validation mean error"][0], [1, 20.25])
        self.assertEqual(figure.axes[1].get_ylabel(), "mean error")
        self.assertEqual(figure.axes[0].get_title(), "best validation mean error: 20.25")
        self.assertLess(figure.axes[0].get_ylim()[0], -1)

    def test_saved_without_a_window(self):
        before = plt.get_fignums()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "new" / "loss_and_acc.jpg"
            save_curves(path, [{"epoch": 1, "loss": 2, "val_AP": 0.5}], "AP")
            self.assertTrue(path.is_file())
        self.assertEqual(plt.get_fignums(), before)

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


class ImportTest(unittest.TestCase):
    def test_training_needs_no_matplotlib_until_it_draws(self):
        code = (
            "import sys, lab.pictures, lab.engine, lab.run\n"
            "assert not [name for name in sys.modules if name.startswith('matplotlib')]"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class WindowTest(unittest.TestCase):
    """`plt.show` blocks until a window is closed: nothing may be left to do by then."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)
        plt.close("all")
        self.addCleanup(plt.close, "all")

    def with_display(self):
        """Give figures a canvas that belongs to a window."""
        patch = mock.patch.object(FigureCanvasAgg, "required_interactive_framework", "a toolkit")
        patch.start()
        self.addCleanup(patch.stop)

    def publish_two(self):
        for name in ("one.jpg", "two.jpg"):
            with mock.patch("lab.pictures.say") as say:
                publish(draw(Picture(name, "title", (sheet(images(1), "a"),))), self.folder / name)
            say.assert_called_once_with(f"Saved {self.folder / name}")
            self.assertTrue((self.folder / name).is_file())

    def test_windows_come_last(self):
        """Saving opens none; `show_figures` opens all at once."""
        self.with_display()
        with mock.patch.object(plt, "show") as show:
            self.publish_two()
            show.assert_not_called()
            show_figures()
        show.assert_called_once_with()
        self.assertEqual(len(plt.get_fignums()), 2)

    def test_without_a_display(self):
        with mock.patch.object(plt, "show") as show:
            self.publish_two()
            self.assertEqual(plt.get_fignums(), [])
            show_figures()
        show.assert_not_called()

    def test_a_script_says_all_before_it_shows(self):
        """--no_show leaves the window out, whether there is a display or not."""
        self.with_display()
        flags = ("--type", "class", "--ckpt_path", self.folder, "--save_dir", self.folder / "out")
        flags += ("--steps", 1)
        model = Classifier(3, 2)
        state = {"model_state": model.state_dict(), "configs": vars(model.config)}
        checkpoint.save(self.folder / "ckpt_epoch_10.pth", state)
        saved = [self.folder / "out" / "class" / name for name in ("class.jpg", "course.jpg")]
        with mock.patch.object(plt, "show", lambda: print("window")):
            done = script_here("visualize.py", *flags)
            self.assertEqual(
                done.stdout.splitlines(), [f"Saved {path}" for path in saved] + ["window"]
            )
            done = script_here("visualize.py", *flags, "--no_show")
            self.assertEqual(done.stdout.splitlines(), [f"Saved {path}" for path in saved])


if __name__ == "__main__":
    unittest.main()
