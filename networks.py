"""The networks of the lab: blocks first, then the classifier they make up.

    from networks import Classifier, ConvBlock, MnistCNN, NonLocalBlock, STN
    python networks.py                          # shapes of what goes in and comes out

Shapes are written as N (images), C (channels), T (frames), H, W. Sources: batch normalisation
(Ioffe and Szegedy 2015), residual learning (He et al. 2016), spatial transformer networks
(Jaderberg et al. 2015), non-local neural networks (Wang et al. 2018).
"""

from lab.console import LabError, run
from lab.flags import Parser

if __name__ == "__main__":  # a wrong flag is answered before torch is imported
    Parser(__doc__).parse_args()

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.registry import Design

IMAGE_SIZE = 32  # height and width in pixels that the classifier's linear layers are laid out for
NON_LOCAL_MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


def at_least_float32(x: Tensor) -> Tensor:
    """Widen a half-precision tensor, as autocast leaves it; others stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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
        return at_least_float32(theta).view(-1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return warp(x, self.localize(x))


def warp(images: Tensor, theta: Tensor) -> Tensor:
    """Sample images (N, C, H, W) where theta (N, 2, 3) says, bilinear, 0 (mid-grey) outside."""
    if torch.jit.is_scripting():  # which has no autocast but of a constant device
        grid = F.affine_grid(theta, images.shape, align_corners=False)
    else:
        with torch.autocast(images.device.type, enabled=False):  # its matrix product would be bf16
            grid = F.affine_grid(theta, images.shape, align_corners=False)  # (N, H, W, 2)
    return F.grid_sample(images.to(grid.dtype), grid, align_corners=False).to(images.dtype)


class NonLocalBlock(nn.Module):
    """Self-attention over all positions of a signal, image or clip (Wang et al. 2018).

    Each position i takes from all positions j, near or far, as much as f says:

        z_i = x_i + out_conv(y_i),  y_i = 1 / C(x) * sum_j f(x_i, x_j) g(x_j)    (equations 1, 6)

    with theta, phi, g = `query_conv`, `key_conv`, `value_conv` and f, C(x) by `mode`; the sum
    runs over P positions:

        embedded_gaussian   exp(theta(x_i) . phi(x_j))                  sum_j f(x_i, x_j)  (eq. 3)
        gaussian            exp(x_i . x_j)                              sum_j f(x_i, x_j)  (eq. 2)
        dot_product         theta(x_i) . phi(x_j)                       P                  (eq. 4)
        concatenation       relu(w_f . [theta(x_i), phi(x_j)])          P                  (eq. 5)

    The first two are a softmax over j, unscaled. No mode ever holds the P x P matrix of f:
    `attention` returns those of its rows that are asked for.

    Args:
        in_channels: at least 2; inside there are `in_channels // 2`.
        dimensions: axes besides N and C: 1 (T), 2 (H, W) or 3 (T, H, W).
        mode: one of `NON_LOCAL_MODES`.
        sub_sample: max-pool keys and values by two (section 3.4), a clip in space alone.
        identity_init: start `out_conv` at zero, so that the untrained block is the identity and can
            be put into a trained network (section 4.1).

    Shape: (N, in_channels, *size) to the same, `len(size) == dimensions`.

    Raises:
        ValueError: fewer channels than 2, unknown dimensions or mode, an input of other dimensions.
    """

    def __init__(
        self,
        in_channels: int,
        dimensions: int = 3,
        mode: str = "embedded_gaussian",
        sub_sample: bool = False,
        identity_init: bool = True,
    ):
        super().__init__()
        if in_channels < 2:
            raise ValueError(f"in_channels is halved inside, so at least 2; got {in_channels}")
        if dimensions not in (1, 2, 3):
            raise ValueError(f"dimensions must be 1, 2 or 3; got {dimensions!r}")
        if mode not in NON_LOCAL_MODES:
            raise ValueError(f"mode must be one of {', '.join(NON_LOCAL_MODES)}; got {mode!r}")
        self.dimensions, self.mode = dimensions, mode
        inner_channels = in_channels // 2
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
        pool = (nn.MaxPool1d(2), nn.MaxPool2d(2), nn.MaxPool3d((1, 2, 2)))[dimensions - 1]
        embeds = mode != "gaussian"
        self.query_conv = conv(in_channels, inner_channels, 1) if embeds else nn.Identity()
        self.key_conv = conv(in_channels, inner_channels, 1) if embeds else nn.Identity()
        self.value_conv = conv(in_channels, inner_channels, 1)
        self.out_conv = conv(inner_channels, in_channels, 1)
        self.pool = pool if sub_sample else nn.Identity()
        if mode == "concatenation":
            self.pair_linear = nn.Linear(2 * inner_channels, 1, bias=False)  # w_f
        if identity_init:
            nn.init.zeros_(self.out_conv.weight)
            nn.init.zeros_(self.out_conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        # Convolutions of kernel 1, as matrix products: theirs copy what goes in and what comes out.
        rows = positions_first(x).contiguous()  # (N, P, in_channels)
        query = of_each(self.query_conv, rows)  # (N, P, D)
        key = self._pooled(of_each(self.key_conv, rows), x)  # (N, P', D)
        value = self._pooled(of_each(self.value_conv, rows), x)  # (N, P', C/2)
        if self.mode == "dot_product":
            y = query @ ((key / key.shape[1]).mT @ value)  # q (k^T v), not (q k^T) v
        elif self.mode == "concatenation":
            y = relu_attention(*self._pair_scores(query, key), value)
        else:
            y = softmax_attention(query, key, value)  # (N, P, C/2)
        return x + of_each(self.out_conv, y).mT.unflatten(2, x.shape[2:])

    def attention(self, x: Tensor, positions: Tensor | list[list[int]]) -> Tensor:
        """Return the rows f(x_i, .) / C(x) of chosen positions i, at least float32.

        Args:
            x: (N, in_channels, *size), as in `forward`.
            positions: (R, dimensions), integers, a clip's as (t, y, x).

        Returns:
            (N, R, *key size), the size after pooling; a row of a softmax mode sums to 1.

        Raises:
            LabError: a position lies outside the input, or is not `dimensions` whole numbers.
        """
        self._check(x)
        index = flat_index(positions, x.shape[2:]).to(x.device)
        chosen = x.flatten(2)[:, :, index].unflatten(2, (-1,) + (1,) * (self.dimensions - 1))
        query = positions_first(self.query_conv(chosen))  # (N, R, D)
        keys = self.pool(self.key_conv(x))  # (N, D, *key size)
        key = positions_first(keys)
        if self.mode == "concatenation":
            a, b = map(at_least_float32, self._pair_scores(query, key))
            rows = F.relu(a.unsqueeze(2) + b.unsqueeze(1))
        else:
            with torch.autocast(x.device.type, enabled=False):  # the fused kernels add in float32
                rows = at_least_float32(query) @ at_least_float32(key).mT
        by_softmax = self.mode in ("embedded_gaussian", "gaussian")
        rows = rows.softmax(2) if by_softmax else rows / key.shape[1]
        return rows.unflatten(2, keys.shape[2:])

    def _pooled(self, rows: Tensor, x: Tensor) -> Tensor:
        """Pool rows (N, P, C) that belong to the positions of x: (N, P', C)."""
        if isinstance(self.pool, nn.Identity):
            return rows
        return positions_first(self.pool(rows.mT.unflatten(2, x.shape[2:])))

    def _pair_scores(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return a (N, P) and b (N, P'): w_f . [theta(x_i), phi(x_j)] = a_i + b_j."""
        query_weight, key_weight = self.pair_linear.weight[0].chunk(2)
        return query @ query_weight, key @ key_weight

    def _check(self, x: Tensor) -> None:
        if x.dim() != self.dimensions + 2:  # a convolution would take (C, *size) for one image
            axes = ("T", "H, W", "T, H, W")[self.dimensions - 1]
            raise ValueError(f"expected an input (N, C, {axes}), got shape {tuple(x.shape)}")


def positions_first(features: Tensor) -> Tensor:
    """Lay (N, C, *size) out as (N, P, C), P positions in row-major order."""
    return features.flatten(2).mT


def of_each(conv: nn.Module, rows: Tensor) -> Tensor:
    """Apply a convolution of kernel 1, or an identity, to every row: (N, P, C) to (N, P, C')."""
    if isinstance(conv, nn.Identity):
        return rows
    return F.linear(rows, conv.weight.flatten(1), conv.bias)


def flat_index(positions: Tensor | list[list[int]], size: tuple[int, ...]) -> Tensor:
    """Return the row-major index, (R,), of integer coordinates (R, len(size)).

    Raises:
        LabError: they have another shape or type, or one lies outside; names the valid range.
    """
    positions = torch.as_tensor(positions)
    last = tuple(length - 1 for length in size)
    valid = f"{len(size)} whole numbers from {(0,) * len(size)} to {last}"
    rows = positions.dim() == 2 and len(positions) > 0 and positions.shape[1] == len(size)
    if not rows or positions.is_floating_point():
        raise LabError(f"positions must be rows of {valid}, at least one")
    positions = positions.long()
    outside = ((positions < 0) | (positions > positions.new_tensor(last))).any(1)
    if outside.any():
        raise LabError(f"no position {tuple(positions[outside][0].tolist())}; there are {valid}")
    return sum(axis * math.prod(size[k + 1 :]) for k, axis in enumerate(positions.unbind(1)))


def softmax_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T) value, without the P x P' matrix.

    The kernels that never hold it want operands contiguous along channels and one channel count,
    on some devices a multiple of 8; else PyTorch silently takes the kernel that does. Channels of
    zeros make it so and change nothing.

    Shape: (N, P, D), (N, P', D), (N, P', E) to (N, P, E).
    """
    width = -(-max(query.shape[2], channels := value.shape[2]) // 8) * 8
    padded = [F.pad(x, (0, width - x.shape[2])).contiguous() for x in (query, key, value)]
    query, key, value = padded
    # On a CPU the backward pass has one thread for each head of each image. Queries need nothing of
    # each other, so they are dealt out to as many heads as keep the threads busy; not in a graph
    # that is exported, which is for any number of images.
    heads = 1
    if query.device.type == "cpu" and not torch.compiler.is_exporting():
        while heads * len(query) < torch.get_num_threads() and query.shape[1] % (2 * heads) == 0:
            heads *= 2
    query = query.unflatten(1, (heads, -1))  # (N, heads, P / heads, width)
    key, value = (operand.unsqueeze(1).expand(-1, heads, -1, -1) for operand in (key, value))
    attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return attended.flatten(1, 2)[..., :channels]


def relu_attention(a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    """y_i = 1 / P' * sum_j relu(a_i + b_j) value_j, exactly, in O((P + P') log P').

    Only the j with b_j > -a_i count. In descending order of b they come first, k_i of them, so

        y_i = (a_i * sum_{j < k_i} value_j + sum_{j < k_i} b_j value_j) / P'

    takes two running sums, in at least float32, and a binary search for k_i.

    Shape: (N, P), (N, P'), (N, P', E) to (N, P, E), in the type of value.
    """
    dtype = value.dtype
    a, b, value = map(at_least_float32, (a, b, value))
    b, order = b.sort(1, descending=True)
    value = value.gather(1, order.unsqueeze(2).expand_as(value))
    sums = torch.cat((value, b.unsqueeze(2) * value), 2).cumsum(1)
    sums = F.pad(sums, (0, 0, 1, 0))  # (N, P' + 1, 2E), row k over the k largest b
    k = torch.searchsorted(-b.detach(), a.detach())  # how many -b_j < a_i
    rows = k.unsqueeze(2).expand(-1, -1, sums.shape[2])
    value_sum, product_sum = sums.gather(1, rows).chunk(2, 2)  # (N, P, E)
    return ((a.unsqueeze(2) * value_sum + product_sum) / b.shape[1]).to(dtype)


@dataclass(frozen=True)
class ClassifierConfig:
    """All that is needed to build a `Classifier`; saved in its checkpoints as `configs`."""

    image_size: ClassVar[int] = IMAGE_SIZE
    in_channels: int
    num_classes: int
    use_batch_norm: bool = False
    use_stn: bool = False
    dropout_prob: float = 0.0
    use_non_local: bool = False


class Classifier(nn.Module):
    """The assignment's CNN: five convolution blocks, two linear layers, an optional STN in front.

    Ours to add: a non-local block among the convolutions, at (N, 64, 8, 8).

    Shape: images (N, in_channels, 32, 32) to logits (N, num_classes).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        use_batch_norm: bool = False,
        use_stn: bool = False,
        dropout_prob: float = 0.0,
        use_non_local: bool = False,
    ):
        super().__init__()
        own = (in_channels, num_classes, use_batch_norm, use_stn, dropout_prob, use_non_local)
        self.config = ClassifierConfig(*own)
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
            nn.Dropout(float(dropout_prob)),
        )
        self.non_local = NonLocalBlock(64, dimensions=2) if use_non_local else nn.Identity()
        self.fc_net = nn.Sequential(
            nn.Linear(128 * (IMAGE_SIZE // 8) ** 2, 256),
            nn.ReLU(),
            nn.BatchNorm1d(256) if use_batch_norm else nn.Identity(),
            nn.Dropout(float(dropout_prob)),
            nn.Linear(256, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stn(x)
        for index, layer in enumerate(self.conv_net):  # a slice of it is nothing to TorchScript
            if index == 4:
                x = self.non_local(x)  # (N, 64, 8, 8)
            x = layer(x)
        return self.fc_net(x.flatten(1))  # of (N, 128, 4, 4)


@dataclass(frozen=True)
class MnistCNNConfig:
    """All that is needed to build an `MnistCNN`; saved in its checkpoints as `configs`."""

    image_size: ClassVar[int] = 28
    in_channels: int = 1
    num_classes: int = 10
    dropout_prob: float = 0.3


class MnistCNN(nn.Module):
    """The MNIST assignment's CNN: two convolutions and two linear layers.

    Shape: images (N, in_channels, 28, 28) to logits (N, num_classes).
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, dropout_prob: float = 0.3):
        super().__init__()
        self.config = MnistCNNConfig(in_channels, num_classes, dropout_prob)
        self.conv_net = nn.Sequential(
            ConvBlock(in_channels, 32, 3, 1, 0),  # (N, 32, 26, 26)
            nn.MaxPool2d(2, 2),  # (N, 32, 13, 13)
            ConvBlock(32, 64, 3, 1, 0),  # (N, 64, 11, 11)
            nn.MaxPool2d(2, 2),  # (N, 64, 5, 5)
            nn.Dropout(float(dropout_prob)),
        )
        self.fc_net = nn.Sequential(
            nn.Linear(64 * 5 * 5, 128),
            nn.ReLU(),
            nn.Dropout(float(dropout_prob)),
            nn.Linear(128, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_net(self.conv_net(x).flatten(1))


# By name; torchvision's classifiers, which `--network` takes as well, are in `lab.imagenet`.
NETWORKS = {
    "classifier": Design(ClassifierConfig, lambda config: Classifier(**vars(config))),
    "mnist_cnn": Design(MnistCNNConfig, lambda config: MnistCNN(**vars(config))),
}


def main() -> None:
    """Print what the assignments ask for: shapes of what goes in and comes out."""
    x = torch.rand(2, 64, 8, 32, 32)  # N, C, T, H, W
    y = NonLocalBlock(in_channels=64)(x)
    print("NonLocalBlock:", tuple(x.shape), "to", tuple(y.shape))
    digits = torch.randn(1, 1, 28, 28)
    print("MnistCNN:     ", tuple(digits.shape), "to", tuple(MnistCNN()(digits).shape))
    signs = torch.randn(2, 3, 32, 32)
    logits = Classifier(3, 26, use_batch_norm=True, use_stn=True)(signs)
    print("Classifier:   ", tuple(signs.shape), "to", tuple(logits.shape))


if __name__ == "__main__":
    run(main)
