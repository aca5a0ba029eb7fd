"""Style transfer: the content of one picture in the manner of another.

    python style.py --content photo.jpg --style painting.jpg                  # optimise one picture
    python style.py --style painting.jpg --preset starry --steps 400 --start noise
    python style.py --style painting.jpg --model vgg19 --size 384 --optim_type lbfgs
    python style.py --style painting.jpg --ckpt_path checkpoints/bn     # by our own sign network
    python style.py --train --style painting.jpg --data_root FOLDER     # a network for one style
    python style.py --ckpt_path checkpoints/style --content photo.jpg   # which needs one pass

Sources: Gatys et al. 2016 (the losses, optimising a picture), CS231n's assignment (weights for
SqueezeNet), Johnson et al. 2016 (a network trained on the same losses), Ulyanov et al. 2016 (its
instance normalisation).
"""
# ruff: noqa: E402 - torch is imported below the flags, so that --help answers at once

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lab.console import (
    LabError,
    Parser,
    UsageError,
    natural,
    non_negative_float,
    positive_float,
    positive_int,
    progress,
    run,
    say,
)


@dataclass(frozen=True)
class Recipe:
    """Which features of a network are compared, and what each difference weighs.

    Attributes:
        content_layer, style_layers: modules of the network, by name.
        content_weight, style_weights, tv_weight: factors of `content_loss`, `style_loss` (one a
            layer) and `tv_loss`.
        size, style_size: shorter side of the content and of the style picture in pixels.
    """

    content_layer: str
    style_layers: tuple[str, ...]
    content_weight: float
    style_weights: tuple[float, ...]
    tv_weight: float
    size: int
    style_size: int


# CS231n's three, for SqueezeNet.
_FIRE = ("features.3", ("features.1", "features.4", "features.6", "features.7"))
PRESETS = {
    "composition": Recipe(*_FIRE, 5e-2, (20000, 500, 12, 1), 5e-2, 192, 512),
    "scream": Recipe(*_FIRE, 3e-2, (200000, 800, 12, 1), 2e-2, 192, 224),
    "starry": Recipe(*_FIRE, 6e-2, (300000, 1000, 15, 3), 2e-2, 192, 192),
}
# Of other networks. VGG-19: the last convolution of block 4 and the first of each block, after
# their ReLU. A layer's weight falls with the square of its channels, as the mean of its squared
# differences does. Of our classifier: its ConvBlocks, by their place in `conv_net`.
RECIPES = {
    "vgg19": Recipe(
        "features.26",
        ("features.1", "features.6", "features.11", "features.20", "features.29"),
        2e-2, (2.4e6, 6e5, 1.5e5, 4e4, 4e4), 1e-2, 256, 256,
    ),
    "classifier": Recipe(
        "3", ("0", "1", "3", "4"),
        1e-3, (2e5, 5e4, 5e4, 1e4), 3e-2, 192, 192,
    ),
}  # fmt: skip
OPTIMIZERS = {"lbfgs": 1.0, "adam": 0.1}  # with the learning rates they start at
SHOWN = (0, 1 / 20, 1 / 8, 1 / 3, 1)  # of the course, in the strip


def make_parser() -> Parser:
    """Return the parser of style.py's flags."""
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    for flag, options in {
        "--content": dict(help="file or http(s) address (default: scikit-learn's china.jpg)"),
        "--style": dict(help="file or http(s) address; without it --ckpt_path's network paints"),
        "--ckpt_path": dict(
            type=Path,
            help="with --train: folder of the run (default checkpoints/style); else a run to "
            "paint with, or a sign network whose features --style is compared in",
        ),
        "--device": dict(choices=("cpu", "cuda"), help="default: cuda when there is one, else cpu"),
        "--size": dict(type=positive_int, help="shorter side of the result (default: preset's)"),
        "--save_dir": dict(type=Path, default=Path("visualized"), help="(default %(default)s)"),
    }.items():
        parser.add_argument(flag, **options)
    losses = parser.add_argument_group("losses")
    for flag, options in {
        "--model": dict(
            choices=("squeezenet1_1", "vgg19"), default="squeezenet1_1",
            help="network whose features are compared (default %(default)s)",
        ),
        "--weights": dict(
            type=Path, metavar="FILE", help="of --model; default: torchvision's download"
        ),
        "--preset": dict(
            choices=PRESETS, default="composition",
            help="sizes and weights for squeezenet1_1 (default %(default)s)",
        ),
        "--style_size": dict(type=positive_int, help="shorter side of the style picture"),
        "--content_weight": dict(type=non_negative_float),
        "--style_weights": dict(type=non_negative_float, nargs="+", help="one a style layer"),
        "--tv_weight": dict(type=non_negative_float, help="of total variation"),
    }.items():  # fmt: skip
        losses.add_argument(flag, **options)
    one = parser.add_argument_group("one picture")
    for flag, options in {
        "--steps": dict(type=positive_int, default=200, help="of the optimizer"),
        "--start": dict(choices=("content", "noise"), default="content", help="picture to vary"),
        "--optim_type": dict(choices=OPTIMIZERS, default="lbfgs", help="optimizer"),
    }.items():
        options["help"] += " (default %(default)s)"
        one.add_argument(flag, **options)
    training = parser.add_argument_group("a network for one style (--train)")
    training.add_argument("--train", action="store_true", help="train one")
    training.add_argument(
        "--data_root", type=Path, help="folder of photographs, searched to any depth"
    )
    for flag, options in {
        "--epoch": dict(type=positive_int, default=2, help="epochs in all, resumed or not"),
        "--batch_size": dict(type=positive_int, default=4, help="images a step"),
        "--width": dict(type=positive_int, default=32, help="channels of the first layer"),
        "--precision": dict(
            choices=("auto", "fp32", "bf16"), default="auto", help="bf16 where it is fast"
        ),
    }.items():
        options["help"] += " (default %(default)s)"
        training.add_argument(flag, **options)
    training.add_argument(
        "--resume", type=Path, metavar="PATH", help="checkpoint or folder of a run to go on from"
    )
    parser.add_argument(
        "--lr", type=positive_float,
        help=f"learning rate (default: {', '.join(f'{k} {v}' for k, v in OPTIMIZERS.items())}; "
        "--train 1e-3)",
    )  # fmt: skip
    parser.add_argument("--seed", type=natural, default=0, help="(default %(default)s)")
    return parser


if __name__ == "__main__":
    make_parser().parse_args()

import copy
import operator
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from lab import checkpoint, engine
from lab.images import Preprocess, open_image, picture_file, read_picture, save_picture, to_arrays
from networks import load_network, load_pretrained

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
    vertical = F.mse_loss(img[:, :, 1:], img[:, :, :-1], reduction="sum")
    horizontal = F.mse_loss(img[..., 1:], img[..., :-1], reduction="sum")
    return tv_weight * (vertical + horizontal)


# ---------------------------------------------------------------- features


def feature_extractor(model: nn.Module, layers: Sequence[str]) -> nn.Module:
    """Return a frozen copy of a network up to `layers`, from images to a dict of their outputs.

    Args:
        model: any network that torch.fx can trace; it stays as it is.
        layers: names of modules in it.

    Raises:
        LabError: no such layer (names those there are), or the network cannot be traced.
    """
    known = [name for name, _ in model.named_modules() if name]
    if unknown := [layer for layer in layers if layer not in known]:
        outer = [name for name in known if name.count(".") < 2]
        raise LabError(f"the network has no layer {unknown[0]!r}; there are {', '.join(outer)}")
    network = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        extractor = create_feature_extractor(
            network, {layer: layer for layer in layers}, suppress_diff_warning=True
        )
    except Exception as error:  # the network's own code, run on stand-ins, raises anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LabError(f"the network cannot be traced for its features ({reason})") from error
    # What one layer hands out, the next must not overwrite.
    for module in extractor.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    for node in extractor.graph.nodes:
        if node.target is operator.iadd:
            node.target = operator.add
        if "inplace" in node.kwargs:
            node.update_kwarg("inplace", False)
    extractor.recompile()
    return extractor.to(memory_format=torch.channels_last)


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


# ---------------------------------------------------------------- one picture


@dataclass(frozen=True)
class Course:
    """What an optimisation went through.

    Attributes:
        losses: (steps + 1, 3): content, style and total variation before each step and at the end.
        pictures: step to network input, (1, 3, H, W), as it was before that step.
    """

    losses: Tensor
    pictures: dict[int, Tensor]

    @property
    def result(self) -> Tensor:
        return self.pictures[len(self.losses) - 1]


def transfer(
    losses: StyleLosses,
    content_image: Tensor,
    start: Tensor,
    bounds: tuple[Tensor, Tensor],
    steps: int = 200,
    optim_type: str = "lbfgs",
    lr: float | None = None,
) -> Course:
    """Vary a picture until content and style fit (Gatys et al. 2016, section 2.3).

    Args:
        content_image, start: network input, (1, 3, H, W).
        bounds: least and greatest network input of a pixel; the picture is clamped to them.
        steps: evaluations of the losses and their gradient, whichever the optimizer.
        optim_type: lbfgs or adam.
        lr: adam's falls from it to nearly nothing.

    Raises:
        LabError: the losses are no longer finite.
    """
    image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    lr = lr or OPTIMIZERS[optim_type]
    if optim_type == "adam":
        optimizer = torch.optim.Adam([image], lr, fused=True)
    else:  # one evaluation a step; a history beyond 5 cost time and gained nothing
        optimizer = torch.optim.LBFGS([image], lr, max_iter=1, history_size=5)
    content_target = losses.content_target(content_image)
    shown = {round(share * steps) for share in SHOWN}
    history, pictures = [], {}

    def evaluate() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        values = losses(image, content_target)
        total = values.sum()
        total.backward()
        history.append(values.detach())
        return total

    with progress(total=steps, label="painting") as bar:
        for step in range(steps):
            if step in shown:
                pictures[step] = image.detach().clone()
            if optim_type == "adam":
                optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            optimizer.step(evaluate)
            with torch.no_grad():
                image.clamp_(*bounds)
            if step % 10 == 0:  # a look waits for the device
                bar.set_postfix_str(describe(history[-1]), refresh=False)
            bar.update()
    with torch.no_grad():
        history.append(losses(image, content_target))
    if not history[-1].isfinite().all():
        raise LabError("the losses are no longer finite; lower --lr")
    pictures[steps] = image.detach()
    return Course(torch.stack(history).cpu(), pictures)


def describe(losses: Tensor) -> str:
    """Name the three losses of `StyleLosses`."""
    return ", ".join(
        f"{name} {value:,.0f}"
        for name, value in zip(("content", "style", "TV"), losses.tolist(), strict=True)
    )


def paint(args: Namespace, runtime: engine.Runtime) -> None:
    """Optimise one picture as the flags ask; save it, and its course as a strip."""
    content_file = picture_file(args.content, args.save_dir)
    losses, preprocess = make_losses(args, runtime)
    content = read_picture(content_file, losses.recipe.size, preprocess).to(runtime.device)
    bounds = preprocess.bounds(runtime.device)
    start = content
    if args.start == "noise":
        generator = torch.Generator().manual_seed(args.seed)
        noise = torch.rand(content.shape, generator=generator).to(runtime.device)
        start = bounds[0] + (bounds[1] - bounds[0]) * noise
    began = time.perf_counter()
    course = transfer(losses, content, start, bounds, args.steps, args.optim_type, args.lr)
    seconds = time.perf_counter() - began
    first, last = course.losses[0].sum(), course.losses[-1].sum()
    say(
        f"{args.steps} steps in {seconds:.0f} s: {describe(course.losses[-1])}; "
        f"in all {last:,.0f}, from {first:,.0f}"
    )
    name = f"{content_file.stem}_{Path(args.style_file).stem}"
    folder = args.save_dir / "style"
    save_picture(preprocess.denormalize(course.result), folder / f"{name}.jpg")
    draw_course(course, content, args.style_file, preprocess, folder / f"{name}_steps.jpg")


def draw_course(
    course: Course, content: Tensor, style_file: Path, preprocess: Preprocess, path: Path
) -> None:
    """Save a strip: content, style, and the picture at some steps with its losses."""
    import matplotlib.pyplot as plt

    from lab.pictures import publish

    panels = {"content": to_arrays(preprocess.denormalize(content))[0]}
    panels["style"] = np.asarray(open_image(style_file).convert("RGB"))
    for step, picture in course.pictures.items():
        caption = describe(course.losses[step]).replace(", ", "\n")
        pixels = to_arrays(preprocess.denormalize(picture))[0]
        panels[f"after {step} steps\n{caption}"] = pixels
    widths = [pixels.shape[1] / pixels.shape[0] for pixels in panels.values()]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.4 * sum(widths), 3.4), width_ratios=widths, layout="constrained"
    )
    for axis, (caption, pixels) in zip(axes, panels.items(), strict=True):
        axis.imshow(pixels)
        axis.axis("off")
        axis.set_title(caption, fontsize=9)
    publish(figure, path)


# ---------------------------------------------------------------- pictures and networks


def make_losses(args: Namespace, runtime: engine.Runtime) -> tuple[StyleLosses, Preprocess]:
    """Build what the flags ask for; returns also how the compared network wants its pictures.

    Sets `args.style_file`, the file of the style picture.
    """
    args.style_file = picture_file(args.style, args.save_dir)
    if args.ckpt_path is not None and not args.train:
        state = checkpoint.load(find_run(args.ckpt_path))
        name, network = state.get("network", "classifier"), load_network(state)
        preprocess = Preprocess(**state.get("preprocess", {}))
        if name == "classifier":
            network = network.conv_net  # the rest takes pictures of one size alone
    else:
        loaded = load_pretrained(args.model, args.weights)
        name, network, preprocess = args.model, loaded.model, loaded.preprocess
    recipes = RECIPES | {"squeezenet1_1": PRESETS[args.preset]}
    if name not in recipes:
        raise LabError(
            f"{args.ckpt_path} holds a {name}, and no recipe says which of its layers to compare; "
            f"take one of {', '.join(recipes)}"
        )
    if len(preprocess.mean) != 3:
        raise LabError(f"{args.ckpt_path} looks at grey pictures; take a network for colour")
    recipe = recipes[name]
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
    extractor = feature_extractor(network, (recipe.content_layer, *recipe.style_layers))
    style = read_picture(args.style_file, recipe.style_size, preprocess)
    return StyleLosses(extractor.to(runtime.device), recipe, style.to(runtime.device)), preprocess


def find_run(folder: Path) -> Path:
    """Return the newest checkpoint of a run; the scripts that make one are named if there is none.

    Raises:
        LabError: there is none.
    """
    if not checkpoint.epochs(folder):
        raise LabError(
            f"no checkpoints in {folder}; train a network for one style: python style.py --train "
            f"--style FILE --data_root FOLDER --ckpt_path {folder}"
        )
    return checkpoint.find(folder, "last")


# ---------------------------------------------------------------- the script


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    resumed = None
    if args.resume is not None:
        path = checkpoint.resume_point(args.resume)
        resumed = checkpoint.load(path)
        if resumed.get("task") != "style":
            raise LabError(f"{path} holds no network for one style; python train.py resumes others")
        known = resumed["flags"] | resumed["settings"] | {"ckpt_path": path.parent}
        for name in ("weights", "data_root"):
            known[name] = known[name] and Path(known[name])
        parser.set_defaults(**known)
        args = parser.parse_args()
        args.resume, args.train = path, True
    if args.train:
        for name in ("style", "data_root"):
            if getattr(args, name) is None:
                raise UsageError(f"--train needs --{name}, {WANTED[name]}")
        args.ckpt_path = args.ckpt_path or Path("checkpoints/style")
        from tasks import fast_style

        runtime = engine.start(args.device, args.precision)
        fast_style.train(args, runtime, *make_losses(args, runtime), resumed)
    elif args.style is not None:
        paint(args, engine.start(args.device, "fp32"))
    elif args.ckpt_path is not None:
        state = checkpoint.load(find_run(args.ckpt_path))
        if state.get("task") != "style":
            raise UsageError(f"{args.ckpt_path} holds no style of its own; give --style FILE")
        from tasks import fast_style

        fast_style.repaint(args, state, engine.start(args.device, "fp32"))
    else:
        raise UsageError(
            f"give --style, {WANTED['style']}; or --ckpt_path, a network trained with --train"
        )


WANTED = {
    "style": "a painting, as a file or an http(s) address",
    "data_root": "a folder of photographs, searched to any depth",
}

if __name__ == "__main__":
    run(main)
