"""Markdown: of the pages in `docs/` the parts that they use are read, and a report is written.

Headings, paragraphs, lists without order, indented code, tables and pictures on a line of their
own: whatever else Markdown has, the pages do without.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from reporting.blocks import (
    Blank,
    Block,
    Bullets,
    Code,
    Figure,
    Heading,
    Paragraph,
    Table,
)

HEADING = re.compile(r"(#+) (.*)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
CELL_END = re.compile(r"(?<!\\)\|")


def read(text: str, folder: Path = Path(), deeper: int = 0) -> list[Block]:
    """Return the blocks of a page.

    Args:
        folder: of the page, from which it names its pictures.
        deeper: levels that its headings go down.
    """
    blocks: list[Block] = []
    lines = text.splitlines()
    while lines:
        line = lines[0]
        if not line.strip():
            lines.pop(0)
        elif match := HEADING.fullmatch(line):
            blocks.append(Heading(match[2], len(match[1]) + deeper))
            lines.pop(0)
        elif match := PICTURE.fullmatch(line):
            path = folder / match[2]
            blocks.append(Figure(path, path.stem, match[1]))
            lines.pop(0)
        elif line.startswith("    "):
            code = _take(lines, lambda line: line.startswith("    ") or not line.strip())
            blocks.append(Code("\n".join(line[4:] for line in code).rstrip()))
        elif line.startswith("|"):
            head, _, *rows = map(_cells, _take(lines, lambda line: line.startswith("|")))
            blocks.append(Table(head, tuple(rows)))
        elif line.startswith("- "):
            items = [lines.pop(0)[2:]]
            while lines and (lines[0].startswith("- ") or lines[0].startswith("  ")):
                line = lines.pop(0)
                if line.startswith("- "):
                    items.append(line[2:])
                else:
                    items[-1] += " " + line.strip()
            blocks.append(Bullets(tuple(items)))
        else:
            words = _take(
                lines, lambda line: line.strip() and line[0] not in "#|" and line[:2] != "- "
            )
            blocks.append(Paragraph(" ".join(words)))
    return blocks


def _take(lines: list[str], belongs) -> list[str]:
    """Remove the lines that belong together from the beginning of a list, and return them."""
    taken = [lines.pop(0)]
    while lines and belongs(lines[0]):
        taken.append(lines.pop(0))
    return taken


def _cells(row: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace("\\|", "|") for cell in CELL_END.split(row)[1:-1])


def write(blocks: Sequence[Block]) -> str:
    """Return a document whose pictures lie in `pictures/` beside it."""
    return "\n\n".join(map(_block, blocks)) + "\n"


def _block(block: Block) -> str:
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
            rule = ["---:" if block.is_numeric(column) else "---" for column in range(len(head))]
            cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
            return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *cells))
        case Figure(_, name, alt, caption):
            return f"![{alt}](pictures/{name}.jpg)" + (f"\n\n{caption}" if caption else "")
        case Blank(title, prompt):
            return f"### {title}\n\n*{prompt}*\n\n…"
