"""Where a layer sees what speaks for an answer: class activation maps.

    maps = activation_maps(layer, lambda: model(images)[:, 3].sum())     # LayerCAM
    maps = activation_maps(layer, score, grad_cam)

With A_k the maps of a layer and g_k = dS/dA_k the gradients of a score S with respect to them,

    LayerCAM  M = relu(sum_k relu(g_k) A_k)                     each place weighs by itself
    Grad-CAM  M = relu(sum_k w_k A_k),  w_k = mean over places of g_k

(Jiang et al. 2021, equations 4 and 5; Selvaraju et al. 2017, equations 1 and 2). LayerCAM is of use
at early layers too, where a map's mean gradient says little. A method that shows edges of the
picture rather than what was learned shows the same of a network whose weights are random: see
`randomised` (Adebayo et al. 2018).
"""

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.console import LabError
from looking.choice import check_index
from looking.insight import heat_of


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return LayerCAM of (N, C, *size): (N, *size)."""
    return (gradients.relu() * activations).sum(1).relu()


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return Grad-CAM of (N, C, *size): (N, *size)."""
    places = tuple(range(2, gradients.dim()))
    return (gradients.mean(places, keepdim=True) * activations).sum(1).relu()


def activation_maps(
    layer: nn.Module,
    score: Callable[[], Tensor],
    method: Callable[[Tensor, Tensor], Tensor] = layer_cam,
) -> Tensor | None:
    """Return where a layer sees what a score hangs on; None where the score knows nothing of it.

    Args:
        layer: of a model in evaluation mode; it counts where it is called first.
        score: runs that model, and returns a number. Of a batch, the sum of the scores of its
            images has each one's own gradient.

    Returns:
        As `method` returns it, at the layer's own size.
    """
    kept: list[Tensor] = []

    def cut(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if kept:
            return None
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()  # what follows may work in place

    handle = layer.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            value = score()
    finally:
        handle.remove()
    if not kept or not value.requires_grad:
        return None
    (gradients,) = torch.autograd.grad(value, kept, allow_unused=True)
    return None if gradients is None else method(kept[0].detach(), gradients)


def choose_layer(
    layers: Mapping[str, nn.Module], layer_idx: int | None, score: Callable[[], Tensor]
) -> str:
    """Return the name of the layer that `--layer_idx` counts to, else of the last that matters.

    Raises:
        LabError: a score hangs on none of the layers, or not on the one asked for.
    """
    if layer_idx is None:
        names = list(reversed(layers))
    else:
        names = [list(layers)[check_index("--layer_idx", layer_idx, len(layers), "layers")]]
    for name in names:
        maps = activation_maps(layers[name], score)
        if maps is not None and maps.any():
            return name
    if layer_idx is None:
        raise LabError("no layer speaks for this answer: the network gives it whatever it sees")
    raise LabError(f"nothing in {names[0]} speaks for this answer; try another --layer_idx")


def enlarged(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return maps (N, *own) at the size of the input, (N, *size), each with 1 for its most."""
    mode = "trilinear" if maps.dim() == 4 else "bilinear"
    large = F.interpolate(maps.float().unsqueeze(1), size, mode=mode)[:, 0]
    most = large.flatten(1).amax(1).view(-1, *[1] * len(size))
    return large / most.clamp(min=1e-12)


def shown_over(pixels: np.ndarray, shares: Tensor) -> np.ndarray:
    """Return pictures (..., H, W, 3) in [0, 1] under the heat of shares (..., H, W)."""
    return 0.4 * pixels + 0.6 * heat_of(shares)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy of a network in which nothing is left of what its weights have learned.

    Each weight is drawn anew from all values of its own tensor, so that every layer goes on putting
    out numbers of the size that it did (Adebayo et al. 2018, section 3, randomise all layers). The
    statistics of batch norm stay, for the same reason.
    """
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            places = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[places].view_as(weight))
    return model
