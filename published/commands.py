"""What `python datasets.py` is asked for: its flags, read without torch, and what they do."""

import shlex
from argparse import Namespace
from pathlib import Path

from lab.console import say
from lab.flags import Parser, seed
from lab.folders import DATA_ROOT, near
from published import KAGGLE_TABLES


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
    gtsdb.add_argument(
        "--all_test", action="store_true", help="all 600 photographs to test on, none to train on"
    )

    for name, text in (
        ("street", "draw streets, with boxes and labels"),
        ("captions", "draw signs, with sentences about them"),
    ):
        drawn, folder = commands.add_parser(name, help=text), DATA_ROOT / name
        made = f"folder to make (default {near(folder)})"
        drawn.add_argument("--root", type=Path, default=folder, help=made)
        drawn.add_argument("--seed", type=seed, default=0, help="(default %(default)s)")

    signs = commands.add_parser("signs", help="draw photographs of traffic signs")
    signs.add_argument("--classes", type=int, choices=(26, 43), default=26)
    where = f"folder to make (default {near(DATA_ROOT)}, of 43 {near(DATA_ROOT / 'signs43')})"
    signs.add_argument("--root", type=Path, help=where)
    signs.add_argument("--seed", type=seed, default=0, help="(default %(default)s)")
    commands.metavar = "|".join(commands.choices)
    return parser


def main(args: Namespace | None = None) -> None:
    """Do what `python datasets.py` is asked for, by `args` or by the command line if None."""
    args = args or make_parser().parse_args()
    from published.gtsdb import prepare_gtsdb
    from published.gtsrb import prepare_gtsrb
    from published.kaggle import prepare_kaggle
    from world.missing import DRAWN, draw

    if args.name == "signs":
        drawn = DRAWN["signs43" if args.classes == 43 else "signs"]
        draw(drawn, args.root or DATA_ROOT / drawn.place, args.seed)
        return
    if args.name in DRAWN:
        draw(DRAWN[args.name], args.root, args.seed)
        return
    if args.name == "gtsrb":
        target = prepare_gtsrb(args.root, args.classes, args.data_root)
        hint = "Train on it: python train.py --bn --stn --augment"
    elif args.name == "gtsdb":
        target = prepare_gtsdb(args.root, args.data_root, args.all_test)
        hint = "Train on it: python train.py --task detection --dataset gtsdb"
        if args.all_test:
            hint = "Test on it: python test.py --ckpt_path RUN"
    else:
        target = args.target or args.root / "train_val_test"
        prepare_kaggle(args.root, args.kind, target)
        hint = "Train on it: python train.py --dataset folder --bn"
        if args.kind == "dogs":  # 120 breeds want a body that has seen dogs, as the assignment has
            hint = "Train on it: python train.py --dataset folder --network resnet34 --pretrained"
            hint += " --freeze"
    say(f"{hint} --data_root {shlex.quote(str(target))}")
