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

from argparse import Namespace
from dataclasses import replace

from lab.console import LabError, UsageError, command, process_rank, run
from lab.flags import Parser, add_flags, read_flags
from lab.settings import TrainSettings
from tasks import TrainFlags, folder_of
from tasks.style import PAINTING, TASK, Flags, StyleFlags

TRAINING = ("epoch", "batch_size", "precision")  # settings of --train alone
# Flags of a network that is trained, and of one picture that is varied.
OF_NETWORK, OF_PICTURE = ("data_root", "width", *TRAINING), ("content", "steps", "start")


def make_parser() -> Parser:
    """Return the parser of style.py's flags."""
    parser = Parser(__doc__)
    add_flags(parser, StyleFlags)
    add_flags(parser, TrainSettings, TRAINING, TASK.defaults)
    return parser


def check(parser: Parser, args: Namespace, trains: bool) -> None:
    """Raise a UsageError for flags that have no use without, or with, a training."""
    names = [
        f"--{name}" for name in (OF_PICTURE if trains else OF_NETWORK)
        if getattr(args, name) != parser.get_default(name)
    ]  # fmt: skip
    if names:
        wrong = "a training has no use for" if trains else "without --train there is no use for"
        raise UsageError(f"{wrong} {', '.join(names)}")


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    flags = read_flags(args, StyleFlags)
    if process_rank()[1] > 1:
        raise UsageError("style.py runs in one process; start it without torchrun")
    check(parser, args, trains := flags.train or flags.resume is not None)
    if not trains:
        if flags.style is None and flags.ckpt_path is None:
            otherwise = "or --ckpt_path, a network trained with --train"
            raise UsageError(f"give --style, {PAINTING}; {otherwise}")

        from tasks.style.results import paint

        paint(flags)
        if not flags.no_show:
            from lab.drawing import show_figures

            show_figures()
        return

    from tasks import training

    path = resumed = None
    known = {
        "lr": TrainSettings.lr,
        "optim_type": TrainSettings.optim_type,
        "ckpt_path": folder_of(TASK.name),
    }
    if flags.resume is not None:
        task, path, resumed = training.resume(flags.resume)
        if task is not TASK:
            other = command("train.py", "--resume", path)
            raise LabError(f"{path} holds no network for one style; go on with it by: {other}")
        known |= training.flags_of_run(task, path, resumed)
    parser.set_defaults(**known)  # of what the command line does not say
    args = parser.parse_args()
    # The optimizers of --optim_type vary one picture.
    settings = replace(read_flags(args, TrainSettings), optim_type=known["optim_type"])
    own, common = read_flags(args, Flags), read_flags(args, TrainFlags)
    common = replace(common, task=TASK.name, resume=path, settings=settings, own=own)
    training.run(TASK, common, resumed)


if __name__ == "__main__":
    run(main)
