"""The runner of the suites: a copy of it runs suites that fail, crash and hang."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

from tests.support import PROJECT, environment

SUITES = {
    "good": """
        def test_one(self): pass
        def test_two(self): pass
        @unittest.skip("for now")
        def test_three(self): self.fail()
    """,
    "bad": """
        def test_one(self): pass
        def test_two(self): self.assertEqual(1, 2)
        @unittest.expectedFailure
        def test_three(self): pass
    """,
    "empty": "",
    "parts": """
        def test_one(self):
            for number in range(9):
                with self.subTest(number): self.assertEqual(number % 2, 0)
        def test_two(self):
            for number in range(9):
                with self.subTest(number): self.skipTest("for now")
        def test_three(self):
            for number in range(9):
                with self.subTest(number): pass
        def test_four(self):
            with self.subTest(1): self.skipTest("for now")
            with self.subTest(2): self.fail()
            with self.subTest(3): raise ValueError
    """,
    "no_class": """
        @classmethod
        def setUpClass(cls): raise ValueError
        def test_one(self): pass
        def test_two(self): pass
    """,
    "leaves_early": """
        def test_one(self): os._exit(0)
    """,
    "crashes_at_exit": """
        def test_one(self): at_exit(os._exit, 3)
    """,
    "killed_at_exit": """
        def test_one(self): at_exit(os.kill, os.getpid(), signal.SIGKILL)
    """,
    "last_words": """
        def test_one(self):
            print("\\n9 passed, 9 failed")
            at_exit(print, "Done.")
    """,
    "leaves_a_process": """
        def test_one(self):
            code = "import time; time.sleep(600)"
            print("left", subprocess.Popen([sys.executable, "-c", code]).pid)
    """,
    "threads": """
        def test_one(self): print("has", os.environ["OMP_NUM_THREADS"])
    """,
    "forks": """
        process = os.fork()
        if not process:
            signal.alarm(20)
            sys.exit()
        def test_one(self): self.assertEqual(os.waitpid(self.process, 0)[1], 0)
    """,
    "hangs": """
        def test_one(self): time.sleep(300)
    """,
}
HEAD = """
import os, signal, subprocess, sys, threading, time, unittest

def at_exit(function, *arguments):
    def wait():
        threading.main_thread().join()
        function(*arguments)
    threading.Thread(target=wait).start()

class Case(unittest.TestCase):
"""


class UnitTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        runner = (PROJECT / "unit_test.py").read_text()
        (cls.folder / "unit_test.py").write_text(re.sub("(?m)^LOADED = .*", "LOADED = []", runner))
        shutil.copytree(PROJECT / "lab", cls.folder / "lab")
        (cls.folder / "tests").mkdir()
        for name, body in SUITES.items():
            body = textwrap.indent(textwrap.dedent(body).strip() or "pass", "    ")
            (cls.folder / "tests" / f"test_{name}.py").write_text(f"{HEAD}{body}\n")

    def run_suites(self, *names: str) -> tuple[str, str, int]:
        """Return what the runner printed, the last line of it, and its exit code."""
        command = [sys.executable, str(self.folder / "unit_test.py"), *names]
        done = subprocess.run(
            command, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120,
        )  # fmt: skip
        return done.stdout, done.stdout.splitlines()[-1], done.returncode

    def test_counts_of_one_suite(self):
        for name, counts, code in (
            ("good", "2 passed, 0 failed, 1 skipped", 0),
            ("bad", "1 passed, 2 failed", 1),
            ("empty", "0 passed, 0 failed", 1),
            ("parts", "1 passed, 2 failed, 1 skipped", 1),  # however many subtests
            ("no_class", "0 passed, 1 failed", 1),
        ):
            with self.subTest(suite=name):
                _, last, ended = self.run_suites(name)
                self.assertEqual((last, ended), (counts, code))

    def test_numbers_of_several_suites_add_up(self):
        output, last, code = self.run_suites("good", "bad")
        self.assertEqual((last, code), ("3 passed, 2 failed, 1 skipped", 1))
        self.assertNotIn("exit code", output)
        _, last, code = self.run_suites("good", "last_words")
        self.assertEqual((last, code), ("3 passed, 0 failed, 1 skipped", 0))

    def test_a_suite_must_end_as_its_numbers_say(self):
        """Whether it dies before it has any, or after."""
        for name, counts, ended in (
            ("leaves_early", "2 passed, 1 failed, 1 skipped", "0"),
            ("crashes_at_exit", "3 passed, 1 failed, 1 skipped", "3"),
            ("killed_at_exit", "3 passed, 1 failed, 1 skipped", "-9"),
        ):
            with self.subTest(suite=name):
                output, last, code = self.run_suites("good", name)
                self.assertEqual((last, code), (counts, 1))
                self.assertIn(f"FAIL: the suite {name} ended with exit code {ended}\n", output)

    @unittest.skipUnless(hasattr(os, "fork"), "no forks here")
    def test_a_fork_made_on_loading_ends(self):
        _, last, code = self.run_suites("forks")
        self.assertEqual((last, code), ("1 passed, 0 failed", 0))

    def test_a_suite_that_hangs_is_ended(self):
        """And names the line; the limit is made a second here."""
        runner = self.folder / "unit_test.py"
        text = runner.read_text()
        self.addCleanup(runner.write_text, text)
        runner.write_text(text.replace("LIMIT = 15 * 60", "LIMIT = 1"))
        output, last, code = self.run_suites("good", "hangs")
        self.assertEqual((last, code), ("2 passed, 1 failed, 1 skipped", 1))
        self.assertIn("FAIL: the suite hangs ended with exit code 1", output)
        self.assertRegex(output, r'test_hangs\.py", line \d+ in test_one')

    def test_nothing_waits_for_what_a_suite_left_running(self):
        output, last, code = self.run_suites("good", "leaves_a_process")
        os.kill(int(re.search(r"left (\d+)", output)[1]), signal.SIGKILL)  # it is there still
        self.assertEqual((last, code), ("3 passed, 0 failed, 1 skipped", 0))

    def test_suites_share_the_cores(self):
        """Each has one thread, unless the caller's environment says otherwise."""
        path = self.folder / "tests" / "test_threads.py"
        path.write_text(
            f"{HEAD}    def test_one(self): print('has', os.environ['OMP_NUM_THREADS'])\n"
        )
        self.addCleanup(path.unlink)
        for given, expected in (({}, "1"), ({"OMP_NUM_THREADS": "3"}, "3")):
            env = {k: v for k, v in environment().items() if k != "OMP_NUM_THREADS"} | given
            for suites in (["good", "threads"], ["threads"]):
                done = subprocess.run(
                    [sys.executable, str(self.folder / "unit_test.py"), *suites],
                    env=env, capture_output=True, text=True, timeout=120,
                )  # fmt: skip
                self.assertIn(f"has {expected}\n", done.stdout)


if __name__ == "__main__":
    unittest.main()
