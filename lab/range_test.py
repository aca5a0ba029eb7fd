"""Which learning rate: a range test (Smith 2017, "Cyclical learning rates", section 3.3).

Each step is taken at a higher rate than the one before. The loss stays, then falls, then explodes:
where it falls most steeply is a rate to train with.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch.optim.lr_scheduler import LambdaLR

from lab.console import LabError, progress, say
from lab.drawing import publish
from lab.learner import Learner
from lab.runtime import Runtime, to_device
from lab.settings import TrainSettings

STEPS, SECONDS = 100, 45.0  # at the most
LOWEST, HIGHEST = 1e-6, 10.0  # rates
SMOOTH = 0.9  # of the loss, what each step leaves of those before it
EXPLODED = 2.0  # times the lowest loss, above which higher rates are of no interest
FEWEST = 10  # steps that say anything


def find_rate(job: Any, settings: TrainSettings, runtime: Runtime, folder: Path) -> float:
    """Draw what the loss does at rising rates into a folder, and say which rate it suggests.

    Args:
        job: with `objective`, `network`, `loaders["train"]` and `parameters`.

    Raises:
        LabError: the loss never fell.
    """
    rates, losses = losses_at_rates(job, settings, runtime)
    rate = steepest(rates, losses)
    publish(draw_losses(rates, losses, rate), folder / "find_lr.jpg")
    if rate is None:
        raise LabError(
            f"at no rate from {LOWEST:g} to {rates[-1]:.2g} the loss fell: look for a fault in "
            "network and loss, or try another --batch_size"
        )
    say(f"The loss falls most steeply at a rate of {rate:.1g}: try --lr {rate:.1g}")
    return rate


def losses_at_rates(
    job: Any, settings: TrainSettings, runtime: Runtime
) -> tuple[np.ndarray, np.ndarray]:
    """Train at rates that rise by the same factor each step; return them and smoothed losses.

    It ends where the loss explodes.
    """
    rates = np.geomspace(LOWEST, HIGHEST, STEPS)
    settings = replace(settings, lr=1.0, schedule="constant", warmup=0.0, ema=0.0)
    learner = Learner(job.objective, job.network, settings, runtime, job.parameters).begin(STEPS)
    learner.schedule = LambdaLR(learner.optimizer, lambda step: rates[min(step, STEPS - 1)])
    learner.train()
    loader = job.loaders["train"]
    losses, mean, began = [], 0.0, time.perf_counter()
    with progress(total=STEPS, label="raising the rate") as bar:
        while len(losses) < STEPS and time.perf_counter() - began < SECONDS:
            for batch in loader:
                loss = learner.step(*to_device(batch, runtime))[0].item()
                mean = SMOOTH * mean + (1 - SMOOTH) * loss
                losses.append(mean / (1 - SMOOTH ** (len(losses) + 1)))  # as Adam corrects its own
                bar.update()
                exploded = not losses[-1] < EXPLODED * min(losses)  # also of what is no number
                late = time.perf_counter() - began > SECONDS
                if exploded or late or len(losses) == STEPS:
                    return rates[: len(losses)], np.array(losses)
    return rates[: len(losses)], np.array(losses)


def steepest(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """Return the rate at which losses fall most steeply over the rate's logarithm; None if none."""
    known = np.isfinite(losses)
    rates, losses = rates[known], losses[known]
    if len(losses) < FEWEST:
        return None
    slopes = np.gradient(losses, np.log(rates))
    slopes = np.convolve(slopes, np.ones(5) / 5, "valid")
    lowest = int(slopes.argmin())
    return float(rates[lowest + 2]) if slopes[lowest] < 0 else None


def draw_losses(rates: np.ndarray, losses: np.ndarray, rate: float | None) -> Figure:
    """Draw losses over rates, and the suggested one."""
    figure, axis = plt.subplots(figsize=(6.8, 4.2), layout="constrained")
    axis.plot(rates, losses)
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss (smoothed)")
    if rate is not None:
        axis.axvline(rate, color="C2", linestyle="--")
        axis.set_title(f"steepest at {rate:.1g}")
    axis.grid(alpha=0.3)
    return figure
