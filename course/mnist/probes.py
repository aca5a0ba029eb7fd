"""What is asked of each blank of the assignment on digits."""

from types import ModuleType

import sklearn.datasets  # noqa: F401  (loaded once, before submissions do)
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course.probing import Answers, fill, grads, noise, words


def loader(count: int = 10) -> DataLoader:
    return DataLoader(TensorDataset(noise(count, 1, 28, 28), torch.arange(count) % 3), 4)


def todo_1_1(mnist: ModuleType) -> Answers:
    net = mnist.Net()
    for name in ("conv1", "pool1", "conv2", "pool2", "dropout1", "dropout2", "fc1", "fc2"):
        yield f"Net().{name}", words(getattr(net, name))
    yield "Net()(x): shape", list(net(noise(2, 1, 28, 28)).shape)


def todo_1_2(mnist: ModuleType) -> Answers:
    net, x = fill(mnist.Net(), 2).eval(), noise(3, 1, 28, 28)
    yield "Net()(x), evaluating: shape", list(net(x).shape)
    yield "Net()(x), evaluating", net(x)
    yield "weights of Net() that get no gradient", grads(net, net(x).square().sum())
    seen: dict[str, torch.Tensor] = {}
    for name in ("fc1", "fc2"):
        getattr(net, name).register_forward_pre_hook(
            lambda layer, x, name=name: seen.update({f"before {name}": x[0].clone()})
        )
    net.fc1.register_forward_hook(lambda layer, x, out: seen.update(out=out.relu()))
    x = noise(64, 1, 28, 28)
    net(x)
    whole = seen["before fc1"]
    net.train()(x)
    for name, features in (("before fc1", whole), ("before fc2", seen["out"])):
        dropped = (seen[name] == 0)[features != 0].float().mean()
        yield f"share of features that dropout zeroes in training, {name}", round(float(dropped), 1)


def todo_1_3(mnist: ModuleType) -> Answers:
    images = (noise(2, 28, 28).abs() * 100).clamp(0, 255).byte()
    out = mnist.preprocess(images)
    yield "preprocess(images): shape", list(out.shape)
    yield "preprocess(images): type", out.dtype
    yield "preprocess(images)", out


def todo_1_4(mnist: ModuleType) -> Answers:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Dropout(0.0), nn.Linear(784, 3))
    fill(net).eval()
    mnist.train(net, loader(), torch.optim.SGD(net.parameters(), 0.1))
    yield "the network is in training mode", net.training
    yield "weights after train(model, loader, optimizer)", net[3].weight
    yield "running mean of batch norm after it", net[1].running_mean


def todo_1_5(mnist: ModuleType) -> Answers:
    net = fill(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 3)))
    batches, flags = loader(18), []  # the last batch is smaller
    net.register_forward_hook(
        lambda module, x, out: flags.append([module.training, out.requires_grad])
    )
    share = mnist.test(net, batches)
    yield "test(model, loader)", float(share)
    yield "the network is in evaluation mode", not any(training for training, _ in flags)
    yield "gradients are computed", any(requires for _, requires in flags)
    everyone = DataLoader(
        TensorDataset(F.one_hot(torch.arange(6) % 3, 784).float(), torch.arange(6) % 3), 4
    )
    yield "test(model, loader) of a perfect model", float(mnist.test(nn.Identity(), everyone))
