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

    def fill(self, images: Tensor, value: float = 0) -> Tensor:
        """Return images, or labels, filled up at the right and below to multiples of `stride`.

        With 0, which is what convolutions take the outside for, unless another value is given.
        """
        below, right = (-side % self.stride for side in images.shape[-2:])
        return F.pad(images, (0, right, 0, below), value=value) if below or right else images

    def segment(self, images: Tensor) -> Tensor:
        """Return the scores of every pixel, float (N, C, H, W)."""
        return self.enlarge(self(self.fill(images)), images.shape[-2:])

    def enlarge(self, scores: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the scores of every pixel of images of a size, from `forward`'s of them filled."""
        height, width = (side + -side % self.stride for side in size)
        scores = at_least_float32(scores)
        if scores.shape[-2:] != (height, width):
            scores = F.interpolate(scores, (height, width), mode="bilinear")
        return scores[..., : size[0], : size[1]]
