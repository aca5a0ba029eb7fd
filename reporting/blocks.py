"""What a document consists of: blocks, one below the other, whose text holds a little Markdown.

Text may hold `code`, **strong words** and [links](address). `markdown`, `html` and `latex` write
blocks; `markdown` also reads them.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("en", "zh")
SPAN = re.compile(
    r"`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|\[(?P<link>[^\]]+)\]\((?P<to>[^)\s]+)\)"
)


@dataclass(frozen=True)
class Heading:
    """A heading; 1 is the document's."""

    text: str
    level: int


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Lines that are shown as they are."""

    text: str


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def is_numeric(self, column: int) -> bool:
        """True if every cell of a column begins like a number, or is empty."""
        cells = [row[column] for row in self.rows]
        return any(cells) and all(re.match(r"[-+]?\d|[–-]?$", cell) for cell in cells)


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        source: its file.
        name: of its copy beside the document, without a suffix.
        alt: what it is, for who cannot see it.
        caption: below it.
    """

    source: Path
    name: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Blank:
    """Room for what only the student can write.

    Attributes:
        title: heads it, and is its name in the file of notes.
        prompt: what to write.
    """

    title: str
    prompt: str


Block = Heading | Paragraph | Bullets | Code | Table | Figure | Blank


def in_spans(
    text: str,
    plain: Callable[[str], str],
    code: Callable[[str], str],
    strong: Callable[[str], str],
    link: Callable[[str, str], str],
) -> str:
    """Return a text written span by span; `strong` and `link` get what `plain` has written."""
    written, end = [], 0
    for match in SPAN.finditer(text):
        written.append(plain(text[end : match.start()]))
        if match["code"]:
            written.append(code(match["code"]))
        elif match["strong"]:
            written.append(strong(plain(match["strong"])))
        else:
            written.append(link(in_spans(match["link"], plain, code, strong, link), match["to"]))
        end = match.end()
    return "".join([*written, plain(text[end:])])


class Page:
    """Blocks in the making, in one of two languages: each text is given in both."""

    def __init__(self, language: str):
        self.language = language
        self.blocks: list[Block] = []

    def words(self, en: str, zh: str) -> str:
        """Return the text in the page's language."""
        return zh if self.language == "zh" else en

    def heading(self, level: int, en: str, zh: str) -> None:
        self.blocks.append(Heading(self.words(en, zh), level))

    def paragraph(self, en: str, zh: str) -> None:
        self.blocks.append(Paragraph(self.words(en, zh)))

    def bullets(self, items: Iterable[str]) -> None:
        self.blocks.append(Bullets(tuple(items)))

    def code(self, lines: Iterable[str]) -> None:
        self.blocks.append(Code("\n".join(lines)))

    def table(self, head: Iterable[tuple[str, str] | str], rows: Iterable[Iterable[str]]) -> None:
        """Add a table, whose head is in both languages where it is in one."""
        names = (cell if isinstance(cell, str) else self.words(*cell) for cell in head)
        self.blocks.append(Table(tuple(names), tuple(map(tuple, rows))))

    def figure(
        self, source: Path, name: str, alt: tuple[str, str], caption: tuple[str, str]
    ) -> None:
        """Add a picture; where it is not there, that it is missing."""
        if source.is_file():
            about = self.words(*alt), self.words(*caption)
            self.blocks.append(Figure(source, name, *about))
        else:
            self.paragraph(f"**Missing**: {alt[0]}.", f"**缺少**：{alt[1]}。")

    def blank(self, title: tuple[str, str], prompt: tuple[str, str]) -> None:
        self.blocks.append(Blank(self.words(*title), self.words(*prompt)))
