"""Diffusion: pictures made from words, by a Stable Diffusion in miniature.

    python train.py --task diffusion                        # draws captioned signs, then trains
    python train.py --task diffusion --stage autoencoder    # the first stage alone
    python train.py --task diffusion --autoencoder RUN      # with the autoencoder of another run
    python test.py --read CLASSIFIER                        # is what is painted what was named?
    python diffuse.py --prompt "a roundabout sign at night"

Two stages (Rombach et al. 2022), each a run of its own: an autoencoder, in the folder `autoencoder`
of the run, then text encoder and UNet on its latents. The networks are those of diffusers and
transformers, which are imported only where they are needed: `networks` has all sizes, `words` the
tokenizer, `autoencoder` and `denoising` what is learned, `painting` makes pictures.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lab.console import LabError, UsageError, positive_float, positive_int, say
from lab.folders import located, stored
from lab.runtime import Runtime, check_batch_size, place
from lab.settings import TrainSettings
from tasks import Field, Job
from tasks.diffusion.autoencoder import Reconstruction, ReconstructionMeter
from tasks.diffusion.denoising import Denoising, DenoisingMeter

if TYPE_CHECKING:
    from lab.pictures import Picture
    from tasks.diffusion.data import Captioned
    from tasks.diffusion.networks import Autoencoder, LatentDiffusion

STAGES = ("all", "autoencoder", "unet")
AUTOENCODER_FOLDER = "autoencoder"  # within the run's
# Of text encoder and UNet; of the autoencoder where it differs.
SETTINGS = {
    "epoch": 13,
    "batch_size": 32,
    "lr": 1e-3,
    "weight_decay": 1e-2,
    "optim_type": "adamw",
    "schedule": "onecycle",
    "clip_norm": 1.0,
    "ema": 0.998,
    "max_ckpt_save_num": 2,
}
AUTOENCODER = {"epoch": 3, "batch_size": 32, "lr": 2e-3, "weight_decay": 0.0, "ema": 0.99}
CHOSEN = ("epoch", "batch_size", "lr")  # of the autoencoder's, those that have a flag
FACTOR, PREDICTION = 8, "v_prediction"


# ---------------------------------------------------------------- flags


def add_flags(parser: ArgumentParser) -> None:
    """Add the flags of stages and networks."""
    parser.set_defaults(then=None)
    parser.add_argument(
        "--stage", choices=STAGES, default="all", help="what to train (default %(default)s)"
    )
    parser.add_argument(
        "--autoencoder",
        type=Path,
        metavar="PATH",
        help="take that of another run: train the UNet alone",
    )
    parser.add_argument(
        "--factor",
        type=int,
        choices=(4, 8),
        default=FACTOR,
        help="pixels a side of a place of the latents (default %(default)s)",
    )
    parser.add_argument(
        "--prediction",
        choices=("v_prediction", "epsilon"),
        default=PREDICTION,
        help="what the UNet predicts: velocity or noise (default %(default)s)",
    )
    kinds = {"epoch": positive_int, "batch_size": positive_int, "lr": positive_float}
    for name in CHOSEN:
        parser.add_argument(
            f"--autoencoder_{name}",
            type=kinds[name],
            default=AUTOENCODER[name],
            help=f"--{name} of the first stage (default %(default)s)",
        )


def flags_of(state: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that build a checkpoint's network."""
    configs = state["configs"]
    if state["network"] == "autoencoder":
        return {"factor": configs["factor"]}
    return {"factor": configs["autoencoder"]["factor"], "prediction": configs["prediction"]}


def stages(
    args: Namespace, resumed: dict[str, Any] | None
) -> list[tuple[Namespace, dict[str, Any] | None]]:
    """Return the flags of each stage that is to be trained, and the checkpoint it goes on from.

    An autoencoder that the UNet comes after keeps the UNet's flags in its checkpoints, as `then`.
    """
    if resumed is not None:
        if args.then is None:
            return [(args, resumed)]
        own = {"stage": "unet", "ckpt_path": args.ckpt_path.parent, "autoencoder": args.ckpt_path}
        later = with_flags(args, args.then | own | {"resume": None, "then": None})
        done = resumed["epoch"] >= args.epoch
        return [(later, None)] if done else [(args, resumed), (later, None)]
    if args.stage == "unet" or args.autoencoder is not None:
        if args.stage == "autoencoder":
            raise UsageError("--autoencoder is one that is trained: leave out --stage autoencoder")
        return [(with_flags(args, {"stage": "unet"}), None)]
    folder = args.ckpt_path / AUTOENCODER_FOLDER
    chosen = {name: getattr(args, f"autoencoder_{name}") for name in CHOSEN}
    own = AUTOENCODER | chosen | {"stage": "autoencoder", "ckpt_path": folder}
    if args.stage == "autoencoder" or args.overfit_batch:
        return [(with_flags(args, own), None)]
    settings = {entry.name: getattr(args, entry.name) for entry in fields(TrainSettings)}
    first = with_flags(args, own | {"then": settings | {"prediction": args.prediction}})
    later = with_flags(args, {"stage": "unet", "autoencoder": folder})
    return [(first, None), (later, None)]


def with_flags(args: Namespace, flags: dict[str, Any]) -> Namespace:
    """Return flags of which some are others."""
    return Namespace(**vars(args) | flags)


# ---------------------------------------------------------------- what train.py trains


def prepare(
    args: Namespace,
    runtime: Runtime,
    resumed: dict[str, Any] | None,
    weights: dict[str, Any] | None,
) -> Job:
    """Read the data and build the network of the stage that the flags ask for."""
    from datasets import draw_missing_captions
    from tasks.diffusion.data import find_data

    args.data_root = find_data(args.data_root)
    check_batch_size(args.batch_size, runtime, normalises=False)
    if runtime.rank == 0:
        draw_missing_captions(args.data_root)
    runtime.wait_for_all()
    make = prepare_autoencoder if args.stage == "autoencoder" else prepare_unet
    return make(args, runtime, resumed)


def prepare_autoencoder(args: Namespace, runtime: Runtime, resumed: dict[str, Any] | None) -> Job:
    """Return the job of the first stage."""
    from datasets import check_classes, make_loader
    from lab.augmentation import augment_batch
    from tasks.diffusion.networks import Autoencoder, AutoencoderConfig

    own = options_of(args, runtime) | {"device": runtime.device}
    loaders, classes = {}, None
    for mode, captioned in read_all(args).items():
        shuffle = mode == "train"
        loaders[mode] = make_loader(
            captioned.split, captioned.preprocess, args.batch_size, 0, shuffle,
            augment_batch if shuffle and args.augment else None, **own,
        )  # fmt: skip
        classes = captioned.split.classes
    torch.manual_seed(args.seed)
    if resumed is None:
        model: nn.Module = Autoencoder(AutoencoderConfig(factor=args.factor))
    else:
        check_classes(classes, resumed["class_names"], args.data_root, args.resume)
        model = load_trained(resumed)
    flags = {"stage": "autoencoder"} | ({"then": args.then} if args.then else {})
    identity = identity_of(args, "autoencoder", asdict(model.config), classes, flags)
    subject = f"pictures from {args.data_root}"
    return Job(
        Reconstruction(), model, loaders, identity, [{"params": list(model.parameters())}], subject
    )


def prepare_unet(args: Namespace, runtime: Runtime, resumed: dict[str, Any] | None) -> Job:
    """Return the job of the second stage; the first one's autoencoder makes its latents."""
    from datasets import check_classes
    from lab.batches import load_batches
    from tasks.diffusion.data import LatentDataset, encode, encode_sentences
    from tasks.diffusion.networks import (
        DiffusionConfig,
        LatentDiffusion,
        decorrelate,
        make_pipeline,
        make_scheduler,
        save_pipeline,
    )
    from tasks.diffusion.words import (
        make_tokenizer,
        restore_tokenizer,
        tokenizer_state,
        words_of,
    )

    captioned = read_all(args)
    train = captioned["train"]
    if resumed is None:
        autoencoder = load_autoencoder(args.autoencoder or args.ckpt_path / AUTOENCODER_FOLDER)
        captions = [sentence for own in train.sentences for sentence in own]
        tokenizer, vae = make_tokenizer(captions), autoencoder.vae
        words = sorted({word for caption in captions for word in words_of(caption)})
    else:
        check_classes(train.split.classes, resumed["class_names"], args.data_root, args.resume)
        model = load_trained(resumed)
        tokenizer, vae = restore_tokenizer(resumed["tokenizer"]), model.vae
        words = resumed["words"]
    vae = place(vae, runtime).eval()
    if resumed is None:
        decorrelate(vae, encode(vae, captioned["val"], runtime))
    latents = {mode: encode(vae, split, runtime) for mode, split in captioned.items()}
    if resumed is None:
        torch.manual_seed(args.seed)
        config = DiffusionConfig(
            autoencoder.config, len(tokenizer), 1 / float(latents["train"].std()), args.prediction
        )
        model = LatentDiffusion(config)
        model.vae.load_state_dict(vae.state_dict())
    scale, loaders = model.config.scaling_factor, {}
    for mode, own in latents.items():
        ids = encode_sentences(captioned[mode], tokenizer)
        dataset = LatentDataset(captioned[mode], own * scale, ids, vary=mode == "train")
        loaders[mode] = load_batches(
            dataset, args.batch_size, mode == "train", **options_of(args, runtime)
        )
    flags = {"stage": "unet", "then": None}
    identity = identity_of(
        args, "latent_diffusion", asdict(model.config), train.split.classes, flags
    ) | {"tokenizer": tokenizer_state(tokenizer), "words": words}
    subject = f"latents of pictures with {len(train.sentences[0])} sentences, {len(words)} words"

    def finish(trained: nn.Module, folder: Path) -> None:
        save_pipeline(make_pipeline(trained, tokenizer), words, folder / "pipeline")
        say(f"Saved {folder / 'pipeline'}, which diffusers loads")

    learned = [p for p in model.parameters() if p.requires_grad]
    task = Denoising(make_scheduler(model.config.prediction))
    return Job(task, model, loaders, identity, [{"params": learned}], subject, finish=finish)


def read_all(args: Namespace) -> dict[str, "Captioned"]:
    """Read the splits that there are, by mode."""
    from tasks.diffusion.data import read_captioned
    from tasks.diffusion.networks import SIZE

    modes = ("train", "val", "test") if (args.data_root / "test").is_dir() else ("train", "val")
    return {mode: read_captioned(args.data_root, mode, SIZE, args.val_share) for mode in modes}


def options_of(args: Namespace, runtime: Runtime) -> dict[str, int]:
    """Return what every loader has to know of this process."""
    return {"seed": args.seed, "rank": runtime.rank, "world_size": runtime.world_size}


def identity_of(
    args: Namespace, network: str, configs: dict[str, Any], classes: Iterable[str],
    flags: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Return what every checkpoint of a stage holds besides the state."""
    return {
        "configs": configs,
        "network": network,
        "dataset": "captions",
        "class_names": list(classes),
        "data_root": stored(args.data_root),
        "flags": flags,
    }


def load_trained(state: dict[str, Any]) -> "Autoencoder | LatentDiffusion":
    """Return the network of a loaded checkpoint."""
    from networks import load_weights
    from tasks.diffusion.networks import build_network

    model = build_network(state["network"], state["configs"])
    load_weights(model, state["model_state"])
    return model


def load_autoencoder(path: Path) -> "Autoencoder":
    """Return the trained autoencoder of a checkpoint or of a run's folder.

    Raises:
        LabError: there is none.
    """
    from lab import checkpoint

    if (path / AUTOENCODER_FOLDER).is_dir():
        path = path / AUTOENCODER_FOLDER
    if not path.is_file() and not checkpoint.epochs(path):
        raise LabError(f"no autoencoder in {path}; train one: leave out --stage unet")
    state = checkpoint.load(checkpoint.best_or_last(path) if path.is_dir() else path)
    if state.get("task") != Reconstruction.name or state.get("network") != "autoencoder":
        raise LabError(f"{path} holds no autoencoder of --task diffusion")
    return load_trained(state)


def suggestions(args: Namespace) -> list[list[str]]:
    """Return the arguments of visualize.py that are worth trying on a run."""
    if args.stage == "autoencoder":
        return []
    return [["--type", kind] for kind in ("unet", "words", "strength")]


# ---------------------------------------------------------------- what test.py tests


def restore(
    state: dict[str, Any],
) -> tuple[Reconstruction | Denoising, "Autoencoder | LatentDiffusion"]:
    """Return the task and the trained network of a loaded checkpoint."""
    from tasks.diffusion.networks import make_scheduler

    model = load_trained(state)
    if state["network"] == "autoencoder":
        return Reconstruction(), model
    return Denoising(make_scheduler(model.config.prediction)), model


def test_loader(
    state: dict[str, Any], data_root: Path | None, batch_size: int, runtime: Runtime
) -> DataLoader:
    """Return the captioned pictures, or their latents, that a network can be tried on."""
    from datasets import draw_missing_captions, make_loader
    from lab.batches import load_batches
    from tasks.diffusion.data import (
        LatentDataset,
        encode,
        encode_sentences,
        find_data,
        read_captioned,
    )
    from tasks.diffusion.networks import SIZE
    from tasks.diffusion.words import restore_tokenizer

    if data_root is None and state.get("data_root") is not None:
        data_root = located(state["data_root"])
    data_root = find_data(data_root)
    draw_missing_captions(data_root)
    mode = "test" if (data_root / "test").is_dir() else "val"
    val_share = state.get("settings", {}).get("val_share", TrainSettings.val_share)
    captioned = read_captioned(data_root, mode, SIZE, val_share)
    if state["network"] == "autoencoder":
        return make_loader(captioned.split, captioned.preprocess, batch_size, device=runtime.device)
    model = load_trained(state)
    latents = encode(place(model.vae, runtime).eval(), captioned, runtime)
    ids = encode_sentences(captioned, restore_tokenizer(state["tokenizer"]))
    dataset = LatentDataset(captioned, latents * model.config.scaling_factor, ids)
    return load_batches(dataset, batch_size)


def report(args: Namespace, meter: ReconstructionMeter | DenoisingMeter, dataset: Dataset) -> None:
    """Print how good reconstructions or painted pictures are, and draw some."""
    from lab import checkpoint
    from tasks.diffusion.found import report_painted, report_reconstructions

    state = checkpoint.load(checkpoint.find(args.ckpt_path, args.epoch))
    show = report_reconstructions if state["network"] == "autoencoder" else report_painted
    show(args, state, load_trained(state), meter.figures, dataset)


def read_images(
    args: Namespace,
    state: dict[str, Any],
    model: "Autoencoder | LatentDiffusion",
    files: list[Path],
    runtime: Runtime,
) -> None:
    """Draw what becomes of pictures: reconstructions, or other signs made of them."""
    from tasks.diffusion.found import reconstruct_files, turn_files

    show = reconstruct_files if state["network"] == "autoencoder" else turn_files
    show(args, state, model, files, runtime)


# ---------------------------------------------------------------- what visualize.py shows


def look(args: Namespace, state: dict[str, Any] | None, runtime: Runtime) -> Iterable["Picture"]:
    """Return the pictures of the view that `--type` names."""
    from tasks.diffusion.views import VIEWS

    if state is not None and state["network"] == "autoencoder":
        raise LabError(f"--type {args.type} is of the UNet; {args.ckpt_path} is its autoencoder's")
    return VIEWS[args.type](args, state, runtime)


FIELD = Field(
    add_flags=add_flags,
    flags_of=flags_of,
    stages=stages,
    prepare=prepare,
    restore=restore,
    test_loader=test_loader,
    report=report,
    read_images=read_images,
    test_flags=("read",),
    views=("unet", "words", "strength"),
    models=("stable_diffusion",),
    look=look,
    suggestions=suggestions,
    defaults=SETTINGS,
)
