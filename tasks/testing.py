"""What test.py does: a trained network on its test split, or on pictures of one's own."""

import json
from collections.abc import Iterable
from typing import Any

from PIL import Image

from lab import engine
from lab.console import UsageError, progress, say
from lab.files import attempt, write_whole
from lab.flags import asked_for
from lab.folders import stored
from tasks import TestFlags
from tasks.trained import Trained, load_run


def test(flags: TestFlags) -> None:
    """Do what flags ask for.

    Raises:
        UsageError: a flag has no use for the checkpoint's task.
    """
    trained = load_run(flags, flags.device, flags.precision, flags.task)
    path, task, runtime = trained.path, trained.task, trained.runtime
    if flags.read is not None and not task.reads:
        raise UsageError(f"--read is for another task than that of {path}")
    if flags.film and not (task.films and flags.image):
        raise UsageError("--film is of --image, of detection and segmentation")
    if flags.submission is not None and not (task.submits and flags.image):
        raise UsageError("--submission is of the pictures that --image names, of classification")
    unused = asked_for(flags, "data_root", "batch_size", "save") if flags.image else ()
    if unused:
        names = ", ".join(f"--{name}" for name in unused)
        raise UsageError(f"--image stands for the test split, and has no use for {names}")
    say(f"Testing {path} on {runtime.device.type} ({runtime.precision})")
    if trained.results != path.parent:
        say(f"What comes of it is written to {trained.results}")
        with attempt(f"write to {trained.results}"):
            trained.results.mkdir(parents=True, exist_ok=True)
    if flags.image:
        task.read_pictures(trained, flags)
        return
    if not task.measured:
        raise UsageError(f"of {task.name} nothing is measured: give --image FILE")
    meter = trained.objective.meter()
    loader = task.test_loader(trained, flags.data_root, flags.batch_size)
    figures = engine.evaluate(trained.network, meter, loader, runtime, "testing")
    result = {
        "task": task.name,
        "checkpoint": path.name,
        "data_root": flags.data_root and stored(flags.data_root),
        "inputs": len(loader.dataset),
        "independent": getattr(loader.dataset, "independent", len(loader.dataset)),
        "figures": figures,
    }
    # Printed before anything is written: the result is not lost where the folder takes no file.
    result |= task.report(trained, flags, meter, loader.dataset) or {}
    write_whole(trained.results / "test.json", json.dumps(result, indent=2) + "\n")


def save_results(
    trained: Trained, pictures: Iterable[tuple[str, Image.Image]], count: int, *old: str,
    inputs: str = "pictures", **options: Any,
) -> None:  # fmt: skip
    """Write pictures, by name, into `results/`, in place of those of an earlier test.

    Args:
        count: of the pictures.
        old: patterns of the names of those.
        inputs: what they are, in the plural.
        options: as of Pillow's `save`.

    Raises:
        LabError: the folder cannot be written.
    """
    folder = trained.results / "results"
    with attempt(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for path in [path for pattern in old for path in folder.glob(pattern)]:
            path.unlink()
        for name, image in progress(pictures, total=count, label="saving"):
            image.save(folder / name, **options)
    say(f"Saved {count:,} {inputs} in {folder}")
