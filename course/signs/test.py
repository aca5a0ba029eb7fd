# en: Test a trained classifier: python test.py --ckpt_path checkpoints/bn --epoch 10
# zh: 测试训练好的分类器：python test.py --ckpt_path checkpoints/bn --epoch 10

import argparse
import os

import torch
from torchvision.utils import save_image

from datasets import get_data_loader
from networks import Classifier

CONFIGS = ("in_channels", "num_classes", "use_batch_norm", "use_stn", "dropout_prob")


def load_model(folder, epoch, device):
    # en: Return the network of a checkpoint, ready for evaluation.
    # zh: 返回检查点中的网络，已处于评估模式。
    path = os.path.join(folder, f"ckpt_epoch_{epoch}.pth")
    state = torch.load(path, map_location=device)
    model = Classifier(**{name: state["configs"][name] for name in CONFIGS})
    model.load_state_dict(state["model_state"])
    return model.to(device).eval()


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ckpt_path", default="checkpoints/default")
    parser.add_argument("--data_root", "--path", default="data")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--epoch", type=int, default=10)
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(args.ckpt_path, args.epoch, device)
    loader = get_data_loader(args.data_root, "test", 32, 32)
    results = os.path.join(args.ckpt_path, "results")
    if args.save:
        os.makedirs(results, exist_ok=True)
    correct = seen = 0
    for images, labels in loader:
        predictions = model(images.to(device)).argmax(1).cpu()
        correct += (predictions == labels).sum().item()
        for i in range(len(labels)):
            if args.save:
                word = "correct" if labels[i] == predictions[i] else "wrong"
                name = f"{seen + i:04d}_{word}_{labels[i]}_{predictions[i]}.jpg"
                save_image(images[i] / 2 + 0.5, os.path.join(results, name))
        seen += len(labels)
    print(f"test accuracy: {correct / seen:.2%} of {seen} images")


if __name__ == "__main__":
    main()
