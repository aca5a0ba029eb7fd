"""Measure the project's speed on this machine, against the bare step and the plain loop.

    python benchmark.py
    python benchmark.py --rounds 3           # shorter, less sure
    python benchmark.py --only attention     # or training, testing, mnist, saliency, style

Training and testing take one network (`--bn --stn`) and one folder of drawn signs; mnist takes
`mnist_cnn` and pictures in MNIST's files (scikit-learn's digits over and over); attention is a
step through the non-local block, against the form that holds the matrix of all pairs; saliency is
one backward pass for a batch of images, against one for each; style is 100 steps of style.py, and
what the network and the Gram matrices' products take of them. Contestants
take turns in every round, so that a machine whose speed drifts is fair to all; figures are medians
over rounds. Memory is the peak above what a fresh process held before the step.
"""

import math
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from lab.console import Parser, positive_int, progress, run

BATCH_SIZES = (128, 32)
IMAGES_A_CLASS = {"train": 150, "val": 1, "test": 40}
BARE_IMAGES = 2048  # that the bare step works through in one turn
SINGLES = 260  # images that are tested one by one
SALIENCY_IMAGES = 32
CLIPS = (2, 64, 8, 32, 32)  # (N, C, T, H, W) of the assignment's non-local block
MNIST_BATCH_SIZE = 64
MNIST_IMAGES = {"train": 8000, "t10k": 10}
PICTURE = 256  # side in pixels of what style.py paints
STEPS = 100  # of style.py in one turn


def main() -> None:
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--rounds", type=positive_int, default=5, help="(default %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    parser.add_argument("--only", choices=SECTIONS, help="measure this alone (default: all)")
    args = parser.parse_args()

    import torch

    from lab import engine

    runtime = engine.start(args.device)
    precision = "bf16" if runtime.autocast_dtype else "fp32"
    print(
        f"torch {torch.__version__}, {runtime.device.type}, {torch.get_num_threads()} threads, "
        f"{precision}, {args.rounds} rounds"
    )
    sections = (args.only,) if args.only else tuple(SECTIONS)
    with tempfile.TemporaryDirectory() as folder:
        contestants = {}
        for section in sections:
            make, _ = SECTIONS[section]
            contestants |= make(Path(folder), runtime)
        rates: dict[Any, list[float]] = {key: [] for key in contestants}
        for _ in progress(range(args.rounds), label="rounds"):
            for key, measure in contestants.items():
                rates[key].append(measure())
    for section in sections:
        _, report = SECTIONS[section]
        report(rates, runtime)
    if not args.only:
        print(f"\n`python train.py --help`: {seconds_to_help(args.rounds):.2f} s")


def ratio(rates: dict[Any, list[float]], over: Any, under: Any) -> str:
    """Return the median of the ratios round by round."""
    quotients = [a / b for a, b in zip(rates[over], rates[under], strict=True)]
    return f"{statistics.median(quotients):.2f}"


def report_training(rates: dict[Any, list[float]], runtime: Any) -> None:
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


def report_pair(title: str, pair: dict[str, Any]) -> Callable[..., None]:
    """Return a report of two contestants: medians of images/s, and the ratio to the second."""

    def report(rates: dict[Any, list[float]], runtime: Any) -> None:
        print(f"\n| {title} | images/s | ratio |\n|---|---|---|")
        _, plain = pair
        for name in pair:
            rate = statistics.median(rates[name])
            print(f"| {name} | {rate:,.0f} | {ratio(rates, name, plain)} |")

    return report


def report_attention(rates: dict[Any, list[float]], runtime: Any) -> None:
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


def report_style(rates: dict[Any, list[float]], runtime: Any) -> None:
    """Print medians of the time of the steps, and the share of style.py's that it is."""
    print(f"\n| style, {PICTURE}x{PICTURE}, SqueezeNet, fp32 | s for {STEPS} steps | share |")
    print("|---|---|---|")
    *_, whole = STYLE
    for name in STYLE:
        seconds = 1 / statistics.median(rates[name])
        print(f"| {name} | {seconds:.2f} | {ratio(rates, whole, name)} |")


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


def make_network(runtime, mnist: bool = False) -> tuple[Any, Any]:
    """Return the network under test and its optimizer, as train.py makes them."""
    import torch

    from lab import engine
    from networks import Classifier, MnistCNN

    torch.manual_seed(0)
    model = MnistCNN(1, 10) if mnist else Classifier(3, 26, use_batch_norm=True, use_stn=True)
    model = model.to(runtime.device, memory_format=torch.channels_last)
    settings = engine.TrainSettings()
    return model, engine.make_optimizer(model.parameters(), settings, runtime.device.type)


def bare_step(root: Path, batch_size: int, runtime) -> Callable[[], float]:
    """(a) Forward, backward and update on one resident batch."""
    import torch
    import torch.nn.functional as F

    from datasets import get_data_loader
    from lab.engine import to_device

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
    from datasets import get_data_loader

    loader = get_data_loader(root, "train", 32, batch_size, augment=augment, device=runtime.device)
    return own_turns(*make_network(runtime), loader, runtime)


def own_turns(model: Any, optimizer: Any, loader: Any, runtime: Any) -> Callable[[], float]:
    """Train epoch after epoch with the project's loop."""
    import torch.nn.functional as F

    from lab import engine

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
    from networks import Classifier

    model = Classifier(3, 26, use_batch_norm=True, use_stn=True)
    return plain_turns(model, plain_loader(root, "train", batch_size, num_workers=2), runtime)


def plain_turns(model: Any, loader: Any, runtime: Any) -> Callable[[], float]:
    """Train epoch after epoch with the loop as it is usually written."""
    import torch
    from torch import nn

    model = model.to(runtime.device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss_function = nn.CrossEntropyLoss()

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


def write_mnist(root: Path) -> None:
    """Write pictures in MNIST's files, as torchvision lays them out (LeCun et al. 1998)."""
    import numpy as np

    from datasets import SOURCES

    split = SOURCES["digits"].read(None, "train", None)
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, count in MNIST_IMAGES.items():
        for kind, values in (
            ("images-idx3", split.images.squeeze(3).numpy()),
            ("labels-idx1", split.labels.numpy().astype(np.uint8)),
        ):
            values = np.resize(values, (count, *values.shape[1:]))  # over and over
            header = np.array([0x800 + values.ndim, *values.shape], ">i4")
            (folder / f"{name}-{kind}-ubyte").write_bytes(header.tobytes() + values.tobytes())


def own_mnist(root: Path, runtime) -> Callable[[], float]:
    """(b) `train.py --dataset mnist`'s epoch."""
    from datasets import SOURCES, make_loader
    from lab.images import Preprocess

    source = SOURCES["mnist"]
    preprocess = Preprocess((28, 28), source.mean, source.std)
    split = source.read(root, "train", preprocess)
    loader = make_loader(split, preprocess, MNIST_BATCH_SIZE, shuffle=True, device=runtime.device)
    return own_turns(*make_network(runtime, mnist=True), loader, runtime)


def plain_mnist(root: Path, runtime) -> Callable[[], float]:
    """(c) torchvision's MNIST through DataLoader, an image at a time, two worker processes."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import MNIST

    from networks import MnistCNN

    steps = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    dataset = MNIST(root, transform=transforms.Compose(steps))
    loader = DataLoader(dataset, MNIST_BATCH_SIZE, shuffle=True, num_workers=2)
    return plain_turns(MnistCNN(1, 10), loader, runtime)


def own_test(root: Path, runtime) -> Callable[[], float]:
    """The project's evaluation, as test.py runs it."""
    from datasets import get_data_loader
    from lab import engine

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
    """One backward pass for all images, as visualize.py runs it."""
    from looking.insight import saliency_maps

    return saliency_turns(runtime, saliency_maps)


def single_saliency(runtime) -> Callable[[], float]:
    """The assignment's: a backward pass for each image."""
    import torch

    def maps(model, images, labels) -> Any:
        found = []
        for image, label in zip(images, labels, strict=True):
            image = image[None].clone().requires_grad_()
            model.requires_grad_()(image)[0, label].backward()
            found.append(image.grad.abs().amax(1))
        return torch.cat(found)

    return saliency_turns(runtime, maps)


def saliency_turns(runtime, maps: Callable[..., Any]) -> Callable[[], float]:
    """Saliency maps of SALIENCY_IMAGES images: images/s."""
    import torch

    model = make_network(runtime)[0].eval().requires_grad_(False)
    images = torch.randn(SALIENCY_IMAGES, 3, 32, 32, device=runtime.device)
    images = images.contiguous(memory_format=torch.channels_last)  # as they come from a loader
    labels = torch.arange(SALIENCY_IMAGES, device=runtime.device) % 26

    def turn() -> float:
        began = time.perf_counter()
        maps(model, images, labels)
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return SALIENCY_IMAGES / (time.perf_counter() - began)

    for _ in range(3):  # warm up
        turn()
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


def style_turns(name: str, runtime) -> Callable[[], float]:
    """STEPS steps of style transfer, or of the part of them that `name` says: turns/s."""
    import torch
    from torchvision.models import squeezenet1_1

    import style

    torch.manual_seed(0)
    recipe = style.PRESETS["composition"]
    layers = (recipe.content_layer, *recipe.style_layers)
    extractor = style.feature_extractor(squeezenet1_1(), layers).to(runtime.device)
    content, painting = torch.rand(2, 1, 3, PICTURE, PICTURE, device=runtime.device)
    losses = style.StyleLosses(extractor, recipe, painting)
    gradients = losses.features(content)  # any of their shapes
    bounds = torch.zeros(3, 1, 1, device=runtime.device), torch.ones(3, 1, 1, device=runtime.device)

    def partial_step(with_grams: bool) -> None:
        image = content.clone().requires_grad_()
        features = losses.features(image)
        outputs = {layer: (features[layer], gradients[layer]) for layer in features}
        if with_grams:
            for layer, target in zip(recipe.style_layers, losses.style_targets, strict=True):
                outputs[layer] = style.gram_matrix(features[layer]), target
        torch.autograd.backward(*zip(*outputs.values(), strict=True))

    def turn() -> float:
        began = time.perf_counter()
        if name == WHOLE_STEP:
            style.transfer(losses, content, content, bounds, STEPS)
        else:
            for _ in range(STEPS):
                partial_step(with_grams=name == WITH_GRAMS)
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return 1 / (time.perf_counter() - began)

    turn()  # warm up
    return turn


TRAINING = {
    "(a) bare step": bare_step,
    "(b) train.py": own_loop,
    "(b) --augment": own_loop_augmented,
    "(c) plain loop": plain_loop,
}
MNIST = {"(b) train.py": own_mnist, "(c) plain loop": plain_mnist}
TESTING = {"test.py": own_test, "batch_size=1": single_test}
WITH_GRAMS = "and the products of the Gram matrices"
WHOLE_STEP = "style.py"
STYLE = ("network forward and backward", WITH_GRAMS, WHOLE_STEP)
SALIENCY = {"saliency_maps": batch_saliency, "image by image": single_saliency}
ATTENTION = {"NonLocalBlock": own_block, "softmax(q k^T) v": naive_block}


def make_training(root: Path, runtime: Any) -> dict[Any, Callable[[], float]]:
    """Return the contestants of a training epoch, at each batch size."""
    draw_signs(root)
    return {
        (name, batch_size): make(root, batch_size, runtime)
        for batch_size in BATCH_SIZES
        for name, make in TRAINING.items()
    }


def make_testing(root: Path, runtime: Any) -> dict[Any, Callable[[], float]]:
    """Return the contestants of an evaluation."""
    draw_signs(root)
    return {name: make(root, runtime) for name, make in TESTING.items()}


def make_mnist(root: Path, runtime: Any) -> dict[Any, Callable[[], float]]:
    """Return the contestants of a training epoch on MNIST's files."""
    write_mnist(root)
    return {name: make(root, runtime) for name, make in MNIST.items()}


def draw_signs(root: Path) -> None:
    """Draw the signs that training and testing share, once."""
    from world import signs

    if not (root / "train").exists():
        signs.draw_dataset(root, per_class=IMAGES_A_CLASS)


# Each section's contestants, from a folder and a runtime, and its report.
SECTIONS = {
    "training": (make_training, report_training),
    "testing": (make_testing, report_pair("testing", TESTING)),
    "mnist": (make_mnist, report_pair(f"MNIST, batch {MNIST_BATCH_SIZE}", MNIST)),
    "attention": (
        lambda root, runtime: {name: attention_turns(name, runtime) for name in ATTENTION},
        report_attention,
    ),
    "saliency": (
        lambda root, runtime: {name: make(runtime) for name, make in SALIENCY.items()},
        report_pair(f"saliency of {SALIENCY_IMAGES} images", SALIENCY),
    ),
    "style": (
        lambda root, runtime: {name: style_turns(name, runtime) for name in STYLE},
        report_style,
    ),
}

if __name__ == "__main__":
    run(main)
