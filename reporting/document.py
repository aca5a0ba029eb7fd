"""The report as a whole: its chapters, the student's own words, and the three files it becomes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

from lab.console import LabError, say
from lab.files import attempt, read_text
from lab.folders import PROJECT
from reporting import EPOCHS, QUICK, ReportFlags, markdown, other_tasks, signs, work
from reporting.blocks import (
    Blank,
    Block,
    Bullets,
    Figure,
    Heading,
    Page,
    Paragraph,
    Words,
    every,
)
from reporting.html import to_html
from reporting.latex import to_latex, unknown_letters

# Titles of blanks that some reports have not: without words under them they say nothing.
ELSEWHERE = [title for blank in (signs.CURVES, signs.PICTURES) for title, _ in blank]
WIDEST = 1600  # pixels of a picture in the report


def make(flags: ReportFlags) -> None:
    """Run what is missing, and write what there is.

    Raises:
        LabError: a file cannot be written, or a command that was run has failed.
    """
    failed = []
    if "signs" in flags.only:
        epochs = flags.epoch or (QUICK if flags.quick else EPOCHS)
        failed = work.run_steps(signs.steps(flags.ckpt_path, epochs, flags.seeds, flags.data_root))
    publish(chapters(flags), flags.save_dir, flags.lang)
    if failed:
        commands = f"{len(failed)} commands should have made: {failed[0]}"
        raise LabError(f"the report lacks what {commands}")


def chapters(flags: ReportFlags) -> list[Block]:
    """Return the report's blocks; pictures that are drawn for it are saved beside it."""
    page, pictures = Page(flags.lang), flags.save_dir / "pictures"
    page.heading(1, "Lab report", "实验报告")
    page.blank(("Name", "Name, course, date"), ("姓名", "姓名、课程、日期"))
    for name in flags.only:
        if name == "signs":
            signs.add_chapter(page, flags.ckpt_path, flags.seeds, pictures)
        elif name == "answers":
            file = PROJECT / "docs" / page.words("answers.md", "answers.zh.md")
            page.blocks += markdown.read(read_text(file), file.parent, deeper=1)
        else:
            other_tasks.add_chapter(page, name, flags.ckpt_path.parent, pictures)
    page.heading(2, "In your own words", "个人总结")
    en = ("Problems met", "What went wrong, how was it found, and what helped?")
    page.blank(en, ("遇到的问题", "哪里出了问题？如何发现？怎样解决？"))
    en = ("What I would try next", "And by which figure to judge it.")
    page.blank(en, ("进一步的尝试", "以及用哪个指标来判断。"))
    en = ("Comments on the assignment", "What was unclear, too long or too short?")
    page.blank(en, ("对作业的意见与建议", "哪里不清楚？哪里太多或太少？"))
    en = ("Use of language models", "For what were they asked, and what did they get wrong?")
    page.blank(en, ("使用大模型的说明", "用它做了什么？它错在哪里？"))
    return page.blocks


def with_notes(blocks: Sequence[Block], path: Path) -> list[Block]:
    """Return the blocks with a student's words in the blanks that they fill.

    The words stand in a file of their own, so that a report made anew keeps them: under a heading a
    blank, and below that as many headings more as there may be. Headings that are not there are
    added to the file, which is left as it is otherwise. Words under other headings, and those
    before any, end the report, which is said.

    Raises:
        LabError: the file is no text.
    """
    text = read_text(path, utf16=False) if path.is_file() else ""
    titles = [block.title for block in blocks if isinstance(block, Blank)]
    notes: dict[str, str] = {}
    for title, words in markdown.sections(text, titles):
        notes[title] = "\n\n".join(filter(None, (notes.get(title), words.strip("\n").rstrip())))
    if added := "".join(f"## {title}\n\n" for title in titles if title not in notes):
        gap = "\n" * max(0, 2 - len(text) + len(text.rstrip("\n"))) if text else ""
        with path.open("a", encoding="utf-8") as file:
            file.write(gap + added)
    numbers = count(1)
    filled: list[Block] = []
    for block in blocks:
        words = notes.pop(block.title, "") if isinstance(block, Blank) else ""
        if words:
            filled += [Heading(block.title, 3), own_words(words, path, numbers)]
        else:
            filled.append(block)
    for title, words in notes.items():
        if words or title not in ("", *ELSEWHERE):
            under = (
                f'under "{title}", no heading of this report,' if title else "before any heading"
            )
            say(f"{path}: what stands {under} comes last in it")
            filled += [Heading(title, 3)] * bool(title) + [own_words(words, path, numbers)]
    return filled


def own_words(text: str, path: Path, numbers: Iterator[int]) -> Words:
    """Return what a student has written in a file; its pictures get numbers, of names of their own.

    A picture that cannot be read stays the words that name it, which is said.
    """

    def own(block: Block) -> Block:
        match block:
            case Bullets(items):
                return replace(block, items=tuple(tuple(map(own, item)) for item in items))
            case Heading(title, level):
                return Heading(title, max(4, level))
            case Figure(source, name, alt):
                for picture in (source, Path(unquote(str(source)))):
                    if is_picture(picture):
                        return Figure(picture, f"notes_{next(numbers)}_{name}", alt, alt)
                say(f"{path}: {source} is no picture that can be read")
                return Paragraph(f"![{alt}]({source})")
        return block

    return Words(text, tuple(map(own, markdown.read(text, path.parent, deeper=1))))


def is_picture(path: Path) -> bool:
    """Return whether a file is a picture, whole."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True


def publish(blocks: Sequence[Block], folder: Path, language: str) -> None:
    """Write report.html, report.md and report.tex, with copies of the pictures.

    Raises:
        LabError: a file cannot be written.
    """
    pictures = folder / "pictures"
    notes, others = folder / "notes.md", folder / "notes.zh.md"
    if language == "zh":
        notes, others = others, notes
    if others.is_file() and not notes.exists():
        say(f"{others} is of the report in another language; of this one it is {notes}")
    with attempt(f"write the report to {folder}"):
        pictures.mkdir(parents=True, exist_ok=True)
        blocks = with_notes(blocks, notes)
        for block in every(blocks):
            if isinstance(block, Figure):
                copy(block.source, pictures / f"{block.name}.jpg")
        texts = {
            "report.html": to_html(blocks, pictures, language),
            "report.md": markdown.to_markdown(blocks),
            "report.tex": to_latex(blocks, language),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
            say(f"Saved {folder / name}")
        if letters := unknown_letters(texts["report.tex"]):
            say(f"{folder / 'report.tex'}: the fonts of LaTeX may lack {letters[:40]}")


def copy(picture: Path, target: Path) -> None:
    """Copy a picture, no larger than a page can show."""
    with Image.open(picture) as image:
        image.thumbnail((WIDEST, 2 * WIDEST))
        image.convert("RGB").save(target, quality=88)
