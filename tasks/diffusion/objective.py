"""What both stages are trained on: pictures that come back, and noise that is told from pictures.

    Reconstruction().loss(Autoencoder(config), images, labels)
    Denoising(make_scheduler("v_prediction")).loss(LatentDiffusion(config), latents, ids)

Reconstruction: as in latent diffusion (Rombach et al. 2022), the latents are kept near a normal
distribution, by little. There, a network that knows photographs says what a viewer would miss;
here, edges do: of a sign, it is the edges that are read.

Noise: Ho et al. 2020, "Denoising diffusion probabilistic models". Of each latent x and noise e,
z = sqrt(a) x + sqrt(1 - a) e, where a falls from 1 to 0 with the time t. Predicted is e, or the
velocity v = sqrt(a) e - sqrt(1 - a) x (Salimans and Ho 2022). Some captions are left out, so that
the UNet learns as well what it would paint without words, which is what guidance sets the words
off against (Ho and Salimans 2022). Places in which classes differ count more (`told`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor, nn

from lab.objective import Sums
from lab.runtime import Runtime, upload
from networks import at_least_float32
from tasks.diffusion.networks import make_scheduler

EDGES = 1.0  # of differences of neighbours, beside those of pixels
DIVERGENCE = 1e-3  # of the latents' Gaussians from the normal one
WORDLESS = 0.1  # share of captions that are left out
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples, modulo 1, are spread evenly, however many
UNTOLD = 0.1  # what is added to the weight of each place, before their mean is 1 again


class Reconstruction:
    """Absolute differences of pixels and of edges, ranked by the peak signal-to-noise ratio."""

    ranks_by = "psnr"

    def loss(
        self, network: nn.Module, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of images (N, 3, H, W) in [-1, 1], and the divergence in it."""
        loss, kl, _ = reconstruct(network, images)
        return loss, {"kl": kl}

    def meter(self) -> ReconstructionMeter:
        return ReconstructionMeter()


def reconstruct(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of an autoencoder's reconstructions, the divergence in it, and these."""
    decoded, mean, log_variance = map(at_least_float32, network(images))
    kl = divergence(mean, log_variance)
    return difference(decoded, images) + DIVERGENCE * kl, kl, decoded


def difference(decoded: Tensor, images: Tensor) -> Tensor:
    """Return the mean absolute difference of pixels, plus that of neighbours' differences."""
    down, right = (F.l1_loss(decoded.diff(dim=axis), images.diff(dim=axis)) for axis in (2, 3))
    return F.l1_loss(decoded, images) + EDGES * (down + right) / 2


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return Kullback and Leibler's divergence of Gaussians from the normal one, mean over all."""
    return ((mean.square() + log_variance.exp() - 1 - log_variance) / 2).mean()


class SumsMeter:
    """A meter of three sums.

    Attributes:
        figures: what `compute` returned.
    """

    def __init__(self) -> None:
        self.sums = Sums()
        self.figures: dict[str, float] = {}

    def add(self, *values: Tensor) -> None:
        """Add scalars to the sums."""
        self.sums.add(torch.stack(values))

    def compute(self, runtime: Runtime) -> dict[str, float]:
        """Return the figures by name, over the inputs of all processes."""
        self.figures = self.figures_of(*runtime.totals(*(self.sums.now() or [0.0] * 3)))
        return self.figures


class ReconstructionMeter(SumsMeter):
    """PSNR of reconstructions, in dB, the mean over pictures."""

    def update(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Encode and decode a batch, (N, 3, H, W) in [-1, 1]."""
        loss, _, decoded = reconstruct(network, images)
        errors = (decoded.clamp(-1, 1) - images).square().flatten(1).mean(1) / 4  # of [0, 1]
        psnr = -10 * errors.clamp(min=1e-10).log10()
        self.add(loss * len(images), psnr.sum(), psnr.new_tensor(len(images)))

    def figures_of(self, loss: float, psnr: float, count: float) -> dict[str, float]:
        share = 1 / count if count else math.nan
        return {"loss": loss * share, "psnr": psnr * share}


class Denoising:
    """Squared differences of what is predicted, ranked by the share of it that is explained.

    Args:
        scheduler: knows the noise, and what is predicted.
        weights: what each place counts in the loss, (h, w), 1 in the mean (`told`); all the same
            without.
    """

    ranks_by = "r2"

    def __init__(self, scheduler: DDIMScheduler, weights: Tensor | None = None):
        self.scheduler, self.weights = scheduler, weights

    def loss(self, network: nn.Module, latents: Tensor, ids: Tensor) -> Tensor:
        """Return the mean loss of latents (N, C, h, w) with tokens (N, LENGTH)."""
        noise, steps = torch.randn_like(latents), self.scheduler.config.num_train_timesteps
        times = torch.randint(steps, (len(latents),), device=latents.device)
        wordless = torch.rand(len(ids), 1, device=ids.device) < WORDLESS
        prediction = self.predict(network, latents, noise, times, empty_where(wordless, ids))
        target = self.target(latents, noise, times)
        if self.weights is None:
            return F.mse_loss(prediction, target)
        self.weights = upload(self.weights, latents.device)  # the first time; there, no copy
        return ((prediction - target).square() * self.weights).mean()

    def predict(
        self, network: nn.Module, latents: Tensor, noise: Tensor, times: Tensor, ids: Tensor
    ) -> Tensor:
        """Return what a network predicts of latents with noise, float32."""
        noisy = self.scheduler.add_noise(latents, noise, times)
        return at_least_float32(network(noisy, times, ids))

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return what is to be predicted."""
        if self.scheduler.config.prediction_type == "epsilon":
            return noise
        return self.scheduler.get_velocity(latents, noise, times)

    def meter(self) -> DenoisingMeter:
        return DenoisingMeter(self)


class Likeness:
    """Squared differences of latents from what is expected of their words."""

    def loss(self, network: nn.Module, latents: Tensor, ids: Tensor) -> Tensor:
        """Return the mean loss of latents (N, C, h, w) with tokens (N, LENGTH)."""
        return F.mse_loss(at_least_float32(network(ids)), latents)


def told(latents: Tensor, labels: Tensor) -> Tensor:
    """Return how much pictures of different classes differ in each place, (h, w), 1 in the mean.

    Of a picture of a sign most is what is behind it, and outweighs the strokes that set a limit of
    20 apart from one of 70. A place counts by the variance of the classes' means.

    Args:
        latents: (N, C, h, w).
        labels: of their classes, int64 (N,).
    """
    means = torch.stack([latents[labels == label].mean(0) for label in labels.unique()])
    variance = means.var(0, correction=0).mean(0)
    share = torch.nan_to_num(variance / variance.mean(), nan=1.0)  # of one class: all the same
    return (share + UNTOLD) / (1 + UNTOLD)


def noise_of(number: int, shape: torch.Size) -> Tensor:
    """Return the noise of the n-th latent of a test, on the CPU."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def empty_where(chosen: Tensor, ids: Tensor) -> Tensor:
    """Return prompts, int64 (N, LENGTH), of which those chosen, bool (N, 1), say nothing.

    The empty prompt is a start, then ends: tokens 0, 1, 1, ...
    """
    empty = torch.ones_like(ids[:1])
    empty[:, 0] = 0
    return torch.where(chosen, empty, ids)


class DenoisingMeter(SumsMeter):
    """How much of noise or velocity is explained: 1 - squared error / squared value, over all.

    The n-th latent of a process has the same noise and time whatever the batches, so that epochs,
    and tests of other batches, can be compared; times are spread evenly over any number of latents.
    """

    def __init__(self, objective: Denoising):
        super().__init__()
        self.objective, self.seen = objective, 0

    def update(self, network: nn.Module, latents: Tensor, ids: Tensor) -> None:
        """Add noise to a batch of latents and have it predicted."""
        objective, device = self.objective, latents.device
        every = range(self.seen, self.seen + len(latents))
        self.seen = every.stop
        noise = torch.stack([noise_of(number, latents.shape[1:]) for number in every])
        steps = objective.scheduler.config.num_train_timesteps
        times = upload(torch.tensor([int(n * GOLDEN % 1 * steps) for n in every]), device)
        noise = upload(noise, device)
        target = objective.target(latents, noise, times)
        errors = (objective.predict(network, latents, noise, times, ids) - target).square().sum()
        self.add(errors, target.square().sum(), errors.new_tensor(target.numel()))

    def figures_of(self, errors: float, values: float, count: float) -> dict[str, float]:
        return {"loss": errors / max(count, 1), "r2": 1 - errors / max(values, 1e-12)}


def restore(state: dict[str, Any]) -> Reconstruction | Denoising:
    """Return the objective of a checkpoint."""
    if state["network"] == "autoencoder":
        return Reconstruction()
    weights = state.get("place_weights")  # of earlier versions there are none
    weights = None if weights is None else torch.tensor(weights)
    return Denoising(make_scheduler(state["configs"]["prediction"]), weights)
