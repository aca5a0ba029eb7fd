"""Grades submissions: each blank by itself, in a process of its own, by what it does.

    grade = Grader(assignment, Reference(assignment), Sandbox("signs")).grade(submission)

A blank runs in the student's own file, in which the solution stands in all other blanks, so that
one mistake costs once. If it fails there, the file as it is may prove it right (names of one's
own), and so may ours with the blank in it (code outside of the blanks that was broken). What is
wrong is named by likeness: a mistake that students often make answers the probe as the blank does.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from course import LANGUAGES, Assignment, cutting
from course.submissions import Submission
from course.words import Words, say_end, say_value

SECONDS = 10  # of the processor, for a blank; of the clock three times as many
MEMORY = 3 << 30  # bytes, for a blank
START = 120  # seconds that loading torch may take
XCPU = 24  # the signal that ends who has used up the processor's time
REMEMBERED = 300  # answers
LOST = ("time", "memory", "exit", "killed")  # ends of processes that are not tried again


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
    """Read `mistakes.txt`, of lines `2.2 English | Chinese | old => new | old => new`."""
    mistakes = []
    for line in path.read_text(encoding="utf-8").splitlines():
        (todo, _, en), zh, *changes = line.partition(" "), *line.split(" | ")[1:]
        pairs = [change.replace("\\n", "\n").split(" =>", 1) for change in changes]
        pairs = [(old, new.removeprefix(" ")) for old, new in pairs]
        mistakes.append(Mistake(todo, en.split(" | ")[0], zh, pairs))
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


class Sandbox:
    """The process of `sandbox.py`, started when it is needed and again when it is gone."""

    def __init__(self, *assignments: str):
        self.assignments = assignments
        self.process: subprocess.Popen | None = None

    def ask(self, assignment: str, files: dict[str, str], todo: str, module: str) -> Answer:
        """Return what a file answers to the probe of a blank; of blank "" only if it loads."""
        with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as place:
            folder = Path(os.path.realpath(place))
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
            job = {"folder": str(folder), "assignment": assignment, "module": module,
                   "probe": "todo_" + todo.replace(".", "_"), "seconds": SECONDS,
                   "memory": MEMORY}  # fmt: skip
            end = self._send(job)
            return Answer(read_pairs(folder / "observed.pt"), end)

    def _send(self, job: dict[str, Any]) -> dict[str, Any]:
        fresh = self.process is None or self.process.poll() is not None
        if fresh:
            self._start()
        process = self.process
        watch = threading.Timer(3 * SECONDS + 20 + fresh * START, process.kill)
        watch.start()
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        late = not watch.is_alive()
        watch.cancel()
        if line:
            return json.loads(line)
        code = process.wait()
        if not fresh and not late:  # it had ended with the job before
            return self._send(job)
        return {"end": "time"} if late or code == -XCPU else {"end": "exit", "message": str(code)}

    def _start(self) -> None:
        self.close()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LD_PRELOAD"))}
        program = str(Path(__file__).with_name("sandbox.py"))
        self.process = subprocess.Popen(
            [sys.executable, "-E", program, *self.assignments], cwd=tempfile.gettempdir(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, encoding="utf-8",
            env=kept | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def read_pairs(path: Path) -> list[list[Any]]:
    """Read what a probe has saved; whatever else a submission may have put there is nothing."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of sparse tensors, which are refused below
            pairs = torch.load(path, weights_only=True)
        good = all(isinstance(one[0], str) and is_plain(one[1]) for one in pairs)
    except Exception:  # of what is no such file, anything
        return []
    return pairs if good else []


def is_plain(value: Any) -> bool:
    """True of numbers, words, dense tensors, and lists of these."""
    if isinstance(value, Tensor):
        dense = value.layout == torch.strided and not value.is_quantized
        return dense and value.device.type == "cpu" and not value.is_complex()
    if isinstance(value, list):
        return all(map(is_plain, value))
    return isinstance(value, bool | int | float | str | None)


# ---------------------------------------------------------------- likeness


def alike(one: Any, other: Any) -> bool:
    """True of values that differ by rounding at most."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape:
            return False
        return torch.allclose(one.double(), other.double(), 1e-3, 1e-4, equal_nan=True)
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return abs(one - other) <= 1e-4 * max(1, abs(other)) if isinstance(one, float) else one == other


def difference(answer: Answer, expected: Answer) -> int | None:
    """Return where an answer first differs from the solution's; None if it does not."""
    for index, (mine, its) in enumerate(zip(answer.pairs, expected.pairs, strict=False)):
        if not alike(mine, its):
            return index
    same = answer.end["end"] == expected.end["end"] == "done"
    length = min(len(answer.pairs), len(expected.pairs))
    return None if same and length == len(expected.pairs) else length


def likeness(answer: Answer, mistake: Answer, at: int) -> int:
    """Return how much an answer, wrong from `at` on, is like a mistake's: 2 wholly, 1 there, 0."""
    ends = [[one.end.get(key) for key in ("end", "type", "message")] for one in (answer, mistake)]
    if ends[0] == ends[1] and alike(answer.pairs, mistake.pairs):
        return 2
    there = [one.pairs[at] for one in (answer, mistake) if at < len(one.pairs)]
    return int(len(there) == 2 and isinstance(there[0][1], Tensor) and alike(*there))


# ---------------------------------------------------------------- grading


class Reference:
    """What is known of an assignment: its files, solutions, and what they and mistakes answer."""

    def __init__(self, assignment: Assignment):
        self.assignment = assignment
        self.handed_out: dict[str, cutting.Text] = {}
        self.solutions: dict[str, dict[str, list[str]]] = {}
        self.file_of: dict[str, str] = {}
        self.solved: dict[str, str] = {}
        for name in assignment.blanked:
            solved = (assignment.folder / name).read_text(encoding="utf-8")
            self.handed_out[name] = cutting.numbered(cutting.cut(solved, LANGUAGES[0]))
            self.solutions[name] = cutting.solutions(solved)
            self.file_of |= dict.fromkeys(self.solutions[name], name)
            self.solved[name] = cutting.as_text(self.with_bodies(name, {}))
        self.mistakes = read_mistakes(assignment.folder / "mistakes.txt")
        self.lock = threading.Lock()
        self.known: dict[Any, Answer] = {}

    def with_bodies(self, name: str, bodies: dict[str, list[str]]) -> cutting.Text:
        """Return our file with the solutions in it, or other code in some blanks."""
        return cutting.fill(self.handed_out[name], self.solutions[name] | bodies)

    def ask(self, sandbox: Sandbox, files: dict[str, str], todo: str, name: str) -> Answer:
        """Return an answer; the same files are asked once."""
        key = (todo, name, tuple(sorted(files.items())))
        with self.lock:
            if key in self.known:
                return self.known[key]
        answer = sandbox.ask(self.assignment.name, files, todo, name.removesuffix(".py"))
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
        name, best, chosen = self.file_of[todo], 0, None
        for mistake in (one for one in self.mistakes if one.todo == todo):
            body = mistake.body(self.solutions[name][todo])
            text = cutting.as_text(self.with_bodies(name, {todo: body}))
            its = self.ask(sandbox, self.solved | {name: text}, todo, name)
            if (like := likeness(answer, its, at)) > best:
                best, chosen = like, mistake
        return chosen


@dataclass(frozen=True)
class Grader:
    """Grades submissions of an assignment, one after another; several may share a reference."""

    assignment: Assignment
    reference: Reference
    sandbox: Sandbox

    def grade(self, submission: Submission) -> Grade:
        if submission.refused:
            marks = tuple(Mark(todo, 0, of) for todo, of in self.assignment.points.items())
            return Grade(submission.name, self.assignment, marks, submission.refused)
        outside = {name: self._outside(submission, name) for name in self.reference.handed_out}
        marks = tuple(self._mark(submission, todo, outside) for todo in self.assignment.points)
        return Grade(submission.name, self.assignment, marks)

    def _ask(self, submission: Submission, lines: cutting.Text, todo: str, name: str) -> Answer:
        """Put one file to a probe, among the student's own modules."""
        files = submission.files | self.reference.solved | {name: cutting.as_text(lines)}
        return self.reference.ask(self.sandbox, files, todo, name)

    def _outside(self, submission: Submission, name: str) -> Words:
        """Return what is wrong with a file whose every blank holds the solution; mostly nothing."""
        if name not in submission.files:
            return {"en": f"there is no {name}", "zh": f"没有 {name}"}
        lines = cutting.numbered(submission.files[name])
        lines = cutting.fill(lines, self.reference.solutions[name])
        end = self._ask(submission, lines, "", name).end
        return {} if end["end"] == "done" else say_end(end, lines, name)

    def _mark(self, submission: Submission, todo: str, outside: dict[str, Words]) -> Mark:
        of, name = self.assignment.points[todo], self.reference.file_of[todo]
        if name not in submission.files:
            return Mark(todo, 0, of, outside[name])
        lines = cutting.numbered(submission.files[name])
        body, untouched = cutting.body_of(lines, todo), cutting.stub(todo)
        if body in ([], [untouched]):
            return Mark(todo, 0, of, {"en": "not filled in", "zh": "尚未填写"})
        expected = self.reference.expected(self.sandbox, todo)
        first: tuple[Answer, cutting.Text] | None = None
        for reading, note in self._readings(lines, todo, name, outside[name]):
            answer = self._ask(submission, reading, todo, name)
            if difference(answer, expected) is None:
                return Mark(todo, of, of, note)
            first = first or (answer, reading)
            if answer.end["end"] in LOST:
                break
        if first is None:
            return Mark(todo, 0, of, outside[name])
        if untouched in (body or []) and first[0].end.get("type") == "NotImplementedError":
            there = {"en": f"the line `{untouched}` is still there", "zh": f"`{untouched}` 还在"}
            return Mark(todo, 0, of, there)
        return Mark(todo, 0, of, self._explain(todo, *first, name))

    def _readings(
        self, lines: cutting.Text, todo: str, name: str, outside: Words
    ) -> Iterator[tuple[cutting.Text, Words]]:
        """Yield the files that may prove a blank right, and what is to be said of each then."""
        solutions, marked = self.reference.solutions[name], todo in cutting.blanks(lines)
        if not outside or not marked:
            others = {number: body for number, body in solutions.items() if number != todo}
            solved = self.reference.with_bodies(name, {})
            yield cutting.lend(cutting.fill(lines, others), solved, todo), {}
            yield lines, {}
        if marked:
            note = {"en": "right, but the code outside of the blanks is not as it was handed out",
                    "zh": "正确，但空白以外的代码与下发时不同"}  # fmt: skip
            if outside:
                note = {lang: f"{note[lang]}: {outside[lang]}" for lang in LANGUAGES}
            yield self.reference.with_bodies(name, {todo: cutting.take(lines, todo)}), note

    def _explain(self, todo: str, answer: Answer, lines: cutting.Text, name: str) -> Words:
        """Return what is wrong with an answer, in one line of each language."""
        expected = self.reference.expected(self.sandbox, todo)
        at = difference(answer, expected)
        here = [one.pairs[at] for one in (answer, expected) if at < len(one.pairs)]
        said = say_end(answer.end, lines, name)
        if answer.end["end"] in LOST:
            return said
        if len(here) == 2 and here[0][0] == here[1][0]:
            said = say_value(*here[0], here[1][1])
        mistake = self.reference.name_mistake(self.sandbox, todo, answer, at)
        if mistake is None:
            return said
        return {"en": f"{mistake.en} ({said['en']})", "zh": f"{mistake.zh}（{said['zh']}）"}
