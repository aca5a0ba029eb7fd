"""100 steps of style.py, and what the network and the Gram matrices' products take of them."""

import statistics
import time
from collections.abc import Hashable
from pathlib import Path

import torch
from torchvision.models import squeezenet1_1

from lab.runtime import Runtime
from speed import Figures, Turn, ratio, table
from tasks.style import PRESETS
from tasks.style.losses import FeatureExtractor, StyleLosses, gram_matrix
from tasks.style.picture import transfer

PICTURE = 256  # side in pixels of what is painted
STEPS = 100  # in one turn
NETWORK, PRODUCTS, WHOLE = (
    "network forward and backward", "and the products of the Gram matrices", "style.py",
)  # fmt: skip


def contestants(folder: Path, runtime: Runtime) -> dict[Hashable, Turn]:
    """Return the steps and their parts; the network's weights are random, which is as fast."""
    torch.manual_seed(0)
    recipe = PRESETS["composition"]
    layers = (recipe.content_layer, *recipe.style_layers)
    extractor = FeatureExtractor(squeezenet1_1(), layers).to(runtime.device)
    content, painting = torch.rand(2, 1, 3, PICTURE, PICTURE, device=runtime.device)
    losses = StyleLosses(extractor, recipe, painting)
    return {name: turns(name, losses, content, runtime) for name in (NETWORK, PRODUCTS, WHOLE)}


def report(figures: Figures, runtime: Runtime) -> str:
    """Return medians of the seconds, and the share of style.py's that they are."""
    return table(
        [f"style, {PICTURE}x{PICTURE}, SqueezeNet, fp32", f"s for {STEPS} steps", "share"],
        [
            [name, f"{statistics.median(figures[name]):.2f}", ratio(figures, name, WHOLE)]
            for name in (NETWORK, PRODUCTS, WHOLE)
        ],
    )


def turns(name: str, losses: StyleLosses, content: torch.Tensor, runtime: Runtime) -> Turn:
    """STEPS steps of style transfer, or of the part of them that `name` says: seconds."""
    recipe, device = losses.recipe, runtime.device
    gradients = losses.features(content)  # any of their shapes
    bounds = torch.zeros(3, 1, 1, device=device), torch.ones(3, 1, 1, device=device)

    def part_of_a_step() -> None:
        image = content.clone().requires_grad_()
        features = losses.features(image)
        outputs = {layer: (features[layer], gradients[layer]) for layer in features}
        if name == PRODUCTS:
            for layer, target in zip(recipe.style_layers, losses.style_targets, strict=True):
                outputs[layer] = gram_matrix(features[layer]), target
        torch.autograd.backward(*zip(*outputs.values(), strict=True))

    def turn() -> float:
        began = time.perf_counter()
        if name == WHOLE:
            transfer(losses, content, content, bounds, STEPS)
        else:
            for _ in range(STEPS):
                part_of_a_step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    turn()  # warm up
    return turn
