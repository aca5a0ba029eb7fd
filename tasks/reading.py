"""A trained classifier of signs that says what is seen in pictures that others found or made."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lab import checkpoint
from lab.console import LabError
from lab.features import inputs_of
from lab.images import Preprocess
from lab.runtime import place, start_as
from networks import load_network

READ = 256  # pictures at a time


def plain_name(name: str) -> str:
    """Return a class's name without the number that it is sorted by."""
    return name.lstrip("0123456789").lstrip("_")


class SignReader:
    """A classifier, as `--read` names it.

    Args:
        path: a checkpoint of `--task classification`, or the folder of its run.
        classes: plain names, of which all that the classifier knows have to be among.
        args: test.py's flags.

    Raises:
        LabError: no classifier, or one of other classes.
    """

    def __init__(self, path: Path, classes: Sequence[str], args: Namespace):
        state = checkpoint.load_any(path)
        if state.get("task", "classification") != "classification" or "class_names" not in state:
            raise LabError(f"--read {path} is no checkpoint of a classifier with named classes")
        known = [plain_name(name) for name in state["class_names"]]
        unknown = [name for name in known if name not in classes]
        if unknown:
            raise LabError(f"--read {path} knows {unknown[0]}, which the network it reads does not")
        self.labels = torch.tensor([list(classes).index(name) for name in known])
        self.runtime = start_as(state, args.device, args.precision)
        self.model: nn.Module = place(load_network(state).eval(), self.runtime)
        self.preprocess = Preprocess(**state.get("preprocess", {}))

    @torch.inference_mode()
    def read(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Return what each image is read as, int64 (N,) of `classes`, and how surely, (N,)."""
        logits = []
        for batch in self._batches(images):
            with self.runtime.autocast():
                logits.append(self.model(batch).float().cpu())
        certainty, read = torch.cat(logits).softmax(1).max(1)
        return self.labels[read], certainty

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return what the last linear layer of the classifier gets for images, (N, D)."""
        last = [layer for layer in self.model.modules() if isinstance(layer, nn.Linear)][-1]
        found = [inputs_of(self.model, last, batch).float() for batch in self._batches(images)]
        return torch.cat(found).cpu().numpy()

    def _batches(self, images: Sequence[Image.Image]) -> list[Tensor]:
        pixels = np.stack([self.preprocess.fit(image) for image in images])
        batches = torch.from_numpy(pixels).split(READ)
        return [self.preprocess.normalize(part).to(self.runtime.device) for part in batches]
