"""Save, load, rotate and find checkpoints; nothing else touches a .pth file.

A run's folder holds `ckpt_epoch_N.pth` a finished epoch and, after Ctrl-C in the middle of one,
`ckpt_interrupted.pth`. Each is a dict of tensors and plain values: `model_state`,
`optimizer_state` and `configs` (the contract with the course's scaffold), and what our own runs
add. A file appears under its name only when it is whole. Weights may also lie in files of
safetensors beside it, which it then names (`weights_files`).
"""

import contextlib
import io
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lab.console import LabError, command, say
from lab.files import reason

INTERRUPTED = "ckpt_interrupted.pth"
SET_ASIDE = "previous_"  # begins the names of folders of earlier runs within a run's
KINDS = {"configs": dict, "optimizer_state": dict, "settings": dict, "flags": dict,
         "preprocess": dict, "scaler": dict, "class_names": list | tuple, "history": list,
         "epoch": int, "weights_files": dict}  # fmt: skip
ASSIGNED = 10  # the epoch that the assignment trains to, and tests
# Under which other programs save weights, beside which some save an average of them, for example.
USUAL = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
# What DataParallel, torch.compile, Lightning and others put before the names of weights.
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
EPOCH_FILE = re.compile(r"ckpt_epoch_(\d+)\.pth")


def save(path: Path, state: dict[str, Any], small: bool = False) -> None:
    """Write a checkpoint so that a kill at any instant leaves the old file or the new one, whole.

    Args:
        small: take time to make the file smaller, without a loss.

    Raises:
        LabError: the disk is full or the folder cannot be written; names the newest good file.
    """
    content = io.BytesIO()
    torch.save(state, content)
    content = _deflated(content) if small else content
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        good = newest_good(path.parent)
        kept = f"; {good} is whole: make room, then --resume it" if good else ""
        raise LabError(f"could not save {path}: {reason(error)}{kept}") from error


def _deflated(content: io.BytesIO) -> io.BytesIO:
    """Return an archive with its files compressed, as torch leaves none."""
    smaller = io.BytesIO()
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(smaller, "w") as new:
        for file in old.infolist():
            new.writestr(file, old.read(file), zipfile.ZIP_DEFLATED, 9)
    return smaller


def load(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint as weights and plain values alone; code in the file is never run.

    Raises:
        LabError: missing, damaged, holding code, or no checkpoint of ours; names a good one.
    """
    try:
        if path.is_file():
            return _read(path, device)
        wrong = f"no checkpoint {path}"
    except ValueError as error:
        wrong = f"{path} {error}"
    good = newest_good(path.parent, other_than=path)
    raise LabError(wrong + (f"; the newest good one there is {good}" if good else ""))


def load_any(path: Path) -> dict[str, Any]:
    """Read weights to start from: a checkpoint, a run's folder (`best_or_last`), a state dict.

    Returns:
        A checkpoint; of a state dict, alone or wherever a file has one, an empty one around it.

    Raises:
        LabError: missing, damaged, holding code, or no weights.
    """
    if path.is_dir():
        path = best_or_last(path)
    if not path.is_file():
        raise LabError(f"no file of weights {path}")
    try:
        return _read(path, bare=True)
    except ValueError as error:
        raise LabError(f"{path} {error}") from error


def _read(path: Path, device: str | torch.device = "cpu", bare: bool = False) -> dict[str, Any]:
    """Load a checkpoint; a ValueError completes the sentence that its path begins.

    Args:
        bare: take a state dict as well.
    """
    state = _unpickle(path, device)
    if bare and "model_state" not in state:
        state = {"model_state": _only_state_dict(path, state)}
    if isinstance(files := state.get("weights_files"), dict):
        state["model_state"] = _weights_beside(path, files, device)
    missing = [key for key in ("model_state", "configs") if key not in state]
    if missing and not bare:
        raise ValueError(f"is no checkpoint of this lab: it lacks {' and '.join(missing)}")
    if not _is_state_dict(state["model_state"]):
        raise ValueError("is no state dict: it holds other things than named tensors")
    # A network of ours may well have a part of another wrapper's name.
    wrappers = WRAPPERS[:2] if "configs" in state else WRAPPERS
    state["model_state"] = _unwrapped(path, state["model_state"], wrappers)
    for key, kind in KINDS.items():
        if key in state and not isinstance(state[key], kind):
            raise ValueError(f"is damaged: its {key} is a {type(state[key]).__name__}")
    return state


def _weights_beside(
    path: Path, files: dict[str, str], device: str | torch.device
) -> dict[str, Tensor]:
    """Return the weights that lie in files beside a checkpoint, by what begins their names."""
    weights = {}
    for prefix, name in files.items():
        file = path.parent / str(name)
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise ValueError(f"is damaged: {name} does not lie beside it")
        try:
            own = load_file(file, str(device))
        except Exception as error:  # arbitrary bytes make the library raise its own
            raise ValueError(f"is not whole: {name} beside it cannot be read") from error
        weights |= {f"{prefix}{key}": value for key, value in own.items()}
    return weights


def _is_state_dict(weights: Any) -> bool:
    """True of a dictionary of named tensors, and nothing else."""
    if not isinstance(weights, dict) or not weights:
        return False
    return all(isinstance(k, str) and isinstance(w, Tensor) for k, w in weights.items())


def _only_state_dict(path: Path, state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the state dict in what other programs save, and say which where it has a name.

    Raises:
        ValueError: as in `_read`: there is none, or it is not clear which.
    """
    if _is_state_dict(state):
        return state
    inner = {str(key): value for key, value in state.items() if isinstance(value, dict)}
    deeper = {
        f"{key}.{name}": value for key, content in inner.items() for name, value in content.items()
    }
    dicts = {key: value for key, value in (inner | deeper).items() if _is_state_dict(value)}
    usual = [key for key in dicts if key in USUAL]
    chosen = usual or list(dicts)
    if not chosen:
        raise ValueError("is no state dict: it holds other things than named tensors")
    if len(chosen) > 1:
        raise ValueError(f"holds several state dicts, {', '.join(chosen)}: save the one to take")
    say(f"Taking {chosen[0]} of {path}")
    return dicts[chosen[0]]


def _unwrapped(
    path: Path, weights: dict[str, Tensor], wrappers: Collection[str]
) -> dict[str, Tensor]:
    """Return weights without what wrappers put before every name; say what was left out."""
    if "n_averaged" in weights:  # of torch's AveragedModel
        weights = {name: value for name, value in weights.items() if name != "n_averaged"}
    while len(prefixes := {name.partition(".")[0] for name in weights}) == 1:
        prefix = f"{prefixes.pop()}."
        if prefix not in wrappers or not all(name.startswith(prefix) for name in weights):
            break
        say(f"Taking the weights of {path} without {prefix} before their names")
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _unpickle(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Load a dictionary of tensors and plain values; a ValueError as in `_read`."""
    try:
        if zipfile.is_zipfile(path):  # torch does not look at the checksums that are in it
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise ValueError("is damaged")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles, which are refused below
            state = torch.load(path, map_location=device, weights_only=True)
    except PermissionError as error:
        raise ValueError("cannot be read: permission denied") from error
    except Exception as error:  # arbitrary bytes make the unpickler raise nearly anything
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise ValueError("was refused: it holds code or objects, not weights alone") from error
        raise ValueError("is no checkpoint or is damaged") from error
    if not isinstance(state, dict):
        raise ValueError("is no checkpoint: it holds no dictionary")
    return state


def epochs(folder: Path) -> dict[int, Path]:
    """Return the checkpoints in a folder, epoch to file, in rising order."""
    named = [(EPOCH_FILE.fullmatch(path.name), path) for path in folder.glob("*.pth")]
    return dict(sorted((int(name[1]), path) for name, path in named if name and path.is_file()))


def find(folder: Path, which: int | str | None) -> Path:
    """Return the file of an epoch, of the `best` by validation, or of the `last`.

    Args:
        which: None for the assignment's epoch 10 where it is the last, else for `best_or_last`.

    Raises:
        LabError: there is none; lists those there are.
    """
    found = _epochs_of_run(folder)
    if which is None:
        return found[ASSIGNED] if max(found) == ASSIGNED else best_or_last(folder)
    if which == "best":
        which = load(found[max(found)]).get("best_epoch")
        if which is None:
            raise LabError(f"{folder} does not say which epoch is best; try --epoch last")
        if which not in found:
            raise LabError(
                f"no checkpoint of the best epoch, {which}, in {folder}; try --epoch last"
            )
    if which == "last":
        which = max(found)
    if which not in found:
        raise LabError(
            f"no checkpoint of epoch {which} in {folder}; there are "
            f"{', '.join(map(str, found))} (--epoch takes one of them, best or last)"
        )
    return found[which]


def best_or_last(folder: Path) -> Path:
    """Return the file of the best epoch, or of the last where the best is not there; say which."""
    found = _epochs_of_run(folder)
    best = load(found[max(found)]).get("best_epoch")
    chosen, name = (best, "best") if best in found else (max(found), "last")
    say(f"Taking the {name} epoch of {folder}, {chosen}")
    return found[chosen]


def _epochs_of_run(folder: Path) -> dict[int, Path]:
    """Return the checkpoints in a folder, as `epochs` does; a LabError if there are none."""
    if folder.is_file():
        raise LabError(f"{folder} is a file; give its folder, {folder.parent}")
    found = epochs(folder)
    if not found:
        raise LabError(
            f"no checkpoints in {folder}; train one: {command('train.py', '--ckpt_path', folder)}"
        )
    return found


def finished_epochs(state: dict[str, Any], path: Path) -> int:
    """Return the epochs behind a checkpoint; the scaffold's say so in their name alone."""
    match = EPOCH_FILE.fullmatch(path.name)
    if "epoch" in state:
        return state["epoch"]
    if match is None:
        raise LabError(f"{path} does not say its epoch; name it ckpt_epoch_N.pth")
    return int(match[1])


def resume_point(path: Path) -> Path:
    """Return the checkpoint to resume from: the file itself, or the furthest one in a folder.

    Where the run has not come to its last stage, whose checkpoints are in its folder itself, that
    is one of the stage before it, in a folder inside.
    """
    if not path.is_dir():
        return path
    interrupted = path / INTERRUPTED
    if interrupted.is_file():
        return interrupted
    if not epochs(path):
        for stage in sorted(path.iterdir()):
            begun = epochs(stage) or (stage / INTERRUPTED).is_file()
            if begun and not stage.name.startswith(SET_ASIDE):
                return resume_point(stage)
    return find(path, "last")


def newest_good(folder: Path, other_than: Path | None = None) -> Path | None:
    """Return the checkpoint of the highest epoch that loads, if any."""
    for path in reversed(epochs(folder).values()):
        if path != other_than:
            with contextlib.suppress(ValueError):
                _read(path)
                return path
    return None


def rotate(folder: Path, keep: int, spared: Collection[int]) -> None:
    """Remove the oldest checkpoints beyond `keep`, but those of the epochs to be spared."""
    found = epochs(folder)
    for epoch in list(found)[: max(0, len(found) - keep)]:
        if epoch not in spared:
            found[epoch].unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where the system lets a folder be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
