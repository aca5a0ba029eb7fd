"""Make a network that comes with the project: train it, test it, write it with its card.

python pretrain.py signs                        # from nothing, to pretrained/signs
python pretrain.py street --run checkpoints/detection    # of a run that its command has made
python pretrain.py street --run RUN --also data/gtsdb    # with its figures on photographs
"""

import tasks
import train
from lab.console import run
from lab.flags import Parser, add_flags, read_flags
from tasks.shipped import SHIPPED, ShipFlags


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "name", choices=SHIPPED, metavar="NAME", help=f"one of {', '.join(SHIPPED)}"
    )
    add_flags(parser, ShipFlags)
    args = parser.parse_args()
    shipped = SHIPPED[args.name]
    wanted = train.read(tasks.load(shipped.task), words=shipped.words)

    from tasks.shipping import ship

    ship(args.name, wanted, read_flags(args, ShipFlags))


if __name__ == "__main__":
    run(main)
