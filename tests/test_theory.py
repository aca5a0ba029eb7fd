"""The assignment's paper questions, each answered twice: by hand and by torch."""

import math
import unittest
from fractions import Fraction
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close


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
        ordinary = F.conv2d(x, pointwise * depthwise[:, 0])  # weight (8, 3, 3, 3)
        assert_close(separable(x), ordinary, rtol=1e-5, atol=1e-5)


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


if __name__ == "__main__":
    unittest.main()
