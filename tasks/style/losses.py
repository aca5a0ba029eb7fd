"""The losses of style transfer: how far a picture is from one's content and from another's style.

Sources: Gatys et al. 2016 (the losses), CS231n's assignment (their signatures).
"""

import copy
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab import checkpoint
from lab.console import LabError, UsageError
from lab.features import outputs_of, total_variation
from lab.images import Preprocess, read_picture
from networks import load_network, load_pretrained
from tasks.style import PRESETS, RECIPES, Recipe

# ---------------------------------------------------------------- losses


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

    Args:
        features: (N, C, H, W).
        normalize: divide by C * H * W.

    Returns:
        (N, C, C).
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
        style_targets: Gram matrix of the style picture in each of these layers.
        style_weights: a factor for each of these layers.
    """
    triples = zip(style_layers, style_targets, style_weights, strict=True)
    return sum(
        weight * (gram_matrix(feats[layer]) - target).square().sum()
        for layer, target, weight in triples
    )


def tv_loss(img: Tensor, tv_weight: float) -> Tensor:
    """Return the squared differences of neighbouring pixels, (N, C, H, W), along both axes."""
    return tv_weight * total_variation(img, mean=False).sum()


# ---------------------------------------------------------------- features


class FeatureExtractor(nn.Module):
    """A frozen copy of a network, from images to a dict of what some of its layers put out.

    Args:
        model: any network; it stays as it is.
        layers: names of modules in it.

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
        recipe: layers and weights.
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
            if isinstance(error, torch.OutOfMemoryError):
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


# ---------------------------------------------------------------- as the flags ask


def make_losses(
    args: Namespace, style_file: Path, device: torch.device
) -> tuple[StyleLosses, Preprocess]:
    """Build the losses that style.py's flags ask for.

    Returns:
        Them, and how the compared network wants its pictures.
    """
    name, network, preprocess = compared_network(args)
    recipe = RECIPES.get(name) or PRESETS[args.preset]
    given = {
        field.name: getattr(args, field.name)
        for field in fields(Recipe)
        if getattr(args, field.name, None) is not None
    }
    recipe = replace(recipe, **given)
    if len(recipe.style_weights) != len(recipe.style_layers):
        raise UsageError(
            f"--style_weights takes {len(recipe.style_layers)} numbers, one for each of "
            f"{', '.join(recipe.style_layers)}; {len(recipe.style_weights)} are given"
        )
    extractor = FeatureExtractor(network, (recipe.content_layer, *recipe.style_layers))
    style = read_picture(style_file, recipe.style_size, preprocess)
    return StyleLosses(extractor.to(device), recipe, style.to(device)), preprocess


def compared_network(args: Namespace) -> tuple[str, nn.Module, Preprocess]:
    """Return the network whose features are compared, its name, and how it wants its pictures.

    Raises:
        LabError: no recipe is for it.
    """
    if args.ckpt_path is None or args.train:
        loaded = load_pretrained(args.model, args.weights)
        return args.model, loaded.model, loaded.preprocess
    path = checkpoint.find(args.ckpt_path, "last")
    state = checkpoint.load(path)
    if state.get("task") == "style":
        raise LabError(f"{path} paints in a style of its own; leave out --style")
    name = state.get("network", "classifier")
    known = (*RECIPES, "squeezenet1_1")
    if name not in known:
        raise LabError(
            f"{path} holds a {name}, and no recipe says which of its layers to compare; "
            f"take one of {', '.join(known)}"
        )
    network, preprocess = load_network(state), Preprocess(**state.get("preprocess", {}))
    if len(preprocess.mean) != 3:
        raise LabError(f"{path} looks at grey pictures; take a network for colour")
    if name == "classifier":
        network = network.conv_net  # the rest takes pictures of one size alone
    return name, network, preprocess
