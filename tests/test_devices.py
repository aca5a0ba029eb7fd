"""Every task on a device that is not there; and what a system has that is not POSIX.

Forward pass, loss, augmentation, optimizer, average and meter of every task, on data and with flags
as train.py has them: no operation mixes devices, none asks the device for float64, which Apple's
does not know, and within a step nothing waits for it. What needs a gradient, `cuda` has.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import squeezenet1_1

import datasets
from lab import engine, runtime
from lab.augmentation import augment_batch, within_border
from lab.console import LabError, UsageError
from lab.engine import Tally
from lab.flags import plain_name
from lab.images import Preprocess
from lab.learner import Learner, compiling
from lab.objective import loss_and_figures
from lab.run import OWN
from lab.runtime import Runtime, to_device
from lab.settings import OPTIMIZERS, TrainSettings
from speed import cases
from tasks.classification.objective import ClassificationObjective
from tasks.video import data
from tests.far import Far, FarTensor, device_there
from tests.support import PROJECT
from tests.test_anatomy import modules
from world import captions, clips, signs
from world.street import streets_of

CPU, FAR = Runtime(torch.device("cpu")), Runtime(torch.device(Far.name))
# Boxes are told apart by masks, whose size the CPU has to know.
WAIT = ("detection",)
WINDOWS = ("detection", "segmentation")  # cut out of pictures
INPUTS = ("images", "clips", "pixels", "latents")  # names of them, in data sets
DRAWN = {
    "signs": partial(signs.draw_dataset, splits={"train": 1, "val": 1, "test": 1}),
    "streets": partial(streets_of((184, 320)), splits={"train": 2, "val": 1}),
    "clips/motion_16": partial(
        clips.clips_of("motion"), splits={"train": 10, "val": 10, "test": 10}
    ),
    "captions": partial(captions.draw_captions, splits={"train": 1, "val": 1, "test": 1}),
}  # fmt: skip


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


def cases_of(root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return of every task networks to try, with their flags of train.py."""
    streets, paintings = root / "streets", root / "streets" / "train" / "JPEGImages"
    return {
        ("classification", "signs"): {"root": root / "signs", "bn": True, "stn": True},
        ("classification", "digits"): {"root": None, "dataset": "digits"},
        ("segmentation", "streets"): {"root": streets, "network": "res_unet", "coarse": 0.0},
        ("detection", "center_net"): {"root": streets, "network": "center_net"},
        ("detection", "tiny_ssd"): {"root": streets, "network": "tiny_ssd"},
        ("video", "cnn_lstm"): {"root": root / "clips", "network": "cnn_lstm"},
        ("video", "single_frame"): {"root": root / "clips", "network": "single_frame"},
        ("video", "non_local"): {"root": root / "clips", "network": "non_local"},
        ("diffusion", "autoencoder"): {"root": root / "captions", "stage": "autoencoder"},
        ("style", "painting"): {
            "root": paintings, "weights": root / "squeezenet.pth",
            "style": str(min(paintings.iterdir())), "size": 64, "style_size": 64,
        },
    }  # fmt: skip


class FarTest(unittest.TestCase):
    """The stand-in does what the device does."""

    def test_it(self):
        with torch.no_grad(), device_there((torch.float64,)) as device:
            near = torch.arange(3.0)
            far = near.pin_memory().to(Far.name, non_blocking=True)
            self.assertEqual((far.device.type, dict(device.waits)), ("cuda", {}))
            far[1:].mul_(2)
            other = torch.ones(3, device=Far.name) * torch.tensor(2.0) + far
            self.assertIsInstance(other, FarTensor)
            self.assertEqual(dict(device.waits), {})
            with self.assertRaisesRegex(AssertionError, "mixes devices"):
                far + near
            with self.assertRaisesRegex(AssertionError, "knows no torch.float64"):
                far.double()
            self.assertEqual(other.cpu().tolist(), [2.0, 4.0, 6.0])
            self.assertEqual(device.waits.total(), 1)
            for waiting in (
                lambda: far.sum().item(), lambda: far[far > 1], lambda: bool(far.any()),
                lambda: near.to(Far.name), lambda: far.nonzero(), lambda: near.copy_(far),
            ):  # fmt: skip
                before = device.waits.total()
                waiting()
                self.assertEqual(device.waits.total(), before + 1)


class LearnerTest(unittest.TestCase):
    """A step but for its gradients, which are all ones here."""

    def test_nothing_is_waited_for(self):
        """By no optimizer that has a kernel of its own, in no precision, clipped and averaged."""
        for name in set(OPTIMIZERS) - {"rmsprop", "adadelta", "adagrad"}:
            for dtype in (None, torch.bfloat16, torch.float16):
                if (name, dtype) == ("muon", torch.float16):
                    continue  # the scaler asks for it whether a step is one
                # torch's scaler takes float64 where a device knows it.
                refuses = () if dtype == torch.float16 else (torch.float64,)
                settings = TrainSettings(optim_type=name, ema=0.9, clip_norm=1.0, lr=0.1)
                with self.subTest(name, dtype=dtype), torch.no_grad():
                    self.step(settings, replace(FAR, autocast_dtype=dtype), refuses)

    def step(self, settings: TrainSettings, runtime: Runtime, refuses: tuple) -> None:
        body = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
        with device_there(refuses) as device:
            objective = ClassificationObjective()
            learner = Learner(objective, nn.Sequential(*body), settings, runtime).begin(10)
            learner.train()
            before = [weight.cpu() for weight in learner.network.parameters()]

            def backward(loss: torch.Tensor) -> None:
                self.assertEqual(loss.device.type, "cuda")
                for weight in learner.network.parameters():
                    weight.grad = torch.ones_like(weight)

            batch = torch.randn(2, 3, 4, 4), torch.tensor([0, 2])
            with mock.patch.object(torch.Tensor, "backward", backward):
                learner.step(*to_device(batch, runtime))
                device.waits.clear()
                learner.step(*to_device(batch, runtime))
            self.assertEqual(dict(device.waits), {})
            for weight, old in zip(learner.network.parameters(), before, strict=True):
                self.assertFalse(torch.equal(weight.cpu(), old))
            self.assertEqual(learner.state()["averaged"], 2)


class GroupTest(unittest.TestCase):
    def test_nothing_is_waited_for(self):
        """Where each of several processes says how many inputs it has of a batch."""
        waits = []

        def step(inputs: torch.Tensor, targets: None, share: torch.Tensor) -> tuple:
            self.assertEqual((share.device.type, float(share.value)), ("cuda", 2.0))
            waits.append(dict(device.waits))
            return inputs.sum(), {}

        class Batches(list):
            batch_sampler = mock.Mock()
            batch_sampler.batches_left.return_value = 3

        learner = mock.Mock(runtime=replace(FAR, world_size=2), step=step)
        # The other one has no inputs.
        shares = mock.patch("torch.distributed.all_reduce")
        totals = mock.patch.object(Runtime, "totals", lambda self, *numbers: list(numbers))
        with torch.no_grad(), device_there() as device, shares, totals:
            batches = Batches([(torch.ones(2, 3, device=Far.name), None)] * 3)
            engine.train_one_epoch(learner, batches, engine.EpochState())
        self.assertEqual(waits, [{}] * 3)


class AugmentationTest(unittest.TestCase):
    def test_batches_are_the_cpus(self):
        """Where all images are blurred, most of them by nothing, as where some are chosen."""
        images = torch.rand(40, 3, 9, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
        varied = augment_batch(images, torch.Generator().manual_seed(1))
        with torch.no_grad(), device_there((torch.float64,)) as device:
            there = images.to(Far.name)
            device.waits.clear()
            other = augment_batch(there, torch.Generator().manual_seed(1))
            self.assertEqual(dict(device.waits), {})
            torch.testing.assert_close(other.cpu(), varied, rtol=0, atol=1e-5)


class RoomTest(unittest.TestCase):
    def test_where_data_live(self):
        """On the device, unless they would take more than a third of what a GPU has left."""
        pixels, labels = torch.zeros(4, 8, 6, 6, 3, dtype=torch.uint8), torch.arange(4)
        images = datasets.Split(("a", "b", "c", "d"), [], labels, pixels[:, 0])
        films = data.Split(("a", "b", "c", "d"), pixels, labels, ["film"] * 4)
        for split, make in (
            (images, partial(datasets.make_loader, preprocess=Preprocess((6, 6)))),
            (films, data.make_loader),
        ):
            size = pixels.nbytes if split is films else images.images.nbytes
            for free, kind in ((3 * size, "cuda"), (3 * size - 1, "cpu")):
                room = mock.patch("torch.cuda.mem_get_info", return_value=(free, 0))
                with self.subTest(split=make, free=free), device_there(), room:
                    loader = make(split, batch_size=2, device=Far.name)
                    batch = next(iter(loader))
                    self.assertEqual([values.device.type for values in batch], [kind, kind])


class AppleTest(unittest.TestCase):
    def test_a_border_without_its_mode(self):
        """Every position, inside and far out, of a picture that is no square."""
        torch.manual_seed(0)
        images, grid = torch.rand(3, 2, 5, 9), 4 * torch.rand(3, 30, 20, 2) - 2
        expected = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        inside = within_border(grid, images)
        self.assertFalse(torch.equal(inside, grid))
        sampled = F.grid_sample(images, inside, align_corners=False)
        torch.testing.assert_close(sampled, expected, rtol=1e-5, atol=1e-6)

    def test_what_it_lacks_runs_on_the_cpu(self):
        """Every script says so before torch is imported."""
        program = "import os, sys; from lab.console import run\n"
        said = "os.environ['PYTORCH_ENABLE_MPS_FALLBACK'], 'torch' in sys.modules"
        program += f"run(lambda: print({said}))"
        known = {key: value for key, value in os.environ.items() if "MPS" not in key}
        for given, expected in (({}, "1 False"), ({"PYTORCH_ENABLE_MPS_FALLBACK": "0"}, "0 False")):
            done = subprocess.run(
                [sys.executable, "-c", program], cwd=PROJECT, env=known | given,
                capture_output=True, text=True,
            )  # fmt: skip
            self.assertEqual(done.stdout.strip(), expected, done.stderr)


class CompileTest(unittest.TestCase):
    """`--compile`, but for the kernels: making those takes a compiler, and long."""

    def steps(self, compiled: bool) -> Learner:
        """Return what three steps have made, the last of a smaller batch."""
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
        settings = TrainSettings(compile=compiled, ema=0.5, clip_norm=1.0, lr=0.1)
        learner = Learner(ClassificationObjective(), body, settings, CPU).begin(3)
        learner.train()
        for count in (4, 4, 3):
            learner.step(torch.randn(count, 3, 4, 4), torch.arange(count) % 3)
        return learner

    def test_the_same_steps(self):
        """Of the same weights, under the same names."""
        with mock.patch("torch.compile", partial(torch.compile, backend="aot_eager")):
            ours, plain = self.steps(True), self.steps(False)
        self.assertIsNot(ours.trained, ours.network)
        self.assertIs(plain.trained, plain.network)
        for kind in ("model_state", "raw_state"):
            state, expected = ours.state()[kind], plain.state()[kind]
            self.assertEqual(state.keys(), expected.keys())
            for name, value in state.items():
                torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)

    def test_what_cannot_be_compiled(self):
        """Is said in a line; what has nothing to do with it goes its way."""

        def unknown(*_: Any) -> None:
            raise NotImplementedError("no such compiler\nnor another")

        with mock.patch("torch.compile", partial(torch.compile, backend=unknown)):
            settings = TrainSettings(compile=True)
            refused = self.assertRaisesRegex(LabError, r"^--compile: .*; leave it out$")
            with refused, compiling(settings):
                self.steps(True)
        for settings in (TrainSettings(), TrainSettings(compile=True)):
            with self.assertRaises(ZeroDivisionError), compiling(settings):
                1 / 0  # noqa: B018


class ChoiceTest(unittest.TestCase):
    """Which device and which precision, where there are several, some or none."""

    def there(self, *kinds: str) -> Any:
        known = {kind: lambda kind=kind: kind in kinds for kind in ("cuda", "mps")}
        return mock.patch.dict(runtime.AVAILABLE, known)

    def test_the_best_there_is(self):
        for kinds, alone, together in (
            ((), "cpu", "cpu"), (("mps",), "mps", "cpu"), (("cuda",), "cuda", "cuda"),
            (("cuda", "mps"), "cuda", "cuda"),
        ):  # fmt: skip
            with self.there(*kinds):
                best = runtime.best_device(), runtime.best_device(2)
                self.assertEqual(best, (alone, together))

    def test_precision(self):
        """A T4 emulates bf16, an A100 has it; of mps nothing is known."""
        for kind, bf16, name in (
            ("cuda", True, "bf16"), ("cuda", False, "fp16"), ("mps", False, "fp32"),
        ):  # fmt: skip
            with mock.patch("torch.cuda.is_bf16_supported", return_value=bf16):
                self.assertEqual(runtime.best_precision(kind), name)
        self.assertEqual(
            runtime.best_precision("cpu"), "bf16" if runtime.computes_bf16("cpu") else "fp32"
        )
        for name, dtype in runtime.PRECISIONS.items():
            self.assertEqual(Runtime(torch.device("cpu"), dtype).precision, name)

    def test_where_it_is_not_there(self):
        for kind, name, best, *others in (
            ("cuda", "CUDA device", "cpu"), ("mps", "Apple GPU", "cpu"),
            ("cuda", "CUDA device", "mps", "mps"), ("mps", "Apple GPU", "cuda", "cuda"),
        ):  # fmt: skip
            words = f"--device {kind}: this machine has no {name}; leave the flag out for {best}"
            with self.there(*others), self.assertRaisesRegex(LabError, words):
                runtime.start(kind)
        ranks = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
        with (
            self.there("mps"), mock.patch.dict("os.environ", ranks),
            self.assertRaisesRegex(UsageError, "--device mps serves one process"),
        ):  # fmt: skip
            runtime.start("mps")
        with self.there("mps"):
            started = runtime.start(None, "fp16")
        self.assertEqual((started.device.type, started.precision), ("mps", "fp16"))


class JoinTest(unittest.TestCase):
    """How processes of torchrun meet: each with its device, and with time for data to be drawn."""

    def test_what_a_group_is_told(self):
        known = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
                 "MASTER_PORT": "1"}  # fmt: skip
        cuda = mock.patch.multiple(
            "torch.cuda", device_count=lambda: 2, set_device=mock.DEFAULT,
            is_bf16_supported=mock.DEFAULT,
        )  # fmt: skip
        there = mock.patch.dict(runtime.AVAILABLE, {"cuda": lambda: True})
        for kind, backend, device in (
            ("cuda", "nccl", torch.device("cuda", 1)), ("cpu", "gloo", None),
        ):  # fmt: skip
            with (
                cuda, there, mock.patch.dict("os.environ", known),
                mock.patch("torch.distributed.init_process_group") as meet,
            ):  # fmt: skip
                self.assertEqual(runtime.start(kind).world_size, 2)
            meet.assert_called_once_with(backend, timeout=runtime.PATIENCE, device_id=device)
        self.assertGreater(runtime.PATIENCE, timedelta(minutes=10))  # nccl's own


# Of Python's documentation, "Availability: Unix": what is asked for on the way of a training.
UNIX_MODULES = {
    "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty",
}  # fmt: skip
UNIX = {
    "os": {
        "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "SCHED_IDLE",
        "WIFEXITED", "WIFSIGNALED", "WNOHANG", "WTERMSIG", "chflags", "chown", "chroot", "confstr",
        "ctermid", "eventfd", "fchdir", "fchown", "fdatasync", "fork", "forkpty", "fpathconf",
        "fstatvfs", "getegid", "geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getpgrp",
        "getpriority", "getresuid", "getsid", "getuid", "getxattr", "killpg", "lchmod", "lchown",
        "listxattr", "lockf", "makedev", "memfd_create", "mkfifo", "mknod", "nice", "openpty",
        "pathconf", "pidfd_open", "pipe2", "posix_fadvise", "posix_fallocate", "posix_spawn",
        "posix_spawnp", "pread", "pwrite", "readv", "register_at_fork", "removexattr",
        "sched_getaffinity", "sched_setaffinity", "sched_yield", "sendfile", "setegid", "seteuid",
        "setgid", "setgroups", "setns", "setpgid", "setpriority", "setsid", "setuid", "setxattr",
        "splice", "statvfs", "sync", "sysconf", "tcgetpgrp", "tcsetpgrp", "ttyname", "uname",
        "unshare", "wait", "wait3", "wait4", "waitid", "writev",
    },
    "signal": {
        "ITIMER_REAL", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGIO", "SIGKILL",
        "SIGPIPE", "SIGPROF", "SIGQUIT", "SIGSTOP", "SIGSYS", "SIGTSTP", "SIGTTIN", "SIGTTOU",
        "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGWINCH", "SIGXCPU", "SIGXFSZ", "alarm",
        "getitimer", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "siginterrupt",
        "sigpending", "sigtimedwait", "sigwait", "sigwaitinfo",
    },
    "time": {"clock_gettime", "clock_settime", "pthread_getcpuclockid", "tzset"},
}  # fmt: skip


def unportable(tree: ast.AST) -> Iterator[str]:
    """Yield what Windows lacks, or does in another way, of a module, with its line.

    Processes are spawned, or forked where that is possible `else "spawn"`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = getattr(node, "module", None)
            names = {alias.name for alias in node.names}
            lacking = (
                ({origin} | names) & UNIX_MODULES if origin not in UNIX else names & UNIX[origin]
            )
            yield from (f"{node.lineno}: {name}" for name in sorted(lacking))
        if isinstance(node, ast.Attribute) and node.attr in UNIX.get(ast.unparse(node.value), ()):
            yield f"{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call):
            called, words = ast.unparse(node.func), [ast.unparse(one) for one in node.args]
            if called.endswith("get_context") and not "".join(words[:1]).endswith("'spawn'"):
                yield f"{node.lineno}: {called}, but by spawn"
            if called != "av.open" and in_its_own_code(called.rpartition(".")[2], node, words):
                yield f"{node.lineno}: {called} without an encoding"


def in_its_own_code(method: str, node: ast.Call, words: list[str]) -> bool:
    """True where a file of text is in the code of whatever system this is."""
    given = {keyword.arg for keyword in node.keywords}
    if "encoding" in given:
        return False
    if method in ("read_text", "write_text"):
        return len(words) < (1 if method == "read_text" else 2)
    mode = next((word for word in words if re.fullmatch("'[rwax]t?[+]?'", word)), "")
    return method == "open" and bool(mode or given & {"newline", "errors"})


class WindowsTest(unittest.TestCase):
    def test_what_it_lacks(self):
        """No module asks for it, but the one that measures Linux's own memory, and the sandbox.

        Where there is no fork, that one goes another way.
        """
        found = {
            f"{module.path}:{what}" for module in modules().values()
            for what in unportable(module.tree)
        }  # fmt: skip
        spared = ("speed/attention.py", "course/sandbox.py")
        found = {what for what in found if not what.startswith(spared)}
        self.assertEqual(found, set())

    def test_it_would_be_seen(self):
        text = """
import fcntl, os
from signal import SIGKILL
from os import fork as cut, path
os.killpg(1, SIGKILL); os.kill(1, 2); os.path.join("a")
multiprocessing.get_context("fork"); multiprocessing.get_context("spawn")
path.read_text(); path.read_text("utf-8"); path.write_text("a"); path.write_text("a", "utf-8")
open("a", "w"); path.open("rb"); path.open(newline=""); Image.open(path)
"""
        lines = [int(what.partition(":")[0]) for what in unportable(ast.parse(text))]
        self.assertEqual(sorted(lines), [2, 3, 4, 5, 6, 7, 7, 8, 8])

    def test_names_of_files(self):
        """What a run writes has a name that every system takes."""
        names = [plain_name(text) for text in ('a: "sign"?', "nul\\x|y", "<*>", "a/b:c")]
        for name in [*names, *OWN]:
            self.assertNotRegex(name.replace("*", ""), r'[<>:"/\\|?*]')


class TaskTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        with mock.patch.dict(cases.DRAWN, DRAWN):
            for name in DRAWN:
                cases.draw(name, cls.root)
        torch.manual_seed(0)
        torch.save(squeezenet1_1().state_dict(), cls.root / "squeezenet.pth")

    def test_steps(self):
        for (task, name), own in cases_of(self.root).items():
            device_known = device_there((torch.float64,))
            with self.subTest(task, case=name), torch.no_grad(), device_known as device:
                job = self.prepare(task, **own)
                self.step(job, device, task)
                if (meter := job.objective.meter()) is not None:
                    figures = engine.evaluate(job.network, meter, job.loaders["val"], FAR)
                    self.assertIn(job.objective.ranks_by, figures)

    def prepare(self, task: str, root: Path, **own: Any):
        """Return what train.py trains, on the device."""
        augment = {"augment": True} if task != "style" else {}
        job = cases.prepare(task, root, FAR, augment | {"batch_size": 4}, **own).job
        job.network.to(Far.name)
        dataset = job.loaders["train"].dataset
        if task in WINDOWS:
            self.assertIsInstance(dataset.pixels(0), FarTensor)
        else:  # of the others, all inputs live on the device
            (values,) = (own for own in map(vars(dataset).get, INPUTS) if own is not None)
            self.assertIsInstance(values, FarTensor)
        return job

    def step(self, job: Any, device: Far, task: str) -> None:
        job.network.train()
        batches, tally = iter(job.loaders["train"]), Tally(FAR)
        device.waits.clear()
        batch = next(batches)
        inputs, targets = to_device(batch, FAR)
        loss, figures = loss_and_figures(job.objective.loss(job.network, inputs, targets))
        tally.add(1, len(inputs), loss, figures)
        if task not in WAIT:
            self.assertEqual(dict(device.waits), {})
        self.assertIsInstance(loss, FarTensor)
        self.assertTrue(loss.value.isfinite())
        self.assertEqual(tally.totals()[1], len(inputs))


if __name__ == "__main__":
    unittest.main()
