"""Ways for a network to see time: eight of them, of comparable size.

    network = CNNLSTM(VideoConfig(num_classes=10, frames=16, width=12))
    network(clips)          # (N, 3, T, 32, 32) to logits (N, 10)
    network.features(clips) # (N, P, F): P parts of the clip, which are averaged
    network.reach           # how many frames one part depends on

| name | sees time by | source |
|---|---|---|
| `single_frame` | not at all: one frame, a random one in training, else the middle one | |
| `early_fusion` | frames as channels of the first convolution | Karpathy et al. 2014, section 3.1 |
| `late_fusion` | the features of all frames side by side, in front of a linear layer | likewise |
| `late_fusion_mean` | the mean of the features of all frames | |
| `slow_fusion` | convolutions that join a few frames, layer by layer | likewise |
| `cnn3d` | 3x3x3 convolutions over windows of 16 frames | Tran et al. 2015 |
| `cnn_lstm` | an LSTM that reads the features of frame after frame | Donahue et al. 2015 |
| `non_local` | attention over all positions of all frames | Wang et al. 2018 |
"""

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lab.console import UsageError
from lab.registry import Design, new_config
from lab.runtime import upload
from networks import ConvBlock, NonLocalBlock, at_least_float32

SIDE = 32  # height and width of a frame in pixels
PARAMETERS = 500_000  # that a network has about, unless told otherwise
LEAST_FRAMES = 8
WINDOW, HOP = 16, 8  # frames that C3D sees at once, and from one window to the next
NON_LOCAL_MOMENTS = 16  # that the non-local block is shown at the most


@dataclass(frozen=True)
class VideoConfig:
    """All that is needed to build a network of this module; saved in checkpoints as `configs`.

    Attributes:
        frames: T of its clips.
        width: channels of the first layer, by which all others are measured.

    Raises:
        UsageError: too few frames.
    """

    num_classes: int
    frames: int
    width: int

    def __post_init__(self) -> None:
        if self.frames < LEAST_FRAMES:
            raise UsageError(f"--frames {self.frames}: the networks need at least {LEAST_FRAMES}")


# ---------------------------------------------------------------- blocks


class FrameCNN(nn.Module):
    """Features of an image, or of frames that are its channels; where things are is kept.

    Shape: (N, in_channels, 32, 32) to (N, features).
    """

    def __init__(self, in_channels: int, width: int, features: int):
        super().__init__()
        w = width
        self.conv_net = nn.Sequential(
            ConvBlock(in_channels, w, 5, 2, 2, use_batch_norm=True),  # (N, w, 16, 16)
            ConvBlock(w, 2 * w, 3, 2, 1, use_batch_norm=True),  # (N, 2w, 8, 8)
            ConvBlock(2 * w, 4 * w, 3, 2, 1, use_batch_norm=True),  # (N, 4w, 4, 4)
        )
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(64 * w, features), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv_net(images))

    def of_clips(self, clips: Tensor) -> Tensor:
        """Return the features of every frame, (N, 3, T, H, W) to (N, T, features)."""
        images = clips.transpose(1, 2).flatten(0, 1)  # (N * T, 3, H, W)
        return self(images).unflatten(0, (len(clips), -1))


Sizes = int | tuple[int, int, int]  # along T, H, W


def conv_block(
    in_channels: int, out_channels: int, kernel: Sizes = 3, stride: Sizes = 2, padding: Sizes = 1
) -> nn.Sequential:
    """Return a ConvBlock with batch norm of clips."""
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, kernel, stride, padding),
        nn.BatchNorm3d(out_channels),
        nn.ReLU(),
    )


# ---------------------------------------------------------------- wholes


class VideoNetwork(nn.Module):
    """A linear layer on the mean of what is known of a clip's parts.

    Args:
        features: number of them.

    Attributes:
        outputs: names of the layers that tell classes apart.
        reach: frames that the features of one part depend on, at the most.

    Shape: (N, 3, T, 32, 32) to logits (N, num_classes).
    """

    outputs = ("head",)

    def __init__(self, config: VideoConfig, features: int):
        super().__init__()
        self.config = config
        self.head = nn.Linear(features, config.num_classes)

    @property
    def reach(self) -> int:
        return self.config.frames

    def features(self, clips: Tensor) -> Tensor:
        """Return the features of each part, (N, P, features)."""
        raise NotImplementedError

    def forward(self, clips: Tensor) -> Tensor:
        expected = (3, self.config.frames, SIDE, SIDE)
        if clips.shape[1:] != expected:
            raise ValueError(f"expected clips (N, {expected}), got shape {tuple(clips.shape)}")
        return self.head(self.features(clips).mean(1))


class SingleFrame(VideoNetwork):
    """One frame of a clip: a random one in training, else the middle one."""

    reach = 1

    def __init__(self, config: VideoConfig):
        super().__init__(config, 8 * config.width)
        self.cnn = FrameCNN(3, config.width, 8 * config.width)

    def features(self, clips: Tensor) -> Tensor:
        count, _, frames = clips.shape[:3]
        if not self.training:
            return self.cnn(clips[:, :, frames // 2]).unsqueeze(1)
        # Drawn on the CPU, whose generator a resumed run restores on every device.
        chosen = upload(torch.randint(frames, (count,)), clips.device)
        return self.cnn(clips[torch.arange(count, device=clips.device), :, chosen]).unsqueeze(1)

    def every_frame(self, clips: Tensor) -> Tensor:
        """Return the logits of each frame by itself, (N, T, num_classes)."""
        return self.head(self.cnn.of_clips(clips))


class EarlyFusion(VideoNetwork):
    """All frames as channels of one image."""

    def __init__(self, config: VideoConfig):
        super().__init__(config, 8 * config.width)
        self.cnn = FrameCNN(3 * config.frames, config.width, 8 * config.width)

    def features(self, clips: Tensor) -> Tensor:
        return self.cnn(clips.flatten(1, 2)).unsqueeze(1)


class LateFusion(VideoNetwork):
    """Features of every frame side by side, joined by a linear layer.

    Karpathy et al. join two frames of a clip; here all of them.
    """

    def __init__(self, config: VideoConfig):
        w = config.width
        super().__init__(config, 8 * w)
        self.cnn = FrameCNN(3, w, 4 * w)
        self.fc = nn.Sequential(nn.Linear(config.frames * 4 * w, 8 * w), nn.ReLU())

    def features(self, clips: Tensor) -> Tensor:
        return self.fc(self.cnn.of_clips(clips).flatten(1)).unsqueeze(1)


class LateFusionMean(VideoNetwork):
    """The mean of every frame's features, whatever their order."""

    reach = 1

    def __init__(self, config: VideoConfig):
        super().__init__(config, 8 * config.width)
        self.cnn = FrameCNN(3, config.width, 8 * config.width)

    def features(self, clips: Tensor) -> Tensor:
        return self.cnn.of_clips(clips)


class SlowFusion(VideoNetwork):
    """Convolutions that see 4 frames, then 2 of what those have seen, and then all.

    Extents and strides in time are those of Karpathy et al., with a clip of T frames for their 10.
    """

    def __init__(self, config: VideoConfig):
        w = config.width
        super().__init__(config, 8 * w)
        # What a stride of two would leave over at the end is given a border to be counted with.
        odd = config.frames % 2
        first = (config.frames + 2 * odd - 4) // 2 + 1
        rest = -(-first // 2)
        self.conv_net = nn.Sequential(
            conv_block(3, w, (4, 5, 5), 2, (odd, 2, 2)),  # (N, w, first, 16, 16)
            conv_block(w, 2 * w, (2, 3, 3), 2, (first % 2, 1, 1)),  # (N, 2w, rest, 8, 8)
            conv_block(2 * w, 4 * w, (rest, 3, 3), 2, (0, 1, 1)),  # (N, 4w, 1, 4, 4)
        )
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(64 * w, 8 * w), nn.ReLU())

    def features(self, clips: Tensor) -> Tensor:
        return self.fc(self.conv_net(clips)).unsqueeze(1)


class CNN3D(VideoNetwork):
    """C3D (Tran et al. 2015), narrower, flatter, and with strides in place of pooling.

    All kernels are 3x3x3; the first layer leaves time as it is (section 3.1). Of longer clips than
    16 frames it sees windows of 16, eight apart, and averages their features (section 3.3).
    """

    def __init__(self, config: VideoConfig):
        w = config.width
        super().__init__(config, 4 * w)
        self.window = min(config.frames, WINDOW)
        last = config.frames - self.window
        self.starts = [*range(0, last, HOP), last]
        self.conv_net = nn.Sequential(
            conv_block(3, w, stride=(1, 2, 2)),  # (N, w, 16, 16, 16)
            conv_block(w, 2 * w),  # (N, 2w, 8, 8, 8)
            conv_block(2 * w, 4 * w),  # (N, 4w, 4, 4, 4)
            conv_block(4 * w, 8 * w),  # (N, 8w, 2, 2, 2)
        )
        moments = -(-self.window // 8)
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(32 * moments * w, 4 * w), nn.ReLU())

    @property
    def reach(self) -> int:
        return self.window

    def features(self, clips: Tensor) -> Tensor:
        windows = [clips[:, :, start : start + self.window] for start in self.starts]
        windows = torch.stack(windows, 1).flatten(0, 1)  # (N * P, 3, 16, H, W)
        return self.fc(self.conv_net(windows)).unflatten(0, (len(clips), -1))


class CNNLSTM(VideoNetwork):
    """An LSTM reads the features of frame after frame; what it says after each is averaged.

    As Donahue et al. 2015 do (section 4), here before the softmax: the last state alone would
    have to explain a clip before its frames are told apart, and of 64 frames that takes long to
    begin. Its gates start open for times of up to T frames (Tallec and Ollivier 2018, equation
    16). It is told each frame's features and how they differ from the frame before, as recognisers
    of speech are (Furui 1986), both normalised: frames of a clip resemble each other, and to find
    by itself that their small differences are what counts takes an LSTM several times as long.
    """

    def __init__(self, config: VideoConfig):
        w = config.width
        super().__init__(config, 8 * w)
        self.cnn = FrameCNN(3, w, 8 * w)
        self.norm = nn.BatchNorm1d(16 * w)
        self.lstm = nn.LSTM(16 * w, 8 * w, batch_first=True)
        with torch.no_grad():
            self.lstm.bias_hh_l0.zero_()
            into, forget = self.lstm.bias_ih_l0.view(4, -1)[:2]
            forget.uniform_(1, config.frames - 1).log_()
            into.copy_(-forget)

    def features(self, clips: Tensor) -> Tensor:
        frames = self.cnn.of_clips(clips)
        changes = frames.diff(dim=1, prepend=frames[:, :1])  # of the first frame, 0
        frames = torch.cat((frames, changes), 2)
        frames = self.norm(frames.flatten(0, 1)).view_as(frames)
        # cuDNN goes back through no LSTM but one in training; saliency has one at rest.
        at_rest = frames.is_cuda and frames.requires_grad and not self.training
        kernels = cudnn.flags(enabled=False) if at_rest else nullcontext()
        with kernels, torch.autocast(clips.device.type, enabled=False):  # a state of many steps
            return self.lstm(at_least_float32(frames))[0]


class NonLocal(VideoNetwork):
    """A 3D CNN with a non-local block after its second layer (Wang et al. 2018, section 4).

    Of more than 32 frames, the first layer takes every second, fourth and so on, so that the block
    attends over 16 moments of 8x8 positions at the most.
    """

    def __init__(self, config: VideoConfig):
        w = config.width
        super().__init__(config, 4 * w)
        thinned = -(-config.frames // (2 * NON_LOCAL_MOMENTS))
        self.conv_net = nn.Sequential(
            conv_block(3, w, stride=(thinned, 2, 2)),  # (N, w, T', 16, 16)
            conv_block(w, 2 * w),  # (N, 2w, T' / 2, 8, 8)
            NonLocalBlock(2 * w),
            conv_block(2 * w, 4 * w),  # (N, 4w, T' / 4, 4, 4)
            conv_block(4 * w, 8 * w),  # (N, 8w, T' / 8, 2, 2)
        )
        self.fc = nn.Sequential(nn.Linear(32 * w, 4 * w), nn.ReLU())

    def features(self, clips: Tensor) -> Tensor:
        moments = self.conv_net(clips).transpose(1, 2)  # (N, T' / 8, 8w, 2, 2)
        return self.fc(moments.flatten(2))


NETWORKS = {
    "single_frame": Design(VideoConfig, SingleFrame),
    "early_fusion": Design(VideoConfig, EarlyFusion),
    "late_fusion": Design(VideoConfig, LateFusion),
    "late_fusion_mean": Design(VideoConfig, LateFusionMean),
    "slow_fusion": Design(VideoConfig, SlowFusion),
    "cnn3d": Design(VideoConfig, CNN3D),
    "cnn_lstm": Design(VideoConfig, CNNLSTM),
    "non_local": Design(VideoConfig, NonLocal),
}


# ---------------------------------------------------------------- what a network costs


def default_width(name: str, num_classes: int, frames: int) -> int:
    """Return the width that makes a network's number of parameters nearest to `PARAMETERS`."""

    def distance(width: int) -> int:
        known = {"num_classes": num_classes, "frames": frames, "width": width}
        with torch.device("meta"):
            network = NETWORKS[name].build(new_config(NETWORKS, name, **known))
        return abs(count_parameters(network) - PARAMETERS)

    return min(range(4, 65), key=distance)


def count_parameters(network: nn.Module) -> int:
    """Return the number of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_multiply_adds(network: VideoNetwork) -> int:
    """Return the multiplications, each with an addition, that a network takes for a clip."""

    def of_lstm(frames: tuple, into: tuple, again: tuple, *_: Any, **__: Any) -> int:
        return 2 * math.prod(frames[:2]) * (math.prod(into) + math.prod(again))

    network = copy.deepcopy(network).cpu().eval()
    clip = torch.zeros(1, 3, network.config.frames, SIDE, SIDE)
    # Neither an LSTM's kernel nor those of attention that never hold the matrix of all pairs are
    # known to the counter.
    known = {torch.ops.aten.mkldnn_rnn_layer: of_lstm}
    counter = FlopCounterMode(display=False, custom_mapping=known)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        network(clip)
    return counter.get_total_flops() // 2
