"""lab/drawing.py: what is drawn is what a picture holds; figures are saved, then shown."""

import io
import math
import subprocess
import sys
import tempfile
import unittest
import warnings
from contextlib import redirect_stdout
from itertools import combinations
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.font_manager import FontProperties, findfont, get_font
from PIL import Image

from lab import checkpoint, drawing
from lab.drawing import draw, draw_part, publish, save_closed, save_figure, show_figures
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
    frame,
    sheet,
)
from networks import Classifier
from tests.support import (
    ODD_NAMES,
    PROJECT,
    assert_names_shown,
    environment,
    script_here,
    words_of,
)


def setUpModule():
    plt.switch_backend("agg")  # elsewhere a display would open windows
    unittest.addModuleCleanup(plt.close, "all")


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

    def test_no_label_stands_on_another(self):
        """Of boxes that crowd together; one alone has its label above it."""
        near = [(10 + 3 * k, 20 + k % 2, 14 + 3 * k, 26) for k in range(6)]
        marks = [frame(box, "cyan", f"a long name {k}") for k, box in enumerate(near)]
        marks += [frame((x, 40, x + 3, 45), "cyan", "限速标志") for x in (30, 35)]  # wide letters
        tile = Tile(np.zeros((60, 60, 3)), marks=(*marks, frame((5, 50, 9, 55), "red", "alone")))
        _, (axis,) = self.draw(Grid([[tile]], side=3))
        labels = [text for text in axis.texts if text.get_text()]
        boxes = [label.get_window_extent() for label in labels]
        self.assertEqual(len(boxes), 9)
        for first, second in combinations(boxes, 2):
            self.assertFalse(first.overlaps(second))
        self.assertAlmostEqual(
            labels[-1].get_position()[1] + 0.02, axis.lines[-1].get_ydata().min()
        )

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
        self.assertIn("activation", words_of(figure))
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

    def test_lines_and_panoramas(self):
        """Their places are bounded; in the middle they keep their shape, and marks their pixels."""
        line, column, panorama = (np.zeros((h, w, 3), np.uint8) for h, w in
                                  ((7, 3000), (3000, 7), (100, 600)))  # fmt: skip
        marks = (Mark(np.array([[-0.5, -0.5], [2999.5, 6.5]])),)
        tiles = [Tile(line, "a line", marks=marks), Tile(column), Tile(panorama)]
        figure, (axis,) = self.draw(Grid([tiles], side=2))
        spans = [np.diff(np.reshape(shown.get_extent(), (2, 2)))[:, 0] for shown in axis.images]
        for (width, height), expected in zip(
            spans, ((12, 12 * 7 / 3000), (2 * 7 / 3000, 2), (12, 2)), strict=True
        ):
            np.testing.assert_allclose((width, -height), expected)
        middles = [np.mean(np.reshape(shown.get_extent(), (2, 2)), 1)[1] for shown in axis.images]
        np.testing.assert_allclose(middles, middles[2])
        left, right, bottom, top = axis.images[0].get_extent()
        np.testing.assert_allclose(axis.lines[0].get_xydata(), [[left, top], [right, bottom]])
        self.assertLess(figure.get_size_inches()[0], 26)

    def test_large_figures_are_drawn_coarser(self):
        """No side longer than JPEG can hold, no more pixels than memory can."""
        figure = draw(Picture("a.jpg", "title", (sheet(images(4), "abcd"),)))
        sizes = {}
        with tempfile.TemporaryDirectory() as folder:
            for bound, most in (("dpi", 150), ("LONGEST_SIDE", 500), ("MOST_PIXELS", 90_000)):
                with mock.patch.object(drawing, bound, most, create=True):
                    save_figure(figure, Path(folder) / "a.jpg")
                with Image.open(Path(folder) / "a.jpg") as image:
                    sizes[bound] = image.size
        plt.close(figure)
        self.assertAlmostEqual(max(sizes["LONGEST_SIDE"]), 500, delta=25)
        self.assertAlmostEqual(math.prod(sizes["MOST_PIXELS"]), 90_000, delta=9000)
        self.assertGreater(max(sizes["dpi"]), 900)
        self.assertLess(drawing.LONGEST_SIDE, 65_500)

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


class PartTest(unittest.TestCase):
    def test_a_part_of_a_tasks_own(self):
        """Drawn as its task says, into a place of its size; where none does, that is said."""

        class Own:
            size = (3.0, 2.0)

        picture = Picture("a.jpg", "title", (Own(), Legend({"a": (1, 2, 3)})))
        with self.assertRaisesRegex(TypeError, "how a Own is drawn"):
            draw(picture)
        drawn = []
        draw_part.register(Own, lambda part, figure: drawn.append((part, figure)))
        figure = draw(picture)
        self.addCleanup(plt.close, "all")
        self.assertEqual(drawn, [(picture.parts[0], figure.subfigs[0])])


class NameTest(unittest.TestCase):
    """What names may hold: `$`, `\\`, bytes that are no UTF-8, control characters."""

    def assert_shown(self, figure):
        self.addCleanup(plt.close, figure)
        assert_names_shown(self, figure)

    def test_in_every_place(self):
        """Each is drawn as it is: neither mathematics, nor hidden, nor an error."""
        count = len(ODD_NAMES)
        tiles = [
            [Tile(image, note=name)] for image, name in zip(images(count), ODD_NAMES, strict=True)
        ]
        points = np.arange(2.0 * count).reshape(count, 2)
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
        numbered = [f"{label}_{name}" for label, name in enumerate(ODD_NAMES)]
        figure = draw(Picture("a.jpg", "", (Scatter(points, np.arange(count), numbered, "xy"),)))
        self.addCleanup(plt.close, figure)
        self.assertIn("0_$a_b$", words_of(figure))


class FontTest(unittest.TestCase):
    """Letters that matplotlib's own font lacks: of 43 signs' names in Chinese, all."""

    other = "\N{EGYPTIAN HIEROGLYPH A001}"  # which hardly any font has

    def setUp(self):
        self.enterContext(plt.rc_context())
        for each in (drawing.choose_cjk_font, drawing.say_no_font):
            each.cache_clear()
            self.addCleanup(each.cache_clear)

    def said_of(self, *names: str) -> str:
        """Draw names in every place; return what was said, and fail at any warning."""
        out = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(out):
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "Glyph", UserWarning)  # as in drawing
            for part in (sheet(images(1), names[:1]), Legend(dict.fromkeys(names, (1, 2, 3)))):
                figure = draw(Picture("a.jpg", names[0], (part,)))
                figure.draw_without_rendering()
                plt.close(figure)
        return out.getvalue()

    def test_a_font_that_is_installed_is_used(self):
        """For what the usual one lacks; no box, no warning, in figures and in Pillow's pictures."""
        own, other = (
            frozenset(get_font(findfont(FontProperties(family=name))).get_charmap())
            for name in ("DejaVu Sans", "STIXGeneral")
        )
        letter = next(c for c in map(chr, sorted(other - own)) if c.isprintable())
        with mock.patch.object(drawing, "CJK_FONTS", ("None such", "STIXGeneral")):
            figure = draw(confusion(np.eye(2), [letter, "b"]))  # whose names are those of ticks
            self.addCleanup(plt.close, figure)
            for label in figure.subfigs[0].axes[0].get_xticklabels():
                self.assertIn("STIXGeneral", label.get_fontfamily())
            self.assertEqual(self.said_of(f"a {letter}", "b"), "")
            self.assertEqual(plt.rcParams["font.family"][-1], "STIXGeneral")
            self.assertEqual(drawing.pillow_font(letter).getname()[0], "STIXGeneral")
            self.assertEqual(drawing.pillow_font("a$").getname()[0], "DejaVu Sans")

    def test_without_a_font(self):
        """One line, however many letters and pictures."""
        with mock.patch.object(drawing, "CJK_FONTS", ()):
            self.assertEqual(self.said_of("Größe …", "b"), "")
            said = self.said_of(f"a {self.other}", self.other * 2)
            self.assertEqual(said.count("\n"), 1)
            self.assertIn("pictures show boxes for letters that no font here has: install", said)
            self.assertEqual(self.said_of(self.other), "")

    def test_scripts_pass_no_warning_on(self):
        code = "import sys; from lab.drawing import *; from lab.pictures import *\n"
        code += "import numpy as np\n"
        code += "publish(draw(Picture('', sys.argv[2], (sheet(np.zeros((1, 4, 4)), sys.argv[2:],"
        code += " colours=Colours('gray', 0, 1, sys.argv[2])),))), Path(sys.argv[1]))"
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-c", code, f"{folder}/a.jpg", self.other],
                cwd=PROJECT, env=environment(), capture_output=True, text=True,
            )  # fmt: skip
            self.assertEqual((done.stderr, done.stdout.count("\n")), ("", 2), done.stdout)


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
            with mock.patch("lab.drawing.say") as say:
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

    def test_saved_without_one(self):
        self.with_display()
        path = self.folder / "new" / "a.jpg"
        save_closed(draw(Picture("a.jpg", "title", (sheet(images(1), "a"),))), path)
        self.assertTrue(path.is_file())
        self.assertEqual(plt.get_fignums(), [])

    def test_a_script_says_all_before_it_shows(self):
        """--no_show leaves the window out, whether there is a display or not."""
        self.with_display()
        flags = ("--type", "class", "--ckpt_path", self.folder, "--save_dir", self.folder / "out")
        flags += ("--steps", 1)
        model = Classifier(3, 2)
        state = {"model_state": model.state_dict(), "configs": vars(model.config)}
        checkpoint.save(self.folder / "ckpt_epoch_10.pth", state)
        names = ("class_steps_1.jpg", "course_steps_1.jpg")
        saved = [self.folder / "out" / "class" / name for name in names]
        with mock.patch.object(plt, "show", lambda: print("window")):
            done = script_here("visualize.py", *flags)
            self.assertEqual(
                done.stdout.splitlines(), [f"Saved {path}" for path in saved] + ["window"]
            )
            done = script_here("visualize.py", *flags, "--no_show")
            self.assertEqual(done.stdout.splitlines(), [f"Saved {path}" for path in saved])


if __name__ == "__main__":
    unittest.main()
