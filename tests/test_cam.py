"""Class activation maps against closed forms, against what was drawn where, and against chance."""

import unittest

import torch
from torch import Tensor, nn

from lab.console import LabError
from looking import cam, insight
from tasks.segmentation.networks import NETWORKS as SEGMENTERS
from tasks.video.networks import NETWORKS as CLIPS
from tasks.video.views import over_time


def setUpModule():
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


class Summed(nn.Module):
    """A convolution, then a weight a channel and place: its gradients are those weights."""

    def __init__(self, weights: Tensor):
        super().__init__()
        self.conv = nn.Conv2d(1, len(weights), 1, bias=False)
        self.unused = nn.Conv2d(1, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        self.weights = weights
        with torch.no_grad():
            self.conv.weight.copy_(torch.arange(1.0, len(weights) + 1).view(-1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.relu(self.conv(x)) * self.weights).sum((1, 2, 3))


class ClosedFormTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.weights = torch.randn(2, 3, 4)
        self.model = Summed(self.weights).requires_grad_(False)
        self.images = torch.rand(5, 1, 3, 4)
        self.score = lambda: self.model(self.images).sum()

    def test_layer_cam(self):
        """Where the image is x, A_k = k x: relu(w_1) x + 2 relu(w_2) x."""
        maps = cam.activation_maps(self.model.conv, self.score)
        first, second = self.weights.relu()
        expected = (first + 2 * second) * self.images[:, 0]
        torch.testing.assert_close(maps, expected)

    def test_grad_cam(self):
        maps = cam.activation_maps(self.model.conv, self.score, cam.grad_cam)
        first, second = self.weights.mean((1, 2))
        torch.testing.assert_close(maps, ((first + 2 * second) * self.images[:, 0]).relu())

    def test_a_layer_that_does_not_count(self):
        model = self.model
        self.assertIsNone(cam.activation_maps(model.unused, self.score))
        layers = {"conv": model.conv, "unused": model.unused}
        self.assertEqual(cam.choose_layer(layers, None, self.score), "conv")
        with self.assertRaisesRegex(LabError, "unused speaks for this answer"):
            cam.choose_layer(layers, 1, self.score)
        with self.assertRaisesRegex(LabError, "layers are 0 to 1"):
            cam.choose_layer(layers, 2, self.score)
        self.assertEqual(model(self.images).shape, (5,))  # no hook is left

    def test_enlarged(self):
        """Each map for itself: its most is 1; one of nothing stays nothing."""
        maps = torch.stack((torch.eye(4) * 7, torch.zeros(4, 4)))
        large = cam.enlarged(maps, (8, 8))
        self.assertEqual(large.shape, (2, 8, 8))
        self.assertEqual((float(large[0].max()), float(large[1].max())), (1, 0))
        self.assertGreater(float(large[0].diagonal().min()), float(large[0, 0, 5]))


class SanityTest(unittest.TestCase):
    """A network that tells where one colour is; a map must say so, and lose it with the weights."""

    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        cls.model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip
        optimizer = torch.optim.Adam(cls.model.parameters(), 2e-2)
        for _ in range(150):
            images, labels, _ = cls.draw(32)
            optimizer.zero_grad()
            nn.functional.cross_entropy(cls.model(images), labels).backward()
            optimizer.step()
        cls.model.eval().requires_grad_(False)

    @staticmethod
    def draw(count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return noise with a square of one of three colours: images, colours, where it is."""
        images, labels = 0.4 * torch.rand(count, 3, 16, 16), torch.randint(3, (count,))
        inside = torch.zeros(count, 16, 16, dtype=torch.bool)
        for k, (y, x) in enumerate(torch.randint(0, 12, (count, 2)).tolist()):
            images[k, labels[k], y : y + 4, x : x + 4] += 0.6
            inside[k, y : y + 4, x : x + 4] = True
        return images, labels, inside

    def share_inside(self, model: nn.Module, name: str = "2") -> float:
        torch.manual_seed(1)
        images, labels, inside = self.draw(64)

        def score() -> Tensor:
            return model(images).gather(1, labels[:, None]).sum()

        maps = cam.activation_maps(model.get_submodule(name), score)
        return float((maps * inside).sum() / maps.sum().clamp(min=1e-12))

    def test_it_marks_what_is_told_apart(self):
        """The square is a sixteenth of the image; four times as much of the map lies on it."""
        images, labels, _ = self.draw(200)
        self.assertGreater(float((self.model(images).argmax(1) == labels).float().mean()), 0.95)
        self.assertGreater(self.share_inside(self.model), 4 / 16)

    def test_weights_shuffled(self):
        """Adebayo et al. 2018: of a network that has learned nothing, the map is another."""
        shares = [self.share_inside(cam.randomised(self.model, seed)) for seed in range(5)]
        self.assertLess(sum(shares) / 5, 0.6 * self.share_inside(self.model))

    def test_randomised_keeps_the_values(self):
        """Of each tensor, in another order; the network itself stays as it is."""
        before = [weight.clone() for weight in self.model.parameters()]
        other = cam.randomised(self.model)
        every = zip(other.parameters(), self.model.parameters(), before, strict=True)
        for own, kept, weight in every:
            self.assertTrue(torch.equal(kept, weight))
            self.assertEqual(sorted(own.flatten().tolist()), sorted(weight.flatten().tolist()))
        self.assertFalse(torch.equal(other[0].weight, before[0]))


class LayerTest(unittest.TestCase):
    def build(self, designs, name: str, **more: object) -> nn.Module:
        design = designs[name]
        return design.build(design.configure(more)).eval()

    def test_layers_that_see_places(self):
        """Those of more than single pixels, without the ones that tell classes apart."""
        names = list(insight.spatial_layers(self.build(SEGMENTERS, "fcn_8s", num_classes=4)))
        self.assertEqual(names[-1], "body.layer4.1.conv2")
        config = {"num_classes": 4, "frames": 16, "width": 4}
        for name, last in (("cnn3d", "conv_net.3.0"), ("cnn_lstm", "cnn.conv_net.2"),
                           ("non_local", "conv_net.4.0")):  # fmt: skip
            layers = insight.spatial_layers(self.build(CLIPS, name, **config))
            self.assertEqual(list(layers)[-1], last)

    def test_over_time(self):
        """Frame by frame; of one frame, there alone; of windows, the mean where two overlap."""
        config = {"num_classes": 4, "width": 4}
        torch.manual_seed(0)
        each = torch.rand(2 * 16, 3, 3)
        lstm = self.build(CLIPS, "cnn_lstm", frames=16, **config)
        self.assertTrue(torch.equal(over_time(each, lstm, 2, 16), each.view(2, 16, 3, 3)))
        single = self.build(CLIPS, "single_frame", frames=16, **config)
        alone = over_time(each[:2], single, 2, 16)
        self.assertTrue(torch.equal(alone[:, 8], each[:2]))
        self.assertEqual(int(alone.any(2).any(2).sum()), 2)
        early = self.build(CLIPS, "early_fusion", frames=16, **config)
        self.assertTrue(torch.equal(over_time(each[:2], early, 2, 16)[:, 5], each[:2]))
        windows = self.build(CLIPS, "cnn3d", frames=24, **config)  # 0 to 15 and 8 to 23
        ones = torch.stack((torch.ones(2, 3, 3), 3 * torch.ones(2, 3, 3)))
        over = over_time(ones, windows, 1, 24)
        self.assertEqual(over[0, :, 0, 0].tolist(), [1] * 8 + [2] * 8 + [3] * 8)


if __name__ == "__main__":
    unittest.main()
