"""What is asked of each blank of the assignment on video."""

from types import ModuleType

import torch
from torch import nn

from course.probing import Answers, fill, grads, noise


def attend(attention: ModuleType) -> Answers:
    block = fill(attention.NonLocalBlock(6), 2)
    x = noise(2, 6, 2, 3, 4)
    yield "NonLocalBlock(6)(x): shape", list(block(x).shape)
    yield "NonLocalBlock(6) leaves x as it is", torch.equal(x, noise(2, 6, 2, 3, 4))
    yield "NonLocalBlock(6)(x)", block(x)
    loss = block(x).square().sum()
    yield "weights of NonLocalBlock(6) that get no gradient", grads(block, loss)


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
