"""Style transfer: the content of one picture in the manner of another.

python style.py --content photo.jpg --style painting.jpg                  # optimise one picture
python style.py --style painting.jpg --preset starry --steps 400 --start noise
python style.py --style painting.jpg --model vgg19 --size 384 --optim_type lbfgs
python style.py --style painting.jpg --ckpt_path checkpoints/bn     # by our own sign network
python style.py --train --style painting.jpg --data_root FOLDER     # a network for one style
python style.py --ckpt_path checkpoints/style --content photo.jpg   # which needs one pass

Sources: Gatys et al. 2016 (the losses, optimising a picture), CS231n's assignment (weights for
SqueezeNet), Johnson et al. 2016 (a network trained on the same losses), Ulyanov et al. 2016 (its
instance normalisation).
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import tasks
from lab.console import (
    LabError,
    Parser,
    UsageError,
    add_show_flag,
    command,
    natural,
    non_negative_float,
    positive_float,
    positive_int,
    process_rank,
    run,
)
from lab.settings import TrainSettings, add_settings, settings_of
from tasks.style import OPTIMIZERS, PRESETS

TRAINING = ("epoch", "batch_size", "precision")  # settings of --train alone
WANTED = {
    "style": "a painting, as a file or an http(s) address",
    "data_root": "a folder of photographs, searched to any depth",
}


def make_parser() -> ArgumentParser:
    """Return the parser of style.py's flags."""
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    rates = ", ".join(f"{name} {rate}" for name, rate in OPTIMIZERS.items())
    for flag, options in {
        "--content": dict(help="file or http(s) address (default: scikit-learn's china.jpg)"),
        "--style": dict(help="file or http(s) address; without it --ckpt_path's network paints"),
        "--ckpt_path": dict(
            type=Path,
            help="with --train: folder of the run (default checkpoints/style); else a run to "
            "paint with, or a sign network whose features --style is compared in",
        ),
        "--device": dict(choices=("cpu", "cuda"), help="default: cuda when there is one, else cpu"),
        "--size": dict(type=positive_int, help="shorter side of the result (default: preset's)"),
        "--save_dir": dict(type=Path, default=Path("visualized"), help="(default %(default)s)"),
        "--lr": dict(
            type=positive_float,
            help=f"learning rate (default: {rates}; --train {TrainSettings.lr})",
        ),
        "--seed": dict(
            type=natural, default=TrainSettings.seed,
            help="of noise, weights and order (default %(default)s)",
        ),
    }.items():  # fmt: skip
        parser.add_argument(flag, **options)
    add_show_flag(parser)
    losses = parser.add_argument_group("losses")
    for flag, options in {
        "--model": dict(
            choices=("squeezenet1_1", "vgg19"), default="squeezenet1_1",
            help="network whose features are compared (default %(default)s)",
        ),
        "--weights": dict(
            type=Path, metavar="FILE", help="of --model; default: torchvision's download"
        ),
        "--preset": dict(
            choices=PRESETS, default="composition",
            help="sizes and weights for squeezenet1_1 (default %(default)s)",
        ),
        "--style_size": dict(type=positive_int, help="shorter side of the style picture"),
        "--content_weight": dict(type=non_negative_float),
        "--style_weights": dict(type=non_negative_float, nargs="+", help="one a style layer"),
        "--tv_weight": dict(type=non_negative_float, help="of total variation"),
    }.items():  # fmt: skip
        losses.add_argument(flag, **options)
    one = parser.add_argument_group("one picture")
    for flag, options in {
        "--steps": dict(type=positive_int, default=200, help="of the optimizer"),
        "--start": dict(choices=("content", "noise"), default="content", help="picture to vary"),
        "--optim_type": dict(choices=OPTIMIZERS, default="lbfgs", help="optimizer"),
    }.items():
        options["help"] += " (default %(default)s)"
        one.add_argument(flag, **options)
    network = parser.add_argument_group("a network for one style (--train)")
    network.add_argument("--train", action="store_true", help="train one")
    network.add_argument("--data_root", type=Path, help=WANTED["data_root"])
    network.add_argument(
        "--width",
        type=positive_int,
        default=32,
        help="channels of the first layer (default %(default)s)",
    )
    network.add_argument(
        "--resume", type=Path, metavar="PATH", help="checkpoint or folder of a run to go on from"
    )
    add_settings(parser, *TRAINING, epoch=2, batch_size=4)
    return parser


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    if process_rank()[1] > 1:
        raise UsageError("style.py runs in one process; start it without torchrun")
    resumed = None
    if args.resume is not None:
        from lab import checkpoint

        path = checkpoint.resume_point(args.resume)
        resumed = checkpoint.load(path)
        parser.set_defaults(**resumed_flags(resumed, path))
        args = parser.parse_args()
        args.resume, args.train = path, True
    if args.train:
        train(args, resumed)
        return
    if args.style is None and args.ckpt_path is None:
        raise UsageError(
            f"give --style, {WANTED['style']}; or --ckpt_path, a network trained with --train"
        )

    from lab.runtime import start

    runtime = start(args.device, "fp32")
    if args.style is not None:
        from tasks.style.picture import paint

        paint(args, runtime)
        if not args.no_show:
            from lab.pictures import show_figures

            show_figures()
    else:
        from tasks.style.network import repaint

        repaint(args, runtime)


def resumed_flags(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the flags a checkpoint was trained with, as defaults for going on.

    Raises:
        LabError: it is of another task; says how that goes on.
    """
    task = state.get("task")
    if task != "style":
        other = command(tasks.SCRIPTS.get(task, "train.py"), "--resume", path)
        raise LabError(f"{path} holds no network for one style; go on with it by: {other}")
    known = state["flags"] | state["settings"] | {"ckpt_path": path.parent}
    for name in ("weights", "data_root"):
        known[name] = known[name] and Path(known[name])
    return known


def train(args: Namespace, resumed: dict[str, Any] | None) -> None:
    """Train a network for one style as the flags ask.

    Args:
        resumed: the checkpoint to go on from.
    """
    for name, wanted in WANTED.items():
        if getattr(args, name) is None:
            raise UsageError(f"--train needs --{name}, {wanted}")
    args.ckpt_path = args.ckpt_path or Path("checkpoints/style")
    args.lr = args.lr or TrainSettings.lr

    from lab.runtime import start
    from tasks.style import network

    runtime = start(args.device, args.precision)
    network.train(args, settings_of(args, "lr", "seed", *TRAINING), runtime, resumed)


if __name__ == "__main__":
    run(main)
