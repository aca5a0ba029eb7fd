"""A network for pixels as export.py writes it: pictures of any size to label maps."""

from torch import Tensor, nn

from tasks.annotated import seen_size
from tasks.blocks import fold
from tasks.exporting import PICTURES, Exported, as_images
from tasks.segmentation.labels import colours_of
from tasks.segmentation.networks import Segmenter
from tasks.segmentation.results import LONGEST, OPACITY
from tasks.showing import Shown
from tasks.trained import Trained


class PictureLabeller(nn.Module):
    """Labels pictures, uint8 (N, H, W, 3): labels uint8 and their probabilities, (N, H, W)."""

    def __init__(self, network: Segmenter):
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.network.segment(as_images(pictures))
        highest, labels = scores.max(1)
        # The likeliest class's softmax: all of it, across channels, would take half of a pass.
        return labels.byte(), (scores - highest.unsqueeze(1)).exp().sum(1).reciprocal()


def exported(trained: Trained) -> list[Exported]:
    network = PictureLabeller(fold(trained.network))
    return [Exported("labeller", network, PICTURES, ("labels", "probabilities"))]


def shown(trained: Trained) -> Shown:
    facts = {"classes": trained.classes, "colours": colours_of(trained.classes)}
    facts |= {"opacity": OPACITY, "longest": seen_size(trained, LONGEST) or LONGEST}
    return Shown(exported(trained), facts=facts)
