"""The assignment's paper questions, answered by hand, by torch and by the project's networks.

An answer that is worked out here is the reference of `networks.py`: sizes, numbers of parameters,
batch norm, pooling and both passes of a convolution are those that the networks must have.
"""

import math
import unittest
from fractions import Fraction
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from lab.runtime import Runtime
from networks import STN, Classifier, ConvBlock, MnistCNN
from tasks.classification.objective import ClassificationObjective


def cross_correlate(x: Tensor, w: Tensor, b: float = 0.0) -> Tensor:
    """Slide w over x and sum the products: what deep learning calls a convolution.

    Y[i, j] = sum over u, v of X[i + u, j + v] W[u, v] + b
    """
    height, width = x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1
    y = torch.full((height, width), b)
    for i, j in product(range(height), range(width)):
        for u, v in product(range(w.shape[0]), range(w.shape[1])):
            y[i, j] += x[i + u, j + v] * w[u, v]
    return y


def max_pool(x: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Return the maximum of each window and its place in x; the padding never wins."""
    height, width = ((size + 2 * padding - kernel) // stride + 1 for size in x.shape)
    y = torch.full((height, width), -math.inf)
    places = torch.zeros(height, width, 2, dtype=torch.int64)
    for i, j in product(range(height), range(width)):
        for u, v in product(range(kernel), range(kernel)):
            row, column = i * stride - padding + u, j * stride - padding + v
            inside = 0 <= row < x.shape[0] and 0 <= column < x.shape[1]
            if inside and x[row, column] > y[i, j]:
                y[i, j] = x[row, column]
                places[i, j] = torch.tensor([row, column])
    return y, places


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def block_of(w: Tensor, b: float = 0.0, padding: int = 0, **options: bool) -> ConvBlock:
    """Return a ConvBlock of one channel with the kernel w and the bias b."""
    block = ConvBlock(1, 1, len(w), 1, padding, **options)
    with torch.no_grad():
        block.conv.weight.copy_(w)
        block.conv.bias.fill_(b)
    return block


def layers_and_sizes(
    model: nn.Module, layers: nn.Sequential, x: Tensor
) -> list[tuple[nn.Module, int]]:
    """Return those of `layers` that slide a window, each with the height of what it puts out."""
    found = []
    for layer in layers:
        if isinstance(layer, ConvBlock | nn.MaxPool2d):
            layer.register_forward_hook(lambda layer, _, y: found.append((layer, y.shape[2])))
    model.eval()(x)
    return found


def window(layer: nn.Module) -> tuple[int, int, int]:
    """Return kernel size, stride and padding of a block or pooling."""
    if isinstance(layer, ConvBlock):
        layer = layer.conv
        return layer.kernel_size[0], layer.stride[0], layer.padding[0]
    return layer.kernel_size, layer.stride, layer.padding


class OutputSize(unittest.TestCase):
    """A kernel of k taps, d apart, covers d (k - 1) + 1 positions of the l + 2 p there are."""

    def test_size_of_a_convolution(self):
        """It is floor((l + 2p - d(k - 1) - 1) / s) + 1: as counted in a loop, and as in torch."""
        for l, k, s, p, d in product((5, 8, 32), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2, 3)):  # noqa: E741
            closed_form = (l + 2 * p - d * (k - 1) - 1) // s + 1

            counted, first_tap = 0, -p
            while first_tap + d * (k - 1) <= l - 1 + p:  # the last tap is still inside
                counted += 1
                first_tap += s

            conv, x = nn.Conv1d(1, 1, k, s, p, d), torch.zeros(1, 1, l)
            with self.subTest(l=l, k=k, s=s, p=p, d=d):
                if l + 2 * p < d * (k - 1) + 1:  # the kernel does not fit even once
                    self.assertEqual(counted, 0)
                    self.assertLessEqual(closed_form, 0)
                    self.assertRaises(RuntimeError, conv, x)
                else:
                    self.assertEqual(counted, closed_form)
                    self.assertEqual(conv(x).shape[-1], closed_form)
                    if d == 1:
                        y = ConvBlock(1, 1, k, s, p)(torch.zeros(1, 1, l, l + 1))
                        self.assertEqual(y.shape[2], closed_form)

    def test_sizes_by_hand(self):
        """Same padding keeps 32; stride 2 halves it; k = 3 with d = 2 acts as wide as k = 5."""
        for size, arguments in (
            (32, dict(kernel_size=5, stride=1, padding=2)),  # (32 + 4 - 4 - 1) / 1 + 1
            (16, dict(kernel_size=5, stride=2, padding=2)),  # floor(31 / 2) + 1
            (28, dict(kernel_size=5)),  # (32 - 4 - 1) + 1
            (28, dict(kernel_size=3, dilation=2)),  # (32 - 2 * 2 - 1) + 1
        ):
            with self.subTest(**arguments):
                y = nn.Conv2d(3, 8, **arguments)(torch.zeros(1, 3, 32, 32))
                self.assertEqual(tuple(y.shape), (1, 8, size, size))

    def test_sizes_inside_the_networks(self):
        """Padding (k - 1) / 2 keeps the size, stride 2 halves it; MNIST's has no padding."""
        classifier, mnist, stn = Classifier(3, 26), MnistCNN(1, 10), STN(3)
        for model, layers, size, by_hand in (
            (classifier, classifier.conv_net, 32, (32, 16, 8, 8, 8, 4, 4)),
            (mnist, mnist.conv_net, 28, (26, 13, 11, 5)),
            (stn, stn.localization_conv, 32, (16, 8, 4)),
        ):
            channels = layers[0].conv.in_channels
            found = layers_and_sizes(model, layers, torch.zeros(1, channels, size, size))
            with self.subTest(type(model).__name__):
                self.assertEqual(tuple(height for _, height in found), by_hand)
                for layer, height in found:
                    k, s, p = window(layer)
                    size = (size + 2 * p - (k - 1) - 1) // s + 1
                    self.assertEqual(height, size)


class ReceptiveField(unittest.TestCase):
    """A layer of kernel k widens the field r by (k - 1) j, where j is the step of its input.

    r = r + (k - 1) j,  j = j s;  from r = j = 1, a pixel of the image
    """

    # kernel, stride, field and step after it, of Classifier.conv_net
    BY_HAND = (
        (5, 1, 1 + 4 * 1, 1),
        (5, 2, 5 + 4 * 1, 2),
        (2, 2, 9 + 1 * 2, 4),  # pooling
        (3, 1, 11 + 2 * 4, 4),
        (3, 1, 19 + 2 * 4, 4),
        (2, 2, 27 + 1 * 4, 8),  # pooling
        (3, 1, 31 + 2 * 8, 8),  # 47: from the last layer's middle, more than the image of 32
    )

    def test_of_the_classifier(self):
        """Of an image with one bright pixel, the output sees it from anywhere in its field."""
        layers = Classifier(1, 2).eval().conv_net[: len(self.BY_HAND)]
        for layer in layers:
            if isinstance(layer, ConvBlock):
                nn.init.ones_(layer.conv.weight)
                nn.init.zeros_(layer.conv.bias)
        width = 80
        images = torch.zeros(width, 1, 16, width)  # the pixel of image i is the i-th of a row
        images[torch.arange(width), 0, 8, torch.arange(width)] = 1
        field, step = 1, 1
        for layer, (kernel, stride, field_by_hand, step_by_hand) in zip(
            layers, self.BY_HAND, strict=True
        ):
            with torch.inference_mode():
                images = layer(images)  # (80, C, H, W)
            field, step = field + (kernel - 1) * step, step * stride
            self.assertEqual((field, step), (field_by_hand, step_by_hand))
            row, column = images.shape[2] // 2, images.shape[3] // 2
            self.assertEqual(int((images[:, 0, row, column] > 0).sum()), field)
            self.assertEqual(width // images.shape[3], step)


class NumberOfParameters(unittest.TestCase):
    """Each output channel of a convolution has a weight a tap and input channel, and a bias."""

    def test_of_a_block(self):
        """C_out (C_in k^2 + 1), and with batch norm a scale and a shift a channel."""
        for c_in, c_out, k in product((3, 32), (8, 64), (3, 5)):
            with self.subTest(c_in=c_in, c_out=c_out, k=k):
                counts = [
                    parameters(ConvBlock(c_in, c_out, k, 1, 0, use_batch_norm=bn))
                    for bn in (False, True)
                ]
                ordinary = c_out * (c_in * k**2 + 1)
                self.assertEqual(counts, [ordinary, ordinary + 2 * c_out])

    def test_of_the_classifier(self):
        """Five blocks, two linear layers; what the README says of it."""
        plain = (
            32 * (3 * 5**2 + 1)
            + 64 * (32 * 5**2 + 1)
            + 64 * (64 * 3**2 + 1)
            + 128 * (64 * 3**2 + 1)
            + 128 * (128 * 3**2 + 1)
            + 256 * (128 * 4**2 + 1)
            + 26 * (256 + 1)
        )
        normalised = plain + 2 * (32 + 64 + 64 + 128 + 128 + 256)
        transformer = (
            16 * (3 * 5**2 + 1)
            + 32 * (16 * 3**2 + 1)
            + 64 * (32 * 3**2 + 1)
            + 128 * (64 * 4**2 + 1)
            + 6 * (128 + 1)
            + 2 * (16 + 32 + 64 + 128)  # batch norms
        )
        self.assertEqual(
            (plain, normalised, normalised + transformer), (843_290, 844_634, 1_001_440)
        )
        self.assertEqual(parameters(Classifier(3, 26)), plain)
        self.assertEqual(parameters(Classifier(3, 26, use_batch_norm=True)), normalised)
        both = Classifier(3, 26, use_batch_norm=True, use_stn=True)
        self.assertEqual(parameters(both), normalised + transformer)


class DepthwiseSeparable(unittest.TestCase):
    """One k x k filter a channel, then a 1x1 convolution that mixes the channels."""

    CASES = tuple(product((3, 32, 64), (8, 64, 128), (3, 5)))  # C_in, C_out, k

    @staticmethod
    def layers(c_in: int, c_out: int, k: int, bias: bool) -> tuple[nn.Module, nn.Module]:
        """Return the ordinary convolution and the separable one in its place."""
        ordinary = nn.Conv2d(c_in, c_out, k, bias=bias)
        separable = nn.Sequential(
            nn.Conv2d(c_in, c_in, k, groups=c_in, bias=bias), nn.Conv2d(c_in, c_out, 1, bias=bias)
        )
        return ordinary, separable

    def test_without_bias(self):
        """C_in k^2 + C_in C_out against C_in C_out k^2 parameters: 1/C_out + 1/k^2 of them."""
        for c_in, c_out, k in self.CASES:
            with self.subTest(c_in=c_in, c_out=c_out, k=k):
                ordinary, separable = map(parameters, self.layers(c_in, c_out, k, bias=False))
                self.assertEqual(ordinary, c_in * c_out * k**2)
                self.assertEqual(separable, c_in * k**2 + c_in * c_out)
                ratio = Fraction(separable, ordinary)
                self.assertEqual(ratio, Fraction(1, c_out) + Fraction(1, k**2))
                self.assertLess(ratio, 1)

    def test_with_bias(self):
        """Biases add C_out to the one and C_in + C_out to the other; it still has fewer."""
        for c_in, c_out, k in self.CASES:
            with self.subTest(c_in=c_in, c_out=c_out, k=k):
                ordinary, separable = map(parameters, self.layers(c_in, c_out, k, bias=True))
                self.assertEqual(ordinary, c_out * (c_in * k**2 + 1))
                self.assertEqual(separable, c_in * (k**2 + 1) + c_out * (c_in + 1))
                self.assertLess(separable, ordinary)

    def test_it_is_a_special_case(self):
        """It computes the ordinary convolution of weight W[o, i] = pointwise[o, i] depthwise[i]."""
        torch.manual_seed(0)
        _, separable = self.layers(3, 8, 3, bias=False)
        depthwise = separable[0].weight  # (3, 1, 3, 3)
        pointwise = separable[1].weight  # (8, 3, 1, 1)
        x = torch.randn(2, 3, 9, 9)
        block = ConvBlock(3, 8, 3, 1, 0)
        with torch.no_grad():
            block.conv.weight.copy_(pointwise * depthwise[:, 0])  # (8, 3, 3, 3)
            block.conv.bias.zero_()
        assert_close(separable(x), block.conv(x), rtol=1e-5, atol=1e-5)
        assert_close(separable(x).relu(), block(x), rtol=1e-5, atol=1e-5)


class BatchNorm(unittest.TestCase):
    """y = (x - mean) / sqrt(variance + eps); scale 1, shift 0."""

    def setUp(self):
        self.mean, self.variance = torch.tensor([0.4]), torch.tensor([0.25])
        self.x = torch.tensor([[0.8], [-0.4]])

    def test_at_test_time(self):
        """Running mean 0.4, variance 0.25: (0.8 - 0.4) / 0.5 = 0.8, (-0.4 - 0.4) / 0.5 = -1.6."""
        answer = torch.tensor([[0.8], [-1.6]])
        assert_close((self.x - 0.4) / math.sqrt(0.25), answer)
        assert_close(F.batch_norm(self.x, self.mean, self.variance, eps=1e-12), answer)

    def test_in_training(self):
        """The batch's own mean 0.2 and deviation 0.6 count instead: (0.8 - 0.2) / 0.6 = 1, -1."""
        normalised = F.batch_norm(self.x, self.mean, self.variance, training=True, eps=1e-12)
        assert_close(normalised, torch.tensor([[1.0], [-1.0]]))

    def test_in_a_block(self):
        """Its convolution passes x on, and the activation takes what is below 0.

        In training, the running values go a tenth of the way to the batch's:
        0.4 + (0.2 - 0.4) / 10 = 0.38, 0.25 + (0.72 - 0.25) / 10 = 0.297; the variance over n - 1.
        """
        block = block_of(torch.ones(1, 1), use_batch_norm=True)
        block.bn.running_mean.copy_(self.mean)
        block.bn.running_var.copy_(self.variance)
        x = self.x[:, :, None, None]  # (2, 1, 1, 1)
        close = {"rtol": 1e-4, "atol": 1e-5}  # its epsilon is 1e-5
        assert_close(block.eval()(x).flatten(), torch.tensor([0.8, 0.0]), **close)
        assert_close(block.bn(x).flatten(), torch.tensor([0.8, -1.6]), **close)
        assert_close(block.train()(x).flatten(), torch.tensor([1.0, 0.0]), **close)
        assert_close(block.bn.running_mean, torch.tensor([0.38]))
        assert_close(block.bn.running_var, torch.tensor([0.297]))
        assert_close(block.bn(x).flatten(), torch.tensor([1.0, -1.0]), **close)


class CrossEntropy(unittest.TestCase):
    """p = softmax(z), L = - sum over classes of t log p, and dL/dz = p - t; means over the images.

    t is 1 for the label; smoothed by a share e over K classes, (1 - e) + e / K there, e / K else.
    """

    # e^z is (1, 2, 1) and (1, 1, 8), so p is (1/4, 1/2, 1/4) and (1/10, 1/10, 8/10).
    LOGITS = torch.tensor([[1.0, 2, 1], [1, 1, 8]]).log()
    LABELS = torch.tensor([1, 0])
    GRAD = torch.tensor([[0.25, 0.5 - 1, 0.25], [0.1 - 1, 0.1, 0.8]]) / 2
    # With e = 0.3, t is (0.1, 0.8, 0.1) and (0.8, 0.1, 0.1).
    SMOOTHED = torch.tensor([[0.25 - 0.1, 0.5 - 0.8, 0.25 - 0.1], [0.1 - 0.8, 0, 0.8 - 0.1]]) / 2

    def test_of_the_task(self):
        """What train.py minimises; the logits stand for a network."""
        for smoothing, gradient in ((0.0, self.GRAD), (0.3, self.SMOOTHED)):
            logits = self.LOGITS.clone().requires_grad_()
            loss, figures = ClassificationObjective(smoothing).loss(
                nn.Identity(), logits, self.LABELS
            )
            loss.backward()
            with self.subTest(smoothing=smoothing):
                assert_close(logits.grad, gradient)
                self.assertEqual(figures["accuracy"], 0.5)  # the second is taken for class 2
                if not smoothing:
                    self.assertAlmostEqual(loss.item(), (math.log(2) + math.log(10)) / 2, places=6)
        _, figures = ClassificationObjective().loss(
            nn.Identity(), self.LOGITS, torch.tensor([1, 2])
        )
        self.assertEqual(figures["accuracy"], 1)
        smoothed = (0.1 * 2 * math.log(4) + 0.8 * math.log(2)) / 2
        smoothed += (0.8 * math.log(10) + 0.1 * math.log(10) + 0.1 * math.log(10 / 8)) / 2
        self.assertAlmostEqual(loss.item(), smoothed, places=6)

    def test_of_the_meter(self):
        """What a split is measured by: in batches of any size, and never smoothed."""
        meter = ClassificationObjective(label_smoothing=0.3).meter()
        meter.update(nn.Identity(), self.LOGITS, self.LABELS)
        meter.update(nn.Identity(), self.LOGITS[:1], self.LABELS[:1])
        figures = meter.compute(Runtime(torch.device("cpu")))
        self.assertAlmostEqual(figures["loss"], (2 * math.log(2) + math.log(10)) / 3, places=6)
        self.assertAlmostEqual(figures["accuracy"], 2 / 3)


class MaxPooling(unittest.TestCase):
    """Kernel 2, stride 2, padding 1; the padding is minus infinity, written . here.

           .  .  .  .  .  .
           .  3 -1 -3  2  .        windows:  . .   .  .   .  .    .  .    .  .   .  .
    X  =   .  2  4  1 -2  .                  . 3  -1 -3   2  .    . 2    4  1   -2  .
           .  .  .  .  .  .
    """

    X = torch.tensor([[3.0, -1, -3, 2], [2, 4, 1, -2]])
    Y = torch.tensor([[3.0, -1, 2], [2, 4, -2]])
    GRAD_Y = torch.tensor([[-0.1, 0.2, 0.1], [0.2, -0.3, -0.1]])
    # Each entry of GRAD_Y goes to the maximum of its window; the others, -3 and 1, get nothing.
    GRAD_X = torch.tensor([[-0.1, 0.2, 0, 0.1], [0.2, -0.3, 0, -0.1]])

    def test_forward(self):
        y, _ = max_pool(self.X, 2, 2, 1)
        assert_close(y, self.Y)
        assert_close(F.max_pool2d(self.X[None], 2, 2, 1)[0], self.Y)

    def test_backward(self):
        _, places = max_pool(self.X, 2, 2, 1)
        grad_x = torch.zeros_like(self.X)
        for i, j in product(range(2), range(3)):
            row, column = places[i, j]
            grad_x[row, column] += self.GRAD_Y[i, j]
        assert_close(grad_x, self.GRAD_X)

        x = self.X.clone().requires_grad_()
        F.max_pool2d(x[None], 2, 2, 1)[0].backward(self.GRAD_Y)
        assert_close(x.grad, self.GRAD_X)

    def test_padding_is_not_zero(self):
        """Zeros would win over the windows whose entries are all negative."""
        zero_padded = F.max_pool2d(F.pad(self.X, (1, 1, 1, 1))[None], 2, 2)[0]
        assert_close(zero_padded, torch.tensor([[3.0, 0, 2], [2, 4, 0]]))

    def test_in_the_networks(self):
        """They pool 2x2 without padding: here to 4 and 2, whose places alone get a gradient."""
        y_by_hand = torch.tensor([[4.0, 2.0]])
        grad_x = torch.tensor([[0, 0, 0, 0.1], [0, -0.3, 0, 0]])
        y, places = max_pool(self.X, 2, 2, 0)
        assert_close(y, y_by_hand)
        self.assertEqual(places.tolist(), [[[1, 1], [0, 3]]])
        for layers in (Classifier(3, 26).conv_net, MnistCNN(1, 10).conv_net):
            pools = [layer for layer in layers if isinstance(layer, nn.MaxPool2d)]
            self.assertEqual(len(pools), 2)
            for pool in pools:
                x = self.X.clone().requires_grad_()
                y = pool(x[None])[0]
                assert_close(y, y_by_hand)
                y.backward(torch.tensor([[-0.3, 0.1]]))
                assert_close(x.grad, grad_x)


class Convolution(unittest.TestCase):
    """Forward and backward pass of one 2x2 filter over a 3x3 input."""

    X = torch.tensor([[0.5, -0.2, 0.3], [0.6, 0.4, -0.1], [-0.4, 0.5, 0.2]])
    W = torch.tensor([[0.1, -0.2], [-0.3, 0.4]])
    B = 0.04
    # 0.5 * 0.1 + 0.2 * 0.2 - 0.6 * 0.3 + 0.4 * 0.4 + 0.04 =  0.11
    # -0.2 * 0.1 - 0.3 * 0.2 - 0.4 * 0.3 - 0.1 * 0.4 + 0.04 = -0.20
    # 0.6 * 0.1 - 0.4 * 0.2 + 0.4 * 0.3 + 0.5 * 0.4 + 0.04 =  0.34
    # 0.4 * 0.1 + 0.1 * 0.2 - 0.5 * 0.3 + 0.2 * 0.4 + 0.04 =  0.03
    Y = torch.tensor([[0.11, -0.20], [0.34, 0.03]])

    GRAD_Y = torch.tensor([[0.3, 0.1], [-0.4, 0.2]])
    # An input entry counts in each output it was multiplied into, with that product's weight:
    # dL/dX[i, j] = sum over u, v of dL/dY[i - u, j - v] W[u, v]
    GRAD_X = torch.tensor(
        [
            [0.3 * 0.1, 0.3 * -0.2 + 0.1 * 0.1, 0.1 * -0.2],
            [
                0.3 * -0.3 + -0.4 * 0.1,
                0.3 * 0.4 + 0.1 * -0.3 + -0.4 * -0.2 + 0.2 * 0.1,
                0.1 * 0.4 + 0.2 * -0.2,
            ],
            [-0.4 * -0.3, -0.4 * 0.4 + 0.2 * -0.3, 0.2 * 0.4],
        ]
    )
    GRAD_X_WORKED_OUT = torch.tensor([[0.03, -0.05, -0.02], [-0.13, 0.19, 0], [0.12, -0.22, 0.08]])

    def test_forward(self):
        assert_close(cross_correlate(self.X, self.W, self.B), self.Y)
        b = torch.tensor([self.B])
        assert_close(F.conv2d(self.X[None, None], self.W[None, None], b)[0, 0], self.Y)

    def test_backward(self):
        """dL/dX is dL/dY, padded by k - 1 = 1, cross-correlated with the kernel turned by 180."""
        assert_close(self.GRAD_X, self.GRAD_X_WORKED_OUT)
        padded = F.pad(self.GRAD_Y, (1, 1, 1, 1))
        assert_close(cross_correlate(padded, self.W.flip(0, 1)), self.GRAD_X)

        x = self.X.clone().requires_grad_()
        F.conv2d(x[None, None], self.W[None, None])[0, 0].backward(self.GRAD_Y)
        assert_close(x.grad, self.GRAD_X)
        transposed = F.conv_transpose2d(self.GRAD_Y[None, None], self.W[None, None])[0, 0]
        assert_close(transposed, self.GRAD_X)

    def test_as_a_matrix(self):
        """With X and Y as columns, Y = M X + b and dL/dX = M^T dL/dY; row (i, j) of M holds W."""
        matrix = torch.zeros(2, 2, 3, 3)
        for i, j in product(range(2), range(2)):
            matrix[i, j, i : i + 2, j : j + 2] = self.W
        matrix = matrix.view(4, 9)
        assert_close((matrix @ self.X.flatten() + self.B).view(2, 2), self.Y)
        assert_close((matrix.T @ self.GRAD_Y.flatten()).view(3, 3), self.GRAD_X)

    def test_in_a_block(self):
        """The activation takes -0.20, and with it the gradient 0.1 that came to that place."""
        block = block_of(self.W, self.B)
        x = self.X.clone().requires_grad_()
        y = block(x[None, None])[0, 0]
        assert_close(block.conv(x[None, None])[0, 0], self.Y)
        assert_close(y, torch.tensor([[0.11, 0.0], [0.34, 0.03]]))
        y.backward(self.GRAD_Y)
        grad_y = torch.tensor([[0.3, 0.0], [-0.4, 0.2]])
        assert_close(x.grad, cross_correlate(F.pad(grad_y, (1, 1, 1, 1)), self.W.flip(0, 1)))
        # dL/dW[u, v] = sum over i, j of dL/dY[i, j] X[i + u, j + v];  dL/db = sum of dL/dY
        assert_close(block.conv.weight.grad[0, 0], cross_correlate(self.X, grad_y))
        grad_w = torch.tensor(
            [[0.15 - 0.24 + 0.08, -0.06 - 0.16 - 0.02], [0.18 + 0.16 + 0.1, 0.12 - 0.2 + 0.04]]
        )
        assert_close(block.conv.weight.grad[0, 0], grad_w)
        assert_close(block.conv.bias.grad, torch.tensor([0.3 - 0.4 + 0.2]))

    def test_in_a_residual_block(self):
        """y = x + relu(w x): where w x > 0, dL/dx = (1 + w) dL/dy; elsewhere it is dL/dy."""
        block = block_of(torch.tensor([[0.5]]), use_residual=True)
        x = torch.tensor([[[[2.0, -2.0]]]], requires_grad=True)
        y = block(x)
        assert_close(y, torch.tensor([[[[3.0, -2.0]]]]))
        y.backward(torch.tensor([[[[1.0, 1.0]]]]))
        assert_close(x.grad, torch.tensor([[[[1.5, 1.0]]]]))


if __name__ == "__main__":
    unittest.main()
