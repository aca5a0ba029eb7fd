"""The second stage: what is noise in noisy latents, given the words of a caption.

    task = Denoising(make_scheduler("v_prediction"))
    task.loss(LatentDiffusion(config), latents, ids)

Noise: Ho et al. 2020, "Denoising diffusion probabilistic models". Of each latent x and noise e,
z = sqrt(a) x + sqrt(1 - a) e, where a falls from 1 to 0 with the time t. Predicted is e, or the
velocity v = sqrt(a) e - sqrt(1 - a) x (Salimans and Ho 2022). Some captions are left out, so that
the UNet learns as well what it would paint without words, which is what guidance sets the words
off against (Ho and Salimans 2022).
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from networks import at_least_float32

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

    from lab.runtime import Runtime
    from tasks.diffusion.networks import LatentDiffusion

WORDLESS = 0.1  # share of captions that are left out


class Denoising:
    """Squared differences of what is predicted, ranked by the share of it that is explained.

    Args:
        scheduler: knows the noise, and what is predicted.
    """

    name = "diffusion"
    ranks_by = "r2"

    def __init__(self, scheduler: "DDIMScheduler"):
        self.scheduler = scheduler

    def loss(self, model: "LatentDiffusion", latents: Tensor, ids: Tensor) -> Tensor:
        """Return the mean loss of latents (N, C, h, w) with tokens (N, LENGTH)."""
        noise, times = torch.randn_like(latents), self.draw_times(latents)
        wordless = torch.rand(len(ids), 1, device=ids.device) < WORDLESS
        prediction = self.predict(model, latents, noise, times, empty_where(wordless, ids))
        return F.mse_loss(prediction, self.target(latents, noise, times))

    def draw_times(self, latents: Tensor) -> Tensor:
        """Return a time for each latent, int64 (N,)."""
        steps = self.scheduler.config.num_train_timesteps
        return torch.randint(steps, (len(latents),), device=latents.device)

    def predict(
        self, model: "LatentDiffusion", latents: Tensor, noise: Tensor, times: Tensor, ids: Tensor
    ) -> Tensor:
        """Return what a network predicts of latents with noise, float32."""
        noisy = self.scheduler.add_noise(latents, noise, times)
        return at_least_float32(model(noisy, times, ids))

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return what is to be predicted."""
        if self.scheduler.config.prediction_type == "epsilon":
            return noise
        return self.scheduler.get_velocity(latents, noise, times)

    def meter(self) -> "DenoisingMeter":
        """Return a new meter."""
        return DenoisingMeter(self)


def empty_where(chosen: Tensor, ids: Tensor) -> Tensor:
    """Return prompts, int64 (N, LENGTH), of which those chosen, bool (N, 1), say nothing.

    The empty prompt is a start, then ends: tokens 0, 1, 1, ...
    """
    empty = torch.ones_like(ids[:1])
    empty[:, 0] = 0
    return torch.where(chosen, empty, ids)


class DenoisingMeter:
    """How much of noise or velocity is explained: 1 - squared error / squared value, over all.

    Noise and times are the same at each call, so that epochs can be compared; the times are spread
    evenly over each batch.

    Attributes:
        figures: what `compute` returned.
    """

    def __init__(self, task: Denoising):
        self.task, self.batches = task, 0
        self.sums = torch.zeros(3, dtype=torch.float64)  # errors, values, numbers
        self.figures: dict[str, float] = {}

    def update(self, model: "LatentDiffusion", latents: Tensor, ids: Tensor) -> None:
        """Add noise to a batch of latents and have it predicted."""
        generator = torch.Generator().manual_seed(self.batches)
        self.batches += 1
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        steps = self.task.scheduler.config.num_train_timesteps
        times = torch.linspace(0, steps - 1, len(latents), device=latents.device).long()
        target = self.task.target(latents, noise, times)
        errors = (self.task.predict(model, latents, noise, times, ids) - target).square().sum()
        own = torch.stack([errors, target.square().sum(), errors.new_tensor(target.numel())])
        self.sums = self.sums.to(own.device) + own.double()

    def compute(self, runtime: "Runtime") -> dict[str, float]:
        """Return the figures by name, over the latents of all processes."""
        errors, values, count = runtime.total(self.sums.to(runtime.device)).tolist()
        self.figures = {"loss": errors / max(count, 1), "r2": 1 - errors / max(values, 1e-12)}
        return self.figures
