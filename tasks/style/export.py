"""A network for one style as export.py writes it: pictures of any size to painted ones."""

from torch import Tensor, nn

from tasks.exporting import PICTURES, Exported, as_images, as_pictures
from tasks.showing import Shown
from tasks.trained import Trained


class PicturePainter(nn.Module):
    """Paints pictures, uint8 (N, H, W, 3), to the same."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        return as_pictures(self.network(as_images(pictures)))


def exported(trained: Trained) -> list[Exported]:
    return [Exported("painter", PicturePainter(trained.network), PICTURES, ("painted",))]


def shown(trained: Trained) -> Shown:
    return Shown(exported(trained))
