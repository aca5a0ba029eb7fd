"""What scripts answer before they work: `--help` and a wrong flag, at once.

That no torch is needed is seen by what a script has imported by then, not by how long it takes.
"""

import json
import re
import subprocess
import sys
import unittest

import tasks
from tests.support import PROJECT, environment

HEAVY = {"torch", "torchvision", "numpy", "PIL", "matplotlib", "sklearn", "scipy", "diffusers"}
# Runs each command line; prints its exit code, output, errors, and what it has imported. The next
# one imports the project anew.
PROBE = """
import contextlib, io, json, os, runpy, sys, traceback
for sys.argv in json.load(sys.stdin):
    output, errors, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
            code = 1
    imported = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps([code, output.getvalue(), errors.getvalue(), imported]))
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(os.getcwd() + os.sep):
            del sys.modules[name]
"""


def answers(commands: list[list[str]]) -> list[tuple[int, str, str, list[str]]]:
    """Run scripts to their ends; return of each what `PROBE` prints."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], input=json.dumps(commands),
        cwd=PROJECT, env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


class AnswerTest(unittest.TestCase):
    """`--help` and a wrong flag, of every script and of every task, import no torch."""

    @classmethod
    def setUpClass(cls):
        cls.commands = [[path.name] for path in sorted(PROJECT.glob("*.py"))]
        cls.commands += [["train.py", "--task", name] for name in tasks.TASKS]
        drawn = re.search(r"(\w+(?:\|\w+)+)", answers([["datasets.py", "--help"]])[0][1])
        cls.commands += [["datasets.py", name] for name in drawn[1].split("|")]

    def assert_answers(self, commands: list[list[str]], code: int) -> list[tuple[str, str, str]]:
        """Return of each the script, and what it says."""
        said = []
        for words, answer in zip(commands, answers(commands), strict=True):
            with self.subTest(" ".join(words)):
                ended, output, errors, imported = answer
                self.assertEqual(ended, code, errors)
                self.assertIn("argparse", imported)
                self.assertEqual(HEAVY & set(imported), set())
                said.append((words[0], output, errors))
        return said

    def test_help(self):
        for name, output, errors in self.assert_answers(
            [[*words, "--help"] for words in self.commands], 0
        ):
            self.assertEqual(errors, "")
            self.assertIn(f"usage: {name}", output)

    def test_a_wrong_flag(self):
        """In one line, with exit code 2: a flag that there is not, and values that are none."""
        wrong = [[*words, "--nonsense"] for words in self.commands]
        wrong += [["train.py", "--task", name, "--epoch", "0"] for name in tasks.TASKS]
        wrong += [
            ["train.py", "--task", "dreaming"],
            ["train.py", "--task", "detection", "--dataset", "dreams"],
            ["train.py", "--task", "classification", "--weights", "a", "--pretrained"],
            ["test.py", "--precision", "fp8"],
            ["export.py", "--format", "tflite"],
            ["visualize.py", "--type", "dream"],
            ["compare.py"],
            ["report.py", "--only", "dreams"],
            ["benchmark.py", "--only", "dreams"],
            ["unit_test.py", "dreams"],
            ["style.py", "--start", "dreams"],
            ["diffuse.py"],
            ["page.py", "--task", "dreams"],
            ["starter.py", "dreams", "--out", "."],
            ["starter.py", "signs"],
            ["grade.py"],
            ["pretrain.py"],
            ["pretrain.py", "dreams"],
            ["grade.py", ".", "--jobs", "0"],
            ["diffuse.py", "--prompt", "", "--scheduler", "dreams"],
            ["datasets.py"],
            ["datasets.py", "kaggle", "--kind", "dreams", "--root", "."],
        ]
        for name, _, errors in self.assert_answers(wrong, 2):
            self.assertRegex(errors, rf"^{name}.*: error: .+\n$")


if __name__ == "__main__":
    unittest.main()
