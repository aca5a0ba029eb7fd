"""Torchvision's networks with weights from a file, against torchvision's own builders."""

import re
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torchvision import models

from lab.console import LabError
from lab.flags import plain_name
from lab.imagenet import PUBLISHED, load_pretrained
from lab.registry import build
from tests.support import PROJECT, ScriptCase, script, script_here


def random_weights(name: str) -> dict[str, torch.Tensor]:
    """Return a state dict, the same at each call, whose logits depend on the image."""
    torch.manual_seed(0)
    model = build(PUBLISHED, name, {})
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):  # some start so small that nothing gets through
            nn.init.kaiming_normal_(layer.weight)
    return model.state_dict()


class LoadTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)

    def save(self, weights: dict[str, torch.Tensor], name: str = "weights.pth") -> Path:
        torch.save(weights, self.base / name)
        return self.base / name

    def test_computes_what_torchvisions_network_computes(self):
        """DenseNet's files have names of old; GoogLeNet with weights turns its input."""
        for name in ("squeezenet1_1", "densenet121", "googlenet"):
            weights = random_weights(name)
            if name == "densenet121":
                weights = {
                    re.sub(r"(denselayer\d+\.(norm|conv))", r"\1.", key): value
                    for key, value in weights.items()
                    if "num_batches_tracked" not in key
                }
                self.assertIn("features.denseblock1.denselayer1.norm.1.weight", weights)
            found = load_pretrained(name, self.save(weights))
            enum = models.get_model_weights(name)
            with mock.patch.object(enum, "get_state_dict", lambda *_, w=weights, **__: dict(w)):
                reference = models.get_model(name, weights=enum.DEFAULT).eval()
                downloaded = load_pretrained(name)
            images = torch.randn(2, 3, 64, 64)
            with self.subTest(name), torch.no_grad():
                self.assertFalse(found.network.training)
                logits = found.network(images)
                self.assertGreater((logits[0] - logits[1]).abs().mean(), 1e-3)
                self.assertTrue(torch.equal(logits, reference(images)))
                self.assertTrue(torch.equal(downloaded.network(images), reference(images)))
                self.assertEqual(found.classes[76], "tarantula")
                self.assertEqual(len(found.classes), 1000)

    def test_weights_that_do_not_fit(self):
        """One line that names the first mismatch; no file and no state dict likewise."""
        weights = random_weights("squeezenet1_1")
        first = "features.0.weight"
        without = {key: value for key, value in weights.items() if key != first}
        for state, words in (
            (without, ("do not fit", first)),
            (weights | {first: torch.zeros(3, 3)}, ("do not fit", first, "[3, 3]")),
            (without | {"other": weights[first]}, ("do not fit", first)),
            ({"epoch": 3}, ("no state dict",)),
        ):
            with self.subTest(words), self.assertRaises(LabError) as caught:
                load_pretrained("squeezenet1_1", self.save(state))
            for word in words:
                self.assertIn(word, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))
        with self.assertRaisesRegex(LabError, "no file of weights"):
            load_pretrained("squeezenet1_1", self.base / "missing.pth")
        with self.assertRaisesRegex(LabError, "unknown network 'squeezenet9'"):
            load_pretrained("squeezenet9")
        enum = models.get_model_weights("squeezenet1_1")
        with (
            mock.patch.object(enum, "get_state_dict", side_effect=OSError("no route")),
            self.assertRaisesRegex(LabError, "no route.*--weights FILE, or .*pretrained.signs$"),
        ):
            load_pretrained("squeezenet1_1")


class ScriptTest(ScriptCase):
    """visualize.py on SqueezeNet's structure; what it was trained on does not matter here."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.weights = cls.base / "squeezenet.pth"
        torch.save(random_weights("squeezenet1_1"), cls.weights)

    def flags(self, kind: str, *more: object) -> tuple[object, ...]:
        own = ("--type", kind, "--model", "squeezenet1_1", "--weights", self.weights)
        return ("visualize.py", *own, "--save_dir", self.base, *more)

    def test_pictures(self):
        """A real process once; scikit-learn's photographs and a file of one's own."""
        photo = PROJECT / "tests" / "missing.png"
        done = script(*self.flags("saliency"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        saved = self.base / "saliency" / "saliency_model_squeezenet1_1.jpg"
        self.assertTrue(saved.is_file())
        own, name_of_own = ("--image", saved), plain_name(str(saved))
        for kind, name, *more in (
            ("filter", "filter/filter_layer_0{}_steps_1.jpg", "--steps", 1),
            ("feature", "feature/layer_3/feature_map{}{}.jpg", "--layer_idx", 3, *own),
            ("fooling", "fooling/fooling{}{}_target_gorilla_steps_2.jpg",
             "--target", "gorilla", "--steps", 2, *own),
            ("class", "class/course{}_target_3_hourglass_steps_2.jpg",
             "--target", 3, "hourglass", "--steps", 2),
            ("invert", "invert/invert{}_image_idx_1_steps_1.jpg", "--steps", 1, "--image_idx", 1),
        ):  # fmt: skip
            name = name.format("_model_squeezenet1_1", f"_image_{name_of_own}")
            with self.subTest(kind):
                done = script_here(*self.flags(kind, *more))
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertTrue((self.base / name).is_file())
                self.assertIn(f"Saved {self.base / name}", done.stdout)
                if kind == "fooling":
                    self.assertIn("gorilla", done.stdout)
        self.assert_refused(script_here(*self.flags("saliency", "--image", photo)), 1, "no image")

    def test_without_a_connection(self):
        """What was tried, where the file goes, and the same on a network of one's own."""
        nowhere = {"TORCH_HOME": str(self.base / "cache")}
        nowhere |= dict.fromkeys(
            ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
        )
        nowhere |= {"no_proxy": "", "NO_PROXY": ""}
        done = script("visualize.py", "--model", "squeezenet1_1", env=nowhere)
        words = ("could not download", "squeezenet1_1", "https://", "--weights", "--ckpt_path")
        self.assert_refused(done, 1, *words)

    def test_what_cannot_be_meant(self):
        for flags, words in (
            (("--weights", self.weights), ("--weights", "--model")),
            (("--type", "tsne", "--model", "resnet18"), ("tsne", "--ckpt_path")),
            (("--type", "stn", "--model", "resnet18"), ("stn", "--ckpt_path")),
            (("--type", "attention", "--model", "resnet18"), ("attention", "--ckpt_path")),
            (self.flags("class", "--ckpt_path", "run", "--epoch", "2")[1:],
             ("--model", "leave out --epoch and --ckpt_path")),
            (self.flags("class", "--target", "dalmation")[1:], ("dalmation", "dalmatian", "999")),
            (self.flags("class", "--target", "1000")[1:], ("--target 1000", "0 to 999")),
            (self.flags("filter", "--layer_idx", "26")[1:], ("--layer_idx 26", "0 to 25")),
            (self.flags("saliency", "--image_idx", "2")[1:], ("--image_idx 2", "0 to 1")),
        ):  # fmt: skip
            with self.subTest(words):
                self.assert_refused(script_here("visualize.py", *flags), 2, *words)

    def test_weights_of_another_network(self):
        flags = ("--model", "resnet18", "--weights", self.weights)
        self.assert_refused(script_here("visualize.py", *flags), 1, "do not fit", "conv1.weight")


if __name__ == "__main__":
    unittest.main()
