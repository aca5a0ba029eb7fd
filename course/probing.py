"""What probes of all assignments use; they run beside a submission and know no solution.

A probe is a generator of pairs (what was asked, in Python's words; what came out). It is put to the
solution as well: a blank is right if both answer alike.
"""

import math
from collections.abc import Iterator
from zlib import crc32

import torch
from torch import Tensor, nn

Answers = Iterator[tuple[str, object]]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fill(module: nn.Module, scale: float = 1.0) -> nn.Module:
    """Give a module values that depend on their names and shapes alone, and no default hides."""
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            drawn = noise(*value.shape, seed=crc32(name.encode()))
            if name.endswith("running_var"):
                value.copy_(drawn.abs() + 0.5)
            elif value.is_floating_point():
                fan_in = math.prod(value.shape[1:]) if value.dim() > 1 else 4
                value.copy_(drawn * scale / math.sqrt(fan_in))
    return module


def pair(value: int | tuple[int, ...]) -> str:
    return "x".join(map(str, value if isinstance(value, tuple) else (value, value)))


def words(layer: object) -> str:
    """Return a layer as it reads, whatever way it was written."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        padding = layer.padding
        if padding == "same" and all(size % 2 for size in layer.kernel_size):
            sides = zip(layer.kernel_size, layer.dilation, strict=True)
            padding = tuple(size // 2 * dilation for size, dilation in sides)
        padding = 0 if padding == "valid" else padding
        text = (
            f"{type(layer).__name__}({layer.in_channels}, {layer.out_channels}, "
            f"kernel {pair(layer.kernel_size)}, stride {pair(layer.stride)}, "
            f"padding {padding if isinstance(padding, str) else pair(padding)}"
        )
        text += f", dilation {pair(layer.dilation)}" if pair(layer.dilation) != "1x1" else ""
        text += f", groups {layer.groups}" if layer.groups != 1 else ""
        return text + (")" if layer.bias is not None else ", no bias)")
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        return (
            f"{type(layer).__name__}(kernel {pair(layer.kernel_size)}, "
            f"stride {pair(layer.stride)}, padding {pair(layer.padding)})"
        )
    if isinstance(layer, nn.ReLU):
        return "ReLU()"
    if isinstance(layer, nn.Dropout):
        return f"Dropout(p={layer.p})"
    if isinstance(layer, nn.Sequential) and len(layer) == 0:
        return "Identity()"
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        plain = repr(layer) == repr(type(layer)(layer.num_features))
        return f"{type(layer).__name__}({layer.num_features})" if plain else repr(layer)
    if isinstance(layer, nn.Module):
        return " ".join(repr(layer).split()).replace(", inplace=False", "")
    return type(layer).__name__


def grads(module: nn.Module, loss: Tensor) -> list[str]:
    """Return the weights that a loss gives no gradient."""
    module.zero_grad()
    loss.backward()
    return [
        name
        for name, value in module.named_parameters()
        if value.dim() > 1 and (value.grad is None or not value.grad.abs().sum() > 0)
    ]
