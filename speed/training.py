"""An epoch of the sign classifier: the bare step, the project's loop, the loop as usually written.

One network (`--bn --stn`), one folder of drawn signs, images a second.
"""

import statistics
import time
from collections.abc import Hashable
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from datasets import get_data_loader
from lab import engine
from lab.optimizers import average_weights, make_optimizer, make_schedule
from lab.runtime import Runtime, place, to_device
from lab.settings import TrainSettings
from lab.task import Task
from networks import Classifier
from speed import Figures, Turn, ratio, table
from tasks.classification import Classification
from world import signs

BATCH_SIZES = (128, 32)
IMAGES_A_CLASS = {"train": 150, "val": 1, "test": 40}
CLASSIFICATION, DEFAULTS = Classification(), TrainSettings()
BARE, OWN, AUGMENTED, PLAIN = (
    "(a) bare step", "(b) train.py", "(b) --augment", "(c) plain loop",
)  # fmt: skip


def contestants(folder: Path, runtime: Runtime) -> dict[Hashable, Turn]:
    """Return the four, at each batch size."""
    draw_signs(folder)
    turns: dict[Hashable, Turn] = {}
    for size in BATCH_SIZES:
        own, augmented = (own_loader(folder, size, runtime, augment) for augment in (False, True))
        plain = plain_loader(folder, "train", size, num_workers=2)
        turns |= {
            (BARE, size): bare_turns(classifier(), own, runtime),
            (OWN, size): own_turns(classifier(), own, runtime),
            (AUGMENTED, size): own_turns(classifier(), augmented, runtime),
            (PLAIN, size): plain_turns(classifier(), plain, runtime),
        }
    return turns


def report(figures: Figures, runtime: Runtime) -> str:
    """Return medians of images/s, and ratios."""
    names = (BARE, OWN, AUGMENTED, PLAIN)
    rows = []
    for size in BATCH_SIZES:
        medians = [f"{statistics.median(figures[name, size]):,.0f}" for name in names]
        ratios = [
            ratio(figures, (over, size), (under, size))
            for over, under in ((OWN, BARE), (AUGMENTED, BARE), (OWN, PLAIN))
        ]
        rows.append([str(size), *medians, *ratios])
    return table(["training, batch", *names, "b/a", "b augmented/a", "b/c"], rows)


def draw_signs(folder: Path) -> None:
    """Draw the signs that training and testing share, once."""
    if not (folder / "train").exists():
        signs.draw_dataset(folder, per_class=IMAGES_A_CLASS)


def classifier() -> Classifier:
    """Return the network under test; the same weights each time."""
    torch.manual_seed(0)
    return Classifier(3, 26, use_batch_norm=True, use_stn=True)


def prepare(
    model: nn.Module, settings: TrainSettings, runtime: Runtime
) -> tuple[nn.Module, Optimizer]:
    """Bring a network to the device as train.py does; return it with train.py's optimizer."""
    model = place(model, runtime)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, make_optimizer(learned, settings, runtime.device.type)


def bare_turns(
    model: nn.Module,
    loader: DataLoader,
    runtime: Runtime,
    task: Task = CLASSIFICATION,
    settings: TrainSettings = DEFAULTS,
) -> Turn:
    """(a) Forward, backward and update on the loader's first batch, which stays where it is."""
    model, optimizer = prepare(model, settings, runtime)
    inputs, targets = to_device(next(iter(loader)), runtime)

    def turn() -> float:
        model.train()
        steps = len(loader)
        began = time.perf_counter()
        for _ in range(steps):
            with runtime.autocast():
                loss, _ = engine.loss_and_figures(task.loss(model, inputs, targets))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return steps * len(inputs) / (time.perf_counter() - began)

    turn()  # warm up: kernels are chosen on the first steps
    return turn


def own_loader(
    folder: Path, batch_size: int, runtime: Runtime, augment: bool = False
) -> DataLoader:
    """Return the loader that train.py trains from."""
    return get_data_loader(folder, "train", 32, batch_size, augment=augment, device=runtime.device)


def own_turns(
    model: nn.Module,
    loader: DataLoader,
    runtime: Runtime,
    task: Task = CLASSIFICATION,
    settings: TrainSettings = DEFAULTS,
) -> Turn:
    """(b) The project's own epoch, loader, averaged weights and all."""
    model, optimizer = prepare(model, settings, runtime)
    # Of a constant rate, how long the run is does not matter.
    schedule = make_schedule(optimizer, DEFAULTS, total=1, done=0)
    average = average_weights(model, settings.ema) if settings.ema else None

    def turn() -> float:
        state = engine.EpochState()
        engine.train_one_epoch(
            task, model, loader, optimizer, schedule, runtime, state, settings.clip_norm, average
        )
        return state.trained / state.seconds

    return turn


def plain_loader(folder: Path, mode: str, batch_size: int, num_workers: int) -> DataLoader:
    """Return the loader the assignment hands out: each image read and transformed by itself."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    dataset = ImageFolder(str(folder / mode), transforms.Compose(steps))
    return DataLoader(dataset, batch_size, shuffle=mode == "train", num_workers=num_workers)


def plain_turns(model: nn.Module, loader: DataLoader, runtime: Runtime) -> Turn:
    """(c) The loop as it is usually written, fp32; the start of the loader is not counted."""
    model = model.to(runtime.device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss_function = nn.CrossEntropyLoss()

    def turn() -> float:
        model.train()
        batches = iter(loader)
        next(batches)  # when it is there, the workers run
        began, count, total_loss = time.perf_counter(), 0, 0.0
        for images, labels in batches:
            images, labels = images.to(runtime.device), labels.to(runtime.device)
            optimizer.zero_grad()
            loss = loss_function(model(images), labels)
            loss.backward()
            optimizer.step()
            total_loss += loss.item()
            count += len(labels)
        return count / (time.perf_counter() - began)

    return turn
