"""A network's score with its gradient as one graph, which a file can hold: what saliency needs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from lab.console import LabError

ATEN = torch.ops.aten


def slope_of(network: nn.Module, images: Tensor) -> nn.Module:
    """Return a module from images (1, C, H, W) and a class, int64 (1,), to logits and a gradient.

    The gradient, (1, C, H, W), is that of the class's logit with respect to the images.

    Args:
        images: to trace it with.

    Raises:
        LabError: it computes something of whose gradient there is no such graph.
    """
    network = network.eval().requires_grad_(False)

    def slope(images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            logits = network(images)
            (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), images)
        return logits, gradient

    simpler = {**core_aten_decompositions(), **SIMPLER}
    try:
        with sdpa_kernel(SDPBackend.MATH):  # of the faster ones there is no gradient in parts
            graph = make_fx(slope, decomposition_table=simpler)(images, torch.zeros(1).long())
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise LabError(f"no graph of the gradient: {str(error).splitlines()[0]}") from error
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def sample(images: Tensor, theta: Tensor) -> Tensor:
    """Do what `networks.warp` does by what has a gradient in every file format: look-ups."""
    channels, height, width = images.shape[1:]
    y, x = ((2 * torch.arange(side) + 1) / side - 1 for side in (height, width))
    ones = torch.ones(height, width)
    places = torch.stack((x.expand(height, width), y[:, None].expand(height, width), ones), 2)
    grid = places.flatten(0, 1) @ theta.transpose(1, 2)  # (N, H * W, 2), in [-1, 1]
    x, y = ((grid[..., k] + 1) * side / 2 - 0.5 for k, side in enumerate((width, height)))
    pixels, sampled = images.flatten(2), 0
    for above in (0, 1):
        for left in (0, 1):
            column, row = x.detach().floor() + left, y.detach().floor() + above
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            share = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
            place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            values = pixels.gather(2, place.long()[:, None].expand(-1, channels, -1))
            sampled = sampled + share[:, None] * values
    return sampled.unflatten(2, (height, width))


class Sampler(nn.Module):
    """A spatial transformer that samples by `sample`."""

    def __init__(self, transformer: nn.Module):
        super().__init__()
        self.transformer = transformer

    def forward(self, images: Tensor) -> Tensor:
        return sample(images, self.transformer.localize(images))


def _convolution_backward(
    gradient: Tensor, inputs: Tensor, weight: Tensor, bias_sizes: list[int] | None,
    stride: list[int], padding: list[int], dilation: list[int], transposed: bool,
    output_padding: list[int], groups: int, mask: list[bool],
) -> tuple[Tensor | None, None, None]:  # fmt: skip
    """Of the inputs alone: it is the transposed convolution."""
    if transposed or mask[1] or mask[2]:
        raise NotImplementedError("the gradient of a transposed convolution or of weights")
    beyond = [
        inputs.shape[2 + k] - (gradient.shape[2 + k] - 1) * step + 2 * pad
        - spread * (weight.shape[2 + k] - 1) - 1
        for k, (step, pad, spread) in enumerate(zip(stride, padding, dilation, strict=True))
    ]  # fmt: skip
    back = F.conv_transpose2d(gradient, weight, None, stride, padding, beyond, groups, dilation)
    return back, None, None


def _max_pool_backward(gradient: Tensor, inputs: Tensor, *rest: object) -> Tensor:
    """Give each output's gradient to the input that was the greatest."""
    empty = torch.zeros_like(inputs).flatten(2)
    back = empty.scatter_add(2, rest[-1].flatten(2), gradient.flatten(2))
    return back.view(inputs.shape)


SIMPLER = {
    ATEN.convolution_backward.default: _convolution_backward,
    ATEN.max_pool2d_with_indices_backward.default: _max_pool_backward,
}
