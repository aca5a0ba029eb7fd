"""One HTML file with its pictures inside: it asks for nothing, fits any width, and prints."""

import base64
import html
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lab.files import read_text
from reporting.blocks import (
    Blank,
    Block,
    Bullets,
    Code,
    Figure,
    Heading,
    Paragraph,
    Table,
    Words,
    by_span,
    every,
)

STYLE = "\n" + read_text(Path(__file__).parent / "report.css")


def to_html(blocks: Sequence[Block], folder: Path, language: str) -> str:
    """Return a document; the folder holds the copies of its pictures."""
    headings = [block for block in every(blocks) if isinstance(block, Heading)]
    ids = {id(heading): f"s{number}" for number, heading in enumerate(headings)}
    body = []
    for block in blocks:
        body.append(_block(block, folder, ids))
        if isinstance(block, Heading) and block.level == 1:
            body.append(_contents(headings[1:], ids))
    code, content = {"en": "en", "zh": "zh-Hans"}[language], "\n".join(body)
    return f"""<!DOCTYPE html>
<html lang="{code}">
<head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(headings[0].text)}</title>
<style>{STYLE}</style></head>
<body><main>
{content}
</main></body></html>
"""


def _contents(headings: Sequence[Heading], ids: dict[int, str]) -> str:
    """Return links to the headings of the second and third level."""
    lines, level = [], 1
    for heading in headings:
        if heading.level > 3:
            continue
        lines.append("<ul><li>" * (heading.level - level))
        if heading.level <= level:
            lines.append("</li></ul>" * (level - heading.level) + "</li><li>")
        lines.append(f'<a href="#{ids[id(heading)]}">{_text(heading.text)}</a>')
        level = heading.level
    return "<nav>" + "".join(lines) + "</li></ul>" * (level - 1) + "</nav>"


_text = partial(
    by_span,
    plain=html.escape,
    code=lambda code: f"<code>{html.escape(code)}</code>",
    strong=lambda words: f"<strong>{words}</strong>",
    link=lambda words, to: f'<a href="{html.escape(to)}">{words}</a>',
)


def _block(block: Block, folder: Path, ids: dict[int, str]) -> str:
    match block:
        case Heading(text, level):
            level = min(level, 6)
            return f'<h{level} id="{ids[id(block)]}">{_text(text)}</h{level}>'
        case Paragraph(text):
            return f"<p>{_text(text)}</p>"
        case Bullets(items, start):
            first, last = ("<ul>", "</ul>") if start is None else (f'<ol start="{start}">', "</ol>")
            return first + "".join(f"<li>{_item(item, folder, ids)}</li>" for item in items) + last
        case Words(_, blocks):
            return "\n".join(_block(inner, folder, ids) for inner in blocks)
        case Code(text):
            return f'<pre tabindex="0"><code>{html.escape(text)}</code></pre>'
        case Table(head, rows):
            kinds = [' class="number"' * is_numeric for is_numeric in block.numeric()]
            heads = [_row("th", [f' scope="col"{kind}' for kind in kinds], head)] * any(head)
            table = "\n".join([*heads, *(_row("td", kinds, row) for row in rows)])
            return f'<div class="wide" tabindex="0"><table>\n{table}\n</table></div>'
        case Figure(_, name, alt, caption):
            data = base64.b64encode((folder / f"{name}.jpg").read_bytes()).decode()
            below = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
            image = f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(alt)}">'
            return f"<figure>{image}{below}</figure>"
        case Blank(title, prompt):
            return f'<h3>{_text(title)}</h3>\n<div class="blank"><p>{_text(prompt)}</p></div>'


def _item(item: Sequence[Block], folder: Path, ids: dict[int, str]) -> str:
    """Return what is in an item of a list: a first paragraph, and below it what else there is."""
    match item:
        case Paragraph(text), *rest:
            return "\n".join([_text(text), *(_block(block, folder, ids) for block in rest)])
    return "\n".join(_block(block, folder, ids) for block in item)


def _row(tag: str, attributes: Sequence[str], cells: Sequence[str]) -> str:
    pairs = zip(attributes, cells, strict=True)
    return "<tr>" + "".join(f"<{tag}{own}>{_text(cell)}</{tag}>" for own, cell in pairs) + "</tr>"
