"""Which network to look into, and at which pictures: what the flags of visualize.py mean."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets import ImageDataset
from lab.console import LabError
from lab.fetching import image_path
from lab.imagenet import load_pretrained
from lab.images import Preprocess, to_arrays
from lab.pictures import shorten
from lab.runtime import Runtime, place, start
from looking.choice import check_index, class_index, examples, one_class
from looking.insight import conv_layers
from tasks import ViewFlags
from tasks.classification.data import test_loader
from tasks.trained import Trained, preprocess_of_run


@dataclass(frozen=True)
class Subject:
    """What a picture is made of.

    Attributes:
        network: in evaluation mode, without gradients of its weights.
        preprocess: from pictures to its input and back.
        classes: names, in the order of its logits.
        trained: what was loaded with it; None for a network of torchvision's.
        runtime: where to compute.
    """

    network: nn.Module
    preprocess: Preprocess
    classes: Sequence[str]
    trained: Trained | None
    runtime: Runtime
    flags: ViewFlags

    @property
    def body(self) -> nn.Module:
        """The network without a spatial transformer in front, for images that shall stay put."""
        if not self.has_stn:
            return self.network
        body = copy.deepcopy(self.network)
        body.stn = nn.Identity()
        return body

    @property
    def has_stn(self) -> bool:
        """Whether a spatial transformer is in front of the network."""
        return self.trained is not None and self.trained.state["configs"].get("use_stn", False)

    @property
    def given(self) -> dict[str, Any]:
        """Those of `--steps`, `--lr` and `--seed` that were given; each method has defaults."""
        given = {name: getattr(self.flags, name) for name in ("steps", "lr", "seed")}
        return {name: value for name, value in given.items() if value is not None}

    def layer(self) -> tuple[str, nn.Module]:
        """Return the name of the convolution layer that `--layer_idx` counts to, and the layer."""
        return list(conv_layers(self.network).items())[self.layer_idx]

    @property
    def layer_idx(self) -> int:
        """Where `--layer_idx` counts to; unasked, the first."""
        layers = len(conv_layers(self.network))
        return check_index("--layer_idx", self.flags.layer_idx or 0, layers, "convolution layers")

    def test_loader(self) -> DataLoader:
        """Read the test split; a picture that shows no photograph needs none."""
        return test_loader(self.trained, self.flags.data_root, 256)

    def photographs(self, most: int, unasked: int | None = None) -> tuple[Tensor, list[int | None]]:
        """Return photographs as network input (n, C, H, W), and their labels, where known.

        The one that `--image` or `--image_idx` names; else up to `most` of the test split, spread
        over the classes and of middle brightness; for ImageNet networks, scikit-learn's samples.

        Args:
            unasked: the one of the test split that is shown unless another is named.
        """
        flags = self.flags
        if flags.image is not None:
            images = self.preprocess.read([image_path(flags.image, flags.save_dir / "images")])
            return images.to(self.runtime.device), [None]
        if self.trained is None:
            samples = [Image.fromarray(pixels) for pixels in load_sample_images().images]
            chosen = range(len(samples))[:most]
            if flags.image_idx is not None:
                check_index("--image_idx", flags.image_idx, len(samples), "sample photographs")
                chosen = [flags.image_idx]
            fitted = [torch.from_numpy(self.preprocess.fit(samples[i]).copy()) for i in chosen]
            images = self.preprocess.normalize(torch.stack(fitted))
            return images.to(self.runtime.device), [None] * len(images)
        dataset = self.test_loader().dataset
        if flags.image_idx is not None:
            check_index("--image_idx", flags.image_idx, len(dataset), "test images")
            chosen = [flags.image_idx]
        elif unasked is not None and unasked < len(dataset):
            chosen = [unasked]
        else:
            light = partial(brightness, dataset)
            chosen = examples(dataset.labels.cpu().numpy(), light, most)
        images, labels = dataset.__getitems__(chosen)
        return images.to(self.runtime.device), labels.tolist()

    def pixels(self, images: Tensor) -> np.ndarray:
        """Turn network input, (N, C, H, W), into arrays for drawing, (N, H, W, 3) in [0, 1]."""
        return to_arrays(self.preprocess.denormalize(images))

    def readings(self, images: Tensor) -> list[str]:
        """Say what the network takes images for, and how sure it is of that."""
        confidences, predictions = self.network(images).softmax(1).max(1)
        pairs = zip(predictions.tolist(), confidences.tolist(), strict=True)
        return [f"{self.name(prediction)}, {confidence:.1%}" for prediction, confidence in pairs]

    def name(self, label: int) -> str:
        """Return a class's name, short enough for a caption."""
        return shorten(self.classes[label])

    def caption(self, label: int | None) -> str:
        """Say what a photograph shows, where that is known."""
        if label is None:
            return shorten(Path(self.flags.image or "a picture").name)
        return self.name(label)

    def targets(self) -> list[int]:
        """Return the classes that `--target` names, by index or by name."""
        return [class_index(text, self.classes) for text in self.flags.target or []]

    def target(self) -> int | None:
        """Return the one class that `--target` names, if it is given."""
        return one_class(self.flags.type, self.flags.target, self.classes)


def brightness(dataset: ImageDataset, index: int) -> float:
    """Return how bright an image is in its middle, which shows the most, from 0 to 255."""
    pixels = dataset.pixels([index])[0]  # (H, W, C)
    height, width = (side // 4 for side in pixels.shape[:2])
    middle = pixels[height : len(pixels) - height, width : pixels.shape[1] - width]
    return float(middle.float().mean())


def load_subject(flags: ViewFlags, trained: Trained | None) -> Subject:
    """Return what is looked into: a run's network, else torchvision's that `--model` names.

    Raises:
        LabError: no such network, or its training has diverged.
    """
    if trained is None:
        published = load_pretrained(flags.model, flags.weights)
        runtime = start(flags.device, "fp32")
        network = place(published.network, runtime)
        preprocess, classes = published.preprocess, published.classes
    else:
        network, runtime, classes = trained.network, trained.runtime, trained.classes
        preprocess = preprocess_of_run(trained.state)
    if not all(weights.isfinite().all() for weights in network.parameters()):
        raise LabError(
            f"{flags.weights or flags.ckpt_path} has weights that are no finite numbers: its "
            "training diverged; look at an earlier epoch"
        )
    network = network.requires_grad_(False)
    return Subject(network, preprocess, classes, trained, runtime, flags)
