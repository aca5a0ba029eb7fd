"""What visualize.py computes against independent references, and its pictures as files."""

import math
import shutil
import tempfile
import unittest
import unittest.mock
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import checkpoint
import visualize
from datasets import get_data_loader
from engine import Runtime
from networks import Classifier, warp
from tests.support import make_images, script


def trained_looking_network(**options):
    """A network whose batch norms have seen images, so that no layer is silent."""
    torch.manual_seed(0)
    model = Classifier(3, 5, use_batch_norm=True, **options).train()
    for _ in range(5):
        model(torch.randn(32, 3, 32, 32))
    return model.eval().requires_grad_(False)


class FilterTest(unittest.TestCase):
    def test_every_filter_is_excited_far_above_noise(self):
        """Each filter responds to its own image more than to any of 64 noise images."""
        model = trained_looking_network()
        noise = torch.rand(64, 3, 32, 32) * 2 - 1
        for layer in (0, 2):
            images = visualize.excite_filters(model, layer, steps=30)
            own = visualize.filter_responses(model, images, layer).diagonal()
            best_noise = visualize.filter_responses(model, noise, layer).amax(0)
            self.assertGreater((own > best_noise).float().mean(), 0.95)
            self.assertLessEqual(images.abs().max(), 1)

    def test_one_batch_is_as_good_as_one_by_one(self):
        """Image i depends on filter i alone: the same as a loop that climbs on that filter only."""
        model = trained_looking_network()
        batch = visualize.excite_filters(model, 1, steps=5)
        original = visualize.filter_responses
        for index in (0, 17):

            def only(model, images, layer_idx, index=index):
                responses = original(model, images, layer_idx)
                return torch.where(torch.arange(64) == index, responses, 0 * responses)

            with unittest.mock.patch.object(visualize, "filter_responses", only):
                alone = visualize.excite_filters(model, 1, steps=5)
            torch.testing.assert_close(batch[index], alone[index], rtol=1e-3, atol=1e-3)

    def test_first_layer_in_closed_form(self):
        """A filter that takes red minus blue is excited by pure red."""
        model = Classifier(3, 5).eval().requires_grad_(False)
        model.conv_net[0].conv.weight.zero_()
        model.conv_net[0].conv.weight[0, 0, 2, 2] = 1
        model.conv_net[0].conv.weight[0, 2, 2, 2] = -1
        red, green, blue = visualize.excite_filters(model, 0)[0].mean((1, 2))
        self.assertGreater(red, 0.9)
        self.assertLess(blue, -0.9)
        self.assertLess(abs(green), 0.1)


class FeatureTest(unittest.TestCase):
    def test_maps_are_the_layers_outputs(self):
        """The maps of block K are what the layers up to it compute, one after the other."""
        model = trained_looking_network(use_stn=True)
        images = torch.randn(2, 3, 32, 32)
        places = [0, 1, 3, 4, 6]
        x = model.stn(images)
        for place, layer in enumerate(model.conv_net):
            x = layer(x)
            if place in places:
                found = visualize.feature_maps(model, images, places.index(place))
                self.assertTrue(torch.equal(found, x))

    def test_hidden_features_give_the_logits(self):
        """The last linear layer takes the hidden features to the network's own logits."""
        model = trained_looking_network(use_stn=True)
        images, labels = torch.randn(6, 3, 32, 32), torch.arange(6)
        loader = [(images[:4], labels[:4]), (images[4:], labels[4:])]
        features, found = visualize.hidden_features(model, loader, Runtime(torch.device("cpu")))
        self.assertEqual(found.tolist(), labels.tolist())
        torch.testing.assert_close(model.fc_net[-1](features), model(images))

    def test_spread_over_classes(self):
        """As many of each class as there are, up to an even share; all of them if they fit."""
        labels = np.repeat([0, 1, 2], [100, 7, 40])
        chosen = visualize.spread_over_classes(labels, 47)
        self.assertEqual(np.bincount(labels[chosen]).tolist(), [20, 7, 20])
        self.assertEqual(len(set(chosen.tolist())), 47)
        every = visualize.spread_over_classes(labels, 1000)
        self.assertEqual(every.tolist(), list(range(147)))


class FrameTest(unittest.TestCase):
    def test_closed_form(self):
        """Identity: the image's border. Half scale: the centre half. Shift and turn likewise."""
        square = np.array([[0, 0], [8, 0], [8, 8], [0, 8], [0, 0]]) - 0.5
        turn = math.pi / 2
        for theta, expected in (
            ([[1, 0, 0], [0, 1, 0]], square),
            ([[0.5, 0, 0], [0, 0.5, 0]], square / 2 + 1.75),
            ([[1, 0, 0.25], [0, 1, -0.5]], square + [1, -2]),
            (
                [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0]],
                np.roll(square[:4], -1, 0)[[0, 1, 2, 3, 0]],
            ),
        ):
            found = visualize.sampling_frames(torch.tensor([theta]), 8)[0]
            np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_the_frame_is_where_the_stn_reads(self):
        """What the warp puts into its corner pixel is the input's value near the frame's corner."""
        theta = torch.tensor([[[0.5, 0.1, 0.05], [-0.1, 0.6, -0.1]]])
        size = 64
        positions = torch.arange(size).float()
        plane = torch.stack(torch.meshgrid(positions, positions, indexing="xy"))[None]  # x, y
        read = warp(plane, theta)[0]
        corners = visualize.sampling_frames(theta, size)[0]
        for corner, (row, column) in zip(
            corners, ((0, 0), (0, -1), (-1, -1), (-1, 0)), strict=False
        ):
            np.testing.assert_allclose(read[:, row, column], corner, atol=0.6)


class ScriptTest(unittest.TestCase):
    """Real processes, without a display, on untrained checkpoints of the contract's keys alone."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_images(cls.base / "data", {"train": 2, "val": 1, "test": 12})
        torch.manual_seed(0)
        for name, stn in (("plain", False), ("stn", True)):
            model = Classifier(3, 3, True, stn)
            folder = cls.base / name
            folder.mkdir()
            state = {"model_state": model.state_dict(), "configs": vars(model.config)}
            checkpoint.save(folder / "ckpt_epoch_10.pth", state)

    def visualize(self, kind, run="plain", *more):
        flags = {"type": kind, "ckpt_path": self.base / run, "data_root": self.data}
        flags["save_dir"] = self.base / "visualized"
        given = [part for name, value in flags.items() for part in (f"--{name}", value)]
        return script("visualize.py", *given, *more)

    def test_pictures_have_the_scaffolds_names(self):
        for kind, run, name in (
            ("filter", "plain", "filter/filter_layer_0.jpg"),
            ("feature", "plain", "feature/layer_0/feature_map.jpg"),
            ("tsne", "plain", "tsne/tsne.jpg"),
            ("stn", "stn", "stn/stn.jpg"),
        ):
            with self.subTest(kind):
                done = self.visualize(kind, run)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                with Image.open(self.base / "visualized" / name) as picture:
                    self.assertEqual(picture.format, "JPEG")
                    self.assertGreater(picture.width, 900)

    def test_out_of_range_names_the_range(self):
        for more, words in (
            (
                ("--layer_idx", "5"),
                "--layer_idx 5 is out of range: the convolution blocks are 0 to 4",
            ),
            (("--image_idx", "36"), "--image_idx 36 is out of range: the test images are 0 to 35"),
            (("--layer_idx", "-1"), "--layer_idx -1 is out of range: the convolution blocks are 0"),
            (("--image_idx", "-1"), "--image_idx -1 is out of range: the test images are 0 to 35"),
        ):
            done = self.visualize("feature", "plain", *more)
            self.assertEqual(done.returncode, 2)
            self.assertEqual(done.stderr.count("\n"), 1)
            self.assertIn(words, done.stderr)

    def test_filters_need_no_data(self):
        done = self.visualize("filter", "plain", "--data_root", self.base / "nowhere")
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_stn_without_one_says_how_to_train_one(self):
        done = self.visualize("stn")
        self.assertEqual(done.returncode, 1)
        self.assertIn("python train.py --bn --stn", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)

    def test_a_folder_that_cannot_be_written(self):
        blocked = self.base / "file"
        blocked.write_text("in the way")
        done = self.visualize("feature", "plain", "--save_dir", blocked)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1))
        self.assertIn("cannot write", done.stderr)

    def test_no_test_split(self):
        data = Path(shutil.copytree(self.data, self.base / "untested"))
        shutil.rmtree(data / "test")
        done = self.visualize("tsne", "plain", "--data_root", data)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1))
        self.assertIn("no test/", done.stderr)

    def test_loader_order_is_the_index(self):
        """--image_idx counts in the order of folders and names."""
        loader = get_data_loader(self.data, "test", 32, 4)
        paths = sorted((self.data / "test").rglob("*.png"))
        self.assertEqual(loader.dataset.split.paths, paths)
