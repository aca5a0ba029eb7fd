"""The spatial transformer: identity, known transforms, gradients, and that it learns to undo."""

import math
import unittest

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from networks import STN, ConvBlock, warp


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


def theta(*rows: tuple[float, float, float], count: int = 1, **options) -> Tensor:
    """Return a 2x3 matrix, (count, 2, 3); it takes output positions (x right, y down) to input."""
    return torch.tensor([rows], **options).expand(count, 2, 3)


def warp_by_loops(image: Tensor, matrix: Tensor) -> Tensor:
    """Jaderberg et al. 2015, equations 1 and 5, a pixel at a time: image (C, H, W)."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            # Pixel centres, with the image's edges at -1 and 1.
            x, y = (2 * column + 1) / width - 1, (2 * row + 1) / height - 1
            source_x, source_y = (matrix @ matrix.new_tensor([x, y, 1])).tolist()
            u, v = ((source_x + 1) * width - 1) / 2, ((source_y + 1) * height - 1) / 2
            for i in (math.floor(v), math.floor(v) + 1):
                for j in (math.floor(u), math.floor(u) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        weight = (1 - abs(u - j)) * (1 - abs(v - i))
                        out[:, row, column] += weight * image[:, i, j]
    return out


class WarpTest(unittest.TestCase):
    """Known matrices, for which the answer is a flip, a roll or a crop."""

    def setUp(self):
        torch.manual_seed(0)
        self.images = torch.randn(2, 3, 32, 32)

    def warped(self, *rows: tuple[float, float, float]) -> Tensor:
        return warp(self.images, theta(*rows, count=2))

    def test_rotation_by_90_degrees(self):
        """Output (x, y) shows input (-y, x): what was at the bottom right is at the top right.

        Top right is (1, -1), which reads (1, 1), the bottom right: a turn against the clock.
        """
        turned = self.warped((0.0, -1.0, 0.0), (1.0, 0.0, 0.0))
        assert_close(turned, torch.rot90(self.images, 1, (2, 3)), atol=1e-5, rtol=0)
        assert_close(turned[:, :, 0, -1], self.images[:, :, -1, -1], atol=1e-5, rtol=0)

    def test_rotation_by_180_degrees(self):
        turned = self.warped((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
        assert_close(turned, self.images.flip(2, 3), atol=1e-5, rtol=0)

    def test_mirror(self):
        """x to -x exchanges left and right, y to -y top and bottom."""
        mirrored = self.warped((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
        assert_close(mirrored, self.images.flip(3), atol=1e-5, rtol=0)
        mirrored = self.warped((1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
        assert_close(mirrored, self.images.flip(2), atol=1e-5, rtol=0)

    def test_shift_by_whole_pixels(self):
        """A pixel is 2 / 32 wide. Reading 3 to the right and 5 above moves the picture left, down.

        Zeros come in where the picture has left.
        """
        shifted = self.warped((1.0, 0.0, 3 * 2 / 32), (0.0, 1.0, -5 * 2 / 32))
        expected = self.images.roll((5, -3), (2, 3))
        expected[:, :, :5, :] = 0
        expected[:, :, :, -3:] = 0
        assert_close(shifted, expected, atol=1e-5, rtol=0)

    def test_zoom_by_2(self):
        """Half the extent is read: the centre 16x16, each pixel drawn 2 wide and interpolated."""
        zoomed = self.warped((0.5, 0.0, 0.0), (0.0, 0.5, 0.0))
        # The two drawn for pixel i are read at i - 1/4 and i + 1/4, i.e. 3/4 of it and 1/4 of a
        # neighbour; so their mean is 1/8, 3/4, 1/8 of the three, in each direction.
        kernel = torch.tensor([1 / 8, 3 / 4, 1 / 8])
        kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
        expected = F.conv2d(self.images[:, :, 7:25, 7:25], kernel, groups=3)  # (2, 3, 16, 16)
        assert_close(F.avg_pool2d(zoomed, 2), expected, atol=1e-5, rtol=0)

    def test_any_matrix_equals_loops(self):
        """Bilinear interpolation between pixel centres, black outside; height is not width."""
        torch.manual_seed(1)
        images = torch.rand(3, 2, 6, 9)
        matrices = torch.eye(2, 3) + 0.4 * torch.randn(3, 2, 3)
        expected = [warp_by_loops(*pair) for pair in zip(images, matrices, strict=True)]
        assert_close(warp(images, matrices), torch.stack(expected), atol=1e-5, rtol=0)

    def test_gradients_equal_finite_differences(self):
        """By the images and by theta (equations 6 and 7), in double precision."""
        torch.manual_seed(0)
        images = torch.rand(2, 2, 5, 6, dtype=torch.double, requires_grad=True)
        rows = (0.83, -0.31, 0.17), (0.29, 0.91, -0.11)  # no sample lies on a pixel, a kink
        matrices = theta(*rows, count=2, dtype=torch.double).clone().requires_grad_()
        self.assertTrue(torch.autograd.gradcheck(warp, (images, matrices)))

    def test_theta_keeps_its_precision_under_autocast(self):
        """In bf16 the sampling positions would be off by several hundredths of a pixel."""
        rows = (0.98, 0.12, 0.11), (-0.12, 0.93, -0.32)
        expected = self.warped(*rows)
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(self.warped(*rows), expected, atol=1e-5, rtol=0)


class STNTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_untrained_is_the_identity(self):
        """To 1e-6, on one image and on a batch, in evaluation and in training mode.

        Batch norm over vectors cannot train on a single image, so there a batch alone is tried.
        """
        for count, training in ((1, False), (8, False), (8, True)):
            with self.subTest(count=count, training=training):
                images = torch.randn(count, 3, 32, 32)
                out = STN(3).train(training)(images)
                self.assertLess((out - images).abs().max(), 1e-6)

    def test_untrained_theta_is_the_identity(self):
        """Whatever the image: the last layer's weight is 0, its bias the identity matrix."""
        expected = torch.eye(2, 3).expand(4, 2, 3)
        self.assertTrue(torch.equal(STN(3).localize(torch.randn(4, 3, 32, 32)), expected))

    def test_layout(self):
        """Three stride-2 convolutions with BN and ReLU, channels doubling; two linear layers."""
        model = STN(1)
        blocks = list(model.localization_conv)
        self.assertEqual(len(blocks), 3)
        for block in blocks:
            self.assertIsInstance(block, ConvBlock)
            self.assertIsInstance(block.bn, nn.BatchNorm2d)
            self.assertIsInstance(block.relu, nn.ReLU)
            self.assertEqual(block.conv.stride, (2, 2))
            self.assertFalse(block.use_residual)
        first, second, third = (block.conv for block in blocks)
        self.assertEqual(first.in_channels, 1)
        self.assertEqual(second.out_channels, 2 * first.out_channels)
        self.assertEqual(third.out_channels, 2 * second.out_channels)
        kinds = [type(layer) for layer in model.localization_fc]
        self.assertEqual(kinds, [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear])
        self.assertEqual(model.localization_fc[-1].out_features, 6)
        self.assertEqual(model.localization_conv(torch.zeros(2, 1, 32, 32)).shape[2:], (4, 4))

    def test_forward_is_warp_by_localize(self):
        """The picture is sampled by the matrix that the network makes of that very picture."""
        model = STN(3).eval()
        nn.init.normal_(model.localization_fc[-1].weight, std=0.1)
        images = torch.randn(4, 3, 32, 32)
        matrices = model.localize(images)
        self.assertGreater(matrices.std(0).max(), 0.01)  # one a picture, not one for all
        assert_close(model(images), warp(images, matrices))

    def test_gradient_reaches_every_parameter(self):
        """The untrained last layer learns at once; with its weight not 0, so do all before it."""
        model = STN(3)
        images, target = torch.rand(2, 8, 3, 32, 32)
        F.mse_loss(model(images), target).backward()
        for parameter in model.localization_fc[-1].parameters():
            self.assertGreater(parameter.grad.abs().max(), 1e-6)

        nn.init.normal_(model.localization_fc[-1].weight, std=0.1)
        model.zero_grad()
        F.mse_loss(model(images), target).backward()
        for name, parameter in model.named_parameters():
            if name.endswith("conv.bias") or name == "localization_fc.0.bias":
                continue  # the batch norm behind it takes any constant out again: its gradient is 0
            with self.subTest(name):
                self.assertGreater(parameter.grad.abs().max(), 1e-6)

    def test_theta_is_float32_under_autocast(self):
        model, images = STN(3), torch.randn(4, 3, 32, 32)
        with torch.autocast("cpu", torch.bfloat16):
            self.assertEqual(model.localization_conv(images).dtype, torch.bfloat16)
            self.assertEqual(model.localize(images).dtype, torch.float32)
            out = model(images)
        self.assertEqual(out.dtype, torch.float32)
        self.assertLess((out - images).abs().max(), 1e-6)

    def test_learns_to_undo_a_shift(self):
        """Shown one pattern shifted by up to 5 pixels, it learns to bring it back.

        On shifts not trained on, the error falls to a fifth of the untrained one.
        """
        across, down = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="xy")

        def blob(column: int, row: int) -> Tensor:
            return torch.exp(-((across - column) ** 2 + (down - row) ** 2) / 30)

        pattern = torch.stack([blob(16, 16), blob(12, 20), blob(20, 14)])  # (3, 32, 32)

        def shifted(count: int) -> Tensor:
            shift = torch.eye(2, 3).repeat(count, 1, 1)
            shift[:, :, 2] = (torch.rand(count, 2) * 2 - 1) * 5 * 2 / 32
            return warp(pattern.expand(count, 3, 32, 32), shift)

        model, unseen = STN(3), shifted(64)
        untrained = F.mse_loss(model.eval()(unseen), pattern.expand_as(unseen)).item()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        model.train()
        for _ in range(60):
            images = shifted(16)
            loss = F.mse_loss(model(images), pattern.expand_as(images))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        trained = F.mse_loss(model.eval()(unseen), pattern.expand_as(unseen)).item()
        self.assertLess(trained, untrained / 5)


if __name__ == "__main__":
    unittest.main()
