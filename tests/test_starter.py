"""What a student gets: cut from the solved files, standing alone, whole again when filled in."""

import ast
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import torch
from torch.testing import assert_close

import networks
from course import ASSIGNMENTS, LANGUAGES, cutting
from course.grading import Reference
from tests.support import PROJECT, ScriptCase, environment, make_images, network_of, script_here

ALLOWED = {"torch", "torchvision", "matplotlib", "sklearn", "PIL", "numpy"}

# The assignment's other commands, in one process.
LOOK = """
import runpy, sys
sys.path.insert(0, ".")
for words in (
    "visualize.py --type filter --layer_idx 0", "visualize.py --type feature --layer_idx 1",
    "visualize.py --type tsne", "visualize.py --type stn",
    "unit_test.py data_loader", "unit_test.py stn",
):
    sys.argv = words.split()
    if sys.argv[0] == "visualize.py":
        sys.argv += ["--ckpt_path", "run", "--epoch", "2"]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def filled(folder: Path, assignment: str) -> Path:
    """Write an assignment as a student hands it in who has solved it by hand."""
    one = ASSIGNMENTS[assignment]
    for name in (*one.blanked, *one.whole):
        solved = (one.folder / name).read_text(encoding="utf-8")
        lines = cutting.fill(cutting.numbered(cutting.cut(solved, "zh")), cutting.solutions(solved))
        (folder / name).write_text(cutting.as_text(lines), encoding="utf-8")
    return folder


def code_of(text: str) -> str:
    """Return code alone: no comment, no docstring."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and len(body) > 1 else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            del body[0]
    return ast.dump(tree)


class CutTest(unittest.TestCase):
    def test_every_blank_is_cut_and_can_be_filled(self):
        for one in ASSIGNMENTS.values():
            numbers = []
            for name in one.blanked:
                solved = (one.folder / name).read_text(encoding="utf-8")
                solutions = cutting.solutions(solved)
                numbers += solutions
                for lang in LANGUAGES:
                    with self.subTest(one.name, file=name, lang=lang):
                        starter = cutting.cut(solved, lang)
                        self.assertNotIn("SOLUTION", starter)
                        ast.parse(starter)
                        lines = cutting.numbered(starter)
                        self.assertEqual(set(cutting.blanks(lines)), set(solutions))
                        for todo in solutions:
                            body = cutting.body_of(lines, todo)
                            self.assertEqual(body, [f'raise NotImplementedError("TODO {todo}")'])
                        whole = cutting.as_text(cutting.fill(lines, solutions))
                        self.assertEqual(code_of(whole), code_of(solved))
            self.assertEqual(sorted(numbers), sorted(one.points))

    def test_one_language(self):
        chinese = {chr(code) for code in range(0x4E00, 0x9FFF)}
        for one in ASSIGNMENTS.values():
            for name in (*one.blanked, *one.whole):
                solved = (one.folder / name).read_text(encoding="utf-8")
                self.assertFalse(chinese & set(cutting.cut(solved, "en")), name)
                self.assertTrue(chinese & set(cutting.cut(solved, "zh")), name)
                for lang in LANGUAGES:
                    self.assertNotRegex(cutting.cut(solved, lang), r"(?m)^\s*(# )?(en|zh): ")

    def test_nothing_of_the_project_is_imported(self):
        """And nothing that the five packages of the README do not bring."""
        for one in ASSIGNMENTS.values():
            own = {Path(name).stem for name in (*one.blanked, *one.whole)}
            for name in (*one.blanked, *one.whole):
                tree = ast.parse((one.folder / name).read_text(encoding="utf-8"))
                for node in ast.walk(tree):
                    found = []
                    if isinstance(node, ast.Import):
                        found = [alias.name for alias in node.names]
                    elif isinstance(node, ast.ImportFrom):
                        found = [node.module]
                    for module in found:
                        root = module.partition(".")[0]
                        self.assertTrue(
                            root in ALLOWED | own | set(sys.stdlib_module_names), f"{name}: {root}"
                        )

    def test_tabs_stay_tabs(self):
        starter = "class A:\n\tdef f(self):\n\t\t# TODO 2.1\n\t\tpass\n\t\t# END OF TODO 2.1\n"
        text = cutting.as_text(
            cutting.fill(cutting.numbered(starter), {"2.1": ["if self:", "    return 1"]})
        )
        ast.parse(text)
        self.assertIn("\t\tif self:\n\t\t    return 1\n", text)


class ScriptTest(ScriptCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_a_folder_is_written(self):
        out = self.folder / "hw2"
        done = script_here("starter.py", "signs", "--out", out, "--lang", "zh", "--images", 0)
        self.assertEqual(done.returncode, 0, done.stderr)
        names = {"README.md", *ASSIGNMENTS["signs"].blanked, *ASSIGNMENTS["signs"].whole}
        self.assertEqual({path.name for path in out.iterdir()}, names)
        readme = (out / "README.md").read_text(encoding="utf-8")
        for command in ASSIGNMENTS["signs"].commands:
            self.assertIn(f"    python {command}\n", readme)
        self.assertIn("| TODO 2.1 | `networks.py` | 3 |", readme)
        self.assertIn('raise NotImplementedError("TODO 4.2")', (out / "networks.py").read_text())

    def test_a_folder_that_holds_something_is_left_alone(self):
        (self.folder / "mine.txt").write_text("work")
        done = script_here("starter.py", "signs", "--out", self.folder, "--images", 0)
        self.assert_refused(done, 1, "is not empty", "--out")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["mine.txt"])

    def test_data(self):
        """Each kind is drawn, small, in the folders that the README's commands read."""
        for name, expected in (
            ("signs", "data/train/12_stop/00000.jpg"), ("video", "data/street_0.jpg"),
            ("detection", "data/labels/000.png"),
        ):  # fmt: skip
            out = self.folder / name
            done = script_here("starter.py", name, "--out", out, "--images", 1)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue((out / expected).is_file(), sorted(out.rglob("*"))[:20])
        # The one street has no sign, and there are fewer signs than a batch.
        for name, words in (
            ("detection", ["detection.py", "data"]), ("signs", ["unit_test.py", "data_loader"]),
        ):  # fmt: skip
            done = subprocess.run(
                [sys.executable, *words], cwd=filled(self.folder / name, name), env=environment(),
                capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)


class SolvedTest(unittest.TestCase):
    """The solved assignment on signs and the project's own classifier are one network."""

    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        text = Reference(ASSIGNMENTS["signs"]).solved["networks.py"]
        cls.solved: dict = {}
        exec(compile(text, "networks.py", "exec"), cls.solved)

    def test_same_numbers_from_the_same_weights(self):
        x = torch.randn(4, 3, 32, 32)
        for bn, stn in ((False, False), (True, False), (True, True)):
            ours = networks.Classifier(3, 26, bn, stn, 0.3).eval()
            theirs = self.solved["Classifier"](3, 26, bn, stn, 0.3).eval()
            for value in ours.parameters():
                torch.nn.init.normal_(value, std=0.05)
            theirs.load_state_dict(ours.state_dict())
            assert_close(theirs(x), ours(x))
            ours.load_state_dict(theirs.state_dict())

    def test_checkpoints_go_both_ways(self):
        """The student's train.py, our test.py, and back: the same images right."""
        with tempfile.TemporaryDirectory() as place:
            folder = filled(Path(place), "signs")
            make_images(folder / "data", {"train": 12, "val": 4, "test": 12})

            def run(*words: str, at: Path = folder) -> str:
                done = subprocess.run(
                    [sys.executable, *words],
                    cwd=at, env=environment(), capture_output=True, text=True, timeout=120,
                )  # fmt: skip
                self.assertEqual(done.returncode, 0, done.stderr)
                return done.stdout

            said = run("train.py", "--bn", "--stn", "--epoch", "2", "--ckpt_path", "run")
            self.assertRegex(said, r"epoch 2: loss .+, validation accuracy ")
            self.assertTrue((folder / "run/loss_and_acc.jpg").is_file())
            own = run("test.py", "--ckpt_path", "run", "--epoch", "2")
            ours = run(
                str(PROJECT / "test.py"), "--ckpt_path", "run", "--epoch", "2",
                "--data_root", "data", "--no_show",
            )  # fmt: skip
            self.assertIn(own.split()[2], ours)
            run("-c", LOOK)
            made = {path.name for path in (folder / "visualized").rglob("*.jpg")}
            expected = {"filter_layer_0.jpg", "feature_map.jpg", "tsne.jpg", "stn.jpg"}
            self.assertEqual(made, expected | {"augmentation.jpg"})
            state = torch.load(folder / "run/ckpt_epoch_2.pth")
            network_of({**state, "class_names": ["a", "b", "c"]})
            run(
                str(PROJECT / "train.py"), "--bn", "--epoch", "1", "--data_root", "data",
                "--ckpt_path", "ours", "--no_show",
            )  # fmt: skip
            self.assertIn("test accuracy", run("test.py", "--ckpt_path", "ours", "--epoch", "1"))


if __name__ == "__main__":
    unittest.main()
