"""The fully convolutional network: a ResNet that keeps its map, made as large as the picture again.

`FCN` is that of Dive into Deep Learning, section 14.11, on torchvision's ResNet-18: what it says of
a picture at a stride of 32, 64 pixels wide each, is blended. FCN-16s and FCN-8s (Long et al. 2015,
section 4.2) add what earlier stages say at strides of 16 and 8, twice and four times as sharp.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision import models

from lab.pretrained import preprocess_of
from tasks.segmentation.segmenter import Segmenter
from tasks.segmentation.upsampling import bilinear_kernel

BODY = "resnet18"


@dataclass(frozen=True)
class FCNConfig:
    """All that is needed to build an `FCN`; saved in its checkpoints as `configs`."""

    num_classes: int
    finest: int = 32


class FCN(Segmenter):
    """Labels pixels by the scores of a ResNet's last map, and of those before it.

    Args:
        finest: stride of the finest map that is asked: 32, 16 or 8.

    Attributes:
        body: torchvision's ResNet-18 without its last two layers, by the names of its weights.
        scores: a 1x1 convolution for each map, the coarsest first.
        upsample: a transposed convolution for each, to the next map's stride, and to 1 at last.

    Shape: (N, 3, H, W), H and W multiples of 32, to logits (N, num_classes, H, W).
    """

    stride = 32

    def __init__(self, num_classes: int, finest: int = 32):
        super().__init__()
        self.config = FCNConfig(num_classes, finest)
        self.body = models.get_model(BODY, weights=None)
        del self.body.avgpool, self.body.fc
        channels = (512, 256, 128)[: {32: 1, 16: 2, 8: 3}[finest]]
        self.scores = nn.ModuleList(nn.Conv2d(count, num_classes, 1) for count in channels)
        nn.init.xavier_uniform_(self.scores[0].weight)
        for skip in self.scores[1:]:  # at first, the coarser network's answer
            nn.init.zeros_(skip.weight)
            nn.init.zeros_(skip.bias)
        strides = [2] * (len(channels) - 1) + [finest]
        self.upsample = nn.ModuleList(enlarging(num_classes, stride) for stride in strides)
        preprocess = preprocess_of(BODY)
        # From [-1, 1], which our images are in, to what ImageNet's weights have learned from.
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        self.register_buffer("mean", (2 * mean - 1).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", (2 * std).view(-1, 1, 1), persistent=False)

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
    layer = nn.ConvTranspose2d(
        channels, channels, 2 * stride, stride, padding=stride // 2, bias=False
    )
    with torch.no_grad():
        layer.weight.copy_(bilinear_kernel(channels, channels, 2 * stride))
    return layer
