"""One HTML file with its pictures inside: it asks for nothing, fits any width, and prints."""

import base64
import html
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
    in_spans,
)

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 56rem; color: #1b1f24;
  background: #fff; overflow-wrap: break-word; font: 1rem/1.6 "Helvetica Neue", Arial,
  "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "WenQuanYi Micro Hei", sans-serif; }
h1, h2, h3, h4 { line-height: 1.25; margin: 2em 0 .6em; break-after: avoid; }
h1 { font-size: 2rem; margin-top: .5em; }
h2 { font-size: 1.5rem; border-bottom: 2px solid #d0d7de; padding-bottom: .25em; }
h3 { font-size: 1.15rem; }
h4 { font-size: 1rem; }
a { color: #0b57a4; }
code, pre { font: .9em/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { background: #f0f2f5; padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
pre { background: #f0f2f5; padding: .75em 1em; border-radius: 4px; overflow-x: auto; }
pre code { padding: 0; background: none; overflow-wrap: normal; }
.wide { overflow-x: auto; }
.wide th { white-space: nowrap; }
.wide code { overflow-wrap: break-word; }
table { border-collapse: collapse; margin: 1em 0; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .35em .7em; }
th { border-bottom: 2px solid #57606a; }
td { border-bottom: 1px solid #d0d7de; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
figure { margin: 1.5em 0; break-inside: avoid; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: #424a53; font-size: .92rem; margin-top: .5em; }
nav ul { list-style: none; padding-left: 1em; margin: 0; }
nav > ul { padding-left: 0; }
.blank { border: 1px dashed #6e7781; border-radius: 4px; padding: .75em 1em; min-height: 9rem;
  margin: 1em 0; break-inside: avoid; }
.blank p { color: #424a53; font-style: italic; margin: 0; }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  .wide th { white-space: normal; }
  tr, pre { break-inside: avoid; }
  pre { white-space: pre-wrap; }
  img { max-height: 20cm; width: auto; }
  a { color: inherit; }
}
"""


def write(blocks: Sequence[Block], folder: Path, language: str) -> str:
    """Return a document.

    Args:
        folder: holds the copies of its pictures, by the names of its figures.
        language: a code, `en` or `zh`.
    """
    headings = [block for block in blocks if isinstance(block, Heading)]
    ids = {id(heading): f"s{number}" for number, heading in enumerate(headings)}
    title = headings[0].text
    body = []
    for block in blocks:
        body.append(_block(block, folder, ids))
        if isinstance(block, Heading) and block.level == 1:
            body.append(_contents(headings[1:], ids))
    code = {"en": "en", "zh": "zh-Hans"}[language]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="{code}">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title>",
            f"<style>{STYLE}</style></head>",
            "<body><main>",
            *body,
            "</main></body></html>\n",
        ]
    )


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


def _text(text: str) -> str:
    return in_spans(
        text,
        plain=html.escape,
        code=lambda code: f"<code>{html.escape(code)}</code>",
        strong=lambda words: f"<strong>{words}</strong>",
        link=lambda words, to: (
            f'<a href="{html.escape(to)}">{words}</a>' if to.startswith("http") else words
        ),
    )


def _block(block: Block, folder: Path, ids: dict[int, str]) -> str:
    match block:
        case Heading(text, level):
            return f'<h{level} id="{ids[id(block)]}">{_text(text)}</h{level}>'
        case Paragraph(text):
            return f"<p>{_text(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in items) + "</ul>"
        case Code(text):
            return f'<pre tabindex="0"><code>{html.escape(text)}</code></pre>'
        case Table(head, rows):
            kinds = [' class="number"' * block.is_numeric(column) for column in range(len(head))]
            lines = ["".join(
                f'<th scope="col"{kind}>{_text(cell)}</th>'
                for kind, cell in zip(kinds, head, strict=True)
            )]  # fmt: skip
            lines += [
                "".join(
                    f"<td{kind}>{_text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)
                )
                for row in rows
            ]
            table = "\n".join(f"<tr>{line}</tr>" for line in lines)
            return f'<div class="wide" tabindex="0"><table>\n{table}\n</table></div>'
        case Figure(_, name, alt, caption):
            data = base64.b64encode((folder / f"{name}.jpg").read_bytes()).decode()
            below = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
            image = f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(alt)}">'
            return f"<figure>{image}{below}</figure>"
        case Blank(title, prompt):
            return f'<h3>{_text(title)}</h3>\n<div class="blank"><p>{_text(prompt)}</p></div>'
