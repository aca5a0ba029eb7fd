"""What a trained network has learned: its layers' outputs, and images found by gradients.

    maps = saliency_maps(model, images, labels)                # which pixels a decision hangs on
    fooling = make_fooling_image(model, image, target)         # a small change that turns it
    images = visualize_classes(model, targets, preprocess)     # what a class looks like to it
    images = invert_features(model, layer, image, preprocess)  # what a layer still knows

`model` is in evaluation mode and asks for no gradients of its weights; `images` are its input,
(N, C, H, W), as its `Preprocess` makes it. Sources: activation maximisation (Erhan et al. 2009;
Yosinski et al. 2015), saliency and class visualisation (Simonyan et al. 2013), fooling images
(Szegedy et al. 2013), inversion (Mahendran and Vedaldi 2015).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from lab.augmentation import move
from lab.console import progress
from lab.features import inputs_of, outputs_of, total_variation
from lab.images import Preprocess
from lab.weights import output_layer
from networks import ConvBlock, NonLocalBlock

# ---------------------------------------------------------------- layers


def conv_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that `--layer_idx` counts, by name: our ConvBlocks, else convolutions.

    Those of a spatial transformer do not count, which look for where to look, nor those of
    auxiliary classifiers, which are for training alone.
    """
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, ConvBlock | nn.Conv2d) and not name.lower().startswith(("stn.", "aux"))
    }
    blocks = {name: layer for name, layer in layers.items() if isinstance(layer, ConvBlock)}
    return blocks or layers


def spatial_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the convolutions, of images and of clips, that see more than single places, by name.

    Our ConvBlocks count as one each; layers that tell classes apart do not count.
    """
    outputs = tuple(getattr(model, "outputs", ()))
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, ConvBlock | nn.Conv2d | nn.Conv3d) and not name.startswith(outputs)
    }
    inner = {f"{name}.conv" for name, layer in layers.items() if isinstance(layer, ConvBlock)}
    return {
        name: layer
        for name, layer in layers.items()
        if name not in inner and max(getattr(layer, "conv", layer).kernel_size) > 1
    }


def convolution_of(layer: nn.Module) -> nn.Conv2d:
    """Return the convolution of a layer out of `conv_layers`."""
    return layer.conv if isinstance(layer, ConvBlock) else layer


def reach(model: nn.Module, layer: nn.Module, images: Tensor) -> int:
    """Return the side in pixels of what a place of a layer's map sees, in the middle of a map."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        (maps,) = outputs_of(model, [layer], images)
        height, width = maps.shape[2:]
        (seen,) = torch.autograd.grad(maps[0, :, height // 2, width // 2].sum(), images)
    rows, columns = seen[0].abs().sum(0).nonzero(as_tuple=True)
    return int(max(np.ptp(rows.numpy()), np.ptp(columns.numpy()))) + 1 if len(rows) else 1


def hidden_features(model: nn.Module, images: Tensor) -> Tensor:
    """Return what the output layer gets, (N, features); a map's mean over its positions."""
    features = inputs_of(model, output_layer(model)[1], images)
    return features.mean((2, 3)) if features.dim() == 4 else features


def non_local_blocks(model: nn.Module) -> dict[str, NonLocalBlock]:
    """Return the network's non-local blocks, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, NonLocalBlock)}


# ---------------------------------------------------------------- gradients


def _slope(score: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the gradient of a score of images, a number, with respect to them."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(score(images), images)[0]


def _climb(images: Tensor, gradients: Tensor, lr: float, bounds: tuple[Tensor, Tensor]) -> Tensor:
    """Return images a step of `lr`, root mean square, up their smoothed gradients, in `bounds`."""
    gradients = F.avg_pool2d(gradients, 3, 1, 1, count_include_pad=False)
    length = gradients.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-12  # never quite 0
    return (images + lr * gradients / length).clamp(*bounds)


def _scale_at(step: int, steps: int, scales: Sequence[float]) -> float:
    """Return the scale of a step: each has its share of them, the last step is at the last."""
    return scales[-1 - (steps - 1 - step) * len(scales) // steps]


# ---------------------------------------------------------------- filters

SCALES = (12, 16, 24, 32)  # pixels; images that excite filters are found coarse to fine


def filter_responses(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """Return each filter's mean response, (N, filters), before the activation.

    A tenth of what the activation would cut off counts too: a silent filter has a slope to climb.
    """
    before_activation = layer.bn if isinstance(layer, ConvBlock) else layer
    (responses,) = outputs_of(model, [before_activation], images)
    return F.leaky_relu(responses, 0.1).mean((2, 3))


def excitable_sides(model: nn.Module, layer: nn.Module, preprocess: Preprocess) -> list[int]:
    """Return sides of images, coarse to fine, at which the network computes a layer.

    The last is 64 pixels, or what the network is for if that is less; more where it asks for more.
    """
    own = min(preprocess.size)
    device = next(model.parameters()).device

    def takes(side: int) -> bool:
        try:
            images = torch.zeros(1, len(preprocess.mean), side, side, device=device)
            return bool(outputs_of(model, [layer], images))
        except (RuntimeError, AssertionError):
            return False

    finest = next((side for side in (64, 96, 128) if side < own and takes(side)), own)
    sides = [scale * finest // SCALES[-1] for scale in SCALES[:-1]]
    return [side for side in sides if takes(side)] + [finest]


def excite_filters(
    model: nn.Module,
    layer: nn.Module,
    preprocess: Preprocess,
    filters: int,
    scales: Sequence[int] = SCALES,
    steps: int = 48,
    lr: float = 0.1,
    seed: int = 0,
) -> Tensor:
    """Find, for each of a layer's first `filters` filters, the image that excites it most.

    Gradient ascent on the filter's mean response from faint noise, each step of fixed length, all
    filters at once as one batch: image i climbs on filter i alone. It climbs at each of `scales`
    in turn, so that large shapes come first. The image is jittered by up to two pixels a step and
    drawn towards grey, and the gradient smoothed, so that no single pixel counts.

    Args:
        scales: sides of the image in pixels, the last being that of the result.
        steps: of the ascent, over all scales.
        lr: root mean square change of a pixel a step.
        seed: of the noise and the jitter.

    Returns:
        Network input (filters, C, side, side).
    """
    device = next(model.parameters()).device
    bounds, generator = preprocess.bounds(device), torch.Generator().manual_seed(seed)
    noise = torch.randn(1, len(preprocess.mean), scales[0], scales[0], generator=generator) * 0.1
    images = noise.to(device).repeat(filters, 1, 1, 1)
    for step in progress(range(steps), label=f"exciting {filters} filters"):
        side = _scale_at(step, steps, scales)
        if images.shape[-1] != side:
            images = F.interpolate(images, size=(side, side), mode="bilinear")
        shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
        # The diagonal's gradient leaves every image to its own filter.
        gradients = _slope(
            lambda moved: filter_responses(model, layer, moved).diagonal().sum(),
            images.roll(shift, (2, 3)),
        ).roll([-pixels for pixels in shift], (2, 3))
        images = _climb(images * 0.98, gradients, lr, bounds)
    return images


# ---------------------------------------------------------------- saliency


def saliency_maps(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return how much each pixel sways the score of an image's label (Simonyan 2013, section 3).

    The absolute gradient of the unnormalised score, its maximum over colour channels. One backward
    pass serves the batch: the sum of the scores has each image's own gradient.

    Shape: images (N, C, H, W) and int64 labels (N,) to (N, H, W).
    """
    return saliency_of(lambda images: model(images).gather(1, labels[:, None]).sum(), images)


def saliency_of(score: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return how much each pixel of images (N, C, H, W) sways a number, (N, H, W)."""
    return _slope(score, images).abs().amax(1)


def object_masks(saliency: Tensor, blur: int = 2, share: float = 0.25) -> Tensor:
    """Return the part of each image that its saliency map marks as the object: bool (N, H, W).

    The `share` of pixels that are highest once the map has been smoothed, with a radius of
    `blur` times a thirty-second of its side.
    """
    radius = max(1, blur * saliency.shape[-1] // 32)
    smooth = saliency[:, None]
    for _ in range(2):  # two box filters make a bell
        smooth = F.avg_pool2d(smooth, 2 * radius + 1, 1, radius, count_include_pad=False)
    limits = smooth.flatten(1).quantile(1 - share, 1)
    return smooth[:, 0] > limits[:, None, None]


# ---------------------------------------------------------------- fooling


class Fooling(NamedTuple):
    """An image and what became of it."""

    image: Tensor  # network input (1, C, H, W), the fooling one
    difference: Tensor  # of pixels in [0, 1], (1, C, H, W): fooling minus original
    steps: int  # taken; 0 where the network said the target from the start
    fooled: bool  # whether the network says the target


def make_fooling_image(
    model: nn.Module,
    image: Tensor,
    target: int,
    preprocess: Preprocess,
    lr: float = 0.5,
    steps: int = 100,
    max_change: float = 0.099,
) -> Fooling:
    """Change an image a little until the network says `target` (Szegedy et al. 2013).

    Normalised gradient ascent on the target's unnormalised score, `lr * g / ||g||`, clamped to
    what pixels can be and to `max_change` about the original.

    Args:
        image: network input (1, C, H, W).
        target: index of the class.
        lr: length of a step (L2, in units of network input).
        steps: at the most.
        max_change: of any pixel, which is in [0, 1] (L-infinity).
    """
    black, white = preprocess.bounds(image.device)
    reach = max_change * (white - black)
    low, high = torch.maximum(image - reach, black), torch.minimum(image + reach, white)
    original = image
    for taken in range(steps + 1):
        image = image.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(image)
            (gradient,) = torch.autograd.grad(logits[0, target], image)
        image = image.detach()
        fooled = int(logits.argmax()) == target
        if fooled or taken == steps:
            break
        # A pixel at its limit cannot follow; the step's length goes to those that can.
        gradient = gradient * torch.where(gradient > 0, image < high, image > low)
        image = (image + lr * gradient / (gradient.norm() + 1e-12)).clamp(low, high)
    difference = preprocess.denormalize(image) - preprocess.denormalize(original)
    return Fooling(image, difference, taken, fooled)


# ---------------------------------------------------------------- class visualisation


def visualize_classes(
    model: nn.Module,
    targets: Sequence[int],
    preprocess: Preprocess,
    steps: int = 200,
    lr: float = 0.1,
    l2_weight: float = 5e-3,
    rival_weight: float = 1.0,
    blur_every: int = 4,
    seed: int = 0,
    watch: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Find an image a class that looks like the class to the network (Simonyan 2013, section 2).

    Climbs on `class_objective` from faint noise, all targets at once, as one batch, by steps of
    fixed length. What keeps the image from becoming a pattern that means nothing to us: it is found
    coarse to fine, every step sees it through another jitter (shift, turn, scale), and it is
    blurred every few steps but for the last.

    Args:
        targets: indices of classes; may repeat.
        steps: of the ascent, over all scales.
        lr: root mean square change of a pixel a step, in units of network input.
        l2_weight, rival_weight: of `class_objective`.
        blur_every: steps from one blur to the next.
        seed: of the noise and the jitter.
        watch: called after each step with its number, their total and the images, (N, C, H, W).

    Returns:
        Network input (len(targets), C, H, W).
    """
    device = next(model.parameters()).device
    bounds, generator = preprocess.bounds(device), torch.Generator().manual_seed(seed)
    labels = torch.tensor(targets, device=device)
    height, width, channels = preprocess.shape
    images = torch.zeros(len(labels), channels, 1, 1, device=device)

    def full(images: Tensor) -> Tensor:
        return F.interpolate(images, size=(height, width), mode="bilinear")

    def objective(images: Tensor) -> Tensor:
        logits = model(jitter(full(images), generator))
        return class_objective(logits, labels, images, l2_weight, rival_weight)

    for step in progress(range(steps), label=f"visualising {len(labels)} classes"):
        share = _scale_at(step, steps, (3 / 8, 1 / 2, 3 / 4, 1))
        size = (round(height * share), round(width * share))
        if step == 0:
            noise = torch.randn(len(labels), channels, *size, generator=generator)
            images = noise.to(device) * 0.1
        elif images.shape[2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear")
        images = _climb(images, _slope(objective, images), lr, bounds)
        if step % blur_every == blur_every - 1 and step < 0.95 * steps:
            images = gaussian_blur(images, [5, 5], [0.7, 0.7])
        if watch is not None:
            watch(step + 1, steps, full(images))
    return images


def class_objective(
    logits: Tensor, labels: Tensor, images: Tensor, l2_weight: float, rival_weight: float
) -> Tensor:
    """Return what an image of a class is to maximise, a sum over the images.

    `s_y(I) - rival_weight * log sum_k exp s_k(I) - l2_weight * ||I||^2`, k all classes but y: the
    paper's objective, where a weight of 0 leaves out the rivals, with which classes that share
    their shape would end up as each other.
    """
    scores = logits.gather(1, labels[:, None])[:, 0]
    rivals = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    return (scores - rival_weight * rivals).sum() - l2_weight * images.square().sum()


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to a tenth of its side, turn it by up to 11 degrees, scale by 20 %."""
    return move(images, generator, rotation=0.2, shift=0.1, scale=0.2, shear=0.0)


# ---------------------------------------------------------------- inversion


def invert_features(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    preprocess: Preprocess,
    steps: int = 200,
    lr: float = 0.05,
    tv_weight: float = 6.0,
    seed: int = 0,
) -> Tensor:
    """Find images from what a layer says of them (Mahendran and Vedaldi 2015).

    Minimises `||f(x) - f(image)||^2 / ||f(image)||^2 + tv_weight * TV(x)` of each from noise by
    Adam, all of them as one batch.

    Args:
        images: network input (N, C, H, W).
        tv_weight: of the total variation of pixels in [0, 1]: what the features leave open becomes
            smooth.

    Returns:
        Network input of the same shape.
    """
    low, high = preprocess.bounds(images.device)
    wanted = outputs_of(model, [layer], images)[0].detach().flatten(1)
    energy = wanted.square().sum(1).clamp(min=1e-12)  # a layer may be dead on an image
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)) * 0.1
    found = noise.to(images.device).requires_grad_()
    optimizer = torch.optim.Adam([found], lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in progress(range(steps), label="inverting"):
        with torch.enable_grad():
            (features,) = outputs_of(model, [layer], found)
            errors = (features.flatten(1) - wanted).square().sum(1) / energy
            variation = total_variation(preprocess.denormalize(found))
            loss = (errors + tv_weight * variation).sum()
        (found.grad,) = torch.autograd.grad(loss, found)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            found.clamp_(low, high)
    return found.detach()


def psnr(pixels: Tensor, references: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image in [0, 1], 10 log10(1 / MSE) dB, (N,)."""
    return -10 * (pixels - references).square().mean((1, 2, 3)).log10()


# ---------------------------------------------------------------- how it is shown


def heat_of(shares: Tensor) -> np.ndarray:
    """Return shares of the most, (..., H, W) in [0, 1], in colours of heat, (..., H, W, 3)."""
    return colormaps["hot"](shares.clamp(max=1).cpu().numpy())[..., :3]


def sampling_frames(theta: Tensor, size: int) -> np.ndarray:
    """Return where on its input the STN samples the border of its output.

    Args:
        theta: (N, 2, 3), equation 1 of the paper.
        size: height and width of the image in pixels.

    Returns:
        Corners (N, 5, 2), the first repeated, as x, y in pixels: pixel (0, 0) spans -0.5 to 0.5.
    """
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1], [-1, -1, 1]])
    sampled = corners @ theta.detach().float().cpu().transpose(1, 2)  # (N, 5, 2) in [-1, 1]
    return ((sampled + 1) * size / 2 - 0.5).numpy()
