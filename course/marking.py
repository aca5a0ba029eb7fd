"""Grades a class: several submissions at a time, a line each, a table, and a page a student."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from course import ASSIGNMENTS, Assignment
from course.grading import Grade, Grader, Reference, Sandbox
from course.pages import html_page, markdown_page, results_json
from course.submissions import (
    Submission,
    Unreadable,
    contents,
    read_submission,
    submissions_of,
    visible,
    which,
)
from lab.console import LabError, progress, say
from lab.files import attempt, write_whole
from lab.folders import printable


def mark(
    paths: list[Path], assignment: str | None, lang: str, jobs: int, table: Path | None,
    out: Path | None,
) -> None:  # fmt: skip
    """Grade submissions, say what each has earned, and write what is asked for.

    Raises:
        LabError: nothing is there, or nothing says of which assignment it is.
    """
    found = gather(paths)
    chosen = ASSIGNMENTS[assignment] if assignment else the_one(found)
    for folder in filter(None, (table and table.parent, out)):
        with attempt(f"write into {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
    grades: dict[str, Grade] = {}
    with progress(total=len(found), label="grading") as bar:
        for name, grade in zip(unique_names(found), grade_all(found, chosen, jobs), strict=True):
            grades[name] = grade
            bar.update(1)
            if out:
                write_pages(out / name, grade, lang)
            if len(found) > 1:
                note = f": {grade.refused[lang]}" if grade.refused else ""
                say(f"{name}: {grade.points:g} / {grade.of:g}{note}")
    if len(found) == 1:
        say(markdown_page(grade, lang).rstrip())
    if table:
        write_whole(table, as_csv(grades, lang))
        say(f"{table}: {len(grades)} rows")


def gather(paths: list[Path]) -> list[Path]:
    """Return all submissions at some paths."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise LabError(f"there is no {path}")
        with attempt(f"read {path}"):
            own = submissions_of(path)
            others = [] if path in own else [one.name for one in visible(path) if one not in own]
        if others:
            names = ", ".join(map(printable, others[:5]))
            more = f" and {len(others) - 5} more" * (len(others) > 5)
            say(f"{path}: left out what is no folder and no zip: {names}{more}")
        found += own
    if not found:
        raise LabError(f"no submission in {paths[0]}: give folders or zips with the Python files")
    return found


def the_one(found: list[Path]) -> Assignment:
    """Return the assignment that most submissions are of."""
    counts = Counter(one.name for path in found if (one := which(path)))
    if not counts:
        try:
            with attempt(f"read {found[0]}"):
                contents(found[0])
        except Unreadable as error:
            raise LabError(f"{found[0]} {error.args[0]}") from error
        wanted = "; ".join(f"{one.name}: {', '.join(one.blanked)}" for one in ASSIGNMENTS.values())
        raise LabError(f"no submission of an assignment in {found[0]} ({wanted})")
    return ASSIGNMENTS[max(sorted(counts), key=counts.__getitem__)]


def unique_names(found: list[Path]) -> list[str]:
    """Name each submission after its file; those that share a name keep what follows the dot."""
    stems = [path.resolve().name if path.is_dir() else path.stem for path in found]
    names: list[str] = []
    for stem, path in zip(stems, found, strict=True):
        name = printable(stem if stems.count(stem) == 1 or path.is_dir() else path.name)
        names.append(f"{name}_{len(names)}" if name in names else name)
    return names


def grade_all(found: list[Path], assignment: Assignment, jobs: int) -> Iterator[Grade]:
    """Yield grades in the order of the submissions, which are graded side by side."""
    reference = Reference(assignment)
    sandboxes = [Sandbox(assignment.name) for _ in range(min(jobs, len(found)))]
    free: SimpleQueue[Sandbox] = SimpleQueue()
    for sandbox in sandboxes:
        free.put(sandbox)

    def one(path: Path) -> Grade:
        sandbox = free.get()
        try:
            submission = read_submission(path, assignment)
            return Grader(assignment, reference, sandbox).grade(submission)
        except Exception as error:  # a fault of ours must not cost the others their grades
            why = f"{type(error).__name__}: {error}"
            words = {"en": f"the grader itself failed: {why}", "zh": f"评分程序自身出错：{why}"}
            refused = Submission(path.name, refused=words)
            return Grader(assignment, reference, sandbox).grade(refused)
        finally:
            free.put(sandbox)

    with ThreadPoolExecutor(len(sandboxes)) as pool:
        try:
            yield from pool.map(one, found)
        finally:
            pool.shutdown(cancel_futures=True)
            for sandbox in sandboxes:
                sandbox.close()


def write_pages(folder: Path, grade: Grade, lang: str) -> None:
    with attempt(f"write into {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "results.json", results_json(grade, lang))
    write_whole(folder / "page.md", markdown_page(grade, lang))
    write_whole(folder / "page.html", html_page(grade, lang))


def as_csv(grades: dict[str, Grade], lang: str) -> str:
    """Return a class's table; with the mark of UTF-8, by which Excel knows Chinese."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    todos = [f"TODO {mark.todo}" for mark in next(iter(grades.values())).marks]
    rows.writerow(["name", "points", "of", *todos, "remarks"])
    for name, grade in grades.items():
        remarks = [f"TODO {mark.todo}: {mark.line[lang]}" for mark in grade.marks if mark.line]
        said = grade.refused.get(lang) or "; ".join(remarks)
        points = [f"{mark.points:g}" for mark in grade.marks]
        rows.writerow([safe(name), f"{grade.points:g}", f"{grade.of:g}", *points, safe(said)])
    return "\ufeff" + file.getvalue()


def safe(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t")) else cell
