# en: Digits by a network of two convolutions: fill in TODO 1.1 to 1.5.
# zh: 两层卷积网络识别手写数字：请完成 TODO 1.1 到 1.5。

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        # TODO 1.1
        # en: conv1: 32 kernels of 3x3, no padding; pool1: 2x2; conv2: 64 of 3x3; pool2: 2x2;
        # en: dropout1, dropout2: 0.3; fc1: to 128; fc2: to 10; images are (N, 1, 28, 28)
        # zh: conv1：32 个 3x3 卷积核，不填充；pool1：2x2；conv2：64 个 3x3；pool2：2x2；
        # zh: dropout1、dropout2：0.3；fc1：到 128 维；fc2：到 10 维；图像为 (N, 1, 28, 28)
        ### BEGIN SOLUTION
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.pool2 = nn.MaxPool2d(2)
        self.dropout1 = nn.Dropout(0.3)
        self.dropout2 = nn.Dropout(0.3)
        self.fc1 = nn.Linear(64 * 5 * 5, 128)
        self.fc2 = nn.Linear(128, 10)
        ### END SOLUTION

    def forward(self, x):
        # TODO 1.2
        # en: conv1, ReLU, pool1, conv2, ReLU, pool2, flatten, dropout1, fc1, ReLU, dropout2, fc2;
        # en: return the scores (N, 10)
        # zh: conv1、ReLU、pool1、conv2、ReLU、pool2、展平、dropout1、fc1、ReLU、dropout2、fc2；
        # zh: 返回得分 (N, 10)
        ### BEGIN SOLUTION
        x = self.pool1(F.relu(self.conv1(x)))
        x = self.pool2(F.relu(self.conv2(x)))
        x = self.dropout1(torch.flatten(x, 1))
        x = self.dropout2(F.relu(self.fc1(x)))
        return self.fc2(x)
        ### END SOLUTION


def preprocess(images):
    # en: uint8 (N, 28, 28), 0 to 255, to floats (N, 1, 28, 28), normalised.
    # zh: 把 0 到 255 的 uint8 图像 (N, 28, 28) 变为归一化的浮点数 (N, 1, 28, 28)。
    # TODO 1.3
    # en: to [0, 1], then minus the mean of MNIST, 0.1307, and divided by its deviation, 0.3081
    # zh: 先变到 [0, 1]，再减去 MNIST 的均值 0.1307，除以标准差 0.3081
    ### BEGIN SOLUTION
    return (images.float() / 255 - 0.1307).unsqueeze(1) / 0.3081
    ### END SOLUTION


def train(model, loader, optimizer):
    # TODO 1.4
    # en: one epoch in training mode: for each batch zero the gradients, cross-entropy of the
    # en: scores, backward, step
    # zh: 在训练模式下训练一轮：对每批清零梯度、计算得分的交叉熵、反向传播、更新
    ### BEGIN SOLUTION
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    ### END SOLUTION


def test(model, loader):
    # TODO 1.5
    # en: in evaluation mode and without gradients: return the share of images, from 0 to 1, whose
    # en: largest score is their label's
    # zh: 在评估模式下、不计算梯度：返回得分最大的类别等于标签的图像比例（0 到 1）
    ### BEGIN SOLUTION
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in loader:
            correct += (model(images).argmax(1) == labels).sum().item()
    return correct / len(loader.dataset)
    ### END SOLUTION


if __name__ == "__main__":
    digits = load_digits()
    images = torch.tensor(digits.images)[:, None] / 16 * 255
    images = F.interpolate(images, (28, 28), mode="bilinear")[:, 0].byte()
    dataset = TensorDataset(preprocess(images), torch.tensor(digits.target))
    split = torch.utils.data.random_split(dataset, [1437, 360])
    loaders = [DataLoader(split[0], 64, shuffle=True), DataLoader(split[1], 64)]
    net = Net()
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    for epoch in range(1, 6):
        train(net, loaders[0], adam)
        print(f"epoch {epoch}: {test(net, loaders[1]):.2%}")
