"""A network for pixels as export.py writes it: pictures of any size to label maps."""

from torch import Tensor, nn

from tasks.blocks import fold
from tasks.exporting import PICTURES, Exported, as_images
from tasks.segmentation.networks import Segmenter
from tasks.trained import Trained


class PictureLabeller(nn.Module):
    """Labels pictures, uint8 (N, H, W, 3): labels uint8 and their probabilities, (N, H, W)."""

    def __init__(self, network: Segmenter):
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        shares, labels = self.network.segment(as_images(pictures)).softmax(1).max(1)
        return labels.byte(), shares


def exported(trained: Trained) -> list[Exported]:
    network = PictureLabeller(fold(trained.network))
    return [Exported("labeller", network, PICTURES, ("labels", "probabilities"))]
