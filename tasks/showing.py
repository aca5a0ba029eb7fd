"""What page.py does: a run as one HTML file, with its networks and what runs them inside.

    shown = trained.task.shown(trained)         # Shown: graphs, what is known of them
    pack = Pack()
    pack.graph(path)                            # large weights go into the pack, each once

The page's own code is in `page/`: HTML, CSS and JavaScript modules, which become one script here.
"""

import base64
import gzip
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from lab.console import LabError, UsageError, say
from lab.fetching import given_images
from lab.files import attempt, read_text, write_whole
from lab.folders import PROJECT, in_order, located, split_folder
from lab.images import open_image
from lab.run import read_sessions
from lab.web_runtime import WebRuntime, find_runtime
from tasks import PageFlags, RunFlags
from tasks.exporting import FORMATS, Exported, metadata, trial_pictures, write
from tasks.sign_reader import find_reader
from tasks.trained import Trained, load_run

PAGE = PROJECT / "page"
SMALL = 1024  # bytes: weights below stay in their graph
SAMPLES = 12  # pictures that the page brings
LONGEST = 1280  # pixels of a sample's longer side
ROOM = 800_000  # bytes of samples: of large ones there are fewer
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.mjs";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?:async )?(?:function|const) (\w+)", re.MULTILINE)
SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp"}


@dataclass(frozen=True)
class Shown:
    """What a page shows of a run.

    Attributes:
        graphs: its networks, by the names that the page's script calls them by.
        beside: networks that it can do without.
        facts: what that script needs to know besides, as JSON has it.
        arrays: numbers that it shows, float32, by name.
    """

    graphs: Sequence[Exported]
    beside: Sequence[Exported] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


class Pack:
    """Bytes of all graphs of a page, where weights that several of them have are once."""

    def __init__(self) -> None:
        self.body = bytearray()
        self._places: dict[bytes, int] = {}

    def place(self, raw: bytes) -> int:
        """Return where bytes begin, once they are in."""
        key = hashlib.sha256(raw).digest()
        if key not in self._places:
            self.body += bytes(-len(self.body) % 16)
            self._places[key] = len(self.body)
            self.body += raw
        return self._places[key]

    def has(self, raw: bytes) -> bool:
        return hashlib.sha256(raw).digest() in self._places

    def planes(self) -> bytes:
        """Return all bytes, the first of every four before the second ones, and so on.

        So they are packed to two thirds, as text: signs and exponents are alike, fractions are not.
        """
        whole = np.frombuffer(self.body + bytes(-len(self.body) % 4), np.uint8)
        return whole.reshape(-1, 4).T.tobytes()

    def array(self, values: np.ndarray) -> dict[str, Any]:
        values = rounded(np.asarray(values, np.float32))
        return {"offset": self.place(values.tobytes()), "shape": values.shape}

    def graph(self, path: Path) -> bytes:
        """Return an ONNX file whose large weights are in the pack, which it calls `weights`.

        A gradient takes the matrix of a linear layer both ways round: once is enough.
        """
        onnx = onnx_package()
        model = onnx.load(path)
        turns = []
        for weight in model.graph.initializer:
            if len(weight.raw_data) <= SMALL:
                continue
            values = rounded(onnx.numpy_helper.to_array(weight))
            raw = values.tobytes()
            if len(weight.dims) == 2 and not self.has(raw):
                turned = values.T.tobytes()
                if self.has(turned):
                    name, raw = f"{weight.name}/turned", turned
                    turns.append(
                        onnx.helper.make_node("Transpose", [name], [weight.name], perm=(1, 0))
                    )
                    weight.name, weight.dims[:] = name, weight.dims[::-1]
            weight.ClearField("raw_data")
            weight.data_location = onnx.TensorProto.EXTERNAL
            known = {"location": "weights", "offset": self.place(raw), "length": len(raw)}
            for key, value in known.items():
                weight.external_data.add(key=key, value=str(value))
        nodes = [*turns, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        return model.SerializeToString()


def rounded(values: np.ndarray) -> np.ndarray:
    """Return float32 numbers 2^-16 from what they were, their last byte 0; others as they are."""
    if values.dtype != np.float32:
        return values
    near = (np.ascontiguousarray(values).view(np.uint32) + 0x80 & 0xFFFFFF00).view(np.float32)
    return np.where(np.isfinite(near), near, values)  # the greatest of all has nothing above it


def onnx_package() -> ModuleType:
    return import_module("onnx")


# ---------------------------------------------------------------- what page.py does


def write_page(flags: PageFlags) -> None:
    """Write the page of runs into the first one's folder.

    Raises:
        LabError: no such run, a package or the runtime is missing, a network cannot be exported.
    """
    if len({folder.resolve() for folder in flags.ckpt_path}) < len(flags.ckpt_path):
        raise UsageError("--ckpt_path names a run twice")
    runs = [load_run(RunFlags(flags.task, folder, flags.epoch), "cpu", "fp32", flags.task)
            for folder in flags.ckpt_path]  # fmt: skip
    check(flags, runs)
    missing = [name for name in FORMATS["onnx"] if find_spec(name) is None]
    if missing:
        raise LabError(f"a page needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    reader = None
    if flags.read is not None:
        reader = find_reader(flags.read, runs[0].classes, "cpu", "fp32")
    runtime, pack, blobs = find_runtime(flags.runtime), Pack(), {}
    samples = as_samples(sample_pictures(flags, runs[0])) if runs[0].task.takes_pictures else []
    every = [run.task.shown(run) for run in runs]
    said = [add_run(run, shown, pack, blobs) for run, shown in zip(runs, every, strict=True)]
    facts = {"runs": said, "reader": None, "samples": samples}
    if reader is not None:
        own = Shown(reader.task.exported(reader), facts={"classes": reader.classes})
        facts["reader"] = add_run(reader, own, pack, blobs)
    path = runs[0].results / "page.html"
    with attempt(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, assemble(runs[0].task.name, facts, runtime, pack, blobs))
    say(f"Saved {path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")


def check(flags: PageFlags, runs: Sequence[Trained]) -> None:
    """Raise a UsageError where runs are not of one page."""
    names = [run.task.name for run in runs]
    if len(runs) > 1 and set(names) != {"classification"}:
        raise UsageError(f"side by side stand classifiers; these are of {', '.join(names)}")
    if len(runs) > 1 and len({run.classes for run in runs}) > 1:
        raise UsageError("side by side stand classifiers of the same classes; these know others")
    if flags.read is not None and names[0] != "detection":
        raise UsageError(f"--read is of detection; {flags.ckpt_path[0]} is of {names[0]}")
    if flags.image is not None and not runs[0].task.takes_pictures:
        raise UsageError(f"--image has no use on a page of {names[0]}")


def add_run(trained: Trained, shown: Shown, pack: Pack, blobs: dict[str, bytes]) -> dict[str, Any]:
    """Put a run's networks into the page; return what is said of it there."""
    key, graphs = f"run{len(blobs)}", {}
    for exported in (*shown.graphs, *shown.beside):
        try:
            path = graph_file(exported, trained, trained.results / "export/page")
        except LabError as error:
            if exported in shown.graphs:
                raise
            say(f"The page is without {exported.name}: {error}")
            continue
        graphs[exported.name] = f"{key}-{exported.name}"
        blobs[graphs[exported.name]] = pack.graph(path)
    arrays = {name: pack.array(values) for name, values in shown.arrays.items()}
    own = {"name": trained.path.parent.resolve().name, "graphs": graphs, "arrays": arrays}
    return own | {"made": made(trained)} | shown.facts


def graph_file(exported: Exported, trained: Trained, folder: Path) -> Path:
    """Return the file of a network as a page has it: the one that is there, or a new one."""
    path, stamp = folder / f"{exported.name}.onnx", stamp_of(trained)
    if path.is_file() and kept_stamp(path) == stamp:
        return path
    with attempt(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    known = {name: json.dumps(value) for name, value in metadata(trained).items()}
    write(exported, path, "onnx", False, known | {"stamp": stamp}, list(trial_pictures(None)))
    return path


def stamp_of(trained: Trained) -> str:
    """Return what tells a network's graphs from those of other weights or of other code."""
    digest = hashlib.sha256(trained.path.read_bytes())
    rooms = (PROJECT, PROJECT / "lab", PROJECT / "looking", PROJECT / "tasks")
    for room in (*rooms, PROJECT / "tasks" / trained.task.name):
        for source in sorted(room.glob("*.py")):
            digest.update(source.read_bytes())
    digest.update(torch.__version__.encode())
    return digest.hexdigest()


def kept_stamp(path: Path) -> str | None:
    try:
        model = onnx_package().load(path)
    except Exception:  # arbitrary bytes make the reader raise nearly anything
        return None
    return next((entry.value for entry in model.metadata_props if entry.key == "stamp"), None)


def made(trained: Trained) -> dict[str, Any]:
    """Return what made a network, for the foot of the page."""
    sessions = read_sessions(trained.path.parent)
    known, session = metadata(trained), sessions[-1] if sessions else {}
    data = known.get("dataset") or Path(str(trained.state.get("data_root", "data"))).name
    own = {name: session[name] for name in ("command", "started", "commit") if session.get(name)}
    parameters = sum(weight.numel() for weight in trained.network.parameters())
    return own | {
        "checkpoint": known["checkpoint"], "network": known.get("network", trained.task.network),
        "dataset": data, "parameters": parameters, "figures": known["figures"],
    }  # fmt: skip


# ---------------------------------------------------------------- samples


def sample_pictures(flags: PageFlags, trained: Trained) -> list[Image.Image]:
    """Return pictures to begin with: those given, some of the test split, else photographs."""
    if flags.image is not None:
        return [image for _, image in islice(given_images(flags.image), SAMPLES)]
    root = located(str(trained.state.get("data_root", "data")))
    folder = split_folder(root, "test")
    files = () if folder is None else folder.rglob("*")
    paths = in_order(file for file in files if file.suffix.lower() in SUFFIXES)
    images = []
    for place in evenly(len(paths), SAMPLES):
        try:
            images.append(open_image(paths[place]))
        except OSError:
            continue
    return images or [Image.fromarray(picture) for picture in load_sample_images().images]


def evenly(count: int, most: int) -> list[int]:
    """Return places among so many, from the first to the last, as many as there may be."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def as_samples(images: Sequence[Image.Image]) -> list[str]:
    """Return as many pictures as there is room for, at least one, each as an address."""
    made, room = [], ROOM
    for image in images:
        made.append(as_sample(image))
        room -= len(made[-1])
        if room < 0:
            break
    return made


def as_sample(image: Image.Image, longest: int | None = LONGEST) -> str:
    """Return a picture as an address that holds it; without loss where `longest` is None."""
    image = image.convert("RGB")
    if longest is not None:
        image.thumbnail((longest, longest))
    file, small = io.BytesIO(), longest is None or max(image.size) <= 64
    image.save(file, "PNG" if small else "JPEG", **({} if small else {"quality": 85}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


# ---------------------------------------------------------------- the file


def assemble(
    task: str, facts: Mapping[str, Any], runtime: WebRuntime, pack: Pack,
    blobs: Mapping[str, bytes],
) -> str:  # fmt: skip
    """Return the page's HTML."""
    engine = runtime.script + "\n" + read_text(PAGE / "engine.js")
    packed = {"wasm": runtime.wasm, "weights": pack.planes(), **blobs}
    slots = {
        "style": read_text(PAGE / "page.css"),
        "facts": json.dumps(facts).replace("<", "\\u003c"),
        "script": joined(task),
        "engine": engine,
        "packed": "\n".join(
            f'<script type="text/plain" id="packed-{name}">{as_text(body)}</script>'
            for name, body in packed.items()
        ),
    }
    pieces = re.split(r"<!-- (\w+) -->", read_text(PAGE / "page.html"))
    return "".join(slots[piece] if k % 2 else piece for k, piece in enumerate(pieces))


def as_text(body: bytes) -> str:
    return base64.b64encode(gzip.compress(body, 9, mtime=0)).decode()


def joined(name: str) -> str:
    """Return a module of `page/` and those that it imports as one script, each after its own.

    A page that is opened from disk can import nothing: each becomes a function that is called
    once and returns what it exports.
    """
    order: dict[str, str] = {}

    def visit(own: str) -> None:
        if own in order:
            return
        text = read_text(PAGE / f"{own}.mjs")
        for _, other in IMPORT.findall(text):
            visit(other)
        names = ", ".join(EXPORT.findall(text))
        body = EXPORT.sub(lambda match: match[0].removeprefix("export "), text)
        body = IMPORT.sub(
            lambda match: f"const {{{match[1].replace(' as ', ': ')}}} = modules.{match[2]};\n",
            body,
        )
        order[own] = f"modules.{own} = (() => {{\n{body}\nreturn {{ {names} }};\n}})();"

    visit(name)
    return "\n".join(
        ["const modules = {};", *order.values(), f"const {{ start }} = modules.{name};"]
    )
