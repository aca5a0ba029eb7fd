"""Run the tests: every suite, or those named.

python unit_test.py                 # all
python unit_test.py stn theory      # the suites in tests/test_stn.py and tests/test_theory.py
"""

import sys
import unittest
from pathlib import Path

from console import Parser, run

TESTS = Path(__file__).parent / "tests"


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

    sys.path.insert(0, str(TESTS.parent))
    names = [f"tests.test_{name}" for name in chosen or suites]
    loaded = unittest.defaultTestLoader.loadTestsFromNames(names)
    result = unittest.TextTestRunner(verbosity=2).run(loaded)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    passed = result.testsRun - failed - skipped
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed or not result.testsRun else 0)


if __name__ == "__main__":
    run(main)
