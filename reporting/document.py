"""The report as a whole: its chapters, the student's own words, and the three files it becomes."""

from collections.abc import Sequence
from pathlib import Path

from lab.console import LabError, say
from lab.folders import PROJECT
from reporting import fields, html, latex, markdown, signs
from reporting.blocks import Blank, Block, Figure, Heading, Page

WIDEST = 1600  # pixels of a picture in the report


def chapters(
    names: Sequence[str], root: Path, seeds: int, pictures: Path, language: str
) -> list[Block]:
    """Return the report's blocks.

    Args:
        names: of chapters: `signs`, `answers`, and tasks.
        root: folder of the signs' runs; the other fields' are beside it.
        pictures: folder for what is drawn.
    """
    page = Page(language)
    page.heading(1, "Lab report", "实验报告")
    page.blank(("Name", "姓名"), ("Name, course, date", "姓名、课程、日期"))
    for name in names:
        if name == "signs":
            signs.add_chapter(page, root, seeds, pictures)
        elif name == "answers":
            file = PROJECT / "docs" / page.words("answers.md", "answers.zh.md")
            page.blocks += markdown.read(file.read_text(encoding="utf-8"), file.parent, deeper=1)
        else:
            fields.add_chapter(page, name, root.parent, pictures)
    page.heading(2, "In your own words", "个人总结")
    page.blank(
        ("Problems met", "遇到的问题"),
        (
            "What went wrong, how was it found, and what helped?",
            "哪里出了问题？如何发现？怎样解决？",
        ),
    )
    page.blank(
        ("What I would try next", "进一步的尝试"),
        ("And by which figure to judge it.", "以及用哪个指标来判断。"),
    )
    return page.blocks


def with_notes(blocks: Sequence[Block], path: Path) -> list[Block]:
    """Return the blocks with a student's words in the blanks that they fill.

    The words stand in a file of their own, so that a report made anew keeps them: under a heading a
    blank. Headings that are not there are added to it.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    notes: dict[str, list[Block]] = {}
    for block in markdown.read(text, path.parent):
        if isinstance(block, Heading):
            words = notes.setdefault(block.text, [])
        elif notes:
            words.append(block)
    blanks = [block for block in blocks if isinstance(block, Blank)]
    if added := "".join(f"## {blank.title}\n\n" for blank in blanks if blank.title not in notes):
        path.write_text(text.rstrip() + "\n\n" * bool(text) + added, encoding="utf-8")
    filled: list[Block] = []
    for block in blocks:
        if isinstance(block, Blank) and notes.get(block.title):
            filled += [Heading(block.title, 3), *notes[block.title]]
        else:
            filled.append(block)
    return filled


def publish(blocks: Sequence[Block], folder: Path, language: str) -> None:
    """Write report.html, report.md and report.tex, with copies of the pictures.

    Raises:
        LabError: a file cannot be written.
    """
    pictures, notes = folder / "pictures", "notes.zh.md" if language == "zh" else "notes.md"
    try:
        pictures.mkdir(parents=True, exist_ok=True)
        blocks = with_notes(blocks, folder / notes)
        for block in blocks:
            if isinstance(block, Figure):
                copy(block.source, pictures / f"{block.name}.jpg")
        texts = {
            "report.html": html.write(blocks, pictures, language),
            "report.md": markdown.write(blocks),
            "report.tex": latex.write(blocks, language),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
            say(f"Saved {folder / name}")
    except OSError as error:
        raise LabError(f"cannot write the report to {folder}: {error.strerror or error}") from error


def copy(picture: Path, target: Path) -> None:
    """Copy a picture, no larger than a page can show."""
    from PIL import Image

    with Image.open(picture) as image:
        image.thumbnail((WIDEST, 2 * WIDEST))
        image.convert("RGB").save(target, quality=88)
