"""On a CUDA GPU: every task computes what the CPU does, at its own pace, and all scripts run.

    python unit_test.py cuda        # three minutes at the most; skipped without a GPU

What each task trains is what train.py prepares by its flags (`test_devices.cases_of`).
"""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torchvision.models import squeezenet1_1

import tasks
from lab import checkpoint
from lab.engine import EpochState, Tally, train_one_epoch
from lab.graphs import WATCHED
from lab.objective import loss_and_figures
from lab.runtime import PRECISIONS, Runtime, best_precision, join, place, start, to_device
from speed import cases
from tests.support import PROJECT, ScriptCase, environment, make_images, script_here, stopped_at
from tests.test_devices import DRAWN, WAIT, cases_of

KIND = "cuda"
CPU = Runtime(torch.device("cpu"))
# Of the loss, and of the gradients' norm: by how much devices may differ in fp32, or two runs on
# one that adds in any order. Batch norm of so few images enlarges what is rounded; a detector looks
# again at the likeliest boxes, of which rounding decides some.
NEAR, NEAR_DETECTED = (0.005, 0.1), (0.05, 0.2)
DRAWS = ("single_frame",)  # on the CPU, which frame
HALF = {"bf16": 0.05, "fp16": 0.02}  # of the loss, by which a precision may differ from fp32
STEPS = 10
# A rate at which few steps go the same way but for rounding: at the tasks' own ones, a millionth in
# gradients becomes 12 % of a loss, of a detector 21 %.
SLOW = 1e-4
needs_gpu = unittest.skipUnless(torch.cuda.is_available(), "no CUDA device")


def setUpModule():
    """Have matrix products repeat their sums: torch reads it once, at the first of them."""
    known = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    unittest.enterModuleContext(mock.patch.dict(os.environ, known))


def on_device(precision: str = "fp32") -> Runtime:
    return Runtime(torch.device(KIND), PRECISIONS[precision])


@contextlib.contextmanager
def same_draws() -> Iterator[None]:
    """Draw on the CPU, whatever the device: noise is then the same on all. Nothing drops out."""

    def elsewhere(make: Any) -> Any:
        def drawn(*arguments: Any, device: Any = None, **options: Any) -> Tensor:
            return make(*arguments, **options).to(device or "cpu")

        return drawn

    def like(values: Tensor, **options: Any) -> Tensor:
        return randn(values.shape, dtype=values.dtype).to(values.device)

    randn = torch.randn
    with (
        mock.patch("torch.rand", elsewhere(torch.rand)),
        mock.patch("torch.randint", elsewhere(torch.randint)),
        mock.patch("torch.randn_like", like),
        mock.patch("diffusers.models.autoencoders.vae.randn_tensor", elsewhere(torch.randn)),
        mock.patch("torch.nn.functional.dropout", lambda values, *_: values),
    ):
        yield


@cache
def drawn() -> Path:
    """Return a folder with data of every task, drawn small; it is gone in the end."""
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    root = Path(folder.name)
    with mock.patch.dict(cases.DRAWN, DRAWN):
        for name in DRAWN:
            cases.draw(name, root)
    torch.manual_seed(0)
    torch.save(squeezenet1_1().state_dict(), root / "squeezenet.pth")
    return root


class FolderCase(ScriptCase):
    """With data of every task."""

    @classmethod
    def setUpClass(cls):
        cls.root = drawn()
        cls.enterClassContext(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))

    def prepare(self, task: str, own: dict[str, Any], runtime: Runtime, **settings: Any):
        """Return a case on a device, always of the same weights."""
        own, known = dict(own), {"batch_size": 4} | settings
        root = own.pop("root")
        torch.manual_seed(0)
        return cases.prepare(task, root, runtime, known, **own)


@needs_gpu
class StepTest(FolderCase):
    def test_batches_are_the_cpus(self):
        """Made and varied on the device, from the same draws; pixels to rounding, on average.

        What is resized there, as floats, is within a level of 255 of what bytes become.
        """
        for (task, name), own in cases_of(self.root).items():
            with self.subTest(task, case=name):
                vary = {"augment": True} if task != "style" else {}
                batches = []
                for runtime in (CPU, on_device()):
                    job = self.prepare(task, own, runtime, **vary).job
                    inputs, targets = next(iter(job.loaders["train"]))
                    batches.append((inputs.float().cpu(), tensors_of(targets)))
                (inputs, targets), (others, other_targets) = batches
                self.assertLess((inputs - others).abs().mean(), 0.5 / 127.5)
                for one, other in zip(targets, other_targets, strict=True):
                    torch.testing.assert_close(one, other)

    def test_steps_are_the_cpus(self):
        """Loss and gradients of every task, in fp32; the loss of the other precisions."""
        for (task, name), own in cases_of(self.root).items():
            near, near_gradient = NEAR_DETECTED if task == "detection" else NEAR
            with self.subTest(task, case=name), same_draws():
                batch = next(iter(self.prepare(task, own, CPU).job.loaders["train"]))
                loss, gradient = self.step(task, own, CPU, batch)
                other, other_gradient = self.step(task, own, on_device(), batch)
                self.assertAlmostEqual(other / loss, 1, delta=near)
                apart = (other_gradient - gradient).norm() / gradient.norm()
                self.assertLess(apart, near_gradient)
                for precision, most in HALF.items():
                    with self.subTest(precision):
                        half, _ = self.step(task, own, on_device(precision), batch)
                        self.assertAlmostEqual(half / loss, 1, delta=most)

    def step(
        self, task: str, own: dict[str, Any], runtime: Runtime, batch: Any
    ) -> tuple[float, Tensor]:
        """Return a batch's loss, and the gradient of all weights, on the CPU."""
        job = self.prepare(task, own, runtime).job
        network = place(job.network, runtime).train()
        inputs, targets = to_device(batch, runtime)
        torch.manual_seed(1)
        with runtime.autocast():
            loss, _ = loss_and_figures(job.objective.loss(network, inputs, targets))
        loss.backward()
        gradients = [p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None]
        return loss.item(), torch.cat(gradients)


def tensors_of(targets: Any) -> list[Tensor]:
    """Return the tensors of a batch's targets, on the CPU."""
    if isinstance(targets, Tensor):
        return [targets.cpu()]
    parts = targets.values() if isinstance(targets, dict) else targets or ()
    return [tensor for part in parts for tensor in tensors_of(part)]


@needs_gpu
class PaceTest(FolderCase):
    def learn(self, task: str, own: dict[str, Any], precision: str) -> Iterator[None]:
        """Learn for ever, as an epoch does, and pause after every step."""
        runtime = on_device(precision)
        case = self.prepare(task, own, runtime)
        learner, tally, step = case.learner(runtime), Tally(runtime), 0
        learner.train()
        while True:
            for batch in case.job.loaders["train"]:
                inputs, targets = to_device(batch, runtime)
                loss, figures = learner.step(inputs, targets)
                tally.add(step := step + 1, len(inputs), loss, figures)
                yield

    def test_nothing_waits_within_a_step(self):
        """From the loader to the figures; but where boxes are told apart by masks."""
        for (task, name), own in cases_of(self.root).items():
            # A scaler asks whether Muon's step is one.
            half = ("fp16",) * (tasks.load(task).defaults.get("optim_type") != "muon")
            for precision in (*half, best_precision(KIND)) if task not in WAIT else ():
                with self.subTest(task, case=name, precision=precision):
                    steps = self.learn(task, own, precision)
                    for _ in range(WATCHED + 2):  # memory is taken, the step recorded
                        next(steps)
                    torch.cuda.set_sync_debug_mode("error")
                    try:
                        for _ in range(STEPS):
                            next(steps)
                    finally:
                        torch.cuda.set_sync_debug_mode("default")

    def test_a_graph_does_what_its_kernels_do(self):
        """Recorded, steps go where they go one kernel at a time; none is that needs the CPU."""
        kernels = {"enabled": True, "deterministic": True, "allow_tf32": False}
        self.enterContext(torch.backends.cudnn.flags(**kernels))
        for (task, name), own in cases_of(self.root).items():
            near, _ = NEAR_DETECTED if task == "detection" else NEAR
            with self.subTest(task, case=name):
                losses = {}
                for graph in (False, True):
                    runtime = on_device()
                    case = self.prepare(task, own, runtime, graph=graph, lr=SLOW)
                    learner, losses[graph] = case.learner(runtime), []
                    learner.train()
                    batch = to_device(next(iter(case.job.loaders["train"])), runtime)
                    torch.manual_seed(0)
                    for _ in range(WATCHED + 4):
                        losses[graph].append(learner.step(*batch)[0].item())
                self.assertEqual(learner.passes.graph is None, task in WAIT or name in DRAWS)
                for one, other in zip(losses[False], losses[True], strict=True):
                    self.assertAlmostEqual(other / one, 1, delta=near)
                self.assertNotEqual(losses[True][-2], losses[True][-1])

    def test_memory_does_not_grow(self):
        for (task, name), own in cases_of(self.root).items():
            with self.subTest(task, case=name):
                steps = self.learn(task, own, best_precision(KIND))
                taken = []
                for _ in range(3):
                    for _ in range(STEPS):
                        next(steps)
                    torch.cuda.synchronize()
                    taken.append(torch.cuda.memory_allocated())
                # A step's figures wait to be added up: half a KiB each.
                self.assertLess(taken[2] - taken[1], 2**20)


@needs_gpu
class RunTest(ScriptCase):
    """train.py on the device."""

    @classmethod
    def setUpClass(cls):
        cls.root = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.data = make_images(cls.root / "data", {"train": 40, "val": 5, "test": 5})

    def train(self, name: str, *flags: object) -> subprocess.CompletedProcess:
        given = ("--data_root", self.data, "--ckpt_path", self.root / name, "--device", KIND)
        return script_here("train.py", *given, "--no_show", *flags)

    def test_exact_resume(self):
        """Bit by bit, from the middle of an epoch, where kernels repeat their sums."""
        flags = ("--bn", "--dropout", 0.3, "--augment", "--batch_size", 16, "--epoch", 2,
                 "--optim_type", "adamw", "--ema", 0.9)  # fmt: skip
        torch.use_deterministic_algorithms(True)
        self.addCleanup(torch.use_deterministic_algorithms, False)
        for precision in PRECISIONS:
            with self.subTest(precision):
                own = (*flags, "--precision", precision)
                straight = self.train(f"{precision}_straight", *own)
                self.assertEqual(straight.returncode, 0, straight.stderr)
                self.assertIn(f"({KIND}, {precision})", straight.stdout)
                with stopped_at(11):
                    broken = self.train(f"{precision}_broken", *own)
                self.assertEqual(broken.returncode, 130, broken.stderr)
                folder = self.root / f"{precision}_broken"
                resumed = script_here(
                    "train.py", "--resume", folder, "--device", KIND, "--no_show"
                )  # fmt: skip
                self.assertEqual(resumed.returncode, 0, resumed.stderr)
                ended = [
                    self.root / f"{precision}_{name}" / "ckpt_epoch_2.pth"
                    for name in ("straight", "broken")
                ]
                self.assert_same_weights(*ended)
                if precision == "fp16":
                    one, other = (checkpoint.load(path)["scaler"] for path in ended)
                    self.assertEqual(one, other)

    def test_it_learns(self):
        """In every precision, with the spatial transformer, to the same end."""
        for precision in PRECISIONS:
            done = self.train(f"learns_{precision}", "--bn", "--stn", "--precision", precision,
                              "--epoch", 6)  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            share = re.search(r"Test accuracy of the best epoch, \d+: ([\d.]+)%", done.stdout)
            self.assertGreater(float(share[1]), 85, done.stdout)

    def test_one_process_of_torchrun(self):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=1", "train.py"]
        flags = ("--data_root", self.data, "--ckpt_path", self.root / "alone", "--device", KIND)
        done = subprocess.run(
            [*command, *map(str, flags), "--epoch", "1", "--no_show"], cwd=PROJECT,
            env=environment(), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue((self.root / "alone" / "ckpt_epoch_1.pth").is_file())

    def test_a_group_of_processes(self):
        """nccl's sums, and a step of what it averages, in a group of one that says it is two."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0"}
        with mock.patch.dict(os.environ, known | {"WORLD_SIZE": "1"}):
            join("nccl" if KIND == "cuda" else "gloo", 0, 1, torch.device(KIND, 0))
        self.addCleanup(dist.destroy_process_group)
        runtime = replace(start(KIND, "fp16"), world_size=2)
        self.assertEqual(runtime.totals(0.1, 2), [0.1, 2.0])
        self.assertEqual(int(runtime.least(torch.tensor(7, device=KIND))), 7)
        case = cases.prepare("classification", self.data, runtime, {"batch_size": 8}, bn=True)
        learner, state = case.learner(runtime), EpochState()
        loader = case.job.loaders["train"]
        self.assertTrue(train_one_epoch(learner, loader, state))
        self.assertEqual(state.images, 60)  # its half of 120
        self.assertLess(state.means()["loss"], 2)


@needs_gpu
class ScriptTest(FolderCase):
    """Every script on a run of every task."""

    def test_every_task(self):
        streets = self.root / "streets"
        painting = str(min((streets / "train" / "JPEGImages").iterdir()))
        for name, task, flags in (
            ("signs", "classification", ("--bn", "--stn", "--non_local")),
            ("tiny_ssd", "detection", ("--network", "tiny_ssd")),
            ("center_net", "detection", ("--network", "center_net")),
            ("fcn", "segmentation", ("--network", "fcn_32s")),
            ("res_unet", "segmentation", ()),
            ("clips", "video", ("--network", "non_local")),
            ("lstm", "video", ("--network", "cnn_lstm")),
            ("captions", "diffusion", ("--autoencoder_epoch", 1)),
        ):
            data = {"signs": "signs", "captions": "captions", "clips": "clips", "lstm": "clips"}
            where = ("--data_root", self.root / data.get(name, "streets"))
            run = ("--ckpt_path", self.root / f"run_{name}")
            with self.subTest(name):
                self.succeeds("train.py", "--task", task, *where, *run, "--epoch", 1,
                              "--batch_size", 4, *flags)  # fmt: skip
                self.succeeds("test.py", *run, *where)
                if task != "video":
                    self.succeeds("test.py", *run, "--image", painting)
                identity = checkpoint.load(self.root / f"run_{name}" / "ckpt_epoch_1.pth")
                for view in self.views(task, name):
                    few = ("--steps", 5) if view in ("class", "invert") else ()
                    self.succeeds("visualize.py", "--type", view, *run, *where, *few, "--save_dir",
                                  self.root / "seen")  # fmt: skip
                if find_spec("onnxscript") and name == "signs":  # all others: suite `export`
                    self.succeeds("export.py", *run, on_cpu=True)
                self.assertEqual(identity["task"], task)
        painted = ("--model", self.root / "run_captions", "--steps", 2)
        self.succeeds("diffuse.py", "--prompt", "a stop sign", *painted, "--save_dir",
                      self.root / "seen")  # fmt: skip

    def views(self, task: str, name: str) -> list[str]:
        """Return the views that a network has."""
        lacking = {
            "center_net": ("anchors",), "tiny_ssd": ("regions",), "res_unet": ("upsampling",),
            "lstm": ("attention",),
        }  # fmt: skip
        return [view for view in tasks.load(task).views if view not in lacking.get(name, ())]

    def test_style(self):
        photographs = self.root / "streets" / "train" / "JPEGImages"
        painting, run = min(photographs.iterdir()), self.root / "run_style"
        flags = ("--weights", self.root / "squeezenet.pth", "--style", painting)
        self.succeeds("style.py", *flags, "--content", painting, "--size", 64, "--steps", 3,
                      "--save_dir", self.root / "seen")  # fmt: skip
        self.succeeds("style.py", "--train", *flags, "--data_root", photographs, "--size", 64,
                      "--epoch", 1, "--ckpt_path", run)  # fmt: skip
        self.succeeds("test.py", "--ckpt_path", run, "--image", painting)

    def succeeds(self, script: str, *flags: object, on_cpu: bool = False) -> None:
        device = () if on_cpu else ("--device", KIND, "--no_show")
        done = script_here(script, *flags, *device)
        said = f"{script} {flags}\n{done.stdout}{done.stderr}"
        self.assertEqual(done.returncode, 0, said)


if __name__ == "__main__":
    unittest.main()
