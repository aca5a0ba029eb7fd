"""Markdown: of the pages in `docs/` the blocks that they use are read, and a report is written.

Headings, paragraphs, lists without order, code (indented, or between fences of three backticks),
tables and pictures on a line of their own: whatever else Markdown has, the pages do without.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from reporting.blocks import Blank, Block, Bullets, Code, Figure, Heading, Paragraph, Table

# Lines that make a block; what is named last in it tells its kind.
BLOCK = re.compile(
    r"""^(?:
    (?P<marks>\#+)[ ](?P<heading>.*)\n
    | ```.*\n(?P<fenced>(?:(?!```).*\n)*)```[ ]*\n
    | !\[(?P<alt>[^\]\n]*)\]\((?P<picture>[^)\n]+)\)\n
    | (?P<code>[ ]{4}.*\S.*\n(?:[ ]{4}.*\n|[ ]*\n)*)
    | (?P<table>(?:\|.*\n)+)
    | (?P<items>-[ ].*\n(?:(?:-[ ]|[ ]{2}).*\n)*)
    | (?P<words>.*\S.*\n(?:(?![\#|]|-[ ]|```).*\S.*\n)*)
    )""",
    re.VERBOSE | re.MULTILINE,
)
CELL_END = re.compile(r"(?<!\\)\|")


def read(text: str, folder: Path = Path(), deeper: int = 0) -> list[Block]:
    """Return the blocks of a page in a folder, whose headings go some levels `deeper`."""
    return [_read(match, folder, deeper) for match in BLOCK.finditer(text + "\n")]


def _read(match: re.Match, folder: Path, deeper: int) -> Block:
    text = match[match.lastgroup]
    match match.lastgroup:
        case "heading":
            return Heading(text, len(match["marks"]) + deeper)
        case "picture":
            return Figure(folder / text, Path(text).stem, match["alt"])
        case "code":
            return Code("\n".join(line[4:] for line in text.split("\n")).rstrip())
        case "fenced":
            return Code(text.rstrip())
        case "table":
            head, _, *rows = map(_cells, text.splitlines())
            return Table(head, tuple(rows))
        case "items":
            items = re.split(r"^- ", text, flags=re.MULTILINE)[1:]
            return Bullets(tuple(re.sub(r"\n\s+", " ", item.rstrip("\n")) for item in items))
    return Paragraph(" ".join(text.splitlines()))


def _cells(row: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace("\\|", "|") for cell in CELL_END.split(row)[1:-1])


def to_markdown(blocks: Sequence[Block]) -> str:
    """Return a document whose pictures lie in `pictures/` beside it."""
    return "\n\n".join(map(_write, blocks)) + "\n"


def _write(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Code(text):
            return "\n".join(f"    {line}".rstrip() for line in text.split("\n"))
        case Table(head, rows):
            rule = ["---:" if is_numeric else "---" for is_numeric in block.numeric()]
            cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
            return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *cells))
        case Figure(_, name, alt, caption):
            return f"![{alt}](pictures/{name}.jpg)" + (f"\n\n{caption}" if caption else "")
        case Blank(title, prompt):
            return f"### {title}\n\n*{prompt}*\n\n…"
