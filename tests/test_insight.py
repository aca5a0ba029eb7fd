"""The methods of insight.py against loops, closed forms and a network trained here on signs."""

import functools
import math
import unittest
import unittest.mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision import models

from lab.features import total_variation
from lab.imagenet import PUBLISHED
from lab.images import Preprocess
from lab.registry import build
from looking import insight
from networks import Classifier, warp
from world import signs

SIGNS = (1, 9, 10, 11, 14, 22)  # of signs.CLASSES: each has a shape or a colour of its own
PREPROCESS = Preprocess()
IMAGENET = Preprocess((32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def trained_looking_network(use_batch_norm: bool = True, use_stn: bool = False) -> Classifier:
    """A network whose batch norms have seen images, so that no layer is silent."""
    torch.manual_seed(0)
    model = Classifier(3, 5, use_batch_norm, use_stn).train()
    if use_stn:
        nn.init.normal_(model.stn.localization_fc[-1].weight, std=0.05)  # off the identity
    for _ in range(5):
        model(torch.randn(32, 3, 32, 32))
    return model.eval().requires_grad_(False)


def draw(per_class: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return drawn signs as network input, and their labels, counted within `SIGNS`."""
    rng = np.random.default_rng(seed)
    pixels = [
        PREPROCESS.fit(signs.draw_sign(sign, rng)) for sign in SIGNS for _ in range(per_class)
    ]
    labels = torch.arange(len(SIGNS)).repeat_interleave(per_class)
    return PREPROCESS.normalize(torch.from_numpy(np.stack(pixels))), labels


@functools.cache
def sign_network() -> Classifier:
    """A network trained for seconds: it reads about 85 % of signs that it has not seen."""
    images, labels = draw(60, seed=0)
    torch.manual_seed(0)
    model = Classifier(3, len(SIGNS), True).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    batches = [batch for _ in range(4) for batch in torch.randperm(len(images)).split(32)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, len(batches))
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(False)


class LayerTest(unittest.TestCase):
    def test_which_layers_count(self):
        """ConvBlocks, else convolutions, in order; not the spatial transformer's."""
        model = trained_looking_network(use_stn=True)
        layers = insight.conv_layers(model)
        self.assertEqual(list(layers), [f"conv_net.{place}" for place in (0, 1, 3, 4, 6)])
        self.assertEqual(
            list(layers.values()), [model.conv_net[place] for place in (0, 1, 3, 4, 6)]
        )
        self.assertEqual(
            [insight.convolution_of(layer) for layer in layers.values()],
            [layer.conv for layer in layers.values()],
        )

    def test_every_layer_that_counts_is_used(self):
        """Auxiliary classifiers, for training alone, do not count."""
        for name, count in (("googlenet", 57), ("inception_v3", 94), ("squeezenet1_1", 26)):
            with self.subTest(name), torch.device("meta"):
                options = {} if name == "squeezenet1_1" else {"init_weights": False}
                model = models.get_model(name, weights=None, **options).eval()
                layers, called = insight.conv_layers(model), []
                for layer in layers.values():
                    layer.register_forward_hook(
                        lambda layer, *_, called=called: called.append(layer)
                    )
                model(torch.empty(1, 3, 299, 299))
                self.assertEqual(called, list(layers.values()))
                self.assertEqual(len(layers), count)

    def test_hidden_features_give_the_logits(self):
        """The output layer makes the network's own logits of them."""
        model = trained_looking_network(use_stn=True)
        images = torch.randn(6, 3, 32, 32)
        features = insight.hidden_features(model, images)
        self.assertEqual(features.shape, (6, 256))
        assert_close(model.fc_net[-1](features), model(images))

    def test_hidden_features_before_a_convolution(self):
        """SqueezeNet's output layer is a 1x1 convolution: its input's mean over positions."""
        torch.manual_seed(0)
        model = build(PUBLISHED, "squeezenet1_1", {}).eval()
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            features = insight.hidden_features(model, images)
            assert_close(features, model.features(images).mean((2, 3)))
        self.assertEqual(features.shape, (2, 512))


class OneSize(nn.Module):
    """Takes images of one size alone, as a vision transformer does."""

    def forward(self, images: Tensor) -> Tensor:
        torch._assert(images.shape[-1] == 224, "wrong image size")
        return images


class FilterTest(unittest.TestCase):
    def test_every_filter_is_excited_far_above_noise(self):
        """Each filter responds to its own image more than to any of 64 noise images."""
        model = trained_looking_network()
        noise = torch.rand(64, 3, 32, 32) * 2 - 1
        layers = list(insight.conv_layers(model).values())
        for layer, filters in ((layers[0], 32), (layers[2], 64)):
            images = insight.excite_filters(model.conv_net, layer, PREPROCESS, filters, steps=32)
            own = insight.filter_responses(model, layer, images).diagonal()
            best_noise = insight.filter_responses(model, layer, noise).amax(0)
            self.assertEqual(images.shape, (filters, 3, 32, 32))
            self.assertGreater((own > best_noise).float().mean(), 0.95)
            self.assertLessEqual(images.abs().max(), 1)

    def test_one_batch_is_as_good_as_one_by_one(self):
        """Image i depends on filter i alone: the same as a loop that climbs on that filter only."""
        model = trained_looking_network()
        layer = model.conv_net[1]
        excite = functools.partial(
            insight.excite_filters, model, layer, PREPROCESS, scales=[32], steps=5
        )
        batch = excite(20)
        original = insight.filter_responses
        for index in (0, 17):

            def only(model, layer, images, index=index):
                responses = original(model, layer, images)
                return torch.where(torch.arange(64) == index, responses, 0 * responses)

            with unittest.mock.patch.object(insight, "filter_responses", only):
                alone = excite(20)
            assert_close(batch[index], alone[index], rtol=1e-3, atol=1e-3)

    def test_sides_that_a_network_takes(self):
        """64 pixels or the network's own, coarse to fine; larger where it asks for more."""
        conv, only = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 8)
        fixed = nn.Sequential(OneSize(), only)
        for model, layer, own, sides in (
            (nn.Sequential(conv), conv, 224, [24, 32, 48, 64]),
            (nn.Sequential(conv), conv, 32, [12, 16, 24, 32]),
            (nn.Sequential(nn.MaxPool2d(16), conv), conv, 224, [48, 64]),
            (nn.Sequential(nn.MaxPool2d(30), conv), conv, 224, [96]),
            (fixed, only, 224, [224]),
        ):
            with self.subTest(sides=sides):
                preprocess = Preprocess((own, own))
                self.assertEqual(insight.excitable_sides(model, layer, preprocess), sides)
        images = insight.excite_filters(fixed, only, Preprocess((224, 224)), 2, [224], steps=2)
        self.assertEqual(images.shape, (2, 3, 224, 224))

    def test_first_layer_in_closed_form(self):
        """A filter that takes red minus blue is excited by pure red, within what pixels can be."""
        model = Classifier(3, 5).eval().requires_grad_(False)
        model.conv_net[0].conv.weight.zero_()
        model.conv_net[0].conv.weight[0, 0, 2, 2] = 1
        model.conv_net[0].conv.weight[0, 2, 2, 2] = -1
        for preprocess in (PREPROCESS, IMAGENET):
            images = insight.excite_filters(model, model.conv_net[0], preprocess, 1)
            red, green, blue = preprocess.denormalize(images)[0].mean((1, 2))
            self.assertGreater(red, 0.95)
            self.assertLess(blue, 0.05)
            self.assertLess(abs(green - preprocess.mean[1]), 0.05)
            pixels = preprocess.denormalize(images)
            self.assertTrue(((pixels > -1e-6) & (pixels < 1 + 1e-6)).all())


class SaliencyTest(unittest.TestCase):
    def test_equals_a_loop_over_images(self):
        """One backward pass for the batch gives what one for each image gives."""
        images, labels = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 3, 4, 0])
        for bn, stn in ((False, False), (True, False), (True, True)):
            with self.subTest(bn=bn, stn=stn):
                model = trained_looking_network(bn, stn)
                maps = insight.saliency_maps(model, images, labels)
                self.assertEqual(maps.shape, (6, 32, 32))
                for image, label, found in zip(images, labels, maps, strict=True):
                    alone = image[None].clone().requires_grad_()
                    model(alone)[0, label].backward()
                    assert_close(found, alone.grad[0].abs().max(0).values)
        self.assertFalse(images.requires_grad)

    def test_closed_form(self):
        """Of a linear network: the label's weights, the largest magnitude over RGB."""
        torch.manual_seed(0)
        linear = nn.Linear(3 * 4 * 5, 7)
        labels = torch.tensor([6, 0])
        maps = insight.saliency_maps(
            nn.Sequential(nn.Flatten(), linear), torch.randn(2, 3, 4, 5), labels
        )
        weights = linear.weight[labels].view(2, 3, 4, 5).detach()
        expected = weights[:, 0].abs().maximum(weights[:, 1].abs()).maximum(weights[:, 2].abs())
        assert_close(maps, expected)
        self.assertIsNone(linear.weight.grad)

    def test_object_masks(self):
        """The asked share of pixels, where the map is high; the map's scale does not matter."""
        maps = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1
        maps[0, 8:24, 8:24] += 1  # a quarter of the image
        maps[1, :8] += 1
        masks = insight.object_masks(maps)
        assert_close(masks.float().mean((1, 2)), torch.full((2,), 0.25), rtol=0, atol=0.01)
        self.assertGreater(masks[0, 8:24, 8:24].float().mean(), 0.9)
        self.assertGreater(masks[1, :8].float().mean(), 0.9)
        self.assertTrue(torch.equal(insight.object_masks(1e-3 * maps), masks))
        few = insight.object_masks(maps, share=0.1)
        assert_close(few.float().mean((1, 2)), torch.full((2,), 0.1), rtol=0, atol=0.01)
        self.assertFalse((few & ~masks).any())


class FoolingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = sign_network()
        cls.images, _ = draw(4, seed=1)
        cls.predictions = cls.model(cls.images).argmax(1).tolist()

    def fool(self, index: int, turn: int = 1, **options) -> tuple[Tensor, int, insight.Fooling]:
        """Return an image, a class that it is not read as, and what fooling makes of them."""
        image, target = self.images[index, None], (self.predictions[index] + turn) % len(SIGNS)
        options = {"preprocess": PREPROCESS, **options}
        return image, target, insight.make_fooling_image(self.model, image, target, **options)

    def test_the_prediction_changes(self):
        """Nearly all of 24 signs turn into another class, none by more than it says."""
        fooled = 0
        for index in range(len(self.images)):
            image, target, fooling = self.fool(index, 1 + index % 5)
            fooled += fooling.fooled
            self.assertEqual(fooling.fooled, int(self.model(fooling.image).argmax()) == target)
            pixels = fooling.image / 2 + 0.5
            self.assertTrue(((pixels >= 0) & (pixels <= 1)).all())
            assert_close(fooling.difference, pixels - (image / 2 + 0.5), rtol=0, atol=1e-6)
            self.assertLess(fooling.difference.abs().max(), 0.0991)
            self.assertGreater(fooling.difference.abs().max(), 0)
        self.assertGreaterEqual(fooled, 20)
        self.assertTrue(torch.equal(self.images, draw(4, seed=1)[0]))  # left as they were

    def test_steps_are_counted(self):
        """One step less does not do."""
        foolings = {index: self.fool(index)[2] for index in range(0, 24, 4)}
        steps = {index: fooling.steps for index, fooling in foolings.items() if fooling.fooled}
        index = max(steps, key=steps.get)
        self.assertGreater(steps[index], 1)
        for allowed, fooled in ((steps[index], True), (steps[index] - 1, False)):
            fooling = self.fool(index, steps=allowed)[2]
            self.assertEqual((fooling.fooled, fooling.steps), (fooled, allowed))

    def test_a_step(self):
        """`lr` along the gradient of the target's score, of the pixels that can follow it."""
        image = self.images[:1].clamp(-0.9, 0.9)
        image[:, :, :, :16] = 1  # white: cannot become whiter
        target = int(self.model(image).argmin())
        fooling = insight.make_fooling_image(self.model, image, target, PREPROCESS, 1e-3, steps=1)
        leaf = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.model(leaf)[0, target], leaf)
        follows = torch.where(image == 1, gradient.clamp(max=0), gradient)
        expected = 1e-3 * follows / follows.norm()
        assert_close(fooling.image - image, expected, rtol=1e-3, atol=2e-7)

    def test_other_units(self):
        """Bounds and difference are of pixels, whatever a network's input is normalised by."""
        image = IMAGENET.normalize(torch.randint(256, (1, 32, 32, 3), dtype=torch.uint8))
        target = int(self.model(image).argmin())
        fooling = insight.make_fooling_image(
            self.model, image, target, IMAGENET, steps=10, max_change=0.02
        )
        std = torch.tensor(IMAGENET.std).view(3, 1, 1)
        assert_close(fooling.difference, (fooling.image - image) * std, rtol=0, atol=1e-6)
        pixels = IMAGENET.denormalize(fooling.image)
        self.assertTrue(((pixels > -1e-6) & (pixels < 1 + 1e-6)).all())
        self.assertAlmostEqual(fooling.difference.abs().max().item(), 0.02, delta=1e-5)

    def test_that_class_already(self):
        image, _, fooling = self.fool(0, turn=0)
        self.assertEqual((fooling.fooled, fooling.steps), (True, 0))
        self.assertTrue(torch.equal(fooling.image, image))
        self.assertEqual(fooling.difference.abs().max(), 0)

    def test_out_of_reach(self):
        """A grey level is not enough: it says so after the steps it was given."""
        index = int(self.model(self.images).softmax(1).amax(1).argmax())  # the surest
        _, _, fooling = self.fool(index, steps=7, max_change=1 / 255)
        self.assertEqual((fooling.fooled, fooling.steps), (False, 7))


class ClassTest(unittest.TestCase):
    def visualize(self, targets, **options) -> Tensor:
        options = {"steps": 40, **options}
        return insight.visualize_classes(sign_network(), targets, PREPROCESS, **options)

    def test_every_target_ranks_first(self):
        """Nearly every image is surely its class, from noise that is all one class."""
        seen = []
        every = list(range(len(SIGNS)))
        found = self.visualize(every, watch=lambda *moment: seen.append(moment))
        self.assertEqual(sign_network()(found).argmax(1).tolist(), every)
        self.assertGreater(sign_network()(found).softmax(1).diagonal().min(), 0.9)
        self.assertLessEqual(found.abs().max(), 1)
        self.assertEqual(
            [(step, steps) for step, steps, _ in seen], [(k, 40) for k in range(1, 41)]
        )
        self.assertEqual({images.shape for *_, images in seen}, {(6, 3, 32, 32)})
        self.assertTrue(torch.equal(seen[-1][2], found))

    def test_the_seed_decides(self):
        """One seed, one result, apart from the global generator; a target may repeat."""
        once = self.visualize([2, 2], steps=8)
        torch.rand(1)
        self.assertTrue(torch.equal(once, self.visualize([2, 2], steps=8)))
        self.assertGreater((once - self.visualize([2, 2], steps=8, seed=1)).abs().mean(), 0.05)
        self.assertGreater((once[0] - once[1]).abs().mean(), 0.05)

    def test_rivals_and_penalty(self):
        """Without rivals the target's own score is higher; a heavy penalty keeps images fainter."""
        score = lambda images: sign_network()(images).diagonal().mean()  # noqa: E731
        every = range(len(SIGNS))
        usual, alone = self.visualize(every), self.visualize(every, rival_weight=0)
        self.assertGreater(score(alone), score(usual))
        heavy = self.visualize(every, l2_weight=1)
        self.assertLess(heavy.square().mean(), 0.5 * usual.square().mean())

    def test_jitter(self):
        """Each image moves in its own way, between the values it has; a plain one stays plain."""
        images = torch.rand(1, 3, 32, 32).expand(16, -1, -1, -1)
        moved = insight.jitter(images, torch.Generator().manual_seed(0))
        self.assertTrue(
            torch.equal(moved, insight.jitter(images, torch.Generator().manual_seed(0)))
        )
        self.assertGreaterEqual(moved.min(), images.min() - 1e-6)
        self.assertLessEqual(moved.max(), images.max() + 1e-6)
        distances = torch.cdist(moved.flatten(1), moved.flatten(1))
        self.assertGreater(distances[~torch.eye(16, dtype=torch.bool)].min(), 1)
        plain = torch.full((4, 3, 32, 32), 0.7)
        assert_close(insight.jitter(plain, torch.Generator()), plain)

    def test_jitter_stays_near(self):
        """A tenth of the side, 0.2 rad and a scale by 0.2 along each axis, at the most."""
        axis = torch.linspace(-1, 1, 65)
        plane = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))  # x and y of each pixel
        moved = insight.jitter(plane.expand(200, -1, -1, -1), torch.Generator().manual_seed(0))
        centre = moved[:, :, 32, 32]
        self.assertLess(centre.abs().max(), 0.2 + 1e-2)
        self.assertGreater(centre.abs().max(), 0.15)
        right = moved[:, :, 32, 48] - centre  # halfway to the right edge
        scale = right.norm(dim=1) / plane[0, 32, 48]
        turn = torch.atan2(right[:, 1], right[:, 0])
        steepest = math.atan(1.2 / 0.8 * math.tan(0.2))  # of an axis that is turned and stretched
        for values, most in ((scale - 1, 0.2), (turn, steepest)):
            self.assertLess(values.abs().max(), most + 0.02)
            self.assertGreater(values.abs().max(), 0.15)


class InversionTest(unittest.TestCase):
    def test_the_first_layer_knows_the_image(self):
        """From the first layer it comes back at 25 dB or more (27 measured); deeper ones lose."""
        model = sign_network()
        images = draw(1, seed=1)[0]
        quality = []
        for layer in (model.conv_net[0], model.conv_net[4]):
            found = insight.invert_features(model, layer, images, PREPROCESS, steps=100)
            self.assertLessEqual(found.abs().max(), 1)
            quality.append(insight.psnr(found / 2 + 0.5, images / 2 + 0.5))
        self.assertGreater(quality[0].min(), 25)
        self.assertTrue((quality[1] < quality[0] - 5).all())

    def test_each_image_by_itself(self):
        """Images of a batch do not touch each other: the first is as if it were alone."""
        model, images = sign_network(), draw(1, seed=1)[0][:3]
        layer = model.conv_net[1]
        together = insight.invert_features(model, layer, images, PREPROCESS, steps=4)
        alone = insight.invert_features(model, layer, images[:1], PREPROCESS, steps=4)
        assert_close(together[:1], alone, rtol=0, atol=1e-3)

    def test_total_variation_makes_smooth(self):
        model, images = sign_network(), draw(1, seed=1)[0][:2]
        rough, smooth = (
            insight.invert_features(
                model, model.conv_net[3], images, PREPROCESS, steps=40, tv_weight=weight
            )
            for weight in (0.0, 20.0)
        )
        self.assertTrue((total_variation(smooth) < 0.5 * total_variation(rough)).all())

    def test_psnr_in_closed_form(self):
        """An error of 0.1 everywhere is 20 dB, 0.01 is 40 dB; of an image, not of the batch."""
        references = torch.rand(3, 3, 8, 8, dtype=torch.float64)
        errors = torch.tensor([0.1, -0.01, 1], dtype=torch.float64).view(3, 1, 1, 1)
        expected = torch.tensor([20.0, 40, 0], dtype=torch.float64)
        assert_close(insight.psnr(references + errors, references), expected)


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
            found = insight.sampling_frames(torch.tensor([theta]), 8)[0]
            np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_the_frame_is_where_the_stn_reads(self):
        """What the warp puts into its corner pixel is the input's value near the frame's corner."""
        theta = torch.tensor([[[0.5, 0.1, 0.05], [-0.1, 0.6, -0.1]]])
        size = 64
        positions = torch.arange(size).float()
        plane = torch.stack(torch.meshgrid(positions, positions, indexing="xy"))[None]  # x, y
        read = warp(plane, theta)[0]
        corners = insight.sampling_frames(theta, size)[0]
        for corner, (row, column) in zip(
            corners, ((0, 0), (0, -1), (-1, -1), (-1, 0)), strict=False
        ):
            np.testing.assert_allclose(read[:, row, column], corner, atol=0.6)


if __name__ == "__main__":
    unittest.main()
