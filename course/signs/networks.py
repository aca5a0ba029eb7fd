# en: The networks of the assignment on traffic signs: fill in TODO 2.1 to 4.2.
# zh: 交通标志作业的网络：请完成 TODO 2.1 到 4.2。

import torch
import torch.nn as nn
import torch.nn.functional as F


class ConvBlock(nn.Module):
    # en: Convolution, normalisation, activation, and an optional residual connection.
    # zh: 卷积、归一化、激活，以及可选的残差连接。

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding,
        use_batch_norm=False,
        use_residual=False,
    ):
        super().__init__()
        self.use_residual = use_residual
        # TODO 2.1
        # en: step 1: self.conv, nn.Conv2d with the arguments above
        # en: step 2: self.bn, nn.BatchNorm2d if use_batch_norm, else nn.Identity()
        # en: step 3: self.relu, nn.ReLU()
        # zh: 第 1 步：self.conv，使用上面参数的 nn.Conv2d
        # zh: 第 2 步：self.bn，若 use_batch_norm 则为 nn.BatchNorm2d，否则为 nn.Identity()
        # zh: 第 3 步：self.relu，即 nn.ReLU()
        ### BEGIN SOLUTION
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
        self.bn = nn.BatchNorm2d(out_channels) if use_batch_norm else nn.Identity()
        self.relu = nn.ReLU()
        ### END SOLUTION

    def forward(self, x):
        # TODO 2.2
        # en: step 1: convolution, normalisation, activation, in this order
        # en: step 2: if self.use_residual, add the block's input after the activation
        # en: step 3: return the result
        # zh: 第 1 步：依次经过卷积、归一化、激活
        # zh: 第 2 步：若 self.use_residual，在激活之后加上该块的输入
        # zh: 第 3 步：返回结果
        ### BEGIN SOLUTION
        out = self.relu(self.bn(self.conv(x)))
        if self.use_residual:
            out = out + x
        return out
        ### END SOLUTION


class Classifier(nn.Module):
    # en: Five convolution blocks and two linear layers, for images of 32x32 pixels.
    # zh: 五个卷积块与两个线性层，输入为 32x32 像素的图像。

    def __init__(
        self, in_channels, num_classes, use_batch_norm=False, use_stn=False, dropout_prob=0
    ):
        super().__init__()
        self.stn = STN(in_channels) if use_stn else nn.Identity()
        # TODO 3.1
        # en: self.conv_net, an nn.Sequential of eight layers:
        # en:   layer                  kernel  stride  padding  channels  residual
        # zh: self.conv_net，由八层组成的 nn.Sequential：
        # zh:   层                     核      步长    填充     通道数    残差
        #   0 ConvBlock            5       1       2        32        no
        #   1 ConvBlock            5       2       2        64        no
        #   2 max pooling          2       2       0
        #   3 ConvBlock            3       1       1        64        yes
        #   4 ConvBlock            3       1       1        128       no
        #   5 max pooling          2       2       0
        #   6 ConvBlock            3       1       1        128       yes
        #   7 dropout (dropout_prob)
        ### BEGIN SOLUTION
        bn = use_batch_norm
        self.conv_net = nn.Sequential(
            ConvBlock(in_channels, 32, 5, 1, 2, use_batch_norm=bn),
            ConvBlock(32, 64, 5, 2, 2, use_batch_norm=bn),
            nn.MaxPool2d(2, 2),
            ConvBlock(64, 64, 3, 1, 1, use_batch_norm=bn, use_residual=True),
            ConvBlock(64, 128, 3, 1, 1, use_batch_norm=bn),
            nn.MaxPool2d(2, 2),
            ConvBlock(128, 128, 3, 1, 1, use_batch_norm=bn, use_residual=True),
            nn.Dropout(dropout_prob),
        )
        ### END SOLUTION
        # TODO 3.2
        # en: self.fc_net, an nn.Sequential of five layers: linear to 256, ReLU, batch norm over
        # en: the 256 (nn.Identity() without use_batch_norm), dropout, linear to num_classes
        # zh: self.fc_net，由五层组成的 nn.Sequential：到 256 维的线性层、ReLU、
        # zh: 256 维的批归一化（不用 use_batch_norm 时为 nn.Identity()）、dropout、
        # zh: 到 num_classes 维的线性层
        ### BEGIN SOLUTION
        self.fc_net = nn.Sequential(
            nn.Linear(128 * 4 * 4, 256),
            nn.ReLU(),
            nn.BatchNorm1d(256) if use_batch_norm else nn.Identity(),
            nn.Dropout(dropout_prob),
            nn.Linear(256, num_classes),
        )
        ### END SOLUTION

    def forward(self, x):
        # en: step 1: where to look, given
        # zh: 第 1 步：看哪里（已给出）
        x = self.stn(x)
        # TODO 3.3
        # en: step 2: features (N, 128, 4, 4) by self.conv_net
        # en: step 3: flatten them to (N, 128 * 4 * 4)
        # en: step 4: return the scores (N, num_classes) of self.fc_net, without softmax
        # zh: 第 2 步：用 self.conv_net 提取特征 (N, 128, 4, 4)
        # zh: 第 3 步：展平为 (N, 128 * 4 * 4)
        # zh: 第 4 步：返回 self.fc_net 的得分 (N, num_classes)，不做 softmax
        ### BEGIN SOLUTION
        features = self.conv_net(x)
        return self.fc_net(features.flatten(1))
        ### END SOLUTION


class STN(nn.Module):
    # en: Spatial transformer (Jaderberg et al. 2015): an affine map of the image, learned.
    # zh: 空间变换网络（Jaderberg 等，2015）：学习对图像的仿射变换。

    def __init__(self, in_channels):
        super().__init__()
        # TODO 4.1
        # en: a network of your own design, from images (N, in_channels, 32, 32) to (N, 6):
        # en: step 1: self.localization_conv, e.g. three ConvBlocks of stride 2 with batch norm
        # en: step 2: self.localization_fc, an nn.Sequential on the flattened features that ends
        # en:         with nn.Linear(..., 6)
        # zh: 自行设计的网络，从图像 (N, in_channels, 32, 32) 到 (N, 6)：
        # zh: 第 1 步：self.localization_conv，例如三个步长为 2、带批归一化的 ConvBlock
        # zh: 第 2 步：self.localization_fc，作用于展平特征的 nn.Sequential，
        # zh:         最后一层为 nn.Linear(..., 6)
        ### BEGIN SOLUTION
        self.localization_conv = nn.Sequential(
            ConvBlock(in_channels, 16, 5, 2, 2, use_batch_norm=True),
            ConvBlock(16, 32, 3, 2, 1, use_batch_norm=True),
            ConvBlock(32, 64, 3, 2, 1, use_batch_norm=True),
        )
        self.localization_fc = nn.Sequential(
            nn.Linear(64 * 4 * 4, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 6)
        )
        ### END SOLUTION
        # TODO 4.2
        # en: the last layer's weight and bias, so that an untrained STN returns its input:
        # en: theta = [[1, 0, 0], [0, 1, 0]] whatever the image
        # zh: 初始化最后一层的权重与偏置，使未训练的 STN 原样返回输入：
        # zh: 无论图像如何，theta = [[1, 0, 0], [0, 1, 0]]
        ### BEGIN SOLUTION
        nn.init.zeros_(self.localization_fc[-1].weight)
        with torch.no_grad():
            self.localization_fc[-1].bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        ### END SOLUTION

    def forward(self, x):
        features = self.localization_conv(x)
        theta = self.localization_fc(features.flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, x.size(), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)
