# en: Fine-tuning, single-shot detection, segmentation: fill in TODO 1.1 to 3.2.
# zh: 微调、单发多框检测、语义分割：请完成 TODO 1.1 到 3.2。

import csv
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from PIL import Image
from torchvision.transforms.functional import to_tensor

SIZES = [[0.06, 0.09], [0.12, 0.16], [0.2, 0.27], [0.35, 0.45], [0.6, 0.75]]
RATIOS = [1, 2, 0.5]


def finetuned(net, num_classes):
    # en: A trained network (its last layer is net.fc) made ready for other classes.
    # zh: 把训练好的网络（最后一层为 net.fc）改为识别其他类别。
    # TODO 1.1
    # en: put a new nn.Linear with as many inputs as before and num_classes outputs in place of
    # en: net.fc, and return net; all other weights stay, and stay trainable
    # zh: 用输入维数不变、输出为 num_classes 的新 nn.Linear 替换 net.fc，并返回 net；
    # zh: 其余权重保持不变，且仍可训练
    ### BEGIN SOLUTION
    net.fc = nn.Linear(net.fc.in_features, num_classes)
    return net
    ### END SOLUTION


def cls_predictor(num_inputs, num_anchors, num_classes):
    # TODO 2.1
    # en: return a convolution of 3x3 that keeps height and width, and for each anchor gives scores
    # en: of num_classes classes and of the background
    # zh: 返回保持高宽的 3x3 卷积：为每个锚框给出 num_classes 个类别与背景的得分
    ### BEGIN SOLUTION
    return nn.Conv2d(num_inputs, num_anchors * (num_classes + 1), kernel_size=3, padding=1)
    ### END SOLUTION


def bbox_predictor(num_inputs, num_anchors):
    # TODO 2.2
    # en: return a convolution of 3x3 that keeps height and width, and gives 4 offsets an anchor
    # zh: 返回保持高宽的 3x3 卷积：为每个锚框给出 4 个偏移量
    ### BEGIN SOLUTION
    return nn.Conv2d(num_inputs, num_anchors * 4, kernel_size=3, padding=1)
    ### END SOLUTION


def concat_preds(preds):
    # TODO 2.3
    # en: each (N, C, H, W): channels last, then flattened to (N, H * W * C); joined along dim 1
    # zh: 每个 (N, C, H, W)：通道移到最后，展平为 (N, H * W * C)；沿第 1 维连结
    ### BEGIN SOLUTION
    return torch.cat([torch.flatten(p.permute(0, 2, 3, 1), start_dim=1) for p in preds], dim=1)
    ### END SOLUTION


def down_sample_blk(in_channels, out_channels):
    # TODO 2.4
    # en: return an nn.Sequential: twice (convolution of 3x3 with padding 1, batch norm, ReLU), then
    # en: max pooling of 2x2
    # zh: 返回 nn.Sequential：两次（填充为 1 的 3x3 卷积、批归一化、ReLU），再做 2x2 最大汇聚
    ### BEGIN SOLUTION
    blk = []
    for _ in range(2):
        blk.append(nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1))
        blk.append(nn.BatchNorm2d(out_channels))
        blk.append(nn.ReLU())
        in_channels = out_channels
    blk.append(nn.MaxPool2d(2))
    return nn.Sequential(*blk)
    ### END SOLUTION


def multibox_prior(X, sizes):
    # en: Anchors (1, H * W * 4, 4) of a feature map: left, top, right, bottom as shares.
    # zh: 特征图的锚框 (1, H * W * 4, 4)：左、上、右、下，为相对值。
    height, width = X.shape[-2:]
    shapes = [(s, RATIOS[0]) for s in sizes] + [(sizes[0], r) for r in RATIOS[1:]]
    half = torch.tensor([[s * r**0.5 / 2, s / r**0.5 / 2] for s, r in shapes])
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = torch.stack(((x + 0.5) / width, (y + 0.5) / height), -1).view(-1, 1, 2)
    return torch.cat((centre - half, centre + half), -1).view(1, -1, 4)


class TinySSD(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        channels = [64, 128, 128, 128, 128]
        base = [down_sample_blk(a, b) for a, b in ((3, 16), (16, 32), (32, 64))]
        blocks = [nn.Sequential(*base), down_sample_blk(64, 128), down_sample_blk(128, 128)]
        self.blks = nn.ModuleList(
            [*blocks, down_sample_blk(128, 128), nn.AdaptiveMaxPool2d((1, 1))]
        )
        self.cls = nn.ModuleList([cls_predictor(c, 4, num_classes) for c in channels])
        self.bbox = nn.ModuleList([bbox_predictor(c, 4) for c in channels])

    def forward(self, X):
        anchors, cls_preds, bbox_preds = [], [], []
        for i in range(5):
            # TODO 2.5
            # en: X through block i; its anchors by multibox_prior(X, SIZES[i]); its predictions of
            # en: classes and boxes; each appended to its list
            # zh: X 经过第 i 块；用 multibox_prior(X, SIZES[i]) 得锚框；预测类别与边界框；
            # zh: 分别加入对应的列表
            ### BEGIN SOLUTION
            X = self.blks[i](X)
            anchors.append(multibox_prior(X, SIZES[i]))
            cls_preds.append(self.cls[i](X))
            bbox_preds.append(self.bbox[i](X))
            ### END SOLUTION
        cls_preds = concat_preds(cls_preds).reshape(len(X), -1, self.num_classes + 1)
        return torch.cat(anchors, dim=1), cls_preds, concat_preds(bbox_preds)


def trans_conv(X, K):
    # en: Transposed convolution of a map X (H, W) with a kernel K (h, w), stride 1, no padding.
    # zh: 特征图 X (H, W) 与卷积核 K (h, w) 的转置卷积，步幅 1，无填充。
    # TODO 3.1
    # en: each number of X adds itself times K to the window of Y that begins at its place
    # zh: X 的每个元素乘以 K，累加到 Y 中从该位置开始的窗口
    ### BEGIN SOLUTION
    h, w = K.shape
    Y = torch.zeros((X.shape[0] + h - 1, X.shape[1] + w - 1))
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            Y[i : i + h, j : j + w] += X[i, j] * K
    return Y
    ### END SOLUTION


class FCN(nn.Module):
    # en: A class for every pixel: features of 1 / 8 of the size, brought back to the whole.
    # zh: 逐像素分类：特征为输入的 1/8，再恢复到原尺寸。

    def __init__(self, num_classes):
        super().__init__()
        self.net = nn.Sequential(*[down_sample_blk(a, b) for a, b in ((3, 16), (16, 32), (32, 64))])
        self.final_conv = nn.Conv2d(64, num_classes, kernel_size=1)

    def forward(self, X):
        # TODO 3.2
        # en: features by self.net, scores by self.final_conv, enlarged to the height and width of X
        # en: by F.interpolate: bilinear, align_corners=False; return (N, num_classes, H, W)
        # zh: self.net 提取特征，self.final_conv 得到得分，再用 F.interpolate 放大到 X 的高宽：
        # zh: 双线性，align_corners=False；返回 (N, num_classes, H, W)
        ### BEGIN SOLUTION
        scores = self.final_conv(self.net(X))
        return F.interpolate(scores, X.shape[2:], mode="bilinear", align_corners=False)
        ### END SOLUTION


if __name__ == "__main__":
    root = sys.argv[1] if len(sys.argv) > 1 else "data"
    with open(f"{root}/boxes.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    print(len(rows), "boxes; the first:", *rows[:1])
    X = to_tensor(Image.open(f"{root}/images/000.jpg"))[None]
    anchors, cls_preds, bbox_preds = TinySSD(1)(torch.cat((X, X)))
    print(tuple(anchors.shape), tuple(cls_preds.shape), tuple(bbox_preds.shape))
    labels = torch.tensor(list(Image.open(f"{root}/labels/000.png").tobytes())).view(1, 256, 256)
    fcn = FCN(int(labels.max()) + 1)
    adam = torch.optim.Adam(fcn.parameters(), lr=1e-2)
    for _ in range(20):
        loss = F.cross_entropy(fcn(X), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
    print("one picture learned by heart: loss", loss.item())
    print(finetuned(torchvision.models.resnet18(), 2).fc)
