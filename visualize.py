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

The network is our own (`--ckpt_path`) or one that others have published, of torchvision's with its
ImageNet weights for example (`--model`). The pictures are made in each task's `views.py`; methods
that suit any network, and their sources, are in `looking/`.
"""

import tasks
from lab.console import UsageError, run
from lab.flags import Parser, add_flags, asked_for
from tasks import ViewFlags


def make_parser() -> Parser:
    """Return the parser of visualize.py's flags."""
    views = {name: tasks.load(name).views for name in tasks.TASKS}
    parser = Parser(__doc__)
    choices = dict.fromkeys(view for own in views.values() for view in own)
    text = "; ".join(f"{name}: {', '.join(own)}" for name, own in views.items() if own)
    parser.add_argument(
        "--type", choices=choices, default=ViewFlags.type, metavar="VIEW",
        help=f"{text} (default %(default)s)",
    )  # fmt: skip
    add_flags(parser, ViewFlags)
    return parser


def task_meant(flags: ViewFlags) -> str:
    """Return the task that is named, or else the first one that has the view."""
    return flags.task or next(n for n in tasks.TASKS if flags.type in tasks.load(n).views)


def check(flags: ViewFlags) -> None:
    """Raise a UsageError for flags that exclude each other."""
    if flags.model is None and flags.weights is not None:
        raise UsageError("--weights belongs to --model NAME; a checkpoint of ours has its own")
    if flags.model is not None and flags.type in ("tsne", "stn", "attention"):
        raise UsageError(f"--type {flags.type} looks into a network of our own: give --ckpt_path")
    unused = [*asked_for(flags, "epoch", "data_root")]
    unused += ["ckpt_path"] * (flags.ckpt_path != tasks.folder_of(task_meant(flags)))
    if flags.model is not None and unused:
        raise UsageError(f"--model is no run of ours: leave out --{' and --'.join(unused)}")
    if flags.image is not None and flags.image_idx is not None:
        raise UsageError("--image and --image_idx both name the picture to look at: give one")


def main() -> None:
    parser = make_parser()
    flags = tasks.read_run(parser, ViewFlags, task_meant)
    check(flags)

    from lab.drawing import show_figures
    from tasks.viewing import view

    view(flags)
    if not flags.no_show:
        show_figures()


if __name__ == "__main__":
    run(main)
