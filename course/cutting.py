"""From a solved file to the one handed out, and from a submission to files with one blank at stake.

A solved file has, for each blank, a line `# TODO 2.1`, hints, and the solution between nbgrader's
markers; what is handed out has `raise NotImplementedError("TODO 2.1")` and a line
`# END OF TODO 2.1` in its place, and of hints and docstrings the lines of one language.

    starter = cut(solved, "zh")
    whole = fill(numbered(starter), solutions(solved))
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


def stub(todo: str) -> str:
    return f'raise NotImplementedError("TODO {todo}")'


def indent_of(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def cut(solved: str, lang: str) -> str:
    """Return what is handed out of a solved file."""
    kept, todo, within = [], "", False
    for line in solved.splitlines():
        tagged, begins = TAGGED.match(line), TODO.match(line)
        todo = begins[1] if begins else todo
        if line.strip() in (BEGIN, END):
            within = line.strip() == BEGIN
            kept.append(indent_of(line) + (stub(todo) if within else f"# END OF TODO {todo}"))
        elif tagged:
            kept += [(tagged[1] + tagged[3]).rstrip()] if tagged[2] == lang else []
        elif not within:
            kept.append(line)
    return "\n".join(kept) + "\n"


def solutions(solved: str) -> dict[str, list[str]]:
    """Return the solution of each blank, by its number, without its indentation."""
    found = re.findall(rf"# TODO (\S+)\n(?:.*\n)*?\s*{BEGIN}\n((?:.*\n)*?)\s*{END}\n", solved)
    return {todo: textwrap.dedent(body).rstrip("\n").split("\n") for todo, body in found}


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
            begun[begins[1]] = index + 1
        elif ends and ends[1] in begun:
            found.setdefault(ends[1], (begun[ends[1]], index))
    return found


def take(lines: Text, todo: str) -> list[str]:
    """Return what a blank holds, without the indentation of its mark."""
    start, stop = blanks(lines)[todo]
    indent = indent_of(lines[start - 1].text)
    return [line.text.removeprefix(indent) for line in lines[start:stop]]


def body_of(lines: Text, todo: str) -> list[str] | None:
    """Return the code in a blank, without comments and empty lines; None where it has no marks."""
    if todo not in blanks(lines):
        return None
    code = [line.strip() for line in take(lines, todo)]
    return [line for line in code if line and not line.startswith("#")]


def fill(lines: Text, bodies: Mapping[str, list[str]]) -> Text:
    """Return a file with some of its blanks, by number, filled with other code.

    The code gets the indentation of the blank's mark, whatever that is made of. A blank that has
    lost its marks stays as it is.
    """
    for todo in bodies.keys() & blanks(lines).keys():
        start, stop = blanks(lines)[todo]
        indent = indent_of(lines[start - 1].text)
        body = [Line(indent + line if line else "", None) for line in bodies[todo]]
        lines = lines[:start] + body + lines[stop:]
    return lines


def functions(text: str) -> dict[str, tuple[int, int]]:
    """Return the lines [start, stop) of functions and methods, by qualified name."""
    found = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                if isinstance(child, ast.FunctionDef):
                    found[prefix + child.name] = child.lineno - 1, child.end_lineno
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(text), "")
    return found


def lend(lines: Text, solved: Text, todo: str) -> Text:
    """Return a submission that has lost marks with our functions in place of those that held them.

    The function of the blank `todo` stays the submission's.
    """
    try:
        theirs, ours = functions(as_text(lines)), functions(as_text(solved))
    except (SyntaxError, ValueError):
        return lines
    owners = {
        number: max((n for n, (a, b) in ours.items() if a <= place < b), key=lambda n: ours[n][0])
        for number, (place, _) in blanks(solved).items()
    }
    lent = {owners[number] for number in owners.keys() - blanks(lines).keys()} - {owners[todo]}
    for name in sorted(lent & theirs.keys(), key=lambda one: -theirs[one][0]):
        (start, stop), (first, last) = theirs[name], ours[name]
        lines = lines[:start] + [Line(one.text, None) for one in solved[first:last]] + lines[stop:]
    return lines


def decode(data: bytes) -> str:
    r"""Return a source file's text: UTF-8, with or without a mark, or GB18030; line ends as \n.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    try:
        text = data.decode(tokenize.detect_encoding(io.BytesIO(data).readline)[0])
    except (SyntaxError, UnicodeDecodeError):
        text = data.decode("gb18030")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
