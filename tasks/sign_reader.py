"""A trained classifier of signs that says what is seen in pictures that others found or made."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lab import checkpoint
from lab.console import LabError
from lab.features import inputs_of
from tasks import DEFAULT, TestFlags
from tasks.trained import Trained, another_run, load_trained, preprocess_of_run

TOGETHER = 256  # pictures at a time


def plain_name(name: str) -> str:
    """Return a class's name without the number that it is sorted by."""
    return name.lstrip("0123456789").lstrip("_")


def find_reader(
    path: Path, classes: Sequence[str], device: str | None, precision: str | None
) -> Trained:
    """Load the classifier of a checkpoint, or the best of a run's folder.

    Args:
        classes: plain names, of which all that it knows have to be among.

    Raises:
        LabError: no classifier, or one of other classes.
    """
    if not (path.is_file() or checkpoint.epochs(path)):
        other = another_run(DEFAULT, path.with_suffix(""), "--read")
        raise LabError(f"no classifier in --read {path}; {other}")
    path = checkpoint.best_or_last(path) if path.is_dir() else path
    state = checkpoint.load(path)
    if state.get("task", DEFAULT) != DEFAULT or "class_names" not in state:
        wrong = f"--read {path} is no checkpoint of a classifier with named classes"
        raise LabError(f"{wrong}; {another_run(DEFAULT, path.parent, '--read')}")
    unknown = [name for name in map(plain_name, state["class_names"]) if name not in classes]
    if unknown:
        raise LabError(f"--read {path} knows {unknown[0]}, which the network it reads does not")
    return load_trained(path, device, precision)


class SignReader:
    """A classifier, as `--read` names it: a checkpoint, or the folder of its run.

    Args:
        classes: as of `find_reader`.
    """

    def __init__(self, flags: TestFlags, classes: Sequence[str]):
        trained = find_reader(flags.read, classes, flags.device, flags.precision)
        known = map(plain_name, trained.state["class_names"])
        self.labels = torch.tensor([list(classes).index(name) for name in known])
        self.network, self.runtime = trained.network, trained.runtime
        self.preprocess = preprocess_of_run(trained.state)

    @torch.inference_mode()
    def read(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Return what each image is read as, int64 (N,) of `classes`, and how surely, (N,)."""
        logits = []
        for batch in self._batches(images):
            with self.runtime.autocast():
                logits.append(self.network(batch).float().cpu())
        certainty, read = torch.cat(logits).softmax(1).max(1)
        return self.labels[read], certainty

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return what the last linear layer of the classifier gets for images, (N, D)."""
        last = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear)][-1]
        inputs = [inputs_of(self.network, last, batch).float() for batch in self._batches(images)]
        return torch.cat(inputs).cpu().numpy()

    def _batches(self, images: Sequence[Image.Image]) -> list[Tensor]:
        pixels = np.stack([self.preprocess.fit(image) for image in images])
        batches = torch.from_numpy(pixels).split(TOGETHER)
        return [self.preprocess.normalize(batch).to(self.runtime.device) for batch in batches]
