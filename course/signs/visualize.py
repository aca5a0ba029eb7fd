# en: Look into a network: python visualize.py --type filter --ckpt_path checkpoints/bn
# zh: 查看网络内部：python visualize.py --type filter --ckpt_path checkpoints/bn

import argparse
import os

import matplotlib.pyplot as plt
import torch
from sklearn.manifold import TSNE
from torchvision.utils import make_grid

from datasets import get_data_loader
from networks import ConvBlock
from test import load_model


def show_grid(images, path, columns=8):
    # en: Show images (N, C, H, W), each stretched to [0, 1], and save them.
    # zh: 显示并保存图像 (N, C, H, W)，每张各自拉伸到 [0, 1]。
    os.makedirs(os.path.dirname(path), exist_ok=True)
    grid = make_grid(images, columns, normalize=True, scale_each=True)
    plt.figure(figsize=(8, 8))
    plt.imshow(grid.permute(1, 2, 0))
    plt.axis("off")
    plt.savefig(path)
    plt.show()


def conv_blocks(model):
    return [layer for layer in model.conv_net if isinstance(layer, ConvBlock)]


def show_filter(model, loader, args):
    weight = conv_blocks(model)[args.layer_idx].conv.weight
    images = weight if weight.shape[1] == 3 else weight[:, :1]
    show_grid(images, os.path.join(args.save_dir, f"filter/filter_layer_{args.layer_idx}.jpg"))


def show_feature(model, loader, args):
    x = model.stn(loader.dataset[args.image_idx][0][None])
    wanted = conv_blocks(model)[args.layer_idx]
    for layer in model.conv_net:
        x = layer(x)
        if layer is wanted:
            break
    folder = os.path.join(args.save_dir, f"feature/layer_{args.layer_idx}")
    show_grid(x.transpose(0, 1), os.path.join(folder, "feature_map.jpg"))


def show_tsne(model, loader, args):
    hidden, labels = [], []
    for images, targets in loader:
        features = model.conv_net(model.stn(images)).flatten(1)
        hidden.append(model.fc_net[:-1](features))
        labels.append(targets)
    points = TSNE().fit_transform(torch.cat(hidden).numpy())
    path = os.path.join(args.save_dir, "tsne/tsne.jpg")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    plt.figure(figsize=(8, 8))
    plt.scatter(*points.T, c=torch.cat(labels), cmap="nipy_spectral", s=5)
    plt.savefig(path)
    plt.show()


def show_stn(model, loader, args):
    images = torch.stack([loader.dataset[i][0] for i in range(0, len(loader.dataset), 26)])[:16]
    pairs = torch.stack((images, model.stn(images)), 1).flatten(0, 1)
    show_grid(pairs, os.path.join(args.save_dir, "stn/stn.jpg"))


@torch.no_grad()
def main():
    kinds = {"filter": show_filter, "feature": show_feature, "tsne": show_tsne, "stn": show_stn}
    parser = argparse.ArgumentParser()
    parser.add_argument("--type", choices=tuple(kinds), required=True)
    parser.add_argument("--ckpt_path", default="checkpoints/default")
    parser.add_argument("--data_root", "--path", default="data")
    parser.add_argument("--epoch", type=int, default=10)
    parser.add_argument("--layer_idx", type=int, choices=range(5), default=0)
    parser.add_argument("--image_idx", type=int, default=0)
    parser.add_argument("--save_dir", default="visualized")
    args = parser.parse_args()
    model = load_model(args.ckpt_path, args.epoch, "cpu")
    loader = get_data_loader(args.data_root, "test", 32, 32)
    kinds[args.type](model, loader, args)


if __name__ == "__main__":
    main()
