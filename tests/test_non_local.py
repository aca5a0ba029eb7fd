"""The non-local block against the paper's equations spelt out, and the memory it does without."""

import subprocess
import sys
import unittest
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from lab.console import LabError
from networks import NON_LOCAL_MODES, NonLocalBlock, relu_attention
from tests.support import PROJECT, environment

SOFTMAX_MODES = ("embedded_gaussian", "gaussian")
SIZES = {1: (7,), 2: (4, 6), 3: (3, 4, 5)}  # odd ones too: pooling leaves their last position out
FORMS = tuple(product(NON_LOCAL_MODES, SIZES, (False, True)))  # mode, dimensions, sub_sample


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


def embed(conv: nn.Module, features: Tensor) -> Tensor:
    """A convolution by 1 is a matrix over the channels of (N, C, *size)."""
    if isinstance(conv, nn.Identity):
        return features
    bias = conv.bias.view(-1, *[1] * (features.dim() - 2))
    return torch.einsum("oc,nc...->no...", conv.weight.flatten(1), features) + bias


def halve(features: Tensor) -> Tensor:
    """The largest of each two neighbours along every axis of space: all but a clip's time."""
    for axis in range(3 if features.dim() == 5 else 2, features.dim()):
        features = features.unfold(axis, 2, 2).amax(-1)
    return features


def reference(x: Tensor, model: NonLocalBlock, sub_sample: bool) -> tuple[Tensor, Tensor]:
    """Wang et al. 2018, equations 1 to 6: the output and all of f / C, (N, P, *key size)."""
    query, key, value = (
        embed(conv, x) for conv in (model.query_conv, model.key_conv, model.value_conv)
    )
    if sub_sample:
        key, value = halve(key), halve(value)
    size, key_size = x.shape[2:], key.shape[2:]
    query, key, value = (features.flatten(2) for features in (query, key, value))
    if model.mode in SOFTMAX_MODES:
        f = torch.einsum("nci,ncj->nij", query, key).exp()
        weights = f / f.sum(2, keepdim=True)
    elif model.mode == "dot_product":
        weights = torch.einsum("nci,ncj->nij", query, key) / key.shape[2]
    else:
        i, j = torch.meshgrid(
            torch.arange(query.shape[2]), torch.arange(key.shape[2]), indexing="ij"
        )
        pairs = torch.cat((query[:, :, i], key[:, :, j]), 1)  # [theta(x_i), phi(x_j)]
        weights = torch.einsum("c,ncij->nij", model.pair_linear.weight[0], pairs).clamp(min=0)
        weights = weights / key.shape[2]
    y = torch.einsum("nij,ncj->nci", weights, value).unflatten(2, size)
    return x + embed(model.out_conv, y), weights.unflatten(2, key_size)


def make(mode: str, dimensions: int, sub_sample: bool, channels: int = 6) -> NonLocalBlock:
    """Return a block in double precision whose output is not its input."""
    model = NonLocalBlock(channels, dimensions, mode, sub_sample, identity_init=False)
    return model.double()


class FormsTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_contract(self):
        """Three 1x1x1 convolutions to half the channels, one back; no other weights."""
        model = NonLocalBlock(6)
        for name, sizes in dict(
            query_conv=(6, 3), key_conv=(6, 3), value_conv=(6, 3), out_conv=(3, 6)
        ).items():
            conv = getattr(model, name)
            self.assertIsInstance(conv, nn.Conv3d)
            self.assertEqual((conv.in_channels, conv.out_channels), sizes)
            self.assertEqual(conv.kernel_size, (1, 1, 1))
        self.assertEqual(NonLocalBlock(7).query_conv.out_channels, 3)
        names = ("query_conv", "key_conv", "value_conv", "out_conv")
        keys = [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
        self.assertEqual(list(model.state_dict()), keys)

    def test_equals_reference(self):
        """Forward and all gradients of every form, in double precision."""
        for mode, dimensions, sub_sample in FORMS:
            model = make(mode, dimensions, sub_sample)
            x = torch.randn(2, 6, *SIZES[dimensions], dtype=torch.double, requires_grad=True)
            out, expected = model(x), reference(x, model, sub_sample)[0]
            form = dict(mode=mode, dimensions=dimensions, sub_sample=sub_sample)
            with self.subTest(**form):
                self.assertEqual(out.shape, x.shape)
                self.assertGreater((out - x).abs().max(), 0.1)
                assert_close(out, expected)
            upstream = torch.randn_like(out)
            inputs = {"x": x, **dict(model.named_parameters())}
            gradients = torch.autograd.grad(out, inputs.values(), upstream)
            references = torch.autograd.grad(expected, inputs.values(), upstream)
            for name, gradient, wanted in zip(inputs, gradients, references, strict=True):
                with self.subTest(gradient=name, **form):
                    assert_close(gradient, wanted)

    def test_any_number_of_channels(self):
        """Also those for which the operands are widened: 1, 2, 3, 5, 8 and 9 inside."""
        for mode, channels in product(NON_LOCAL_MODES, (2, 3, 4, 7, 11, 16, 18)):
            with self.subTest(mode=mode, channels=channels):
                model = make(mode, 2, False, channels)
                x = torch.randn(2, channels, 3, 4, dtype=torch.double)
                assert_close(model(x), reference(x, model, False)[0])

    def test_any_number_of_threads(self):
        """Queries dealt out to several heads, where they can be: forward and gradient."""
        torch.set_num_threads(3)
        self.addCleanup(torch.set_num_threads, 1)
        kernel = F.scaled_dot_product_attention
        for count, positions, heads in ((1, 12, 4), (2, 12, 2), (1, 6, 2), (1, 7, 1), (3, 12, 1)):
            with self.subTest(count=count, positions=positions):
                model = make("embedded_gaussian", 1, True)
                x = torch.randn(count, 6, positions, dtype=torch.double, requires_grad=True)
                with mock.patch.object(
                    F, "scaled_dot_product_attention", side_effect=kernel
                ) as spy:
                    out = model(x)
                self.assertEqual(spy.call_args.args[0].shape[:2], (count, heads))
                expected = reference(x, model, True)[0]
                assert_close(out, expected)
                upstream = torch.randn_like(out)
                (gradient,) = torch.autograd.grad(out, x, upstream)
                (wanted,) = torch.autograd.grad(expected, x, upstream)
                assert_close(gradient, wanted)

    def test_memory_format(self):
        """Channels-last inputs give the same values."""
        for mode in NON_LOCAL_MODES:
            with self.subTest(mode):
                model = make(mode, 2, True)
                x = torch.randn(2, 6, 4, 6, dtype=torch.double)
                assert_close(model(x.to(memory_format=torch.channels_last)), model(x))

    def test_untrained_is_the_identity(self):
        """Exactly, so that it can be put into a trained network; yet it can learn."""
        for mode, dimensions, sub_sample in FORMS:
            form = dict(mode=mode, dimensions=dimensions, sub_sample=sub_sample)
            with self.subTest(**form):
                model, x = NonLocalBlock(8, **form), torch.randn(2, 8, *SIZES[dimensions])
                out = model(x)
                self.assertTrue(torch.equal(out, x))
                out.square().sum().backward()
                self.assertGreater(model.out_conv.weight.grad.abs().max(), 0)
                told = NonLocalBlock(8, **form, identity_init=False)
                self.assertGreater((told(x) - x).abs().max(), 0.01)

    def test_positions_are_a_set(self):
        """Without pooling, positions in another order give the same outputs in that order."""
        for mode in NON_LOCAL_MODES:
            with self.subTest(mode):
                model = make(mode, 3, False)
                x, order = torch.randn(2, 6, 60, dtype=torch.double), torch.randperm(60)
                out = model(x.view(2, 6, 3, 4, 5)).flatten(2)
                shuffled = model(x[:, :, order].view(2, 6, 5, 4, 3)).flatten(2)
                assert_close(shuffled, out[:, :, order])

    def test_sees_every_position(self):
        """A change in the last frame's corner reaches the first frame."""
        for mode, sub_sample in product(NON_LOCAL_MODES, (False, True)):
            with self.subTest(mode=mode, sub_sample=sub_sample):
                model, x = make(mode, 3, sub_sample), torch.randn(1, 6, 3, 4, 6).double()
                changed = x.clone()
                changed[..., -1, -1, -1] += 5
                difference = (model(changed) - model(x))[:, :, 0]
                self.assertGreater(difference.abs().max(), 1e-4)

    def test_what_cannot_be_built_or_fed(self):
        """Mode, dimensions, channels, an input of other dimensions: one sentence that says so."""
        for options, named in (
            (dict(mode="cosine"), "embedded_gaussian.*cosine"),
            (dict(dimensions=4), "1, 2 or 3; got 4"),
            (dict(in_channels=1), "at least 2; got 1"),
        ):
            with self.subTest(named), self.assertRaisesRegex(ValueError, named) as caught:
                NonLocalBlock(**dict(in_channels=8) | options)
            self.assertNotIn("\n", str(caught.exception))
        with self.assertRaisesRegex(ValueError, r"\(N, C, T, H, W\), got shape \(8, 2, 4, 4\)"):
            NonLocalBlock(8)(torch.randn(8, 2, 4, 4))


class ReluAttentionTest(unittest.TestCase):
    """The sorted form of equation 5 where sorting could go wrong."""

    def setUp(self):
        torch.manual_seed(0)

    def compare(self, a: Tensor, b: Tensor, value: Tensor, **tolerance: float) -> None:
        """Compare output and gradients with the P x P' matrix in double precision."""
        inputs = [tensor.requires_grad_() for tensor in (a, b, value)]
        wide = [tensor.detach().double().requires_grad_() for tensor in inputs]
        out = relu_attention(*inputs)
        pairs = F.relu(wide[0].unsqueeze(2) + wide[1].unsqueeze(1))
        expected = pairs @ wide[2] / b.shape[1]
        self.assertEqual(out.dtype, value.dtype)
        assert_close(out, expected, check_dtype=False, **tolerance)
        upstream = torch.randn_like(out)
        gradients = torch.autograd.grad(out, inputs, upstream)
        references = torch.autograd.grad(expected, wide, upstream.double())
        for name, gradient, wanted in zip(("a", "b", "value"), gradients, references, strict=True):
            with self.subTest(name):
                assert_close(gradient, wanted, check_dtype=False, **tolerance)

    def test_ties_and_kinks(self):
        """Small integers: equal scores, and sums of exactly 0, where relu passes no gradient."""
        a, b = torch.randint(-3, 4, (2, 40)).double(), torch.randint(-3, 4, (2, 30)).double()
        self.assertTrue((a.unsqueeze(2) + b.unsqueeze(1) == 0).any())
        self.compare(a, b, torch.randn(2, 30, 4).double())

    def test_none_and_all(self):
        """Where no pair is positive the output is 0; where all are, relu does nothing."""
        a, b, value = torch.rand(2, 9).double(), torch.rand(2, 7).double(), torch.randn(2, 7, 3)
        self.assertFalse(relu_attention(-a - 1, b - 1, value).any())
        self.compare(-a - 1, b - 1, value.double())
        self.compare(a, b, value.double())

    def test_running_sums_stay_exact(self):
        """Thousands of positions in float32, all values of one sign."""
        a, b = torch.randn(1, 3000), torch.randn(1, 3000)
        self.compare(a, b, torch.rand(1, 3000, 2), rtol=1e-4, atol=1e-5)


class AttentionTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_equals_rows_of_the_matrix(self):
        """In the order asked for, with repetitions, and with gradients."""
        for mode, dimensions, sub_sample in FORMS:
            with self.subTest(mode=mode, dimensions=dimensions, sub_sample=sub_sample):
                size = SIZES[dimensions]
                model = make(mode, dimensions, sub_sample)
                x = torch.randn(2, 6, *size, dtype=torch.double, requires_grad=True)
                weights = reference(x, model, sub_sample)[1].unflatten(1, size)
                positions = torch.cat([torch.randint(length, (5, 1)) for length in size], 1)
                positions[0] = torch.tensor(size) - 1
                positions[1] = positions[2]
                rows = model.attention(x, positions)
                expected = torch.stack([weights[:, *position] for position in positions], 1)
                self.assertEqual(rows.shape, expected.shape)
                assert_close(rows, expected)
                upstream = torch.randn_like(rows)
                (gradient,) = torch.autograd.grad(rows, x, upstream)
                (wanted,) = torch.autograd.grad(expected, x, upstream)
                assert_close(gradient, wanted)
                if mode in SOFTMAX_MODES:
                    assert_close(rows.flatten(2).sum(2), torch.ones(2, 5).double())

    def test_rows_make_the_output(self):
        """All rows times the values, through out_conv, is what the block adds."""
        for mode in NON_LOCAL_MODES:
            with self.subTest(mode):
                model, x = make(mode, 1, False), torch.randn(2, 6, 9).double()
                rows = model.attention(x, torch.arange(9).unsqueeze(1))  # (N, 9, 9)
                y = model.value_conv(x) @ rows.mT
                assert_close(x + model.out_conv(y), model(x))

    def test_positions_outside(self):
        """An error in one line that names the valid range; so do broken shapes and types."""
        model, x = NonLocalBlock(4), torch.randn(1, 4, 3, 4, 5)
        valid = r"3 whole numbers from \(0, 0, 0\) to \(2, 3, 4\)"
        outside = ([[0, 0, 0], [0, 4, 0]], [[-1, 0, 0]])
        for positions in (*outside, [[0, 0]], [0, 0, 0], [[0.5, 0, 0]], []):
            with self.subTest(positions), self.assertRaisesRegex(LabError, valid) as caught:
                model.attention(x, positions)
            self.assertNotIn("\n", str(caught.exception))


class PrecisionTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_autocast(self):
        """Under bf16 the output keeps the input's type and is right to bf16's three digits."""
        for mode, sub_sample in product(NON_LOCAL_MODES, (False, True)):
            with self.subTest(mode=mode, sub_sample=sub_sample):
                model = make(mode, 3, sub_sample).float()
                x = torch.randn(2, 6, 3, 4, 6, requires_grad=True)
                positions = torch.tensor([[2, 3, 5]])
                with torch.autocast("cpu", torch.bfloat16):
                    out, rows = model(x), model.attention(x, positions)
                self.assertEqual((out.dtype, rows.dtype), (torch.float32,) * 2)
                assert_close(out, model(x), rtol=0.05, atol=0.05)
                assert_close(rows, model.attention(x, positions), rtol=0.05, atol=0.02)
                out.sum().backward()
                self.assertTrue(x.grad.isfinite().all())

    def test_half_weights(self):
        """A block moved to bf16 whole computes in it and returns it."""
        for mode in NON_LOCAL_MODES:
            with self.subTest(mode):
                model, x = make(mode, 2, True), torch.randn(2, 6, 4, 6).double()
                expected = model(x)
                out = model.bfloat16()(x.bfloat16())
                self.assertEqual(out.dtype, torch.bfloat16)
                assert_close(out, expected, rtol=0.05, atol=0.05, check_dtype=False)


class MemoryTest(unittest.TestCase):
    """No P x P matrix is ever held."""

    def test_attention_kernel(self):
        """The softmax modes run where the kernel that holds the matrix is forbidden.

        CUDA's kernels also want a channel count that is a multiple of 8.
        """
        kernel = F.scaled_dot_product_attention
        for mode, channels, dtype in product(
            SOFTMAX_MODES, (2, 3, 6, 7, 16, 34), (torch.float32, torch.bfloat16)
        ):
            with self.subTest(mode=mode, channels=channels, dtype=dtype), ExitStack() as stack:
                model = NonLocalBlock(channels, 2, mode)
                x = torch.randn(2, channels, 4, 6, requires_grad=True)
                stack.enter_context(sdpa_kernel(SDPBackend.FLASH_ATTENTION))
                spy = mock.patch.object(F, "scaled_dot_product_attention", side_effect=kernel)
                called = stack.enter_context(spy)
                with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
                    out = model(x)
                out.sum().backward()
                called.assert_called_once()
                for operand in called.call_args.args:
                    self.assertEqual(operand.stride(-1), 1)
                    self.assertEqual(operand.shape[-1] % 8, 0)

    @unittest.skipUnless(Path("/proc/self/status").exists(), "reads the peak from Linux's /proc")
    def test_peak(self):
        """Forward and backward at the assignment's shape take less than P^2 floats, 256 MiB.

        One process takes its (2, 64, 8, 32, 32), then single clips in the other forms. The last
        line is of the form that holds the matrix: it shows that the measurement would see one.
        """
        process = subprocess.run(
            [sys.executable, "-c", MEASURE],
            cwd=PROJECT, env=environment(), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        self.assertEqual(process.returncode, 0, process.stderr)
        *own, naive = map(int, process.stdout.split())
        matrix = 4 * (8 * 32 * 32) ** 2
        self.assertEqual(len(own), 7)
        for kibibytes in own:
            self.assertLess(kibibytes * 1024, matrix)
        self.assertGreater(naive * 1024, 2 * matrix)


# Prints, a line each, the peak so far above what the process held before, in KiB.
MEASURE = """
import torch
from networks import NonLocalBlock

def resident(kind):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(kind))

def step(model, size):
    x = torch.randn(*size, requires_grad=True)
    model(x).sum().backward()

class Naive(NonLocalBlock):
    def forward(self, x):
        query, key, value = (
            conv(x).flatten(2) for conv in (self.query_conv, self.key_conv, self.value_conv)
        )
        y = value @ torch.softmax(query.mT @ key, 2).mT
        return x + self.out_conv(y.unflatten(2, x.shape[2:]))

class Autocast(NonLocalBlock):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)

models = [
    NonLocalBlock(64),
    NonLocalBlock(2),
    NonLocalBlock(6),
    Autocast(64),
    NonLocalBlock(64, mode="gaussian", sub_sample=True),
    NonLocalBlock(64, mode="dot_product"),
    NonLocalBlock(64, mode="concatenation"),
    Naive(64),
]
channels = [model.out_conv.out_channels for model in models]
for model, count in zip(models, channels):
    step(model, (1, count, 2, 8, 8))  # warm up: libraries, kernels, gradients of the weights
before = resident("VmRSS")
for model, count in zip(models, channels):
    step(model, (2 if model is models[0] else 1, count, 8, 32, 32))
    print(resident("VmHWM") - before)
"""


if __name__ == "__main__":
    unittest.main()
