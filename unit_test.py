"""Run the tests: every suite, or those named.

python unit_test.py                 # all
python unit_test.py stn theory      # the suites in tests/test_stn.py and tests/test_theory.py

Several suites run side by side, each in a process of its own, as many as there are cores.
"""

import faulthandler
import os
import re
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from lab.console import run
from lab.flags import Parser

TESTS = Path(__file__).parent / "tests"
LIMIT = 15 * 60  # seconds that a suite may take where nobody watches
SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.MULTILINE)


def main() -> None:
    suites = sorted(path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py"))
    parser = Parser(__doc__)
    about = f"suite to run, of {', '.join(suites)}"
    parser.add_argument("suites", nargs="*", metavar="NAME", help=about)
    chosen = parser.parse_args().suites
    for name in chosen:
        if name not in suites:
            parser.error(f"no suite {name!r}; there are {', '.join(suites)}")

    counts = run_here(chosen[0]) if len(chosen) == 1 else run_all(chosen or suites)
    passed, failed, skipped = counts
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(exit_code(*counts))


def exit_code(passed: int, failed: int, skipped: int) -> int:
    """Return 0 if some tests ran and none failed, else 1."""
    return 1 if failed or not passed + skipped else 0


def run_here(suite: str) -> tuple[int, int, int]:
    """Run a suite in this process; return how many tests passed, failed and were skipped.

    Where nobody sits at a terminal, a suite that hangs is ended, with where it hangs.
    """
    if not sys.stdin or not sys.stdin.isatty():
        faulthandler.dump_traceback_later(LIMIT, exit=True)
    sys.path.insert(0, str(TESTS.parent))
    loaded = unittest.defaultTestLoader.loadTestsFromName(f"tests.test_{suite}")
    result = unittest.TextTestRunner(verbosity=2, resultclass=Result).run(loaded)
    failed = {whole(test) for test, _ in result.failures + result.errors}
    failed |= set(result.unexpectedSuccesses)
    skipped = {whole(test) for test, _ in result.skipped} - failed
    return len(result.passed - skipped), len(failed), len(skipped)


class Result(unittest.TextTestResult):
    """Which tests have passed, each once, however many subtests it has."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.passed: set[unittest.TestCase] = set()

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.passed.add(test)

    def addExpectedFailure(self, test: unittest.TestCase, error: Any) -> None:
        super().addExpectedFailure(test, error)
        self.passed.add(test)


def whole(test: Any) -> Any:
    """Return the test that a subtest is part of; another one is whole."""
    return getattr(test, "test_case", test)


def run_all(suites: list[str]) -> tuple[int, int, int]:
    """Run suites side by side, print what each printed once it ends, and add up their numbers.

    A suite counts one more failure where its process ends in another way than its numbers say:
    killed, crashed, stuck, or without any.
    """
    totals = (0, 0, 0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in as_completed(pool.submit(run_apart, name) for name in suites):
            output, counts = done.result()
            print(output, flush=True)
            totals = tuple(map(sum, zip(totals, counts, strict=True)))
    return totals


def run_apart(suite: str) -> tuple[str, tuple[int, int, int]]:
    """Run a suite in a process of its own; return what it printed, and its numbers."""
    # As many processes as cores: with threads besides, they wait for one another.
    threads = {"OMP_NUM_THREADS": "1"}
    # Into a file, since what a suite has left running would keep a pipe open.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        ended = subprocess.run(
            [sys.executable, "-X", "faulthandler", __file__, suite],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env=threads | os.environ,
        ).returncode  # fmt: skip
        file.seek(0)
        output = file.read()
    numbers = SUMMARY.findall(output)
    passed, failed, skipped = (int(count or 0) for count in numbers[-1]) if numbers else (0, 0, 0)
    if not numbers or ended != exit_code(passed, failed, skipped):
        output += f"FAIL: the suite {suite} ended with exit code {ended}\n"
        failed += 1
    return output, (passed, failed, skipped)


if __name__ == "__main__":
    run(main)
