# en: Attention over space and time, and saliency maps: fill in TODO 3.1 to 7.2.
# zh: 时空自注意力与显著性图：请完成 TODO 3.1 到 7.2。

import sys

import torch
import torch.nn as nn
import torchvision
from PIL import Image
from torchvision import transforms


class NonLocalBlock(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.in_channels = in_channels
        self.inter_channels = in_channels // 2
        self.query_conv = nn.Conv3d(in_channels, self.inter_channels, kernel_size=1)
        self.key_conv = nn.Conv3d(in_channels, self.inter_channels, kernel_size=1)
        self.value_conv = nn.Conv3d(in_channels, self.inter_channels, kernel_size=1)
        self.out_conv = nn.Conv3d(self.inter_channels, in_channels, kernel_size=1)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x):
        batch_size, C, T, H, W = x.size()
        query = self.query_conv(x).view(batch_size, self.inter_channels, -1)  # (N, C', T*H*W)
        key = self.key_conv(x).view(batch_size, self.inter_channels, -1)
        value = self.value_conv(x).view(batch_size, self.inter_channels, -1)
        # TODO 3.1
        # en: attention (N, T*H*W, T*H*W): row i holds the shares that position i, its query, gives
        # en: to the keys of all positions j; they sum to 1 over j (softmax, unscaled)
        # zh: attention (N, T*H*W, T*H*W)：第 i 行是位置 i 的 query 分给所有位置 j 的 key 的权重，
        # zh: 对 j 求和为 1（softmax，不缩放）
        ### BEGIN SOLUTION
        attention = self.softmax(query.transpose(1, 2) @ key)
        ### END SOLUTION
        # TODO 3.2
        # en: out: what each position takes of all values, as (N, C', T, H, W), through
        # en: self.out_conv; and the input added to it
        # zh: out：每个位置按权重汇总所有 value，还原为 (N, C', T, H, W)，
        # zh: 经 self.out_conv，再加上输入
        ### BEGIN SOLUTION
        y = value @ attention.transpose(1, 2)
        out = self.out_conv(y.view(batch_size, self.inter_channels, T, H, W)) + x
        ### END SOLUTION
        return out


def saliency_map(model, X):
    # en: Return the saliency (1, H, W) of an image (1, 3, H, W) for its likeliest class.
    # zh: 返回图像 (1, 3, H, W) 对其最可能类别的显著性图 (1, H, W)。
    X = X.clone().requires_grad_()
    output = model(X)
    score_max = output[0, output.argmax()]
    # TODO 7.1
    # en: gradient (1, 3, H, W) of score_max by X, by backpropagation
    # zh: gradient (1, 3, H, W)：通过反向传播得到 score_max 对 X 的梯度
    ### BEGIN SOLUTION
    score_max.backward()
    gradient = X.grad
    ### END SOLUTION
    # TODO 7.2
    # en: saliency (1, H, W): the largest absolute value of the gradient over the channels R, G, B
    # zh: saliency (1, H, W)：梯度绝对值在 RGB 通道上的最大值
    ### BEGIN SOLUTION
    saliency = gradient.abs().max(dim=1)[0]
    ### END SOLUTION
    return saliency


if __name__ == "__main__":
    clip = torch.rand(2, 64, 4, 16, 16)
    print(tuple(clip.shape), "->", tuple(NonLocalBlock(64)(clip).shape))
    picture = Image.open(sys.argv[1] if len(sys.argv) > 1 else "data/street_0.jpg").convert("RGB")
    X = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor()])(picture)[None]
    X = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(X)
    saliency = saliency_map(torchvision.models.vgg19(weights="DEFAULT").eval(), X)
    transforms.ToPILImage()(saliency / saliency.max()).save("output.png")
