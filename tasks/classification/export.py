"""A classifier as export.py writes it: pictures of any size to the probabilities of classes."""

from torch import Tensor, nn

from lab.images import Preprocess
from tasks.exporting import PICTURES, Exported, as_images
from tasks.trained import Trained, preprocess_of_run


class PictureClassifier(nn.Module):
    """Resizes pictures, uint8 (N, H, W, 3), and classifies them: (N, C)."""

    def __init__(self, network: nn.Module, preprocess: Preprocess):
        super().__init__()
        self.network, self.preprocess = network, preprocess

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network(as_images(pictures, self.preprocess)).softmax(1)


def exported(trained: Trained) -> list[Exported]:
    preprocess = preprocess_of_run(trained.state)
    network = PictureClassifier(trained.network, preprocess)
    return [Exported("classifier", network, PICTURES, ("probabilities",))]
