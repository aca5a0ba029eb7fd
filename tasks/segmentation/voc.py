"""The tools that read Pascal VOC's labels, by the names of Dive into Deep Learning, section 14.9.

    features, labels = read_voc_images("data/VOCdevkit/VOC2012", is_train=True)
    voc_label_indices(labels[0], voc_colormap2label())      # (H, W): 0 to 20, 255 ignored
    VOCSegDataset(True, (320, 480), "data/VOCdevkit/VOC2012")[0]

Unlike there, what VOC leaves open (a band around each object) is IGNORED, not background, and a
colour that is in no palette is an error, not background either. `--dataset voc` reads the same
files by `data`, which takes the numbers of the label images, not their colours.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lab.console import LabError, say
from lab.imagenet import preprocess_of
from lab.images import Preprocess, read_image
from tasks.segmentation.annotations import read_voc
from tasks.segmentation.labels import IGNORED, VOC_COLORMAP, VOC_OPEN

UNKNOWN = -1  # of a colour that is in no palette


def read_voc_images(
    voc_dir: str | Path, is_train: bool = True
) -> tuple[list[Tensor], list[Tensor]]:
    """Return pictures and label images of train or val, uint8 (3, H, W) each.

    The colours of a label image are those of its own palette.

    Raises:
        LabError: not VOC's layout, or a file that cannot be read.
    """
    mode = "train" if is_train else "val"
    listing = read_voc(Path(voc_dir), mode)
    if listing is None:
        raise LabError(f"{voc_dir} holds no ImageSets/Segmentation/{mode}.txt: no VOC of pixels")
    features, labels = [], []
    for pair in listing.pictures:
        for path, images in ((pair.path, features), (pair.label, labels)):
            pixels = np.array(read_image(path).convert("RGB"))
            images.append(torch.from_numpy(pixels).permute(2, 0, 1))
    return features, labels


def voc_colormap2label() -> Tensor:
    """Return the class of every colour, int16 (256 ** 3,): UNKNOWN of most."""
    labels = torch.full((256**3,), UNKNOWN, dtype=torch.int16)
    for number, (red, green, blue) in [*enumerate(VOC_COLORMAP), (IGNORED, VOC_OPEN)]:
        labels[(red * 256 + green) * 256 + blue] = number
    return labels


def voc_label_indices(colormap: Tensor, colormap2label: Tensor) -> Tensor:
    """Return the class of every pixel, int64 (H, W), of a label image's colours, (3, H, W).

    Raises:
        LabError: a colour is in no palette.
    """
    red, green, blue = colormap.long()
    indices = colormap2label[(red * 256 + green) * 256 + blue].long()
    if (indices == UNKNOWN).any():
        row, column = (indices == UNKNOWN).nonzero()[0].tolist()
        colour = ", ".join(str(int(level)) for level in colormap[:, row, column])
        raise LabError(f"the colour ({colour}) at {column}, {row} is none of VOC's")
    return indices


def voc_rand_crop(feature: Tensor, label: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return one part, cut at random, of a picture (C, H, W) and of its label, (..., H, W)."""
    top = int(torch.randint(feature.shape[-2] - height + 1, ()))
    left = int(torch.randint(feature.shape[-1] - width + 1, ()))
    crop = (..., slice(top, top + height), slice(left, left + width))
    return feature[crop], label[crop]


class VOCSegDataset(Dataset):
    """Parts of VOC's pictures, as ImageNet's networks take them, and their labels.

    Pictures that are smaller than a part are left out.

    Args:
        crop_size: (height, width) of the parts.
    """

    def __init__(self, is_train: bool, crop_size: tuple[int, int], voc_dir: str | Path):
        self.crop_size = crop_size
        self.preprocess: Preprocess = preprocess_of("resnet18")
        self.colormap2label = voc_colormap2label()
        pairs = zip(*read_voc_images(voc_dir, is_train), strict=True)
        self.pairs = [
            (feature, label)
            for feature, label in pairs
            if feature.shape[1] >= crop_size[0] and feature.shape[2] >= crop_size[1]
        ]
        say(f"read {len(self.pairs)} examples")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        feature, label = voc_rand_crop(*self.pairs[index], *self.crop_size)
        normal = self.preprocess.normalize(feature.permute(1, 2, 0)[None])[0]
        return normal, voc_label_indices(label, self.colormap2label)
