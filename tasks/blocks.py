"""Blocks of networks that find and label things in pictures; their batch norms folded away."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def conv_bn(
    inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU; without a stride, sizes stay."""
    padding = dilation * (kernel_size - 1) // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two convolutions whose result is added to the input (He et al. 2016)."""

    def __init__(self, channels: int, dilation: int = 1):
        super().__init__()
        self.first = conv_bn(channels, channels, dilation=dilation)
        self.second = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))), inplace=True)


def stage(inputs: int, outputs: int, *dilations: int) -> nn.Sequential:
    """Return a convolution of stride 2, then a residual block of each dilation."""
    blocks = (Residual(outputs, dilation) for dilation in dilations)
    return nn.Sequential(conv_bn(inputs, outputs, 3, 2), *blocks)


def fill(images: Tensor, stride: int, least: int = 0) -> Tensor:
    """Return images filled up to multiples of `stride`, of at least `least` pixels a side.

    At the right and below, with 0, which is what convolutions take the outside for.
    """
    below, right = (max(side + -side % stride, least) - side for side in images.shape[-2:])
    return F.pad(images, (0, right, 0, below))


def fold(network: nn.Module) -> nn.Module:
    """Multiply batch norms into the convolutions before them, in place; return the network.

    In evaluation they are one linear map, of which the convolution alone takes less time.
    """
    for module in network.eval().modules():
        children = list(module.named_children())
        for (name, layer), (norm_name, norm) in pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(layer, norm))
                setattr(module, norm_name, nn.Identity())
    return network
