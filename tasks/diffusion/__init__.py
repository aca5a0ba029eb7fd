"""Diffusion: pictures made from words, by a Stable Diffusion in miniature.

    python train.py --task diffusion                        # draws captioned signs, then trains
    python train.py --task diffusion --stage autoencoder    # the first stage alone
    python train.py --task diffusion --autoencoder RUN      # with the autoencoder of another run
    python test.py --task diffusion --read CLASSIFIER       # is what is painted what was named?
    python diffuse.py --prompt "a roundabout sign at night"

Two stages (Rombach et al. 2022), each a run of its own: an autoencoder, in the folder `autoencoder`
of the run, then text encoder and UNet on its latents. The networks are those of diffusers and
transformers: `networks` has all sizes, `words` the tokenizer, `painting` makes pictures.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import flags
from lab.console import LabError, UsageError
from lab.flags import flag, positive_float, positive_int, read_flags
from lab.settings import TrainSettings
from tasks import Job, Stage, Task, TrainFlags, ViewFlags, folder_of

if TYPE_CHECKING:
    from lab.pictures import Picture
    from tasks.trained import Trained

STAGES = ("all", "autoencoder", "unet")
AUTOENCODER_FOLDER = "autoencoder"  # within the run's
# Of text encoder and UNet; of the autoencoder where it differs.
SETTINGS = {
    "epoch": 10, "batch_size": 32, "lr": 2e-3, "weight_decay": 1e-2, "optim_type": "adamw",
    "schedule": "onecycle", "clip_norm": 1.0, "ema": 0.998, "max_ckpt_save_num": 2,
}  # fmt: skip
AUTOENCODER = {
    "epoch": 1, "batch_size": 8, "lr": 2e-3, "weight_decay": 0.0, "optim_type": "muon", "ema": 0.99,
}  # fmt: skip
WORDS = {  # of learning what words look like, before the UNet
    "epoch": 5, "batch_size": 64, "lr": 3e-3, "optim_type": "adamw", "schedule": "onecycle",
    "ema": 0.0, "compile": False, "graph": False,
}  # fmt: skip
CHOSEN = ("epoch", "batch_size", "lr")  # of the autoencoder's, those that have a flag
FACTORS, FACTOR = (4, 8), 8  # pixels a side of one place of the latents
PREDICTIONS = ("v_prediction", "epsilon")  # what the UNet predicts, the first unless told otherwise

# Of painting. Stable Diffusion's guidance is higher: its words are many, and mean less each.
STEPS, STRENGTH, GUIDANCE, PUBLISHED_GUIDANCE = 25, 0.75, 4.5, 7.5
SCHEDULERS = {
    "ddim": "DDIMScheduler",  # Song et al. 2021
    "dpm": "DPMSolverMultistepScheduler",  # Lu et al. 2022
    "euler": "EulerDiscreteScheduler",  # Karras et al. 2022
    "ddpm": "DDPMScheduler",  # Ho et al. 2020: with noise in every step
}


def _of_autoencoder(name: str, parse: Any) -> Any:
    return flag(AUTOENCODER[name], parse, f"--{name} of the first stage")


@dataclass(frozen=True)
class Flags:
    """Those of stages and networks."""

    stage: str = flag("all", STAGES, "what to train")
    autoencoder: Path | None = flag(
        None, Path, "take that of another run: train the UNet alone", metavar="PATH"
    )
    factor: int = flag(FACTOR, int, "pixels a side of a place of the latents", choices=FACTORS)
    prediction: str = flag(PREDICTIONS[0], PREDICTIONS, "what the UNet predicts: velocity or noise")
    autoencoder_epoch: int = _of_autoencoder("epoch", positive_int)
    autoencoder_batch_size: int = _of_autoencoder("batch_size", positive_int)
    autoencoder_lr: float = _of_autoencoder("lr", positive_float)
    # Of an autoencoder that the UNet comes after, the UNet's settings and prediction; no flag, its
    # checkpoints alone hold it.
    then: dict[str, Any] | None = None


@dataclass(frozen=True)
class DiffuseFlags:
    """What diffuse.py is asked for."""

    prompt: str = flag(None, str, "what is to be seen; nothing, '', for anything", required=True)
    model: str | None = flag(
        None, str, "a run's folder, a pipeline's of diffusers, or a name on the Hugging Face Hub "
        f"(default: {folder_of('diffusion')}, or else the network that comes with the project)",
        metavar="NAME_OR_FOLDER",
    )  # fmt: skip
    image: str | None = flag(None, str, "picture to begin with: a file or an http(s) address")
    strength: float | None = flag(
        None, flags.closed_share, "of the noise that --image gets: 0 leaves it, 1 nothing of it "
        f"(default {STRENGTH:g})",
    )  # fmt: skip
    guidance_scale: float | None = flag(
        None, flags.non_negative_float, "how much the words count; 1: as by themselves, 0: not at "
        f"all (default: {GUIDANCE:g}, of --model NAME {PUBLISHED_GUIDANCE:g})",
    )  # fmt: skip
    negative_prompt: str | None = flag(None, str, "what is not to be seen")
    height: int | None = flag(
        None, flags.multiple_of_8, "pixels, a multiple of 8 (default: the model's own; of --image, "
        "by its shape)",
    )  # fmt: skip
    width: int | None = flag(None, flags.multiple_of_8, "likewise")
    steps: int = flag(STEPS, positive_int, "of denoising")
    scheduler: str | None = flag(None, SCHEDULERS, "how it steps (default: as the model comes)")
    num_images: int = flag(4, positive_int, "pictures to paint")
    seed: int = flag(0, flags.seed, "of the first picture")
    device: str | None = flags.device()
    save_dir: Path = flags.save_dir()
    no_show: bool = flags.no_show()


class Diffusion(Task):
    name = "diffusion"
    takes_pictures = False
    Flags = Flags
    defaults = SETTINGS
    views = {
        "unet": (),
        "words": ("prompt", "steps", "seed"),
        "strength": ("prompt", "image", "steps", "seed"),
    }
    published = ("stable_diffusion",)
    reads = True
    beside = False  # what the UNet is measured on, its autoencoder has encoded

    def flags_of(self, state: dict[str, Any]) -> dict[str, Any]:
        configs = state["configs"]
        if state["network"] == "autoencoder":
            return {"factor": configs["factor"]}
        return {"factor": configs["autoencoder"]["factor"], "prediction": configs["prediction"]}

    def stages(self, flags: TrainFlags, resumed: dict[str, Any] | None) -> list[Stage]:
        """Return the stages; an autoencoder's flags keep those of the UNet that comes after it."""
        own = flags.own
        if resumed is not None:
            if own.then is None:
                return [(flags, resumed)]
            later = unet_after(flags)
            done = resumed["epoch"] >= flags.settings.epoch
            return [(later, None)] if done else [(flags, resumed), (later, None)]
        if own.stage == "unet" or own.autoencoder is not None:
            if own.stage == "autoencoder":
                wrong = "--autoencoder is one that is trained: leave out --stage autoencoder"
                raise UsageError(wrong)
            return [(replace(flags, own=replace(own, stage="unet")), None)]
        alone = own.stage == "autoencoder" or flags.overfit_batch or flags.find_lr
        then = None if alone else asdict(flags.settings) | {"prediction": own.prediction}
        chosen = {name: getattr(own, f"autoencoder_{name}") for name in CHOSEN}
        first = replace(
            flags, ckpt_path=flags.ckpt_path / AUTOENCODER_FOLDER,
            settings=replace(flags.settings, **AUTOENCODER | chosen),
            own=replace(own, stage="autoencoder", then=then),
        )  # fmt: skip
        return [(first, None)] if alone else [(first, None), (unet_after(first), None)]

    def look(self, flags: ViewFlags, trained: Trained | None) -> Iterable[Picture]:
        if trained is not None and trained.state["network"] == "autoencoder":
            wrong = f"--type {flags.type} is of the UNet; {flags.ckpt_path} is its autoencoder's"
            raise LabError(wrong)
        return super().look(flags, trained)

    def packed(self, state: dict[str, Any], folder: Path) -> dict[str, Any]:
        return self.room("networks").packed(state, folder)

    def worth_seeing(self, job: Job) -> list[list[str]]:
        return [] if job.identity["network"] == "autoencoder" else super().worth_seeing(job)


def unet_after(first: TrainFlags) -> TrainFlags:
    """Return the flags of the UNet that comes after an autoencoder, of the autoencoder's flags."""
    then = Namespace(**first.own.then)
    own = {"stage": "unet", "autoencoder": first.ckpt_path, "prediction": then.prediction}
    return replace(
        first, ckpt_path=first.ckpt_path.parent, resume=None,
        settings=read_flags(then, TrainSettings), own=replace(first.own, **own, then=None),
    )  # fmt: skip


TASK = Diffusion()
