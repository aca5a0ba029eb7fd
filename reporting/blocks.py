"""What a document consists of: blocks, one below the other, whose texts have spans.

Spans are a little of Markdown: `code`, **strong words** and [links](address). `markdown`, `html`
and `latex` write blocks; `markdown` also reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from reporting import LANGUAGES

Text = TypeVar("Text", str, tuple[str, str])
SPAN = re.compile(
    r"`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|\[(?P<link>[^\]]+)\]\((?P<to>[^)\s]+)\)"
)
FEW = 20  # letters that a cell may hold after the first digit to count as a number


def by_span(
    text: str,
    plain: Callable[[str], str],
    code: Callable[[str], str],
    strong: Callable[[str], str],
    link: Callable[[str, str], str],
) -> str:
    """Return a text written span by span; `strong` and `link` get what `plain` has written.

    Of a link to another page the words alone are left: a report stands by itself. A network's page
    is handed in with it.
    """
    written, end = [], 0
    for match in SPAN.finditer(text):
        written.append(plain(text[end : match.start()]))
        if match["code"]:
            written.append(code(match["code"]))
        elif match["strong"]:
            written.append(strong(plain(match["strong"])))
        else:
            words, to = by_span(match["link"], plain, code, strong, link), match["to"]
            is_kept = to.startswith("http") or to.endswith("/page.html")
            written.append(link(words, to) if is_kept else words)
        end = match.end()
    return "".join([*written, plain(text[end:])])


@dataclass(frozen=True)
class Heading:
    text: str
    level: int  # 1 is the document's


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Bullets:
    items: tuple[tuple[Block, ...], ...]  # what is in each, mostly one paragraph
    start: int | None = None  # number of the first; None for bullets


@dataclass(frozen=True)
class Code:
    text: str  # lines that are shown as they are


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def numeric(self) -> list[bool]:
        """Return of each column whether every cell is a number, in few words, or is empty."""
        number = re.compile(rf"[-+]?\d.{{,{FEW}}}$|[–-]?$")
        columns = [[row[k] for row in self.rows] for k in range(len(self.head))]
        return [any(cells) and all(map(number.match, cells)) for cells in columns]


@dataclass(frozen=True)
class Figure:
    source: Path
    name: str  # of its copy beside the document, without a suffix
    alt: str  # what it is, for who cannot see it
    caption: str = ""


@dataclass(frozen=True)
class Blank:
    """Room for what only the student can write."""

    title: str  # heads it, and is its name in the file of notes
    prompt: str  # what to write


@dataclass(frozen=True)
class Words:
    """A student's own words, in Markdown as they were written."""

    text: str
    blocks: tuple[Block, ...]  # what they consist of


Block = Heading | Paragraph | Bullets | Code | Table | Figure | Blank | Words


def every(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield blocks with those inside them, in their order."""
    for block in blocks:
        yield block
        if isinstance(block, Words):
            yield from every(block.blocks)
        elif isinstance(block, Bullets):
            for item in block.items:
                yield from every(item)


class Page:
    """Blocks in the making, in one of two languages: each text is given in both."""

    def __init__(self, language: str):
        self.language = LANGUAGES.index(language)
        self.blocks: list[Block] = []

    def words(self, en: Text, zh: Text) -> Text:
        """Return a text, or several, in the page's language."""
        return (en, zh)[self.language]

    def heading(self, level: int, en: str, zh: str) -> None:
        self.blocks.append(Heading(self.words(en, zh), level))

    def paragraph(self, en: str, zh: str) -> None:
        self.blocks.append(Paragraph(self.words(en, zh)))

    def bullets(self, items: Iterable[str]) -> None:
        self.blocks.append(Bullets(tuple((Paragraph(item),) for item in items)))

    def code(self, lines: Iterable[str]) -> None:
        self.blocks.append(Code("\n".join(lines)))

    def table(self, head: Iterable[tuple[str, str] | str], rows: Iterable[Iterable[str]]) -> None:
        """Add a table, whose head is in both languages where it is in one."""
        names = (cell if isinstance(cell, str) else self.words(*cell) for cell in head)
        self.blocks.append(Table(tuple(names), tuple(map(tuple, rows))))

    def figure(
        self, source: Path, en: tuple[str, str], zh: tuple[str, str], name: str = ""
    ) -> None:
        """Add a picture by what it is and its caption; where it is not there, that it is missing.

        Its copy has the file's name by itself.
        """
        if source.is_file():
            self.blocks.append(Figure(source, name or source.stem, *self.words(en, zh)))
        else:
            self.paragraph(f"**Missing**: {en[0]}.", f"**缺少**：{zh[0]}。")

    def blank(self, en: tuple[str, str], zh: tuple[str, str]) -> None:
        """Add room for the student's words, by its title and what to write."""
        self.blocks.append(Blank(*self.words(en, zh)))
