"""Reads submissions: a folder or a zip, with or without a folder inside, whatever its names are in.

Only what is needed is read, Python files of a course's size; nothing is unpacked onto the disk.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from course import ASSIGNMENTS, Assignment
from course.cutting import decode
from course.words import Words

LARGEST = 1 << 20  # bytes of a Python file
MOST = 100  # Python files beside those with blanks
PACKED = (".rar", ".7z", ".tar", ".gz", ".tgz", ".xz", ".bz2")


@dataclass(frozen=True)
class Submission:
    name: str
    files: dict[str, str] = field(default_factory=dict)  # texts, by name
    refused: Words = field(default_factory=dict)  # why it cannot be graded


class Unreadable(Exception):
    """Why a submission cannot be read: English, Chinese."""


def is_submission(path: Path) -> bool:
    """True of a folder that holds a file with blanks itself, and of a zip."""
    wanted = {name for one in ASSIGNMENTS.values() for name in one.blanked}
    return path.suffix.lower() == ".zip" or any((path / name).is_file() for name in wanted)


def submissions_of(path: Path) -> list[Path]:
    """Return the submissions at a path: itself, or what is in a folder of them."""
    if path.is_file() or is_submission(path):
        return [path]
    return sorted(
        one
        for one in path.iterdir()
        if not one.name.startswith((".", "__"))
        and (one.is_dir() or one.suffix.lower() in (".zip", *PACKED))
    )


def which(path: Path) -> Assignment | None:
    """Return the assignment that a submission has most files of; None if of none."""
    try:
        names = {file.name for file, _ in listed(path)}
    except (Unreadable, OSError):
        return None
    counts = {name: len(names & set(one.blanked)) for name, one in ASSIGNMENTS.items()}
    best = max(counts, key=counts.__getitem__)
    return ASSIGNMENTS[best] if counts[best] else None


def read_submission(path: Path, assignment: Assignment) -> Submission:
    """Read a submission; one that cannot be read says so."""
    try:
        files = texts(path, assignment)
    except Unreadable as error:
        en, zh = error.args
        return Submission(path.name, {}, {"en": en, "zh": zh})
    except OSError as error:
        why = error.strerror or str(error)
        return Submission(path.name, {}, {"en": f"cannot be read: {why}", "zh": f"无法读取：{why}"})
    return Submission(path.name, files)


def texts(path: Path, assignment: Assignment) -> dict[str, str]:
    """Return the Python files beside those with blanks, which may lie in a folder inside."""
    found = sorted(listed(path), key=lambda one: (len(one[0].parts), str(one[0])))
    homes = [file.parent for file, _ in found if file.name in assignment.blanked]
    if not homes:
        names = assignment.blanked
        raise Unreadable(f"holds no {' or '.join(names)}", f"其中没有 {' 或 '.join(names)}")
    chosen = {}
    for file, read in found:
        wanted = file.name in assignment.blanked or file.parent == homes[0]
        if not wanted or file.name in chosen or len(chosen) >= MOST:
            continue
        data = read()
        try:
            chosen[file.name] = decode(data)
        except UnicodeDecodeError:
            if file.name in assignment.blanked:
                raise Unreadable(
                    f"{file.name} is no text in UTF-8 or GB18030",
                    f"{file.name} 不是 UTF-8 或 GB18030 编码的文本",
                ) from None
    return chosen


def listed(path: Path) -> Iterator[tuple[PurePosixPath, object]]:
    """Yield the Python files of a folder or zip, each with what reads it.

    Raises:
        Unreadable: it is neither.
    """
    if path.is_dir():
        for file in path.rglob("*.py"):
            place = PurePosixPath(file.relative_to(path).as_posix())
            if is_code(place) and file.is_file() and not file.is_symlink():
                yield place, lambda file=file: checked(file.stat().st_size, file.read_bytes, file)
        return
    if path.suffix.lower() != ".zip":
        raise Unreadable(
            "is no folder and no zip: pack it as a zip", "不是文件夹或 zip：请打包为 zip"
        )
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise Unreadable("is a damaged zip", "zip 文件已损坏") from None
    with archive:
        for info in archive.infolist():
            place = PurePosixPath(own_name(info).replace("\\", "/"))
            if is_code(place):

                def read(info=info, place=place):
                    try:
                        return checked(info.file_size, lambda: archive.read(info), place)
                    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as e:
                        locked = "password" in str(e)
                        en = "is locked by a password" if locked else "is a damaged zip"
                        zh = "zip 有密码" if locked else "zip 文件已损坏"
                        raise Unreadable(en, zh) from None

                yield place, read


def own_name(info: zipfile.ZipInfo) -> str:
    """Return a name in a zip; without the mark of UTF-8, Windows in China has written GBK."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("gbk")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return info.filename


def is_code(place: PurePosixPath) -> bool:
    """True of Python files, but for what macOS and editors leave beside them."""
    hidden = any(part.startswith((".", "__")) for part in place.parts)
    return place.suffix == ".py" and not hidden


def checked(size: int, read, place) -> bytes:
    if size > LARGEST:
        name = PurePosixPath(place).name
        raise Unreadable(f"{name} is larger than 1 MB", f"{name} 超过 1 MB")
    return read()
