"""Train a network, from nothing to a tested one.

python train.py --bn --stn                                   # on the built-in traffic signs
python train.py --dataset mnist                              # or digits, cifar10
python train.py --dataset folder --data_root FOLDER          # on your own, one folder a class
python train.py --dataset folder --data_root FOLDER --network resnet18 --pretrained --lr 1e-4
python train.py --resume checkpoints/default                 # go on where a run stopped
python train.py --bn --stn --overfit_batch                   # can it learn at all? in seconds
torchrun --nproc_per_node=2 train.py --bn --stn              # two processes, or GPUs
torchrun --nproc_per_node=2 --max_restarts=3 train.py ...    # that go on after one has died
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import tasks
from lab.console import run
from lab.flags import Parser, add_flags, read_flags
from lab.settings import TrainSettings
from tasks import Task, TrainFlags


def make_parser(task: Task) -> Parser:
    """Return the parser of train.py's flags, a task's own among them."""
    parser = Parser(__doc__)
    add_flags(parser, TrainFlags, defaults={"ckpt_path": tasks.folder_of(task.name)})
    add_flags(parser, task.Flags)
    add_flags(parser, TrainSettings, defaults=task.defaults)
    return parser


def read(
    task: Task, defaults: dict[str, Any] | None = None, words: list[str] | None = None
) -> TrainFlags:
    """Return what the command line says, with `defaults` where they are not the task's.

    Args:
        words: in place of the command line.
    """
    parser = make_parser(task)
    parser.set_defaults(**(defaults or {}))
    args = parser.parse_args(words)
    settings, own = read_flags(args, TrainSettings), read_flags(args, task.Flags)
    return replace(read_flags(args, TrainFlags), settings=settings, own=own)


def main() -> None:
    chooser = Parser(add_help=False)
    chooser.add_argument("--task", default=tasks.DEFAULT)
    chooser.add_argument("--resume", type=Path)
    chosen = chooser.parse_known_args()[0]
    resumed = weights = None
    if chosen.resume is None:
        flags = read(task := tasks.load(chosen.task))

    from lab.run import left_off
    from tasks import training

    if chosen.resume is None:
        weights, known = training.flags_of_weights(task, flags)
        flags = read(task, known) if known else flags
    else:
        task, path, resumed = training.resume(chosen.resume)
        flags = replace(read(task, training.flags_of_run(task, path, resumed)), resume=path)
    if (left := left_off(flags.ckpt_path)) is not None:
        # What the command line says of the run, its checkpoint has; it may have begun with weights.
        task, path, resumed = training.resume(left)
        own = read(task, training.flags_of_run(task, path, resumed), [])
        flags = replace(own, resume=path, device=flags.device, no_show=flags.no_show)
    training.run(task, flags, resumed, weights)
    if not flags.no_show and not flags.overfit_batch:
        from lab.drawing import show_figures

        show_figures()


if __name__ == "__main__":
    run(main)
