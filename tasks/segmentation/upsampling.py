"""The transposed convolution: how a small map of scores becomes one of every pixel.

    trans_conv(x, kernel)                       # each input, times the kernel, where it belongs
    kernel2matrix(kernel, (3, 3)).T @ y.ravel() # the same: the convolution's matrix, transposed
    layer.weight.copy_(bilinear_kernel(21, 21, 64))

Names and examples are those of Dive into Deep Learning, sections 14.10 and 14.11; the arithmetic is
that of Dumoulin and Visin (2016), chapter 4.
"""

import torch
from torch import Tensor


def trans_conv(x: Tensor, kernel: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Return the transposed convolution of a map, by hand.

    Each input value is multiplied with the kernel and added to the output, `stride` further than
    its neighbour's. Padding takes rows and columns away from the output, at all four sides: it is
    the convolution back that would be padded.

    Shape: (h, w) and (kh, kw) to (stride * (h - 1) + kh - 2 * padding, and w alike).
    """
    (height, width), (tall, wide) = x.shape, kernel.shape
    size = stride * (height - 1) + tall, stride * (width - 1) + wide
    y = torch.zeros(size, dtype=torch.promote_types(x.dtype, kernel.dtype), device=x.device)
    for i in range(height):
        for j in range(width):
            top, left = stride * i, stride * j
            y[top : top + tall, left : left + wide] += x[i, j] * kernel
    return y[padding : size[0] - padding, padding : size[1] - padding]


def kernel2matrix(kernel: Tensor, size: tuple[int, int], stride: int = 1) -> Tensor:
    """Return the matrix of a convolution: `matrix @ x.ravel()` is its output, row by row.

    Its transpose takes maps of the output's size to the input's: hence the name of the transposed
    convolution, which is what flows back through a convolution, too.

    Args:
        kernel: (kh, kw).
        size: (h, w) of the input.

    Shape: (outputs, h * w).
    """
    (height, width), (tall, wide) = size, kernel.shape
    rows = []
    for top in range(0, height - tall + 1, stride):
        for left in range(0, width - wide + 1, stride):
            row = kernel.new_zeros(size)
            row[top : top + tall, left : left + wide] = kernel
            rows.append(row.ravel())
    return torch.stack(rows)


def bilinear_kernel(in_channels: int, out_channels: int, kernel_size: int) -> Tensor:
    """Return a transposed convolution's weights that interpolate each channel linearly.

    With a stride of s, a kernel of 2 s and a padding of s / 2, a map becomes s times as large, as
    `F.interpolate(mode="bilinear")` makes it, but for its borders, beyond which there is 0.

    Shape: (in_channels, out_channels, kernel_size, kernel_size).
    """
    factor = (kernel_size + 1) // 2
    centre = factor - 1 if kernel_size % 2 else factor - 0.5
    along = 1 - (torch.arange(kernel_size) - centre).abs() / factor
    weight = torch.zeros(in_channels, out_channels, kernel_size, kernel_size)
    channels = torch.arange(min(in_channels, out_channels))
    weight[channels, channels] = along[:, None] * along
    return weight


def overlaps(length: int, kernel_size: int, stride: int) -> Tensor:
    """Return how many inputs each place of a transposed convolution's output is made from.

    Where the stride does not divide the kernel, it differs from place to place: that is where a
    checkerboard comes from (Odena et al. 2016).

    Args:
        length: of the input, along both axes.
    """
    return trans_conv(torch.ones(length, length), torch.ones(kernel_size, kernel_size), stride)
