"""What the suites share: small data sets, and the real scripts run as a user would."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

PROJECT = Path(__file__).parent.parent
CLASSES = ("blue", "green", "red")


def make_images(root: Path, per_class: dict[str, int], size: int = 32) -> Path:
    """Write an ImageFolder tree of noisy squares, one colour a class; easy to learn."""
    rng = np.random.default_rng(0)
    for mode, count in per_class.items():
        for label, name in enumerate(CLASSES):
            folder = root / mode / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (size, size, 3))
                pixels[8:24, 8:24, 2 - label] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:03d}.png")
    return root


def environment(threads: int = 1) -> dict[str, str]:
    """Return the environment of a script run by a test: no display, few threads."""
    kept = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "RANK")}
    return kept | {"OMP_NUM_THREADS": str(threads), "MPLBACKEND": "Agg"}


def script(*arguments: object, cwd: Path = PROJECT) -> subprocess.CompletedProcess:
    """Run `python SCRIPT ...` to its end and return it, output as text."""
    name, *rest = map(str, arguments)
    return subprocess.run(
        [sys.executable, str(PROJECT / name), *rest],
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
