"""What is asked of each blank of the assignment on looking into networks and style."""

from types import ModuleType

import torch
from torch import Tensor, nn

from course.probing import Answers, fill, noise


def model() -> nn.Module:
    net = fill(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 5)), 2)
    for value in net.parameters():
        value.requires_grad = False
    return net.eval()


def gradient(loss: Tensor, x: Tensor) -> Tensor:
    """Return what a loss is minimised by; zero where it does not depend on x."""
    if not loss.requires_grad:
        return torch.zeros_like(x)
    found = torch.autograd.grad(loss, x, allow_unused=True)[0]
    return torch.zeros_like(x) if found is None else found


def todo_1_1(inside: ModuleType) -> Answers:
    x, y = noise(3, 3, 8, 8), noise(3, 5).argmax(1)
    saliency = inside.compute_saliency_maps(x, y, model())
    yield "compute_saliency_maps(X, y, model): shape", list(saliency.shape)
    yield "compute_saliency_maps(X, y, model)", saliency


def todo_1_2(inside: ModuleType) -> Answers:
    x, net = noise(1, 3, 8, 8), model()
    target = int(net(x).argmin())
    for steps in (1, 2, 100):
        fooled = inside.make_fooling_image(x, target, net, steps=steps)
        yield f"make_fooling_image(X, target_y, model) - X, after {steps} steps at most", fooled - x
    slow = inside.make_fooling_image(x, target, net, learning_rate=0.5, steps=1)
    yield "make_fooling_image(X, target_y, model, learning_rate=0.5, steps=1) - X", slow - x
    yield "the class of the fooling image is target_y", int(net(fooled).argmax()) == target
    yield "X itself is changed", not bool((x == noise(1, 3, 8, 8)).all())


def todo_1_3(inside: ModuleType) -> Answers:
    net = model()
    for l2_reg in (0.0, 0.5):
        img = noise(1, 3, 8, 8)
        inside.class_visualization_step(img, 2, net, l2_reg, 3.0)
        label = f"class_visualization_step(img, 2, model, l2_reg={l2_reg}, learning_rate=3.0)"
        yield f"change of img by {label}", img - noise(1, 3, 8, 8)


def todo_2_1(inside: ModuleType) -> Answers:
    one, other = noise(1, 4, 5, 3).requires_grad_(), noise(1, 4, 5, 3, seed=1)
    loss = inside.content_loss(0.5, one, other)
    yield "content_loss(0.5, current, original)", loss
    yield "its gradient by current", gradient(loss, one)


def todo_2_2(inside: ModuleType) -> Answers:
    features = noise(2, 4, 5, 3)
    yield "gram_matrix(features): shape", list(inside.gram_matrix(features).shape)
    yield "gram_matrix(features, normalize=False)", inside.gram_matrix(features, False)
    yield "gram_matrix(features) * 60", inside.gram_matrix(features) * 60
    features.requires_grad_()
    total = inside.gram_matrix(features, False).sum()
    yield "gradient of gram_matrix(features, normalize=False).sum()", gradient(total, features)


def todo_2_3(inside: ModuleType) -> Answers:
    feats = [(noise(1, 3, 6, 6, seed=seed) * 3).requires_grad_() for seed in range(4)]
    targets = [noise(1, 3, 3, seed=seed) for seed in range(2)]
    loss = inside.style_loss(feats, [1, 3], targets, [2.0, 5.0])
    yield "style_loss(feats, [1, 3], targets, [2.0, 5.0])", loss
    yield "its gradient by feats[3]", gradient(loss, feats[3])


def todo_2_4(inside: ModuleType) -> Answers:
    img = noise(1, 3, 6, 5).requires_grad_()
    loss = inside.tv_loss(img, 0.5)
    yield "tv_loss(img, 0.5)", loss
    yield "its gradient by img", gradient(loss, img)
