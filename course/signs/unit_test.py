# en: Try what you have written: python unit_test.py data_loader, python unit_test.py stn
# zh: 检查你写的代码：python unit_test.py data_loader，python unit_test.py stn

import os
import sys

import matplotlib.pyplot as plt
import torch
from torchvision.utils import make_grid

from datasets import get_data_loader
from networks import STN


def data_loader():
    loader = get_data_loader("data", "train", 32, 32, augment=True)
    images, labels = next(iter(loader))
    print("images", tuple(images.shape), "labels", tuple(labels.shape))
    print(f"values from {images.min():.2f} to {images.max():.2f}")
    assert images.shape[1:] == (3, 32, 32) and images.min() >= -1 and images.max() <= 1
    os.makedirs("visualized", exist_ok=True)
    plt.imshow(make_grid(images / 2 + 0.5).permute(1, 2, 0))
    plt.axis("off")
    plt.savefig("visualized/augmentation.jpg")
    plt.show()


def stn():
    images = torch.randn(4, 3, 32, 32)
    difference = (STN(3)(images) - images).abs().max().item()
    print(f"an untrained STN is off the identity by {difference:.1e}")
    assert difference < 1e-5


if __name__ == "__main__":
    {"data_loader": data_loader, "stn": stn}[sys.argv[1]]()
    print("passed")
