"""Style transfer: the content of one picture in the manner of another.

    python train.py --task style --style painting.jpg --data_root FOLDER
    python style.py --ckpt_path checkpoints/style --content photo.jpg     # one pass
    python style.py --content photo.jpg --style painting.jpg                # optimise one picture

`losses` compares pictures by a network's features, `picture` varies one picture until they fit; a
network that learns a style by the same losses paints in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab import flags
from lab.flags import flag, non_negative_float, positive_float, positive_int, seed
from lab.settings import TrainSettings
from tasks import PICTURE, Job, Task, TrainFlags


@dataclass(frozen=True)
class Recipe:
    """Which features of a network are compared, and what each difference weighs.

    Attributes:
        content_layer, style_layers: modules of the network, by name.
        content_weight, style_weights, tv_weight: factors of `content_loss`, `style_loss` (one a
            layer) and `tv_loss`.
        size, style_size: shorter side of the content and of the style picture in pixels.
    """

    content_layer: str
    style_layers: tuple[str, ...]
    content_weight: float
    style_weights: tuple[float, ...]
    tv_weight: float
    size: int
    style_size: int


# CS231n's three, for SqueezeNet.
_FIRE = ("features.3", ("features.1", "features.4", "features.6", "features.7"))
PRESETS = {
    "composition": Recipe(*_FIRE, 5e-2, (20000, 500, 12, 1), 5e-2, 192, 512),
    "scream": Recipe(*_FIRE, 3e-2, (200000, 800, 12, 1), 2e-2, 192, 224),
    "starry": Recipe(*_FIRE, 6e-2, (300000, 1000, 15, 3), 2e-2, 192, 192),
}
# Of other networks. VGG-19: the last convolution of block 4 and the first of each block, after
# their ReLU. A layer's weight falls with the square of its channels, as the mean of its squared
# differences does. Of our classifier: its ConvBlocks, by their place in `conv_net`.
RECIPES = {
    "vgg19": Recipe(
        "features.26",
        ("features.1", "features.6", "features.11", "features.20", "features.29"),
        2e-2, (2.4e6, 6e5, 1.5e5, 4e4, 4e4), 1e-2, 256, 256,
    ),
    "classifier": Recipe(
        "3", ("0", "1", "3", "4"),
        1e-3, (2e5, 5e4, 5e4, 1e4), 3e-2, 192, 192,
    ),
}  # fmt: skip
MODELS = ("squeezenet1_1", "vgg19")  # torchvision's that are compared by
# Pixels of a picture that is painted in one pass, which takes 1.1 GB a million of them, and of one
# whose features are compared: 0.8 GB by SqueezeNet, 2.9 GB by VGG-19.
MOST_PIXELS, MOST_VARIED = 4_000_000, 2_000_000
OPTIMIZERS = {"lbfgs": 1.0, "adam": 0.1}  # of one picture, with the rates they start at


PAINTING = "a painting, as a file or an http(s) address"
PHOTOGRAPHS = "a folder of photographs, searched to any depth"
_loss = partial(flag, group="losses")
_picture = partial(flag, group="one picture")
_network = partial(flag, group="a network for one style")


@dataclass(frozen=True)
class Flags:
    """Those of the losses, and of a network that is trained on them."""

    style: str | None = _loss(None, str, PAINTING)
    model: str = _loss("squeezenet1_1", MODELS, "network whose features are compared")
    weights: Path | None = _loss(
        None, Path, "of --model; default: torchvision's download", metavar="FILE"
    )
    preset: str = _loss("composition", PRESETS, "sizes and weights for squeezenet1_1")
    size: int | None = _loss(
        None, positive_int, "shorter side of what is painted (default: preset's)"
    )
    style_size: int | None = _loss(None, positive_int, "shorter side of the style picture")
    content_weight: float | None = _loss(None, non_negative_float, "of the content loss")
    style_weights: list[float] | None = _loss(
        None, non_negative_float, "one a style layer", nargs="+"
    )
    tv_weight: float | None = _loss(None, non_negative_float, "of total variation")
    width: int = _network(32, positive_int, "channels of the first layer")


_RATES = ", ".join(f"{name} {rate}" for name, rate in OPTIMIZERS.items())


@dataclass(frozen=True)
class StyleFlags(Flags):
    """What style.py is asked for."""

    content: str | None = flag(
        None, str, "file or http(s) address (default: scikit-learn's china.jpg)"
    )
    ckpt_path: Path | None = flags.ckpt_path(
        "with --train: folder of the run (default checkpoints/style); without --style: a run to "
        "paint with; else a sign network whose features --style is compared in",
        None,
    )
    device: str | None = flags.device()
    save_dir: Path = flags.save_dir()
    no_show: bool = flags.no_show()
    lr: float | None = flag(
        None, positive_float, f"learning rate (default: {_RATES}; --train {TrainSettings.lr})"
    )
    seed: int = flag(TrainSettings.seed, seed, "of noise, weights and order")
    steps: int = _picture(200, positive_int, "of the optimizer")
    start: str = _picture("content", ("content", "noise"), "picture to vary")
    optim_type: str = _picture("lbfgs", OPTIMIZERS, "optimizer")
    train: bool = _network(False, bool, "train one", undone=False)
    data_root: Path | None = _network(None, Path, PHOTOGRAPHS)
    resume: Path | None = _network(
        None, Path, "checkpoint or folder of a run to go on from", metavar="PATH"
    )


class Style(Task):
    name = "style"
    Flags = Flags
    defaults = {"epoch": 2, "batch_size": 4}
    network = "transform"
    views = {"painted": PICTURE}
    measured = beside = False

    def next_commands(self, flags: TrainFlags, job: Job, tested: str) -> Iterator[tuple[str, ...]]:
        yield "style.py", "--ckpt_path", str(flags.ckpt_path)


TASK = Style()
