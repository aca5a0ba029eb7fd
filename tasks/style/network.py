"""A network that paints in the manner of one picture, in one pass.

    python style.py --train --style painting.jpg --data_root FOLDER
    python style.py --ckpt_path checkpoints/style --content photo.jpg

Sources: Johnson et al. 2016 (the network and how it is trained), Ulyanov et al. 2016 (instance
normalisation), Odena et al. 2016 (enlarge, then convolve).
"""

import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from datasets import CACHE_BUDGET
from lab import checkpoint, engine
from lab.batches import load_batches
from lab.console import LabError, UsageError, command, progress, say
from lab.images import Preprocess, open_image, picture_file, read_picture, save_picture
from lab.run import Run
from lab.runtime import Runtime
from lab.settings import TrainSettings
from networks import ConvBlock, load_weights
from tasks.style.losses import StyleLosses, make_losses

# Flags that decide what is learned, kept in the checkpoint: a resumed run goes on with them.
KEPT = ("style", "model", "weights", "preset", "size", "style_size", "content_weight",
        "style_weights", "tv_weight", "width", "data_root")  # fmt: skip


class StyleBlock(ConvBlock):
    """A ConvBlock that pads by reflection and normalises every image by itself.

    Zeros around the picture would show as a frame (Johnson 2016, supplement); the contrast of the
    content should not reach the result (Ulyanov 2016, section 2).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        padding = kernel_size // 2
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, padding_mode="reflect"
        )
        self.bn = nn.InstanceNorm2d(out_channels, affine=True)


class ResidualBlock(nn.Module):
    """Two convolutions, their result added to the input, no activation after (Johnson 2016)."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = StyleBlock(channels, channels, 3)
        self.second = StyleBlock(channels, channels, 3)
        self.second.relu = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


@dataclass(frozen=True)
class TransformConfig:
    """All that is needed to build a `TransformNet`; saved in its checkpoints as `configs`."""

    width: int = 32
    blocks: int = 5


class TransformNet(nn.Module):
    """Paints a picture in one pass (Johnson et al. 2016, section 3.1 and supplement).

    Args:
        width: channels at full resolution; 32 as published.
        blocks: residual blocks at a quarter of the resolution.

    Shape: (N, 3, H, W) in [-1, 1] to the same; H and W of 16 pixels or more.
    """

    SMALLEST = 16  # pixels of the shorter side; reflection needs more pixels than it pads

    def __init__(self, width: int = 32, blocks: int = 5):
        super().__init__()
        self.config = TransformConfig(width, blocks)
        self.encode = nn.ModuleList([
            StyleBlock(3, width, 9),
            StyleBlock(width, 2 * width, 3, stride=2),
            StyleBlock(2 * width, 4 * width, 3, stride=2),
        ])  # fmt: skip
        self.residual = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(blocks)))
        self.decode = nn.ModuleList([
            StyleBlock(4 * width, 2 * width, 3),
            StyleBlock(2 * width, width, 3),
        ])  # fmt: skip
        self.output = nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        sizes = []
        for block in self.encode:
            sizes.append(x.shape[-2:])
            x = block(x)
        x = self.residual(x)
        # Enlarge, then convolve: transposed convolutions leave a checkerboard (Odena 2016).
        # Enlarged to the sizes met on the way in, a picture keeps its size, whatever that is.
        for block, size in zip(self.decode, reversed(sizes[1:]), strict=True):
            x = block(F.interpolate(x, size=size, mode="nearest"))
        return self.output(x).tanh()


def load_transform(state: dict[str, Any]) -> TransformNet:
    """Rebuild a trained `TransformNet` from a loaded checkpoint."""
    try:
        model = TransformNet(**asdict(TransformConfig(**state["configs"])))
    except TypeError as error:
        raise LabError(f"the configs do not fit a style network: {error}") from error
    load_weights(model, state["model_state"])
    return model


# ---------------------------------------------------------------- photographs


class Photographs(Dataset):
    """Photographs to be painted, asked for a batch at a time.

    Args:
        pixels: uint8 (N, H, W, 3).
        preprocess: from pixels to a network's input.
    """

    def __init__(self, pixels: Tensor, preprocess: Preprocess):
        self.pixels, self.preprocess = pixels, preprocess

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, None]:
        chosen = torch.as_tensor(indices, device=self.pixels.device)
        return self.preprocess.normalize(self.pixels[chosen]), None


def photo_loader(
    folder: Path, size: int, batch_size: int, seed: int, device: torch.device
) -> DataLoader:
    """Return a loader of the photographs under a folder, shuffled; there is no target to them.

    The largest square in the middle of each, `size` pixels wide, is decoded once. Of more than fit
    in `CACHE_BUDGET` bytes, as many are taken as do, from all over the folder.

    Raises:
        LabError: no folder, or no readable image in it.
    """
    if not folder.is_dir():
        raise LabError(f"no folder {folder}; --data_root takes one of photographs")
    known = Image.registered_extensions()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in known)
    preprocess = Preprocess((size, size), resize=size)
    most = max(1, CACHE_BUDGET // (3 * size**2))
    if len(paths) > most:
        say(f"{folder}: {most:,} of {len(paths):,} images are used, all that fit in memory")
        paths = [paths[index * len(paths) // most] for index in range(most)]

    def decode(path: Path) -> np.ndarray | None:
        try:
            return preprocess.fit(open_image(path))
        except OSError:
            return None

    with ThreadPoolExecutor() as pool:
        bar = progress(pool.map(decode, paths), total=len(paths), label=f"reading {folder}")
        pictures = dict(zip(paths, bar, strict=True))
    good = {path: picture for path, picture in pictures.items() if picture is not None}
    if len(good) < len(paths):
        bad = next(path for path in paths if path not in good)
        say(f"{folder}: left out {len(paths) - len(good)} unreadable files, {bad} first")
    if not good:
        raise LabError(f"{folder} holds no readable image; --data_root takes a folder of them")
    pixels = torch.from_numpy(np.stack(list(good.values()))).to(device)
    return load_batches(Photographs(pixels, preprocess), batch_size, shuffle=True, seed=seed)


# ---------------------------------------------------------------- training


class StyleTask:
    """Johnson's loss: content of the photograph, style of the painting. Nothing is validated.

    Args:
        losses: of the style picture.
        preprocess: of the network that they look with.
        device: where pictures are compared.
    """

    name, ranks_by = "style", ""

    def __init__(self, losses: StyleLosses, preprocess: Preprocess, device: torch.device):
        self.losses = losses
        self.black, self.white = preprocess.bounds(device)

    def loss(
        self, model: nn.Module, images: Tensor, targets: None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the three losses of photographs (N, 3, H, W) in [-1, 1], and each."""
        painted = self._network_input(model(images))
        content_target = self.losses.content_target(self._network_input(images))
        parts = self.losses(painted, content_target)
        figures = dict(zip(("content", "style", "tv"), parts / len(images), strict=True))
        return parts.sum() / len(images), figures

    def meter(self) -> None:
        """Return nothing: there is no measure but the loss."""

    def _network_input(self, images: Tensor) -> Tensor:
        return self.black + (self.white - self.black) * (images.float() + 1) / 2


def train(
    args: Namespace, settings: TrainSettings, runtime: Runtime, resumed: dict[str, Any] | None
) -> None:
    """Train a network for one style as the flags of style.py ask.

    Args:
        resumed: the checkpoint to go on from.
    """
    finished = 0
    if resumed is not None:
        finished = checkpoint.finished_epochs(resumed, args.resume)
        if finished >= settings.epoch:
            raise LabError(
                f"{args.resume} has done {finished} epochs already; --epoch is the total: "
                f"to go on, give one above {finished}"
            )
    style_file = picture_file(args.style, args.save_dir)
    losses, preprocess = make_losses(args, style_file, runtime.device)
    size = losses.recipe.size
    loader = photo_loader(args.data_root, size, settings.batch_size, settings.seed, runtime.device)
    run = Run(args.ckpt_path, runtime)  # after what may be wrong with the flags: it makes a folder
    torch.manual_seed(settings.seed)
    model = TransformNet(args.width) if resumed is None else load_transform(resumed)
    run.begin(runtime, settings.seed, args.resume, finished)
    kept = {name: getattr(args, name) for name in KEPT}
    identity = {
        "configs": asdict(model.config),
        "network": "transform",
        "preprocess": asdict(Preprocess((size, size), resize=size)),
        "flags": {k: str(v) if isinstance(v, Path) else v for k, v in kept.items()},
    }
    say(
        f"Training {sum(p.numel() for p in model.parameters()):,} parameters on "
        f"{len(loader.dataset):,} photographs of {size}x{size} from {args.data_root} "
        f"({runtime.device.type}, {runtime.precision})"
    )
    task = StyleTask(losses, preprocess, runtime.device)
    engine.fit(task, model, loader, None, settings, runtime, run, identity, resumed)
    paint = command("style.py", "--ckpt_path", args.ckpt_path, "--content", "FILE")
    say(f"Next, try:\n  {paint}")


# ---------------------------------------------------------------- painting


def load_painter(folder: Path) -> TransformNet:
    """Rebuild the network that a run has trained, as it was after its last epoch.

    Raises:
        LabError: there is no run, or one of another task; says what to do.
    """
    if not checkpoint.epochs(folder):
        flags = ("--train", "--style", "FILE", "--data_root", "FOLDER", "--ckpt_path", folder)
        raise LabError(
            f"no checkpoints in {folder}; train a network for one style: "
            f"{command('style.py', *flags)}"
        )
    state = checkpoint.load(checkpoint.find(folder, "last"))
    if state.get("task") != "style":
        raise UsageError(f"{folder} holds no style of its own; give --style FILE")
    return load_transform(state)


@torch.inference_mode()
def repaint(args: Namespace, runtime: Runtime) -> None:
    """Paint a picture of any size by one pass of a trained network."""
    model = load_painter(args.ckpt_path).eval()
    model = model.to(runtime.device, memory_format=torch.channels_last)
    content_file = picture_file(args.content, args.save_dir)
    preprocess = Preprocess()
    content = read_picture(content_file, args.size, preprocess).to(runtime.device)
    if min(content.shape[-2:]) < model.SMALLEST:
        raise LabError(
            f"{content_file}: the shorter side needs {model.SMALLEST} pixels; see --size"
        )
    began = time.perf_counter()
    painted = model(content)
    pixels = preprocess.denormalize(painted).cpu()
    say(f"One pass in {time.perf_counter() - began:.2f} s")
    name = f"{content_file.stem}_{args.ckpt_path.resolve().name}"
    save_picture(pixels, args.save_dir / "style" / f"{name}.jpg")
