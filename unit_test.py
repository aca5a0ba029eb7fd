"""Run the tests: every suite, or those named.

python unit_test.py                 # all
python unit_test.py stn theory      # the suites in tests/test_stn.py and tests/test_theory.py

Several suites run side by side, each in a process of its own, as many as there are cores.
"""

import os
import re
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from lab.console import Parser, run

TESTS = Path(__file__).parent / "tests"
SUMMARY = re.compile(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\n$")


def main() -> None:
    suites = sorted(path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py"))
    parser = Parser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "suites", nargs="*", metavar="NAME", help=f"suite to run, of {', '.join(suites)}"
    )
    chosen = parser.parse_args().suites
    for name in chosen:
        if name not in suites:
            parser.error(f"no suite {name!r}; there are {', '.join(suites)}")

    passed, failed, skipped = run_here(chosen[0]) if len(chosen) == 1 else run_all(chosen or suites)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed or not passed + skipped else 0)


def run_here(suite: str) -> tuple[int, int, int]:
    """Run a suite in this process; return how many tests passed, failed and were skipped."""
    sys.path.insert(0, str(TESTS.parent))
    loaded = unittest.defaultTestLoader.loadTestsFromName(f"tests.test_{suite}")
    result = unittest.TextTestRunner(verbosity=2).run(loaded)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    return result.testsRun - failed - skipped, failed, skipped


def run_all(suites: list[str]) -> tuple[int, int, int]:
    """Run suites side by side, print what each printed once it ends, and add up its numbers.

    A suite that ends without its numbers, killed for instance, counts as one failure.
    """

    def run_suite(name: str) -> str:
        command = [sys.executable, __file__, name]
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ).stdout

    totals = [0, 0, 0]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in as_completed(pool.submit(run_suite, name) for name in suites):
            output = done.result()
            print(output, flush=True)
            numbers = SUMMARY.search(output)
            counts = numbers.groups(default="0") if numbers else (0, 1, 0)
            totals = [total + int(count) for total, count in zip(totals, counts, strict=True)]
    return tuple(totals)


if __name__ == "__main__":
    run(main)
