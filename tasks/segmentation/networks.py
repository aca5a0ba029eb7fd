"""The networks that label pixels, and `NETWORKS`, by name.

scores = network(images)            # (N, C, H', W'): one position for each cell of pixels
scores = network.segment(images)    # (N, C, H, W), of images of any size

Images are network input, (N, 3, H, W) in [-1, 1]; scores are logits.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from lab.imagenet import preprocess_of
from lab.registry import Design
from lab.weights import load_body
from networks import at_least_float32
from tasks.blocks import Residual, conv_bn, fill, stage
from tasks.segmentation import BODY
from tasks.segmentation.upsampling import bilinear_kernel


class Segmenter(nn.Module):
    """A network that gives the pixels of images of any size their classes.

    Attributes:
        stride: `forward` takes images whose sides are multiples of it.
        outputs: names of the layers that tell classes apart.
        sizes: that images are looked at in, each half as large as the one before.
    """

    stride = 1
    outputs: tuple[str, ...] = ()
    sizes = 1

    def segment(self, images: Tensor) -> Tensor:
        """Return the scores of every pixel, float (N, C, H, W): of several sizes, their mean."""
        height, width = images.shape[-2:]
        scores = self._scores(images)
        for times in range(1, self.sizes):
            images = F.avg_pool2d(images, 2, ceil_mode=True)
            coarse = F.interpolate(self._scores(images), scale_factor=2**times, mode="bilinear")
            scores = scores + coarse[..., :height, :width]
        return scores / self.sizes

    def _scores(self, images: Tensor) -> Tensor:
        """Return the scores of every pixel at one size."""
        height, width = images.shape[-2:]
        padded = fill(images, self.stride)
        scores = at_least_float32(self(padded))
        if scores.shape[-2:] != padded.shape[-2:]:
            scores = F.interpolate(scores, padded.shape[-2:], mode="bilinear")
        return scores[..., :height, :width]


@dataclass(frozen=True)
class ResUNetConfig:
    """All that is needed to build a `ResUNet`."""

    num_classes: int
    width: int = 32  # channels at stride 4; all others are multiples of it
    sizes: int = 1  # see `Segmenter`


class ResUNet(Segmenter):
    """Labels pixels at a stride of 2 from features of strides 4 to 32, on two cores.

    FCN's body, a ResNet made for ImageNet, is of little use without ImageNet's weights, and keeps a
    core busy for long. This one is learned from scratch in minutes. What it is made of, and why:

    - Images lose the mean and the contrast of each channel first: weather and white balance, which
      would take a network long to look past.
    - Residual stages at strides 4 to 32 (He et al. 2016), plain 3x3 convolutions: on a CPU the
      separable ones of ENet or MobileNet save arithmetic, but hardly any time.
    - The last stage's convolutions are dilated (Yu and Koltun 2016), so that every position sees a
      whole frame: that is what tells a grey wall from a grey road.
    - A narrow way back up, to which each stage adds what it knows of places (U-Net, Ronneberger et
      al. 2015; summed as in feature pyramids, Lin et al. 2017, since sums are cheaper).
    - From stride 4, four positions are predicted at once (Shi et al. 2016): a pole of two pixels
      has a row of its own, and no convolution has run at that size.

    Shape: (N, 3, H, W), H and W multiples of 32, to logits (N, num_classes, H/2, W/2).
    """

    stride = 32
    outputs = ("head.0",)

    def __init__(self, config: ResUNetConfig):
        super().__init__()
        self.config, self.sizes, width = config, config.sizes, config.width
        widths, joint = (width, 2 * width, 4 * width, 6 * width), 2 * width
        self.stage4 = nn.Sequential(
            conv_bn(3, width // 2, 3, 2), conv_bn(width // 2, width, 3, 2), Residual(width)
        )
        self.stage8 = stage(*widths[:2], 1, 1)
        self.stage16 = stage(*widths[1:3], 1, 1, 1)
        self.stage32 = stage(*widths[2:], 1, 2, 4)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, joint, 1) for channels in widths)
        self.joins = nn.ModuleList(conv_bn(joint, joint) for _ in range(3))
        self.head = nn.Sequential(nn.Conv2d(joint, 4 * config.num_classes, 1), nn.PixelShuffle(2))

    def forward(self, images: Tensor) -> Tensor:
        features = [self.stage4(normalise(images))]
        for coarser in (self.stage8, self.stage16, self.stage32):
            features.append(coarser(features[-1]))
        *finer, joined = (lateral(x) for lateral, x in zip(self.laterals, features, strict=True))
        for own, join in zip(reversed(finer), self.joins, strict=True):
            joined = join(own + F.interpolate(joined, scale_factor=2))
        return self.head(joined)


def normalise(images: Tensor) -> Tensor:
    """Return images whose channels have mean 0 and deviation 1 each, where there is an image.

    Where there is none, whole images (N, 3, H, W) in [-1, 1] are 0, which no byte becomes. What
    windows of training leave empty is grey, GREY, and counts.
    """
    there = (images != 0).any(1, keepdim=True)
    count = there.sum((2, 3), keepdim=True).clamp(min=1)
    centred = (images - images.sum((2, 3), keepdim=True) / count) * there
    variance = centred.square().sum((2, 3), keepdim=True) / count
    return centred * (variance + 1e-4).rsqrt()


@dataclass(frozen=True)
class FCNConfig:
    """All that is needed to build an `FCN`."""

    num_classes: int
    finest: int = 32  # stride of the finest map that is asked: 32, 16 or 8


class FCN(Segmenter):
    """Labels pixels by the scores of a ResNet's last map, and of those before it.

    That of Dive into Deep Learning, section 14.11: what it says of a picture at a stride of 32, 64
    pixels wide each, is blended. FCN-16s and FCN-8s (Long et al. 2015, section 4.2) add what
    earlier stages say at strides of 16 and 8, twice and four times as sharp.

    Attributes:
        body: torchvision's ResNet-18 without its last two layers, by the names of its weights.
        scores: a 1x1 convolution for each map, the coarsest first.
        upsample: a transposed convolution for each, to the next map's stride, and to 1 at last.

    Shape: (N, 3, H, W), H and W multiples of 32, to logits (N, num_classes, H, W).
    """

    stride = 32
    outputs = ("scores", "upsample")

    def __init__(self, config: FCNConfig):
        super().__init__()
        self.config, classes, finest = config, config.num_classes, config.finest
        self.body = models.get_model(BODY, weights=None)
        del self.body.avgpool, self.body.fc
        channels = (512, 256, 128)[: (32, 16, 8).index(finest) + 1]
        self.scores = nn.ModuleList(nn.Conv2d(count, classes, 1) for count in channels)
        nn.init.xavier_uniform_(self.scores[0].weight)
        for weights in self.scores[1:].parameters():  # at first, the coarser network's answer
            nn.init.zeros_(weights)
        strides = [2] * (len(channels) - 1) + [finest]
        self.upsample = nn.ModuleList(enlarging(classes, stride) for stride in strides)
        preprocess = preprocess_of(BODY)
        # From [-1, 1], which our images are in, to what ImageNet's weights have learned from.
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        self.register_buffer("mean", (2 * mean - 1).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", (2 * std).view(-1, 1, 1), persistent=False)

    def load_published(self, weights: dict[str, Tensor]) -> tuple[str, ...]:
        """Load torchvision's weights into the body; return what is new, all output layers."""
        load_body(self.body, weights, outputs=("fc",))
        return self.outputs

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maps(images)[: len(self.scores)]
        total = 0
        for features, score, upsample in zip(maps, self.scores, self.upsample, strict=True):
            total = upsample(score(features) + total)
        return total

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of strides 32, 16 and 8."""
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1((images - self.mean) / self.std))))
        x8 = body.layer2(body.layer1(x))
        x16 = body.layer3(x8)
        return body.layer4(x16), x16, x8


def enlarging(channels: int, stride: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution that multiplies sides by `stride`; at first, bilinear."""
    layer = nn.ConvTranspose2d(channels, channels, 2 * stride, stride, stride // 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(bilinear_kernel(channels, channels, 2 * stride))
    return layer


NETWORKS = {
    "res_unet": Design(ResUNetConfig, ResUNet),
    "fcn_32s": Design(FCNConfig, FCN, {"finest": 32}),  # the stride in a name of Long et al.'s
    "fcn_16s": Design(FCNConfig, FCN, {"finest": 16}),
    "fcn_8s": Design(FCNConfig, FCN, {"finest": 8}),
}
