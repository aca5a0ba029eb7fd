"""Make the lab report: run what the sign assignment asks, and write down what came of it.

python report.py                        # all of it; stopped, it goes on where it was
python report.py --quick                # few epochs, in minutes
python report.py --lang zh --seeds 3    # in Chinese, each run with three seeds
python report.py --only detection       # a chapter of runs that are there
"""

from lab.console import run
from lab.flags import parse_flags
from reporting import ReportFlags


def main() -> None:
    flags = parse_flags(ReportFlags, __doc__)

    from reporting.document import make

    make(flags)


if __name__ == "__main__":
    run(main)
