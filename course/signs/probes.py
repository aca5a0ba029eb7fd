"""What is asked of each blank of the assignment on traffic signs."""

from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from course.probing import Answers, fill, grads, noise, words

COLOURS = {"a": (250, 20, 60), "b": (10, 200, 120), "c": (90, 30, 240)}
COUNTS = {"train": 8, "val": 3, "test": 2}  # images of a class


def make_data() -> str:
    """Draw a tiny data set beside the submission; images are framed, neither square nor even."""
    for mode, count in COUNTS.items():
        for name, colour in COLOURS.items():
            folder = Path("drawn", mode, name)
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                image = Image.new("RGB", (48, 40), (255, 255, 255))  # cropped off, if it is
                image.paste((0, 0, 0), (4, 4, 44, 36))
                image.paste(tuple(min(255, c + index) for c in colour), (12, 10, 30, 26))
                image.save(folder / f"{index}.png")
    return "drawn"


def first(loader) -> Tensor:
    return next(iter(loader))[0]


def varies(loader) -> bool:
    """True if epochs differ in more than order; mirrored images have their pixels elsewhere."""
    places = torch.linspace(1, 2, 32).outer(torch.linspace(1, 2, 32))
    sums = [(first(loader) * places).sum((1, 2, 3)).sort().values for _ in range(4)]
    return not all(torch.allclose(epoch, sums[0], atol=1e-2) for epoch in sums)


def todo_1_1(datasets: ModuleType) -> Answers:
    root, get = make_data(), datasets.get_data_loader
    for mode in ("val", "test", "train"):
        images = first(get(root, mode, 32, 100))
        call = f'get_data_loader(root, "{mode}", 32, 100)'
        yield f"{call}: shape of images", list(images.shape)
        yield f"{call}: type of images", images.dtype
        yield f"{call} varies images", varies(get(root, mode, 32, 100))
        yield f"{call}: smallest and largest value", [round(float(x), 2) for x in images.aminmax()]
        order = (images[:, :, 16, 16] @ torch.tensor([1.0, 2, 4])).argsort()  # no two are alike
        yield f"{call}: images", images[order][:, :, (0, 16), (0, 16)]
        yield (
            f"{call}: images whose left edge is there",
            int((images[:, :, 16, 0] > 0.5).all(1).sum()),
        )
    shape = list(first(get(root, "val", 24, 100)).shape)
    yield 'get_data_loader(root, "val", 24, 100): shape of images', shape
    for mode in ("val", "test", "train"):
        loader = get(root, mode, 32, 100, augment=True)
        call = f'get_data_loader(root, "{mode}", 32, 100, augment=True)'
        yield f"{call} varies images", varies(loader)
    yield f"{call}: shape of images", list(first(loader).shape)


def todo_1_2(datasets: ModuleType) -> Answers:
    root = make_data()
    for mode, count in COUNTS.items():
        dataset = datasets.get_data_loader(root, mode, 32, 4).dataset
        call = f'get_data_loader(root, "{mode}", 32, 4).dataset'
        yield f"len({call})", len(dataset)
        yield f"{call}.classes", dataset.classes
        yield f"{call} is an ImageFolder", isinstance(dataset, ImageFolder)
        image, label = dataset[count]
        yield f"{call}[{count}]", [type(image).__name__, label]
        yield f"{call}[{count}][0]", image


def todo_1_3(datasets: ModuleType) -> Answers:
    root = make_data()
    for mode in COUNTS:
        loader = datasets.get_data_loader(root, mode, 32, 5)
        call = f'get_data_loader(root, "{mode}", 32, 5)'
        yield f"{call} is a DataLoader", isinstance(loader, DataLoader)
        yield f"{call}: shape of the first batch", list(first(loader).shape)
        yield f"len({call})", len(loader)
        epochs = [torch.cat([labels for _, labels in loader]).tolist() for _ in range(3)]
        yield f"{call}: images of an epoch", len(epochs[0])
        yield f"{call} shuffles", any(epoch != sorted(epoch) for epoch in epochs)
    loader = datasets.get_data_loader(root, "val", 32, 5, num_workers=2)
    yield 'get_data_loader(root, "val", 32, 5, num_workers=2).num_workers', loader.num_workers


def todo_2_1(networks: ModuleType) -> Answers:
    block = networks.ConvBlock(8, 12, 5, 2, 1)
    x = noise(2, 12, 4, 4)
    yield "ConvBlock(8, 12, 5, 2, 1).conv", words(block.conv)
    unused = block.bn is None or torch.equal(block.bn(x), x)
    yield "ConvBlock(8, 12, 5, 2, 1).bn(x) is x", unused
    block = networks.ConvBlock(4, 6, 3, 1, 1, use_batch_norm=True)
    for name in ("conv", "bn", "relu"):
        label = f"ConvBlock(4, 6, 3, 1, 1, use_batch_norm=True).{name}"
        yield label, words(getattr(block, name))


def todo_2_2(networks: ModuleType) -> Answers:
    x = noise(2, 6, 8, 8)
    for bn, residual in ((False, False), (False, True), (True, False), (True, True)):
        block = fill(networks.ConvBlock(6, 6, 3, 1, 1, bn, residual)).eval()
        said = f"ConvBlock(6, 6, 3, 1, 1, {bn}, {residual})"
        yield f"{said}(x)", block(x)
        yield f"{said} leaves x as it is", torch.equal(x, noise(2, 6, 8, 8))
    yield f"{said}(x) in training", block.train()(x)


def layers(name: str, net: nn.Module, bn: bool) -> Answers:
    yield f"type of {name}", type(net).__name__
    note = "" if bn else " (use_batch_norm=False)"
    yield f"len({name}){note}", len(net)
    for index, layer in enumerate(net):
        if hasattr(layer, "conv"):
            yield f"{name}[{index}].conv{note}", words(layer.conv)
            yield f"{name}[{index}].bn{note}", words(layer.bn)
            yield f"{name}[{index}].use_residual{note}", layer.use_residual
        else:
            yield f"{name}[{index}]{note}", words(layer)


def todo_3_1(networks: ModuleType) -> Answers:
    for bn in (True, False):
        net = networks.Classifier(3, 10, use_batch_norm=bn, dropout_prob=0.3).conv_net
        yield from layers("conv_net", net, bn)
        net = fill(nn.Sequential(*net)).eval()  # layers may have names of their own
        yield "conv_net(x)", net(noise(2, 3, 32, 32))
    yield "Classifier(1, 10).conv_net[0].conv", words(networks.Classifier(1, 10).conv_net[0].conv)


def todo_3_2(networks: ModuleType) -> Answers:
    for bn in (True, False):
        net = networks.Classifier(3, 10, use_batch_norm=bn, dropout_prob=0.3).fc_net
        yield from layers("fc_net", net, bn)
        net = fill(nn.Sequential(*net)).eval()
        yield "fc_net(features)", net(noise(4, 128 * 4 * 4))


def todo_3_3(networks: ModuleType) -> Answers:
    x = noise(4, 3, 32, 32)
    for bn, stn in ((False, False), (True, True)):
        network = fill(networks.Classifier(3, 10, bn, stn, 0.5), 0.5).eval()
        said = f"Classifier(3, 10, {bn}, {stn}, 0.5)"
        yield f"{said}(x), evaluating: shape", list(network(x).shape)
        yield f"{said}(x), evaluating", network(x)
        yield f"{said}(x), evaluating, is the same twice", torch.equal(network(x), network(x))
        yield f"weights of {said} that get no gradient", grads(network, network(x).square().sum())
        network.train()
        yield f"{said}(x), training, is the same twice", torch.equal(network(x), network(x))


def learns(stn: nn.Module, rate: float) -> bool:
    """True if a few steps at this rate teach an STN to shift images."""
    x = F.interpolate(noise(16, 3, 8, 8), 32, mode="bilinear")
    optimizer, losses = torch.optim.Adam(stn.parameters(), rate), []
    for _ in range(25):
        loss = (stn(x.roll(3, 3)) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return min(losses) < 0.8 * losses[0]


def todo_4_1(networks: ModuleType) -> Answers:
    """A design of the student's own: what it must do, not how."""
    for channels in (1, 3):
        stn, x = networks.STN(channels), F.interpolate(noise(16, channels, 8, 8), 32)
        theta = stn.localization_fc(stn.localization_conv(x).flatten(1))
        label = f"STN({channels}): shape of localization_fc(localization_conv(x).flatten(1))"
        yield label, list(theta.shape)
        yield f"STN({channels})(x): shape", list(stn(x).shape)
    with torch.no_grad():  # as after the first steps of training
        for value in stn.parameters():
            value.add_(noise(*value.shape, seed=1), alpha=0.02)
    loss = (stn(x) - x.roll(2, 3)).square().mean()
    yield "weights of STN(3) that get no gradient", grads(stn, loss)
    falls = any(learns(networks.STN(3), rate) for rate in (2e-3, 2e-4, 2e-2))
    yield "25 steps of Adam bring the loss of STN(3) below 0.8 of what it was", falls


def todo_4_2(networks: ModuleType) -> Answers:
    stn, x = networks.STN(3).eval(), noise(4, 3, 32, 32)
    for note in ("", ", of other features"):
        theta = stn.localization_fc(stn.localization_conv(x).flatten(1))
        yield f"STN(3): theta, untrained{note}", theta.view(-1, 2, 3)
        yield f"STN(3)(x), untrained{note}", stn(x)
        fill(stn.localization_conv)
    last = [one for one in stn.modules() if isinstance(one, nn.Linear)][-1]
    yield "STN(3): its last layer is trained", all(one.requires_grad for one in last.parameters())
