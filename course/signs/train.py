# en: Train a classifier of traffic signs: python train.py --ckpt_path checkpoints/bn --bn
# zh: 训练交通标志分类器：python train.py --ckpt_path checkpoints/bn --bn

import argparse
import os

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from datasets import get_data_loader
from networks import Classifier

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adadelta": torch.optim.Adadelta,
}


@torch.no_grad()
def evaluate(model, loader, device):
    model.eval()
    correct = 0
    for images, labels in loader:
        scores = model(images.to(device))
        correct += (scores.argmax(1) == labels.to(device)).sum().item()
    return correct / len(loader.dataset)


def train_one_epoch(model, loader, optimizer, device):
    model.train()
    total = 0
    for images, labels in loader:
        loss = F.cross_entropy(model(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
    return total / len(loader.dataset)


def plot(losses, accuracies, folder):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    left.plot(range(1, len(losses) + 1), losses)
    left.set(title="training loss", xlabel="epoch")
    right.plot([at for at, _ in accuracies], [value for _, value in accuracies])
    right.set(title="validation accuracy", xlabel="epoch")
    figure.savefig(os.path.join(folder, "loss_and_acc.jpg"))
    plt.show()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ckpt_path", default="checkpoints/default")
    parser.add_argument("--data_root", "--path", default="data")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--epoch", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight_decay", type=float, default=0)
    parser.add_argument("--optim_type", choices=tuple(OPTIMIZERS), default="adam")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--bn", action="store_true")
    parser.add_argument("--stn", action="store_true")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--max_ckpt_save_num", type=int, default=10)
    parser.add_argument("--val_interval", type=int, default=1)
    parser.add_argument("--resume")
    args = parser.parse_args()

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    train = get_data_loader(args.data_root, "train", 32, args.batch_size, augment=args.augment)
    val = get_data_loader(args.data_root, "val", 32, args.batch_size)
    configs = {
        "in_channels": 3,
        "num_classes": len(train.dataset.classes),
        "use_batch_norm": args.bn,
        "use_stn": args.stn,
        "dropout_prob": args.dropout,
    }
    done, state = 0, None
    if args.resume:
        state = torch.load(args.resume, map_location=device)
        configs, done = state["configs"], state["epoch"]
    model = Classifier(**configs).to(device)
    options = {"momentum": args.momentum} if args.optim_type == "sgd" else {}
    optimizer = OPTIMIZERS[args.optim_type](
        model.parameters(), lr=args.lr, weight_decay=args.weight_decay, **options
    )
    if state:
        model.load_state_dict(state["model_state"])
        optimizer.load_state_dict(state["optimizer_state"])

    os.makedirs(args.ckpt_path, exist_ok=True)
    losses, accuracies, saved = [], [], []
    for epoch in range(done + 1, args.epoch + 1):
        losses.append(train_one_epoch(model, train, optimizer, device))
        print(f"epoch {epoch}: loss {losses[-1]:.4f}", end="")
        if epoch % args.val_interval == 0:
            accuracies.append((len(losses), evaluate(model, val, device)))
            print(f", validation accuracy {accuracies[-1][1]:.2%}", end="")
        print(flush=True)
        state = {"model_state": model.state_dict(), "optimizer_state": optimizer.state_dict()}
        saved.append(os.path.join(args.ckpt_path, f"ckpt_epoch_{epoch}.pth"))
        torch.save({**state, "configs": configs, "epoch": epoch}, saved[-1])
        if len(saved) > args.max_ckpt_save_num:
            os.remove(saved.pop(0))
    if losses:
        plot(losses, accuracies or [(0, 0)], args.ckpt_path)


if __name__ == "__main__":
    main()
