"""How to train: each setting declared once, with its flag, its default and its help.

Only the standard library is imported, so that flags are read before torch is.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from lab.console import (
    PRECISIONS,
    fraction,
    natural,
    non_negative_float,
    positive_float,
    seed,
    share,
)
from lab.console import positive_int as positive

# `--optim_type`, with the class that it stands for: of torch.optim, or of lab.optimizers.
OPTIMIZERS = {
    "sgd": "SGD",
    "adam": "Adam",
    "adagrad": "Adagrad",
    "rmsprop": "RMSprop",
    "adadelta": "Adadelta",
    "adamw": "AdamW",
    "muon": "Muon",
}
SCHEDULES = ("constant", "onecycle", "cosine", "step")


def setting(default: Any, parse: Callable | tuple[str, ...], text: str, *more_names: str) -> Any:
    """Declare a setting: a type or the choices of its flag, the flag's help, other names of it."""
    return field(default=default, metadata={"parse": parse, "help": text, "names": more_names})


@dataclass(frozen=True)
class TrainSettings:
    """How to train; saved in every checkpoint, so that a run resumes with its own settings."""

    epoch: int = setting(10, positive, "epochs in all, resumed or not")
    batch_size: int = setting(32, positive, "images a step, over all processes", "--batchsize")
    lr: float = setting(1e-3, positive_float, "learning rate; its peak where a schedule varies it")
    momentum: float = setting(0.9, fraction, "of sgd")
    weight_decay: float = setting(0.0, non_negative_float, "L2 penalty")
    optim_type: str = setting("adam", tuple(OPTIMIZERS), "optimizer")
    schedule: str = setting("constant", SCHEDULES, "of lr, over all epochs")
    clip_norm: float = setting(0.0, non_negative_float, "most that gradients' norm may be; 0: any")
    ema: float = setting(0.0, fraction, "decay of the average of weights that is tested; 0: none")
    augment: bool = setting(False, bool, "vary the training images")
    val_interval: int = setting(1, positive, "epochs between validations")
    max_ckpt_save_num: int = setting(10, positive, "checkpoints kept")
    precision: str = setting("auto", PRECISIONS, "auto: bf16 where it is fast, else fp32")
    val_share: float = setting(0.1, share, "held out of train as val where there is no val")
    seed: int = setting(0, seed, "of weights, order, augmentation, dropout")
    num_workers: int = setting(0, natural, "loader processes, for images too many for memory")


def add_settings(parser: argparse.ArgumentParser, *names: str, **defaults: Any) -> None:
    """Add a flag for each of `TrainSettings`, or for those named.

    Args:
        defaults: a field's own, by name.
    """
    group = parser.add_argument_group("training")
    for entry in fields(TrainSettings):
        if names and entry.name not in names:
            continue
        parse, text = entry.metadata["parse"], entry.metadata["help"]
        options: dict[str, Any] = {"default": defaults.get(entry.name, entry.default)}
        if parse is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif isinstance(parse, tuple):
            options["choices"] = parse
        else:
            options["type"] = parse
        text += "" if parse is bool else " (default %(default)s)"
        group.add_argument(f"--{entry.name}", *entry.metadata["names"], help=text, **options)


def settings_of(args: argparse.Namespace, *names: str) -> TrainSettings:
    """Return the settings that parsed flags hold, all or those named; the rest are as declared."""
    names = names or tuple(entry.name for entry in fields(TrainSettings))
    return TrainSettings(**{name: getattr(args, name) for name in names})
