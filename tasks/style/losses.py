"""The losses of style transfer: how far a picture is from one's content and from another's style.

Sources: Gatys et al. 2016 (the losses), CS231n's assignment (their signatures).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.console import LabError, UsageError, is_out_of_memory
from lab.features import outputs_of, total_variation
from lab.imagenet import load_pretrained
from lab.images import Preprocess, read_image, whole_picture
from tasks.style import MOST_VARIED, PRESETS, RECIPES, Flags, Recipe
from tasks.trained import Trained, preprocess_of_run


def content_loss(content_weight: float, current: Tensor, original: Tensor) -> Tensor:
    """Return `content_weight` times the sum of squared differences (Gatys 2016, equation 1)."""
    return content_weight * F.mse_loss(current, original, reduction="sum")


class _Gram(torch.autograd.Function):
    """F F^T for features (N, C, P). Its gradient is one product, where autograd would make two."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return features @ features.mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        # Transposed, so that the gradient of channels_last features is channels_last.
        return (features.mT @ (gradient + gradient.mT)).mT


def gram_matrix(features: Tensor, normalize: bool = True) -> Tensor:
    """Return the products of every two channels, summed over positions (Gatys 2016, equation 3).

    Of features (N, C, H, W): (N, C, C), divided by C * H * W if `normalize`.
    """
    gram = _Gram.apply(features.flatten(2))
    return gram / features[0].numel() if normalize else gram


def style_loss(
    feats: Sequence[Tensor] | Mapping[str, Tensor],
    style_layers: Sequence[int] | Sequence[str],
    style_targets: Sequence[Tensor],
    style_weights: Sequence[float],
) -> Tensor:
    """Return the weighted sum of squared differences of Gram matrices (Gatys 2016, equation 5).

    Args:
        feats: (N, C, H, W) each.
        style_layers: which of `feats` count.
        style_targets, style_weights: the style picture's Gram matrix and a factor for each of them.
    """
    loss = 0
    for layer, target, weight in zip(style_layers, style_targets, style_weights, strict=True):
        loss = loss + weight * (gram_matrix(feats[layer]) - target).square().sum()
    return loss


def tv_loss(img: Tensor, tv_weight: float) -> Tensor:
    """Return the squared differences of neighbouring pixels, (N, C, H, W), along both axes."""
    return tv_weight * total_variation(img, mean=False).sum()


class FeatureExtractor(nn.Module):
    """A frozen copy of a network, from images to a dict of what some layers, by name, put out.

    Raises:
        LabError: no such layer; names those there are.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]):
        super().__init__()
        known = [name for name, _ in model.named_modules() if name]
        if unknown := [layer for layer in layers if layer not in known]:
            outer = [name for name in known if name.count(".") < 2]
            raise LabError(f"the network has no layer {unknown[0]!r}; there are {', '.join(outer)}")
        self.layers = tuple(layers)
        self.network = copy.deepcopy(model).to(memory_format=torch.channels_last)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        modules = [self.network.get_submodule(layer) for layer in self.layers]
        return dict(zip(self.layers, outputs_of(self.network, modules, images), strict=True))


class StyleLosses:
    """The three losses of Gatys et al. for one style picture, by one network's features.

    Args:
        extractor: from images to a dict that holds the recipe's layers.
        style_image: network input, (1, 3, H, W).
    """

    def __init__(self, extractor: nn.Module, recipe: Recipe, style_image: Tensor):
        self.extractor, self.recipe = extractor, recipe
        with torch.no_grad():
            features = self.features(style_image)
            self.style_targets = [gram_matrix(features[layer]) for layer in recipe.style_layers]

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the features of images (N, 3, H, W), in float32 also under autocast.

        Raises:
            LabError: the images are too small for the network.
        """
        try:
            features = self.extractor(images.contiguous(memory_format=torch.channels_last))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            height, width = images.shape[-2:]
            raise LabError(
                f"a picture of {width}x{height} pixels is too small for the network "
                f"({str(error).splitlines()[0]}); raise --size or --style_size"
            ) from error
        return {layer: values.float() for layer, values in features.items()}

    @torch.no_grad()
    def content_target(self, images: Tensor) -> Tensor:
        """Return what `content_loss` compares images (N, 3, H, W) with."""
        return self.features(images)[self.recipe.content_layer]

    def __call__(self, images: Tensor, content_target: Tensor) -> Tensor:
        """Return the content, style and total variation loss, (3,), summed over the images."""
        recipe, features = self.recipe, self.features(images)
        with torch.autocast(images.device.type, enabled=False):  # bf16 cannot tell G from A
            return torch.stack([
                content_loss(recipe.content_weight, features[recipe.content_layer], content_target),
                style_loss(features, recipe.style_layers, self.style_targets, recipe.style_weights),
                tv_loss(images, recipe.tv_weight),
            ])  # fmt: skip


def make_losses(
    flags: Flags, style_file: Path, device: torch.device, trained: Trained | None = None
) -> tuple[StyleLosses, Preprocess]:
    """Return the losses that flags ask for, and how the compared network wants its pictures.

    Args:
        trained: whose features are compared; None for torchvision's network of `--model`.
    """
    if trained is None:
        published = load_pretrained(flags.model, flags.weights)
        name, network, preprocess = flags.model, published.network, published.preprocess
    else:
        name, network, preprocess = compared_network(trained)
    recipe = RECIPES.get(name) or PRESETS[flags.preset]
    given = {entry.name: getattr(flags, entry.name, None) for entry in fields(Recipe)}
    recipe = replace(recipe, **{name: v for name, v in given.items() if v is not None})
    if len(recipe.style_weights) != len(recipe.style_layers):
        raise UsageError(
            f"--style_weights takes {len(recipe.style_layers)} numbers, one for each of "
            f"{', '.join(recipe.style_layers)}; {len(recipe.style_weights)} are given"
        )
    extractor = FeatureExtractor(network, (recipe.content_layer, *recipe.style_layers))
    style = whole_picture(
        read_image(style_file), recipe.style_size, preprocess, MOST_VARIED, style_file.name
    )
    return StyleLosses(extractor.to(device), recipe, style.to(device)), preprocess


def compared_network(trained: Trained) -> tuple[str, nn.Module, Preprocess]:
    """Return what features a run has to compare by: name, network, how it wants its pictures.

    Raises:
        LabError: no recipe is for it.
    """
    name, known = trained.state.get("network", trained.task.network), (*RECIPES, "squeezenet1_1")
    if name not in known:
        raise LabError(
            f"{trained.path} holds a {name}, and no recipe says which of its layers to compare; "
            f"take one of {', '.join(known)}"
        )
    preprocess = preprocess_of_run(trained.state)
    if len(preprocess.mean) != 3:
        raise LabError(f"{trained.path} looks at grey pictures; take a network for colour")
    # Of a classifier of ours, the rest takes pictures of one size alone.
    body = trained.network.conv_net if name == "classifier" else trained.network
    return name, body, preprocess
