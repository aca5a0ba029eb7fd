# en: What sways a network, and style transfer: fill in TODO 1.1 to 2.4.
# zh: 影响网络判断的像素，以及风格迁移：请完成 TODO 1.1 到 2.4。

import sys

import torch
import torchvision
from PIL import Image
from torchvision import transforms


def compute_saliency_maps(X, y, model):
    # en: X (N, 3, H, W), labels y (N,): saliency (N, H, W).
    # zh: 图像 X (N, 3, H, W)、标签 y (N,)：返回显著性图 (N, H, W)。
    X = X.clone().requires_grad_()
    scores = model(X)
    # TODO 1.1
    # en: the gradient of each image's score of its own label (gather), by its pixels; return the
    # en: largest absolute value over the channels
    # zh: 各图像自身标签的得分（gather）对像素的梯度；返回通道上绝对值的最大值
    ### BEGIN SOLUTION
    correct = scores.gather(1, y.view(-1, 1)).squeeze(1)
    correct.backward(torch.ones_like(correct))
    return X.grad.abs().max(dim=1)[0]
    ### END SOLUTION


def make_fooling_image(X, target_y, model, learning_rate=1.0, steps=100):
    # en: Change an image X (1, 3, H, W) until the model takes it for class target_y.
    # zh: 修改图像 X (1, 3, H, W)，直到模型把它判为 target_y 类。
    X_fooling = X.clone().requires_grad_()
    for _ in range(steps):
        scores = model(X_fooling)
        # TODO 1.2
        # en: stop when target_y has the largest score; else a step of gradient ascent on its score:
        # en: X_fooling += learning_rate * g / norm(g), and zero the gradient
        # zh: 当 target_y 的得分最大时停止；否则对其得分做一步梯度上升：
        # zh: X_fooling += learning_rate * g / norm(g)，并清零梯度
        ### BEGIN SOLUTION
        if scores.argmax() == target_y:
            break
        scores[0, target_y].backward()
        g = X_fooling.grad
        X_fooling.data += learning_rate * g / g.norm()
        X_fooling.grad = None
        ### END SOLUTION
    return X_fooling.detach()


def class_visualization_step(img, target_y, model, l2_reg, learning_rate):
    # en: One step of an image img (1, 3, H, W), in place, towards what class target_y looks like.
    # zh: 原地修改图像 img (1, 3, H, W) 一步，使其更像 target_y 类。
    img = img.requires_grad_()
    img.grad = None
    # TODO 1.3
    # en: gradient ascent on the score of target_y minus l2_reg * (sum of squares of img):
    # en: img += learning_rate * g / norm(g)
    # zh: 对目标（target_y 的得分减去 l2_reg * img 的平方和）做梯度上升：
    # zh: img += learning_rate * g / norm(g)
    ### BEGIN SOLUTION
    objective = model(img)[0, target_y] - l2_reg * (img**2).sum()
    objective.backward()
    g = img.grad
    img.data += learning_rate * g / g.norm()
    ### END SOLUTION
    return img


def content_loss(content_weight, content_current, content_original):
    # TODO 2.1
    # en: the sum of squares of the difference of the features (1, C, H, W), times the weight
    # zh: 特征 (1, C, H, W) 之差的平方和，乘以权重
    ### BEGIN SOLUTION
    return content_weight * ((content_current - content_original) ** 2).sum()
    ### END SOLUTION


def gram_matrix(features, normalize=True):
    # TODO 2.2
    # en: (N, C, H, W) to (N, C, C): products of channels, summed over positions; with normalize
    # en: divided by C * H * W
    # zh: 由 (N, C, H, W) 得 (N, C, C)：通道两两乘积对位置求和；normalize 时除以 C * H * W
    ### BEGIN SOLUTION
    N, C, H, W = features.shape
    F = features.reshape(N, C, H * W)
    gram = F @ F.transpose(1, 2)
    return gram / (C * H * W) if normalize else gram
    ### END SOLUTION


def style_loss(feats, style_layers, style_targets, style_weights):
    # en: feats: features of all layers; style_targets: Gram matrices of the layers style_layers.
    # zh: feats：所有层的特征；style_targets：style_layers 各层的 Gram 矩阵。
    # TODO 2.3
    # en: the sum over style_layers of weight * (sum of squares of the Gram matrices' difference)
    # zh: 对 style_layers 求和：权重 * Gram 矩阵之差的平方和
    ### BEGIN SOLUTION
    loss = 0.0
    for i in range(len(style_layers)):
        gram = gram_matrix(feats[style_layers[i]])
        loss = loss + style_weights[i] * ((gram - style_targets[i]) ** 2).sum()
    return loss
    ### END SOLUTION


def tv_loss(img, tv_weight):
    # TODO 2.4
    # en: the sum of squares of the differences of neighbours, below and beside, times the weight
    # zh: 上下相邻与左右相邻像素之差的平方和，乘以权重
    ### BEGIN SOLUTION
    down = ((img[:, :, 1:] - img[:, :, :-1]) ** 2).sum()
    right = ((img[:, :, :, 1:] - img[:, :, :, :-1]) ** 2).sum()
    return tv_weight * (down + right)
    ### END SOLUTION


def features_of(img, cnn):
    features = []
    for layer in cnn:
        img = layer(img)
        features.append(img)
    return features


if __name__ == "__main__":
    steps = [transforms.Resize((192, 192)), transforms.ToTensor()]
    steps.append(transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    read = transforms.Compose(steps)
    X, style = (read(Image.open(name).convert("RGB"))[None] for name in sys.argv[1:3])
    model = torchvision.models.squeezenet1_1(weights="DEFAULT").eval()
    label = model(X).argmax(1)
    print("saliency", tuple(compute_saliency_maps(X, label, model).shape))
    fooled = make_fooling_image(X, 6, model)
    print("class", label.item(), "after fooling", model(fooled).argmax().item())
    layers, weights = [1, 4, 6, 7], [2000, 500, 12, 1]
    with torch.no_grad():
        content = features_of(X, model.features)[3]
        targets = [gram_matrix(features_of(style, model.features)[i]) for i in layers]
    img = X.clone().requires_grad_()
    adam = torch.optim.Adam([img], lr=0.05)
    for step in range(101):
        feats = features_of(img, model.features)
        loss = content_loss(0.01, feats[3], content) + tv_loss(img, 1e-3)
        loss = loss + style_loss(feats, layers, targets, weights)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % 20 == 0:
            print("step", step, "loss", loss.item())
    img = img.detach()[0] * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    img = img + torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    transforms.ToPILImage()(img.clamp(0, 1)).save("styled.png")
