"""Which network to look into, and at which pictures: what the flags of visualize.py mean."""

import copy
import difflib
import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets import get_test_loader
from lab.console import LabError, UsageError
from lab.images import Preprocess, image_path, to_arrays
from lab.pictures import shorten
from lab.runtime import Runtime
from looking.insight import conv_layers
from networks import load_network, load_pretrained


@dataclass(frozen=True)
class Subject:
    """What a picture is made of.

    Attributes:
        model: the trained network, in evaluation mode.
        preprocess: from pictures to its input and back.
        classes: names, in the order of its logits.
        state: its checkpoint; None for a network of torchvision's.
        runtime, args: where to compute, and the flags.
    """

    model: nn.Module
    preprocess: Preprocess
    classes: Sequence[str]
    state: dict[str, Any] | None
    runtime: Runtime
    args: Namespace

    @property
    def body(self) -> nn.Module:
        """The network without a spatial transformer in front, for images that shall stay put."""
        if not self.has_stn:
            return self.model
        body = copy.deepcopy(self.model)
        body.stn = nn.Identity()
        return body

    @property
    def has_stn(self) -> bool:
        """Whether a spatial transformer is in front of the network."""
        return self.state is not None and self.state["configs"].get("use_stn", False)

    @property
    def given(self) -> dict[str, Any]:
        """Those of `--steps`, `--lr` and `--seed` that were given; each method has defaults."""
        flags = {name: getattr(self.args, name) for name in ("steps", "lr", "seed")}
        return {name: value for name, value in flags.items() if value is not None}

    def layer(self) -> tuple[str, nn.Module]:
        """Return the name of the convolution layer that `--layer_idx` counts to, and the layer."""
        layers = conv_layers(self.model)
        check_index("--layer_idx", self.args.layer_idx, len(layers), "convolution layers")
        return list(layers.items())[self.args.layer_idx]

    def test_loader(self) -> DataLoader:
        """Read the test split; a picture that shows no photograph needs none."""
        return get_test_loader(self.state, self.args.data_root, 256, self.runtime.device)

    def photographs(self, most: int) -> tuple[Tensor, list[int | None]]:
        """Return photographs as network input (n, C, H, W), and their labels, where known.

        The one that `--image` or `--image_idx` names; else up to `most` of the test split, spread
        over the classes; for ImageNet networks, scikit-learn's sample photographs.
        """
        args = self.args
        if args.image is not None:
            images = self.preprocess.read([image_path(args.image, args.save_dir / "images")])
            return images.to(self.runtime.device), [None]
        if self.state is None:
            from sklearn.datasets import load_sample_images

            samples = [Image.fromarray(pixels) for pixels in load_sample_images().images]
            chosen = range(len(samples))[:most]
            if args.image_idx is not None:
                check_index("--image_idx", args.image_idx, len(samples), "sample photographs")
                chosen = [args.image_idx]
            fitted = [torch.from_numpy(self.preprocess.fit(samples[i]).copy()) for i in chosen]
            images = self.preprocess.normalize(torch.stack(fitted))
            return images.to(self.runtime.device), [None] * len(images)
        dataset = self.test_loader().dataset
        if args.image_idx is not None:
            check_index("--image_idx", args.image_idx, len(dataset), "test images")
            chosen = [args.image_idx]
        else:
            spread = spread_over_classes(dataset.labels.cpu().numpy(), max(most, len(self.classes)))
            # In the order of classes; of more classes than images, some from first to last.
            chosen = spread[np.linspace(0, len(spread) - 1, min(most, len(spread))).astype(int)]
            chosen = chosen.tolist()
        images, labels = dataset.__getitems__(chosen)
        return images.to(self.runtime.device), labels.tolist()

    def pixels(self, images: Tensor) -> np.ndarray:
        """Turn network input, (N, C, H, W), into arrays for drawing, (N, H, W, 3) in [0, 1]."""
        return to_arrays(self.preprocess.denormalize(images))

    def readings(self, images: Tensor) -> list[str]:
        """Say what the network takes images for, and how sure it is of that."""
        confidences, predictions = self.model(images).softmax(1).max(1)
        pairs = zip(predictions.tolist(), confidences.tolist(), strict=True)
        return [f"{self.name(prediction)}, {confidence:.1%}" for prediction, confidence in pairs]

    def name(self, label: int) -> str:
        """Return a class's name, short enough for a caption."""
        return shorten(self.classes[label])

    def caption(self, label: int | None) -> str:
        """Say what a photograph shows, where that is known."""
        if label is None:
            return shorten(Path(self.args.image or "a photograph").name)
        return self.name(label)

    def targets(self) -> list[int]:
        """Return the classes that `--target` names, by index or by name."""
        return [class_index(text, self.classes) for text in self.args.target or []]

    def target(self) -> int | None:
        """Return the one class that `--target` names, if it is given.

        Raises:
            UsageError: it names several.
        """
        targets = self.targets()
        if len(targets) > 1:
            raise UsageError(f"--type {self.args.type} takes one --target, not {len(targets)}")
        return targets[0] if targets else None


def load_subject(args: Namespace, state: dict[str, Any] | None, runtime: Runtime) -> Subject:
    """Load the network of a checkpoint; without one, torchvision's that `--model` names.

    Raises:
        LabError: no such network, or its training has diverged.
    """
    if state is None:
        network = load_pretrained(args.model, args.weights)
        model, preprocess, classes = network.model, network.preprocess, network.classes
    else:
        model = load_network(state)
        preprocess = Preprocess(**state.get("preprocess", {}))  # the scaffold's say none
        classes = state.get("class_names") or range(state["configs"]["num_classes"])
        classes = [str(name) for name in classes]
    if not all(weights.isfinite().all() for weights in model.parameters()):
        raise LabError(
            f"{args.weights or args.ckpt_path} has weights that are no finite numbers: its "
            "training diverged; look at an earlier epoch"
        )
    model = model.to(runtime.device, memory_format=torch.channels_last)
    return Subject(model.eval().requires_grad_(False), preprocess, classes, state, runtime, args)


def check_index(flag: str, index: int, count: int, what: str) -> None:
    """Raise a UsageError that names the valid range unless 0 <= index < count."""
    if count == 0:
        raise UsageError(f"{flag} {index}: there are no {what}")
    if not 0 <= index < count:
        raise UsageError(f"{flag} {index} is out of range: the {what} are 0 to {count - 1}")


def class_index(text: str, classes: Sequence[str]) -> int:
    """Return the class that a `--target` means: an index, a name, or one without its number.

    Raises:
        UsageError: there is no such class; names the range, or those that are spelt alike.
    """
    if re.fullmatch(r"-?\d+", text):
        check_index("--target", int(text), len(classes), "classes")
        return int(text)
    wanted = text.lower().replace(" ", "_")
    names = [name.lower().replace(" ", "_") for name in classes]
    plain = [name.lstrip("0123456789").lstrip("_") for name in names]
    for known in (names, plain):
        if wanted in known:
            return known.index(wanted)
    alike = difflib.get_close_matches(wanted, plain, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(alike)}?" if alike else "."
    raise UsageError(
        f"--target {text}: no such class{hint} An index from 0 to {len(classes) - 1} will do, too"
    )


def spread_over_classes(labels: np.ndarray, most: int) -> np.ndarray:
    """Return indices of at most `most` images, as evenly over the classes as there are images."""
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])  # where the class of each begins
    turn = np.empty(len(labels), int)  # the how-manieth of its class an image is
    turn[order] = np.arange(len(labels)) - first
    # Every step through a class takes images from all over it: neighbours are one sign's frames.
    counts = np.bincount(labels)[labels]
    scattered = (turn * 7919 + counts // 2) % counts
    return np.sort(np.argsort(scattered, kind="stable")[:most])
