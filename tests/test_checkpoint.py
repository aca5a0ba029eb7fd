"""Checkpoints: exact, whole after a kill or on a full disk, safe to open, found and rotated."""

import os
import pickle
import subprocess
import sys
import tempfile
import unittest
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lab import checkpoint
from lab.console import LabError
from lab.images import Preprocess
from lab.registry import build
from networks import NETWORKS, Classifier
from tasks.trained import preprocess_of_run
from tests.support import PROJECT, environment, network_of

PLAIN = {"model_state": {"weight": torch.arange(6.0).view(2, 3)}, "configs": {"in_channels": 3}}


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


class TemporaryFolder(unittest.TestCase):
    """A folder of the test's own, and what the tests do with it."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)

    def epoch_file(self, epoch: int) -> Path:
        return self.folder / f"ckpt_epoch_{epoch}.pth"

    def save_epochs(self, *epochs: int, **more: Any) -> None:
        for epoch in epochs:
            checkpoint.save(self.epoch_file(epoch), PLAIN | {"epoch": epoch} | more)

    def names(self) -> list[str]:
        """Return the names of everything in the folder, hidden files too."""
        return sorted(path.name for path in self.folder.iterdir())

    def message(self, call, *arguments) -> str:
        """Return the text of the LabError that a call must raise; it is one line."""
        with self.assertRaises(LabError) as caught:
            call(*arguments)
        text = str(caught.exception)
        self.assertNotIn("\n", text)
        return text


def same(one: Any, other: Any) -> bool:
    """True for equal types and equal values, tensors compared by their bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        bits = [value.detach().contiguous().view(-1).view(torch.uint8) for value in (one, other)]
        return alike and torch.equal(*bits)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


class SaveAndLoad(TemporaryFolder):
    def test_round_trip(self):
        """Weights, optimizer and nested plain values come back bit for bit, in their order."""
        torch.manual_seed(0)
        model = Classifier(3, 5, use_batch_norm=True)
        model = model.to(memory_format=torch.channels_last)
        state = {
            "model_state": model.state_dict(),
            "optimizer_state": {
                "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(32, 3, 5, 5)}},
                "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "fused": None, "params": [0]}],
            },
            "configs": {"in_channels": 3, "dropout_prob": 0.1, "use_stn": False},
            "history": [{"loss": 1 / 3, "val_loss": None}, {"loss": 1e-300, "val_loss": 2.5}],
            "class_names": ["stop", "限速", "line\nbreak", ""],
            "nested": {1: (1, 2.5, (None, True)), "empty": [{}, [], ()], "large": 2**80},
            "rng_state": {"cpu": torch.get_rng_state()},
            "tensors": [
                torch.tensor([0.0, -0.0, float("nan"), float("inf"), 1e-45]),
                torch.tensor([1.0, 3.0]).bfloat16(),
                torch.tensor(7),
                torch.zeros(0, 3, dtype=torch.float64),
                torch.tensor([True, False]),
            ],
        }
        checkpoint.save(self.epoch_file(1), state)
        loaded = checkpoint.load(self.epoch_file(1))
        self.assertEqual(list(loaded), list(state))
        for key in state:
            with self.subTest(key):
                self.assertTrue(same(loaded[key], state[key]))

    def test_same_tells_a_bit(self):
        """The comparison above sees the last bit, the sign of zero and a type."""
        self.assertFalse(same(torch.tensor([0.0]), torch.tensor([-0.0])))
        self.assertFalse(same({"a": [1]}, {"a": [True]}))
        self.assertFalse(same((1,), [1]))

    def test_saving_again_replaces(self):
        """The new content is there under the old name, and nothing else is left in the folder."""
        for step in (1, 2):
            checkpoint.save(self.epoch_file(1), PLAIN | {"step": step})
        self.assertEqual(checkpoint.load(self.epoch_file(1))["step"], 2)
        self.assertEqual(self.names(), ["ckpt_epoch_1.pth"])

    @unittest.skipUnless(Path("/proc/self/fd").is_dir(), "names of open files, as Linux has")
    def test_it_is_on_the_disk_when_it_has_its_name(self):
        """Synced whole before it is renamed, and its folder after: a power cut loses neither."""
        order, sync, replace = [], os.fsync, Path.replace

        def note_sync(descriptor):
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            order.append(("sync", path.name, path.stat().st_size if path.is_file() else None))
            sync(descriptor)

        def note_replace(path, target):
            order.append(("rename", path.name, path.stat().st_size))
            return replace(path, target)

        with mock.patch("os.fsync", note_sync), mock.patch.object(Path, "replace", note_replace):
            checkpoint.save(self.epoch_file(1), PLAIN)
        size = self.epoch_file(1).stat().st_size
        partial = ".ckpt_epoch_1.pth.partial"
        self.assertEqual(order, [("sync", partial, size), ("rename", partial, size),
                                 ("sync", self.folder.resolve().name, None)])  # fmt: skip

    def test_missing_file(self):
        """The message names the newest good checkpoint there, if there is one."""
        self.assertEqual(
            self.message(checkpoint.load, self.epoch_file(3)),
            f"no checkpoint {self.epoch_file(3)}",
        )
        self.save_epochs(1, 2)
        self.assertIn(str(self.epoch_file(2)), self.message(checkpoint.load, self.epoch_file(3)))

    def test_folder_that_is_gone(self):
        text = self.message(checkpoint.save, self.folder / "gone" / "ckpt_epoch_1.pth", PLAIN)
        self.assertIn("could not save", text)


class RunsCode:
    """Unpickling this opens a file for writing: any other call would do as well."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class BadFiles(TemporaryFolder):
    def setUp(self):
        super().setUp()
        self.save_epochs(1, 2)
        self.epoch_file(3).write_bytes(b"damaged")  # newer than the newest good one, which is 2
        self.bad = self.epoch_file(4)

    def refusal(self) -> str:
        """Return why the bad file is refused; the good one is named, and Python does not warn."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            text = self.message(checkpoint.load, self.bad)
        self.assertTrue(text.startswith(str(self.bad)), text)
        self.assertTrue(text.endswith(f"the newest good one there is {self.epoch_file(2)}"), text)
        return text

    def test_code_is_never_run(self):
        """A pickle that would create a file is refused, bare or in torch.save's formats."""
        created = self.folder / "created"
        attack = RunsCode(created)
        pickle.loads(pickle.dumps(attack)).close()  # so the attack is real
        self.assertTrue(created.exists())
        created.unlink()
        for wrapped in (attack, {"model_state": {"weight": attack}, "configs": {}}):
            for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
                with self.subTest(protocol=protocol, kind=type(wrapped)):
                    self.bad.write_bytes(pickle.dumps(wrapped, protocol))
                    self.refusal()
            for zipped in (True, False):
                with self.subTest(zipped=zipped, kind=type(wrapped)):
                    torch.save(wrapped, self.bad, _use_new_zipfile_serialization=zipped)
                    self.assertIn("holds code or objects", self.refusal())
        self.assertFalse(created.exists())

    def test_whole_modules_are_refused(self):
        """A network saved itself, not its weights, is an object whose class would be run."""
        torch.save(PLAIN | {"model_state": nn.Linear(2, 2)}, self.bad)
        self.assertIn("holds code or objects", self.refusal())

    def test_truncated_file(self):
        """Cut off anywhere, from the first byte to the last but one."""
        whole = self.epoch_file(2).read_bytes()
        for length in (0, 1, 2, 4, 30, 64, 100, len(whole) // 2, len(whole) - 22, len(whole) - 1):
            with self.subTest(length):
                self.bad.write_bytes(whole[:length])
                self.refusal()

    def test_text_file(self):
        """It is no checkpoint, and is not taken for code."""
        for text in ("epoch,loss\n1,0.5\n", "the weights", "Notes", '{"loss": 1}', "<html>", "1\n"):
            with self.subTest(text):
                self.bad.write_text(text)
                self.assertIn("is no checkpoint or is damaged", self.refusal())

    def test_any_first_letter(self):
        """Pickle reads each as an instruction: most fail in a way of their own."""
        for first in map(chr, range(32, 127)):
            with self.subTest(first):
                self.bad.write_text(f"{first}ccuracy 0.9\nloss 0.1\n")
                self.refusal()

    def test_random_bytes(self):
        generator = torch.Generator().manual_seed(0)
        for trial in range(300):
            with self.subTest(trial):
                noise = torch.randint(0, 256, (40,), generator=generator, dtype=torch.uint8)
                self.bad.write_bytes(bytes(noise.tolist()))
                self.message(checkpoint.load, self.bad)

    def test_other_content(self):
        """A list, a dict without configs, one without either key: named for what they are."""
        for content, named in (
            ([1, 2], "dictionary"),
            (torch.zeros(3), "dictionary"),
            ({"model_state": {}}, "lacks configs"),
            ({"weight": torch.zeros(3)}, "lacks model_state and configs"),
        ):
            with self.subTest(named):
                torch.save(content, self.bad)
                self.assertIn(named, self.refusal())

    def test_parts_that_are_no_parts(self):
        """Each is named; weights that are no tensors by name are none."""
        for part, words in (
            ({"model_state": [torch.zeros(3)]}, "is no state dict"),
            ({"model_state": {"weight": [0.0]}}, "is no state dict"),
            ({"model_state": {}}, "is no state dict"),
            ({"configs": [3, 26]}, "is damaged: its configs is a list"),
            ({"optimizer_state": None}, "its optimizer_state is a NoneType"),
            ({"settings": [1]}, "its settings is a list"),
            ({"flags": "--bn"}, "its flags is a str"),
            ({"preprocess": (32, 32)}, "its preprocess is a tuple"),
            ({"class_names": {"a": 0}}, "its class_names is a dict"),
            ({"history": {"loss": []}}, "its history is a dict"),
            ({"epoch": "last"}, "its epoch is a str"),
        ):
            with self.subTest(words):
                torch.save(PLAIN | part, self.bad)
                self.assertIn(words, self.refusal())

    def test_flipped_bytes(self):
        """One byte changed anywhere within the weights is seen, in each of 50 places."""
        torch.manual_seed(0)
        checkpoint.save(self.bad, PLAIN | {"model_state": {"weight": torch.randn(3000)}})
        whole = self.bad.read_bytes()
        weights = checkpoint.load(self.bad)["model_state"]["weight"].numpy().tobytes()
        begin = whole.index(weights)
        places = torch.randint(begin, begin + len(weights), (50,)).tolist()
        for place in places:
            with self.subTest(place):
                content = bytearray(whole)
                content[place] ^= 1 << place % 8
                self.bad.write_bytes(content)
                self.assertIn("damaged", self.refusal())

    def test_no_good_file_is_claimed_where_there_is_none(self):
        for epoch in (1, 2):
            self.epoch_file(epoch).unlink()
        self.bad.write_text("text")
        self.assertNotIn("good", self.message(checkpoint.load, self.bad))


# Both trials in one process, for the sake of one import of torch.
TRIALS = """
import itertools, os, random, resource, signal, sys, time
from pathlib import Path
import torch
from lab import checkpoint
from lab.console import LabError

def save(path, step, size):
    weight = torch.full((size,), float(step))
    checkpoint.save(path, {"model_state": {"weight": weight}, "configs": {}, "step": step})

def kill(path):
    save(path, 0, 500_000)
    instants = random.Random(0)
    for trial in range(1, 11):
        saver = os.fork()
        if saver == 0:
            try:
                for step in itertools.count(trial * 1000):
                    save(path, step, 500_000)
            finally:
                os._exit(1)
        time.sleep(instants.uniform(0.02, 0.15))
        os.kill(saver, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(saver, 0)[1]) == signal.SIGKILL
        state = checkpoint.load(path)
        weight = state["model_state"]["weight"]
        print("killed", state["step"], weight.numel(), weight.min().item(), weight.max().item())

def fill(folder):
    for epoch in (1, 2):
        save(folder / f"ckpt_epoch_{epoch}.pth", epoch, 1000)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # write() then fails, as it does on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for epoch in (3, 1):
        try:
            save(folder / f"ckpt_epoch_{epoch}.pth", epoch + 10, 100_000)
        except LabError as error:
            print("full", error)

torch.set_num_threads(1)
kill(Path(sys.argv[1]) / "ckpt_epoch_1.pth")
fill(Path(sys.argv[2]))
"""


@unittest.skipUnless(os.name == "posix", "needs limits and signals of POSIX")
class HardTimes(unittest.TestCase):
    """A real kill and a real full disk, in a process of their own."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.killed, cls.full = Path(holder.name, "killed"), Path(holder.name, "full")
        cls.killed.mkdir()
        cls.full.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", TRIALS, str(cls.killed), str(cls.full)],
            cwd=PROJECT, env=environment(), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(done.stderr)
        cls.lines = done.stdout.splitlines()

    def said(self, trial: str) -> list[str]:
        """Return what a trial printed, without its name."""
        lines = [line.split(" ", 1) for line in self.lines]
        return [rest for name, rest in lines if name == trial]

    def test_kill(self):
        """Killed at ten instants while saving over one file, it always holds one whole state."""
        states = [line.split() for line in self.said("killed")]
        self.assertEqual(len(states), 10)
        for step, count, lowest, highest in states:
            self.assertEqual(count, "500000")
            self.assertEqual(float(lowest), float(step))
            self.assertEqual(float(highest), float(step))
        self.assertGreater(int(states[-1][0]), 1000)  # savers did get to save
        checkpoint.save(self.killed / "ckpt_epoch_1.pth", PLAIN)  # also clears what a kill left
        self.assertEqual([path.name for path in self.killed.iterdir()], ["ckpt_epoch_1.pth"])

    def test_full_disk(self):
        """Saving fails with one line; the earlier checkpoints load, and no part file is left."""
        lines = self.said("full")
        self.assertEqual(len(self.lines), 10 + 2)
        for line, epoch in zip(lines, (3, 1), strict=True):
            path = self.full / f"ckpt_epoch_{epoch}.pth"
            self.assertTrue(line.startswith(f"could not save {path}: "), line)
            self.assertIn(f"{self.full / 'ckpt_epoch_2.pth'} is whole", line)
        left = sorted(path.name for path in self.full.iterdir())
        self.assertEqual(left, ["ckpt_epoch_1.pth", "ckpt_epoch_2.pth"])
        for epoch in (1, 2):
            state = checkpoint.load(self.full / f"ckpt_epoch_{epoch}.pth")
            self.assertEqual(state["step"], epoch)


class Finding(TemporaryFolder):
    def test_epochs_ignores_foreign_files(self):
        """Only ckpt_epoch_N.pth counts; in rising order of N, not of the name."""
        self.save_epochs(10, 9, 1)
        for name in (
            "ckpt_epoch_2.pth.partial", ".ckpt_epoch_3.pth.partial", "ckpt_epoch_.pth",
            "ckpt_epoch_x.pth", "ckpt_epoch_-4.pth", "my_ckpt_epoch_5.pth", "ckpt_epoch_6.pt",
            "ckpt_interrupted.pth", "metrics.csv", "ckpt_epoch_7_old.pth",
        ):  # fmt: skip
            (self.folder / name).touch()
        (self.folder / "previous_1").mkdir()
        (self.folder / "previous_1" / "ckpt_epoch_8.pth").touch()
        expected = {epoch: self.epoch_file(epoch) for epoch in (1, 9, 10)}
        self.assertEqual(list(checkpoint.epochs(self.folder).items()), list(expected.items()))
        self.assertEqual(checkpoint.epochs(self.folder / "no such folder"), {})

    def test_find(self):
        """An epoch by its number, the last by its number too, the best as the last one says."""
        self.save_epochs(2, 9, 10, best_epoch=9)
        self.assertEqual(checkpoint.find(self.folder, 2), self.epoch_file(2))
        self.assertEqual(checkpoint.find(self.folder, "last"), self.epoch_file(10))
        self.assertEqual(checkpoint.find(self.folder, "best"), self.epoch_file(9))

    def test_without_an_epoch(self):
        """The assignment's 10 if it ends the run; else the best, or the last, which is said."""
        with mock.patch("lab.checkpoint.say") as said:
            self.save_epochs(9, 10, best_epoch=9)
            self.assertEqual(checkpoint.find(self.folder, None), self.epoch_file(10))
            said.assert_not_called()
            for best, taken, name in ((9, 9, "best"), (7, 11, "last"), (None, 11, "last")):
                self.save_epochs(9, 11, best_epoch=best)
                self.assertEqual(checkpoint.find(self.folder, None), self.epoch_file(taken))
                said.assert_called_with(f"Taking the {name} epoch of {self.folder}, {taken}")

    def test_messages(self):
        """They list the epochs there are, or the command that makes some."""
        text = self.message(checkpoint.find, self.folder, "last")
        self.assertEqual(
            text,
            f"no checkpoints in {self.folder}; train one: "
            f"python train.py --ckpt_path {self.folder}",
        )
        self.save_epochs(10, 2)
        text = self.message(checkpoint.find, self.epoch_file(2), "last")
        self.assertEqual(text, f"{self.epoch_file(2)} is a file; give its folder, {self.folder}")
        text = self.message(checkpoint.find, self.folder, 5)
        self.assertIn("no checkpoint of epoch 5", text)
        self.assertIn("there are 2, 10 ", text)
        self.assertIn("--epoch last", self.message(checkpoint.find, self.folder, "best"))
        self.save_epochs(10, best_epoch=7)  # which is not there
        self.assertIn("--epoch last", self.message(checkpoint.find, self.folder, "best"))

    def test_resume_point(self):
        """A file is itself; of a folder it is the interrupted epoch, else the last whole one."""
        self.save_epochs(2, 10)
        self.assertEqual(checkpoint.resume_point(self.epoch_file(2)), self.epoch_file(2))
        self.assertEqual(checkpoint.resume_point(self.folder), self.epoch_file(10))
        interrupted = self.folder / checkpoint.INTERRUPTED
        checkpoint.save(interrupted, PLAIN)
        self.assertEqual(checkpoint.resume_point(self.folder), interrupted)
        interrupted.unlink()
        interrupted.mkdir()
        self.assertEqual(checkpoint.resume_point(self.folder), self.epoch_file(10))

    def test_resume_point_of_a_run_in_stages(self):
        """Until its last stage has a checkpoint, that of the one before; never an earlier run's."""
        first, earlier = self.folder / "autoencoder", self.folder / "previous_1"
        for folder in (first, earlier):
            folder.mkdir()
            checkpoint.save(folder / "ckpt_epoch_1.pth", PLAIN)
        self.assertEqual(checkpoint.resume_point(self.folder), first / "ckpt_epoch_1.pth")
        checkpoint.save(first / checkpoint.INTERRUPTED, PLAIN)
        self.assertEqual(checkpoint.resume_point(self.folder), first / checkpoint.INTERRUPTED)
        self.save_epochs(1)
        self.assertEqual(checkpoint.resume_point(self.folder), self.epoch_file(1))
        for path in (
            self.epoch_file(1),
            first / checkpoint.INTERRUPTED,
            first / "ckpt_epoch_1.pth",
        ):
            path.unlink()
        self.assertIn("no checkpoints", self.message(checkpoint.resume_point, self.folder))

    def test_finished_epochs(self):
        """As the file says; the scaffold's say so in their names alone."""
        self.assertEqual(checkpoint.finished_epochs({"epoch": 3}, Path("a.pth")), 3)
        self.assertEqual(checkpoint.finished_epochs({}, self.epoch_file(12)), 12)
        text = self.message(checkpoint.finished_epochs, {}, Path("mine.pth"))
        self.assertIn("mine.pth does not say its epoch", text)


class StartingFrom(TemporaryFolder):
    """Weights to start from, in any of the forms that they are kept in."""

    def test_forms(self):
        """A checkpoint, a state dict, one under `state_dict`; of a run's folder the best epoch."""
        weights = PLAIN["model_state"]
        file = self.folder / "weights.pth"
        for content in (PLAIN, {"model_state": weights}, weights,
                        {"state_dict": weights, "epoch": 90, "arch": "resnet18"}):  # fmt: skip
            torch.save(content, file)
            state = checkpoint.load_any(file)
            self.assertTrue(same(state["model_state"], weights))
            self.assertEqual("configs" in state, "configs" in content)
        self.save_epochs(1, 2, 3, best_epoch=2)
        with mock.patch("lab.checkpoint.say") as said:
            self.assertEqual(checkpoint.load_any(self.folder)["epoch"], 2)
            said.assert_called_once_with(f"Taking the best epoch of {self.folder}, 2")
            self.save_epochs(10, best_epoch=2)
            self.assertEqual(checkpoint.load_any(self.folder)["epoch"], 2)

    def test_what_other_programs_save(self):
        """The one state dict in a file, wherever it is, without what wrappers put before names."""
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        optimizer = torch.optim.Adam(network.parameters())
        network(torch.randn(4, 2)).sum().backward()
        optimizer.step()
        weights, adam = dict(network.state_dict()), optimizer.state_dict()
        parallel = dict(nn.DataParallel(network).state_dict())
        average = dict(torch.optim.swa_utils.AveragedModel(network).state_dict())
        file = self.folder / "weights.pth"
        lightning = {f"model.{key}": value for key, value in weights.items()}
        compiled = {f"_orig_mod.module.{key}": value for key, value in weights.items()}
        for content, key, prefix in (
            ({"model_state_dict": weights, "optimizer_state_dict": adam}, "model_state_dict", ""),
            ({"model": weights, "model_ema": average, "optimizer": adam, "args": {}}, "model", ""),
            ({"epoch": 3, "net": parallel, "acc": 0.9}, "net", "module."),
            ({"whatever": weights, "loss": 0.5}, "whatever", ""),
            ({"state": {"network_g": weights}, "optimizer": adam}, "state.network_g", ""),
            ({"state_dict": lightning, "callbacks": {}}, "state_dict", "model."),
            (parallel, "", "module."),
            (average, "", "module."),
            (compiled, "", "module."),
            ({"model_state": parallel, "configs": {}}, "", "module."),  # the scaffold's
        ):
            with self.subTest(key=key, prefix=prefix), mock.patch("lab.checkpoint.say") as say:
                torch.save(content, file)
                self.assertTrue(same(checkpoint.load_any(file)["model_state"], weights))
                said = [call.args[0] for call in say.call_args_list]
                self.assertEqual(f"Taking {key} of {file}" in said, bool(key))
                without = f"Taking the weights of {file} without {prefix} before their names"
                self.assertEqual(without in said, bool(prefix))
        with mock.patch("lab.checkpoint.say"):
            self.assertTrue(same(checkpoint.load(file)["model_state"], weights))

    def test_several_state_dicts(self):
        """Which one is meant nobody can know; they are named."""
        file, weights = self.folder / "weights.pth", PLAIN["model_state"]
        for content, names in (
            ({"generator": weights, "critic": weights}, "generator, critic"),
            ({"model": weights, "state_dict": weights}, "model, state_dict"),
        ):
            torch.save(content, file)
            text = self.message(checkpoint.load_any, file)
            self.assertIn(f"{file} holds several state dicts, {names}: save the one", text)

    def test_refusals(self):
        """No file, no weights in it, or parts that are no parts: one line that names the file."""
        file = self.folder / "weights.pth"
        self.assertEqual(self.message(checkpoint.load_any, file), f"no file of weights {file}")
        for content, words in (
            ([1], "holds no dictionary"),
            ({"state_dict": [1]}, "is no state dict"),
            ({"epoch": 3}, "is no state dict"),
            ({"model_state": [torch.zeros(1)], "configs": {}}, "is no state dict"),
            (PLAIN | {"configs": [1]}, "its configs is a list"),
        ):
            torch.save(content, file)
            text = self.message(checkpoint.load_any, file)
            self.assertIn(words, text)
            self.assertTrue(text.startswith(str(file)))
        self.assertIn("no checkpoints in", self.message(checkpoint.load_any, self.folder))


class Rotating(TemporaryFolder):
    def test_keeps_the_newest_and_the_best(self):
        """Exactly the newest `keep`, and the best besides if it is older; other files stay."""
        every = (1, 2, 3, 8, 9, 10, 11)
        (self.folder / "metrics.csv").touch()
        for keep in range(1, 9):
            for best in (None, 1, 3, 11):
                with self.subTest(keep=keep, best=best):
                    for epoch in every:
                        self.epoch_file(epoch).touch()
                    checkpoint.rotate(self.folder, keep, {best})
                    left = set(every[-keep:]) | ({best} - {None})
                    self.assertEqual(set(checkpoint.epochs(self.folder)), left)
        self.assertIn("metrics.csv", self.names())

    def test_over_a_run(self):
        """Called after each epoch, it leaves the former best to be removed once there is a new."""
        bests = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 6, 7: 6}
        left = []
        for epoch, best in bests.items():
            self.epoch_file(epoch).touch()
            checkpoint.rotate(self.folder, 2, {best})
            left.append(list(checkpoint.epochs(self.folder)))
        self.assertEqual(left, [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [5, 6], [6, 7]])


class ScaffoldBlock(nn.Module):
    """The course scaffold's ConvBlock, written from the contract alone."""

    def __init__(self, c_in, c_out, kernel, stride, padding, use_batch_norm, use_residual=False):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding)
        self.bn = nn.BatchNorm2d(c_out) if use_batch_norm else nn.Identity()
        self.relu = nn.ReLU()
        self.use_residual = use_residual

    def forward(self, x):
        out = self.relu(self.bn(self.conv(x)))
        return x + out if self.use_residual else out


class ScaffoldClassifier(nn.Module):
    """The scaffold's Classifier, likewise."""

    def __init__(self, in_channels, num_classes, use_batch_norm, dropout_prob):
        super().__init__()
        bn = use_batch_norm
        self.stn = nn.Identity()
        self.conv_net = nn.Sequential(
            ScaffoldBlock(in_channels, 32, 5, 1, 2, bn),
            ScaffoldBlock(32, 64, 5, 2, 2, bn),
            nn.MaxPool2d(2, 2),
            ScaffoldBlock(64, 64, 3, 1, 1, bn, use_residual=True),
            ScaffoldBlock(64, 128, 3, 1, 1, bn),
            nn.MaxPool2d(2, 2),
            ScaffoldBlock(128, 128, 3, 1, 1, bn, use_residual=True),
            nn.Dropout(dropout_prob),
        )
        self.fc_net = nn.Sequential(
            nn.Linear(128 * 4 * 4, 256),
            nn.ReLU(),
            nn.BatchNorm1d(256) if bn else nn.Identity(),
            nn.Dropout(dropout_prob),
            nn.Linear(256, num_classes),
        )

    def forward(self, x):
        return self.fc_net(self.conv_net(self.stn(x)).view(len(x), -1))


class ScaffoldCheckpoints(TemporaryFolder):
    def test_how_pictures_come_in_where_none_says(self):
        """As in the data set that a network was made for; else as the checkpoint says."""
        self.assertEqual(preprocess_of_run({"configs": {}}), Preprocess((32, 32)))
        digits = preprocess_of_run({"network": "mnist_cnn"})
        self.assertEqual(digits, Preprocess((28, 28), (0.1307,), (0.3081,)))
        own = Preprocess((48, 40), resize=56)
        known = {"network": "resnet18", "preprocess": asdict(own)}
        self.assertEqual(preprocess_of_run(known), own)

    def test_a_scaffold_checkpoint_computes_the_same_here(self):
        """Its three keys alone suffice, and the other way round our weights fit its network."""
        torch.manual_seed(0)
        x = torch.randn(4, 3, 32, 32)
        for bn, dropout in ((False, 0), (True, 0.5)):
            with self.subTest(bn=bn, dropout=dropout):
                theirs = ScaffoldClassifier(3, 11, bn, dropout)
                theirs.train()(x)  # moves the running statistics
                configs = dict(
                    in_channels=3, num_classes=11, use_batch_norm=bn, use_stn=False,
                    dropout_prob=dropout,
                )  # fmt: skip
                state = {
                    "model_state": theirs.state_dict(),
                    "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
                    "configs": configs,
                }
                torch.save(state, self.epoch_file(1))

                loaded = checkpoint.load(self.epoch_file(1))
                ours = network_of(loaded)
                expected = theirs.eval()(x)
                assert_close(ours.eval()(x), expected)

                ours = build(NETWORKS, "classifier", configs)
                theirs.load_state_dict(ours.state_dict())
                assert_close(theirs.eval()(x), ours.eval()(x))
