"""The written answers: their sums are right, their Python says what they say, both pages agree.

What the sign assignment computes by hand is compared with the theory suite, the one source of it.
"""

import ast
import doctest
import math
import operator
import re
import unittest

import torch
from torch import nn
from torchvision.models import squeezenet1_1

import tests.test_theory as theory
from networks import Classifier, MnistCNN
from reporting import claims, markdown
from reporting.blocks import Code, Heading
from tasks.detection.ssd import TinySSD, base_net, down_sample_blk
from tasks.style.networks import TransformConfig, TransformNet
from tests.support import PROJECT

PAGES = [PROJECT / "docs" / name for name in ("answers.md", "answers.zh.md")]
# A sum: numbers, signs and brackets, floor and sqrt; at the end of a text and at its beginning.
TERM = r"(?:floor|sqrt|[\d\s+\-*/().])+"
OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.USub: operator.neg,
}  # fmt: skip


def value_of(text):
    """Return what a sum comes to."""

    def walk(node):
        match node:
            case ast.Constant(value):
                return value
            case ast.UnaryOp(op, operand):
                return OPERATORS[type(op)](walk(operand))
            case ast.BinOp(left, op, right):
                return OPERATORS[type(op)](walk(left), walk(right))
            case ast.Call(ast.Name(name), [argument]):
                return getattr(math, name)(walk(argument))

    return walk(ast.parse(text.strip(), mode="eval").body)


def equations(line):
    """Return pairs of sums that a line says are equal."""
    parts = line.split(" = ")
    found = []
    for before, after in zip(parts, parts[1:], strict=False):
        left = re.search(TERM + "$", re.split(r"\s{2,}", before)[-1])
        right = re.match(TERM, re.split(r"\s{2,}", after.strip())[0])
        if left and right and left[0].strip() and right[0].strip():
            found.append((left[0], right[0]))
    return found


def sections(page):
    """Return a page's lines of code by heading."""
    found, lines = {}, []
    for block in markdown.read(page.read_text(encoding="utf-8")):
        if isinstance(block, Heading):
            lines = found.setdefault(block.text, [])
        elif isinstance(block, Code):
            lines += block.text.split("\n")
    return found


def numbers(lines):
    """Return the numbers of rows of a matrix."""
    return [[float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", line)] for line in lines]


class PageTest(unittest.TestCase):
    def test_sums(self):
        """A page's every equation between numbers holds."""
        for page in PAGES:
            lines = [line for code in sections(page).values() for line in code]
            found = [pair for line in lines if ">>>" not in line for pair in equations(line)]
            self.assertGreater(len(found), 60, page.name)
            for left, right in found:
                with self.subTest(page.name, equation=f"{left} = {right}"):
                    self.assertAlmostEqual(value_of(left), value_of(right), places=9)

    def test_wrong_sums_are_noticed(self):
        pairs = equations("r = 1 + 4*1 = 6      j = 1*2 = 2")
        self.assertEqual([value_of(a) == value_of(b) for a, b in pairs], [False, True])
        self.assertEqual(equations("size = (l - 1) s + k"), [])

    def test_python(self):
        """What a page's examples print is what they say."""
        for page in PAGES:
            torch.manual_seed(0)
            failed, tried = doctest.testfile(
                str(page), module_relative=False, encoding="utf-8", verbose=False
            )
            self.assertEqual(failed, 0, page.name)
            self.assertGreater(tried, 25)


class TheoryTest(unittest.TestCase):
    """The page's numbers are those of the theory suite and of the networks."""

    def setUp(self):
        code = sections(PAGES[0])
        self.code = code | {title.split(" ")[0]: lines for title, lines in code.items()}

    def test_receptive_field(self):
        found = [
            [int(re.search(rf"{letter} = .*? = (\d+)", line)[1]) for letter in "rj"]
            for line in self.code["1.2"]
        ]
        expected = [[field, step] for _, _, field, step in theory.ReceptiveField.BY_HAND]
        self.assertEqual(found, expected)

    def test_parameters(self):
        last = [int(line.rsplit(" ", 1)[1]) for line in self.code["1.3"]]
        plain, normalised = (
            theory.parameters(Classifier(3, 26, use_batch_norm=bn)) for bn in (False, True)
        )
        self.assertEqual(last[2:], [plain, normalised])
        shapes = self.code["Shapes through the two-layer network"]
        self.assertTrue(shapes[-1].endswith(f" {theory.parameters(MnistCNN(1, 10))}"))

    def test_batch_norm(self):
        block = theory.BatchNorm("test_in_a_block")
        block.setUp()
        x, mean, variance = (v.flatten().tolist() for v in (block.x, block.mean, block.variance))
        text = "\n".join(self.code["1.5"])
        for entry in x:
            self.assertRegex(text, rf"x = {entry:.1f}:\s+\({entry:.1f} - {mean[0]:.1f}\) / sqrt")
        self.assertIn(f"sqrt({variance[0]})", text)

    def test_max_pooling(self):
        lines = [line for line in self.code["2.1.1"] if line.strip() and "{" not in line]
        rows = numbers(line.split("=")[-1] for line in lines)
        matrices = [rows[k : k + 2] for k in range(0, 8, 2)]
        pooling = theory.MaxPooling
        for found, expected in zip(
            matrices, (pooling.X, pooling.Y, pooling.GRAD_Y, pooling.GRAD_X), strict=True
        ):
            torch.testing.assert_close(torch.tensor(found), expected)

    def test_convolution(self):
        convolution = theory.Convolution
        for name, expected in (("Y", convolution.Y), ("dL/dX", convolution.GRAD_X_WORKED_OUT)):
            found = torch.full_like(expected, math.nan)
            for line in self.code["2.1.2"]:
                if match := re.match(re.escape(name) + r"\[(\d), (\d)\]: .* = (\S+)$", line):
                    found[int(match[1]), int(match[2])] = float(match[3])
            torch.testing.assert_close(found, expected)

    def test_detection(self):
        """The fields of the parts, and the number of anchors."""
        for network, field, step in ((down_sample_blk(3, 1), 6, 2), (base_net(), 36, 8)):
            for name, layer in list(network.named_modules()):
                if isinstance(layer, nn.Conv2d):
                    nn.init.ones_(layer.weight)
                    nn.init.zeros_(layer.bias)
                elif isinstance(layer, nn.MaxPool2d):  # its gradient is of one place of four
                    network.set_submodule(name, nn.AvgPool2d(layer.kernel_size))
            image = torch.ones(1, 3, 96, 96, requires_grad=True)
            output = network.eval()(image)
            output[0, 0, 5, 5].backward()
            self.assertEqual(output.shape[2], 96 // step)
            self.assertEqual(int((image.grad[0, 0] != 0).any(1).sum()), field)
        with torch.no_grad():
            anchors, _, _ = TinySSD(1).eval()(torch.zeros(1, 3, 256, 256))
        lines = self.code["Why classes are predicted by a convolution"]
        self.assertTrue(any(line.endswith(f"*4 = {anchors.shape[1]}") for line in lines))


class MeasuredTest(unittest.TestCase):
    def test_intervals(self):
        """Those of SGD and Adam on 2,000 images."""
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for share in (0.9845, 0.991):
                low, high = claims.wilson(share, 2000)
                self.assertIn(f"{100 * low:.2f}", text)
                self.assertIn(f"{100 * high:.2f}", text)

    def test_style_network(self):
        """Its number of weights, and that a step of the other way is a tenth of its pass."""
        from torch.utils.flop_counter import FlopCounterMode

        from tasks.style import PRESETS
        from tasks.style.losses import FeatureExtractor, gram_matrix

        network, image = TransformNet(TransformConfig()), torch.rand(1, 3, 256, 256)
        for page in PAGES:
            self.assertIn(f"{theory.parameters(network):,}", page.read_text(encoding="utf-8"))
        with FlopCounterMode(display=False) as whole, torch.no_grad():
            network(image)
        layers = PRESETS["composition"].style_layers
        extractor = FeatureExtractor(squeezenet1_1(), layers)
        with FlopCounterMode(display=False) as step:
            features = extractor(image.requires_grad_())
            sum(gram_matrix(features[layer]).sum() for layer in layers).backward()
        self.assertAlmostEqual(step.get_total_flops() / whole.get_total_flops(), 0.1, delta=0.03)


if __name__ == "__main__":
    unittest.main()
