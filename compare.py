"""Compare trained runs: their curves in one picture, and a table of what each has reached.

python compare.py checkpoints/default checkpoints/bn checkpoints/stn
python compare.py checkpoints/* --data_root FOLDER    # all tested on the pictures of one folder
python compare.py checkpoints/* > table.md            # the table alone; the rest is standard error

Validation chooses a run's best epoch, and that epoch is tested. Everything but the test accuracy
is read from the checkpoints.
"""

from pathlib import Path

from lab.console import run
from lab.flags import Parser, add_flags, read_flags
from tasks import CompareFlags


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of checkpoints")
    add_flags(parser, CompareFlags)
    flags = read_flags(parser.parse_args(), CompareFlags)

    from lab.drawing import show_figures
    from tasks.comparing import compare

    compare(flags)
    if not flags.no_show:
        show_figures()


if __name__ == "__main__":
    run(main)
