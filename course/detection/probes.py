"""What is asked of each blank of the assignment on fine-tuning, detection and segmentation."""

from types import ModuleType

import torch
import torchvision
from torch import nn

from course.probing import Answers, fill, grads, noise, words


def todo_1_1(detection: ModuleType) -> Answers:
    net = fill(torchvision.models.resnet18())
    before = {name: value.clone() for name, value in net.named_parameters()}
    net = detection.finetuned(net, 7)
    yield "finetuned(net, 7).fc", words(net.fc)
    yield "finetuned(net, 7).fc(features): shape", list(net.fc(noise(2, 512)).shape)
    changed = [
        name
        for name, value in net.named_parameters()
        if not name.startswith("fc.") and not torch.equal(value, before.get(name, torch.empty(0)))
    ]
    yield "finetuned(net, 7): other weights that were changed", changed[:3]
    frozen = [name for name, value in net.named_parameters() if not value.requires_grad]
    yield "finetuned(net, 7): weights that are not trained", frozen[:3]
    other = detection.finetuned(torchvision.models.shufflenet_v2_x0_5(), 7)
    yield "finetuned(net, 7).fc of a net with 1024 features", words(other.fc)


def todo_2_1(detection: ModuleType) -> Answers:
    layer = detection.cls_predictor(8, 5, 10)
    yield "cls_predictor(8, 5, 10)", words(layer)
    yield "cls_predictor(8, 5, 10)(x): shape", list(layer(noise(2, 8, 6, 4)).shape)


def todo_2_2(detection: ModuleType) -> Answers:
    layer = detection.bbox_predictor(8, 5)
    yield "bbox_predictor(8, 5)", words(layer)
    yield "bbox_predictor(8, 5)(x): shape", list(layer(noise(2, 8, 6, 4)).shape)


def todo_2_3(detection: ModuleType) -> Answers:
    joined = detection.concat_preds([noise(2, 6, 4, 3), noise(2, 5, 2, 3, seed=1)])
    yield "concat_preds([...]): shape", list(joined.shape)
    yield "concat_preds([...])", joined


def flat(block: nn.Sequential) -> list[nn.Module]:
    """Return the layers of a block, also of blocks within it."""
    parts = [flat(one) if isinstance(one, nn.Sequential) else [one] for one in block]
    return sum(parts, [])


def todo_2_4(detection: ModuleType) -> Answers:
    block = detection.down_sample_blk(3, 8)
    yield "layers of down_sample_blk(3, 8)", [words(one) for one in flat(block)]
    block = fill(nn.Sequential(*flat(block))).eval()  # layers may have names of their own
    yield "down_sample_blk(3, 8)(x)", block(noise(2, 3, 8, 12))


def todo_2_5(detection: ModuleType) -> Answers:
    net = fill(detection.TinySSD(2)).eval()
    names = ("anchors", "scores of classes", "offsets")
    out = net(noise(2, 3, 64, 64))
    for name, value in zip(names, out, strict=True):
        yield f"TinySSD(2)(X): shape of {name}", list(value.shape)
        yield f"TinySSD(2)(X): {name}", value
    loss = sum(value.square().sum() for value in out[1:])
    yield "weights of TinySSD(2) that get no gradient", grads(net, loss)[:3]


def todo_3_1(detection: ModuleType) -> Answers:
    x, k = noise(3, 4), noise(2, 3, seed=1)
    yield "trans_conv(X, K): shape", list(detection.trans_conv(x, k).shape)
    yield "trans_conv(X, K)", detection.trans_conv(x, k)
    yield "X itself is changed", not torch.equal(x, noise(3, 4))


def todo_3_2(detection: ModuleType) -> Answers:
    net = fill(detection.FCN(5)).eval()
    assert isinstance(net, nn.Module)
    for height, width in ((32, 48), (36, 40)):
        scores = net(noise(2, 3, height, width))
        yield f"FCN(5)(X), X of {height}x{width}: shape", list(scores.shape)
        yield f"FCN(5)(X), X of {height}x{width}", scores
    yield "weights of FCN(5) that get no gradient", grads(net, scores.square().sum())
