"""views.py: what each picture shows, computed here again from the network and the files."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import visualize
from lab import checkpoint
from lab.drawing import draw
from lab.flags import read_flags
from lab.pictures import Picture
from looking import insight
from networks import STN, Classifier, warp
from tasks import ViewFlags
from tasks.classification import TASK, views
from tasks.classification.views import numbered
from tasks.trained import load_trained
from tests.support import CLASSES, make_images

TEST_IMAGES = 12  # of each class


def read(*given: object) -> ViewFlags:
    """Return what visualize.py reads from flags."""
    return read_flags(visualize.make_parser().parse_args(list(map(str, given))), ViewFlags)


def heat(shares: Tensor) -> np.ndarray:
    return matplotlib.colormaps["hot"](shares.clamp(max=1).numpy())[..., :3]


class ViewTest(unittest.TestCase):
    """One network with everything in it: batch norm, spatial transformer, non-local block."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_images(cls.base / "data", {"train": 1, "val": 1, "test": TEST_IMAGES})
        paths = sorted((cls.data / "test").rglob("*.png"))
        cls.pixels = np.stack([np.asarray(Image.open(path)) for path in paths]) / 255
        cls.images = torch.from_numpy(cls.pixels).float().permute(0, 3, 1, 2) * 2 - 1
        torch.manual_seed(0)
        model = Classifier(3, 3, True, True, use_non_local=True).train()
        nn.init.normal_(model.stn.localization_fc[-1].weight, std=0.02)  # off the identity
        nn.init.normal_(model.non_local.out_conv.weight, std=0.1)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        cls.labels = torch.arange(3).repeat_interleave(TEST_IMAGES)
        # One step makes it unsure; taught wrong, it reads images as what they are not.
        F.cross_entropy(model(cls.images), (cls.labels + 1) % 3).backward()
        optimizer.step()
        with torch.no_grad():
            for _ in range(30):  # for the running statistics to catch up
                model(cls.images)
        cls.model = model.eval().requires_grad_(False)
        state = {"model_state": model.state_dict(), "configs": vars(model.config)}
        checkpoint.save(cls.base / "ckpt_epoch_10.pth", state | {"class_names": CLASSES})

    def view(self, kind: str, *more: object) -> list[Picture]:
        """Return the pictures of a view; each can be drawn, too."""
        flags = read("--type", kind, "--ckpt_path", self.base, "--data_root", self.data, *more)
        trained = load_trained(self.base / "ckpt_epoch_10.pth", "cpu", "fp32")
        with mock.patch.object(views, "say"):
            pictures = list(TASK.look(flags, trained))
        for picture in pictures:
            plt.close(draw(picture))
        return pictures

    def assert_image(self, tile, expected, atol=1e-5):
        np.testing.assert_allclose(tile.image, expected, atol=atol)

    def reading(self, images: Tensor) -> str:
        (confidence,), (label,) = self.model(images).softmax(1).max(1)
        return f"{CLASSES[label]}, {confidence:.1%}"

    def test_the_network_reads_wrong_and_is_unsure(self):
        """What these tests rest on: readings and confidences differ from image to image."""
        confidences, labels = self.model(self.images).softmax(1).max(1)
        self.assertEqual(labels.tolist(), ((self.labels + 1) % 3).tolist())
        self.assertLess(confidences.min(), 0.7)
        self.assertGreater(confidences.max(), 0.8)
        self.assertGreater((self.model.stn(self.images) - self.images).abs().mean(), 0.05)

    def test_names(self):
        """A class's number stands before its name, once."""
        for label, name, expected in (
            (3, "03_stop", "03_stop"),
            (3, "3", "3"),
            (3, "30_kmh", "3_30_kmh"),
            (0, "cat", "0_cat"),
            (1, "n" * 30, "1_" + "n" * 23 + "…"),
        ):
            self.assertEqual(numbered(label, name), expected)

    def test_filters(self):
        """Kernel i and the image that excites filter i, both under number i."""
        (picture,) = self.view("filter", "--steps", 24)
        self.assertEqual(picture.title, "Layer 0 (conv_net.0): 32 filters of 5x5")
        kernels, excited = ([t for row in grid.tiles for t in row] for grid in picture.parts)
        weights = self.model.conv_net[0].conv.weight
        for index, (kernel, image) in enumerate(zip(kernels, excited, strict=True)):
            scaled = weights[index] / weights[index].abs().max() / 2 + 0.5
            self.assert_image(kernel, scaled.permute(1, 2, 0))
            self.assertEqual((kernel.caption, image.caption), (str(index),) * 2)
        images = torch.from_numpy(np.stack([tile.image for tile in excited]))
        images = images.permute(0, 3, 1, 2) * 2 - 1
        conv_net = self.model.conv_net  # without the transformer in front
        responses = insight.filter_responses(conv_net, conv_net[0], images)
        own = responses.diagonal()
        self.assertGreater((own > responses.median(0).values).float().mean(), 0.95)
        self.assertGreater((own >= 0.9 * responses.amax(0)).float().mean(), 0.7)

    def test_deeper_kernels(self):
        """The mean over input channels, on a scale whose middle is 0."""
        (picture,) = self.view("filter", "--layer_idx", 2, "--steps", 1)
        kernels = picture.parts[0]
        weights = self.model.conv_net[3].conv.weight.mean(1).numpy()
        for tile, kernel in zip((t for row in kernels.tiles for t in row), weights, strict=True):
            self.assert_image(tile, kernel)
        self.assertAlmostEqual(kernels.colours.high, abs(weights).max(), places=6)
        self.assertEqual(kernels.colours.low, -kernels.colours.high)

    def test_features(self):
        """The image that --image_idx names, how it is read, and map i under number i."""
        for index in (0, 17):
            (picture,) = self.view("feature", "--layer_idx", 1, "--image_idx", index)
            image = self.images[index : index + 1]
            (photograph, handed), maps = picture.parts[0].tiles[0], picture.parts[1]
            self.assert_image(photograph, self.pixels[index])
            caption = f"{CLASSES[index // TEST_IMAGES]}\nread as {self.reading(image)}"
            self.assertEqual(photograph.caption, caption)
            moved = self.model.stn(image)
            self.assert_image(handed, (moved[0] / 2 + 0.5).permute(1, 2, 0))
            expected = self.model.conv_net[:2](moved)[0].numpy()
            tiles = [tile for row in maps.tiles for tile in row]
            self.assertEqual([tile.caption for tile in tiles], [str(k) for k in range(64)])
            for tile, values in zip(tiles, expected, strict=True):
                self.assert_image(tile, values, atol=1e-4)
            limits = (maps.colours.low, maps.colours.high)
            np.testing.assert_allclose(limits, (0, np.quantile(expected, 0.99)), rtol=1e-4)
            self.assertEqual(picture.path, "feature/layer_1/feature_map.jpg")

    def test_a_picture_of_ones_own(self):
        """--image names the file in the caption; nothing is known of its class."""
        own = self.base / ("n" * 40 + ".png")
        Image.fromarray((self.pixels[30] * 255).round().astype(np.uint8)).save(own)
        (picture,) = self.view("feature", "--image", own)
        photograph = picture.parts[0].tiles[0][0]
        self.assert_image(photograph, self.pixels[30])
        reading = self.reading(self.images[30:31])
        self.assertEqual(photograph.caption, f"{'n' * 23}…\nread as {reading}")
        (picture,) = self.view("saliency", "--image", own)
        read_as = reading.split(",")[0]
        self.assertEqual(picture.parts[0].rows, [f"score of {read_as}\nread as {read_as}"])

    def test_tsne(self):
        """Each point is that of an image of its label, of all test images."""
        embedded = {}

        class Embedding:
            def __init__(self, **options):
                embedded.update(options)

            def fit_transform(self, features):
                embedded["features"] = features
                return features[:, :2]

        with mock.patch.object(views, "TSNE", Embedding):
            (picture,) = self.view("tsne")
        (scatter,) = picture.parts
        features = insight.hidden_features(self.model, self.images).numpy()
        np.testing.assert_allclose(embedded["features"], features, atol=1e-4)
        np.testing.assert_array_equal(scatter.points, embedded["features"][:, :2])
        np.testing.assert_array_equal(scatter.labels, np.repeat([0, 1, 2], TEST_IMAGES))
        self.assertEqual(scatter.classes, ["0_blue", "1_green", "2_red"])
        self.assertEqual((embedded["perplexity"], embedded["random_state"]), (35 / 3, 0))

    def test_spatial_transformer(self):
        """Above the image in a grey margin with its frame; below what the transformer makes."""
        (picture,) = self.view("stn")
        rows = picture.parts[0].tiles
        self.assertEqual([len(row) for row in rows], [8, 8, 8, 8])
        upper, lower = rows[0] + rows[2], rows[1] + rows[3]
        shown = self.shown(upper, 32)
        theta = self.model.stn.localize(self.images)
        straight = (warp(self.images, theta) / 2 + 0.5).permute(0, 2, 3, 1)
        frames = insight.sampling_frames(theta, 32)
        for index, above, below in zip(shown, upper, lower, strict=True):
            margin = (len(above.image) - 32) // 2
            self.assertEqual(above.caption, CLASSES[index // TEST_IMAGES])
            self.assertTrue((above.image[:margin] == 0.5).all())
            self.assert_image(below, straight[index], atol=1e-4)
            frame, corner = above.marks
            np.testing.assert_allclose(frame.points, frames[index] + margin, atol=1e-3)
            np.testing.assert_allclose(corner.points, frame.points[:1])

    def test_the_margin_of_frames(self):
        """As wide as frames reach beyond the image; a pixel at least, half its side at most."""
        for scale, margin in ((0.5, 1), (1.5, 8), (9.0, 16)):
            theta = torch.tensor([[scale, 0, 0], [0, scale, 0]])
            looking = mock.patch.object(
                STN, "localize", lambda _, x, own=theta: own.expand(len(x), 2, 3)
            )
            with looking:
                (picture,) = self.view("stn")
            self.assertEqual(picture.parts[0].tiles[0][0].image.shape[:2], (32 + 2 * margin,) * 2)

    def shown(self, tiles, side: int) -> list[int]:
        """Return which test images tiles show in their middle."""
        indices = []
        for tile in tiles:
            margin = (len(tile.image) - side) // 2
            inner = tile.image[margin : margin + side, margin : margin + side]
            errors = abs(self.pixels - inner).max((1, 2, 3))
            self.assertLess(errors.min(), 1e-5)
            indices.append(int(errors.argmin()))
        return indices

    def test_saliency(self):
        """Of the images' own classes; all of --target's, of one picture."""
        (picture,) = self.view("saliency")
        (grid,) = picture.parts
        shown = self.shown(grid.tiles[0], 32)
        self.assertEqual(len(set(shown)), 8)
        self.check_saliency(grid, shown, [index // TEST_IMAGES for index in shown])
        for target in (0, 2):
            (picture,) = self.view("saliency", "--target", target, "--image_idx", 30)
            (grid,) = picture.parts
            columns = [list(column) for column in zip(*grid.tiles, strict=True)]
            flipped = mock.Mock(tiles=columns, rows=grid.columns, columns=grid.rows)
            self.check_saliency(flipped, [30], [target])

    def check_saliency(self, grid, indices, labels):
        images = self.images[indices]
        maps = insight.saliency_maps(self.model, images, torch.tensor(labels))
        masks = insight.object_masks(maps).numpy()
        top = maps.flatten(1).quantile(0.99, 1)[:, None, None]
        for column, (index, label) in enumerate(zip(indices, labels, strict=True)):
            photograph, saliency, overlay, salient = (row[column] for row in grid.tiles)
            pixels, warm = self.pixels[index], heat(maps / top)[column]
            self.assert_image(photograph, pixels)
            self.assert_image(saliency, warm, atol=0.02)
            self.assert_image(overlay, 0.4 * pixels + 0.6 * warm, atol=0.02)
            self.assert_image(salient, np.where(masks[column, ..., None], pixels, 1))
            read_as = CLASSES[self.model(images)[column].argmax()]
            self.assertEqual(grid.columns[column], f"score of {CLASSES[label]}\nread as {read_as}")
        kinds = ["picture", "saliency", "overlay", "most salient\nquarter"]
        self.assertEqual(grid.rows, kinds)

    def test_fooling(self):
        """Captions say what each image is read as, and how surely."""
        scores, classes = self.model(self.images).topk(2)
        index = int((scores[:, 0] - scores[:, 1]).argmin())  # the one that takes least to fool
        image, target = self.images[index : index + 1], int(classes[index, 1])
        (picture,) = self.view("fooling", "--image_idx", index, "--target", target)
        ((original, fooling, _, _),) = picture.parts[0].tiles
        self.assert_image(original, self.pixels[index])
        self.assertEqual(original.caption, f"original\n{self.reading(image)}")
        found = torch.from_numpy(fooling.image.copy()).permute(2, 0, 1)[None] * 2 - 1
        self.assertEqual(fooling.caption, f"fooling image\n{self.reading(found)}")
        self.assertIn(f"read as {CLASSES[target]} after", picture.title)

    def test_classes(self):
        """Each image under its class, with how sure the network is; the course ends with it."""
        picture, course = self.view("class", "--target", 2, "red", 0, "--steps", 7)
        tiles = [tile for row in picture.parts[0].tiles for tile in row]
        for tile, label in zip(tiles, (2, 2, 0), strict=True):
            image = torch.from_numpy(tile.image.copy()).permute(2, 0, 1)[None] * 2 - 1
            confidence = self.model(image).softmax(1)[0, label]
            self.assertEqual(tile.caption, f"{CLASSES[label]}\n{confidence:.0%} sure")
        (grid,) = course.parts
        self.assertEqual(grid.rows, ["red", "red", "blue"])
        self.assertEqual(grid.columns, [f"step {step}" for step in (1, 2, 3, 5, 7)])
        for row, tile in zip(grid.tiles, tiles, strict=True):
            self.assert_image(row[-1], tile.image)
            self.assertGreater(abs(row[0].image - row[-1].image).max(), 0.05)
        (every, _) = self.view("class", "--steps", 1)
        captions = [tile.caption.split("\n")[0] for row in every.parts[0].tiles for tile in row]
        self.assertEqual(captions, list(CLASSES))

    def test_inversions(self):
        """A row an image as the transformer hands it on, a column a layer, PSNR of what is seen."""
        (picture,) = self.view("invert", "--steps", 30)
        (grid,) = picture.parts
        first = "image, as the spatial\ntransformer hands it on"
        self.assertEqual(grid.columns, [first, *(f"from layer {place}" for place in range(5))])
        moved = (self.model.stn(self.images) / 2 + 0.5).permute(0, 2, 3, 1).numpy()
        self.assertEqual(len(grid.tiles), 3)
        quality = []
        for original, *found in grid.tiles:
            self.assertLess(abs(moved - original.image).max((1, 2, 3)).min(), 1e-5)
            self.assertEqual(original.note, "")
            for tile in found:
                error = np.square(tile.image - original.image, dtype=float).mean()
                quality.append(-10 * np.log10(error))
                self.assertAlmostEqual(
                    float(tile.note.removesuffix(" dB")), quality[-1], delta=0.06
                )
        quality = np.reshape(quality, (3, 5))
        self.assertTrue((quality[:, 0] > quality[:, 4] + 1).all(), quality)

    def test_attention(self):
        """A column a position: where it is, and below where it looks, in heat over the image."""
        for flags, positions in (
            ((), [(2, 2), (2, 6), (4, 4), (6, 2), (6, 6)]),
            (("--position", 7, 1), [(7, 1)]),
        ):
            (picture,) = self.view("attention", "--image_idx", 3, *flags)
            (grid,) = picture.parts
            self.assertEqual(grid.columns, [f"from {position}" for position in positions])
            self.assertEqual(grid.rows, ["the position", "where it looks"])
            image = self.model.stn(self.images[3:4])
            pixels = (image[0] / 2 + 0.5).permute(1, 2, 0).numpy()
            rows = self.model.non_local.attention(self.model.conv_net[:4](image), positions)[0]
            rows = F.interpolate(rows[:, None], size=(32, 32), mode="bilinear")[:, 0]
            for (y, x), row, looker, look in zip(positions, rows, *grid.tiles, strict=True):
                self.assert_image(looker, pixels, atol=1e-4)
                np.testing.assert_allclose(looker.marks[0].points, [[4 * x + 1.5, 4 * y + 1.5]])
                warm = heat(row / row.max())
                self.assert_image(look, 0.35 * pixels + 0.65 * warm, atol=0.02)


if __name__ == "__main__":
    unittest.main()
