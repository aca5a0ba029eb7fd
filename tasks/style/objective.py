"""Johnson's loss: content of the photograph, style of the painting. Nothing is measured."""

from typing import Any

from torch import Tensor, nn

from tasks.style.losses import StyleLosses


class StyleObjective:
    """The losses of what a network paints.

    Args:
        losses: of the style picture; None for a network that is trained.
        bounds: least and greatest input of the network that they look with.
    """

    ranks_by = ""

    def __init__(
        self, losses: StyleLosses | None = None, bounds: tuple[Tensor, Tensor] | None = None
    ):
        self.losses, self.bounds = losses, bounds

    def loss(
        self, network: nn.Module, images: Tensor, targets: None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the three losses of photographs (N, 3, H, W) in [-1, 1], and each."""
        painted = self._compared(network(images))
        content_target = self.losses.content_target(self._compared(images))
        values = self.losses(painted, content_target)
        figures = dict(zip(("content", "style", "tv"), values / len(images), strict=True))
        return values.sum() / len(images), figures

    def meter(self) -> None:
        """Return nothing: there is no measure but the loss."""

    def _compared(self, images: Tensor) -> Tensor:
        """Turn pictures in [-1, 1] into input of the network that they are compared by."""
        black, white = self.bounds
        return black + (white - black) * (images.float() + 1) / 2


def restore(state: dict[str, Any]) -> StyleObjective:
    """Return the objective of a checkpoint: without losses, which are for training."""
    return StyleObjective()
