"""A network of pixels for two cores: a residual U-Net that sees widely and predicts finely.

FCN's body, a ResNet made for ImageNet, is of little use without ImageNet's weights, and keeps a
core busy for long. This one is learned from scratch in minutes. What it is made of, and why:

- Images lose the mean and the contrast of each channel first: weather and white balance, which
  would take a network long to look past.
- Residual stages at strides 4 to 32 (He et al. 2016), plain 3x3 convolutions: on a CPU the
  separable ones of ENet or MobileNet save arithmetic, but hardly any time.
- The last stage's convolutions are dilated (Yu and Koltun 2016), so that every position sees a
  whole frame: that is what tells a grey wall from a grey road.
- A narrow way back up, to which each stage adds what it knows of places (U-Net, Ronneberger et al.
  2015; summed as in feature pyramids, Lin et al. 2017, since sums are cheaper).
- From stride 4, four positions are predicted at once (Shi et al. 2016): a pole of two pixels has a
  row of its own, and no convolution has run at that size.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from networks import Residual, conv_bn
from tasks.segmentation.segmenter import Segmenter


@dataclass(frozen=True)
class ResUNetConfig:
    """All that is needed to build a `ResUNet`; saved in its checkpoints as `configs`."""

    num_classes: int
    width: int = 32


class ResUNet(Segmenter):
    """Labels pixels at a stride of 2 from features of strides 4 to 32.

    Args:
        width: channels at stride 4; all others are multiples of it.

    Shape: (N, 3, H, W), H and W multiples of 32, to logits (N, num_classes, H/2, W/2).
    """

    stride = 32

    def __init__(self, num_classes: int, width: int = 32):
        super().__init__()
        self.config = ResUNetConfig(num_classes, width)
        widths = (width, 2 * width, 4 * width, 6 * width)
        joint = 2 * width
        self.stage4 = nn.Sequential(
            conv_bn(3, width // 2, 3, 2), conv_bn(width // 2, width, 3, 2), Residual(width)
        )
        self.stage8 = nn.Sequential(
            conv_bn(widths[0], widths[1], 3, 2), *(Residual(widths[1]) for _ in range(2))
        )
        self.stage16 = nn.Sequential(
            conv_bn(widths[1], widths[2], 3, 2), *(Residual(widths[2]) for _ in range(3))
        )
        self.stage32 = nn.Sequential(
            conv_bn(widths[2], widths[3], 3, 2),
            *(Residual(widths[3], dilation) for dilation in (1, 2, 4)),
        )
        self.laterals = nn.ModuleList(nn.Conv2d(channels, joint, 1) for channels in widths)
        self.joins = nn.ModuleList(conv_bn(joint, joint) for _ in range(3))
        self.head = nn.Sequential(
            nn.Conv2d(joint, 4 * num_classes, 1), nn.PixelShuffle(2)
        )  # (N, num_classes, H/2, W/2)

    def forward(self, images: Tensor) -> Tensor:
        features = [self.stage4(normalise(images))]
        for stage in (self.stage8, self.stage16, self.stage32):
            features.append(stage(features[-1]))
        *finer, coarsest = (lateral(x) for lateral, x in zip(self.laterals, features, strict=True))
        joined = coarsest
        for own, join in zip(reversed(finer), self.joins, strict=True):
            joined = join(own + F.interpolate(joined, scale_factor=2))
        return self.head(joined)


def normalise(images: Tensor) -> Tensor:
    """Return images whose channels have mean 0 and deviation 1 each, where there is an image.

    Args:
        images: (N, 3, H, W) in [-1, 1]; 0 in all channels, which no byte becomes, where there is
            none.
    """
    there = (images != 0).any(1, keepdim=True)
    count = there.sum((2, 3), keepdim=True).clamp(min=1)
    centred = (images - images.sum((2, 3), keepdim=True) / count) * there
    variance = centred.square().sum((2, 3), keepdim=True) / count
    return centred * (variance + 1e-4).rsqrt()
