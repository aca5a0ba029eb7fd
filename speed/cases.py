"""What is trained: of every task small data, a network, its objective and loaders, made once.

    for name, case in cases_of("segmentation", folder, runtime).items():
        learner = case.learner(runtime)

Each is what train.py prepares by the same flags. Data are drawn, weights random, which are as fast:
nothing is downloaded.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST, ImageFolder
from torchvision.models import squeezenet1_1

import tasks
from datasets import SOURCES
from lab.learner import Learner
from lab.runtime import Runtime
from lab.settings import TrainSettings
from tasks import Job, TrainFlags
from tasks.diffusion.networks import Autoencoder, AutoencoderConfig
from world import captions, clips, signs
from world.street import draw_street_dataset

BARE, OWN, AUGMENTED, PLAIN = KINDS = (
    "(a) bare step", "(b) train.py", "(b) --augment", "(c) plain loop",
)  # fmt: skip
BATCH_SIZES = (128, 32)  # of signs
CLIP_NETWORKS = ("cnn3d", "cnn_lstm", "early_fusion")
WINDOWS = 8  # of each street, an epoch
MNIST_IMAGES = {"train": 8000, "t10k": 10}  # in each of MNIST's pairs of files


@dataclass(frozen=True)
class Case:
    """What is trained on what.

    Attributes:
        job: as train.py prepares it; its network is as new.
        loaders: by KINDS; the bare step takes the first batch of its own. Of `--augment`, where
            that is not the default; the plain one, where an assignment hands it out.
    """

    job: Job
    settings: TrainSettings
    loaders: dict[str, DataLoader]

    def learner(self, runtime: Runtime) -> Learner:
        """Return what trains a copy of the network, at a constant rate, which has no end."""
        network, parameters = copy.deepcopy((self.job.network, self.job.parameters))
        settings = replace(self.settings, schedule="constant")
        return Learner(self.job.objective, network, settings, runtime, parameters).begin(total=1)


@cache
def cases_of(task: str, folder: Path, runtime: Runtime) -> dict[str, Case]:
    """Return what is trained of a task, by name; its data are drawn in `folder`."""
    return CASES[task](folder, runtime)


def prepare(
    name: str, root: Path, runtime: Runtime, settings: Mapping[str, Any] | None = None, **own: Any
) -> Case:
    """Return what train.py trains of a task on the data in a folder, by flags of its own."""
    task = tasks.load(name)
    chosen = TrainSettings(**{**task.defaults, **(settings or {})})
    flags = TrainFlags(task=name, data_root=root, settings=chosen, own=task.Flags(**own))
    job = task.prepare(flags, runtime, None, None)
    return Case(job, chosen, dict.fromkeys((BARE, OWN), job.loaders["train"]))


# ---------------------------------------------------------------- the data


def draw(name: str, folder: Path) -> Path:
    """Draw data that several cases share, once; return where."""
    root = folder / name
    if not root.exists():
        DRAWN[name](root)
    return root


def write_mnist(root: Path) -> None:
    """Write scikit-learn's digits, over and over, as MNIST's files (LeCun et al. 1998)."""
    split, raw = SOURCES["digits"].read(None, "train", None), root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in MNIST_IMAGES.items():
        for kind, values in (
            ("images-idx3", split.images.squeeze(3).numpy()),
            ("labels-idx1", split.labels.numpy().astype(np.uint8)),
        ):
            values = np.resize(values, (count, *values.shape[1:]))
            header = np.array([0x800 + values.ndim, *values.shape], ">i4")
            (raw / f"{name}-{kind}-ubyte").write_bytes(header.tobytes() + values.tobytes())


DRAWN: dict[str, Callable[[Path], None]] = {
    "signs": partial(signs.draw_dataset, splits={"train": 150, "val": 1, "test": 40}),
    "mnist": write_mnist,
    "streets": partial(draw_street_dataset, splits={"train": 16, "val": 1}),
    "clips/motion_16": partial(
        clips.clips_of("motion"), splits={"train": 640, "val": 10, "test": 10}
    ),
    "captions": partial(captions.draw_captions, splits={"train": 20, "val": 1}),
}


def plain_signs(root: Path, mode: str, batch_size: int, num_workers: int = 0) -> DataLoader:
    """Return the loader the assignment hands out: each image read and transformed by itself."""
    steps = [transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    dataset = ImageFolder(str(root / mode), transforms.Compose(steps))
    return DataLoader(dataset, batch_size, shuffle=mode == "train", num_workers=num_workers)


def plain_mnist(root: Path, batch_size: int, num_workers: int = 0) -> DataLoader:
    """Return that of MNIST's training images."""
    steps = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    dataset = MNIST(root, transform=transforms.Compose(steps))
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers)


# ---------------------------------------------------------------- the tasks


def classification(folder: Path, runtime: Runtime) -> dict[str, Case]:
    """The main job on signs; `mnist_cnn` on MNIST's files."""
    root, cases = draw("signs", folder), {}
    own = partial(prepare, "classification")
    for size in BATCH_SIZES:
        case, augmented = (
            own(root, runtime, {"batch_size": size, "augment": augment}, bn=True, stn=True)
            for augment in (False, True)
        )
        case.loaders[AUGMENTED] = augmented.loaders[OWN]
        case.loaders[PLAIN] = plain_signs(root, "train", size, 2)
        cases[f"signs, batch {size}"] = case
    root, size = draw("mnist", folder), 64
    case = own(root, runtime, {"batch_size": size}, dataset="mnist")
    case.loaders[PLAIN] = plain_mnist(root, size, 2)
    return cases | {f"MNIST, batch {size}": case}


def of_streets(task: str, name: str, folder: Path, runtime: Runtime, **own: Any) -> dict[str, Case]:
    """A network that is trained on windows of streets, more of each than train.py cuts."""
    case = prepare(task, draw("streets", folder), runtime, network=name, **own)
    known, size = case.loaders[OWN].dataset, case.settings.batch_size
    windows = replace(known.windows, each=WINDOWS)
    loader = known.loader(known.split, size, windows, device=runtime.device)
    return {name: replace(case, loaders=dict.fromkeys(case.loaders, loader))}


def video(folder: Path, runtime: Runtime) -> dict[str, Case]:
    """Networks that see time in three ways."""
    root = draw("clips/motion_16", folder).parent
    return {name: prepare("video", root, runtime, network=name) for name in CLIP_NETWORKS}


def diffusion(folder: Path, runtime: Runtime) -> dict[str, Case]:
    """Text encoder and UNet, on the latents of an autoencoder that has learned nothing."""
    config, path = AutoencoderConfig(), folder / "autoencoder.pth"
    torch.manual_seed(0)
    weights = Autoencoder(config).state_dict()
    known = {"task": "diffusion", "network": "autoencoder", "configs": vars(config)}
    torch.save(known | {"model_state": weights}, path)
    root = draw("captions", folder)
    return {"UNet": prepare("diffusion", root, runtime, stage="unet", autoencoder=path)}


def style(folder: Path, runtime: Runtime) -> dict[str, Case]:
    """The network that paints streets, in the manner of one of them."""
    root, weights = draw("streets", folder) / "train" / "JPEGImages", folder / "squeezenet.pth"
    torch.manual_seed(0)
    torch.save(squeezenet1_1().state_dict(), weights)
    painting = str(min(root.iterdir()))
    return {"TransformNet": prepare("style", root, runtime, style=painting, weights=weights)}


CASES: dict[str, Callable[[Path, Runtime], dict[str, Case]]] = {
    "classification": classification,
    "detection": partial(of_streets, "detection", "center_net"),
    "segmentation": partial(of_streets, "segmentation", "res_unet", coarse=0.0),
    "video": video,
    "diffusion": diffusion,
    "style": style,
}
