"""From a solved file to the one handed out, and from a submission to files with one blank at stake.

A solved file has, for each blank, a line `# TODO 2.1`, hints, and the solution between nbgrader's
markers; what is handed out has `raise NotImplementedError("TODO 2.1")` and a line
`# END OF TODO 2.1` in its place, and of hints and docstrings the lines of one language.

    starter = cut(solved, "zh")
    whole = fill(starter, solutions(solved))
"""

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Mapping
from typing import NamedTuple

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
TODO = re.compile(r"^\s*#\s*TODO (\d+\.\d+)\b")
END_OF = re.compile(r"^\s*#\s*END OF TODO (\d+\.\d+)\b")
TAGGED = re.compile(r"^(\s*(?:# )?)(en|zh): ?(.*)$")


class Line(NamedTuple):
    """A line of a file that was put together; `number` as in the submission, None of ours."""

    text: str
    number: int | None


Text = list[Line]


def cut(solved: str, lang: str) -> str:
    """Return what is handed out of a solved file."""
    kept, todo, within = [], "", False
    for line in solved.splitlines():
        tagged, begins = TAGGED.match(line), TODO.match(line)
        todo = begins[1] if begins else todo
        if line.strip() in (BEGIN, END):
            within = line.strip() == BEGIN
            indent = line[: len(line) - len(line.lstrip())]
            kept.append(
                f'{indent}raise NotImplementedError("TODO {todo}")'
                if within
                else f"{indent}# END OF TODO {todo}"
            )
        elif tagged:
            kept += [(tagged[1] + tagged[3]).rstrip()] if tagged[2] == lang else []
        elif not within:
            kept.append(line)
    return "\n".join(kept) + "\n"


def solutions(solved: str) -> dict[str, list[str]]:
    """Return the solution of each blank, by its number, without its indentation."""
    found, todo, body = {}, "", None
    for line in solved.splitlines():
        begins = TODO.match(line)
        todo = begins[1] if begins else todo
        if line.strip() == END:
            found[todo], body = textwrap.dedent("\n".join(body)).split("\n"), None
        elif line.strip() == BEGIN:
            body = []
        elif body is not None:
            body.append(line)
    return found


def numbered(text: str) -> Text:
    return [Line(line, number) for number, line in enumerate(text.split("\n"), 1)]


def as_text(lines: Text) -> str:
    return "\n".join(line.text for line in lines)


def blanks(lines: Text) -> dict[str, tuple[int, int]]:
    """Return where each blank that is still marked is: the lines between its marks."""
    found, begun = {}, {}
    for index, line in enumerate(lines):
        begins, ends = TODO.match(line.text), END_OF.match(line.text)
        if begins:
            begun[begins[1]] = index
        elif ends and ends[1] in begun and ends[1] not in found:
            found[ends[1]] = begun[ends[1]] + 1, index
    return found


def body_of(lines: Text, todo: str) -> list[str] | None:
    """Return the code in a blank, without comments and empty lines; None where it has no marks."""
    if todo not in (places := blanks(lines)):
        return None
    start, stop = places[todo]
    code = [line.text.strip() for line in lines[start:stop]]
    return [line for line in code if line and not line.startswith("#")]


def fill(lines: Text, bodies: Mapping[str, list[str]], numbers: bool = False) -> Text:
    """Return a file with some of its blanks, by number, filled with other code.

    The code gets the indentation of the blank's mark, whatever that is made of. A blank that has
    lost its marks stays as it is.
    """
    for todo in bodies.keys() & blanks(lines).keys():
        start, stop = blanks(lines)[todo]
        mark = lines[start - 1].text
        indent = mark[: len(mark) - len(mark.lstrip())]
        body = [Line(indent + line if line else "", None) for line in bodies[todo]]
        lines = lines[:start] + body + lines[stop:]
    return lines


def take(lines: Text, todo: str) -> list[str]:
    """Return what a blank holds, without the indentation of its mark."""
    start, stop = blanks(lines)[todo]
    mark = lines[start - 1].text
    indent = mark[: len(mark) - len(mark.lstrip())]
    return [line.text.removeprefix(indent) for line in lines[start:stop]]


def functions(text: str) -> dict[str, tuple[int, int]]:
    """Return the lines [start, stop) of functions and methods, by qualified name.

    Raises:
        SyntaxError, ValueError: the text is no Python.
    """
    found = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if isinstance(child, ast.FunctionDef):
                    first = min([child, *child.decorator_list], key=lambda one: one.lineno)
                    found[name] = first.lineno - 1, child.end_lineno
                visit(child, f"{name}.")

    visit(ast.parse(text), "")
    return found


def lend(lines: Text, solved: Text, todo: str) -> Text:
    """Return a submission that has lost marks with our function in place of those that hold them.

    The function of the blank `todo` stays the submission's.
    """
    missing = blanks(solved).keys() - blanks(lines).keys()
    try:
        theirs, ours = functions(as_text(lines)), functions(as_text(solved))
    except (SyntaxError, ValueError):
        return lines

    def owner(number: str) -> str:
        place = blanks(solved)[number][0]
        return max((n for n, (a, b) in ours.items() if a <= place < b), key=lambda n: ours[n][0])

    kept = owner(todo)
    lent = {owner(number) for number in missing} - {kept}
    for name in sorted(lent & theirs.keys(), key=lambda one: -theirs[one][0]):
        (start, stop), (first, last) = theirs[name], ours[name]
        body = [Line(line.text, None) for line in solved[first:last]]
        lines = lines[:start] + body + lines[stop:]
    return lines


def decode(data: bytes) -> str:
    """Return a source file's text: UTF-8, with or without a mark, or GB18030; line ends as `\\n`.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError):
        text = data.decode("gb18030")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
