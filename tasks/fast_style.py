"""Fast style transfer: a network that paints in the manner of one picture, in one pass.

    python style.py --train --style painting.jpg --data_root FOLDER
    python style.py --ckpt_path checkpoints/style --content photo.jpg

`style.py` is the script, and home of the losses. Sources: Johnson et al. 2016 (the network and how
it is trained), Ulyanov et al. 2016 (instance normalisation), Odena et al. 2016 (enlarge, then
convolve).
"""

import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets import CACHE_BUDGET, BatchSampler, ImageDataset, Split
from lab import checkpoint, engine
from lab.console import LabError, UsageError, progress, say
from lab.images import Preprocess, open_image, picture_file, read_picture, save_picture
from networks import ConvBlock, load_weights

if TYPE_CHECKING:
    from style import StyleLosses


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


def photo_loader(
    folder: Path, size: int, batch_size: int, seed: int, device: torch.device
) -> DataLoader:
    """Return a loader of the photographs under a folder, shuffled; labels are the images again.

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
    images = torch.from_numpy(np.stack(list(good.values())))
    split = Split(("photograph",), list(good), torch.zeros(len(good), dtype=torch.int64), images)
    return DataLoader(
        ImageDataset(split, preprocess, device=str(device)),
        batch_sampler=BatchSampler(len(good), batch_size, True, seed, rank=0, world_size=1),
        collate_fn=_own_targets,
        generator=torch.Generator(),
    )


def _own_targets(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0], batch[0]


def transform_loss(
    losses: "StyleLosses", preprocess: Preprocess, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return Johnson's loss, a mean over images, of painted and original images in [-1, 1]."""
    black, white = preprocess.bounds(device)

    def network_input(images: Tensor) -> Tensor:
        return black + (white - black) * (images.float() + 1) / 2

    def loss(painted: Tensor, images: Tensor) -> Tensor:
        content_target = losses.content_target(network_input(images))
        return losses(network_input(painted), content_target).sum() / len(images)

    return loss


# Flags that decide what is learned, kept in the checkpoint: a resumed run goes on with them.
KEPT = ("style", "model", "weights", "preset", "size", "style_size", "content_weight",
        "style_weights", "tv_weight", "width", "data_root")  # fmt: skip


def train(
    args: Namespace,
    runtime: engine.Runtime,
    losses: "StyleLosses",
    preprocess: Preprocess,
    resumed: dict[str, Any] | None,
) -> None:
    """Train a network for one style as the flags of style.py ask.

    Args:
        losses: of the style picture.
        preprocess: of the network that the losses look with.
        resumed: the checkpoint to go on from.
    """
    if resumed is not None and resumed["epoch"] >= args.epoch:
        raise LabError(
            f"{args.resume} has done {resumed['epoch']} epochs already; --epoch is the total: "
            f"to go on, give one above {resumed['epoch']}"
        )
    if runtime.world_size > 1:
        raise UsageError("style.py --train runs in one process; start it without torchrun")
    settings = engine.TrainSettings(
        epoch=args.epoch, batch_size=args.batch_size, lr=args.lr or 1e-3,
        precision=args.precision, seed=args.seed,
    )  # fmt: skip
    size = losses.recipe.size
    loader = photo_loader(args.data_root, size, args.batch_size, args.seed, runtime.device)
    checkpoint.prepare_folder(args.ckpt_path)
    torch.manual_seed(args.seed)
    model = TransformNet(args.width)
    if resumed is not None:
        model = load_transform(resumed)
    elif place := checkpoint.set_aside(args.ckpt_path, ("metrics.csv", "*.jpg", "events.out.*")):
        say(f"{args.ckpt_path} held an earlier run; it is now in {place}")
    kept = {name: getattr(args, name) for name in KEPT}
    identity = {
        "configs": asdict(model.config),
        "task": "style",
        "network": "transform",
        "preprocess": asdict(Preprocess((size, size), resize=size)),
        "flags": {k: str(v) if isinstance(v, Path) else v for k, v in kept.items()},
    }
    say(
        f"Training {sum(p.numel() for p in model.parameters()):,} parameters on "
        f"{len(loader.dataset):,} photographs of {size}x{size} from {args.data_root} "
        f"({runtime.device.type}, {'bf16' if runtime.autocast_dtype else 'fp32'})"
    )
    loss_function = transform_loss(losses, preprocess, runtime.device)
    engine.fit(
        model, loss_function, loader, None, settings, runtime, args.ckpt_path, identity, resumed
    )
    say(f"Next, try:\n  python style.py --ckpt_path {args.ckpt_path} --content FILE")


@torch.inference_mode()
def repaint(args: Namespace, state: dict[str, Any], runtime: engine.Runtime) -> None:
    """Paint a picture of any size by one pass of a trained network."""
    model = load_transform(state).eval().to(runtime.device, memory_format=torch.channels_last)
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
