"""Markdown: of pages and of a student's notes the blocks are read, and a report is written.

Headings, paragraphs, lists, code (indented, or between fences), tables, and pictures on a line of
their own: whatever else there is stays a paragraph, with its marks.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from reporting.blocks import Blank, Block, Bullets, Code, Figure, Heading, Paragraph, Table, Words

# Lines that make a block; what is named last in it tells its kind. Blank lines belong to a list if
# what follows is an item more, or is indented; but not as far as code is.
MARK = r"(?:[-*+]|\d{1,9}[.)])"
LAZY = r"(?![\#|]|[ ]*(?:MARK[ ]|```|~~~)).*\S.*\n".replace("MARK", MARK)  # of the line above
BLOCK = re.compile(
    r"""^(?:
    (?P<marks>\#{1,6})[ ](?P<heading>.*)\n
    | (?P<margin>[ ]{0,3})(?P<fence>`{3,}|~{3,})[^`\n]*\n
      (?P<fenced>(?:(?![ ]{0,3}(?P=fence)).*\n)*)[ ]{0,3}(?P=fence)[`~]*[ ]*\n
    | !\[(?P<alt>[^\]\n]*)\]\(<?(?P<picture>[^)<>\n]+?)>?(?:[ ]"[^"\n]*")?\)[ ]*\n
    | (?P<code>[ ]{4}.*\S.*\n(?:[ ]{4}.*\n|[ ]*\n)*)
    | (?P<table>\|.*\n\|[ :|-]*-[ :|-]*\n(?:\|.*\n)*)
    | (?P<items>(?P<pad>[ ]{0,3})[-*+][ ].*\n(?:
        (?P=pad)(?:[-*+][ ]|[ ]{2}|\t).*\n | LAZY
        | (?:[ ]*\n)+(?=(?P=pad)(?:[-*+][ ]|\t|[ ]{2,3}(?![ ])|[ ]+(?:```|~~~|MARK[ ]))))*)
    | (?P<numbered>(?P<edge>[ ]{0,3})\d{1,9}[.)][ ].*\n(?:
        (?P=edge)(?:\d{1,9}[.)][ ]|[ ]{2}|\t).*\n | LAZY
        | (?:[ ]*\n)+(?=(?P=edge)(?:\d{1,9}[.)][ ]|\t|[ ]{3})))*)
    | (?P<words>.*\S.*\n(?:(?![\#|]|[ ]{0,3}(?:[-*+][ ]|1[.)][ ]|```|~~~)).*\S.*\n)*)
    )""".replace("MARK", MARK).replace("LAZY", LAZY),
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
            return Heading(_title(text), len(match["marks"]) + deeper)
        case "picture":
            return Figure(folder / text, Path(text).stem, match["alt"])
        case "code":
            return Code("\n".join(line[4:] for line in text.split("\n")).rstrip())
        case "fenced":
            margin = re.compile(f"^ {{,{len(match['margin'])}}}", re.MULTILINE)
            return Code(margin.sub("", text).rstrip())
        case "table":
            head, _, *rows = map(_cells, text.splitlines())
            width = max(map(len, (head, *rows)))
            head, *rows = ((*row, *[""] * (width - len(row))) for row in (head, *rows))
            return Table(head, tuple(rows))
        case "items" | "numbered":
            items = tuple(tuple(read(item, folder, deeper)) for item in _items(text))
            start = re.match(r" *(\d+)", text)
            return Bullets(items, start and int(start[1]))
    return Paragraph(" ".join(line.strip() for line in text.splitlines()))


def _title(heading: str) -> str:
    """Return what a heading says, without the marks that may close it."""
    return re.sub(r"\s+#+\s*$", "", heading).strip()


def _items(text: str) -> list[str]:
    """Return the texts of a list's items, each as if it stood by itself."""
    text = re.sub(r"^[ ]*\t", "    ", text, flags=re.MULTILINE)
    edge = len(text) - len(text.lstrip(" "))
    starts = list(re.finditer(rf"^ {{{edge}}}{MARK} +", text, re.MULTILINE))
    items = []
    for start, end in zip(starts, [*(own.start() for own in starts[1:]), len(text)], strict=True):
        indent = re.compile(f"^ {{,{len(start[0])}}}", re.MULTILINE)
        items.append(indent.sub("", text[start.end() : end]))
    return items


def sections(text: str, titles: Sequence[str]) -> list[tuple[str, str]]:
    """Return a text as its headings part it: each heading, "" for what is before any, and the rest.

    A heading that is none of the titles, and is below one that is, belongs to that one's text.
    Titles are known by their letters, large or small, with or without a colon.
    """
    known = {own.casefold(): own for own in titles}
    parts, title, level, begin = [], "", 7, 0
    for match in BLOCK.finditer(text + "\n"):
        if match.lastgroup != "heading":
            continue
        name, marks = _title(match["heading"]), len(match["marks"])
        name = known.get(name.casefold().rstrip(" :："), name)
        if name in titles or marks <= level:
            parts.append((title, text[begin : match.start()]))
            title, level, begin = name, marks, match.end()
    return [*parts, (title, text[begin:])]


def _cells(row: str) -> tuple[str, ...]:
    inner = re.sub(r"(?<!\\)\|\s*$", "", row).removeprefix("|")
    return tuple(cell.strip().replace("\\|", "|") for cell in CELL_END.split(inner))


def to_markdown(blocks: Sequence[Block]) -> str:
    """Return a document whose pictures lie in `pictures/` beside it."""
    return "\n\n".join(map(_write, blocks)) + "\n"


def _write(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Bullets(items, start):
            return "\n".join(
                _item("- " if start is None else f"{start + index}. ", item)
                for index, item in enumerate(items)
            )
        case Words(text):
            return text
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


def _item(mark: str, item: Sequence[Block]) -> str:
    tight = all(isinstance(block, Bullets) for block in item[1:])
    text = ("\n" if tight else "\n\n").join(map(_write, item))
    return mark + text.replace("\n", "\n" + " " * len(mark))
