"""The report as a whole: its chapters, the student's own words, and the three files it becomes."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lab.console import LabError, say
from lab.files import attempt, read_text
from lab.folders import PROJECT
from reporting import EPOCHS, QUICK, ReportFlags, markdown, other_tasks, signs, work
from reporting.blocks import Blank, Block, Figure, Heading, Page
from reporting.html import to_html
from reporting.latex import to_latex

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
    blank. Headings that are not there are added to it.
    """
    text = read_text(path) if path.is_file() else ""
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
        words = notes.get(block.title) if isinstance(block, Blank) else None
        filled += [Heading(block.title, 3), *words] if words else [block]
    return filled


def publish(blocks: Sequence[Block], folder: Path, language: str) -> None:
    """Write report.html, report.md and report.tex, with copies of the pictures.

    Raises:
        LabError: a file cannot be written.
    """
    pictures = folder / "pictures"
    notes = {"en": "notes.md", "zh": "notes.zh.md"}[language]
    with attempt(f"write the report to {folder}"):
        pictures.mkdir(parents=True, exist_ok=True)
        blocks = with_notes(blocks, folder / notes)
        for block in blocks:
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


def copy(picture: Path, target: Path) -> None:
    """Copy a picture, no larger than a page can show."""
    with Image.open(picture) as image:
        image.thumbnail((WIDEST, 2 * WIDEST))
        image.convert("RGB").save(target, quality=88)
