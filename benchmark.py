"""Measure the project's speed on this machine, against the bare step and the plain loop.

    python benchmark.py
    python benchmark.py --rounds 3                             # shorter, less sure
    python benchmark.py --only attention                       # one section of those in speed/
    python benchmark.py --only loop --task segmentation video  # some tasks of those in tasks/

Contestants take turns in every round, so that a machine whose speed drifts is fair to all; figures
are medians over rounds.
"""

from lab.console import run
from lab.flags import parse_flags
from speed import SpeedFlags


def main() -> None:
    flags = parse_flags(SpeedFlags, __doc__)

    from speed.turns import measure

    measure(flags)


if __name__ == "__main__":
    run(main)
