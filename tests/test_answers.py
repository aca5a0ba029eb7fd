"""The written answers: each question of the assignments has one, sums are right, code runs.

What is completed for the assignments is compared with this project's modules, from the same
weights; what the sign assignment computes by hand with the theory suite, the one source of it.
"""

import ast
import contextlib
import doctest
import io
import math
import operator
import os
import re
import tempfile
import unittest
from functools import cache
from pathlib import Path
from unittest import mock

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import nn
from torch.testing import assert_close
from torchvision.models import resnet18, squeezenet1_1

import networks
import tests.test_theory as theory
from datasets import SOURCES
from datasets import get_data_loader as our_loader
from lab.images import Preprocess
from lab.learner import Learner
from lab.runtime import Runtime
from lab.settings import TrainSettings
from looking import insight
from networks import Classifier, MnistCNN
from reporting import claims, markdown
from reporting.blocks import Bullets, Code, Heading, Paragraph, Table
from tasks import detection, segmentation
from tasks.classification.objective import ClassificationObjective
from tasks.detection import ssd
from tasks.style import RECIPES, losses
from tasks.style.networks import TransformConfig, TransformNet
from tests.support import PROJECT, make_images
from tests.tiny_diffusion import SENTENCES, tiny

PAGES = [PROJECT / "docs" / name for name in ("answers.md", "answers.zh.md")]
CPU = Runtime(torch.device("cpu"))

# What the assignments ask, by their own numbers, in their order; then our sections of it and what
# the page's first table calls them. Circled numbers stand below a number of their own.
QUESTIONS = {
    ("Traffic signs", "交通标志", "signs", "交通标志"): (
        "1.1", "1.2", "1.3", "1.4", "1.5", "2.1.1", "2.1.2",
        "TODO 1.1", "TODO 1.2", "TODO 1.3", "TODO 2.1", "TODO 2.2",
        "TODO 3.1", "TODO 3.2", "TODO 3.3", "TODO 4.1", "TODO 4.2",
        "4.1", "4.2", "4.3", "4.4", "5", "6", "7",
    ),
    ("Video, attention, saliency", "视频、注意力与显著性", "video", "视频"): tuple("1234567"),
    ("MNIST and diffusion", "MNIST 与扩散模型", "MNIST", "MNIST"): (
        "Q1.1", "Q1.2", "Q1.3", "TODO1", "TODO2", "TODO3", "TODO4", "TODO5", "Q2", "Bonus",
    ),
    ("Looking inside networks, style", "网络可视化与风格转换", "inside", "可视化"): (
        *(f"1 {step}" for step in "①②③④⑤⑥⑦⑧"), *(f"2 {step}" for step in "①②③④⑤"),
    ),
}  # fmt: skip
# The headings of the assignments, or parts of them, that number nothing.
CONCLUSIONS = (
    ("Conclusions", "结论分析与体会"),
    ("Questions and answers: backward()", "问答题：backward 函数"),
)
DETECTION = ("Fine-tuning, detection, segmentation", "微调、检测与分割", "detection", "检测")
HEADINGS = (
    ("Fine-tuning", "微调"), ("Hot dogs", "热狗识别"),
    ("Single-shot multibox detection", "单发多框检测"),
    ("The class prediction layer", "类别预测层"), ("The box prediction layer", "边界框预测层"),
    ("Joining the predictions of several scales", "连结多尺度的预测"),
    ("The halving block", "高和宽减半块"), ("The base network", "基本网络块"),
    ("The whole model", "完整的模型"),
    ("R-CNN, Fast R-CNN, Faster R-CNN, Mask R-CNN", "区域卷积神经网络（R-CNN）系列"),
    ("Semantic segmentation and its data set", "语义分割和数据集"),
    ("Transposed convolution", "转置卷积"), ("The fully convolutional network", "全卷积网络"),
    ("Style transfer", "风格迁移"), ("CIFAR-10", "CIFAR-10"),
    ("ImageNet dogs: freeze or not", "ImageNet-Dog：要不要冻结"),
)  # fmt: skip
BEYOND = ("Beyond the questions", "题外补充")
CHOICES = {"1.1": "C", "1.2": "D", "1.3": "B", "1.4": "C", "1.5": "B"}
NUMBER = re.compile(
    r"TODO ?\d(?:\.\d)?|(?:^|(?<=, )|(?<=、))Q?\d(?:\.\d)*(?=[ ,、:：]|$)|^Bonus|[①-⑨]"
)
FENCE = re.compile(
    r"^## (?P<section>[^\n]*)$|^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)

# A sum: numbers, signs and brackets, and functions; at the end of a text and at its beginning.
TERM = r"(?:floor|ceil|sqrt|[\d\s+\-*/().])+"
OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.USub: operator.neg,
}  # fmt: skip


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)
    matplotlib.use("agg")


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


def blocks_of(page):
    """Return a page's blocks below each of its sections and headings, by both names."""
    found, section = {}, None
    for block in markdown.read(page.read_text(encoding="utf-8")):
        if isinstance(block, Heading):
            section = block.text if block.level < 3 else section
            below = found.setdefault((section, "" if block.level < 3 else block.text), [])
        else:
            below.append(block)
    return found


def lines_of(page):
    """Return a page's lines of code by section and heading."""
    return {
        names: [
            line for block in below if isinstance(block, Code) for line in block.text.split("\n")
        ]
        for names, below in blocks_of(page).items()
    }


def headings_of(page, section):
    """Return the headings of a section, in their order."""
    return [heading for own, heading in blocks_of(page) if own == section and heading]


def numbers_in(heading):
    """Return the questions that a heading, or a cell of the table, names by number."""
    first, *steps = NUMBER.findall(heading) or [""]
    circled = [f"{first} {step}" for step in steps if step in "①②③④⑤⑥⑦⑧⑨"]
    return circled or [number for number in (first, *steps) if number]


def numbers(lines):
    """Return the numbers of rows of a matrix."""
    return [[float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", line)] for line in lines]


def matrices(lines):
    """Return the matrices that are written out among lines, by name."""
    found, name = {}, None
    for line in lines:
        if match := re.match(r"(\S+)\s+=\s+(.*)", line):
            name = match[1]
            found[name] = numbers([match[2]])
        elif name and re.fullmatch(r"[\s\d.-]+", line) and line.strip():
            found[name] += numbers([line])
        else:
            name = None
    return {name: torch.tensor(rows) for name, rows in found.items()}


# ---------------------------------------------------------------- what is asked


class QuestionsTest(unittest.TestCase):
    """The page against the assignments' own numbers, letters and headings, in both languages."""

    def test_every_question_has_its_heading(self):
        for language, page in enumerate(PAGES):
            for names, questions in QUESTIONS.items():
                with self.subTest(page.name, section=names[language]):
                    headings = headings_of(page, names[language])
                    found = [number for text in headings for number in numbers_in(text)]
                    self.assertEqual(found, list(questions))
            inside = list(QUESTIONS)[-1][language]
            unnumbered = [text for text in headings_of(page, inside) if not numbers_in(text)]
            self.assertEqual(unnumbered, [names[language] for names in CONCLUSIONS])
            expected = [names[language] for names in HEADINGS]
            self.assertEqual(headings_of(page, DETECTION[language]), expected)

    def test_what_goes_beyond_comes_after_and_has_no_number(self):
        for language, page in enumerate(PAGES):
            sections = HEADING.findall(page.read_text(encoding="utf-8"))
            expected = [names[language] for names in (*QUESTIONS, DETECTION, BEYOND)]
            self.assertEqual(sections, expected)
            headings = headings_of(page, BEYOND[language])
            self.assertFalse([text for text in headings if numbers_in(text)])

    def test_choices(self):
        """The letter stands in the heading; each option is judged, and one of them stands out."""
        for language, page in enumerate(PAGES):
            below, (signs, *_) = blocks_of(page), QUESTIONS
            for number, letter in CHOICES.items():
                with self.subTest(page.name, question=number):
                    ((heading, blocks),) = (
                        (heading, blocks)
                        for (section, heading), blocks in below.items()
                        if section == signs[language] and heading.startswith(number + " ")
                    )
                    self.assertRegex(heading, rf"[:：] ?{letter}$")
                    (table,) = (block for block in blocks if isinstance(block, Table))
                    self.assertEqual([row[0] for row in table.rows], ["(A)", "(B)", "(C)", "(D)"])
                    chosen = [row[0] for row in table.rows if "**" in row[1]]
                    self.assertEqual(chosen, [f"({letter})"])
                    self.assertTrue(all(row[2] for row in table.rows), "an option is not judged")

    def test_table_at_the_top(self):
        """A row for every question: its answer's letter, where it is done, by which command."""
        for language, page in enumerate(PAGES):
            title = next(iter(blocks_of(page).values()))
            (table,) = (block for block in title if isinstance(block, Table))
            cells = {}
            for assignment, question, *where in table.rows:
                cells.setdefault(assignment, []).append((question, where))
            in_words = [
                question
                for rows in cells.values()
                for question, where in rows
                if not all("`" in cell for cell in where)
            ]
            self.assertEqual(in_words, [["6", "conclusions"], ["6", "结论"]][language])
            for names, questions in QUESTIONS.items():
                rows = cells.pop(names[2 + language])
                found = [number for question, _ in rows for number in numbers_in(question)]
                self.assertEqual(found, list(questions))
                if "1.1" in questions:
                    letters = dict(re.split("[:：] ?", question) for question, _ in rows[:5])
                    self.assertEqual(letters, CHOICES)
            self.assertEqual(len(cells.pop(DETECTION[2 + language])), len(HEADINGS))
            self.assertFalse(cells)

    def test_each_training_has_a_folder_of_its_own(self):
        """No command of the page moves away what one before it has trained."""
        for page in PAGES:
            taken = {}
            text = page.read_text(encoding="utf-8")
            for flags in set(re.findall(r"python train\.py ((?!--help)[^`\n]*)", text)):
                folder = re.search(r"--ckpt_path (\S+)", flags)
                self.assertIsNotNone(folder, flags)
                taken.setdefault(folder[1], []).append(set(flags.split()))
            for folder, commands in taken.items():  # one may be said shorter in the first table
                longest = max(commands, key=len)
                self.assertTrue(all(words <= longest for words in commands), folder)

    def test_each_has_an_answer(self):
        for page in PAGES:
            for (section, heading), below in blocks_of(page).items():
                if heading and section not in BEYOND:
                    with self.subTest(page.name, section=section, heading=heading):
                        kinds = Paragraph | Bullets | Table
                        self.assertTrue(any(isinstance(block, kinds) for block in below))

    def test_numbers_are_read(self):
        for heading, expected in (
            ("TODO 2.1, TODO 2.2: the block", ["TODO 2.1", "TODO 2.2"]),
            ("1 ④, ⑤ Saliency maps", ["1 ④", "1 ⑤"]), ("1.2 The size: D", ["1.2"]),
            ("Q1.2 A CNN of 2 layers", ["Q1.2"]), ("Bonus: the middle", ["Bonus"]),
            ("The base network", []), ("2.1.1, 2.1.2", ["2.1.1", "2.1.2"]), ("6、7", ["6", "7"]),
            ("1 Late fusion, 3D CNN", ["1"]), ("TODO3 What argmax does", ["TODO3"]),
        ):  # fmt: skip
            self.assertEqual(numbers_in(heading), expected)


# ---------------------------------------------------------------- sums and examples


class PageTest(unittest.TestCase):
    def test_sums(self):
        """A page's every equation between numbers holds."""
        for page in PAGES:
            lines = [line for code in lines_of(page).values() for line in code]
            found = [pair for line in lines if ">>>" not in line for pair in equations(line)]
            self.assertGreater(len(found), 70, page.name)
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
            self.assertGreater(tried, 45)


class TheoryTest(unittest.TestCase):
    """The page's numbers are those of the theory suite and of the networks."""

    def code(self, title):
        """Return the lines of code below a heading of the English page that begins so."""
        (lines,) = (
            lines for (_, heading), lines in lines_of(PAGES[0]).items() if heading.startswith(title)
        )
        return lines

    def test_receptive_field(self):
        found = [
            [int(re.search(rf"{letter} = .*? = (\d+)", line)[1]) for letter in "rj"]
            for line in self.code("Receptive field")
        ]
        expected = [[field, step] for _, _, field, step in theory.ReceptiveField.BY_HAND]
        self.assertEqual(found, expected)

    def test_parameters(self):
        last = [int(line.rsplit(" ", 1)[1]) for line in self.code("Number of parameters")]
        plain, normalised, both = (
            theory.parameters(Classifier(3, 26, use_batch_norm=bn, use_stn=stn))
            for bn, stn in ((False, False), (True, False), (True, True))
        )
        self.assertEqual(last[2:], [plain, normalised])
        shapes = [line for line in self.code("Q1.2") if line.startswith("parameters")]
        self.assertTrue(shapes[0].endswith(f" {theory.parameters(MnistCNN(1, 10))}"))
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            self.assertIn(f"{normalised - plain:,}", text)
            self.assertIn(f"{both - normalised:,}", text)

    def test_batch_norm(self):
        block = theory.BatchNorm("test_in_a_block")
        block.setUp()
        x, mean, variance = (v.flatten().tolist() for v in (block.x, block.mean, block.variance))
        text = "\n".join(self.code("1.3 "))
        for entry in x:
            self.assertRegex(text, rf"x = {entry:.1f}:\s+\({entry:.1f} - {mean[0]:.1f}\) / sqrt")
        self.assertIn(f"sqrt({variance[0]})", text)

    def test_max_pooling(self):
        pooling = theory.MaxPooling
        found = matrices(self.code("1.4 ")) | matrices(self.code("1.5 "))
        for name, expected in (
            ("X", pooling.X), ("Y", pooling.Y),
            ("dL/dY", pooling.GRAD_Y), ("dL/dX", pooling.GRAD_X),
        ):  # fmt: skip
            assert_close(found[name], expected)

    def test_convolution(self):
        """Y and dL/dX, entry by entry and as a whole, in both languages, are what torch finds."""
        x = theory.Convolution.X.clone().requires_grad_()
        kernel, bias = theory.Convolution.W[None, None], torch.tensor([theory.Convolution.B])
        y = F.conv2d(x[None, None], kernel, bias)[0, 0]
        (gradient,) = torch.autograd.grad(y, x, theory.Convolution.GRAD_Y)
        for page in PAGES:
            lines = lines_of(page)
            for number, name, expected in (("2.1.1", "Y", y), ("2.1.2", "dL/dX", gradient)):
                (own,) = (code for names, code in lines.items() if names[1].startswith(number))
                found = torch.full_like(expected, math.nan)
                for line in own:
                    if match := re.match(re.escape(name) + r"\[(\d), (\d)\]: .* = (\S+)$", line):
                        found[int(match[1]), int(match[2])] = float(match[3])
                assert_close(found, expected)
                assert_close(matrices(own)[name], expected)

    def test_detection(self):
        """The fields of the parts, and the number of anchors."""
        for network, field, step in ((ssd.down_sample_blk(3, 1), 6, 2), (ssd.base_net(), 36, 8)):
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
            anchors, _, _ = ssd.TinySSD(1).eval()(torch.zeros(1, 3, 256, 256))
        lines = self.code("The whole model")
        self.assertTrue(any(line.endswith(f"*4 = {anchors.shape[1]}") for line in lines))


class ChoicesTest(unittest.TestCase):
    """What is said of each option of the five choices, by torch."""

    def test_1_1(self):
        """Any size; gradients that do not vanish; fewer parameters, not more; larger maps."""
        convolutions = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 5, 1))
        for side in (32, 47):
            self.assertEqual(convolutions(torch.zeros(1, 3, side, side)).shape[2], (side - 2) // 2)
        kept = {kind: self.gradient_kept(kind) for kind in ("plain", "bn", "residual")}
        self.assertLess(kept["plain"], 1e-3)
        self.assertGreater(kept["bn"], 0.1)
        self.assertGreater(kept["residual"], 0.1)
        ordinary = nn.Conv2d(64, 128, 3, bias=False)
        separated = nn.ModuleList([
            nn.Conv2d(64, 64, 3, groups=64, bias=False), nn.Conv2d(64, 128, 1, bias=False),
        ])  # fmt: skip
        self.assertEqual(list(map(theory.parameters, (ordinary, separated))), [73728, 8768])
        larger = nn.ConvTranspose2d(4, 4, kernel_size=4, stride=2, padding=1)
        self.assertEqual(larger(torch.zeros(1, 4, 10, 10)).shape[2], 20)

    def gradient_kept(self, kind):
        """Return the gradient's size at the first of 30 layers over that at the last one."""
        torch.manual_seed(0)
        layers = [nn.Linear(64, 64) for _ in range(30)]
        x, outputs = torch.randn(128, 64), []
        for layer in layers:
            inside = layer(x)
            if kind == "bn":
                inside = F.batch_norm(inside, None, None, training=True)
            x = inside.relu() + x if kind == "residual" else inside.relu()
            x.retain_grad()
            outputs.append(x)
        x.square().mean().backward()
        return float(outputs[0].grad.norm() / outputs[-1].grad.norm())

    def test_1_2(self):
        """Each formula against torch: A and C are wrong at any stride, B where it rounds."""

        def sizes(l, k, s, p, d):  # noqa: E741
            whole = l + 2 * p - d * (k - 1)
            up, down = math.ceil, math.floor
            return [round_(part / s) + 1 for round_, part in (
                (up, whole), (up, whole - 1), (down, whole), (down, whole - 1)
            )]  # fmt: skip

        for (l, k, s, p, d), expected in {  # noqa: E741
            (32, 5, 2, 2, 1): [17, 17, 17, 16],
            (32, 5, 1, 2, 1): [33, 32, 33, 32],
            (32, 3, 1, 0, 2): [29, 28, 29, 28],
            (31, 5, 2, 2, 1): [17, 16, 16, 16],
        }.items():
            size = nn.Conv1d(1, 1, k, s, p, d)(torch.zeros(1, 1, l)).shape[-1]
            self.assertEqual(sizes(l, k, s, p, d), expected)
            self.assertEqual(size, expected[3])
            self.assertEqual(size, expected[0] - 1)
            self.assertEqual(size == expected[2], (l + 2 * p - d * (k - 1)) % s > 0)
            self.assertEqual(size == expected[1], (l + 2 * p - d * (k - 1) - 1) % s == 0)

    def test_1_3(self):
        x, mean, variance = torch.tensor([[0.8], [-0.4]]), torch.tensor([0.4]), torch.tensor([0.25])
        options = {
            "A": (x - x.mean(), [0.6, -0.6]),
            "B": (F.batch_norm(x, mean, variance, eps=1e-12), [0.8, -1.6]),
            "C": (F.batch_norm(x, mean, variance, training=True, eps=1e-12), [1, -1]),
            "D": ((x - 0.4) / 0.25, [1.6, -3.2]),
        }
        for name, (found, expected) in options.items():
            with self.subTest(name):
                assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float32))

    def test_1_4_and_1_5(self):
        x = theory.MaxPooling.X.clone().requires_grad_()
        pooled = F.max_pool2d(x[None], 2, 2, 1)[0]
        around_with_0 = F.max_pool2d(F.pad(x, (1, 1, 1, 1))[None], 2, 2)[0]
        options = {
            "A": (F.max_pool2d(x[None], 2, 2)[0], [[4, 2]]),
            "B": (around_with_0, [[3, 0, 2], [2, 4, 0]]),
            "C": (pooled, [[3, -1, 2], [2, 4, -2]]),
            "D": (F.max_pool2d(x[None], 2, 1, 1)[0],
                  [[3, 3, -1, 2, 2], [3, 4, 4, 2, 2], [2, 4, 4, 1, -2]]),
        }  # fmt: skip
        for name, (found, expected) in options.items():
            with self.subTest(name):
                self.assertEqual(found.tolist(), expected)
        pooled.backward(theory.MaxPooling.GRAD_Y)
        right = torch.tensor([[-0.1, 0.2, 0, 0.1], [0.2, -0.3, 0, -0.1]])  # (B)
        assert_close(x.grad, right)
        # (A) at -3 instead of -1; (C) at 1 and -3; (D) at every entry of a window.
        self.assertEqual((float(x[0, 1]), float(x[0, 2]), float(x[1, 2])), (-1, -3, 1))
        everywhere = F.interpolate(theory.MaxPooling.GRAD_Y[None, None], (2, 6))[0, 0, :, 1:5]
        assert_close(everywhere, torch.tensor([[-0.1, 0.2, 0.2, 0.1], [0.2, -0.3, -0.3, -0.1]]))


# ---------------------------------------------------------------- completed code


@cache
def small_network():
    """Return an untrained network of pictures, without dropout, in evaluation mode."""
    torch.manual_seed(0)
    return MnistCNN(3, 5, dropout_prob=0).eval().requires_grad_(False)


def given(folder):
    """Return what the blocks of each section find there: what an assignment has before its blank.

    Of the printed saliency program, the network and the picture's score; of the diffusion script,
    the name of a picture and of a pipeline, which here is an untrained one of a few thousand
    weights.
    """
    from tasks.diffusion.networks import make_pipeline
    from tasks.diffusion.words import make_tokenizer, words_of

    torch.manual_seed(0)
    picture = torch.randn(1, 3, 28, 28, requires_grad=True)
    output = small_network()(picture)
    tokenizer = make_tokenizer(words_of(" ".join(SENTENCES)))
    make_pipeline(tiny(len(tokenizer)), tokenizer).save_pretrained(folder / "pipeline")
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(photo).save(folder / "photo.png")
    digits = np.random.default_rng(1).integers(0, 256, (3, 784), dtype=np.uint8)
    return {
        QUESTIONS_OF["video"]: {"X": picture, "score_max": output[0, output.argmax()]},
        QUESTIONS_OF["MNIST"]: {
            "train_images": digits, "photo": folder / "photo.png", "model_id": folder / "pipeline",
        },
    }  # fmt: skip


QUESTIONS_OF = {names[2]: names for names in (*QUESTIONS, DETECTION)}


@cache
def run_page(page):
    """Run a page's blocks of Python, in their order; return the names that each section made.

    The assignment's picture of 768x512 is made smaller: the pipeline takes minutes for it.
    """
    found, holder = {}, tempfile.TemporaryDirectory()
    folder, here = Path(holder.name), Path.cwd()
    unittest.addModuleCleanup(holder.cleanup)
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            own, section = given(folder), None
            for match in FENCE.finditer(page.read_text(encoding="utf-8")):
                if match["section"]:
                    names = next((n for n in QUESTIONS_OF.values() if match["section"] in n), None)
                    section = found.setdefault(names and names[2], dict(own.get(names, {})))
                else:
                    code = match["code"].replace("(768, 512)", "(96, 64)")
                    exec(compile(code, f"{page.name}, {code[:60]!r}", "exec"), section)
    finally:
        os.chdir(here)
    found["folder"] = folder
    return found


def with_weights_of(network, other):
    """Return a network with the weights of another one, whose names or order are the same."""
    weights, names = other.state_dict(), network.state_dict()
    if weights.keys() != names.keys():
        weights = dict(zip(names, weights.values(), strict=True))
    network.load_state_dict(weights)
    return network.eval()


class CodeTest(unittest.TestCase):
    """What the pages complete computes what the project's modules, or torch's, compute."""

    def each(self, section):
        """Yield the names that a section's code made, of each page."""
        for page in PAGES:
            torch.manual_seed(0)
            yield run_page(page)[section]

    def test_both_languages_have_the_same_code(self):
        """But for comments."""
        found = [
            [re.sub(r"(?m)(^|\s+)# .*", "", match["code"]) for match in FENCE.finditer(text)
             if match["code"]]
            for text in (page.read_text(encoding="utf-8") for page in PAGES)
        ]  # fmt: skip
        self.assertGreater(len(found[0]), 30)
        self.assertEqual(*found)
        for line in "\n".join(found[0]).split("\n"):
            self.assertLessEqual(len(line), 100)

    def test_convolution(self):
        for own in self.each("signs"):
            assert_close(own["Y"].detach(), theory.Convolution.Y)
            assert_close(own["X"].grad, theory.Convolution.GRAD_X_WORKED_OUT)

    def test_loader(self):
        """TODO 1.1 to 1.3, against our own loader, on pictures that have to be made smaller."""
        with tempfile.TemporaryDirectory() as folder:
            root = make_images(Path(folder), {"train": 4, "test": 3}, size=45)
            for own in self.each("signs"):
                for theirs, ours in zip(
                    own["get_data_loader"](root, "test", 32, 4), our_loader(root, "test", 32, 4),
                    strict=True,
                ):  # fmt: skip
                    assert_close(theirs[0], ours[0].contiguous())
                    self.assertEqual(theirs[1].tolist(), ours[1].tolist())
                loader = own["get_data_loader"](root, "train", 32, 12, augment=True)
                (images, labels), (again, _) = next(iter(loader)), next(iter(loader))
                self.assertEqual(images.shape, (12, 3, 32, 32))
                self.assertFalse(torch.equal(images, again))
                self.assertNotEqual(labels.tolist(), sorted(labels.tolist()))
                self.assertLessEqual(float(images.abs().max()), 1)

    def test_block_classifier_and_transformer(self):
        """TODO 2.1 to 4.2: the same names of weights, so that checkpoints fit, and numbers."""
        images = torch.randn(4, 3, 32, 32)
        for own in self.each("signs"):
            for bn, stn in ((False, False), (True, True)):
                ours = Classifier(3, 26, use_batch_norm=bn, use_stn=stn, dropout_prob=0.2)
                theirs = own["Classifier"](3, 26, use_batch_norm=bn, use_stn=stn, dropout_prob=0.2)
                self.assertEqual(list(ours.state_dict()), list(theirs.state_dict()))
                if stn:
                    assert_close(theirs.stn(images), images, atol=1e-5, rtol=0)
                    nn.init.normal_(ours.stn.localization_fc[-1].weight, std=0.05)
                theirs.load_state_dict(ours.state_dict())
                for mode in (True, False):  # with dropout, of the same draws
                    outputs = []
                    for network in (ours, theirs):
                        torch.manual_seed(1)
                        outputs.append(network.train(mode)(images))
                    assert_close(*outputs, rtol=1e-4, atol=1e-5)
            for options in ({}, {"use_batch_norm": True}, {"use_residual": True}):
                ours = networks.ConvBlock(3, 3, 3, 1, 1, **options)
                theirs = with_weights_of(own["ConvBlock"](3, 3, 3, 1, 1, **options), ours)
                assert_close(theirs(images), ours.eval()(images))

    def test_non_local(self):
        x = torch.randn(2, 6, 3, 4, 5)
        for own in self.each("video"):
            ours = networks.NonLocalBlock(6, identity_init=False)
            theirs = with_weights_of(own["NonLocalBlock"](6), ours)
            self.assertGreater(float((theirs(x) - x).abs().max()), 0.01)
            assert_close(theirs(x), ours(x), rtol=1e-4, atol=1e-5)

    def test_saliency(self):
        """The printed program's two lines, and the function that takes a batch."""
        network, images = small_network(), torch.randn(3, 3, 28, 28)
        for own in self.each("video"):
            picture = own["X"]
            label = network(picture).argmax(1)
            assert_close(own["saliency"], insight.saliency_maps(network, picture, label))
            self.assertEqual(own["saliency"].shape, (1, 28, 28))
        for own in self.each("inside"):
            labels = torch.tensor([1, 4, 0])
            found = own["compute_saliency_maps"](images.clone(), labels, network)
            assert_close(found, insight.saliency_maps(network, images, labels))

    def test_first_picture(self):
        for page in PAGES:
            found = run_page(page)
            with Image.open(found["folder"] / "vis.png") as saved:
                self.assertEqual((saved.mode, saved.size), ("L", (28, 28)))
                pixels = found["MNIST"]["train_images"][0].reshape(28, 28)
                self.assertTrue(np.array_equal(np.asarray(saved), pixels))

    def test_mnist_network(self):
        ours, images = MnistCNN(), torch.randn(4, 1, 28, 28)
        for own in self.each("MNIST"):
            theirs = with_weights_of(own["Net"](), ours)
            assert_close(theirs(images), ours.eval()(images))
            with contextlib.redirect_stdout(io.StringIO()) as said:
                own["main"]()
            self.assertEqual(said.getvalue(), "Output shape: torch.Size([1, 10])\n")

    def test_grey_picture(self):
        """From bytes to (1, 28, 28), as our MNIST is normalised."""
        for own in self.each("MNIST"):
            pictures = own["train_images"]
            data = own["MnistDataset"](pictures, [3, 1, 4], own["transform"])
            source = SOURCES["mnist"]
            preprocess = Preprocess((28, 28), source.mean, source.std)
            expected = preprocess.normalize(torch.from_numpy(pictures).view(3, 28, 28, 1))
            self.assertEqual(len(data), 3)
            for index, label in enumerate((3, 1, 4)):
                self.assertEqual(data[index][1], label)
                assert_close(data[index][0], expected[index])

    def test_training_step(self):
        """`train` takes the steps that the engine takes; `test` measures without a gradient."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(12, 1, 28, 28, generator=generator)
        labels = torch.randint(10, (12,), generator=generator)
        batches = [(images[k : k + 4], labels[k : k + 4]) for k in (0, 4, 8)]
        for own in self.each("MNIST"):
            ours, theirs = (MnistCNN(dropout_prob=0) for _ in range(2))
            theirs.load_state_dict(ours.state_dict())
            settings = TrainSettings(optim_type="sgd", lr=0.1, momentum=0.9)
            learner = Learner(ClassificationObjective(), ours, settings, CPU).begin(3)
            learner.train()
            for batch in batches:
                learner.step(*batch)
            optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
            own["train"](theirs.eval(), "cpu", batches, optimizer)
            self.assertTrue(theirs.training)
            for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                assert_close(one, other)

            class Loader(list):
                dataset = images

            loss, accuracy = own["test"](theirs, "cpu", Loader(batches))
            self.assertFalse(theirs.training)
            logits = theirs(images)
            self.assertAlmostEqual(loss, F.cross_entropy(logits, labels).item(), places=5)
            self.assertAlmostEqual(accuracy, (logits.argmax(1) == labels).sum().item() / 12)
            with tempfile.TemporaryDirectory() as folder:
                own["plot_curves"]([2, 1.5], [0.1, 0.4], Path(folder) / "curves.png")
                self.assertTrue((Path(folder) / "curves.png").stat().st_size)

    def test_image_to_image(self):
        """The script as it was meant: the picture counts, and its size is kept."""
        for page in PAGES:
            found = run_page(page)
            with Image.open(found["folder"] / "fantasy_landscape.png") as painted:
                self.assertEqual(painted.size, (96, 64))
            own, options = found["MNIST"], {"strength": 0.75, "num_inference_steps": 4}
            own["pipe"].set_progress_bar_config(disable=True)
            painted = [
                own["pipe"](own["prompt"], image=image, output_type="np",
                            generator=torch.Generator().manual_seed(0), **options).images
                for image in (own["init_image"], Image.new("RGB", (96, 64), "white"))
            ]  # fmt: skip
            self.assertFalse(np.array_equal(*painted))

    def test_the_printed_script_ignores_its_picture(self):
        """It is not refused, changes nothing, and is not what gives the result its size."""
        from diffusers import StableDiffusionPipeline

        folder = run_page(PAGES[0])["folder"]
        pipe = StableDiffusionPipeline.from_pretrained(folder / "pipeline")
        pipe.set_progress_bar_config(disable=True)
        own = run_page(PAGES[0])["MNIST"]
        painted = [
            pipe(prompt=own["prompt"], num_inference_steps=2, output_type="np",
                 generator=torch.Generator().manual_seed(0), **options).images[0]
            for options in (
                {}, {"image": own["init_image"], "strength": 0.75},
                {"image": Image.new("RGB", (96, 64), "white"), "strength": 0.1},
            )
        ]  # fmt: skip
        self.assertTrue(np.array_equal(painted[0], painted[1]))
        self.assertTrue(np.array_equal(painted[0], painted[2]))
        self.assertEqual(painted[0].shape, (64, 64, 3))

    def test_middle_block(self):
        """What the bonus says is in it, and what the printed answer says and is not."""
        import diffusers.models.unets.unet_2d_blocks as library

        from tasks.diffusion.networks import stable_diffusion_unet

        unet = stable_diffusion_unet()
        middle = unet.mid_block
        self.assertEqual([name for name, _ in middle.named_children()], ["attentions", "resnets"])
        self.assertEqual((len(middle.resnets), len(middle.attentions)), (2, 1))
        (inner,) = middle.attentions[0].transformer_blocks
        names = [name for name, _ in inner.named_children() if not name.startswith("norm")]
        self.assertEqual(names, ["attn1", "attn2", "ff"])
        self.assertEqual((inner.attn2.to_q.in_features, inner.attn2.to_k.in_features), (1280, 768))
        self.assertTrue({"conv1", "norm1"} <= dict(middle.resnets[0].named_children()).keys())
        self.assertFalse(hasattr(library, "CrossAttention2D"))
        parameters = sum(parameter.numel() for parameter in unet.parameters())
        for page in PAGES:
            self.assertIn(f"{parameters:,}", page.read_text(encoding="utf-8"))

    def test_fooling(self):
        """With steps and changes so small that no pixel comes to its limit, ours does the same."""
        network = small_network()
        for own in self.each("inside"):
            image = torch.rand(1, 3, 28, 28) * 0.2 - 0.1
            target = int(network(image).argsort(descending=True)[0, 1])
            found = own["make_fooling_image"](image, target, network, learning_rate=0.05)
            ours = insight.make_fooling_image(
                network, image, target, Preprocess((28, 28)), lr=0.05, max_change=1.0
            )
            self.assertTrue(ours.fooled)
            self.assertGreater(ours.steps, 1)
            assert_close(found, ours.image, rtol=1e-4, atol=1e-6)

    def test_class_visualization(self):
        """A step goes up the gradient of our objective without rivals."""
        network = small_network()
        for own in self.each("inside"):
            image = torch.randn(1, 3, 28, 28)
            ours = image.clone().requires_grad_()
            labels = torch.tensor([2])
            objective = insight.class_objective(network(ours), labels, ours, 1e-3, 0.0)
            (gradient,) = torch.autograd.grad(objective, ours)
            expected = image + 5 * gradient / gradient.norm()
            own["class_visualization_step"](image, 2, network, 1e-3, 5)
            assert_close(image.detach(), expected.detach())
            self.assertEqual(float(image.grad.abs().max()), 0)

    def test_style_losses(self):
        current, original = torch.randn(2, 1, 4, 5, 6)
        for own in self.each("inside"):
            expected = losses.content_loss(0.3, current, original)
            assert_close(own["content_loss"](0.3, current, original), expected)
            for normalize in (True, False):
                both = torch.stack((current[0], original[0]))
                expected = losses.gram_matrix(both, normalize)
                assert_close(own["gram_matrix"](both, normalize), expected)
            feats = [current, original[:, :2], original]
            targets = [losses.gram_matrix(original), losses.gram_matrix(current)]
            arguments = (feats, [0, 2], targets, [20.0, 3.0])
            assert_close(own["style_loss"](*arguments), losses.style_loss(*arguments))
            assert_close(own["tv_loss"](current, 0.7), losses.tv_loss(current, 0.7))

    def test_fine_tuning(self):
        """Body and new layer, at their rates, are those of `parameter_groups`."""
        from lab.weights import parameter_groups

        for own in self.each("detection"):
            body = resnet18()
            kept = {name: value.clone() for name, value in body.state_dict().items()}
            network, optimizer = own["fine_tuning"](body, 2, lr=5e-5)
            self.assertEqual(network.fc.out_features, 2)
            for name, value in network.state_dict().items():
                if not name.startswith("fc."):
                    self.assertTrue(torch.equal(value, kept[name]))
            groups = parameter_groups(network, ("fc",), ("fc",))
            for theirs, ours in zip(optimizer.param_groups, groups, strict=True):
                self.assertEqual(
                    {id(weight) for weight in theirs["params"]},
                    {id(weight) for weight in ours["params"]},
                )
                self.assertAlmostEqual(theirs["lr"], 5e-5 * ours.get("lr_scale", 1))

    def test_frozen_features(self):
        for own in self.each("detection"):
            network = own["get_net"](resnet18())
            self.assertEqual(network(torch.zeros(2, 3, 64, 64)).shape, (2, 120))
            learned = {name for name, weight in network.named_parameters() if weight.requires_grad}
            expected = {f"output_new.{k}.{kind}" for k in (0, 2) for kind in ("weight", "bias")}
            self.assertEqual(learned, expected)

    def test_parts_of_tiny_ssd(self):
        """The assignment's pieces, and its whole model, whose weights have our names."""
        images = torch.randn(2, 3, 256, 256)
        for own in self.each("detection"):
            for name, arguments in (("cls_predictor", (8, 5, 10)), ("bbox_predictor", (8, 5))):
                ours = getattr(detection, name)(*arguments)
                theirs = with_weights_of(own[name](*arguments), ours)
                self.assertEqual(repr(theirs), repr(ours))
            self.assertEqual(own["Y1"].shape, (2, 55, 20, 20))
            self.assertEqual(own["Y2"].shape, (2, 33, 10, 10))
            maps = [torch.randn(2, 6, 4, 4), torch.randn(2, 9, 2, 2)]
            joined = own["concat_preds"](maps)
            self.assertTrue(torch.equal(joined, detection.concat_preds(maps)))
            block = detection.down_sample_blk(3, 6).eval()
            theirs = with_weights_of(own["down_sample_blk"](3, 6), block)
            assert_close(theirs(images), block(images))
            base = detection.base_net().eval()
            assert_close(with_weights_of(own["base_net"](), base)(images), base(images))
            ours = detection.TinySSD(num_classes=1).eval()
            theirs = own["TinySSD"](num_classes=1)
            self.assertEqual(list(ours.state_dict()), list(theirs.state_dict()))
            theirs = with_weights_of(theirs, ours)
            with torch.no_grad():
                for found, expected in zip(theirs(images), ours(images), strict=True):
                    assert_close(found, expected, rtol=1e-4, atol=1e-5)
            scores = [own["cls_predictor"](64, 4, 1)(torch.zeros(2, 64, 32, 32))]
            self.assertEqual(own["concat_preds"](scores).shape, (2, 32 * 32 * 4 * 2))

    def test_what_the_printed_box_predictor_does(self):
        """No such argument; and with a plain 4 a number of predictions that no target has."""
        for name in ("nun_anchors", "num_anchors"):
            with self.assertRaisesRegex(TypeError, f"unexpected keyword argument '{name}'"):
                nn.Conv2d(64, **{name: 4}, kernel_size=3, padding=1)
        for own in self.each("detection"):
            with mock.patch.dict(own, bbox_predictor=lambda n, a: nn.Conv2d(n, 4, 3, padding=1)):
                anchors, classes, offsets = own["TinySSD"](1).eval()(torch.zeros(1, 3, 256, 256))
            self.assertEqual((anchors.shape[1], classes.shape), (5444, (1, 5444, 2)))
            self.assertEqual(offsets.shape, (1, 5444))

    def test_voc(self):
        for own in self.each("detection"):
            theirs, ours = own["voc_colormap2label"](), segmentation.voc_colormap2label().long()
            colours = torch.tensor(segmentation.VOC_COLORMAP, dtype=torch.uint8)
            label = colours[torch.arange(2000) % 21].T.reshape(3, 40, 50)
            expected = segmentation.voc_label_indices(label, ours)
            self.assertTrue(torch.equal(own["voc_label_indices"](label, theirs), expected))
            border = torch.tensor([224, 224, 192], dtype=torch.uint8).view(3, 1, 1)
            self.assertEqual(own["voc_label_indices"](border, theirs).item(), 0)
            self.assertEqual(segmentation.voc_label_indices(border, ours).item(), 255)
            numbered = torch.arange(2000).view(1, 40, 50)
            feature, own_label = own["voc_rand_crop"](numbered, numbered.clone(), 20, 30)
            self.assertEqual(feature.shape, (1, 20, 30))
            self.assertTrue(torch.equal(feature, own_label))

    def test_transposed_convolution(self):
        x, kernel = torch.randn(3, 4), torch.randn(2, 3)
        for own in self.each("detection"):
            found = own["trans_conv"](x, kernel)
            assert_close(found, segmentation.trans_conv(x, kernel))
            assert_close(found, F.conv_transpose2d(x[None, None], kernel[None, None])[0, 0])

    def test_fully_convolutional(self):
        """Against our FCN, which takes pictures in [-1, 1] and normalises them itself."""
        images = torch.rand(1, 3, 64, 96) * 2 - 1
        for own in self.each("detection"):
            body = resnet18().eval()
            theirs = own["fully_convolutional"](body, 5).eval()
            ours = segmentation.FCN(segmentation.FCNConfig(5, 32)).eval()
            weights = {
                name: v for name, v in body.state_dict().items() if not name.startswith("fc")
            }
            ours.body.load_state_dict(weights)
            ours.scores[0].load_state_dict(theirs.final_conv.state_dict())
            self.assertTrue(torch.equal(ours.upsample[0].weight, theirs.transpose_conv.weight))
            with torch.no_grad():
                found = theirs((images - ours.mean) / ours.std)
                self.assertEqual(found.shape, (1, 5, 64, 96))
                assert_close(found, ours(images), rtol=1e-4, atol=1e-5)

    def test_layers_of_style_and_content(self):
        """Ours are the activations behind those convolutions."""
        for own in self.each("detection"):
            self.assertEqual(own["content_layers"], [25])
            self.assertEqual(own["style_layers"], [0, 5, 10, 19, 28])
            recipe = RECIPES["vgg19"]
            behind = [
                f"features.{index + 1}" for index in (*own["content_layers"], *own["style_layers"])
            ]
            self.assertEqual(behind, [recipe.content_layer, *recipe.style_layers])


class PrintedTest(unittest.TestCase):
    """What else is said of the assignments' own code and words."""

    def test_pictures_that_the_saliency_program_refuses(self):
        """Grey ones, and those with transparency; `deprocess` is right."""
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        transforms = torchvision.transforms
        prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
        for mode in ("L", "RGBA", "P"):
            with self.assertRaises(RuntimeError):
                prepare(Image.new(mode, (8, 8)))
            prepare(Image.new(mode, (8, 8)).convert("RGB"))
        pixels = torch.rand(3, 8, 8)
        back = transforms.Normalize([0, 0, 0], [4.3668, 4.4643, 4.4444])
        back = transforms.Compose([back, transforms.Normalize([-m for m in mean], [1, 1, 1])])
        restored = back(transforms.Normalize(mean, std)(pixels))
        assert_close(restored, pixels, rtol=1e-4, atol=1e-4)

    def test_pretrained_is_taken_with_a_warning(self):
        with self.assertWarns(UserWarning):
            torchvision.models.resnet18(pretrained=False)

    def test_content_loss_of_several_pictures(self):
        features = torch.zeros(2, 3, 4, 4)
        with self.assertRaises(RuntimeError):
            features.view(3, 16)

    def test_only_a_grey_picture_of_bytes_is_a_png(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(OSError):
            Image.fromarray(np.zeros((28, 28), np.float32)).save(Path(folder) / "vis.png")
        for wrong in (torch.zeros(28, 28), np.zeros((1, 28, 28), np.uint8)):
            with self.assertRaises((AttributeError, TypeError)):
                Image.fromarray(wrong)


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
