"""Pictures with sentences: read once, as pixels or as the latents that an autoencoder makes.

    captioned = read_captioned(Path("data/captions"), "train")
    loader = datasets.make_loader(captioned.split, PREPROCESS, 64)         # images, labels
    loader = make_latent_loader(captioned, latents, tokenizer, 128)        # latents, tokens

A folder of them is laid out as `world.captions` draws it: a folder of pictures a class in each
split, and beside them captions.json, as COCO has it. Of a picture's sentences, each epoch sees one
drawn anew; val and test see the first.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTokenizer

from datasets import Split, make_loader, modes_of, read_split
from lab.batches import load_batches
from lab.console import LabError, progress
from lab.files import read_text
from lab.folders import DATA_ROOT, printable
from lab.images import Preprocess
from lab.runtime import Runtime, upload
from tasks.diffusion.words import encode_prompts, restore_tokenizer
from tasks.layouts import located
from tasks.loaders import Source, find_made, root_of, val_share_of
from tasks.trained import Trained
from world.captions import PIXELS
from world.missing import DRAWN, draw_missing

PREPROCESS = Preprocess((PIXELS, PIXELS))  # from pixels to a network's input, in [-1, 1]
ENCODED = 64  # pictures at a time


@dataclass(frozen=True)
class Captioned:
    """One split of pictures with sentences.

    Attributes:
        split: classes, paths, labels and pixels.
        sentences: of each picture, at least one.
    """

    split: Split
    sentences: list[list[str]]


def read_captioned(root: Path, mode: str, val_share: float = 0.0) -> Captioned:
    """Read a split, pictures of PIXELS a side.

    Args:
        val_share: of train, held out as val where there is no val.

    Raises:
        LabError: no such split, no captions, or a picture without one.
    """
    split = read_split(root, mode, PREPROCESS, val_share)
    if split.images is None:
        raise LabError(f"{root} holds more pictures than memory: diffusion reads fewer")
    sentences: dict[Path, list[str]] = {}
    for folder in {path.parent.parent for path in split.paths}:
        sentences |= read_sentences(folder)
    missing = [path for path in split.paths if path not in sentences]
    if missing:
        folder = missing[0].parent.parent
        text = f"{folder / 'captions.json'} has no sentence for "
        text += printable(str(missing[0].relative_to(folder)))
        raise LabError(text + f" and {len(missing) - 1:,} more" * (len(missing) > 1))
    return Captioned(split, [sentences[path] for path in split.paths])


def read_sentences(folder: Path) -> dict[Path, list[str]]:
    """Return the sentences of each picture that a folder's captions.json names.

    Raises:
        LabError: there is none, or it is not laid out as COCO has it.
    """
    path = folder / "captions.json"
    try:
        if not path.exists():
            raise LabError(f"no {path}: diffusion learns from pictures with captions")
        content = json.loads(read_text(path))
        files = {entry["id"]: located(entry["file_name"], [folder]) for entry in content["images"]}
        sentences: dict[Path, list[str]] = {}
        for entry in content["annotations"]:
            sentences.setdefault(files[entry["image_id"]], []).append(str(entry["caption"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"{path} holds no captions as COCO has them") from error
    return sentences


draw_captions = partial(draw_missing, DRAWN["captions"])
SOURCES = {"captions": Source(read_captioned, DATA_ROOT / "captions", draw_captions)}


def test_loader(trained: Trained, data_root: Path | None, batch_size: int) -> DataLoader:
    """Return the captioned pictures, or their latents, that a network can be tried on."""
    root = find_made(SOURCES, "captions", root_of(trained, data_root), trained.runtime)
    captioned = read_captioned(root, modes_of("folder", root)[-1], val_share_of(trained))
    network, runtime = trained.network, trained.runtime
    if trained.state["network"] == "autoencoder":
        return make_loader(captioned.split, PREPROCESS, batch_size, device=runtime.device)
    latents = encode(network.vae, captioned, runtime) * network.config.scaling_factor
    tokenizer = restore_tokenizer(trained.state["tokenizer"])
    return make_latent_loader(captioned, latents, tokenizer, batch_size)


@torch.no_grad()
def encode(vae: AutoencoderKL, captioned: Captioned, runtime: Runtime) -> Tensor:
    """Return the latents of pictures, float32 (N, C, h, w), not yet scaled: their Gaussians' means.

    Args:
        vae: on the runtime's device, in evaluation mode.
    """
    chunks = captioned.split.images.split(ENCODED)
    latents = []
    for pixels in progress(chunks, label="encoding"):
        images = PREPROCESS.normalize(pixels.to(runtime.device))
        with runtime.autocast():
            latents.append(vae.encode(images).latent_dist.mode().float())
    return torch.cat(latents)


class LatentDataset(Dataset):
    """Latents of pictures with their sentences; asked for a batch at a time (`__getitems__`).

    Args:
        latents: what the UNet sees of the pictures, scaled, (N, C, h, w).
        ids: tokens of each picture's sentences, int64 (N, most sentences, LENGTH); of a picture
            with fewer, some come again.
        vary: draw one of a picture's sentences; else take the first.
    """

    def __init__(self, captioned: Captioned, latents: Tensor, ids: Tensor, vary: bool = False):
        self.captioned, self.split = captioned, captioned.split
        self.latents, self.vary = latents, vary
        self.ids = ids.to(latents.device)

    def __len__(self) -> int:
        return len(self.latents)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = upload(torch.as_tensor(indices), self.latents.device)
        which = torch.zeros(len(indices), dtype=torch.int64)
        if self.vary:
            generator = torch.Generator().manual_seed(getattr(indices, "seed", 0))
            which = torch.randint(self.ids.shape[1], which.shape, generator=generator)
        return self.latents[chosen], self.ids[chosen, upload(which, chosen.device)]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        latents, ids = self.__getitems__([index])
        return latents[0], ids[0]


def make_latent_loader(
    captioned: Captioned, latents: Tensor, tokenizer: CLIPTokenizer, batch_size: int,
    training: bool = False, **options: int,
) -> DataLoader:  # fmt: skip
    """Return a loader of latents with the tokens of a sentence.

    Args:
        latents: scaled; batches are made where they live.
        training: shuffle, and draw the sentences.
        options: seed, rank and world_size of `load_batches`.
    """
    ids = encode_sentences(captioned, tokenizer)
    dataset = LatentDataset(captioned, latents, ids, vary=training)
    return load_batches(dataset, batch_size, training, **options)


def encode_sentences(captioned: Captioned, tokenizer: CLIPTokenizer) -> Tensor:
    """Return the tokens of all sentences, int64 (N, most sentences of a picture, LENGTH)."""
    most = max(map(len, captioned.sentences))
    filled = [own[k % len(own)] for own in captioned.sentences for k in range(most)]
    return encode_prompts(tokenizer, filled).unflatten(0, (-1, most))
