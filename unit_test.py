"""Run the tests: every suite, or those named.

python unit_test.py                 # all
python unit_test.py stn theory      # the suites in tests/test_stn.py and tests/test_theory.py

Several suites run side by side, each in a process of its own, as many as there are cores.
"""

import faulthandler
import multiprocessing
import os
import re
import sys
import tempfile
import unittest
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from lab.console import run
from lab.files import read_text
from lab.flags import Parser

TESTS = Path(__file__).parent / "tests"
LIMIT = 15 * 60  # seconds that a suite may take where nobody watches
# Processes of suites are forks of one that has loaded what nearly all load, and done nothing else;
# elsewhere than on Linux, such forks may crash or hang.
FORKS = sys.platform == "linux"
LOADED = ["torch", "torchvision", "torchmetrics", "sklearn.metrics", "matplotlib.pyplot"]
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

    # As many processes as cores: with threads besides, they wait for one another. Nor does a script
    # that is tried then say that others keep cores busy.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    report(run_here(chosen[0]) if len(chosen) == 1 else run_all(chosen or suites))


def report(counts: tuple[int, int, int]) -> NoReturn:
    """Print how many tests passed, failed and were skipped, and end."""
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
    faulthandler.enable()
    sys.path.insert(0, str(TESTS.parent))
    loaded = unittest.defaultTestLoader.loadTestsFromName(f"tests.test_{suite}")
    # Not before: a fork that a suite makes as it is loaded has no such watch, and would wait for
    # it for ever when it ends.
    if not sys.stdin or not sys.stdin.isatty():
        faulthandler.dump_traceback_later(LIMIT, exit=True)
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
    context = multiprocessing.get_context("forkserver" if FORKS else "spawn")
    if FORKS:
        context.set_forkserver_preload(LOADED)
    totals = (0, 0, 0)
    waiting, running = suites[::-1], {}
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                file = Path(folder, waiting.pop())
                file.touch()
                process = context.Process(target=run_apart, args=(file.name, file))
                process.start()
                running[process.sentinel] = process, file
            for ended in wait(running):
                output, counts = outcome(*running.pop(ended))
                print(output, flush=True)
                totals = tuple(map(sum, zip(totals, counts, strict=True)))
    return totals


def run_apart(suite: str, file: Path) -> None:
    """Run a suite in this process, which is its own, and write what it prints into a file."""
    multiprocessing.set_start_method(None, force=True)  # the system's own again
    # Not through a pipe, which what a suite has left running would keep open.
    output = os.open(file, os.O_WRONLY)
    for stream, at in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(at, stream)
    run(lambda: report(run_here(suite)))


def outcome(process: BaseProcess, file: Path) -> tuple[str, tuple[int, int, int]]:
    """Return what the suite of a process that has ended printed, and its numbers."""
    process.join()
    output = read_text(file, errors="replace", utf16=False)
    numbers = SUMMARY.findall(output)
    passed, failed, skipped = (int(count or 0) for count in numbers[-1]) if numbers else (0, 0, 0)
    if not numbers or process.exitcode != exit_code(passed, failed, skipped):
        output += f"FAIL: the suite {file.name} ended with exit code {process.exitcode}\n"
        failed += 1
    return output, (passed, failed, skipped)


if __name__ == "__main__":
    run(main)
