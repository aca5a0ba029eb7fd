"""Classification: which of some classes an image shows.

python train.py --bn --stn
python train.py --dataset mnist
python train.py --dataset folder --data_root FOLDER --network resnet18 --pretrained --lr 1e-4
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from lab.flags import flag, fraction, positive_int
from tasks import PICTURE, Job, StartFlags, Task, pretrained

# Each data set with the network that is trained on it unless told otherwise.
DATASETS = {
    "signs": "classifier", "signs43": "classifier", "mnist": "mnist_cnn", "digits": "mnist_cnn",
    "cifar10": "classifier", "folder": "classifier",
}  # fmt: skip
_flag = partial(flag, group="network")


@dataclass(frozen=True)
class Flags(StartFlags):
    """Those of data, network and loss."""

    dataset: str = flag("signs", DATASETS, "what to train on")
    network: str | None = _flag(
        None, str, "classifier (default), mnist_cnn (default of mnist and digits) or one of "
        "torchvision's classifiers: resnet18, vgg11, mobilenet_v3_small and so on", metavar="NAME",
    )  # fmt: skip
    bn: bool = _flag(False, bool, "classifier: batch normalisation")
    stn: bool = _flag(False, bool, "classifier: spatial transformer")
    non_local: bool = _flag(False, bool, "classifier: non-local block")
    dropout: float = _flag(0.0, fraction, "classifier: share of features left out in training")
    image_size: int | None = _flag(
        None, positive_int, "torchvision's: pixels a side (default: what its weights were trained "
        "with)",
    )  # fmt: skip
    pretrained: bool = pretrained("torchvision's: start from its ImageNet weights")
    label_smoothing: float = _flag(0.0, fraction, "share of the target spread over all classes")


class Classification(Task):
    name = "classification"
    Flags = Flags
    network = "classifier"
    views = {
        "filter": ("layer_idx", "steps", "lr", "seed"),
        "feature": (*PICTURE, "layer_idx"),
        "tsne": (),
        "stn": PICTURE,
        "saliency": (*PICTURE, "target"),
        "fooling": (*PICTURE, "target", "steps", "lr"),
        "class": ("target", "steps", "lr", "seed"),
        "invert": (*PICTURE, "steps", "lr", "seed"),
        "attention": (*PICTURE, "layer_idx", "position"),
        "cam": (*PICTURE, "layer_idx", "target", "seed"),
    }
    takes_val = False
    submits = True
    shown_unasked = {"feature": {"image_idx": 50}}  # the assignment's picture

    def flags_of(self, state: dict[str, Any]) -> dict[str, Any]:
        if "configs" not in state:  # a bare state dict does not say
            return {"network": None}
        network, configs = state.get("network", self.network), state["configs"]
        if network != "classifier":
            return {"network": network}
        names = {"bn": "use_batch_norm", "stn": "use_stn", "non_local": "use_non_local"}
        known = {name: configs.get(key, False) for name, key in names.items()}
        return known | {"network": network, "dropout": configs.get("dropout_prob", 0.0)}

    def worth_seeing(self, job: Job) -> list[list[str]]:
        configs, test = job.identity["configs"], job.loaders.get("test")
        views = [["filter", "--layer_idx", "0"]]
        if test is not None:  # the other ones show its pictures
            picture = self.shown_unasked["feature"]["image_idx"]
            chosen = ["--image_idx", str(picture)] * (picture < len(test.dataset))
            views += [["feature", "--layer_idx", "1", *chosen], ["tsne"]]
            views += [["stn"]] * configs.get("use_stn", False)
            views += [["attention"]] * configs.get("use_non_local", False)
        return [["--type", *view] for view in views]


TASK = Classification()
