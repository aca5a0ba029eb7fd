"""What is asked of each blank of the assignment on video."""

from types import ModuleType

from torch import nn

from course.probing import Answers, fill, noise


def attend(attention: ModuleType) -> Answers:
    block = fill(attention.NonLocalBlock(6), 2)
    x = noise(2, 6, 2, 3, 4)
    yield "NonLocalBlock(6)(x): shape", list(block(x).shape)
    yield "NonLocalBlock(6)(x)", block(x)


def salient(attention: ModuleType) -> Answers:
    net = fill(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 5)), 2)
    for value in net.parameters():
        value.requires_grad = False
    x = noise(1, 3, 8, 8)
    saliency = attention.saliency_map(net, x)
    yield "saliency_map(model, X): shape", list(saliency.shape)
    yield "saliency_map(model, X)", saliency


todo_3_1 = todo_3_2 = attend
todo_7_1 = todo_7_2 = salient
