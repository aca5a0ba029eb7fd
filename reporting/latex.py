"""LaTeX: for `pdflatex` in English, for `xelatex` or `tectonic` with ctex in Chinese."""

import re
from collections.abc import Sequence
from functools import partial
from urllib.parse import quote

from lab.pictures import longest_line
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
)

GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi",
    "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi",
    "ψ": "psi", "ω": "omega",
}  # fmt: skip
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "#": r"\#", "$": r"\$", "%": r"\%",
    "&": r"\&", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "[": "{[}",  # after \\ and \item, an option
    # Of what is not ASCII, what the pages use: pdflatex knows none of it by itself.
    "–": "--", "…": r"\ldots{}", "°": r"\textdegree{}", "·": r"\textperiodcentered{}",
    "×": r"\ensuremath{\times}", "−": r"\ensuremath{-}", "≤": r"\ensuremath{\le}",
    "≥": r"\ensuremath{\ge}", "→": r"\ensuremath{\to}", "²": r"\textsuperscript{2}",
    "é": r"\'e", "ᵀ": r"\textsuperscript{T}", "±": r"\ensuremath{\pm}",
    "≈": r"\ensuremath{\approx}", "≠": r"\ensuremath{\ne}", "∞": r"\ensuremath{\infty}",
    "√": r"\ensuremath{\surd}", "∈": r"\ensuremath{\in}", "∑": r"\ensuremath{\sum}",
    "∂": r"\ensuremath{\partial}", "∇": r"\ensuremath{\nabla}", "←": r"\ensuremath{\gets}",
    "⇒": r"\ensuremath{\Rightarrow}", "•": r"\textbullet{}", "€": r"\texteuro{}",
    **{letter: rf"\ensuremath{{\{name}}}" for letter, name in GREEK.items()},
    **{chr(code): "" for code in (*range(9), *range(11, 32), 127)},  # of no use in a text
    **{circled: rf"\textcircled{{{number}}}" for number, circled in enumerate("①②③④⑤⑥⑦⑧⑨", 1)},
}  # fmt: skip
# What pdflatex knows of letters by itself, and what ctex's fonts have.
LATIN = re.compile(r"[\x00-\x7f\u00a0-\u017f“”‘’—]*")
CHINESE = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]+")
PREAMBLE = {
    "en": r"""% Compile with pdflatex, xelatex or tectonic, in this folder.
\documentclass[11pt,a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{textcomp}
""",
    # Of an English report with Chinese words in it.
    "both": r"""% Compile with xelatex or tectonic, in this folder.
\documentclass[11pt,a4paper,UTF8]{article}
\usepackage[scheme=plain]{ctex}
\usepackage{textcomp}
""",
    "zh": r"""% Compile with xelatex or tectonic, in this folder.
\documentclass[11pt,a4paper,UTF8]{ctexart}
\usepackage{textcomp}
""",
}
PACKAGES = r"""\usepackage[margin=2.4cm]{geometry}
\usepackage{graphicx,booktabs,tabularx,longtable,array}
\usepackage[hidelinks]{hyperref}
\newcolumntype{L}{>{\raggedright\arraybackslash}X}
\setcounter{secnumdepth}{0}
\emergencystretch=3em
"""
LEVELS = {2: "section", 3: "subsection", 4: "subsubsection"}
DEEPEST = 4  # lists in one another
UNBROKEN = 48  # letters of a row that may all lie in columns whose cells are never broken
LONG_TABLE = 20  # rows; one of more goes over several pages


def to_latex(blocks: Sequence[Block], language: str) -> str:
    """Return a document whose pictures lie in `pictures/` beside it; the first block heads it."""
    title, *rest = blocks
    body = "\n".join("\n" + _block(block) for block in rest)
    if language == "en" and not LATIN.fullmatch(body):
        language = "both"
    return rf"""{PREAMBLE[language]}{PACKAGES}\title{{{_text(title.text)}}}
\date{{}}
\begin{{document}}
\maketitle
\tableofcontents

{body}
\end{{document}}
"""


def unknown_letters(text: str) -> str:
    """Return the letters of a document, each once, that its fonts may lack."""
    rest = CHINESE.sub("", text)
    return "".join(dict.fromkeys(letter for letter in rest if not LATIN.fullmatch(letter)))


def escape(text: str) -> str:
    """Return a text in which no character is a command."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _typed(text: str) -> str:
    """Return a text whose dashes and quotes stay as they were typed."""
    return escape(text).replace("-", "-{}").replace("'", r"\textquotesingle{}")


def _code(text: str) -> str:
    """Return typewriter text that may break after / : ( and _."""
    broken = re.sub(r"([/:(]|\\_)", r"\1\\allowbreak{}", _typed(text))
    return rf"\texttt{{{broken}}}"


def _spaced(line: str) -> str:
    """Return a line of code in which every space is as wide as a letter and may be broken at."""
    return _typed(line).replace(" ", r"\ ") or r"\ "


def _link(words: str, to: str) -> str:
    """Return a link; what no address may hold is written as addresses write it."""
    address = re.sub(r"([%#&])", r"\\\1", quote(to, safe="%#&/:=?+~!$,;'@()*"))
    return rf"\href{{{address}}}{{{words}}}"


_text = partial(
    by_span, plain=escape, code=_code, strong=lambda words: rf"\textbf{{{words}}}", link=_link
)


def _inside(environment: str, *lines: str, options: str = "") -> str:
    return "\n".join([rf"\begin{{{environment}}}{options}", *lines, rf"\end{{{environment}}}"])


def _kinds(table: Table) -> str:
    """Return each column's kind: r, l where no cell is long, or L, which shares what is left."""
    longest = UNBROKEN // len(table.head)
    columns = zip(table.head, *table.rows, strict=True)
    is_short = [longest_line(cells) <= longest for cells in columns]
    kinds = zip(table.numeric(), is_short, strict=True)
    return "".join("r" if numeric else "l" if short else "L" for numeric, short in kinds)


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_text, cells)) + r" \\"


def _head(cells: Sequence[str], *below: str) -> tuple[str, ...]:
    """Return a table's first row and what is below it; nothing where it is empty."""
    return (_row(cells), *below) if any(cells) else ()


def _long_table(table: Table) -> str:
    """Return a table that may end on another page; its columns are as wide as their cells ask."""
    columns = zip(*table.rows, strict=True)
    lengths = [max(8, sum(map(len, cells)) / len(cells)) ** 0.5 for cells in columns]
    shares = (0.98 * length / sum(lengths) for length in lengths)
    widths = (rf"p{{\dimexpr {share:.2f}\linewidth-2\tabcolsep\relax}}" for share in shares)
    kinds = "".join(rf">{{\raggedright\arraybackslash}}{width}" for width in widths)
    head = _head(table.head, r"\midrule", r"\endhead")
    lines = (r"\toprule", *head, *map(_row, table.rows), r"\bottomrule")
    return "\n".join([r"{\small", _inside("longtable", *lines, options=f"{{{kinds}}}"), "}"])


def _block(block: Block, depth: int = 0) -> str:
    match block:
        case Heading(text, level):
            return rf"\{LEVELS.get(level, 'paragraph')}{{{_text(text)}}}"
        case Paragraph(text):
            return _text(text)
        case Bullets(items, start):
            marks = ["" if start is None else f"[{start + k}.]" for k in range(len(items))]
            texts = ("\n\n".join(_block(inner, depth + 1) for inner in item) for item in items)
            lines = (rf"  \item{mark} {text}" for mark, text in zip(marks, texts, strict=True))
            return _inside("itemize" if depth < DEEPEST else "quote", *lines)
        case Words(_, blocks):
            return "\n\n".join(map(_block, blocks))
        case Code(text):
            # Spaces at which lines may break, with what follows them further to the right.
            lines = (_spaced(line) for line in text.split("\n"))
            lines = (rf"\noindent\hangindent=2em\texttt{{{line}}}\par" for line in lines)
            return "\n".join([r"{\medskip\small\raggedright", *lines, r"\medskip}"])
        case Table(_, rows) if len(rows) > LONG_TABLE:
            return _long_table(block)
        case Table(head, rows):
            columns = _kinds(block)
            kind, width = ("tabularx", r"{\linewidth}") if "L" in columns else ("tabular", "")
            lines = (r"\toprule", *_head(head, r"\midrule"), *map(_row, rows), r"\bottomrule")
            table = _inside(kind, *lines, options=f"{width}{{{columns}}}")
            return _inside("center", r"\small", table)
        case Figure(_, name, _, caption):
            size = r"width=\linewidth,height=0.6\textheight,keepaspectratio"
            lines = [rf"\includegraphics[{size}]{{pictures/{name}.jpg}}"]
            if caption:
                lines += ["", rf"{{\small {_text(caption)}}}"]
            return _inside("center", *lines)
        case Blank(title, prompt):
            inside = rf"\begin{{minipage}}[t][4cm]{{0.97\linewidth}}\textit{{{_text(prompt)}}}"
            frame = rf"\noindent\fbox{{{inside}\end{{minipage}}}}"
            return "\n".join([rf"\subsection{{{_text(title)}}}", frame])
