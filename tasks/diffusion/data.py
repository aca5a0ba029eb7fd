"""Pictures with sentences: read once, as pixels or as the latents that an autoencoder makes.

    captioned = read_captioned(Path("data/captions"), "train", size=64)
    loader = datasets.make_loader(captioned.split, captioned.preprocess, 64)   # images, labels
    dataset = LatentDataset(captioned, latents, encode_sentences(captioned, tokenizer))
    loader = lab.batches.load_batches(dataset, 128)      # latents, tokens of a sentence

A folder of them is laid out as `world.captions` draws it: a folder of pictures a class in each
split, and beside them captions.json, as COCO has it. Of a picture's sentences, each epoch sees one
drawn anew; val and test see the first.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets import Split, read_split
from lab.console import LabError, progress
from lab.folders import DATA_ROOT, near, printable
from lab.images import Preprocess

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPTokenizer

    from lab.runtime import Runtime

FOLDER = DATA_ROOT / "captions"
ENCODED = 64  # pictures at a time


@dataclass(frozen=True)
class Captioned:
    """One split of pictures with sentences.

    Attributes:
        split: classes, paths, labels and pixels.
        sentences: of each picture, at least one.
        preprocess: from pixels to a network's input, in [-1, 1].
    """

    split: Split
    sentences: list[list[str]]
    preprocess: Preprocess


def find_data(data_root: Path | None) -> Path:
    """Return the folder that captioned pictures are read from: the one given, or the drawn one."""
    return data_root or near(FOLDER)


def read_captioned(root: Path, mode: str, size: int, val_share: float = 0.0) -> Captioned:
    """Read a split, pictures at `size` pixels a side.

    Args:
        val_share: of train, held out as val where there is no val.

    Raises:
        LabError: no such split, no captions, or a picture without one.
    """
    preprocess = Preprocess((size, size))
    split = read_split(root, mode, preprocess, val_share)
    if split.images is None:
        raise LabError(f"{root} holds more pictures than memory: diffusion reads fewer")
    sentences: dict[Path, list[str]] = {}
    for folder in {path.parent.parent for path in split.paths}:
        sentences |= read_sentences(folder)
    missing = [path for path in split.paths if path not in sentences]
    if missing:
        name = printable(str(missing[0].relative_to(missing[0].parent.parent)))
        raise LabError(
            f"{missing[0].parent.parent / 'captions.json'} has no sentence for {name}"
            + f" and {len(missing) - 1:,} more" * (len(missing) > 1)
        )
    return Captioned(split, [sentences[path] for path in split.paths], preprocess)


def read_sentences(folder: Path) -> dict[Path, list[str]]:
    """Return the sentences of each picture that a folder's captions.json names.

    Raises:
        LabError: there is none, or it is not laid out as COCO has it.
    """
    path = folder / "captions.json"
    try:
        content = json.loads(path.read_text("utf-8"))
        files = {entry["id"]: folder / entry["file_name"] for entry in content["images"]}
        found: dict[Path, list[str]] = {}
        for entry in content["annotations"]:
            found.setdefault(files[entry["image_id"]], []).append(str(entry["caption"]))
    except FileNotFoundError as error:
        raise LabError(f"no {path}: diffusion learns from pictures with captions") from error
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"{path} holds no captions as COCO has them") from error
    return found


# ---------------------------------------------------------------- latents


@torch.no_grad()
def encode(vae: "AutoencoderKL", captioned: Captioned, runtime: "Runtime") -> Tensor:
    """Return the latents of pictures, float32 (N, C, h, w), not yet scaled: their Gaussians' means.

    Args:
        vae: on the runtime's device, in evaluation mode.
    """
    chunks = captioned.split.images.split(ENCODED)
    latents = []
    for pixels in progress(chunks, label="encoding"):
        images = captioned.preprocess.normalize(pixels.to(runtime.device))
        with runtime.autocast():
            latents.append(vae.encode(images).latent_dist.mode().float())
    return torch.cat(latents)


class LatentDataset(Dataset):
    """Latents of pictures with their sentences; asked for a batch at a time (`__getitems__`).

    Args:
        captioned: the pictures.
        latents: what the UNet sees of them, scaled, (N, C, h, w).
        ids: tokens of each picture's sentences, int64 (N, most sentences, LENGTH); of a picture
            with fewer, some come again.
        vary: draw one of a picture's sentences; else take the first.
    """

    def __init__(self, captioned: Captioned, latents: Tensor, ids: Tensor, vary: bool = False):
        self.captioned, self.latents, self.vary = captioned, latents, vary
        self.ids = ids.to(latents.device)

    def __len__(self) -> int:
        return len(self.latents)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices, device=self.latents.device)
        which = torch.zeros(len(indices), dtype=torch.int64)
        if self.vary:
            generator = torch.Generator().manual_seed(getattr(indices, "seed", 0))
            which = torch.randint(self.ids.shape[1], which.shape, generator=generator)
        return self.latents[chosen], self.ids[chosen, which.to(chosen.device)]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        latents, ids = self.__getitems__([index])
        return latents[0], ids[0]


def encode_sentences(captioned: Captioned, tokenizer: "CLIPTokenizer") -> Tensor:
    """Return the tokens of all sentences, int64 (N, most sentences of a picture, LENGTH)."""
    from tasks.diffusion.words import encode_prompts

    most = max(map(len, captioned.sentences))
    filled = [own[k % len(own)] for own in captioned.sentences for k in range(most)]
    return encode_prompts(tokenizer, filled).unflatten(0, (-1, most))
