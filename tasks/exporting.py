"""What export.py does: networks as files that run without this project, and are checked first.

    program = Program(exported, half=False)
    program.write(path, "onnx", {"task": "detection", ...})

A network is exported with what comes before and after it: the task's room `export` has modules that
take bytes and return answers. Whatever is computed for pictures alone is done here, once.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.func import functional_call

from lab.console import LabError, say
from lab.fetching import given_images
from lab.files import attempt
from lab.images import Preprocess
from lab.run import commit
from tasks import ExportFlags
from tasks.trained import Trained, load_run

OPSET = 20
FORMATS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": ()}  # what each needs
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
# Pictures (count, height, width) that photographs are cut into: single ones and batches, of sizes
# that no stride divides, 20 in all.
CUTS = ((1, 427, 640), (1, 203, 317), (5, 120, 160), (13, 64, 64))
MOST_GIVEN = 100  # pictures of one's own that it is checked on
DIFFERENCE = 1e-3  # of the largest value: an answer that differs by more is another one
APART = 0.01  # share of answers that may be: where two are as good, rounding decides


@dataclass(frozen=True)
class Exported:
    """A network as others are given it.

    Attributes:
        name: of its file.
        network: from its inputs to a tensor, or a tuple of some.
        inputs: names, each with those of its axes that may be of any length, by their place.
        outputs: names.
        in_order: whether the place of an answer means something; else rows (N, K, ...) of all
            outputs belong together, and come as likely as they are.
        trial: from pictures, uint8 (N, H, W, 3), to inputs to try it with.
    """

    name: str
    network: nn.Module
    inputs: Mapping[str, Mapping[int, str]]
    outputs: Sequence[str]
    in_order: bool = True
    trial: Callable[[Tensor], tuple[Tensor, ...]] = lambda pictures: (pictures,)


PICTURES = {"pictures": {0: "N", 1: "H", 2: "W"}}  # uint8 (N, H, W, 3) of any number and size


def as_images(pictures: Tensor, preprocess: Preprocess | None = None) -> Tensor:
    """Return pictures, uint8 (N, H, W, 3), as network input.

    As `lab.images` makes it, but for the rounding to whole levels of what is resized.

    Args:
        preprocess: of a classifier; None for the pictures as they are, in [-1, 1].
    """
    images = pictures.permute(0, 3, 1, 2).float()
    if preprocess is None:
        return images / 127.5 - 1
    if len(preprocess.mean) == 1:
        images = (images * images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, True)
    (height, width), size = preprocess.size, preprocess.size
    if preprocess.resize is not None:
        tall, wide = images.shape[2:]
        shorter = torch.sym_min(tall, wide)
        size = preprocess.resize * tall // shorter, preprocess.resize * wide // shorter
    mode = "bicubic" if preprocess.bicubic else "bilinear"
    images = F.interpolate(images, size, mode=mode, antialias=True)
    top, left = half(size[0] - height), half(size[1] - width)
    images = images[:, :, top : top + height, left : left + width].clamp(0, 255)
    mean, std = (images.new_tensor(own).view(-1, 1, 1) for own in (preprocess.mean, preprocess.std))
    return (images / 255 - mean) / std


def half(margin: int) -> int:
    """Return half of a number as `round` does, which cannot be in a graph: x.5 to even."""
    return margin // 2 + margin % 2 * (margin // 2 % 2)


def as_pictures(images: Tensor) -> Tensor:
    """Return images, (N, 3, H, W) in [-1, 1], as pictures, uint8 (N, H, W, 3)."""
    levels = ((images.permute(0, 2, 3, 1) + 1) * 127.5).round()
    return levels.clamp(0, 255).to(torch.uint8)


class HalfWeights(nn.Module):
    """A network that keeps its weights in 16 bits and computes as it did.

    Its inputs are one argument, a tuple, to whoever exports it.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = [network]  # in a list, lest its own weights are kept as well
        self.names = {name.replace(".", "/"): name for name, _ in network.named_parameters()}
        for name, value in network.named_parameters():
            self.register_buffer(name.replace(".", "/"), value.detach().half())

    def forward(self, *inputs: Tensor) -> Any:
        weights = {own: self.get_buffer(name).float() for name, own in self.names.items()}
        return functional_call(self.network[0], weights, inputs)


# ---------------------------------------------------------------- what export.py does


def export(flags: ExportFlags) -> None:
    """Write a run's networks into its folder, in `export/`, and check them.

    Raises:
        LabError: a package is missing, a network cannot be exported, or answers differ.
    """
    missing = [name for name in FORMATS[flags.format] if find_spec(name) is None]
    if missing:
        raise LabError(
            f"--format {flags.format} needs {' and '.join(missing)}: pip install "
            f"{' '.join(missing)} (--format torch needs nothing more)"
        )
    trained = load_run(flags, "cpu", "fp32", flags.task)
    folder = trained.results / "export"
    known = {name: json.dumps(value) for name, value in metadata(trained).items()}
    pictures = list(trial_pictures(flags.image))
    with attempt(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    for exported in trained.task.exported(trained):
        target = folder / (exported.name + SUFFIXES[flags.format])
        write(exported, target, flags.format, flags.half, known, pictures)


def metadata(trained: Trained) -> dict[str, Any]:
    """Return what a file says of its network."""
    state = trained.state
    known = {name: state[name] for name in ("network", "dataset", "configs") if name in state}
    figures = next(iter(state.get("history", [])[-1:]), {})
    known |= {"task": trained.task.name, "checkpoint": trained.path.name, "commit": commit()}
    if "class_names" in state or "num_classes" in state["configs"]:
        known["classes"] = trained.classes
    return known | {"figures": {name: value for name, value in figures.items() if "val" in name}}


def trial_pictures(given: Sequence[str] | None) -> Iterator[Tensor]:
    """Yield batches of photographs, uint8 (N, H, W, 3): those given, else cuts of two."""
    if given is not None:
        for _, image in islice(given_images(given), MOST_GIVEN):
            yield torch.from_numpy(np.array(image.convert("RGB")))[None]
        return
    photographs, generator = load_sample_images().images, np.random.default_rng(0)
    for count, height, width in CUTS:
        cuts = []
        for index in range(count):
            whole = photographs[index % 2]
            top, left = (
                int(generator.integers(0, side - own + 1))
                for side, own in zip(whole.shape, (height, width), strict=False)
            )
            cuts.append(whole[top : top + height, left : left + width])
        yield torch.from_numpy(np.stack(cuts))


def write(
    exported: Exported, path: Path, kind: str, half: bool, known: Mapping[str, str],
    pictures: Sequence[Tensor],
) -> None:  # fmt: skip
    """Write a network, under its name once its answers are those of PyTorch.

    Args:
        kind: of FORMATS.
        known: what the file says of it.

    Raises:
        LabError: it cannot be exported, or answers differ.
    """
    network = HalfWeights(exported.network) if half else exported.network
    network = network.eval().requires_grad_(False)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    # Sides of 1, of the coarsest map as well, would become constants of the graph.
    example = exported.trial(torch.zeros(2, 330, 600, 3, dtype=torch.uint8))
    say(f"Exporting {path.stem} ...")
    logging.disable(logging.ERROR)  # the exporters talk about themselves
    try:
        with warnings.catch_warnings(), attempt(f"write {path}"), torch.no_grad():
            warnings.simplefilter("ignore")
            WRITERS[kind](exported, network, example, known, partial)
        difference = check(exported, READERS[kind](partial), network, pictures)
        with attempt(f"write {path}"):
            partial.replace(path)
    except torch.onnx.OnnxExporterError as error:
        why = next((line for line in str(error).splitlines() if "No ONNX function" in line), "")
        raise LabError(f"{exported.name} cannot be written as ONNX ({why[:150]})") from error
    finally:
        logging.disable(logging.NOTSET)
        partial.unlink(missing_ok=True)
    count = sum(map(len, pictures))
    say(f"Saved {path} ({path.stat().st_size / 1e6:.1f} MB): {', '.join(exported.inputs)} to "
        f"{', '.join(exported.outputs)}")  # fmt: skip
    say(f"Checked on {count} pictures: largest relative difference to PyTorch {difference:.1e}")


def write_onnx(
    exported: Exported, network: nn.Module, example: tuple[Tensor, ...],
    known: Mapping[str, str], path: Path,
) -> None:  # fmt: skip
    axes, half = tuple(map(dict, exported.inputs.values())), isinstance(network, HalfWeights)
    program = torch.onnx.export(
        network, example, dynamo=True, opset_version=OPSET, verbose=False,
        input_names=list(exported.inputs), output_names=list(exported.outputs),
        dynamic_shapes=(axes,) if half else axes,
        optimize=not half,  # it would store weights widened
    )  # fmt: skip
    program.model.metadata_props.update(known)
    program.save(path, external_data=False)


def write_torch(
    exported: Exported, network: nn.Module, example: tuple[Tensor, ...],
    known: Mapping[str, str], path: Path,
) -> None:  # fmt: skip
    axes = tuple(dict.fromkeys(own, torch.export.Dim.DYNAMIC) for own in exported.inputs.values())
    axes = (axes,) if isinstance(network, HalfWeights) else axes
    program = torch.export.export(network, example, dynamic_shapes=axes)
    names = {"inputs": json.dumps(list(exported.inputs)), "outputs": json.dumps(exported.outputs)}
    torch.export.save(program, path, extra_files={"metadata.json": json.dumps(known | names)})


def read_onnx(path: Path) -> Callable[..., Sequence[np.ndarray]]:
    """Return what runs a file in onnxruntime."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> Sequence[np.ndarray]:
        return session.run(None, dict(zip(names, (i.numpy() for i in inputs), strict=True)))

    return run


def read_torch(path: Path) -> Callable[..., Sequence[np.ndarray]]:
    """Return what runs a file in PyTorch."""
    with warnings.catch_warnings(action="ignore"):  # torch 2.11's own buffers are not writable
        network = torch.export.load(path).module()
    return lambda *inputs: arrays(network(*inputs))


WRITERS = {"onnx": write_onnx, "torch": write_torch}
READERS = {"onnx": read_onnx, "torch": read_torch}


def arrays(answers: Tensor | Sequence[Tensor]) -> list[np.ndarray]:
    """Return what a network answers as arrays."""
    answers = [answers] if isinstance(answers, Tensor) else answers
    return [answer.detach().numpy() for answer in answers]


def check(
    exported: Exported, run: Callable[..., Sequence[np.ndarray]], network: nn.Module,
    pictures: Sequence[Tensor],
) -> float:  # fmt: skip
    """Return the largest difference of answers to PyTorch's, over the largest value of each.

    Raises:
        LabError: they differ by more than rounding explains.
    """
    largest = 0.0
    for batch in pictures:
        inputs = exported.trial(batch)
        with torch.inference_mode():
            expected = arrays(network(*inputs))
        answers = run(*inputs)
        if exported.in_order:
            kinds = zip(exported.outputs, expected, answers, strict=True)
        else:
            rows = [np.concatenate([a.reshape(*a.shape[:2], -1) for a in own], 2)
                    for own in (expected, answers)]  # fmt: skip
            kinds = [(" and ".join(exported.outputs), *matched(*rows))]
        for name, own, other in kinds:
            if own.shape != other.shape:
                raise LabError(
                    f"{name} of the exported {exported.name} are {other.shape} where PyTorch's "
                    f"are {own.shape}, on {tuple(batch.shape)}: nothing is written"
                )
            differ = np.abs(own.astype(float) - other) / max(np.abs(own).max(), 1e-9)
            is_level = own.dtype.kind in "ui"
            apart = differ > (0 if is_level else DIFFERENCE)
            if not apart.mean() <= APART:
                raise LabError(
                    f"{name} of the exported {exported.name} differ from PyTorch's, "
                    f"{apart.mean():.1%} of them, on {tuple(batch.shape)}: nothing is written"
                )
            if not exported.in_order:  # of a row, all or nothing is the same answer
                apart = np.broadcast_to(apart.any(2, keepdims=True), apart.shape)
            largest = max(largest, 0 if is_level else float(differ[~apart].max(initial=0)))
    return largest


def matched(rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (N, K, D) and of each the one of others (N, K, D) that is nearest to it.

    Of two that are as likely, rounding decides which comes first.
    """
    scale = np.abs(rows).max((0, 1)).clip(1e-9)
    rows, others = rows / scale, others / scale
    distances = np.abs(rows[:, :, None] - others[:, None]).max(3)  # (N, K, K)
    nearest = distances.argmin(2)
    return rows, np.take_along_axis(others, nearest[:, :, None], 1)
