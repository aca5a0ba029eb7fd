"""The grader: wrong solutions lose points at their own blank, hostile ones harm nobody."""

import csv
import ctypes
import io
import json
import re
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

from course import ASSIGNMENTS, cutting, grading, marking, pages
from course.grading import Grade, Grader, Mark, Reference, Sandbox
from course.submissions import Submission, read_submission
from tests.support import PROJECT, ScriptCase, script

# As students write them: assignment, blank, code of it, what the line must say.
RESIDUAL = "{}\nif self.use_residual:\n    y = y + x\nreturn {}"
FORWARD = "h = self.conv_net(x)\n{}"
STN_4_2 = "last = self.localization_fc[3]\nlast.weight.data{}\nlast.bias.data = torch.tensor({})"
COMPOSE = (
    "to = transforms\nlist_ = [to.Resize((image_size, image_size))]\n"
    "if {}:\n    list_.append(to.RandomRotation(20))\nlist_ += [{}]\n"
    "data_transform = to.Compose(list_)"
)
TENSOR, BYTES = "to.ToTensor(), ", "to.PILToTensor(), to.Lambda(lambda t: 1.0 * t), "
HALF = "to.Normalize([0.5] * 3, [0.5] * 3)"
IF_TRAIN = "augment and mode == 'train'"
WRONG = (
    ("signs", "1.1", COMPOSE.format(IF_TRAIN, "to.ToTensor()"), r"not normalised to \[-1, 1\]"),
    ("signs", "1.1", COMPOSE.format(IF_TRAIN, BYTES + HALF), r"\[0, 255\]"),
    ("signs", "1.1", COMPOSE.format("augment", TENSOR + HALF), "val and test are augmented"),
    ("signs", "1.1", COMPOSE.format("False", TENSOR + HALF), "nothing is augmented"),
    ("signs", "1.1", COMPOSE.format("mode == 'train'", TENSOR + HALF),
     'root, "train", 32, 100. varies images`: True; expected False'),
    ("signs", "1.2", "dataset = ImageFolder(data_root + '/train', data_transform)",
     "read from train/"),
    ("signs", "1.2", "dataset = ImageFolder(f'{data_root}/{mode}')", "transform is not given"),
    ("signs", "1.3", "data_loader = DataLoader(dataset, batch_size, True, num_workers=num_workers)",
     "val and test are shuffled"),
    ("signs", "1.3", "data_loader = DataLoader(dataset, batch_size, num_workers=num_workers)",
     "train is not shuffled"),
    ("signs", "2.1", "self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride)\n"
     "self.bn = nn.Sequential()\nif use_batch_norm:\n    self.bn = nn.BatchNorm2d(out_channels)\n"
     "self.relu = nn.ReLU(inplace=True)", "`padding` is not given"),
    ("signs", "2.1",
     "self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding, stride)\n"
     "self.bn = nn.BatchNorm2d(out_channels) if use_batch_norm else nn.Identity()\n"
     "self.relu = nn.ReLU()", "changed places"),
    ("signs", "2.1", "self.conv = nn.Conv2d(in_channels, out_channels, kernel_size,\n"
     "                      padding=padding)\n"
     "self.bn = nn.BatchNorm2d(out_channels) if use_batch_norm else nn.Identity()\n"
     "self.relu = nn.ReLU()", "`stride` is not given"),
    ("signs", "2.2", RESIDUAL.format("y = self.bn(self.conv(x))", "F.relu(y)"),
     r"before the activation; expected relu\(bn\(conv\(x\)\)\) \+ x .*off by [\d.]+"),
    ("signs", "2.2", RESIDUAL.format("y = self.bn(F.relu(self.conv(x)))", "y"),
     "activation comes before the normalisation"),
    ("signs", "2.2", "x = self.relu(self.bn(self.conv(x)))\nif self.use_residual:\n    x = x + x\n"
     "return x", "keep the input"),
    ("signs", "2.2", "return self.relu(self.bn(self.conv(x)))", "residual is left out"),
    ("signs", "3.1", ("ConvBlock(64, 128, 3, 1, 1", "ConvBlock(64, 128, 3, 1, 0"), "padding 0x0"),
    ("signs", "3.1", ("ConvBlock(32, 64, 5, 2, 2", "ConvBlock(32, 64, 5, 1, 2"), "stride 1x1"),
    ("signs", "3.1", ("    nn.Dropout(dropout_prob),\n", ""), "dropout is left out"),
    ("signs", "3.2", "layers = [nn.Linear(2048, 256), nn.ReLU()]\n"
     "layers += [nn.BatchNorm1d(256) if use_batch_norm else nn.Identity()]\n"
     "self.fc_net = nn.Sequential(*layers, nn.Linear(256, num_classes))", "dropout is left out"),
    ("signs", "3.3", FORWARD.format("return self.fc_net(h)"), "`view` or `flatten` is missing"),
    ("signs", "3.3",
     FORWARD.format("h = self.fc_net(h.view(h.size(0), -1))\nreturn F.softmax(h, dim=1)"),
     "a softmax is at the end"),
    ("signs", "3.3", FORWARD.format("return self.fc_net(F.dropout(h.flatten(1), 0.5))"),
     "while evaluating"),
    ("signs", "4.1", ("nn.Linear(128, 6)", "nn.Linear(128, 2)"), "6 numbers of theta"),
    ("signs", "4.2", STN_4_2.format(".zero_()", "[0.0] * 6"), "bias is zero, not the identity"),
    ("signs", "4.2", STN_4_2[STN_4_2.index("last.bias"):].format("[1.0, 0, 0, 0, 1, 0]")
     .replace("last.bias", "self.localization_fc[3].bias"), "weight is not zero"),
    ("video", "3.1", "scores = torch.bmm(query.permute(0, 2, 1), key)\n"
     "attention = torch.softmax(scores, dim=1)", "softmax over the wrong axis"),
    ("video", "3.1", "attention = self.softmax(torch.bmm(key.permute(0, 2, 1), query))",
     "query and key have changed places"),
    ("video", "3.2", "y = torch.bmm(attention, value.permute(0, 2, 1)).permute(0, 2, 1)\n"
     "out = self.out_conv(y.reshape(batch_size, -1, T, H, W))", "the input is not added"),
    ("video", "7.2", "saliency, _ = torch.max(gradient, 1)", "abs is forgotten"),
    ("video", "7.2", "saliency = gradient.abs().amax(2)", "wrong axis"),
    ("mnist", "1.2",
     "x = self.pool1(F.relu(self.conv1(x)))\nx = self.pool2(F.relu(self.conv2(x)))\n"
     "return self.fc2(self.dropout2(F.relu(self.fc1(self.dropout1(x)))))", "not flattened"),
    ("mnist", "1.3", "x = images[:, None].float()\nreturn (x - 0.1307) / 0.3081", "divide by 255"),
    ("mnist", "1.4", "model.train()\nfor x, y in loader:\n"
     "    F.cross_entropy(torch.softmax(model(x), 1), y).backward()\n"
     "    optimizer.step()\n    optimizer.zero_grad()", "softmax is taken before cross-entropy"),
    ("mnist", "1.5", "right = 0\nwith torch.no_grad():\n    for x, y in loader:\n"
     "        right += int((model(x).argmax(dim=1) == y).sum())\n"
     "return right / len(loader.dataset)", r"model\.eval\(\)"),
    ("inside", "1.3", "(model(img)[:, target_y].sum() + l2_reg * img.square().sum()).backward()\n"
     "img.data = img.data + learning_rate * img.grad / torch.norm(img.grad)",
     "sign of the regular"),
    ("inside", "2.2", "N, C, H, W = features.size()\nx = features.view(N, C, -1)\n"
     "return torch.einsum('ncp,ndp->ncd', x, x)", "not normalised by C"),
    ("inside", "2.4",
     "d = img[:, :, 1:, :] - img[:, :, :-1, :]\nreturn tv_weight * torch.sum(d**2)",
     "those beside are left out"),
    ("inside", "2.4",
     "tv1 = torch.sum((img[:,:,:1:] - img[:,:,:-1])**2)\n"  # as the assignment prints it
     "tv2 = torch.sum((img[:,:,1:] - img[:,:,:-1])**2)\nreturn tv_weight * (tv1 + tv2)",
     "a comma is missing"),
    ("detection", "2.1", "return nn.Conv2d(num_inputs, num_anchors * num_classes, 3, 1, 1)",
     "background's class is forgotten"),
    ("detection", "2.3", "flat = [p.permute(0, 3, 2, 1).flatten(1) for p in preds]\n"
     "return torch.cat(flat, 1)", "wrong permute"),
    ("detection", "3.1",
     "Y = torch.zeros(X.shape[0] + K.shape[0] - 1, X.shape[1] + K.shape[1] - 1)\n"
     "for i in range(len(X)):\n    for j in range(len(X[0])):\n"
     "        Y[i : i + len(K), j : j + len(K[0])] = X[i, j] * K\nreturn Y", "added up"),
    ("detection", "3.2", "y = self.final_conv(self.net(X))\n"
     "return F.interpolate(y, size=X.shape[-2:], mode='bilinear', align_corners=True)",
     "align_corners=True"),
    ("signs", "1.1",
     COMPOSE.format(IF_TRAIN, TENSOR + HALF).replace(
         "to.Resize((image_size, image_size))", "to.Resize(image_size), to.CenterCrop(image_size)"),
     "sides are cut off"),
    ("signs", "1.1", COMPOSE.format(IF_TRAIN, TENSOR + "to.Normalize((0.485, 0.456, 0.406), "
     "(0.229, 0.224, 0.225))"), "those of ImageNet"),
    ("signs", "2.2", "out = self.relu(self.bn(self.conv(x)))\n"
     "return self.relu(out + x) if self.use_residual else out", "once more"),
    ("signs", "3.3", "with torch.no_grad():\n    h = self.conv_net(x)\n"
     "return self.fc_net(h.flatten(1))", "no gradient"),
    ("video", "3.1", "attention = self.softmax(query.mT @ key).detach()", "no gradient"),
    ("video", "3.2", "x += self.out_conv((value @ attention.mT).view(batch_size, -1, T, H, W))\n"
     "out = x", "x itself is changed"),
    ("mnist", "1.2",
     "x = self.pool1(F.relu(self.conv1(x)))\nx = self.pool2(F.relu(self.conv2(x)))\n"
     "x = F.relu(self.fc1(self.dropout1(x.flatten(1))))\nreturn self.dropout2(self.fc2(x))",
     "comes after fc2"),
    ("mnist", "1.4", "model.train()\nfor x, y in loader:\n"
     "    F.cross_entropy(model(x), y).backward()\n"
     "    optimizer.zero_grad()\n    optimizer.step()", "zeroed before it"),
    ("mnist", "1.5", "model.eval()\nwith torch.no_grad():\n"
     "    shares = [(model(x).argmax(1) == y).float().mean() for x, y in loader]\n"
     "return float(sum(shares) / len(shares))", "last batch is smaller"),
    ("inside", "1.2", ("learning_rate * ", ""), "`learning_rate` is left out"),
    ("inside", "2.1", ("content_current -", "content_current.detach() -"), "no gradient"),
    ("inside", "2.2", ("features.reshape", "features.data.reshape"), "no gradient"),
    ("detection", "1.1", "net.fc.out_features = num_classes\nreturn net", "old layer stays"),
    ("detection", "1.1", "net.fc = nn.Linear(512, num_classes)\nreturn net", "512 inputs"),
    ("detection", "2.5", ("self.blks[i](X)", "self.blks[i](X).detach()"), "no gradient"),
)  # fmt: skip
# Right in other words: own names, helpers, in place, another order of equal things.
RIGHT = (
    ("signs", "1.1", COMPOSE.format(IF_TRAIN, TENSOR + HALF)),
    ("signs", "1.1", COMPOSE.format(IF_TRAIN, TENSOR + HALF)
     .replace("Rotation(20)", "HorizontalFlip()")),
    ("signs", "2.1",
     "self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=padding)\n"
     "self.bn = nn.BatchNorm2d(out_channels) if use_batch_norm else None\n"
     "self.relu = nn.ReLU(True)"),
    ("signs", "2.2", "y = F.relu(self.bn(self.conv(x)))\nreturn y + x if self.use_residual else y"),
    ("signs", "3.3", "return self.fc_net(self.conv_net(x).reshape(-1, 128 * 4 * 4))"),
    ("signs", "4.1",
     "self.localization_conv = nn.Sequential(nn.Conv2d(in_channels, 8, 5, 2), nn.ReLU(),\n"
     "                                       nn.AdaptiveAvgPool2d(4))\n"
     "self.localization_fc = nn.Sequential(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 6))"),
    ("video", "3.1", "attention = torch.einsum('ncp,ncq->npq', query, key).softmax(-1)"),
    ("video", "7.1", "gradient, = torch.autograd.grad(score_max, X)"),
    ("inside", "1.1",
     "scores.gather(1, y[:, None]).sum().backward()\nreturn X.grad.abs().amax(1)"),
    ("inside", "2.2", "N, C, H, W = features.shape\nx = features.flatten(2)\n"
     "return torch.bmm(x, x.mT).div(C * H * W if normalize else 1)"),
    ("detection", "2.1",
     "return nn.Conv2d(num_inputs, num_anchors * (num_classes + 1), 3, padding='same')"),
    ("detection", "3.1",
     "return torch.nn.functional.conv_transpose2d(X[None, None], K[None, None])[0, 0]"),
    ("signs", "1.1", COMPOSE.format(IF_TRAIN, HALF)
     .replace("[to.Resize", "[to.ToTensor(), to.Resize")),
    ("signs", "1.2", "class Signs(ImageFolder):\n    pass\n"
     "dataset = Signs(f'{data_root}/{mode}', transform=data_transform)"),
    ("signs", "3.1", "bn, self.conv_net = use_batch_norm, nn.Sequential()\n"
     "for name, layer in (('a', ConvBlock(in_channels, 32, 5, 1, 2, bn)),\n"
     "                    ('b', ConvBlock(32, 64, 5, 2, 2, bn)), ('c', nn.MaxPool2d(2)),\n"
     "                    ('d', ConvBlock(64, 64, 3, 1, 1, bn, True)),\n"
     "                    ('e', ConvBlock(64, 128, 3, 1, 1, bn)), ('f', nn.MaxPool2d(2)),\n"
     "                    ('g', ConvBlock(128, 128, 3, 1, 1, bn, True)),\n"
     "                    ('h', nn.Dropout(dropout_prob, inplace=True))):\n"
     "    self.conv_net.add_module(name, layer)"),
    ("signs", "3.2", "self.fc_net = nn.Sequential(nn.Linear(2048, 256), nn.ReLU(),\n"
     "    nn.BatchNorm1d(256) if use_batch_norm else nn.Sequential(),\n"
     "    nn.Dropout(dropout_prob), nn.Linear(256, num_classes))"),
    ("signs", "4.1", "widths = (in_channels, 16, 32, 64)\n"
     "blocks = [ConvBlock(a, b, 3, 2, 1, True) for a, b in zip(widths, widths[1:])]\n"
     "self.localization_conv = nn.Sequential(*blocks)\n"
     "self.localization_fc = nn.Sequential(nn.Linear(64 * 4 * 4, 6))"),
    ("mnist", "1.1", "self.conv1, self.pool1 = nn.Conv2d(1, 32, 3), nn.MaxPool2d(2)\n"
     "self.conv2, self.pool2 = nn.Conv2d(32, 64, 3, padding='valid'), nn.MaxPool2d(2)\n"
     "self.dropout1 = self.dropout2 = nn.Dropout(0.3, inplace=True)\n"
     "self.fc1, self.fc2 = nn.Linear(1600, 128), nn.Linear(128, 10)"),
    ("mnist", "1.2",
     "x = self.pool1(F.relu(self.conv1(x)))\nx = self.pool2(F.relu(self.conv2(x)))\n"
     "x = F.relu(self.fc1(F.dropout(x.flatten(1), 0.3, self.training)))\n"
     "return self.fc2(F.dropout(x, 0.3, training=self.training))"),
    ("detection", "2.4", "def half(a, b):\n"
     "    named = {'conv': nn.Conv2d(a, b, 3, padding=1), 'norm': nn.BatchNorm2d(b)}\n"
     "    block = nn.Sequential()\n"
     "    for name, layer in named.items():\n        block.add_module(name, layer)\n"
     "    block.append(nn.ReLU())\n    return block\n"
     "return nn.Sequential(half(in_channels, out_channels), half(out_channels, out_channels),\n"
     "                     nn.MaxPool2d(2))"),
)  # fmt: skip


def tearDownModule():
    GraderCase.sandbox.close()


class GraderCase(ScriptCase):
    sandbox = Sandbox(*ASSIGNMENTS)  # one process, and what it has answered, for all
    references = {name: Reference(one) for name, one in ASSIGNMENTS.items()}

    def submission(self, name: str, bodies: dict[str, str]) -> Submission:
        """Return the solved assignment with other code in some blanks."""
        reference = self.references[name]
        files = {}
        for file, lines in reference.handed_out.items():
            own = {todo: text.split("\n") for todo, text in bodies.items()
                   if reference.file_of[todo] == file}  # fmt: skip
            files[file] = cutting.as_text(cutting.fill(lines, reference.solutions[file] | own))
        return Submission("student", files)

    def grade(self, submission: Submission, name: str = "signs") -> Grade:
        return Grader(ASSIGNMENTS[name], self.references[name], self.sandbox).grade(submission)

    def graded(self, name: str, bodies: dict[str, str]) -> tuple[list[str], dict[str, str]]:
        """Return the blanks that lost points, and what is said of each."""
        marks = self.grade(self.submission(name, bodies), name).marks
        lost = {mark.todo: mark.line["en"] for mark in marks if mark.points == 0}
        return list(lost), lost

    def code(self, name: str, todo: str, code: str | tuple[str, str]) -> str:
        reference = self.references[name]
        solution = "\n".join(reference.solutions[reference.file_of[todo]][todo])
        if isinstance(code, tuple):
            self.assertIn(code[0], solution)
        return code if isinstance(code, str) else solution.replace(*code)


class WrongTest(GraderCase):
    def test_solved_files_get_all_points(self):
        for name, one in ASSIGNMENTS.items():
            grade = self.grade(self.submission(name, {}), name)
            self.assertEqual((grade.points, grade.of), (sum(one.points.values()),) * 2, grade)
            self.assertFalse(any(mark.line for mark in grade.marks))
        self.assertEqual(sum(ASSIGNMENTS["signs"].points.values()), 30)

    def test_starters_get_none(self):
        for name, reference in self.references.items():
            files = {file: cutting.as_text(lines) for file, lines in reference.handed_out.items()}
            grade = self.grade(Submission("student", files), name)
            self.assertEqual(grade.points, 0)
            self.assertEqual(
                [m.line["en"] for m in grade.marks], ["not filled in"] * len(grade.marks)
            )

    def test_wrong_solutions(self):
        """Each at its own blank and nowhere else, with a line that names the mistake."""
        self.assertGreaterEqual(len(WRONG), 40)
        for name, todo, code, words in WRONG:
            with self.subTest(name, todo=todo, words=words):
                lost, lines = self.graded(name, {todo: self.code(name, todo, code)})
                self.assertEqual(lost, [todo], lines)
                self.assertRegex(lines[todo], words)
                self.assertEqual(len(lines[todo].splitlines()), 1)

    def test_right_in_other_words(self):
        for name, todo, code in RIGHT:
            with self.subTest(name, todo=todo):
                self.assertEqual(self.graded(name, {todo: code}), ([], {}))

    def test_known_mistakes_are_named(self):
        """Every entry of the lists fits the solution as it is now; two of each are tried."""
        for name, reference in self.references.items():
            for mistake in reference.mistakes:
                solution = reference.solutions[reference.file_of[mistake.todo]][mistake.todo]
                self.assertNotEqual(mistake.body(solution), solution)
                self.assertRegex(mistake.zh, "[\u4e00-\u9fff]")
            for mistake in reference.mistakes[:2]:
                solution = reference.solutions[reference.file_of[mistake.todo]][mistake.todo]
                code = "\n".join(mistake.body(solution))
                lost, lines = self.graded(name, {mistake.todo: code})
                self.assertEqual(lost, [mistake.todo])
                self.assertTrue(lines[mistake.todo].startswith(mistake.en), lines)

    def test_one_mistake_costs_once(self):
        """Though the classifier and the STN are made of blocks; two cost two."""
        wrong = {"2.1": self.code("signs", "2.1", ("stride, padding)", "stride)")),
                 "2.2": "return self.conv(x)"}  # fmt: skip
        self.assertEqual(self.graded("signs", wrong)[0], ["2.1", "2.2"])

    def test_names_of_ones_own(self):
        """A design of the student's own in 4.1, whose last layer 4.2 calls otherwise."""
        own = {
            "4.1": "conv = nn.Conv2d(in_channels, 4, 4, 4)\n"
            "self.localization_conv = nn.Sequential(conv, nn.ReLU())\n"
            "self.out = nn.Linear(32, 6)\n"
            "self.localization_fc = nn.Sequential(nn.Linear(256, 32), nn.ReLU(), self.out)",
            "4.2": "self.out.weight.data.zero_()\nself.out.bias.data = torch.eye(2, 3).flatten()",
        }
        self.assertEqual(self.graded("signs", own), ([], {}))

    def test_errors_are_told_by_their_line(self):
        lost, lines = self.graded("signs", {"2.2": "out = self.convolution(x)\nreturn out"})
        self.assertEqual(lost, ["2.2"])
        files = self.submission("signs", {"2.2": "out = self.convolution(x)\nreturn out"}).files
        number = files["networks.py"].split("\n").index("        out = self.convolution(x)") + 1
        self.assertIn(f"(networks.py, line {number}: `out = self.convolution(x)`)", lines["2.2"])
        self.assertIn("'ConvBlock' object has no attribute 'convolution'", lines["2.2"])

    def test_a_syntax_error_costs_its_blank(self):
        lost, lines = self.graded("signs", {"3.3": "return self.fc_net((self.conv_net(x))"})
        self.assertEqual(lost, ["3.3"])
        self.assertIn("SyntaxError", lines["3.3"])

    def test_the_line_that_raises_was_kept(self):
        body = self.code("signs", "2.2", ("", "")) + '\nraise NotImplementedError("TODO 2.2")'
        body = 'raise NotImplementedError("TODO 2.2")\n' + body
        lost, lines = self.graded("signs", {"2.2": body})
        self.assertEqual(lost, ["2.2"])
        self.assertIn("is still there", lines["2.2"])

    def test_code_outside_of_the_blanks(self):
        """What was given and is broken costs nothing, and is told."""
        files = self.submission("signs", {}).files
        broken = files["networks.py"].replace("import torch.nn as nn", "import torch.n as nn")
        grade = self.grade(Submission("student", files | {"networks.py": broken}))
        self.assertEqual(grade.points, 30)
        self.assertIn("No module named 'torch.n'", grade.marks[4].line["en"])

    def test_lost_marks(self):
        files = self.submission("signs", {"2.2": "return self.conv(x)"}).files
        bare = "\n".join(line for line in files["networks.py"].split("\n") if "TODO" not in line)
        grade = self.grade(Submission("student", files | {"networks.py": bare}))
        lost = [mark.todo for mark in grade.marks if not mark.points]
        self.assertEqual(lost, ["2.2"])


HOSTILE = {
    "while True:\n    pass": "endless loop",
    "import time\ntime.sleep(1000)": "endless loop",
    "return torch.zeros(5 * 10**9)": "memory",
    "return bytearray(20 << 30)": "memory",
    "import os\nos._exit(0)": "exit code 0",
    "raise SystemExit(3)": "SystemExit",
    "import ctypes\nctypes.string_at(0)": "SIGSEGV",
    "import shutil\nshutil.rmtree({victim!r})": "Error",
    "import shutil, os\nshutil.rmtree(os.getcwd())\nreturn x": ".",
    "open({victim!r} + '/new', 'w')": "PermissionError",
    "from course.signs.networks import ConvBlock\nreturn ConvBlock": "No module named 'course'",
    "import sys\nsys.path.insert(0, {project!r})\nfrom course.signs import networks": "Error",
    "print(open({project!r} + '/course/signs/networks.py').read())": "PermissionError",
    "[print(i) for i in range(10**6 // 9)]\nreturn x": "off",  # called nine times
    "import socket\nsocket.create_connection(('1.1.1.1', 80))": "Error",
    "import subprocess\nsubprocess.run(['ls'])": "not allowed",
    "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)": "not allowed|exit|SIGKILL",
    "def f():\n    return f()\nreturn f()": "RecursionError",
    "open('big', 'wb').write(bytes(100 << 20))\nreturn x": "File too large|SIGXFSZ|exit",
    "torch.save = lambda *a, **k: None\nreturn x": ".",
    "open('observed.pt', 'w').write('x')\nimport os\nos._exit(0)": "exit code 0",
    "open('ended.json', 'w').write('[7]')\nimport os\nos._exit(0)": "exit code 0",
    "import os\nopen('ended.json', 'w').write('{\"end\": \"error\", \"line\": {}}')\nos._exit(0)":
    "exit code 0",
    "keep = torch.save\ntorch.Tensor.detach = lambda s: s.to_sparse()\nreturn x": ".",
    "raise ValueError('\\x1b[2J\\ud800')": "ValueError",
    "raise ValueError('名字 | ' * 1000 + '\\n<b>')": "ValueError",
}  # fmt: skip


AROUND_PYTHON = {  # what the kernel alone can hold
    "import ctypes\nctypes.CDLL(None).unlink({victim!r}.encode() + b'/kept')\nreturn x": "off",
    "import ctypes, os\nctypes.CDLL(None).kill(os.getppid(), 9)\nreturn x": ".",
}


def landlock() -> int:
    """Return the version of the kernel's Landlock; below 1 there is none."""
    return ctypes.CDLL(None).syscall(444, None, 0, 1) if sys.platform == "linux" else 0


@unittest.skipUnless(sys.platform == "linux", "limits as Linux has them")
class HostileTest(GraderCase):
    def test_the_others_are_unharmed(self):
        victim = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (victim / "kept").write_text("work")
        self.grade(self.submission("signs", {}))  # what the other blanks answer is then known
        self.enterContext(mock.patch.object(grading, "SECONDS", 2))
        for code, words in (HOSTILE | (AROUND_PYTHON if landlock() >= 6 else {})).items():
            with self.subTest(code):
                code = code.replace("{victim!r}", repr(str(victim)))
                code = code.replace("{project!r}", repr(str(PROJECT)))
                lost, lines = self.graded("signs", {"2.2": code})
                self.assertEqual(lost, ["2.2"], lines)
                self.assertRegex(lines["2.2"], words)
                self.assertEqual(len(lines["2.2"].splitlines()), 1)
                self.assertLess(len(lines["2.2"]), 1000)
                self.assertEqual([path.name for path in victim.iterdir()], ["kept"])
        self.assertEqual((victim / "kept").read_text(), "work")
        self.assertEqual(self.graded("signs", {}), ([], {}))

    def test_while_it_is_loaded(self):
        """What loops outside of the blanks costs no blank: ours stands in for the rest."""
        self.enterContext(mock.patch.object(grading, "SECONDS", 2))
        files = self.submission("signs", {"2.2": "return self.conv(x)"}).files
        looping = files["networks.py"] + "\nwhile True:\n    pass\n"
        grade = self.grade(Submission("student", files | {"networks.py": looping}))
        self.assertEqual([mark.todo for mark in grade.marks if not mark.points], ["2.2"])
        self.assertIn("endless loop", grade.marks[3].line["en"])


class OtherSystemsTest(unittest.TestCase):
    """Where processes cannot be forked, each job has one that loads torch anew."""

    def test_without_fork(self):
        start = subprocess.Popen

        def popen(words: list[str], **options: object) -> subprocess.Popen:
            program = "import runpy, sys; sys.argv = sys.argv[1:]; main = runpy.run_path("
            program += "sys.argv[0])['main']; main.__globals__['FORKS'] = False; main()"
            return start([*words[:2], "-c", program, *words[2:]], **options)

        sandbox = Sandbox("video")
        self.addCleanup(sandbox.close)
        solved = Reference(ASSIGNMENTS["video"]).solved["attention.py"]
        looping = solved.replace("score_max.backward()", "while True: pass")
        self.enterContext(mock.patch.object(grading, "SECONDS", 2))
        self.enterContext(mock.patch.object(subprocess, "Popen", popen))
        leaving = solved.replace("score_max.backward()", "import os; os._exit(3)")
        answers = [
            sandbox.ask("video", {"attention.py": text}, "7.1", "attention")
            for text in (solved, looping, leaving)
        ]
        self.assertEqual([one.end["end"] for one in answers], ["done", "time", "exit"])
        self.assertEqual(answers[0].pairs[0], ["saliency_map(model, X): shape", [1, 8, 8]])
        self.assertEqual(answers[2].end["message"], "3")


class ReadingTest(GraderCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.files = self.submission("signs", {}).files

    def read(self, path: Path) -> Submission:
        return read_submission(path, ASSIGNMENTS["signs"])

    def pack(self, name: str, entries: dict[str, bytes]) -> Path:
        with zipfile.ZipFile(self.folder / name, "w") as archive:
            for entry, data in entries.items():
                archive.writestr(entry, data)
        return self.folder / name

    def test_encodings_and_line_ends(self):
        text = self.files["networks.py"].replace("class STN", "# 空间变换\nclass STN")
        for encoding in ("utf-8", "utf-8-sig", "gb18030"):
            for end in ("\n", "\r\n", "\r"):
                data = text.replace("\n", end).encode(encoding)
                self.assertEqual(cutting.decode(data), text, (encoding, end))

    def test_tabs(self):
        tabbed = re.sub(
            r"(?m)^( {4})+", lambda m: "\t" * (len(m[0]) // 4), self.files["networks.py"]
        )
        grade = self.grade(Submission("student", self.files | {"networks.py": tabbed}))
        self.assertEqual(grade.points, 30)

    def test_zips(self):
        entries = {name: text.encode() for name, text in self.files.items()}
        inside = self.pack("li.zip", {f"hw2/{name}": data for name, data in entries.items()})
        self.assertEqual(self.read(inside).files, self.files)
        mac = {f"__MACOSX/._{name}": b"\x00\xff" for name in entries}
        self.assertEqual(self.read(self.pack("mac.zip", mac | entries)).files, self.files)
        library = {"venv/lib/site-packages/large.py": b"#" * (2 << 20)}
        self.assertEqual(self.read(self.pack("venv.zip", library | entries)).files, self.files)
        helper = {"XXXX.py": b"x = 1\n"}  # four bytes, as two characters of GBK
        gbk = self.pack("gbk.zip", {f"XXXX/{n}": data for n, data in (entries | helper).items()})
        gbk.write_bytes(gbk.read_bytes().replace(b"XXXX", "作业".encode("gbk")))
        read = self.read(gbk).files
        self.assertEqual(read["作业.py"], "x = 1\n")
        self.assertEqual({name: read[name] for name in self.files}, self.files)

    def test_refused_in_a_line(self):
        (self.folder / "bad.zip").write_bytes(b"PK\x03\x04 no zip")
        (self.folder / "li.rar").write_bytes(b"Rar!")
        (self.folder / "empty").mkdir()
        (self.folder / "large").mkdir()
        (self.folder / "large/networks.py").write_text("#" * (1 << 20) + "\n\n")
        for name, words in (
            ("bad.zip", "damaged"), ("li.rar", "pack it as a zip"),
            ("empty", "holds no datasets.py"),
            ("large", "larger than 1 MB"),
        ):  # fmt: skip
            read = self.read(self.folder / name)
            self.assertIn(words, read.refused["en"])
            self.assertEqual(self.grade(read).points, 0)

    def test_one_file_alone(self):
        grade = self.grade(Submission("student", {"networks.py": self.files["networks.py"]}))
        self.assertEqual(grade.points, 21)
        self.assertEqual(grade.marks[0].line["en"], "there is no datasets.py")


class PageTest(unittest.TestCase):
    def test_what_a_submission_says_stays_text(self):
        """In HTML, in a table of Markdown, and in a spreadsheet."""
        line = dict.fromkeys(("en", "zh"), "ValueError: <b>a | b</b> (`x < 1`)")
        marks = (Mark("3.1", 10, 10), Mark("3.2", 0, 10, line))
        grade = Grade("<i>", ASSIGNMENTS["video"], marks)
        page = pages.html_page(grade, "en")
        self.assertIn("ValueError: &lt;b&gt;a | b&lt;/b&gt; (<code>x &lt; 1</code>)", page)
        self.assertNotRegex(page, "<[bi]>")
        self.assertIn("<b>a \\| b</b>", pages.markdown_page(grade, "en"))
        self.assertEqual(grade.points, 10)
        self.assertEqual(marking.safe("=1+1"), "'=1+1")
        self.assertEqual(marking.safe("li"), "li")

    def test_names(self):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for name in ("a/li", "b/li", "a/wang"):
                (folder / name).mkdir(parents=True)
            paths = [folder / "a/li", folder / "b/li", folder / "a/wang", folder / "li.zip"]
            names = marking.unique_names(paths)
        self.assertEqual(names, ["li", "li_1", "wang", "li.zip"])


class ClassTest(ScriptCase):
    """A folder of submissions, through the real script."""

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.students = cls.folder / "submissions"
        reference = Reference(ASSIGNMENTS["video"])
        solved = reference.solved["attention.py"]
        wrong = solved.replace("gradient.abs()", "gradient")
        for name, text in (("张三", solved), ("li_si", wrong), ("=cmd", solved)):
            (cls.students / name).mkdir(parents=True)
            (cls.students / name / "attention.py").write_text(text, encoding="utf-8")
        with zipfile.ZipFile(cls.students / "li_si.zip", "w") as archive:
            archive.writestr(
                "a/attention.py", cutting.as_text(reference.handed_out["attention.py"])
            )
        (cls.students / "late.rar").write_bytes(b"Rar!")
        (cls.students / "notes.txt").write_text("none")
        cls.done = [
            script("grade.py", cls.students, "--csv", cls.folder / f"{run}.csv", "--out",
                   cls.folder / run, "--lang", lang, "--jobs", 2)
            for run, lang in (("one", "zh"), ("two", "zh"))
        ]  # fmt: skip

    def test_table(self):
        self.assertEqual(self.done[0].returncode, 0, self.done[0].stderr)
        data = (self.folder / "one.csv").read_bytes()
        self.assertTrue(data.startswith(b"\xef\xbb\xbf"))
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
        self.assertEqual(rows[0][:4], ["name", "points", "of", "TODO 3.1"])
        points = {row[0]: row[1] for row in rows[1:]}
        expected = {"'=cmd": "40", "late": "0", "li_si": "30", "li_si.zip": "0", "张三": "40"}
        self.assertEqual(points, expected)
        self.assertIn("张三: 40 / 40", self.done[0].stdout)
        self.assertIn("left out what is no folder and no zip: notes.txt\n", self.done[0].stdout)

    def test_pages(self):
        page = (self.folder / "one/li_si/page.html").read_text(encoding="utf-8")
        self.assertIn("忘记取绝对值", page)
        self.assertNotIn("<script", page)
        self.assertIn("| TODO 7.2 | 0 / 10 | 忘记取绝对值",
                      (self.folder / "one/li_si/page.md").read_text(encoding="utf-8"))  # fmt: skip

    def test_gradescope(self):
        results = json.loads((self.folder / "one/li_si/results.json").read_text(encoding="utf-8"))
        self.assertEqual(results["score"], 30)
        self.assertEqual(
            [(test["name"], test["score"], test["max_score"]) for test in results["tests"]],
            [("TODO 3.1", 10, 10), ("TODO 3.2", 10, 10), ("TODO 7.1", 10, 10), ("TODO 7.2", 0, 10)],
        )

    def test_same_input_same_grade(self):
        files = [path for path in (self.folder / "one").rglob("*.*") if path.is_file()]
        self.assertEqual(len(files), 15)
        for path in files:
            other = self.folder / "two" / path.relative_to(self.folder / "one")
            self.assertEqual(path.read_bytes(), other.read_bytes())
        self.assertEqual(
            *(self.folder.joinpath(f"{run}.csv").read_bytes() for run in ("one", "two"))
        )

    def test_refused(self):
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        for words, expected in (
            (["nowhere"], "there is no nowhere"), ([empty], "no submission in"),
            ([self.students / "late.rar"], "late.rar is no folder and no zip: pack it as a zip"),
            ([self.students / "li_si/attention.py"], "attention.py is no folder and no zip"),
            ([self.folder / "one"], "no submission of an assignment"),
        ):  # fmt: skip
            self.assert_refused(script("grade.py", *words), 1, expected)


if __name__ == "__main__":
    unittest.main()
