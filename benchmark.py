"""Measure the project's speed on this machine, against the bare step and the plain loop.

    python benchmark.py
    python benchmark.py --rounds 3           # shorter, less sure
    python benchmark.py --only attention     # one section of those in speed/

Contestants take turns in every round, so that a machine whose speed drifts is fair to all; figures
are medians over rounds.
"""

import tempfile
from importlib import import_module
from pathlib import Path

from lab.console import Parser, positive_int, run
from speed import SECTIONS, take_turns


def main() -> None:
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--rounds", type=positive_int, default=5, help="(default %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    parser.add_argument("--only", choices=SECTIONS, help="measure this alone (default: all)")
    args = parser.parse_args()

    import torch

    from lab.runtime import start

    runtime = start(args.device)
    print(
        f"torch {torch.__version__}, {runtime.device.type}, {torch.get_num_threads()} threads, "
        f"{runtime.precision}, {args.rounds} rounds",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in SECTIONS:
            if args.only in (None, name):
                section = import_module(f"speed.{name}")
                turns = section.contestants(Path(folder), runtime)
                figures = take_turns(turns, args.rounds)
                print(f"\n{section.report(figures, runtime)}", flush=True)


if __name__ == "__main__":
    run(main)
