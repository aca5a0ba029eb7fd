"""Look inside a trained network.

    python visualize.py --type filter --ckpt_path checkpoints/bn --layer_idx 0
    python visualize.py --type feature --ckpt_path checkpoints/bn --layer_idx 1 --image_idx 50
    python visualize.py --type tsne --ckpt_path checkpoints/bn
    python visualize.py --type stn --ckpt_path checkpoints/stn
    python visualize.py --type saliency --ckpt_path checkpoints/bn
    python visualize.py --type fooling --model squeezenet1_1 --target gorilla --image photo.jpg
    python visualize.py --type class --target stop no_entry
    python visualize.py --type invert --model vgg19 --weights vgg19-dcbb9e9d.pth
    python visualize.py --type attention --ckpt_path checkpoints/non_local
    python visualize.py --type clip --ckpt_path checkpoints/motion
    python visualize.py --type unet --model stable_diffusion

The network is our own (`--ckpt_path`) or one of torchvision's with its ImageNet weights
(`--model`). The pictures are made in `looking/views.py`, the methods and their sources
are in `looking/insight.py`.
"""

from argparse import ArgumentParser
from pathlib import Path

import tasks
from lab.console import (
    UsageError,
    add_epoch_flag,
    lab_parser,
    natural,
    positive_float,
    positive_int,
    run,
)


def make_parser() -> ArgumentParser:
    """Return the parser of visualize.py's flags."""
    parser = lab_parser(__doc__, data_root=None)
    add_epoch_flag(parser)
    parser.add_argument(
        "--type",
        default="filter",
        metavar="VIEW",
        help="filter, feature, tsne, stn, saliency, fooling, class, invert or attention; of a "
        "detector boxes, anchors or regions; of pixels masks or upsampling; of clips clip, "
        "saliency or attention; of diffusion unet, words or strength (default %(default)s)",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="a published network instead of --ckpt_path"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="its state dict, instead of a download"
    )
    parser.add_argument("--prompt", metavar="WORDS", help="of diffusion: what is to be painted")
    parser.add_argument("--image", metavar="PATH", help="picture to look at: a file or an address")
    parser.add_argument("--image_idx", type=int, help="picture of the test split to look at")
    parser.add_argument(
        "--layer_idx", type=int, default=0, help="convolution layer, from 0 (default 0)"
    )
    parser.add_argument(
        "--target", nargs="+", metavar="CLASS", help="classes to aim at, by index or by name"
    )
    parser.add_argument(
        "--position", type=natural, nargs="+", metavar="K", help="y x of attention, t y x in clips"
    )
    parser.add_argument("--steps", type=positive_int, help="of gradient ascent or descent")
    parser.add_argument("--lr", type=positive_float, help="size of a step")
    parser.add_argument("--seed", type=natural, help="of noise and jitter (default 0)")
    parser.add_argument(
        "--save_dir", type=Path, default=Path("visualized"), help="(default %(default)s)"
    )
    return parser


def main() -> None:
    args = make_parser().parse_args()
    if args.model is None and args.weights is not None:
        raise UsageError("--weights belongs to --model NAME; a checkpoint of ours has its own")
    if args.model is not None and args.type in ("tsne", "stn", "attention"):
        raise UsageError(f"--type {args.type} looks into a network of our own: give --ckpt_path")
    if args.image is not None and args.image_idx is not None:
        raise UsageError("--image and --image_idx both name the picture to look at: give one")

    if args.type not in tasks.load(tasks.DEFAULT).views:  # to load the other fields takes a while
        views = {view for name in tasks.FIELDS for view in tasks.load(name).views}
        if args.type not in views:
            raise UsageError(f"--type {args.type}: there are {', '.join(sorted(views))}")

    from lab import checkpoint
    from lab.pictures import Film, draw, publish, publish_film, show_figures
    from lab.runtime import start

    state, field = None, tasks.load(tasks.DEFAULT)
    if args.model is None:
        path = checkpoint.find(args.ckpt_path, args.epoch)
        state = checkpoint.load(path)
        field = tasks.field_of(state, path)
    elif args.type not in field.views:  # a published network of another task, or of torchvision's
        field = next((f for f in map(tasks.load, tasks.FIELDS) if args.model in f.models), field)
    if args.type not in field.views:
        whose = args.model or path
        others = ", ".join(field.views)
        raise UsageError(
            f"--type {args.type} is not for {whose}: " + (f"try {others}" if others else "none is")
        )
    for picture in field.look(args, state, start(args.device, "fp32")):
        if isinstance(picture, Film):
            publish_film(picture, args.save_dir / picture.path)
        else:
            publish(draw(picture), args.save_dir / picture.path)
    if not args.no_show:
        show_figures()


if __name__ == "__main__":
    run(main)
