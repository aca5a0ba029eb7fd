"""LaTeX: for `pdflatex` in English, for `xelatex` or `tectonic` with ctex in Chinese."""

from collections.abc import Sequence

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

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "#": r"\#", "$": r"\$", "%": r"\%",
    "&": r"\&", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "`": r"\textasciigrave{}",
    # Of what is not ASCII, what the pages use: pdflatex knows none of it by itself.
    "–": "--", "…": r"\ldots{}", "°": r"\textdegree{}", "·": r"\textperiodcentered{}",
    "×": r"\ensuremath{\times}", "−": r"\ensuremath{-}", "≤": r"\ensuremath{\le}",
    "≥": r"\ensuremath{\ge}", "→": r"\ensuremath{\to}", "²": r"\textsuperscript{2}",
    "é": r"\'e", "ᵀ": r"\textsuperscript{T}", "±": r"\ensuremath{\pm}",
}  # fmt: skip
PREAMBLE = {
    "en": r"""% Compile with pdflatex, xelatex or tectonic, in this folder.
\documentclass[11pt,a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{textcomp}
""",
    "zh": r"""% Compile with xelatex or tectonic, in this folder.
\documentclass[11pt,a4paper,UTF8]{ctexart}
\usepackage{textcomp}
""",
}
PACKAGES = r"""\usepackage[margin=2.4cm]{geometry}
\usepackage{graphicx,booktabs,tabularx,array}
\usepackage[hidelinks]{hyperref}
\newcolumntype{L}{>{\raggedright\arraybackslash}X}
\setcounter{secnumdepth}{0}
\emergencystretch=3em
"""
LEVELS = {2: "section", 3: "subsection", 4: "subsubsection"}


def write(blocks: Sequence[Block], language: str) -> str:
    """Return a document whose pictures lie in `pictures/` beside it, and whose first block is its
    title."""
    title, *rest = blocks
    return "\n".join(
        [
            PREAMBLE[language] + PACKAGES + rf"\title{{{_text(title.text)}}}",
            r"\date{}",
            r"\begin{document}",
            r"\maketitle",
            r"\tableofcontents",
            "",
            *("\n" + _block(block) for block in rest),
            r"\end{document}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Return a text in which no character is a command."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _code(text: str) -> str:
    r"""Return typewriter text that may break at a slash; `--` stays two dashes."""
    broken = escape(text).replace("-", r"-{}").replace("/", r"/\allowbreak{}")
    return rf"\texttt{{{broken}}}"


def _link(words: str, to: str) -> str:
    address = to.replace("%", r"\%").replace("#", r"\#")
    return rf"\href{{{address}}}{{{words}}}" if to.startswith("http") else words


def _text(text: str) -> str:
    return in_spans(
        text,
        plain=escape,
        code=_code,
        strong=lambda words: rf"\textbf{{{words}}}",
        link=_link,
    )


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return rf"\{LEVELS[level]}{{{_text(text)}}}"
        case Paragraph(text):
            return _text(text)
        case Bullets(items):
            lines = [rf"  \item {_text(item)}" for item in items]
            return "\n".join([r"\begin{itemize}", *lines, r"\end{itemize}"])
        case Code(text):
            # Spaces at which lines may break, with what follows them further to the right.
            lines = [
                rf"\noindent\hangindent=2em\texttt{{{_spaced(line)}}}\par"
                for line in text.split("\n")
            ]
            return "\n".join([r"{\medskip\small\raggedright", *lines, r"\medskip}"])
        case Table(head, rows):
            columns = "".join("r" if block.is_numeric(k) else "L" for k in range(len(head)))
            lines = [" & ".join(map(_text, row)) + r" \\" for row in (head, *rows)]
            lines.insert(1, r"\midrule")
            whole = columns.strip("r")
            begin = rf"\begin{{tabularx}}{{\linewidth}}{{{columns}}}"
            end = r"\end{tabularx}"
            if not whole:
                begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
            inside = [r"\small", begin, r"\toprule", *lines, r"\bottomrule", end]
            return "\n".join([r"\begin{center}", *inside, r"\end{center}"])
        case Figure(_, name, _, caption):
            size = r"width=\linewidth,height=0.6\textheight,keepaspectratio"
            lines = [rf"\includegraphics[{size}]{{pictures/{name}.jpg}}"]
            if caption:
                lines += ["", rf"{{\small {_text(caption)}}}"]
            return "\n".join([r"\begin{center}", *lines, r"\end{center}"])
        case Blank(title, prompt):
            inside = rf"\begin{{minipage}}[t][4cm]{{0.97\linewidth}}\textit{{{_text(prompt)}}}"
            frame = rf"\noindent\fbox{{{inside}\end{{minipage}}}}"
            return "\n".join([rf"\subsection{{{_text(title)}}}", frame])


def _spaced(line: str) -> str:
    """Return a line of code whose spaces are as wide as they are, also at its beginning."""
    inner = line.lstrip(" ")
    indent = r"\ " * (len(line) - len(inner))
    written = escape(inner).replace("-", "-{}").replace("  ", r"\ \ ")
    return indent + written or r"\ "
