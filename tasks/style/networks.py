"""The network that paints in the manner of one picture, in one pass.

Sources: Johnson et al. 2016 (the network and how it is trained), Ulyanov et al. 2016 (instance
normalisation), Odena et al. 2016 (enlarge, then convolve).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.console import LabError
from lab.images import Preprocess
from lab.registry import Design
from lab.runtime import Runtime, to_device
from networks import ConvBlock

SMALLEST = 16  # pixels of a picture's shorter side; reflection needs more pixels than it pads


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
    """All that is needed to build a `TransformNet`.

    Attributes:
        width: channels at full resolution; 32 as published.
        blocks: residual blocks at a quarter of the resolution.
    """

    width: int = 32
    blocks: int = 5


class TransformNet(nn.Module):
    """Paints a picture in one pass (Johnson et al. 2016, section 3.1 and supplement).

    Shape: (N, 3, H, W) in [-1, 1] to the same; H and W of `SMALLEST` pixels or more.
    """

    def __init__(self, config: TransformConfig):
        super().__init__()
        width = config.width
        self.encode = nn.ModuleList([
            StyleBlock(3, width, 9),
            StyleBlock(width, 2 * width, 3, stride=2),
            StyleBlock(2 * width, 4 * width, 3, stride=2),
        ])  # fmt: skip
        self.residual = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(config.blocks)))
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


NETWORKS = {"transform": Design(TransformConfig, TransformNet)}


@torch.inference_mode()
def repaint(network: nn.Module, images: Tensor, runtime: Runtime) -> Tensor:
    """Return what a trained network makes of pictures in one pass, as pixels in [0, 1].

    Args:
        images: (N, 3, H, W) in [-1, 1].

    Raises:
        LabError: they are too small.
    """
    height, width = images.shape[-2:]
    if min(height, width) < SMALLEST:
        raise LabError(
            f"a picture of {width}x{height} pixels cannot be painted: its shorter side needs "
            f"{SMALLEST} pixels; see style.py --size"
        )
    with runtime.autocast():
        painted = network(to_device(images, runtime))
    return Preprocess().denormalize(painted.float()).cpu()
