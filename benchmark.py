"""Measure the project's speed on this machine, against the bare step and the plain loop.

    python benchmark.py
    python benchmark.py --rounds 3           # shorter, less sure
    python benchmark.py --only attention     # one of training, testing, attention, saliency

Training and testing take one network (`--bn --stn`) and one folder of drawn signs; attention is a
step through the non-local block, against the form that holds the matrix of all pairs; saliency is
one backward pass for a batch of images, against one for each image. Contestants take turns in every
round, so that a machine whose speed drifts is fair to all; figures are medians over rounds. Memory
is the peak above what a fresh process held before the step.
"""

import math
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from console import Parser, positive_int, progress, run

BATCH_SIZES = (128, 32)
IMAGES_A_CLASS = {"train": 150, "val": 1, "test": 40}
BARE_IMAGES = 2048  # that the bare step works through in one turn
SINGLES = 260  # images that are tested one by one
SALIENCY_IMAGES = 32
CLIPS = (2, 64, 8, 32, 32)  # (N, C, T, H, W) of the assignment's non-local block
SECTIONS = ("training", "testing", "attention", "saliency")


def main() -> None:
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--rounds", type=positive_int, default=5, help="(default %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    parser.add_argument("--only", choices=SECTIONS, help="measure this alone (default: all)")
    args = parser.parse_args()

    import torch

    import engine
    import signs

    runtime = engine.start(args.device)
    precision = "bf16" if runtime.autocast_dtype else "fp32"
    print(
        f"torch {torch.__version__}, {runtime.device.type}, {torch.get_num_threads()} threads, "
        f"{precision}, {args.rounds} rounds"
    )
    sections = (args.only,) if args.only else SECTIONS
    contestants: dict[Any, Callable[[], float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if {"training", "testing"} & set(sections):
            signs.draw_dataset(root, per_class=IMAGES_A_CLASS)
        if "training" in sections:
            contestants |= {
                (name, batch_size): make(root, batch_size, runtime)
                for batch_size in BATCH_SIZES
                for name, make in TRAINING.items()
            }
        if "testing" in sections:
            contestants |= {name: make(root, runtime) for name, make in TESTING.items()}
        if "attention" in sections:
            contestants |= {name: attention_turns(name, runtime) for name in ATTENTION}
        if "saliency" in sections:
            contestants |= {name: make(runtime) for name, make in SALIENCY.items()}
        rates: dict[Any, list[float]] = {key: [] for key in contestants}
        for _ in progress(range(args.rounds), label="rounds"):
            for key, measure in contestants.items():
                rates[key].append(measure())
    if "training" in sections:
        report_training(rates)
    if "testing" in sections:
        report_pair(rates, "testing", TESTING)
    if "attention" in sections:
        report_attention(rates, runtime)
    if "saliency" in sections:
        report_pair(rates, f"saliency, {SALIENCY_IMAGES} images", SALIENCY)
    if not args.only:
        print(f"\n`python train.py --help`: {seconds_to_help(args.rounds):.2f} s")


def ratio(rates: dict[Any, list[float]], over: Any, under: Any) -> str:
    """Return the median of the ratios round by round."""
    quotients = [a / b for a, b in zip(rates[over], rates[under], strict=True)]
    return f"{statistics.median(quotients):.2f}"


def report_training(rates: dict[Any, list[float]]) -> None:
    """Print medians of images/s and ratios, as Markdown like the other reports."""
    print("\n| training, batch | " + " | ".join(TRAINING) + " | b/a | b augmented/a | b/c |")
    print("|---|" + "---|" * (len(TRAINING) + 3))
    bare, own, augmented, plain = TRAINING
    for size in BATCH_SIZES:
        medians = [f"{statistics.median(rates[name, size]):,.0f}" for name in TRAINING]
        ratios = [
            ratio(rates, (own, size), (bare, size)),
            ratio(rates, (augmented, size), (bare, size)),
            ratio(rates, (own, size), (plain, size)),
        ]
        print(f"| {size} | " + " | ".join(medians + ratios) + " |")


def report_pair(rates: dict[Any, list[float]], title: str, names: Iterable[str]) -> None:
    """Print medians of images/s and the ratio to one by one."""
    print(f"\n| {title} | images/s | ratio |\n|---|---|---|")
    own, plain = names
    for name in (own, plain):
        print(f"| {name} | {statistics.median(rates[name]):,.0f} | {ratio(rates, name, plain)} |")


def report_attention(rates: dict[Any, list[float]], runtime) -> None:
    """Print medians of clips/s, peak memory, and both in ratio to the naive form."""
    mebibytes = {}
    for name in ATTENTION:
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=fresh) as process:
            memory = process.submit(attention_memory, name, runtime.device.type)
            mebibytes[name] = memory.result() / 2**20
    print(f"\n| forward and backward, {CLIPS}, fp32 | clips/s | ratio | extra MiB | ratio |")
    print("|---|---|---|---|---|")
    _, naive = ATTENTION
    for name in ATTENTION:
        speed = f"{statistics.median(rates[name]):,.2f} | {ratio(rates, name, naive)}"
        share = f"{mebibytes[name]:,.0f} | 1/{mebibytes[naive] / mebibytes[name]:.1f}"
        print(f"| {name} | {speed} | {share} |")


def seconds_to_help(rounds: int) -> float:
    """Return the median wall-clock seconds of `train.py --help` as a process."""
    command = [sys.executable, str(Path(__file__).with_name("train.py")), "--help"]
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


# ---------------------------------------------------------------- contestants
# Each makes its loader and network once and returns a function that works a turn: images/s.


def make_network(runtime) -> tuple[Any, Any]:
    """Return the network under test and its optimizer, as train.py makes them."""
    import torch

    import engine
    from networks import Classifier

    torch.manual_seed(0)
    model = Classifier(3, 26, use_batch_norm=True, use_stn=True).to(
        runtime.device, memory_format=torch.channels_last
    )
    settings = engine.TrainSettings()
    return model, engine.make_optimizer(model.parameters(), settings, runtime.device.type)


def bare_step(root: Path, batch_size: int, runtime) -> Callable[[], float]:
    """(a) Forward, backward and update on one resident batch."""
    import torch
    import torch.nn.functional as F

    from datasets import get_data_loader
    from engine import to_device

    model, optimizer = make_network(runtime)
    loader = get_data_loader(root, "train", 32, batch_size)
    images, labels = to_device(*next(iter(loader)), runtime)

    def turn() -> float:
        model.train()
        began = time.perf_counter()
        for _ in range(BARE_IMAGES // batch_size):
            with runtime.autocast():
                loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return BARE_IMAGES / (time.perf_counter() - began)

    turn()  # warm up: kernels are chosen on the first steps
    return turn


def own_loop(root: Path, batch_size: int, runtime, augment: bool = False) -> Callable[[], float]:
    """(b) The project's own epoch, loader and all."""
    import torch.nn.functional as F

    import engine
    from datasets import get_data_loader

    model, optimizer = make_network(runtime)
    loader = get_data_loader(root, "train", 32, batch_size, augment=augment, device=runtime.device)
    schedule = engine.make_schedule(optimizer, engine.TrainSettings(), len(loader), 0)

    def turn() -> float:
        state = engine.EpochState()
        engine.train_one_epoch(model, F.cross_entropy, loader, optimizer, schedule, runtime, state)
        return state.images / state.seconds

    return turn


def own_loop_augmented(root: Path, batch_size: int, runtime) -> Callable[[], float]:
    """(b) with --augment."""
    return own_loop(root, batch_size, runtime, augment=True)


def plain_loader(root: Path, mode: str, batch_size: int, num_workers: int):
    """Return the loader the assignment hands out: each image read and transformed by itself."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    dataset = ImageFolder(str(root / mode), transforms.Compose(steps))
    return DataLoader(dataset, batch_size, shuffle=mode == "train", num_workers=num_workers)


def plain_loop(root: Path, batch_size: int, runtime) -> Callable[[], float]:
    """(c) The assignment's loop, fp32, two worker processes; their start is not counted."""
    import torch
    from torch import nn

    from networks import Classifier

    torch.manual_seed(0)
    model = Classifier(3, 26, use_batch_norm=True, use_stn=True).to(runtime.device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss_function = nn.CrossEntropyLoss()
    loader = plain_loader(root, "train", batch_size, num_workers=2)

    def turn() -> float:
        model.train()
        batches = iter(loader)
        next(batches)
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


def own_test(root: Path, runtime) -> Callable[[], float]:
    """The project's evaluation, as test.py runs it."""
    import engine
    from datasets import get_data_loader

    model, _ = make_network(runtime)
    loader = get_data_loader(root, "test", 32, 256, device=runtime.device)

    def turn() -> float:
        evaluation = engine.evaluate(model, loader, runtime)
        return len(evaluation.labels) / evaluation.seconds

    return turn


def single_test(root: Path, runtime) -> Callable[[], float]:
    """The assignment's: batch_size=1, each image read when its turn comes."""
    import torch

    model, _ = make_network(runtime)
    loader = plain_loader(root, "test", 1, num_workers=0)

    def turn() -> float:
        model.eval()
        began, correct = time.perf_counter(), 0
        with torch.no_grad():
            for count, (images, labels) in enumerate(loader):
                if count == SINGLES:
                    break
                prediction = model(images.to(runtime.device)).argmax(-1)
                correct += int(prediction.cpu() == labels)
        return count / (time.perf_counter() - began)

    return turn


def batch_saliency(runtime) -> Callable[[], float]:
    """One backward pass for all images."""
    return saliency_turns(runtime, SALIENCY_IMAGES)


def single_saliency(runtime) -> Callable[[], float]:
    """The assignment's: a backward pass for each image."""
    return saliency_turns(runtime, 1)


def saliency_turns(runtime, batch_size: int) -> Callable[[], float]:
    """Saliency maps of SALIENCY_IMAGES images, `batch_size` at a time: images/s."""
    import torch

    from insight import saliency_maps

    model = make_network(runtime)[0].eval().requires_grad_(False)
    images = torch.randn(SALIENCY_IMAGES, 3, 32, 32, device=runtime.device)
    labels = torch.arange(SALIENCY_IMAGES, device=runtime.device) % 26

    def turn() -> float:
        began = time.perf_counter()
        for batch, own in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            saliency_maps(model, batch, own)
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return SALIENCY_IMAGES / (time.perf_counter() - began)

    turn()  # warm up
    return turn


def own_block(device):
    """The project's non-local block."""
    from networks import NonLocalBlock

    return NonLocalBlock(CLIPS[1], identity_init=False).to(device)


def naive_block(device):
    """The same weights, softmax(q k^T) v as it is written."""
    import torch

    block = own_block(device)

    def forward(x):
        query, key, value = (
            conv(x).flatten(2) for conv in (block.query_conv, block.key_conv, block.value_conv)
        )
        y = value @ torch.softmax(query.mT @ key, 2).mT  # (N, C/2, THW)
        return x + block.out_conv(y.unflatten(2, x.shape[2:]))

    return forward


def attention_step(name: str, device) -> Callable[..., None]:
    """Return a function that goes forward and backward through a block with clips of a shape."""
    import torch

    forward = ATTENTION[name](device)

    def step(*shape: int) -> None:
        forward(torch.randn(shape, device=device, requires_grad=True)).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def attention_turns(name: str, runtime) -> Callable[[], float]:
    """A step with CLIPS: clips/s."""
    step = attention_step(name, runtime.device)

    def turn() -> float:
        began = time.perf_counter()
        step(*CLIPS)
        return CLIPS[0] / (time.perf_counter() - began)

    turn()  # warm up
    return turn


def attention_memory(name: str, device_type: str) -> float:
    """Return the bytes a step takes at its peak; of a process of its own, nan where unknown."""
    import torch

    step = attention_step(name, torch.device(device_type))
    step(1, CLIPS[1], 2, 8, 8)  # libraries, kernels and the weights' gradients stay
    if device_type == "cuda":
        before = torch.cuda.memory_allocated()
        step(*CLIPS)
        return torch.cuda.max_memory_allocated() - before
    before = resident_bytes("VmRSS")
    step(*CLIPS)
    return resident_bytes("VmHWM") - before


def resident_bytes(kind: str) -> float:
    """Return this process's memory, now (VmRSS) or at its peak (VmHWM); nan but on Linux."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next(
        (float(line.split()[1]) * 1024 for line in lines if line.startswith(kind)), math.nan
    )


TRAINING = {
    "(a) bare step": bare_step,
    "(b) train.py": own_loop,
    "(b) --augment": own_loop_augmented,
    "(c) plain loop": plain_loop,
}
TESTING = {"test.py": own_test, "batch_size=1": single_test}
SALIENCY = {"saliency_maps": batch_saliency, "image by image": single_saliency}
ATTENTION = {"NonLocalBlock": own_block, "softmax(q k^T) v": naive_block}

if __name__ == "__main__":
    run(main)
