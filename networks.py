"""The networks of the lab: blocks first, then the classifier they make up.

    from networks import Classifier, ConvBlock, MnistCNN, NonLocalBlock, STN

Shapes are written as N (images), C (channels), T (frames), H, W. Sources: batch normalisation
(Ioffe and Szegedy 2015), residual learning (He et al. 2016), spatial transformer networks
(Jaderberg et al. 2015), non-local neural networks (Wang et al. 2018).
"""

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from console import LabError

NEW_LAYER_RATE = 10.0  # of a new output layer, over the body's, in fine-tuning
IMAGE_SIZE = 32  # height and width in pixels that the classifier's linear layers are laid out for


class ConvBlock(nn.Module):
    """`relu(bn(conv(x)))`, plus `x` after the activation when residual.

    Args:
        in_channels, out_channels, kernel_size, stride, padding: as in `nn.Conv2d`.
        use_batch_norm: normalise between convolution and activation; else `bn` is an identity.
        use_residual: add the input; it must have the shape of the output.

    Shape: (N, in_channels, H, W) to (N, out_channels, H', W'),
    H' = floor((H + 2 * padding - kernel_size) / stride) + 1, W' alike.

    Raises:
        ValueError: residual, but the block changes the number of channels or the resolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        use_batch_norm: bool = False,
        use_residual: bool = False,
    ):
        super().__init__()
        keeps_shape = in_channels == out_channels and stride == 1 and kernel_size == 2 * padding + 1
        if use_residual and not keeps_shape:
            raise ValueError(
                "a residual block adds its input to its output, so both need one shape: got "
                f"{in_channels} to {out_channels} channels, kernel {kernel_size}, stride {stride}, "
                f"padding {padding}"
            )
        self.use_residual = use_residual
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
        self.bn = nn.BatchNorm2d(out_channels) if use_batch_norm else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn(self.conv(x)))
        return out + x if self.use_residual else out


class STN(nn.Module):
    """Spatial transformer (Jaderberg et al. 2015): learns where in the image to look.

    The localisation network regresses theta, a 2x3 affine matrix an image (section 3.1), which
    takes each output position to the input position sampled there (equation 1; both in [-1, 1]).
    The last layer starts at the identity: untrained, the output is the input.

    Shape: (N, in_channels, 32, 32) to the same.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        self.localization_conv = nn.Sequential(
            ConvBlock(in_channels, 16, 5, 2, 2, use_batch_norm=True),  # (N, 16, 16, 16)
            ConvBlock(16, 32, 3, 2, 1, use_batch_norm=True),  # (N, 32, 8, 8)
            ConvBlock(32, 64, 3, 2, 1, use_batch_norm=True),  # (N, 64, 4, 4)
        )
        self.localization_fc = nn.Sequential(
            nn.Linear(64 * (IMAGE_SIZE // 8) ** 2, 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 6),
        )
        nn.init.zeros_(self.localization_fc[-1].weight)
        with torch.no_grad():
            self.localization_fc[-1].bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def localize(self, x: Tensor) -> Tensor:
        """Return theta, (N, 2, 3), at least float32, for images (N, C, 32, 32)."""
        features = self.localization_conv(x)
        theta = self.localization_fc(features.flatten(1))
        # bf16 could only place a sample to 1/256 of the image.
        return theta.to(torch.promote_types(theta.dtype, torch.float32)).view(-1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return warp(x, self.localize(x))


def warp(images: Tensor, theta: Tensor) -> Tensor:
    """Sample images (N, C, H, W) where theta (N, 2, 3) says, bilinear, 0 (mid-grey) outside."""
    with torch.autocast(images.device.type, enabled=False):  # its matrix product would be bf16
        grid = F.affine_grid(theta, images.shape, align_corners=False)  # (N, H, W, 2)
    return F.grid_sample(images, grid, align_corners=False)


class NonLocalBlock(nn.Module):
    """Embedded-Gaussian attention over all positions of a clip (Wang et al. 2018, equation 6).

    `x + out_conv(softmax(query(x)^T key(x)) value(x))`, unscaled as in the paper, over the
    T * H * W positions. The output convolution starts at zero, so that the untrained block is the
    identity (section 4.1) and can be put into a trained network.

    Shape: (N, in_channels, T, H, W) to the same.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        inner_channels = in_channels // 2
        self.query_conv = nn.Conv3d(in_channels, inner_channels, 1)
        self.key_conv = nn.Conv3d(in_channels, inner_channels, 1)
        self.value_conv = nn.Conv3d(in_channels, inner_channels, 1)
        self.out_conv = nn.Conv3d(inner_channels, in_channels, 1)
        nn.init.zeros_(self.out_conv.weight)
        nn.init.zeros_(self.out_conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        # (N, 1, THW, C/2), contiguous along channels: what the attention kernel that never holds
        # the THW x THW matrix asks for.
        query, key, value = (
            conv(x).flatten(2).transpose(1, 2).contiguous().unsqueeze(1)
            for conv in (self.query_conv, self.key_conv, self.value_conv)
        )
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        attended = attended.squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.out_conv(attended)


@dataclass(frozen=True)
class ClassifierConfig:
    """All that is needed to build a `Classifier`; saved in its checkpoints as `configs`."""

    in_channels: int
    num_classes: int
    use_batch_norm: bool = False
    use_stn: bool = False
    dropout_prob: float = 0.0


class Classifier(nn.Module):
    """The assignment's CNN: five convolution blocks, two linear layers, an optional STN in front.

    Shape: images (N, in_channels, 32, 32) to logits (N, num_classes).
    """

    image_size = IMAGE_SIZE

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        use_batch_norm: bool = False,
        use_stn: bool = False,
        dropout_prob: float = 0,
    ):
        super().__init__()
        self.config = ClassifierConfig(
            in_channels, num_classes, use_batch_norm, use_stn, dropout_prob
        )
        bn = use_batch_norm
        self.stn = STN(in_channels) if use_stn else nn.Identity()
        self.conv_net = nn.Sequential(
            ConvBlock(in_channels, 32, 5, 1, 2, bn),  # (N, 32, 32, 32)
            ConvBlock(32, 64, 5, 2, 2, bn),  # (N, 64, 16, 16)
            nn.MaxPool2d(2, 2),  # (N, 64, 8, 8)
            ConvBlock(64, 64, 3, 1, 1, bn, use_residual=True),
            ConvBlock(64, 128, 3, 1, 1, bn),  # (N, 128, 8, 8)
            nn.MaxPool2d(2, 2),  # (N, 128, 4, 4)
            ConvBlock(128, 128, 3, 1, 1, bn, use_residual=True),
            nn.Dropout(dropout_prob),
        )
        self.fc_net = nn.Sequential(
            nn.Linear(128 * (IMAGE_SIZE // 8) ** 2, 256),
            nn.ReLU(),
            nn.BatchNorm1d(256) if use_batch_norm else nn.Identity(),
            nn.Dropout(dropout_prob),
            nn.Linear(256, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv_net(self.stn(x))  # (N, 128, 4, 4)
        return self.fc_net(features.flatten(1))


@dataclass(frozen=True)
class MnistCNNConfig:
    """All that is needed to build an `MnistCNN`; saved in its checkpoints as `configs`."""

    in_channels: int
    num_classes: int
    dropout_prob: float = 0.3


class MnistCNN(nn.Module):
    """The MNIST assignment's CNN: two convolutions and two linear layers.

    Shape: images (N, in_channels, 28, 28) to logits (N, num_classes).
    """

    image_size = 28

    def __init__(self, in_channels: int, num_classes: int, dropout_prob: float = 0.3):
        super().__init__()
        self.config = MnistCNNConfig(in_channels, num_classes, dropout_prob)
        self.conv_net = nn.Sequential(
            ConvBlock(in_channels, 32, 3, 1, 0),  # (N, 32, 26, 26)
            nn.MaxPool2d(2, 2),  # (N, 32, 13, 13)
            ConvBlock(32, 64, 3, 1, 0),  # (N, 64, 11, 11)
            nn.MaxPool2d(2, 2),  # (N, 64, 5, 5)
            nn.Dropout(dropout_prob),
        )
        self.fc_net = nn.Sequential(
            nn.Linear(64 * 5 * 5, 128),
            nn.ReLU(),
            nn.Dropout(dropout_prob),
            nn.Linear(128, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_net(self.conv_net(x).flatten(1))


# Our own networks by name, each with the dataclass that holds its arguments. `image_size` of a
# network is the height and width in pixels that its linear layers are laid out for.
NETWORKS = {"classifier": (Classifier, ClassifierConfig), "mnist_cnn": (MnistCNN, MnistCNNConfig)}


def build_network(name: str, configs: dict[str, Any]) -> nn.Module:
    """Build an untrained network: one of `NETWORKS`, or any of torchvision's classifiers.

    Args:
        name: in `NETWORKS` or in torchvision's registry.
        configs: its arguments; torchvision's networks take `num_classes` (1000 as published).

    Raises:
        LabError: no such network, or an argument is missing or unknown.
    """
    try:
        if name in NETWORKS:
            network, config = NETWORKS[name]
            return network(**asdict(config(**configs)))
        return _build_torchvision(name, **configs)
    except TypeError as error:
        raise LabError(f"the configs do not fit the network {name!r}: {error}") from error


def _build_torchvision(name: str, num_classes: int = 1000) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise LabError(
            f"unknown network {name!r}; there are {', '.join(NETWORKS)} and torchvision's "
            "classifiers, resnet18, vgg19, squeezenet1_1 and so on"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a change in how two of them start
        model = models.get_model(name, weights=None)
    if num_classes != 1000:
        replace_output_layer(model, num_classes)
    return model


def output_layer(model: nn.Module) -> tuple[str, nn.Module]:
    """Return the layer that makes the logits, with its name: the last linear or 1x1 convolution."""
    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and not name.startswith("aux")
    ]
    return layers[-1]


def replace_output_layer(model: nn.Module, num_classes: int) -> None:
    """Give a network a new, untrained output layer for `num_classes` classes."""
    name, old = output_layer(model)
    if isinstance(old, nn.Conv2d):  # SqueezeNet
        new = nn.Conv2d(old.in_channels, num_classes, old.kernel_size)
    else:
        new = nn.Linear(old.in_features, num_classes)
    model.set_submodule(name, new)


def check_network(name: str, configs: dict[str, Any], size: tuple[int, int]) -> bool:
    """Find out, computing nothing but shapes, whether a network can be trained on images of a size.

    Args:
        name, configs: as in `build_network`.
        size: (H, W) of the images in pixels.

    Returns:
        True if it normalises batches, so that it cannot train on one image.

    Raises:
        LabError: no such network, images too small for it, or several logits an image in training.
    """
    model = build_network(name, configs)
    if name not in NETWORKS:
        try:
            logits = model.to("meta").train()(torch.empty(2, 3, *size, device="meta"))
        except (RuntimeError, AssertionError, ValueError) as error:
            height, width = size
            raise LabError(
                f"{name} takes no images of {height}x{width} pixels; try another --image_size"
            ) from error
        if not isinstance(logits, Tensor):
            raise LabError(
                f"{name} puts out several logits an image in training, which is not supported; "
                "try another network, resnet18 or mobilenet_v3_small"
            )
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules())


def load_network(state: dict[str, Any]) -> nn.Module:
    """Rebuild a trained network from a loaded checkpoint, with no other knowledge.

    Raises:
        LabError: the weights do not fit the network that the configs describe.
    """
    model = build_network(state.get("network", "classifier"), state["configs"])
    load_weights(model, state["model_state"])
    return model


def load_body(model: nn.Module, weights: dict[str, Tensor]) -> str | None:
    """Load a state dict for fine-tuning; an output layer for another number of classes is left out.

    Returns:
        The name of the output layer if it is new, i.e. untrained; None if it is loaded as well.

    Raises:
        LabError: the rest does not fit; names the first mismatch.
    """
    name, layer = output_layer(model)
    trained = weights.get(f"{name}.weight")
    if trained is None or len(trained) == len(layer.weight):
        load_weights(model, weights)
        return None
    own = {key: value for key, value in model.state_dict().items() if key.startswith(f"{name}.")}
    load_weights(model, weights | own)
    return name


def parameter_groups(
    model: nn.Module, new_layer: str | None = None, freeze: bool = False
) -> list[dict[str, Any]]:
    """Return what an optimizer is to train; what it is not is frozen.

    Args:
        new_layer: name of a layer put onto a trained body: it learns `NEW_LAYER_RATE` times as
            fast, having further to go.
        freeze: train the output layer alone.

    Returns:
        Groups as torch.optim takes them; `lr_scale` is what `engine` multiplies the rate by.
    """
    if freeze:
        model.requires_grad_(False)
        return [{"params": list(output_layer(model)[1].requires_grad_().parameters())}]
    if new_layer is None:
        return [{"params": list(model.parameters())}]
    head = list(model.get_submodule(new_layer).parameters())
    body = [parameter for parameter in model.parameters() if all(parameter is not h for h in head)]
    return [{"params": body}, {"params": head, "lr_scale": NEW_LAYER_RATE}]


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load a state dict into a network.

    Raises:
        LabError: they do not fit; names the first mismatch.
    """
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = str(error).strip().splitlines()
        first = lines[min(1, len(lines) - 1)].strip()
        raise LabError(f"the weights do not fit the network: {first[:200]}") from error
