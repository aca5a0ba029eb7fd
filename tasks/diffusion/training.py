"""From flags to what each stage trains: an autoencoder, then text encoder and UNet."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets import make_loader, modes_of
from lab import checkpoint
from lab.augmentation import augment_batch
from lab.console import LabError, progress, say
from lab.folders import stored
from lab.image_folder import check_classes
from lab.learner import Learner
from lab.registry import build, new_config
from lab.runtime import Runtime, place, upload
from lab.settings import TrainSettings
from lab.weights import parameter_groups
from tasks import Job, State, TrainFlags
from tasks.diffusion import AUTOENCODER_FOLDER, TASK, WORDS
from tasks.diffusion.data import (
    PREPROCESS,
    SOURCES,
    Captioned,
    encode,
    encode_sentences,
    make_latent_loader,
    read_captioned,
)
from tasks.diffusion.networks import (
    NETWORKS,
    TIME_WIDTH,
    LatentDiffusion,
    MeanPicture,
    decorrelate,
    make_pipeline,
    save_pipeline,
)
from tasks.diffusion.objective import Likeness, Reconstruction, restore, told
from tasks.diffusion.words import make_tokenizer, restore_tokenizer, tokenizer_state, words_of
from tasks.loaders import find_folder, find_made, make_loaders
from tasks.starting import start_network
from tasks.trained import another_run


def prepare(
    flags: TrainFlags, runtime: Runtime, resumed: State | None, weights: State | None
) -> Job:
    """Read the data and build the network of the stage that flags ask for."""
    root, share = find_made(SOURCES, "captions", flags.data_root, runtime), flags.settings.val_share
    captioned = {mode: read_captioned(root, mode, share) for mode in modes_of("folder", root)}
    classes = captioned["train"].split.classes
    if resumed is not None:
        check_classes(classes, resumed["class_names"], root, flags.resume)
    prepare_stage = prepare_autoencoder if flags.own.stage == "autoencoder" else prepare_unet
    job = prepare_stage(flags, runtime, resumed, captioned)
    data = {"dataset": "captions", "class_names": list(classes), "data_root": stored(root)}
    return replace(job, identity=job.identity | data)


def prepare_autoencoder(
    flags: TrainFlags, runtime: Runtime, resumed: State | None, captioned: dict[str, Captioned]
) -> Job:
    """Return the job of the first stage."""
    own, settings = flags.own, flags.settings

    def make(captioned: Captioned, size: int, training: bool, **options: Any) -> DataLoader:
        augment = augment_batch if training and settings.augment else None
        return make_loader(captioned.split, PREPROCESS, size, 0, training, augment, **options)

    loaders = make_loaders(captioned, captioned.get, make, settings, runtime, normalises=False)
    known = {"factor": own.factor} if resumed is None else resumed["configs"]
    config = new_config(NETWORKS, "autoencoder", **known)
    start = start_network(NETWORKS, "autoencoder", config, flags, resumed)
    then = {"then": own.then} if own.then else {}
    identity = start.identity | {"flags": {"stage": "autoencoder"} | then}
    subject = f"pictures from {find_folder(SOURCES, 'captions', flags.data_root)}"
    return Job(Reconstruction(), start.network, loaders, identity, start.parameters, subject)


def prepare_unet(
    flags: TrainFlags, runtime: Runtime, resumed: State | None, captioned: dict[str, Captioned]
) -> Job:
    """Return the job of the second stage; the first one's autoencoder makes its latents."""
    own, settings, train = flags.own, flags.settings, captioned["train"]
    if resumed is None:
        autoencoder = load_autoencoder(own.autoencoder or flags.ckpt_path / AUTOENCODER_FOLDER)
        vae = place(autoencoder.vae, runtime).eval()
        captions = [sentence for sentences in train.sentences for sentence in sentences]
        tokenizer = make_tokenizer(captions)
        words = sorted({word for caption in captions for word in words_of(caption)})
        decorrelate(vae, encode(vae, captioned["val"], runtime))
    else:
        _, network = TASK.restore(resumed)
        vae = place(network.vae, runtime).eval()
        tokenizer, words = restore_tokenizer(resumed["tokenizer"]), resumed["words"]
    encoded = {mode: (split, encode(vae, split, runtime)) for mode, split in captioned.items()}
    if resumed is None:
        torch.manual_seed(settings.seed)
        config = new_config(
            NETWORKS, "latent_diffusion", autoencoder=autoencoder.config, tokens=len(tokenizer),
            scaling_factor=1 / float(encoded["train"][1].std()), prediction=own.prediction,
            time_width=TIME_WIDTH, pooled=True,
        )  # fmt: skip
        network = build(NETWORKS, "latent_diffusion", vars(config))
        network.vae.load_state_dict(vae.state_dict())
        latents = encoded["train"][1] * network.config.scaling_factor
        learn_words(network, latents, encode_sentences(train, tokenizer), settings, runtime)
        weights = told(latents.cpu(), torch.as_tensor(train.split.labels)).tolist()
    else:
        weights = resumed.get("place_weights")
    scale = network.config.scaling_factor

    def make(pictures: Any, size: int, training: bool, device: Any, **options: Any) -> DataLoader:
        split, latents = pictures
        return make_latent_loader(split, latents * scale, tokenizer, size, training, **options)

    loaders = make_loaders(encoded, encoded.get, make, settings, runtime, normalises=False)
    identity = {
        "configs": asdict(network.config), "network": "latent_diffusion",
        "flags": {"stage": "unet", "then": None},
        "tokenizer": tokenizer_state(tokenizer), "words": words, "place_weights": weights,
    }  # fmt: skip
    subject = f"latents of pictures with {len(train.sentences[0])} sentences, {len(words)} words"

    def finish(trained: nn.Module, folder: Path) -> None:
        save_pipeline(make_pipeline(trained, tokenizer), words, folder / "pipeline")
        say(f"Saved {folder / 'pipeline'}, which diffusers loads")

    return Job(
        restore(identity), network, loaders, identity, parameter_groups(network), subject,
        finish=finish,
    )  # fmt: skip


def learn_words(
    network: LatentDiffusion, latents: Tensor, ids: Tensor, settings: TrainSettings,
    runtime: Runtime,
) -> None:  # fmt: skip
    """Have a text encoder learn what words look like, before a UNet asks it.

    Stable Diffusion's comes from CLIP, which had learned that. From the UNet's loss alone, of which
    what is on a sign is a small share beneath noise, words would take most of the training.

    Args:
        latents: of pictures, scaled, (N, C, h, w).
        ids: tokens of each one's sentences, int64 (N, sentences, LENGTH).
    """
    settings = replace(settings, **WORDS)
    size = min(settings.batch_size, len(latents))
    learner = Learner(Likeness(), MeanPicture(network), settings, runtime)
    ids, steps = ids.to(latents.device), settings.epoch * (len(latents) // size)
    learner.begin(steps).train()
    for step in progress(range(steps), label="learning words"):
        if (first := step * size % (len(latents) // size * size)) == 0:
            order = torch.randperm(len(latents))
        chosen = upload(order[first : first + size], latents.device)
        which = upload(torch.randint(ids.shape[1], (size,)), latents.device)
        learner.step(latents[chosen], ids[chosen, which])


def load_autoencoder(path: Path) -> nn.Module:
    """Return the trained autoencoder of a checkpoint or of a run's folder.

    Raises:
        LabError: there is none.
    """
    if (path / AUTOENCODER_FOLDER).is_dir():
        path = path / AUTOENCODER_FOLDER
    if not path.is_file() and not checkpoint.epochs(path):
        raise LabError(f"no autoencoder in {path}; train one: leave out --stage unet")
    state = checkpoint.load(checkpoint.best_or_last(path) if path.is_dir() else path)
    if state.get("task") != TASK.name or state.get("network") != "autoencoder":
        folder = path if path.is_dir() else path.parent
        other = another_run(TASK.name, folder, "--autoencoder")
        raise LabError(f"{path} holds no autoencoder of --task {TASK.name}; {other}")
    return TASK.restore(state)[1]
