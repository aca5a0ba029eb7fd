"""Reads submissions: a folder or a zip, with or without a folder inside, in whatever encoding.

Only Python files of a course's size are read, and nothing is unpacked onto the disk.
"""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from course import ASSIGNMENTS, Assignment
from course.cutting import decode
from course.words import Words

LARGEST, MOST = 1 << 20, 300  # bytes of a file, files
PACKED = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".xz", ".bz2")


@dataclass(frozen=True)
class Submission:
    name: str
    files: dict[str, str] = field(default_factory=dict)  # texts, by name
    refused: Words = field(default_factory=dict)  # why it cannot be graded


class Unreadable(Exception):
    """Why a submission cannot be read: English, Chinese."""


def submissions_of(path: Path) -> list[Path]:
    """Return the submissions at a path: itself, or what a folder of them holds."""
    wanted = {name for one in ASSIGNMENTS.values() for name in one.blanked}
    if path.is_file() or any((path / name).is_file() for name in wanted):
        return [path]
    return [one for one in visible(path) if one.is_dir() or one.suffix.lower() in PACKED]


def visible(folder: Path) -> list[Path]:
    """Return what lies in a folder, but for what systems and Python leave there."""
    return sorted(one for one in folder.iterdir() if not one.name.startswith((".", "__")))


def which(path: Path) -> Assignment | None:
    """Return the assignment that a submission has most files of; None if of none."""
    try:
        names = {file.name for file in contents(path)}
    except (Unreadable, OSError):
        return None
    best = max(ASSIGNMENTS.values(), key=lambda one: len(names & set(one.blanked)))
    return best if names & set(best.blanked) else None


def read_submission(path: Path, assignment: Assignment) -> Submission:
    """Read the files with blanks and those beside them; what cannot be read says why."""
    try:
        found = sorted(contents(path).items(), key=lambda one: (len(one[0].parts), str(one[0])))
        homes = [file.parent for file, _ in found if file.name in assignment.blanked]
        if not homes:
            names = assignment.blanked
            raise Unreadable(f"holds no {' or '.join(names)}", f"其中没有 {' 或 '.join(names)}")
        texts: dict[str, str] = {}
        for file, data in found:
            wanted = file.name in assignment.blanked
            if file.name in texts or not (wanted or file.parent == homes[0]):
                continue
            try:
                texts[file.name] = decode(data)
            except UnicodeDecodeError:
                if wanted:
                    en = f"{file.name} is no text in UTF-8 or GB18030"
                    raise Unreadable(en, f"{file.name} 不是 UTF-8 或 GB18030 文本") from None
    except Unreadable as error:
        return Submission(path.name, refused=dict(zip(("en", "zh"), error.args, strict=True)))
    except OSError as error:
        en, zh = f"cannot be read: {error.strerror}", f"无法读取：{error.strerror}"
        return Submission(path.name, refused={"en": en, "zh": zh})
    return Submission(path.name, texts)


def contents(path: Path) -> dict[PurePosixPath, bytes]:
    """Return the Python files of a folder or zip.

    Raises:
        Unreadable: it is neither, it is damaged or locked, or it holds too much.
    """
    if path.is_dir():
        files = [one for one in path.rglob("*.py") if one.is_file() and not one.is_symlink()]
        sizes = {PurePosixPath(one.relative_to(path).as_posix()): one for one in files}
        return {
            place: one.read_bytes()
            for place, one in sizes.items()
            if fits(place, one.stat().st_size)
        }
    if path.suffix.lower() != ".zip":
        raise Unreadable("is no folder and no zip: pack it as a zip", "请打包为 zip")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {
                PurePosixPath(name_in(one).replace("\\", "/")): one for one in archive.infolist()
            }
            wanted = [place for place, one in entries.items() if fits(place, one.file_size)]
            if len(wanted) > MOST:
                raise Unreadable(
                    f"holds more than {MOST} Python files", f"超过 {MOST} 个 Python 文件"
                )
            return {place: archive.read(entries[place]) for place in wanted}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, RuntimeError) as error:
        if "password" in str(error):
            raise Unreadable("is locked by a password", "zip 有密码") from None
        raise Unreadable("is a damaged zip", "zip 文件已损坏") from None


def fits(place: PurePosixPath, size: int) -> bool:
    """True of Python files, but for libraries and what macOS and editors leave beside them."""
    aside = any(part.startswith((".", "__")) or part == "site-packages" for part in place.parts)
    if place.suffix != ".py" or aside:
        return False
    if size > LARGEST:
        raise Unreadable(f"{place.name} is larger than 1 MB", f"{place.name} 超过 1 MB")
    return True


def name_in(info: zipfile.ZipInfo) -> str:
    """Return a name in a zip; without the mark of UTF-8, Windows in China has written GBK."""
    try:
        unmarked = not info.flag_bits & 0x800
        return info.filename.encode("cp437").decode("gbk") if unmarked else info.filename
    except UnicodeError:
        return info.filename
