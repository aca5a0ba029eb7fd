"""What `python datasets.py` is asked for: its flags, read without torch, and what they do."""

import shlex
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.console import UsageError, say
from lab.flags import Parser, natural, seed
from lab.folders import DATA_ROOT, SPLITS, near
from published import KAGGLE_TABLES, STREET_FORMATS

STREET = near(DATA_ROOT / "street")


def make_parser() -> Parser:
    parser = Parser(
        "Published data sets, laid out as the train/val/test folders that every script reads, and "
        "those that are drawn."
    )
    commands = parser.add_subparsers(dest="name", required=True)
    root, copy = {"type": Path, "help": "(default %(default)s)"}, ("--data_root", "--source")

    gtsrb = commands.add_parser("gtsrb", help="real photographs of traffic signs")
    gtsrb.add_argument("--root", default=near(DATA_ROOT), **root)
    gtsrb.add_argument("--classes", type=int, choices=(26, 43), default=26)
    gtsrb.add_argument(*copy, type=Path, help="a copy of the benchmark that is on disk already")

    kaggle = commands.add_parser("kaggle", help="a competition's files")
    kaggle.add_argument("--kind", choices=tuple(KAGGLE_TABLES), required=True, help="which layout")
    kaggle.add_argument("--root", type=Path, required=True, help="folder that holds its train/")
    kaggle.add_argument("--target", type=Path, help="folder to make (default ROOT/train_val_test)")

    gtsdb = commands.add_parser("gtsdb", help="signs in photographs of streets")
    gtsdb.add_argument("--root", default=near(DATA_ROOT), **root)
    gtsdb.add_argument(*copy, type=Path, required=True, help="folder of the benchmark's files")
    tests = gtsdb.add_mutually_exclusive_group()
    tests.add_argument(
        "--all_test", action="store_true", help="all photographs to test on, none to train on"
    )
    tests.add_argument(
        "--crops", action="store_true", help="the signs, cut out, for a classifier to be tested on"
    )

    street = commands.add_parser("street", help="draw streets, with boxes and labels")
    add_drawing(street, STREET, "pictures")
    formatted = (
        f"write boxes as other tools have them, and no labels of pixels, into {STREET}_FORMAT"
    )
    street.add_argument("--format", choices=STREET_FORMATS, help=formatted)
    captions = commands.add_parser("captions", help="draw signs, with sentences about them")
    add_drawing(captions, near(DATA_ROOT / "captions"), "pictures of each class")
    signs = commands.add_parser("signs", help="draw photographs of traffic signs")
    signs.add_argument("--classes", type=int, choices=(26, 43), default=26)
    where = f"{near(DATA_ROOT)}, of 43 {near(DATA_ROOT / 'signs43')}"
    add_drawing(signs, where, "pictures of each class")
    commands.metavar = "|".join(commands.choices)
    return parser


def add_drawing(parser: Parser, place: str | Path, what: str) -> None:
    """Add the flags of a data set that is drawn: where, from which seed, and how much of it."""
    parser.add_argument("--root", type=Path, help=f"folder to make (default {place})")
    parser.add_argument("--seed", type=seed, default=0, help="(default %(default)s)")
    for split in SPLITS:
        text = f"{what} of {split} (default: as many as are drawn unasked)"
        parser.add_argument(f"--{split}", type=natural, metavar="N", help=text)


def main(args: Namespace | None = None) -> None:
    """Do what `python datasets.py` is asked for, by `args` or by the command line if None."""
    args = args or make_parser().parse_args()
    from published.gtsdb import cut_gtsdb, prepare_gtsdb
    from published.gtsrb import prepare_gtsrb
    from published.kaggle import prepare_kaggle
    from world.formats import FORMATS
    from world.missing import DRAWN, draw

    if args.name in DRAWN:
        name = "signs43" if getattr(args, "classes", None) == 43 else args.name
        drawn, chosen = counted(DRAWN[name], args), getattr(args, "format", None)
        root = args.root or DATA_ROOT / drawn.place
        if chosen is None:
            draw(drawn, root, args.seed)
            return
        target = args.root or near(root.with_name(f"{root.name}_{chosen}"))
        written = FORMATS[chosen]
        draw(replace(drawn, ends=written.holds), target, args.seed, written.write)
        hint = f"Train on it: python train.py --task detection --dataset {chosen}"
    elif args.name == "gtsrb":
        target = prepare_gtsrb(args.root, args.classes, args.data_root)
        hint = "Train on it: python train.py --bn --stn --augment"
    elif args.name == "gtsdb" and args.crops:
        target = cut_gtsdb(args.root, args.data_root)
        hint = "Test on it: python test.py --ckpt_path pretrained/signs43"
    elif args.name == "gtsdb":
        target = prepare_gtsdb(args.root, args.data_root, args.all_test)
        hint = "Train on it: python train.py --task detection --dataset gtsdb"
        if not (target / "train").is_dir():
            hint = "Test on it: python test.py --ckpt_path RUN"
    else:
        target = args.target or args.root / "train_val_test"
        prepare_kaggle(args.root, args.kind, target)
        hint = "Train on it: python train.py --dataset folder --bn"
        if args.kind == "dogs":  # 120 breeds want a body that has seen dogs, as the assignment has
            hint = "Train on it: python train.py --dataset folder --network resnet34 --pretrained"
            hint += " --freeze"
    say(f"{hint} --data_root {shlex.quote(str(target))}")


def counted(drawn: Any, args: Namespace) -> Any:
    """Return a `world.missing.Drawn` of as many pictures as flags say; of 0, there is no split.

    Raises:
        UsageError: no pictures at all.
    """
    splits = dict(drawn.draw.splits)
    splits |= {name: count for name in SPLITS if (count := getattr(args, name)) is not None}
    splits = {name: count for name, count in splits.items() if count}
    if not splits:
        raise UsageError("--train, --val and --test are all 0: nothing to draw")
    return replace(drawn, draw=replace(drawn.draw, splits=splits))
