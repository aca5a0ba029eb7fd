"""The parts by the book's names: transposed convolution, FCN, VOC's tools."""

import io
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import models

from lab.console import LabError
from tasks.blocks import fold
from tasks.segmentation import (
    FCN,
    VOC_CLASSES,
    VOC_COLORMAP,
    FCNConfig,
    VOCSegDataset,
    bilinear_kernel,
    kernel2matrix,
    read_voc_images,
    trans_conv,
    voc_colormap2label,
    voc_label_indices,
    voc_rand_crop,
)
from tasks.segmentation.labels import IGNORED
from tasks.segmentation.networks import enlarging
from tasks.segmentation.upsampling import overlaps


class TransposedConvolutionTest(unittest.TestCase):
    def test_the_book_s_examples(self):
        """Dive into Deep Learning, 14.10.1 and 14.10.3."""
        x = kernel = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
        expected = [[0, 0, 1], [0, 4, 6], [4, 12, 9]]
        self.assertEqual(trans_conv(x, kernel).tolist(), expected)
        self.assertEqual(trans_conv(x, kernel, padding=1).tolist(), [[4.0]])
        strided = [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]]
        self.assertEqual(trans_conv(x, kernel, stride=2).tolist(), strided)
        kernel = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        matrix = kernel2matrix(kernel, (3, 3))
        self.assertEqual(matrix.shape, (4, 9))
        self.assertEqual(matrix[1].tolist(), [0, 1, 2, 0, 3, 4, 0, 0, 0])

    def test_is_torch_s(self):
        """And so are the rules of shape."""
        x = torch.rand(5, 7)
        for size in ((1, 1), (2, 3), (4, 4)):
            kernel = torch.rand(size)
            for stride in (1, 2, 3):
                for padding in range((min(size) + 1) // 2):
                    y = trans_conv(x, kernel, stride, padding)
                    expected = F.conv_transpose2d(
                        x[None, None], kernel[None, None], stride=stride, padding=padding
                    )[0, 0]
                    torch.testing.assert_close(y, expected)
                    sides = [
                        stride * (n - 1) + k - 2 * padding
                        for n, k in zip(x.shape, size, strict=True)
                    ]
                    self.assertEqual(list(y.shape), sides)

    def test_is_the_convolution_s_transposed_matrix(self):
        """And what flows back through the convolution."""
        for stride in (1, 2):
            kernel, x = torch.rand(3, 2), torch.rand(7, 6, requires_grad=True)
            matrix = kernel2matrix(kernel, (7, 6), stride)
            y = F.conv2d(x[None, None], kernel[None, None], stride=stride)[0, 0]
            torch.testing.assert_close((matrix @ x.ravel()).view(y.shape), y)
            back = torch.rand(y.shape)
            (gradient,) = torch.autograd.grad(y, x, back)
            torch.testing.assert_close(matrix.T @ back.ravel(), gradient.ravel())
            torch.testing.assert_close(trans_conv(back, kernel, stride), gradient)

    def test_bilinear_kernel_doubles_a_picture(self):
        picture = torch.rand(1, 3, 6, 8)
        doubled = F.conv_transpose2d(picture, bilinear_kernel(3, 3, 4), stride=2, padding=1)
        expected = F.interpolate(picture, scale_factor=2, mode="bilinear")
        self.assertEqual(doubled.shape, (1, 3, 12, 16))
        inner = (..., slice(1, -1), slice(1, -1))
        torch.testing.assert_close(doubled[inner], expected[inner])
        layer = enlarging(3, 32)
        large = layer(picture)[..., 16:-16, 16:-16]
        expected = F.interpolate(picture, scale_factor=32, mode="bilinear")[..., 16:-16, 16:-16]
        torch.testing.assert_close(large, expected)

    def test_checkerboard(self):
        """Of kernel 3 and stride 2 neighbours have 1, 2 or 4 inputs; of kernel 4, 4 within."""
        board = overlaps(6, 3, 2)
        self.assertEqual(board[2, 2:8].tolist(), [4, 2, 4, 2, 4, 2])
        self.assertEqual(board[3, 3:6].tolist(), [1, 2, 1])
        self.assertEqual(overlaps(6, 4, 2)[2:-2, 2:-2].unique().tolist(), [4])


class FCNTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        cls.networks = {finest: FCN(FCNConfig(5, finest)).eval() for finest in (32, 16, 8)}

    @torch.inference_mode()
    def test_sizes(self):
        for network in self.networks.values():
            self.assertEqual(network(torch.rand(2, 3, 64, 96)).shape, (2, 5, 64, 96))
            self.assertEqual(network.segment(torch.rand(1, 3, 61, 45)).shape, (1, 5, 61, 45))

    def test_the_book_s_layers(self):
        """Kernel 64, stride 32, padding 16, bilinear at first; two layers of ResNet-18 less."""
        network = self.networks[32]
        (layer,) = network.upsample
        self.assertEqual((layer.kernel_size, layer.stride, layer.padding),
                         ((64, 64), (32, 32), (16, 16)))  # fmt: skip
        self.assertTrue(torch.equal(layer.weight, bilinear_kernel(5, 5, 64)))
        published = models.resnet18().state_dict()
        own = network.body.state_dict()
        self.assertEqual(set(published) - set(own), {"fc.weight", "fc.bias"})
        self.assertTrue(all(own[name].shape == published[name].shape for name in own))

    @torch.inference_mode()
    def test_is_torchvision_s_body(self):
        """On images as ImageNet's weights want them."""
        network, reference = self.networks[32], models.resnet18().eval()
        reference.load_state_dict(network.body.state_dict(), strict=False)
        body = torch.nn.Sequential(*list(reference.children())[:-2])
        pixels = torch.rand(1, 3, 64, 64)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        expected = body((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        torch.testing.assert_close(network.maps(2 * pixels - 1)[0], expected, atol=1e-4, rtol=1e-3)

    @torch.inference_mode()
    def test_skips_by_hand(self):
        """Long et al.: the coarse scores twice as large, plus those of the finer map, and on."""
        network, images = FCN(FCNConfig(5, 8)).eval(), torch.rand(1, 3, 64, 64)
        for skip in network.scores:
            torch.nn.init.normal_(skip.weight)
        coarse, middle, fine = (
            score(x) for score, x in zip(network.scores, network.maps(images), strict=True)
        )
        first, second, last = network.upsample
        self.assertEqual([layer.stride[0] for layer in network.upsample], [2, 2, 8])
        expected = last(second(first(coarse) + middle) + fine)
        torch.testing.assert_close(network(images), expected)

    @torch.inference_mode()
    def test_new_skips_change_nothing(self):
        """FCN-16s begins as the bilinear one of 32: its skips are 0."""
        network, images = self.networks[16], torch.rand(1, 3, 96, 96)
        coarse = network.scores[0](network.maps(images)[0])
        expected = network.upsample[1](network.upsample[0](coarse))
        torch.testing.assert_close(network(images), expected)

    @torch.inference_mode()
    def test_folded_is_the_same(self):
        images, network = torch.rand(1, 3, 64, 64), FCN(FCNConfig(3, 8))
        network.train()(torch.rand(4, 3, 64, 64))  # so that batch norms do something
        expected = network.eval()(images)
        torch.testing.assert_close(fold(network)(images), expected, atol=1e-3, rtol=1e-3)


class VocTest(unittest.TestCase):
    def setUp(self):
        self.temp = tempfile.TemporaryDirectory()
        self.addCleanup(self.temp.cleanup)
        self.kit = Path(self.temp.name)
        rng = np.random.default_rng(0)
        self.numbers = {}
        for name, size in (("large", (30, 40)), ("small", (10, 12))):
            numbers = rng.integers(0, 21, size).astype(np.uint8)
            numbers[0, 0] = 255
            image = Image.fromarray(numbers)
            palette = [*VOC_COLORMAP, *[(0, 0, 0)] * 234, (224, 224, 192)]
            image.putpalette([level for colour in palette for level in colour])
            for folder in ("SegmentationClass", "JPEGImages", "ImageSets/Segmentation"):
                (self.kit / folder).mkdir(parents=True, exist_ok=True)
            image.save(self.kit / "SegmentationClass" / f"{name}.png")
            picture = Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8))
            picture.save(self.kit / "JPEGImages" / f"{name}.jpg")
            self.numbers[name] = numbers
        for mode, text in (("train", "large\nsmall\n"), ("val", "small\n")):
            (self.kit / "ImageSets" / "Segmentation" / f"{mode}.txt").write_text(text)

    def test_colours_to_classes_and_back(self):
        features, labels = read_voc_images(self.kit, is_train=True)
        self.assertEqual([tuple(each.shape) for each in features], [(3, 30, 40), (3, 10, 12)])
        table = voc_colormap2label()
        for label, numbers in zip(labels, self.numbers.values(), strict=True):
            np.testing.assert_array_equal(voc_label_indices(label, table), numbers)
        self.assertEqual(len(read_voc_images(self.kit, is_train=False)[0]), 1)
        self.assertEqual(VOC_CLASSES[15], "person")
        self.assertEqual(VOC_COLORMAP[15], (192, 128, 128))

    def test_what_is_in_no_palette(self):
        label = torch.zeros(3, 4, 5, dtype=torch.uint8)
        label[:, 2, 3] = torch.tensor([1, 2, 3])
        with self.assertRaisesRegex(LabError, r"the colour \(1, 2, 3\) at 3, 2 is none of VOC's"):
            voc_label_indices(label, voc_colormap2label())
        with self.assertRaisesRegex(LabError, "train.txt"):
            read_voc_images(self.kit / "nothing")

    def test_crops_both_alike(self):
        label = torch.arange(30 * 40).view(30, 40)
        feature = label.expand(3, -1, -1) * 2
        places = set()
        for _ in range(30):
            part, own = voc_rand_crop(feature, label, 20, 30)
            self.assertEqual((part.shape, own.shape), ((3, 20, 30), (20, 30)))
            self.assertTrue(torch.equal(part[1], 2 * own))
            places.add(int(own[0, 0]))
        self.assertGreater(len(places), 15)

    def test_data_set(self):
        """Parts of what is large enough, as ImageNet's networks take them."""
        with redirect_stdout(io.StringIO()) as said:
            dataset = VOCSegDataset(True, (30, 40), self.kit)
        self.assertEqual((len(dataset), said.getvalue()), (1, "read 1 examples\n"))
        feature, label = dataset[0]
        np.testing.assert_array_equal(label, self.numbers["large"])
        self.assertEqual(label[0, 0], IGNORED)
        pixels = np.array(Image.open(self.kit / "JPEGImages" / "large.jpg")) / 255
        expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(feature.permute(1, 2, 0), expected, atol=1e-5)


if __name__ == "__main__":
    unittest.main()
