"""report.py: what it runs, what it reads, and that it says no more than the numbers carry."""

import csv
import json
import re
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from reporting import signs
from tests.support import ScriptCase, script_here

CLASSES = ("give_way", "no_entry", "stop")
IMAGES = 600  # of a made-up test split


def make_run(folder, accuracy, epochs=10, task="classification", flags=(), gap=0.0, seed=0, **more):
    """Write the files of a tested run, as train.py and test.py do, that reads `accuracy` of them.

    Which images it misreads is random, as between networks.
    """
    folder.mkdir(parents=True)
    rows = [
        {"epoch": epoch, "loss": 1 / epoch, "accuracy": accuracy + gap, "val_loss": 1.1 / epoch,
         "val_accuracy": accuracy, "learning_rate": 1e-3, "images_per_second": 900.0,
         "seconds": 12.0}
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    write_table(folder / "metrics.csv", rows)
    trained = {
        "task": task, "network": "classifier", "dataset": "signs", "ranks_by": "accuracy",
        "parameters": 843_290, "inputs": {"train": 10_400, "val": 1_300, "test": IMAGES},
    } | more  # fmt: skip
    words = ["python", "train.py", "--ckpt_path", str(folder), *flags, "--epoch", str(epochs)]
    session = {
        "started": "2025-01-01 12:00:00 +0000", "command": " ".join([*words, "--no_show"]),
        "resumed": None, "seed": seed, "commit": None, "trained": trained,
        "versions": {"python": "3.11", "torch": "2.11"},
        "machine": {"device": "cpu", "precision": "fp32", "threads": 2},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps([session]))
    (folder / f"ckpt_epoch_{epochs}.pth").write_bytes(b"")
    labels = np.arange(IMAGES) % len(CLASSES)
    right = np.random.default_rng(hash((accuracy, seed)) % 2**32).permutation(IMAGES)
    read = np.where(right < round(accuracy * IMAGES), labels, (labels + 1) % len(CLASSES))
    table = [{"image": image, "label": CLASSES[label], "prediction": CLASSES[other]}
             for image, (label, other) in enumerate(zip(labels, read, strict=True))]  # fmt: skip
    write_table(folder / "predictions.csv", table)
    figures = {"loss": 0.2, trained["ranks_by"]: float((labels == read).mean())}
    found = {"task": task, "checkpoint": f"ckpt_epoch_{epochs}.pth", "inputs": IMAGES,
             "figures": figures}  # fmt: skip
    (folder / "test.json").write_text(json.dumps(found))
    Image.new("RGB", (40, 30), "white").save(folder / "confusion_matrix.jpg")
    return folder


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class ReportCase(ScriptCase):
    """A folder of runs and pictures that are as good as made."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = Path(holder.name)
        self.runs, self.out = self.root / "checkpoints" / "report", self.root / "out"
        self.augmented = self.root / "augmentation.jpg"
        Image.new("RGB", (60, 40), "grey").save(self.augmented)
        patch = mock.patch.object(signs, "AUGMENTED", self.augmented)
        patch.start()
        self.addCleanup(patch.stop)

    def make_five(self, **accuracies):
        """Make the assignment's five runs, and the pictures from inside them."""
        for name, flags in signs.RUNS.items():
            make_run(self.runs / name, accuracies.get(name, 0.9), flags=flags)
        for _, _, _, file, _ in signs.LOOKS:
            path = self.runs / "looks" / file
            path.parent.mkdir(parents=True)
            Image.new("RGB", (2000, 50), "blue").save(path)

    def report(self, *flags):
        """Make the report of signs; return report.md and what was said."""
        done = script_here("report.py", "--ckpt_path", self.runs, "--save_dir", self.out, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return (self.out / "report.md").read_text(), done.stdout

    def parts(self, text):
        """Return the sentences on what each part brings."""
        return re.search(r"(?:What each part brings|各部分的作用)\n\n(.*?)\n\n", text, re.S)[1]


class ScratchTest(ReportCase):
    def test_look(self):
        self.make_five(default=0.9, bn=0.95, dropout=0.9, bn_aug=0.95, stn=0.93)
        text, said = self.report("--only", "signs", "detection")
        print(text)


if __name__ == "__main__":
    unittest.main()
