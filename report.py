"""Make the lab report: run what the sign assignment asks, and write down what came of it.

python report.py                        # all of it; stopped, it goes on where it was
python report.py --quick                # few epochs, in minutes
python report.py --lang zh --seeds 3    # in Chinese, each run with three seeds
python report.py --only detection       # a chapter of runs that are there
"""

import signal
from pathlib import Path

import tasks
from lab.console import LabError, Parser, positive_int, run
from reporting.blocks import LANGUAGES

EPOCHS, QUICK = 10, 2
CHAPTERS = ("signs", *(name for name in tasks.FIELDS if name != tasks.DEFAULT), "answers")


def make_parser() -> Parser:
    """Return the parser of report.py's flags."""
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument(
        "--data_root", type=Path, help="of the signs (default: the built-in ones, drawn into data)"
    )
    parser.add_argument("--epoch", type=positive_int, help=f"epochs of each run (default {EPOCHS})")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK} epochs; a full report goes on from there"
    )
    parser.add_argument(
        "--seeds", type=positive_int, default=1, help="runs of each kind (default %(default)s)"
    )
    parser.add_argument(
        "--lang", choices=LANGUAGES, default="en", help="language (default %(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=CHAPTERS, default=CHAPTERS, metavar="CHAPTER",
        help=f"of {', '.join(CHAPTERS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--ckpt_path",
        type=Path,
        default=Path("checkpoints/report"),
        help="folder of the signs' runs; those of other fields are beside it (default %(default)s)",
    )
    parser.add_argument(
        "--save_dir", type=Path, default=Path("report"), help="(default %(default)s)"
    )
    return parser


def main() -> None:
    args = make_parser().parse_args()

    from reporting import document, signs, work

    failed = []
    if "signs" in args.only:
        epochs = args.epoch or (QUICK if args.quick else EPOCHS)
        needed = signs.steps(args.ckpt_path, epochs, args.seeds, args.data_root)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
        failed = work.run_steps(needed)
    blocks = document.chapters(
        args.only, args.ckpt_path, args.seeds, args.save_dir / "pictures", args.lang
    )
    document.publish(blocks, args.save_dir, args.lang)
    if failed:
        raise LabError(
            f"the report lacks what {len(failed)} commands should have made: {failed[0]}"
        )


if __name__ == "__main__":
    run(main)
