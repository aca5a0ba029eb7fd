"""features.py: what layers put out, against running them one by one; total variation by loops."""

import unittest

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from lab.features import inputs_of, outputs_of, total_variation
from networks import Classifier


class Overwriting(nn.Module):
    """A network whose layers overwrite what earlier ones have put out."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.conv(images))
        y = self.norm(x)
        y += x
        return F.relu(self.relu(self.last(y)), inplace=True)


class TapTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.model = Classifier(3, 5, True, True).eval()
        nn.init.normal_(self.model.stn.localization_fc[-1].weight, std=0.05)  # off the identity
        self.images = torch.randn(2, 3, 32, 32)

    def test_what_goes_into_a_layer_and_out_of_it(self):
        """Both are what the layers up to it compute, one after the other; nothing stays behind."""
        model, images = self.model, self.images
        logits = model(images)
        x, expected = model.stn(images), []
        for layer in model.conv_net:
            before, x = x, layer(x)
            expected.append(x)
            self.assertTrue(torch.equal(inputs_of(model, layer, images), before))
            self.assertTrue(torch.equal(outputs_of(model, [layer], images)[0], x))
        found = outputs_of(model, list(model.conv_net), images)
        self.assertTrue(all(map(torch.equal, found, expected)))
        self.assertTrue(torch.equal(model(images), logits))
        self.assertFalse(any(layer._forward_hooks for layer in model.modules()))

    def test_in_the_order_asked_for(self):
        """Not in that of the forward pass; a layer may be asked for twice."""
        layers = [self.model.conv_net[place] for place in (4, 0, 4)]
        found = outputs_of(self.model, layers, self.images)
        self.assertEqual([features.shape[1] for features in found], [128, 32, 128])
        self.assertTrue(torch.equal(found[0], found[2]))

    def test_the_forward_pass_ends_there(self):
        """Layers behind it do not run: it works at sizes that the linear layers cannot take."""
        self.model.stn = nn.Identity()
        large = torch.randn(1, 3, 64, 64)
        self.assertRaises(RuntimeError, self.model, large)
        last, first = self.model.conv_net[6], self.model.conv_net[0]
        self.assertEqual(outputs_of(self.model, [last, first], large)[0].shape, (1, 128, 8, 8))

    def test_a_layer_that_is_not_used(self):
        for layers in ([nn.Conv2d(3, 3, 1)], [self.model.conv_net[0], nn.Conv2d(3, 3, 1)]):
            with self.assertRaisesRegex(ValueError, "does not use"):
                outputs_of(self.model, layers, self.images)
        self.assertFalse(any(layer._forward_hooks for layer in self.model.modules()))

    def test_layers_that_work_in_place(self):
        """Each output is the layer's own, though a later one overwrites it; so are gradients."""
        model, images = Overwriting().eval(), torch.randn(1, 3, 6, 6, requires_grad=True)
        found = outputs_of(model, [model.conv, model.norm, model.relu, model.last], images)
        conv = model.conv(images)
        relu = conv.relu()
        norm = model.norm(relu)
        expected = [conv, norm, relu, model.last(norm + relu)]
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
            weights = torch.randn_like(one)
            (gradient,) = torch.autograd.grad((one * weights).sum(), images, retain_graph=True)
            (wanted,) = torch.autograd.grad((other * weights).sum(), images, retain_graph=True)
            assert_close(gradient, wanted)


class VariationTest(unittest.TestCase):
    def test_in_closed_form(self):
        """A ramp along x or y; both; and a loop over neighbours."""
        ramp = 0.5 * torch.arange(6.0)
        across = ramp.expand(3, 4, 6)
        down = 2 * across.mT[:, :, :4]
        both = across[:, :, :4] + down[:, :4]
        for image, expected in ((across, 0.25), (down, 1.0), (both, 1.25), (0 * both, 0.0)):
            found = total_variation(torch.stack([image, 0 * image, 2 * image]))
            assert_close(found, expected * torch.tensor([1.0, 0, 4]))
        image = torch.rand(1, 2, 3, 5, dtype=torch.float64)
        vertical = [(image[0, c, y + 1, x] - image[0, c, y, x]) ** 2
                    for c in range(2) for y in range(2) for x in range(5)]  # fmt: skip
        horizontal = [(image[0, c, y, x + 1] - image[0, c, y, x]) ** 2
                      for c in range(2) for y in range(3) for x in range(4)]  # fmt: skip
        expected = sum(vertical) / len(vertical) + sum(horizontal) / len(horizontal)
        assert_close(total_variation(image)[0], expected)
        summed = total_variation(torch.cat([image, 2 * image]), mean=False)
        assert_close(summed, (sum(vertical) + sum(horizontal)) * torch.tensor([1.0, 4]).double())


if __name__ == "__main__":
    unittest.main()
