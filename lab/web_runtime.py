"""onnxruntime-web, which runs networks in a browser (Microsoft, MIT licence): fetched once.

runtime = find_runtime(None)       # the one kept in data/.cache, or fetched
runtime.script                     # JavaScript of a worker, which has the runtime as `ort`
runtime.wasm                       # what it computes with, bytes
"""

import hashlib
import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import requests

from lab.console import LabError, say
from lab.files import alone, attempt, reason
from lab.folders import DATA_ROOT

VERSION = "1.30.0"
NAME = f"onnxruntime-web-{VERSION}.tgz"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/{NAME}"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
FOLDER = DATA_ROOT / ".cache"
SCRIPT = "package/dist/ort.wasm.bundle.min.mjs"
WASM = "package/dist/ort-wasm-simd-threaded.wasm"
SILENCE_SECONDS = 10.0  # without a connection or another byte
HOW = (
    "run page.py once with a connection, or get it by "
    f"`npm pack onnxruntime-web@{VERSION}` and add --runtime {NAME}"
)


@dataclass(frozen=True)
class WebRuntime:
    script: str
    wasm: bytes


def find_runtime(given: Path | None) -> WebRuntime:
    """Return the runtime out of a given archive, the one that is kept, or one fetched now.

    Raises:
        LabError: there is none, or the file is another one; says how to get it.
    """
    if given is not None:
        with attempt(f"read {given}"):
            body = given.read_bytes()
        if not is_it(body):
            raise LabError(f"{given} is not {NAME} (its SHA-256 is another); {HOW}")
        return unpack(body)
    kept = FOLDER / NAME
    with alone(FOLDER, "writes to"):
        if not kept.is_file() or not is_it(body := kept.read_bytes()):
            say(f"Fetching {NAME} (33 MB), once")
            body = fetch()
            with attempt(f"write {kept}"):
                partial = kept.with_name(f".{NAME}.partial")
                partial.write_bytes(body)
                partial.replace(kept)
    return unpack(body)


def is_it(body: bytes) -> bool:
    return hashlib.sha256(body).hexdigest() == SHA256


def fetch() -> bytes:
    """Download the archive as its project publishes it."""
    try:
        with requests.get(ADDRESS, timeout=SILENCE_SECONDS) as response:
            response.raise_for_status()
            body = response.content
    except requests.RequestException as error:
        why = reason(error) if error.strerror else type(error).__name__
        raise LabError(f"cannot fetch onnxruntime-web ({why}): {HOW}") from error
    if not is_it(body):
        raise LabError(f"{ADDRESS} gave another file than {NAME}: {HOW}")
    return body


def unpack(body: bytes) -> WebRuntime:
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        script, wasm = (archive.extractfile(name).read() for name in (SCRIPT, WASM))
    return WebRuntime(as_worker(script.decode()), wasm)


def as_worker(script: str) -> str:
    """Return a module's text as a plain script that names what it exports `ort`.

    A page opened from disk has workers of plain scripts alone: no browser lets one import.
    """

    def name_all(match: re.Match) -> str:
        pairs = (entry.split(" as ") for entry in match[1].split(","))
        return "const ort = {" + ", ".join(f"{new}: {own}" for own, new in pairs) + "};"

    script, count = re.subn(r"export\{([^}]*)\};\n//# sourceMappingURL=.*", name_all, script)
    if count != 1 or "</script" in script:
        raise LabError(f"{NAME} is not laid out as page.py expects")
    return script.replace("import.meta.url", "self.location.href")
