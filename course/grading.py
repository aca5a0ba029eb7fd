"""Grades submissions: each blank by itself, in a process of its own, by what it does.

    with Grader(ASSIGNMENTS["signs"]) as grader:
        grade = grader.grade(read_submission(Path("hw2.zip"), assignment))

A blank is run in the student's own file, in which the solution stands in all other blanks, so that
one mistake costs once. If it fails there, its own file as it is may prove it right (names of one's
own), and so may ours with the blank in it (code outside of the blanks that was broken). What is
wrong is named by its likeness: a mistake that students often make answers the probe as the blank
does.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from course import LANGUAGES, Assignment, cutting
from course.submissions import Submission
from course.words import Words, say_end, say_value

SECONDS = 10  # of the processor, for a blank; of the clock three times as many
MEMORY = 3 << 30  # bytes, for a blank
START = 120  # seconds that loading torch may take
REMEMBERED = 300  # answers
LOST = ("time", "memory", "exit", "killed")


class Answer(NamedTuple):
    """What a probe got to know, and how it ended."""

    pairs: list[list[Any]]
    end: dict[str, Any]


class Mistake(NamedTuple):
    """Wrong code of a blank that students often write, and what to say of it."""

    todo: str
    en: str
    zh: str
    changes: list[tuple[str, str]]  # of the solution, old and new

    def body(self, solution: Iterable[str]) -> list[str]:
        text = "\n".join(solution)
        for old, new in self.changes:
            if old not in text:
                raise ValueError(f"TODO {self.todo}: no {old!r} in the solution")
            text = text.replace(old, new)
        return text.split("\n")


def read_mistakes(path: Path) -> list[Mistake]:
    """Read `mistakes.txt`: `2.2 English | Chinese`, then lines `old => new`, indented."""
    mistakes = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            old, new = line.strip().replace("\\n", "\n").partition("=>")[::2]
            mistakes[-1].changes.append((old.rstrip(" "), new.removeprefix(" ")))
        elif line and not line.startswith("#"):
            (todo, en), zh = line.partition(" | ")[0].split(" ", 1), line.partition(" | ")[2]
            mistakes.append(Mistake(todo, en, zh, []))
    return mistakes


@dataclass(frozen=True)
class Mark:
    """What a blank has earned."""

    todo: str
    points: float
    of: float
    line: Words = field(default_factory=dict)  # what is wrong, or worth knowing, by language


@dataclass(frozen=True)
class Grade:
    name: str
    assignment: Assignment
    marks: tuple[Mark, ...]
    refused: Words = field(default_factory=dict)  # why nothing could be graded

    @property
    def points(self) -> float:
        return round(sum(mark.points for mark in self.marks), 2)

    @property
    def of(self) -> float:
        return round(sum(self.assignment.points.values()), 2)


# ---------------------------------------------------------------- the process beside


class Sandbox:
    """The process of `sandbox.py`, started when it is needed and again when it is gone."""

    def __init__(self, assignment: str):
        self.assignment = assignment
        self.process: subprocess.Popen | None = None
        self.fresh = True

    def ask(self, files: dict[str, str], todo: str, module: str) -> Answer:
        """Return what a file answers to the probe of a blank; of blank "" only whether it loads."""
        with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as place:
            folder = Path(os.path.realpath(place))
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
            job = {"folder": str(folder), "assignment": self.assignment, "module": module,
                   "probe": "todo_" + todo.replace(".", "_"), "seconds": SECONDS,
                   "memory": MEMORY}  # fmt: skip
            end = self._send(job)
            return Answer(read_pairs(folder / "observed.pt"), end)

    def _send(self, job: dict[str, Any]) -> dict[str, Any]:
        if self.process is None or self.process.poll() is not None:
            self._start()
        process = self.process
        watch = threading.Timer(3 * SECONDS + (START if self.fresh else 20), process.kill)
        watch.start()
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            late = not watch.is_alive()
            watch.cancel()
        self.fresh = False
        if not line:
            process.wait()
            return {"end": "time"} if late else {"end": "exit", "message": str(process.returncode)}
        return json.loads(line)

    def _start(self) -> None:
        self.close()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LD_PRELOAD"))}
        self.process = subprocess.Popen(
            [sys.executable, "-E", str(Path(__file__).with_name("sandbox.py")), self.assignment],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, encoding="utf-8", cwd=tempfile.gettempdir(),
            env=kept | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        self.fresh = True

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None


def read_pairs(path: Path) -> list[list[Any]]:
    """Read what a probe has saved; whatever else a submission may have put there is nothing."""
    try:
        pairs = torch.load(path, weights_only=True)
        good = isinstance(pairs, list) and all(
            isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) for one in pairs
        )
    except Exception:  # of what is no such file, anything
        return []
    return pairs if good else []


# ---------------------------------------------------------------- likeness


def alike(one: Any, other: Any) -> bool:
    """True of values that differ by rounding at most."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.is_complex() or other.is_complex():
            return False
        return torch.allclose(one.double(), other.double(), 1e-3, 1e-4, equal_nan=True)
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return abs(one - other) <= 1e-4 * max(1, abs(other)) if isinstance(one, float) else one == other


def difference(answer: Answer, expected: Answer) -> int | None:
    """Return where an answer first differs from the solution's; None if it does not."""
    for index, (label, value) in enumerate(expected.pairs):
        if len(answer.pairs) <= index or answer.pairs[index][0] != label:
            return index
        if not alike(answer.pairs[index][1], value):
            return index
    same = answer.end["end"] == expected.end["end"] == "done"
    return None if same else len(expected.pairs)


def likeness(answer: Answer, mistake: Answer, at: int) -> int:
    """Return how much an answer, wrong from `at` on, is like a mistake's: 2 wholly, 1 there, 0."""
    kinds = ("end", "type", "message")
    if [answer.end.get(kind) for kind in kinds] == [mistake.end.get(kind) for kind in kinds]:
        mine, its = answer.pairs, mistake.pairs
        if len(mine) == len(its) and all(
            a[0] == b[0] and alike(a[1], b[1]) for a, b in zip(mine, its, strict=True)
        ):
            return 2
    if at < min(len(answer.pairs), len(mistake.pairs)):
        (label, value), (its_label, its_value) = answer.pairs[at], mistake.pairs[at]
        return int(isinstance(value, Tensor) and label == its_label and alike(value, its_value))
    return 0


# ---------------------------------------------------------------- grading


class Reference:
    """What is known of an assignment: its files, solutions, and what they and mistakes answer."""

    def __init__(self, assignment: Assignment):
        self.assignment = assignment
        self.handed_out: dict[str, cutting.Text] = {}
        self.solutions: dict[str, dict[str, list[str]]] = {}
        self.file_of: dict[str, str] = {}
        for name in assignment.blanked:
            solved = (assignment.folder / name).read_text(encoding="utf-8")
            self.handed_out[name] = cutting.numbered(cutting.cut(solved, LANGUAGES[0]))
            self.solutions[name] = cutting.solutions(solved)
            self.file_of |= dict.fromkeys(self.solutions[name], name)
        self.solved = {
            name: cutting.as_text(cutting.fill(lines, self.solutions[name]))
            for name, lines in self.handed_out.items()
        }
        self.mistakes = read_mistakes(assignment.folder / "mistakes.txt")
        self.lock = threading.Lock()
        self.known: dict[Any, Answer] = {}

    def ask(self, sandbox: Sandbox, files: dict[str, str], todo: str, name: str) -> Answer:
        """Return an answer; the same files are asked once."""
        key = (todo, name, tuple(sorted(files.items())))
        with self.lock:
            if key in self.known:
                return self.known[key]
        answer = sandbox.ask(files, todo, name.removesuffix(".py"))
        with self.lock:
            if len(self.known) >= REMEMBERED:
                self.known.clear()
            self.known[key] = answer
        return answer

    def expected(self, sandbox: Sandbox, todo: str) -> Answer:
        answer = self.ask(sandbox, self.solved, todo, self.file_of[todo])
        if answer.end["end"] != "done":
            raise RuntimeError(f"the solution of TODO {todo} fails its probe: {answer.end}")
        return answer

    def name_mistake(self, sandbox: Sandbox, todo: str, answer: Answer, at: int) -> Mistake | None:
        """Return the mistake that an answer is most like."""
        name = self.file_of[todo]
        best, found = 0, None
        for mistake in (one for one in self.mistakes if one.todo == todo):
            body = mistake.body(self.solutions[name][todo])
            bodies = self.solutions[name] | {todo: body}
            text = cutting.as_text(cutting.fill(self.handed_out[name], bodies))
            its = self.ask(sandbox, self.solved | {name: text}, todo, name)
            if (like := likeness(answer, its, at)) > best:
                best, found = like, mistake
        return found


class Grader:
    """Grades submissions of one assignment, one after another; several may share a reference."""

    def __init__(self, assignment: Assignment, reference: Reference | None = None):
        self.assignment = assignment
        self.reference = reference or Reference(assignment)
        self.sandbox = Sandbox(assignment.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.sandbox.close()

    def grade(self, submission: Submission) -> Grade:
        if submission.refused:
            marks = tuple(Mark(todo, 0, of) for todo, of in self.assignment.points.items())
            return Grade(submission.name, self.assignment, marks, submission.refused)
        outside = {name: self._outside(submission, name) for name in self.reference.handed_out}
        marks = tuple(self._mark(submission, todo, outside) for todo in self.assignment.points)
        return Grade(submission.name, self.assignment, marks)

    def _files(self, submission: Submission, name: str, lines: cutting.Text) -> dict[str, str]:
        """Return all that is needed to load one file, the student's own modules among them."""
        return submission.files | self.reference.solved | {name: cutting.as_text(lines)}

    def _outside(self, submission: Submission, name: str) -> Words:
        """Return what is wrong with a file whose every blank holds the solution; mostly nothing."""
        if name not in submission.files:
            return {"en": f"there is no {name}", "zh": f"没有 {name}"}
        lines = cutting.numbered(submission.files[name])
        lines = cutting.fill(lines, self.reference.solutions[name])
        answer = self.reference.ask(self.sandbox, self._files(submission, name, lines), "", name)
        return {} if answer.end["end"] == "done" else say_end(answer.end, lines, name)

    def _mark(self, submission: Submission, todo: str, outside: dict[str, Words]) -> Mark:
        of, name = self.assignment.points[todo], self.reference.file_of[todo]
        if name not in submission.files:
            return Mark(todo, 0, of, outside[name])
        lines = cutting.numbered(submission.files[name])
        body = cutting.body_of(lines, todo)
        untouched = f'raise NotImplementedError("TODO {todo}")'
        if body == [] or body == [untouched]:
            return Mark(todo, 0, of, {"en": "not filled in", "zh": "尚未填写"})
        expected = self.reference.expected(self.sandbox, todo)
        first: tuple[Answer, cutting.Text] | None = None
        for reading, note in self._readings(lines, todo, name, outside[name]):
            files = self._files(submission, name, reading)
            answer = self.reference.ask(self.sandbox, files, todo, name)
            if difference(answer, expected) is None:
                return Mark(todo, of, of, note)
            first = first or (answer, reading)
            if answer.end["end"] in LOST:
                break
        if first is None:
            return Mark(todo, 0, of, outside[name])
        line = self._explain(todo, *first, name)
        if body and untouched in body and first[0].end.get("type") == "NotImplementedError":
            line = {"en": f"the line `{untouched}` is still there",
                    "zh": f"`{untouched}` 这一行还在"}  # fmt: skip
        return Mark(todo, 0, of, line)

    def _readings(self, lines: cutting.Text, todo: str, name: str, outside: Words):
        """Yield the files that may prove a blank right, and what is to be said of each then."""
        handed_out, solutions = self.reference.handed_out[name], self.reference.solutions[name]
        marked = todo in cutting.blanks(lines)
        others = {number: body for number, body in solutions.items() if number != todo}
        if not outside or not marked:
            single = cutting.fill(lines, others)
            yield cutting.lend(single, cutting.fill(handed_out, {}), todo), {}
            yield lines, {}
        if marked:
            note = {"en": "right, but the code outside of the blanks is not as it was handed out",
                    "zh": "正确，但空白以外的代码与下发时不同"}  # fmt: skip
            if outside:
                note = {lang: f"{note[lang]}: {outside[lang]}" for lang in LANGUAGES}
            yield cutting.fill(handed_out, others | {todo: cutting.take(lines, todo)}), note

    def _explain(self, todo: str, answer: Answer, lines: cutting.Text, name: str) -> Words:
        """Return what is wrong with an answer, in one line of each language."""
        expected = self.reference.expected(self.sandbox, todo)
        at = difference(answer, expected)
        pairs = (answer.pairs[at : at + 1], expected.pairs[at : at + 1])
        if pairs[0] and pairs[1] and pairs[0][0][0] == pairs[1][0][0]:
            said = say_value(*answer.pairs[at], expected.pairs[at][1])
        else:
            said = say_end(answer.end, lines, name)
        if answer.end["end"] in LOST:
            return say_end(answer.end, lines, name)
        mistake = self.reference.name_mistake(self.sandbox, todo, answer, at)
        if mistake is None:
            return said
        return {"en": f"{mistake.en} ({said['en']})", "zh": f"{mistake.zh}（{said['zh']}）"}
