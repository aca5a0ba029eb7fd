"""What every network is that labels pixels.

    scores = network(images)            # (N, C, H', W'): one position for each cell of pixels
    scores = network.segment(images)    # (N, C, H, W), of images of any size

Images are network input, (N, 3, H, W) in [-1, 1]; scores are logits.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from networks import at_least_float32


class Segmenter(nn.Module):
    """A network that gives the pixels of images of any size their classes.

    Attributes:
        stride: `forward` takes images whose sides are multiples of it.
    """

    stride = 1

    def fill(self, images: Tensor) -> Tensor:
        """Return images filled up to multiples of `stride`, at the right and below.

        With 0, which is what convolutions take the outside for.
        """
        below, right = (-side % self.stride for side in images.shape[-2:])
        return F.pad(images, (0, right, 0, below)) if below or right else images

    def segment(self, images: Tensor) -> Tensor:
        """Return the scores of every pixel, float (N, C, H, W)."""
        height, width = images.shape[-2:]
        filled = self.fill(images)
        scores = at_least_float32(self(filled))
        if scores.shape[-2:] != filled.shape[-2:]:
            scores = F.interpolate(scores, filled.shape[-2:], mode="bilinear")
        return scores[..., :height, :width]
