"""The scripts as a user meets them: bad input in one clear line, test.py's table and pictures."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import weakref
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_score, recall_score
from torch.nn.functional import cross_entropy

import datasets
import tasks
import train as train_script
from lab import checkpoint, engine
from lab.files import alone
from lab.images import Preprocess
from lab.optimizers import Average
from networks import Classifier
from tasks import TestFlags
from tasks.classification import results
from tests.support import (
    CLASSES,
    PROJECT,
    ScriptCase,
    environment,
    make_images,
    network_of,
    script_here,
)

# What the course's scaffold keeps of its network.
SCAFFOLDS = ("in_channels", "num_classes", "use_batch_norm", "use_stn", "dropout_prob")


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


class ScriptTest(ScriptCase):
    """A trained run on a small data set, shared by the tests of a class."""

    flags = ("--bn", "--epoch", "2", "--batch_size", "8", "--lr", "3e-3")

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_images(cls.base / "data", {"train": 40, "val": 4, "test": 5})
        cls.run_folder = cls.base / "run"
        cls.trained = cls.train("--ckpt_path", cls.run_folder)

    @classmethod
    def train(cls, *more):
        return script_here("train.py", *cls.flags, "--data_root", cls.data, *more)

    def copy_run(self, name, **changes):
        """Return a copy of the run whose last checkpoint has some parts changed."""
        folder = Path(shutil.copytree(self.run_folder, self.base / name))
        path = folder / "ckpt_epoch_2.pth"
        checkpoint.save(path, checkpoint.load(path) | changes)
        return folder


class UsageTest(ScriptTest):
    def test_wrong_flags(self):
        """A value that cannot be meant: exit code 2, the flag and what it takes."""
        for arguments, words in {
            ("train.py", "--batch_size", "0"): ["--batch_size", "at least 1"],
            ("train.py", "--batch_size", "-4"): ["--batch_size", "at least 1"],
            ("train.py", "--epoch", "ten"): ["--epoch", "'ten'"],
            ("train.py", "--lr", "nan"): ["--lr", "above 0"],
            ("train.py", "--dropout", "1"): ["--dropout", "below 1"],
            ("train.py", "--optim_type", "lion"): ["--optim_type", "adamw"],
            ("train.py", "--nonsense", "1"): ["--nonsense"],
            ("train.py", "--task", "dreaming"): ["dreaming", "classification"],
            ("train.py", "--ema", "1"): ["--ema", "below 1"],
            ("train.py", "--clip_norm", "-1"): ["--clip_norm", "at least 0"],
            ("train.py", "--schedule", "triangle"): ["--schedule", "cosine"],
            ("test.py", "--precision", "fp8"): ["--precision", "bf16"],
            ("test.py", "--epoch", "0"): ["--epoch"],
            ("visualize.py", "--type", "dream"): ["--type", "tsne"],
            ("unit_test.py", "nothing"): ["nothing", "data_loader"],
            ("train.py", "--epochs", "3"): ["--epochs 3; did you mean --epoch?"],
            ("train.py", "--epochs=3"): ["--epochs=3; did you mean --epoch?"],
            ("visualize.py", "--image_index", "1"): ["did you mean --image_idx?"],
            ("train.py", "--task", "video", "--frame", "3"): ["did you mean --frames?"],
        }.items():
            with self.subTest(arguments):
                self.assert_refused(script_here(*arguments), 2, *words)
        done = self.train("--batch_size", "1", "--ckpt_path", self.base / "one")
        self.assert_refused(done, 2, "--batch_size 1", "at least 2")


class FolderTest(ScriptTest):
    """Which run is meant: each task has a folder of its own, and another kind of run is named."""

    def setUp(self):
        """Start each test in an empty folder with a run of signs in checkpoints/default.

        No network comes with the project here.
        """
        self.enterContext(mock.patch("tasks.shipped.PRETRAINED", Path("nowhere")))
        self.here = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(contextlib.chdir(self.here))
        self.default = Path(shutil.copytree(self.run_folder, "checkpoints/default"))

    def put_run_of(self, task, folder):
        """Put a run into a folder that says it is of a task."""
        shutil.copytree(self.run_folder, folder)
        sessions = json.loads((folder / "run.json").read_text())
        sessions[-1]["trained"]["task"] = task
        (folder / "run.json").write_text(json.dumps(sessions))
        path = folder / "ckpt_epoch_2.pth"
        checkpoint.save(path, checkpoint.load(path) | {"task": task})
        return folder

    def test_folders_of_the_tasks(self):
        """Trained, tested, looked at and painted with in one and the same folder unasked."""
        expected = {"classification": "default"} | {n: n for n in list(tasks.TASKS)[1:]}
        for name, folder in expected.items():
            with mock.patch.object(sys, "argv", ["train.py", "--task", name]):
                flags = train_script.read(tasks.load(name))
            self.assertEqual(flags.ckpt_path, Path("checkpoints", folder))
        self.default.rename("checkpoints/other")
        for arguments, name in (
            (("test.py",), "default"),
            (("test.py", "--task", "video"), "video"),
            (("visualize.py", "--type", "tsne"), "default"),
            (("visualize.py", "--type", "boxes"), "detection"),
            (("visualize.py", "--type", "saliency"), "default"),
            (("visualize.py", "--type", "saliency", "--task", "video"), "video"),
            (("diffuse.py", "--prompt", ""), "diffusion"),
        ):
            with self.subTest(arguments):
                self.assert_refused(script_here(*arguments), 1, f"checkpoints/{name}; ", "train.py")
        done = script_here("train.py", "--data_root", self.data, "--epoch", 1)
        self.assertIn("  python test.py --epoch best --save\n", done.stdout)
        self.assertEqual(script_here("test.py", "--no_show").returncode, 0)

    def test_what_is_named(self):
        """The run of the kind that is meant, set aside or beside, and how to train one."""
        of, default = ("--ckpt_path", self.default), self.default
        every = (
            (("diffuse.py", "--prompt", "", "--model", default), "diffusion", "--model", 1),
            (("visualize.py", "--type", "boxes", *of), "detection", "--ckpt_path", 2),
            (("test.py", "--task", "video", *of), "video", "--ckpt_path", 2),
            (("train.py", "--task", "video", "--resume", default), "video", "--resume", 2),
        )
        for arguments, task, flag, code in every:
            with self.subTest(arguments):
                training = f"train one: python train.py --task {task}"
                self.assert_refused(script_here(*arguments), code, training)
                beside = self.put_run_of(task, Path("checkpoints/another one"))
                said = f"{beside} holds one of {task} ({flag} '{beside}'); or {training}"
                self.assert_refused(script_here(*arguments), code, said)
                for number in (2, 10):
                    earlier = self.put_run_of(task, self.default / f"previous_{number}")
                    said = f"{earlier} holds one of {task} ({flag} {earlier}); or {training}"
                    self.assert_refused(script_here(*arguments), code, said)
                for folder in (beside, *self.default.glob("previous_*")):
                    shutil.rmtree(folder)

    def test_a_file_or_the_folder_of_runs(self):
        file = self.default / "ckpt_epoch_2.pth"
        said = f"takes its folder: --ckpt_path {self.default} --epoch 2"
        self.assert_refused(script_here("test.py", "--ckpt_path", file), 2, said)
        said = f"{self.default} holds one of classification (--ckpt_path {self.default})"
        self.assert_refused(script_here("test.py", "--ckpt_path", "checkpoints"), 1, said)

    def test_a_run_that_was_interrupted_in_its_first_epoch(self):
        begun = Path("checkpoints/begun")
        begun.mkdir()
        shutil.copy(self.default / "ckpt_epoch_2.pth", begun / checkpoint.INTERRUPTED)
        done = script_here("test.py", "--ckpt_path", begun)
        self.assert_refused(done, 1, f"go on with: python train.py --resume {begun}")

    def test_one_training_at_a_time(self):
        """A folder in which another process trains is left to it."""
        before = sorted(self.default.iterdir())
        with alone(self.default, "trains in"):
            done = script_here("train.py", "--data_root", self.data)
            self.assert_refused(done, 1, f"another process trains in {self.default}", "--ckpt_path")
        self.assertEqual(sorted(self.default.iterdir()), before)


class NextTest(ScriptTest):
    """What train.py says to try next: commands that its run takes."""

    def next_commands(self, pictures: int = 51, tested: str = "best", **configs: bool) -> list[str]:
        loaders = {"test": datasets.DataLoader(range(pictures))} if pictures else {}
        job = tasks.Job(None, None, loaders, {"configs": configs}, [], "")
        commands = tasks.load("classification").next_commands(tasks.TrainFlags(), job, tested)
        return [" ".join(words) for words in commands]

    def test_of_a_run_like_the_course_s(self):
        """In the folder of old, with its ten epochs; views that the network has something for."""
        every = ["test.py --epoch best --save", "visualize.py --type filter --layer_idx 0",
                 "visualize.py --type feature --layer_idx 1 --image_idx 50",
                 "visualize.py --type tsne"]  # fmt: skip
        self.assertEqual(self.next_commands(), every)
        more = ["visualize.py --type stn", "visualize.py --type attention"]
        self.assertEqual(self.next_commands(use_stn=True, use_non_local=True), every + more)

    def test_what_the_data_have_not(self):
        """No picture 50 of 50; no test split at all; the best epoch in another folder."""
        self.assertIn("visualize.py --type feature --layer_idx 1", self.next_commands(50))
        self.assertEqual(
            self.next_commands(0, use_stn=True), ["visualize.py --type filter --layer_idx 0"]
        )
        self.assertEqual(self.next_commands(tested="last")[0], "test.py --epoch last --save")

    def test_of_another_run(self):
        """Its folder is named, and its last epoch where there is no tenth."""
        said = self.trained.stdout.partition("Next, try:\n")[2].splitlines()
        self.assertEqual(len(said), 4)
        for line in said:
            self.assertIn(f" --ckpt_path {self.run_folder} --epoch ", line)
            where = ("--save_dir", self.base / "seen") if "visualize.py" in line else ()
            done = script_here(*line.split()[1:], "--no_show", *where)
            self.assertEqual(done.returncode, 0, done.stderr)


class BadInputTest(ScriptTest):
    def test_device(self):
        if torch.cuda.is_available():
            self.skipTest("this machine has a CUDA device")
        self.assert_refused(self.train("--device", "cuda"), 1, "no CUDA device", "for cpu")

    def test_data_folder(self):
        """A missing folder, no train/, an empty class, differing classes."""
        missing = self.base / "absent"
        done = script_here("train.py", "--data_root", missing, "--ckpt_path", self.base / "x")
        self.assert_refused(done, 1, f"no data folder {missing}")
        self.assertFalse(missing.exists())
        for spoil, words in (
            (lambda data: shutil.rmtree(data / "train"), ["train/"]),
            (lambda data: [p.unlink() for p in (data / "train/red").iterdir()], ["train/red"]),
            (
                lambda data: (data / "test/red").rename(data / "test/pink"),
                ["lacks red", "adds pink"],
            ),
        ):
            with self.subTest(words), tempfile.TemporaryDirectory() as folder:
                data = Path(shutil.copytree(self.data, Path(folder) / "data"))
                spoil(data)
                done = script_here(
                    "train.py", "--data_root", data, "--ckpt_path", Path(folder) / "run"
                )
                self.assert_refused(done, 1, *words)

    def test_corrupt_images_do_not_stop_a_run(self):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(shutil.copytree(self.data, Path(folder) / "data"))
            (data / "train/red/000.png").write_bytes(b"\x89PNG\r\n")
            (data / "train/red/note.txt").write_text("hello")
            done = self.train("--data_root", data, "--ckpt_path", Path(folder) / "run")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"left out 2 of 121 files: red/000.png .*, red/note.txt")

    def test_missing_checkpoints(self):
        """What is not there is named, with what is."""
        empty = self.base / "nothing"
        self.assert_refused(
            script_here("test.py", "--ckpt_path", empty), 1, empty, "python train.py"
        )
        done = script_here("test.py", "--ckpt_path", self.run_folder, "--epoch", "7")
        self.assert_refused(done, 1, "epoch 7", "there are 1, 2")
        done = script_here("train.py", "--resume", self.run_folder / "ckpt_epoch_9.pth")
        self.assert_refused(done, 1, "ckpt_epoch_9.pth", self.run_folder / "ckpt_epoch_2.pth")

    def test_unwritable_checkpoint_folder(self):
        blocked = self.base / "a_file"
        blocked.write_text("in the way")
        self.assert_refused(self.train("--ckpt_path", blocked / "run"), 1, blocked)

    def test_full_disk(self):
        """A save that fails ends the run in one line, and leaves what was saved before."""
        folder = self.base / "full"
        shutil.copytree(self.run_folder, folder)
        limited = (
            "import resource, runpy, signal, sys\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000,) * 2)\n"
            f"sys.argv = ['train.py', '--resume', {str(folder)!r}, '--epoch', '3']\n"
            "runpy.run_path('train.py', run_name='__main__')"
        )
        done = subprocess.run(
            [sys.executable, "-c", limited],
            cwd=PROJECT, env=environment(), capture_output=True, text=True,
        )  # fmt: skip
        self.assert_refused(done, 1, "could not save", folder / "ckpt_epoch_2.pth")
        self.assertEqual(list(checkpoint.epochs(folder)), [1, 2])
        self.assertEqual(list(folder.glob(".*")), [])

    def test_resume_from_another_network(self):
        before = (self.run_folder / "ckpt_epoch_2.pth").read_bytes()
        done = script_here("train.py", "--resume", self.run_folder, "--stn", "--epoch", "3")
        self.assert_refused(done, 1, "another network", "use_stn is False there")
        done = script_here("train.py", "--resume", self.run_folder)
        self.assert_refused(done, 1, "2 epochs already")
        done = script_here(
            "train.py", "--resume", self.run_folder, "--optim_type", "sgd", "--epoch", 3
        )
        self.assert_refused(done, 1, "--optim_type sgd")
        other = make_images(self.base / "other", {"train": 4, "val": 2})
        (other / "train/red").rename(other / "train/pink")
        (other / "val/red").rename(other / "val/pink")
        done = script_here(
            "train.py", "--resume", self.run_folder, "--data_root", other, "--epoch", "3"
        )
        self.assert_refused(done, 1, "pink")
        self.assertEqual((self.run_folder / "ckpt_epoch_2.pth").read_bytes(), before)

    def test_malicious_and_damaged_checkpoints(self):
        """Code in a pickle is refused unrun; a damaged file names the newest good one."""
        folder = self.base / "bad"
        shutil.copytree(self.run_folder, folder)
        trap = self.base / "sprung"
        torch.save({"model_state": Trap(trap), "configs": {}}, folder / "ckpt_epoch_3.pth")
        whole = (folder / "ckpt_epoch_2.pth").read_bytes()
        (folder / "ckpt_epoch_4.pth").write_bytes(whole[:5000])
        middle = len(whole) // 2  # among the weights
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        (folder / "ckpt_epoch_5.pth").write_bytes(flipped)
        for epoch, word in ((3, "refused"), (4, "damaged"), (5, "damaged")):
            done = script_here("test.py", "--ckpt_path", folder, "--epoch", epoch)
            self.assert_refused(done, 1, word, folder / "ckpt_epoch_2.pth")
            done = script_here("train.py", "--resume", folder / f"ckpt_epoch_{epoch}.pth")
            self.assert_refused(done, 1, word, folder / "ckpt_epoch_2.pth")
        self.assertFalse(trap.exists())

    def test_parts_that_are_no_parts(self):
        """Weights, configs or an optimizer's state that are something else, wherever they go."""
        for part, words in (
            ({"model_state": [torch.zeros(3)]}, "is no state dict"),
            ({"configs": [3, 26]}, "its configs is a list"),
        ):
            state = checkpoint.load(self.run_folder / "ckpt_epoch_2.pth") | part
            folder = self.base / next(iter(part))
            folder.mkdir()
            path = folder / "ckpt_epoch_2.pth"
            torch.save(state, path)
            for arguments in (
                ("test.py", "--ckpt_path", folder),
                ("train.py", "--resume", folder),
                ("train.py", "--data_root", self.data, "--weights", path, "--ckpt_path",
                 self.base / "none"),
            ):  # fmt: skip
                with self.subTest(arguments):
                    self.assert_refused(script_here(*arguments), 1, path, words)
        for name, state in (
            ("empty", {}),
            ("groupless", {"state": {}, "param_groups": []}),
            ("other", {"state": {}, "param_groups": [{"lr": 1, "params": []}]}),
        ):
            folder = self.copy_run(name, optimizer_state=state)
            done = script_here("train.py", "--resume", folder, "--epoch", 3)
            self.assert_refused(done, 1, "holds no state of --optim_type adam")

    def test_other_tasks(self):
        """A task of the future is named; one network's configs do not build another's."""
        for task, words in (
            ("dreaming", "is of an unknown task 'dreaming'; there are classification"),
            ("style", "the configs do not fit the network 'transform'"),
        ):
            folder = self.copy_run(task, task=task, network="transform")
            done = script_here("test.py", "--ckpt_path", folder, "--epoch", "2")
            self.assert_refused(done, 1, words)
        done = script_here("train.py", "--resume", self.base / "dreaming" / "ckpt_epoch_2.pth")
        self.assert_refused(done, 1, self.base / "dreaming", "unknown task 'dreaming'")
        done = script_here("train.py", "--resume", self.run_folder, "--task", "dreaming")
        self.assert_refused(done, 2, "--task", "dreaming")

    def test_a_rank_without_torchrun(self):
        """What other programs leave in the environment does not make a run silent."""
        for variables in ({"RANK": "1"}, {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3"}):
            with self.subTest(variables), mock.patch.dict(os.environ, variables):
                folder = self.base / f"rank_{variables['RANK']}"
                done = self.train("--epoch", 1, "--ckpt_path", folder)
                self.assertIn("Epoch  1/1: loss", done.stdout)
                self.assertEqual(list(checkpoint.epochs(folder)), [1])


class Trap:
    """Its unpickling would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class TestScriptTest(ScriptTest):
    def test_the_result_is_printed_first(self):
        """Where the run's folder takes none of the files, the figures are said all the same."""
        for name in ("test.json", "predictions.csv", "confusion_matrix.jpg"):
            folder = self.copy_run(f"blocked_{name}")
            (folder / name).unlink(missing_ok=True)
            (folder / name).mkdir()
            done = script_here("test.py", "--ckpt_path", folder, "--epoch", 2)
            self.assert_refused(done, 1, f"cannot write {folder / name}")
            self.assertRegex(done.stdout, r"accuracy on the test set: \d+\.\d\d% \(\d+ of 15\)")

    def test_table_is_scikit_learns(self):
        """Accuracy, precision, recall and confusion on mislabelled images equal scikit-learn's."""
        data = Path(shutil.copytree(self.data, self.base / "mislabelled"))
        for index in range(2):
            (data / "test/red" / f"00{index}.png").rename(data / f"test/blue/x{index}.png")
        with (
            mock.patch.object(results, "sheet", wraps=results.sheet) as sheet,
            mock.patch.object(results, "confusion", wraps=results.confusion) as confusion,
        ):
            done = script_here(
                "test.py", "--ckpt_path", self.run_folder, "--epoch", 2, "--path", data, "--save"
            )
        self.assertEqual(done.returncode, 0, done.stderr)
        labels = np.repeat([0, 1, 2], [7, 5, 3])
        read = np.repeat([0, 2, 1, 2], [5, 2, 5, 3])
        rows = {
            line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()
        }
        precision = precision_score(labels, read, average=None)
        recall = recall_score(labels, read, average=None)
        for label, name in enumerate(CLASSES):
            expected = [
                f"{precision[label]:.2%}",
                f"{recall[label]:.2%}",
                str((labels == label).sum()),
            ]
            self.assertEqual(rows[name], expected)
        self.assertIn("accuracy on the test set: 86.67% (13 of 15)", done.stdout)
        counts, classes = confusion.call_args.args
        np.testing.assert_array_equal(counts, confusion_matrix(labels, read))
        self.assertEqual(tuple(classes), CLASSES)

        shown, captions = sheet.call_args.args
        self.assertEqual(captions, 2 * ["blue\nread as red"])
        files = sorted((self.run_folder / "results").glob("0*.jpg"))
        self.assertEqual(len(files), 15)
        wrong = [path.name for path in files if "_wrong_" in path.name]
        self.assertEqual(wrong, ["0005_wrong_blue_red.jpg", "0006_wrong_blue_red.jpg"])
        self.assertEqual(files[0].name, "0000_correct_blue_blue.jpg")
        with Image.open(files[5]) as saved, Image.open(data / "test/blue/x0.png") as source:
            np.testing.assert_array_equal(shown[0], np.asarray(source))
            difference = np.asarray(saved, float) - np.asarray(source, float)
        self.assertLess(np.abs(difference).mean(), 10)
        for picture in ("results/mistakes.jpg", "confusion_matrix.jpg"):
            with Image.open(self.run_folder / picture) as image:
                self.assertGreater(image.width, 300)

    def test_what_is_noted(self):
        """`test.json` says what was tested on what, and how well."""
        done = script_here("test.py", "--ckpt_path", self.run_folder, "--epoch", 2)
        self.assertEqual(done.returncode, 0, done.stderr)
        noted = json.loads((self.run_folder / "test.json").read_text())
        figures = noted.pop("figures")
        expected = {"task": "classification", "checkpoint": "ckpt_epoch_2.pth", "inputs": 15}
        self.assertEqual(noted, expected | {"data_root": None, "independent": 15})
        self.assertEqual(figures["accuracy"], 1)
        script_here("test.py", "--ckpt_path", self.run_folder, "--data_root", self.data)
        noted = json.loads((self.run_folder / "test.json").read_text())
        self.assertEqual(noted["data_root"], str(self.data))

    def test_a_flag_of_other_tasks(self):
        done = script_here("test.py", "--ckpt_path", self.run_folder, "--read", self.run_folder)
        self.assert_refused(done, 2, "--read is for another task", self.run_folder)

    def test_without_an_epoch(self):
        """Of a run that does not end with epoch 10 the best is tested, which is said."""
        folder = self.copy_run("one_best", best_epoch=1)
        done = script_here("test.py", "--ckpt_path", folder)
        self.assertIn(f"Taking the best epoch of {folder}, 1\n", done.stdout)
        self.assertIn(f"Testing {folder / 'ckpt_epoch_1.pth'}", done.stdout)

    def test_computes_as_the_run_did(self):
        """In the precision of the run, unless told otherwise."""
        whole = checkpoint.load(self.run_folder / "ckpt_epoch_2.pth")["settings"]
        folder = self.copy_run("whole", best_epoch=2, settings=whole | {"precision": "fp32"})
        done = script_here("test.py", "--ckpt_path", folder)
        self.assertIn("(fp32)", done.stdout, done.stderr)
        folder = self.base / "half"
        self.train("--epoch", 1, "--precision", "bf16", "--ckpt_path", folder)
        for flags, name, kind in (
            ((), "bf16", torch.bfloat16),
            (("--precision", "fp32"), "fp32", None),
        ):
            with mock.patch.object(engine, "evaluate", wraps=engine.evaluate) as evaluate:
                done = script_here("test.py", "--ckpt_path", folder, *flags)
            self.assertIn(f"({name})", done.stdout, done.stderr)
            self.assertEqual(evaluate.call_args.args[3].autocast_dtype, kind)

    def test_validation_loss_is_the_true_one(self):
        """Cross-entropy without smoothing, whatever training smooths; kept when gone on with."""
        folder = self.base / "smooth"
        flags = ("--precision", "fp32", "--label_smoothing", "0.4", "--ckpt_path", folder)
        self.assertEqual(self.train("--epoch", 1, *flags).returncode, 0)
        script_here("train.py", "--resume", folder, "--epoch", 2)
        state = checkpoint.load(folder / "ckpt_epoch_2.pth")
        self.assertEqual(state["flags"]["label_smoothing"], 0.4)
        loader = datasets.get_data_loader(self.data, "val", 32, batch_size=50)
        ((images, labels),) = loader
        with torch.inference_mode():
            logits = network_of(state).eval()(images)
        row = state["history"][1]
        self.assertAlmostEqual(row["val_loss"], cross_entropy(logits, labels).item(), places=4)
        smooth = cross_entropy(logits, labels, label_smoothing=0.4).item()
        self.assertGreater(abs(smooth - row["val_loss"]), 0.05)
        self.assertGreater(row["loss"], 0.5)  # what smoothing leaves at the least

    def test_pictures_of_ones_own(self):
        """The right class is named first of files and folders; unreadable ones are named."""
        folder = self.base / "photos"
        folder.mkdir()
        for name in CLASSES:
            shutil.copy(self.data / "test" / name / "003.png", folder / f"a {name} one.png")
        (folder / "broken.png").write_bytes(b"\x89PNG\r\n")
        (folder / "notes.txt").write_text("no picture")
        single = self.data / "test" / "green" / "001.png"
        (self.run_folder / "images_001_and_1_more.jpg").unlink(missing_ok=True)
        test = ("test.py", "--ckpt_path", self.run_folder, "--epoch", "last", "--image")
        done = script_here(*test, single, folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{folder / 'broken.png'} is left out", done.stdout)
        self.assertNotIn("accuracy", done.stdout)
        rows = dict(re.findall(r"^(.*\.png) +(\S+ \d+\.\d%.*)$", done.stdout, re.MULTILINE))
        rows = {name.strip(): row for name, row in rows.items()}
        self.assertEqual(set(rows), {"001.png", *(f"a {name} one.png" for name in CLASSES)})
        for name in CLASSES:
            likeliest = re.findall(r"(\w+) (\d+\.\d)%", rows[f"a {name} one.png"])
            self.assertEqual(likeliest[0][0], name)
            shares = [float(share) for _, share in likeliest]
            self.assertEqual(shares, sorted(shares, reverse=True))
            self.assertAlmostEqual(sum(shares), 100, delta=0.2)
        self.assertTrue(rows["001.png"].startswith("green "))
        with Image.open(self.run_folder / "images_001_and_1_more.jpg") as picture:
            self.assertGreater(picture.width, 300)

        with mock.patch.object(results, "sheet", wraps=results.sheet) as sheet:
            done = script_here(*test, self.data / "train")
        self.assertEqual(len(re.findall(r"^\d{3}\.png ", done.stdout, re.MULTILINE)), 120)
        self.assertEqual(list(map(len, sheet.call_args.args)), [results.SHEET] * 2)

        done = script_here(*test, folder / "broken.png")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"error: no readable image in .*broken\.png\n$")
        self.assert_refused(script_here(*test, folder / "absent.png"), 1, "absent.png")
        film = script_here(*test, folder / "drive.MP4")
        self.assert_refused(film, 2, "is a film", "--task detection", f"--read {self.run_folder}")

    def test_a_sheet_of_mistakes_is_full(self):
        """Of more than it can hold, from the first to the last."""
        folder = self.base / "mistakes"
        (folder / "results").mkdir(parents=True)
        trained, flags = SimpleNamespace(results=folder), TestFlags(save=True)
        labels = torch.zeros(54, dtype=torch.int64)
        meter = SimpleNamespace(labels=labels, predictions=labels + 1)
        shown = []

        class Inputs(list):
            classes = ("a", "b")

        def lay_out(indices, pairs):
            shown.append(indices)
            return results.sheet(np.zeros((len(indices), 4, 4, 3)), [""] * len(indices))

        image = Image.new("RGB", (4, 4))
        with redirect_stdout(io.StringIO()):
            results.report_classes(
                trained, flags, meter, Inputs(range(54)), "images", lambda k: image, lay_out, 48
            )
        ((first, *_, last),) = shown
        self.assertEqual((len(shown[0]), len(set(shown[0])), first, last), (48, 48, 0, 53))

    def test_of_many_pictures_one_is_held(self):
        """They are far larger than what is made of them; those that are drawn are small."""
        alive, most, given = [], [], results.given_images

        def watch(sources):
            for path, image in given(sources):
                alive.append(weakref.ref(image))
                most.append(sum(each() is not None for each in alive))
                yield path, image
                del image

        with mock.patch.object(results, "given_images", watch):
            done = script_here("test.py", "--ckpt_path", self.run_folder, "--epoch", "last",
                               "--image", self.data / "train")  # fmt: skip
        self.assertEqual((done.returncode, len(most)), (0, 120), done.stderr)
        self.assertLessEqual(max(most), 2)

    def test_of_a_moving_picture_the_first_frame_is_read(self):
        frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
        folder = self.base / "moving"
        folder.mkdir()
        for name in ("moves.gif", "moves.webp"):
            frames[0].save(folder / name, save_all=True, append_images=frames[1:])
        frames[0].save(folder / "stands.gif")
        done = script_here("test.py", "--ckpt_path", self.run_folder, "--epoch", "last",
                           "--image", folder)  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in ("moves.gif", "moves.webp"):
            self.assertIn(f"{name}: of 3 frames the first is looked at", done.stdout)
        self.assertNotIn("stands.gif: of", done.stdout)

    def test_lines(self):
        """Pictures far longer than wide are read and drawn in little time and memory."""
        folder = self.base / "lines"
        folder.mkdir()
        for width, height in ((3000, 7), (7, 3000), (600, 2), (1, 1)):
            Image.new("RGB", (width, height), "red").save(folder / f"{width}x{height}.png")
        done = script_here("test.py", "--ckpt_path", self.run_folder, "--epoch", "last",
                           "--image", folder)  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(re.findall(r"^\d+x\d+\.png +\w+ ", done.stdout, re.MULTILINE)), 4)

    def test_reads_the_scaffolds_checkpoints(self):
        """A file with the contract's keys alone is tested and resumed."""
        folder = self.base / "scaffold"
        folder.mkdir()
        state = checkpoint.load(self.run_folder / "ckpt_epoch_2.pth")
        contract = ("model_state", "optimizer_state", "configs")
        own = {key: state[key] for key in contract}
        own["configs"] = {key: value for key, value in own["configs"].items() if key in SCAFFOLDS}
        self.assertEqual(set(own["configs"]), set(SCAFFOLDS))
        torch.save(own, folder / "ckpt_epoch_2.pth")
        done = script_here("test.py", "--ckpt_path", folder, "--epoch", 2, "--data_root", self.data)
        self.assertIn("accuracy on the test set: 100.00%", done.stdout, done.stderr)
        done = script_here(
            "train.py", "--resume", folder, "--data_root", self.data, "--epoch", 3,
            "--batch_size", 16,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(list(checkpoint.epochs(folder)), [2, 3])

    def test_other_classes_are_refused(self):
        data = Path(shutil.copytree(self.data, self.base / "renamed"))
        for mode in ("train", "test"):
            (data / mode / "red").rename(data / mode / "crimson")
        done = script_here(
            "test.py", "--ckpt_path", self.run_folder, "--epoch", 2, "--data_root", data
        )
        self.assert_refused(done, 1, "crimson")


# Runs train.py with each list of arguments in processes that torchrun has started once: a start
# takes longer than they do. A process cannot leave its group and join another.
WORKER = """
import json, os, sys
from unittest import mock
from tests.support import script_here
with mock.patch("torch.distributed.destroy_process_group"):
    done = [script_here("train.py", *arguments) for arguments in json.loads(sys.argv[1])]
with open(sys.argv[2] + os.environ["RANK"], "w") as file:
    json.dump([(each.returncode, each.stdout, each.stderr) for each in done], file)
"""
# Takes its time over each step and each save. Notes when a few steps are done, and what there is
# to go on from when the second process ends.
SLOW = """
import itertools, os, pathlib, runpy, sys, time
from lab import checkpoint
from tasks.classification.objective import ClassificationObjective as Objective
marker, folder = pathlib.Path(sys.argv.pop(1)), pathlib.Path(sys.argv[-1])
steps, loss, save = itertools.count(), Objective.loss, checkpoint.save
def slowly(*arguments):
    time.sleep(0.05)
    if next(steps) == 4:
        marker.touch()
    return loss(*arguments)
def save_slowly(*arguments):
    time.sleep(1)
    save(*arguments)
Objective.loss, checkpoint.save = slowly, save_slowly
sys.argv[0] = "train.py"
try:
    runpy.run_path("train.py", run_name="__main__")
finally:
    if os.environ["RANK"] == "1":
        marker.write_text(" ".join(path.name for path in folder.glob("*.pth")))
"""
# Dies without a word in the second epoch, in the first of its lives.
DYING = """
import itertools, os, runpy, signal, sys
from tasks.classification.objective import ClassificationObjective as Objective
steps, loss = itertools.count(), Objective.loss
def dying(*arguments):
    lives = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
    if next(steps) == 30 and lives == ("1", "0"):
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(*arguments)
Objective.loss, sys.argv[0] = dying, "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


class DistributedTest(ScriptCase):
    """Two processes of torchrun: interrupted ones, and a session of all that need no own start."""

    exact = ("--bn", "--stn", "--augment", "--dropout", "0.2", "--batch_size", "8", "--epoch", "2")
    plain = ("--precision", "fp32", "--optim_type", "sgd", "--lr", "0.02", "--batch_size", "5",
             "--schedule", "onecycle", "--clip_norm", "1", "--epoch", "2")  # fmt: skip
    still = ("--bn", "--precision", "fp32", "--optim_type", "sgd", "--lr", "1e-20", "--batch_size",
             "7", "--epoch", "1", "--ema", "0.5")  # fmt: skip

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_images(cls.base / "data", {"train": 60, "val": 5, "test": 5})
        cls.less = make_images(cls.base / "less", {"train": 20, "val": 5})
        cls.few = make_images(cls.base / "few", {"train": 1, "val": 1})
        cls.interrupted = {
            name: cls.interrupt(cls.base / name, send)
            for name, send in (("group", os.killpg), ("alone", os.kill))
        }
        runs = {
            "whole": (*cls.exact, "--data_root", cls.data),
            "group": ("--resume", cls.base / "group"),
            "alone": ("--resume", cls.base / "alone"),
            "plain": (*cls.plain, "--data_root", cls.less),
            "still": (*cls.still, "--data_root", cls.data),
            "few": ("--bn", "--data_root", cls.few),
            "absent": ("--data_root", cls.base / "nowhere"),
        }
        arguments = [
            [*map(str, flags), "--ckpt_path", str(cls.base / name)] for name, flags in runs.items()
        ]
        output = cls.base / "rank_"
        process = cls.torchrun(WORKER, json.dumps(arguments), output)
        said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        results = [json.loads(Path(f"{output}{rank}").read_text()) for rank in (0, 1)]
        cls.done = [dict(zip(runs, result, strict=True)) for result in results]

    @classmethod
    def torchrun(cls, code, *arguments, restarts=0):
        """Start a script in two processes, in a group of their own as a shell would.

        restarts: how often.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        file = cls.base / f"script_{port}.py"
        file.write_text(code)
        return subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2",
                f"--max_restarts={restarts}", f"--master_port={port}",
                str(file), *map(str, arguments),
            ],
            cwd=PROJECT, env=environment() | {"PYTHONPATH": str(PROJECT)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    @classmethod
    def interrupt(cls, folder, send):
        """Press Ctrl-C in the first epoch.

        Returns:
            What was said, the checkpoint then, and those the second process has seen at its end.
        """
        marker = cls.base / f"{folder.name}_marker"
        flags = (*cls.exact, "--data_root", cls.data, "--ckpt_path", folder)
        process = cls.torchrun(SLOW, marker, *flags)
        while not marker.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        send(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)
        return said, checkpoint.load(folder / checkpoint.INTERRUPTED), marker.read_text()

    def test_interrupted_within_an_epoch(self):
        """All stop after the same step and wait for the save; what is said is said once."""
        for name, ((output, errors), state, seen) in self.interrupted.items():
            with self.subTest(name):
                images = state["epoch_state"]["images"]
                self.assertIn(images, range(8, 180, 8))
                path = self.base / name / checkpoint.INTERRUPTED
                self.assertIn(
                    f"Saved {path} (epoch 1, {images} of 180 images). "
                    f"Go on with: python train.py --resume {path}",
                    output,
                )
                self.assertEqual(output.count("Stopping after this step"), 1)
                self.assertEqual(errors.count("train.py: interrupted"), 1, errors)
                self.assertEqual(len(state["processes"]), 2)
                self.assertEqual(seen, checkpoint.INTERRUPTED)

    def test_resumed_is_bit_identical(self):
        """The two processes go on to what two that nobody interrupted come to."""
        whole = [checkpoint.load(self.base / "whole" / f"ckpt_epoch_{n}.pth") for n in (1, 2)]
        for name in self.interrupted:
            self.assertEqual(self.done[0][name][0], 0, self.done[0][name])
            for state in whole:
                resumed = checkpoint.load(self.base / name / f"ckpt_epoch_{state['epoch']}.pth")
                for key, value in state["model_state"].items():
                    self.assertTrue(torch.equal(resumed["model_state"][key], value), (name, key))
                for row, expected in zip(resumed["history"], state["history"], strict=True):
                    for column in ("loss", "accuracy", "val_loss", "val_accuracy"):
                        self.assertAlmostEqual(row[column], expected[column], places=6)
            self.assertFalse((self.base / name / checkpoint.INTERRUPTED).exists())

    def test_they_train_as_one(self):
        """Of batches of five, shares of three and two: the gradients of the whole batch's mean."""
        done = script_here(
            "train.py", *self.plain, "--data_root", self.less, "--ckpt_path", self.base / "one"
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        one, two = (checkpoint.load(self.base / name / "ckpt_epoch_2.pth")
                    for name in ("one", "plain"))  # fmt: skip
        for key, value in one["model_state"].items():
            torch.testing.assert_close(two["model_state"][key], value, rtol=1e-4, atol=1e-5)
        for row, expected in zip(two["history"], one["history"], strict=True):
            for column in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
                self.assertAlmostEqual(row[column], expected[column], places=4)
        output = self.done[0]["plain"][1]
        self.assertEqual(output.count("Epoch  1/2"), 1)
        self.assertEqual(len(list((self.base / "plain").glob("events.*"))), 1)

    def test_killed_and_started_again(self):
        """Of the same command: from its last checkpoint to the weights of an unbroken run.

        Not from another run's that was in the folder, and not with what is of a beginning alone.
        """
        folder, data = self.base / "killed", ("--data_root", self.data)
        shutil.copytree(self.base / "plain", folder)
        own = (*self.exact, *data, "--ckpt_path", folder)
        process = self.torchrun(DYING, *own, restarts=1)
        output, errors = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, output + errors)
        self.assertIn("exitcode: -9", errors)
        self.assertEqual(output.count("Epoch  1/2"), 1, output)
        self.assert_same_weights(*(path / "ckpt_epoch_2.pth" for path in (
            self.base / "whole", folder
        )))  # fmt: skip
        self.assertTrue((folder / "previous_1" / "ckpt_epoch_2.pth").is_file())
        first, again = json.loads((folder / "run.json").read_text())[-2:]
        self.assertEqual(first["launch"], again["launch"])
        self.assertEqual(
            (first["resumed"], again["resumed"]), (None, str(folder / "ckpt_epoch_1.pth"))
        )

    def test_statistics_are_averaged(self):
        """Batch norm's are the mean of what each process has seen of its own images."""
        state = checkpoint.load(self.base / "still" / "ckpt_epoch_1.pth")
        preprocess = Preprocess(**state["preprocess"])
        split = datasets.read_split(self.data, "train", preprocess)
        seen, averaged = [], []
        for rank in (0, 1):
            model = network_of(state).train()
            for layer in model.modules():
                if hasattr(layer, "reset_running_stats"):
                    layer.reset_running_stats()
            average = Average(model, 0.5)
            loader = datasets.make_loader(
                split, preprocess, 7, shuffle=True, seed=0, rank=rank, world_size=2
            )
            for images, _ in loader:
                model(images)
                average.update(model)
            seen.append(dict(model.named_buffers()))
            averaged.append(dict(average.module.named_buffers()))
        for key, (first, second) in (("raw_state", seen), ("model_state", averaged)):
            for name, value in state[key].items():
                if "running" in name:
                    expected = (first[name] + second[name]) / 2
                    torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-4)
                    self.assertFalse(torch.allclose(first[name], expected, rtol=1e-3, atol=1e-4))

    def test_one_process_reads_it(self):
        """The main job's network has learned, and is tested by one process."""
        tested = script_here("test.py", "--ckpt_path", self.base / "whole", "--epoch", "last")
        share = re.search(r"accuracy on the test set: ([\d.]+)%", tested.stdout)
        self.assertGreater(float(share[1]), 60, tested.stdout)

    def test_an_error_is_said_once(self):
        """One line, by the first process; too few images for two processes are one too."""
        for name, words in (
            ("few", "3 training images are too few: batch norm needs 2 a process, so at least 4"),
            ("absent", f"no data folder {self.base / 'nowhere'}"),
        ):
            (code, _, errors), (other_code, _, others) = (done[name] for done in self.done)
            self.assertEqual((code, other_code, others), (1, 1, ""))
            self.assertIn(words, errors)
            self.assertEqual(len(errors.splitlines()), 1, errors)
            self.assertFalse((self.base / name / "run.json").exists())


class NamesTest(ScriptCase):
    """Classes whose names mean something to a table, a formula, a file or a terminal."""

    names = (
        "accuracy", "macro avg", "weighted avg", "$", "$x_{$", "a\\b", "two  words", "_hidden",
        os.fsdecode(b"caf\xe9"), "\N{SNOWMAN}", "n" * 250,
    )  # fmt: skip

    def test_all_through_the_scripts(self):
        """Trained, tested, saved, looked at and compared; each class has its row, and its files."""
        base = Path(self.enterContext(tempfile.TemporaryDirectory()))
        plain = make_images(base / "plain", {"train": 4, "val": 1, "test": 2})
        for mode in ("train", "val", "test"):
            for index, name in enumerate(self.names):
                source = plain / mode / CLASSES[index % 3]
                shutil.copytree(source, base / "data" / mode / name)
        run = base / "$run\\1"
        done = script_here(
            "train.py", "--data_root", base / "data", "--epoch", 1, "--ckpt_path", run
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        done = script_here("test.py", "--ckpt_path", run, "--save")
        self.assertEqual(done.returncode, 0, done.stderr)
        row = re.compile(r"^(.+?) +(\d+\.\d\d)% +(\d+\.\d\d)% +(\d+)$", re.MULTILINE)
        rows = {name: (float(recall), int(count))
                for name, _, recall, count in row.findall(done.stdout)}  # fmt: skip
        self.assertEqual(len(rows), len(self.names))
        self.assertLessEqual(set(self.names) - {self.names[8]}, set(rows))
        self.assertEqual({count for _, count in rows.values()}, {2})
        right = round(sum(2 * recall / 100 for recall, _ in rows.values()))
        self.assertIn(f"({right} of {2 * len(self.names)})", done.stdout)
        self.assertEqual(len(list((run / "results").glob("0*.jpg"))), 2 * len(self.names))
        self.assertLess(right, 10)  # three pictures cannot tell eleven classes apart
        self.assertTrue((run / "results" / "mistakes.jpg").is_file())
        picture = next((base / "data" / "test" / self.names[8]).iterdir())
        for arguments in (
            ("test.py", "--ckpt_path", run, "--image", picture, base / "data" / "test" / "$"),
            ("compare.py", run, "--save_dir", base / "compared"),
            ("train.py", "--resume", run, "--epoch", 2),
        ):
            done = script_here(*arguments)
            self.assertEqual(done.returncode, 0, done.stderr)


class ContractTest(unittest.TestCase):
    def test_checkpoint_names_its_network(self):
        """The five configs that the scaffold reads are there, under its names."""
        config = vars(Classifier(3, 5, True, True, 0.1).config)
        expected = dict(zip(SCAFFOLDS, (3, 5, True, True, 0.1), strict=True))
        self.assertLessEqual(expected.items(), config.items())
