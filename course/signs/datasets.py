# en: The loaders of the assignment on traffic signs: fill in TODO 1.1 to 1.3.
# zh: 交通标志作业的数据加载：请完成 TODO 1.1 到 1.3。

import os

from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder


def get_data_loader(data_root, mode, image_size, batch_size, num_workers=0, augment=False):
    # en: Return a loader of data_root/mode/CLASS/*, mode being train, val or test.
    # zh: 返回 data_root/mode/类别/* 的加载器，mode 为 train、val 或 test。
    # TODO 1.1
    # en: data_transform, a transforms.Compose:
    # en: step 1: resize to (image_size, image_size); image_size is a number of pixels
    # en: step 2: for train, and only with augment: the augmentation that you choose
    # en: step 3: to a tensor, normalised to [-1, 1]: mean 0.5 and deviation 0.5 of each channel
    # zh: data_transform，即一个 transforms.Compose：
    # zh: 第 1 步：缩放到 (image_size, image_size)；image_size 为像素数
    # zh: 第 2 步：仅当训练集且 augment 时：你选择的数据增广变换
    # zh: 第 3 步：转为张量并归一化到 [-1, 1]：各通道均值 0.5、标准差 0.5
    ### BEGIN SOLUTION
    steps = [transforms.Resize((image_size, image_size))]
    if mode == "train" and augment:
        steps.append(transforms.RandomAffine(10, translate=(0.06, 0.06), scale=(0.9, 1.1)))
        steps.append(transforms.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3))
    steps.append(transforms.ToTensor())
    steps.append(transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    data_transform = transforms.Compose(steps)
    ### END SOLUTION

    # TODO 1.2
    # en: dataset, an ImageFolder of the folder data_root/mode with data_transform
    # zh: dataset，即对文件夹 data_root/mode 使用 data_transform 的 ImageFolder
    ### BEGIN SOLUTION
    dataset = ImageFolder(os.path.join(data_root, mode), transform=data_transform)
    ### END SOLUTION

    # TODO 1.3
    # en: data_loader, a DataLoader with batch_size and num_workers; only train is shuffled
    # zh: data_loader，使用 batch_size 与 num_workers 的 DataLoader；只有训练集打乱顺序
    ### BEGIN SOLUTION
    data_loader = DataLoader(
        dataset, batch_size=batch_size, shuffle=mode == "train", num_workers=num_workers
    )
    ### END SOLUTION
    return data_loader
