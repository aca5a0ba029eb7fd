"""The first stage: pictures to a few numbers and back, so that these remain pictures of signs.

    task = Reconstruction()
    task.loss(Autoencoder(config), images, labels)

As in latent diffusion (Rombach et al. 2022), the latents are kept near a normal distribution, by
little. There, a network that knows photographs says what a viewer would miss; here, edges do: of a
sign, it is the edges that are read.
"""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from networks import at_least_float32

if TYPE_CHECKING:
    from lab.runtime import Runtime
    from tasks.diffusion.networks import Autoencoder

EDGES = 1.0  # of differences of neighbours, beside those of pixels
DIVERGENCE = 1e-3  # of the latents' Gaussians from the normal one


class Reconstruction:
    """Absolute differences of pixels and of edges, ranked by the peak signal-to-noise ratio."""

    name = "diffusion"
    ranks_by = "psnr"

    def loss(
        self, model: "Autoencoder", images: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of images (N, 3, H, W) in [-1, 1], and the divergence in it."""
        decoded, mean, log_variance = model(images)
        kl = divergence(at_least_float32(mean), at_least_float32(log_variance))
        return difference(at_least_float32(decoded), images) + DIVERGENCE * kl, {"kl": kl}

    def meter(self) -> "ReconstructionMeter":
        """Return a new meter."""
        return ReconstructionMeter()


def difference(decoded: Tensor, images: Tensor) -> Tensor:
    """Return the mean absolute difference of pixels, plus that of neighbours' differences."""
    down, right = (F.l1_loss(decoded.diff(dim=axis), images.diff(dim=axis)) for axis in (2, 3))
    return F.l1_loss(decoded, images) + EDGES * (down + right) / 2


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return Kullback and Leibler's divergence of Gaussians from the normal one, mean over all."""
    return ((mean.square() + log_variance.exp() - 1 - log_variance) / 2).mean()


class ReconstructionMeter:
    """PSNR of reconstructions, in dB, the mean over pictures.

    Attributes:
        figures: what `compute` returned.
    """

    def __init__(self) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64)  # of loss and PSNR, and images
        self.figures: dict[str, float] = {}

    def update(self, model: "Autoencoder", images: Tensor, labels: Tensor) -> None:
        """Encode and decode a batch, (N, 3, H, W) in [-1, 1]."""
        decoded, mean, log_variance = model(images)
        decoded = at_least_float32(decoded)
        kl = divergence(at_least_float32(mean), at_least_float32(log_variance))
        loss = difference(decoded, images) + DIVERGENCE * kl
        errors = (decoded.clamp(-1, 1) - images).square().flatten(1).mean(1) / 4  # of [0, 1]
        psnr = -10 * errors.clamp(min=1e-10).log10()
        own = torch.stack([loss * len(images), psnr.sum(), psnr.new_tensor(len(images))])
        self.sums = self.sums.to(own.device) + own.double()

    def compute(self, runtime: "Runtime") -> dict[str, float]:
        """Return the figures by name, over the pictures of all processes."""
        loss, psnr, count = runtime.total(self.sums.to(runtime.device)).tolist()
        nothing = math.nan if not count else 1 / max(count, 1)
        self.figures = {"loss": loss * nothing, "psnr": psnr * nothing}
        return self.figures
