"""A grade as a student reads it (Markdown, HTML) and as Gradescope does (JSON)."""

import html
import json
import re

from course.grading import Grade, Mark

TEXTS = {
    "en": {"of": "of", "points": "points", "blank": "blank", "right": "right",
           "refused": "Could not be graded", "remark": "remark"},
    "zh": {"of": "/", "points": "得分", "blank": "空白", "right": "正确",
           "refused": "无法评分", "remark": "说明"},
}  # fmt: skip


def said_of(mark: Mark, lang: str) -> str:
    return mark.line.get(lang) or TEXTS[lang]["right"]


def heading(grade: Grade, lang: str) -> str:
    return f"{grade.assignment.title[lang]}: {grade.points:g} {TEXTS[lang]['of']} {grade.of:g}"


def markdown_page(grade: Grade, lang: str) -> str:
    text = TEXTS[lang]
    lines = [f"# {heading(grade, lang)}", "", f"`{grade.name}`", ""]
    if grade.refused:
        return "\n".join([*lines, f"{text['refused']}: {grade.refused[lang]}", ""])
    lines += [f"| {text['blank']} | {text['points']} | {text['remark']} |", "|---|---|---|"]
    for mark in grade.marks:
        said = said_of(mark, lang).replace("|", "\\|")
        lines.append(f"| TODO {mark.todo} | {mark.points:g} / {mark.of:g} | {said} |")
    return "\n".join([*lines, ""])


def html_page(grade: Grade, lang: str) -> str:
    text = TEXTS[lang]
    if grade.refused:
        body = f"<p>{text['refused']}: {html.escape(grade.refused[lang])}</p>"
    else:
        rows = "".join(
            f'<tr class="{"right" if mark.points else "wrong"}"><td>TODO {mark.todo}</td>'
            f"<td>{mark.points:g} / {mark.of:g}</td><td>{as_html(said_of(mark, lang))}</td></tr>\n"
            for mark in grade.marks
        )
        heads = "".join(f"<th>{text[key]}</th>" for key in ("blank", "points", "remark"))
        body = f"<table>\n<tr>{heads}</tr>\n{rows}</table>"
    style = (
        "body{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
        "td,th{text-align:left;vertical-align:top;padding:.3em .8em;border-top:1px solid #ddd}"
        "td:nth-child(-n+2){white-space:nowrap}.wrong td:first-child{border-left:4px solid #c33}"
        ".right td:first-child{border-left:4px solid #393}code{background:#f3f3f3}"
    )
    title = html.escape(heading(grade, lang))
    return (
        f'<!DOCTYPE html>\n<html lang="{lang}"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{style}</style></head>\n<body><h1>{title}</h1>"
        f"<p>{html.escape(grade.name)}</p>\n{body}\n</body></html>\n"
    )


def as_html(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def results_json(grade: Grade, lang: str) -> str:
    """Return what Gradescope's autograder reads from /autograder/results/results.json."""
    tests = [
        {"name": f"TODO {mark.todo}", "score": mark.points, "max_score": mark.of,
         "status": "passed" if mark.points == mark.of else "failed",
         "output": grade.refused.get(lang) or said_of(mark, lang)}
        for mark in grade.marks
    ]  # fmt: skip
    said = grade.refused.get(lang) or heading(grade, lang)
    results = {"score": grade.points, "output": said, "output_format": "text", "tests": tests}
    return json.dumps(results, ensure_ascii=False, indent=1) + "\n"
