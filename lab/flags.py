"""Flags: parsers that answer a wrong one in a line, types of numbers, records of what is given.

    @dataclass(frozen=True)
    class Flags:
        size: int = flag(320, positive_int, "pixels a side")
        mirror: bool = flag(False, bool, "mirror left and right")

    parser = Parser("Do something.")
    add_flags(parser, Flags)
    flags = read_flags(parser.parse_args(), Flags)

A flag is declared once, as a field of a frozen record: its name, its default, its type or choices,
its help. A parsed command line becomes such records at one place; no function changes them.

Only the standard library is imported here, so that `--help` and a wrong flag answer at once.
"""

import argparse
import math
import re
import shlex
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import Field, field, fields
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lab.folders import DATA_ROOT, near

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CKPT_PATH = Path("checkpoints/default")
VISUALIZED = Path("visualized")

Record = TypeVar("Record")


class Parser(argparse.ArgumentParser):
    """A parser that answers a wrong flag in one line, exit code 2.

    A script gives its docstring, whose first paragraph heads the help.
    """

    def __init__(self, text: str = "", **options: Any):
        super().__init__(description=text.split("\n\n")[0], allow_abbrev=False, **options)

    def error(self, message: str) -> None:
        if message.startswith("unrecognized arguments: "):
            given = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
            near = [get_close_matches(word, self._option_string_actions, 1) for word in given]
            meant = [f"did you mean {name}?" for names in near for name in names]
            message = "; ".join([message, *meant])
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


# ---------------------------------------------------------------- records


def flag(
    default: Any, parse: Callable | Collection[str], text: str, *names: str, **options: Any
) -> Any:
    """Declare a field of a record that has a flag.

    Args:
        parse: the type of its value, bool for a flag that is given or not, or its choices.
        text: help.
        names: other names of it, with their dashes.
        options: `group`, under which the help has it; `excludes`, a name that flags share of which
            one alone can be given; `undone`, False for a bool without a `--no-` form; all others
            as argparse takes them.
    """
    return field(default=default, metadata={"parse": parse, "help": text, "names": names} | options)


def add_flags(
    parser: argparse.ArgumentParser,
    record: type,
    only: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Add a flag for each field of a record that was declared by `flag`.

    Args:
        only: fields to add; all if there are none.
        defaults: where they differ from the record's own, by name.
    """
    groups: dict[str, Any] = {"": parser}
    exclusive: dict[str, Any] = {}
    for entry in fields(record):
        if "parse" not in entry.metadata or (only and entry.name not in only):
            continue
        title, shared = entry.metadata.get("group", ""), entry.metadata.get("excludes")
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        place = groups[title]
        if shared:
            if shared not in exclusive:
                exclusive[shared] = place.add_mutually_exclusive_group()
            place = exclusive[shared]
        default = (defaults or {}).get(entry.name, entry.default)
        names = (f"--{entry.name}", *entry.metadata["names"])
        place.add_argument(*names, **_options(entry, default), default=default)


def _options(entry: Field, default: Any) -> dict[str, Any]:
    """Return what argparse is told of a field's flag, but for its default."""
    ours = ("parse", "names", "group", "excludes", "undone")
    options = {name: value for name, value in entry.metadata.items() if name not in ours}
    parse = entry.metadata["parse"]
    if parse is bool:
        undone = entry.metadata.get("undone", True)
        options["help"] += " (default: yes)" if default else ""
        return options | {"action": argparse.BooleanOptionalAction if undone else "store_true"}
    if default is not None and "default" not in options["help"]:
        options["help"] += " (default %(default)s)"
    return options | ({"type": parse} if callable(parse) else {"choices": parse})


def read_flags(args: argparse.Namespace, record: type[Record]) -> Record:
    """Return the record of what parsed flags say; fields without a flag keep their defaults."""
    names = {entry.name for entry in fields(record)}
    return record(**{name: value for name, value in vars(args).items() if name in names})


def parse_flags(record: type[Record], text: str) -> Record:
    """Return what the command line says, of a script with that docstring and one record."""
    parser = Parser(text)
    add_flags(parser, record)
    return read_flags(parser.parse_args(), record)


# ---------------------------------------------------------------- names of what was asked for


def asked_for(flags: Any, *names: str) -> dict[str, Any]:
    """Return those of a record's flags, of the ones named, that were given, with their values."""
    defaults = {entry.name: entry.default for entry in fields(flags)}
    given = {name: getattr(flags, name) for name in names}
    return {name: value for name, value in given.items() if value != defaults[name]}


def as_name(asked: Mapping[str, Any]) -> str:
    """Return flags as the end of a file's name, so that other ones do not overwrite the file."""
    return "".join(f"_{name}_{plain_name(value)}" for name, value in asked.items())


def as_words(asked: Mapping[str, Any]) -> str:
    """Return flags as a command line has them."""
    words = ([f"--{name}", *(v if isinstance(v, list) else [v])] for name, v in asked.items())
    return shlex.join(str(word) for own in words for word in own)


def plain_name(value: Any) -> str:
    """Return a value as a part of a file's name: letters, digits, `.`, `-` and `_`, 60 at most.

    What is lost of a text is stood for by a number, so that two texts have two names.
    """
    values = value if isinstance(value, list) else [value]
    text = "_".join(re.split(r"[/\\]", str(own))[-1] for own in values)
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")[:60]
    if name == "_".join(str(own).replace(" ", "_") for own in values):
        return name
    return f"{name}_{zlib.crc32(str(value).encode('utf-8', 'surrogateescape')):08x}"


# ---------------------------------------------------------------- numbers


def _number(kind: type, valid: Callable[[float], bool], expected: str) -> Callable[[str], Any]:
    """Return what parses the text of a number, and says what is expected of another text."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not valid(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


positive_int = _number(int, lambda value: value >= 1, "a whole number of at least 1")
multiple_of_8 = _number(int, lambda value: value >= 8 and value % 8 == 0, "a multiple of 8")
natural = _number(int, lambda value: value >= 0, "a whole number of at least 0")
# What every generator takes.
seed = _number(int, lambda value: 0 <= value < 2**63, "a whole number from 0 to 2^63 - 1")
share = _number(float, lambda value: 0 < value < 1, "a number between 0 and 1")
closed_share = _number(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
fraction = _number(float, lambda value: 0 <= value < 1, "a number from 0 to below 1")
positive_float = _number(float, lambda value: 0 < value < math.inf, "a number above 0")
non_negative_float = _number(float, lambda value: 0 <= value < math.inf, "a number of at least 0")


def epoch_choice(text: str) -> int | str:
    """Parse `best`, `last` or an epoch's number."""
    return text if text in ("best", "last") else positive_int(text)


# ---------------------------------------------------------------- flags of several scripts


def ckpt_path(text: str, default: Path | None = CKPT_PATH) -> Any:
    """Declare `--ckpt_path`, the folder of a run."""
    return flag(default, Path, text)


def data_root(default: str) -> Any:
    """Declare `--data_root`; None tells a default from a folder that is given."""
    text = "folder of the data; of images: train/, val/ and test/, a folder a class in each"
    return flag(None, Path, f"{text} (default: {default})", "--path")


DEVICES = ("cpu", "cuda", "mps")
device = partial(flag, None, DEVICES, "default: the best there is, of cuda, mps and cpu")
precision = partial(flag, None, PRECISIONS, "default: what the run was trained in")
save_dir = partial(flag, VISUALIZED, Path, "folder of the pictures")
no_show = partial(flag, False, bool, "save pictures without opening windows of them", undone=False)
epoch = partial(
    flag, None, epoch_choice, "checkpoint to read: an epoch's number, best or last (default: 10 of "
    "a run that ends with it, as the course's, else the best)",
)  # fmt: skip
OWN_DATA = "the one the checkpoint was trained on"
DRAWN_DATA = str(near(DATA_ROOT))
