"""How to train: each setting declared once, with its flag, its default and its help."""

from dataclasses import dataclass
from functools import partial

from lab.flags import (
    PRECISIONS,
    flag,
    fraction,
    natural,
    non_negative_float,
    positive_float,
    positive_int,
    seed,
    share,
)

# `--optim_type`, with the class that it stands for: of torch.optim, or of lab.optimizers.
OPTIMIZERS = {
    "sgd": "SGD", "adam": "Adam", "adagrad": "Adagrad", "rmsprop": "RMSprop",
    "adadelta": "Adadelta", "adamw": "AdamW", "muon": "Muon",
}  # fmt: skip
SCHEDULES = ("constant", "onecycle", "cosine", "step")
setting = partial(flag, group="training")


@dataclass(frozen=True)
class TrainSettings:
    """How to train; saved in every checkpoint, so that a run resumes with its own settings."""

    epoch: int = setting(10, positive_int, "epochs in all, resumed or not")
    batch_size: int = setting(32, positive_int, "images a step, over all processes", "--batchsize")
    lr: float = setting(1e-3, positive_float, "learning rate; its peak where a schedule varies it")
    momentum: float = setting(0.9, fraction, "of sgd")
    weight_decay: float = setting(0.0, non_negative_float, "L2 penalty")
    optim_type: str = setting("adam", tuple(OPTIMIZERS), "optimizer")
    schedule: str = setting("constant", SCHEDULES, "of lr, over all epochs")
    warmup: float = setting(
        0.0, non_negative_float, "epochs, the first ones, in which lr rises from nothing"
    )
    clip_norm: float = setting(0.0, non_negative_float, "most that gradients' norm may be; 0: any")
    ema: float = setting(0.0, fraction, "decay of the average of weights that is tested; 0: none")
    augment: bool = setting(False, bool, "vary the training images")
    val_interval: int = setting(1, positive_int, "epochs between validations")
    max_ckpt_save_num: int = setting(10, positive_int, "checkpoints kept")
    precision: str = setting("auto", PRECISIONS, "auto: the fastest of the device that is safe")
    compile: bool = setting(False, bool, "have torch.compile make kernels of the network's own")
    graph: bool = setting(
        True, bool, "on a CUDA GPU, launch a step's kernels all at once; not to debug a network"
    )
    val_share: float = setting(0.1, share, "held out of train as val where there is no val")
    seed: int = setting(0, seed, "of weights, order, augmentation, dropout")
    num_workers: int = setting(0, natural, "loader processes, for images too many for memory")
