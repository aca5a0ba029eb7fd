"""The README and its pages: each command is one that its script takes, each file named is there."""

import contextlib
import io
import re
import shlex
import sys
import tempfile
import unittest
from collections import Counter
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from unittest import mock

import tasks
import train
from lab.flags import Parser
from reporting import markdown
from reporting.blocks import Code, Figure, Heading, Table, every
from tasks.classification import DATASETS
from tasks.classification.training import check_flags
from tests.support import PROJECT, main_of

PAGES = [PROJECT / "README.md", PROJECT / "README.zh.md", *sorted((PROJECT / "docs").glob("*.md"))]
TRANSLATED = [page for page in PAGES if page.with_suffix(".zh.md").is_file()]
COMMAND = re.compile(r"(?:python|torchrun(?: -\S+)+) (?:\S+/)?(\w+\.py)((?: [^`#&|]+)?)")
ROOMS = "|".join(path.name for path in PROJECT.iterdir()
                 if path.suffix == ".py" or (path / "__init__.py").is_file())  # fmt: skip
PLACE = re.compile(rf"`((?:{ROOMS})(?:/[a-z_]+(?:\.py)?)*/?)(?::([\w.]+))?`")


class Parsed(Exception):
    """Ends a script once its flags are read."""


def commands(page):
    """Return the commands on a page, each as a script and its arguments."""
    found = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("    ") or "`python " in line:
            found += [(name, shlex.split(flags)) for name, flags in COMMAND.findall(line)]
    return found


class CommandTest(unittest.TestCase):
    def parse(self, name, flags):
        """Read flags as the script does, and go no further."""
        if name == "train.py":  # with --resume it would first read a checkpoint
            wanted = flags[flags.index("--task") + 1] if "--task" in flags else tasks.DEFAULT
            task = tasks.load(wanted)
            own = train.make_parser(task).parse_args(flags)
            if task.name == tasks.DEFAULT and own.resume is None and own.weights is None:
                check_flags(own.network or DATASETS[own.dataset], own, None)
            return
        parse = Parser.parse_args

        def stop(parser, *arguments):
            parse(parser, *arguments)
            raise Parsed

        with (
            mock.patch.object(sys, "argv", [name, *flags]),
            mock.patch.object(Parser, "parse_args", stop),
            contextlib.suppress(Parsed),
        ):
            main_of(name)()

    def test_scripts_take_every_command(self):
        """Flags, choices and types; a page without any command is a page of nothing."""
        for page in PAGES:
            found = commands(page)
            self.assertTrue(found, page)
            for name, flags in found:
                with self.subTest(page.name, command=f"{name} {shlex.join(flags)}"):
                    said = io.StringIO()
                    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                        try:
                            self.parse(name, flags)
                        except SystemExit as end:
                            if end.code:  # 0 after --help
                                self.fail(said.getvalue())

    def test_what_is_wrong_is_noticed(self):
        for name, flags in (("train.py", ["--bm"]), ("style.py", ["--presets", "starry"])):
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
                self.parse(name, flags)

    def test_no_run_trains_over_another(self):
        """Commands of a page that differ train in folders that differ; later ones find the first's.

        The answers' pages are about what is asked, one at a time.
        """
        for page in PAGES:
            if page.name.startswith("answers"):
                continue
            trained = {}
            for name, flags in commands(page):
                if name != "train.py" or {"--resume", "--overfit_batch", "--help"} & set(flags):
                    continue
                task = flags[flags.index("--task") + 1] if "--task" in flags else tasks.DEFAULT
                folder = train.make_parser(tasks.load(task)).parse_args(flags).ckpt_path
                words = [word for word in flags if word not in ("--ckpt_path", str(folder))]
                if words:  # else the assignment's own first command, or the script's name alone
                    with self.subTest(page.name, command=shlex.join(flags)):
                        self.assertEqual(trained.setdefault(folder, words), words)

    def test_the_readme_names_folders(self):
        """Each task of the table but the first trains in a folder that its command names."""
        for page in PAGES[:2]:
            rows = [line for line in page.read_text("utf-8").splitlines()
                    if line.startswith("|") and "`python train.py" in line]  # fmt: skip
            self.assertGreater(len(rows), 6)
            folders = [re.findall(r"--ckpt_path (\S+?)`", row) for row in rows]
            self.assertEqual(folders[0], [])
            self.assertEqual(len({folder for (folder,) in folders[1:]}), len(rows) - 1)

    def test_links_lead_somewhere(self):
        for page in PAGES:
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
                self.assertTrue((page.parent / target).is_file(), f"{page.name}: {target}")

    def test_named_files_and_functions(self):
        """Code of the project that a page names is there; a function is named behind its file."""
        found = [match for page in PAGES for match in PLACE.findall(page.read_text("utf-8"))]
        self.assertGreater(len([function for _, function in found if function]), 9)
        for name, function in found:
            with self.subTest(f"{name}:{function}"):
                self.assertTrue((PROJECT / name).exists())
                if function:
                    module = import_module(name.removesuffix(".py").replace("/", "."))
                    self.assertTrue(callable(attrgetter(function)(module)))

    def test_the_setup_commands(self):
        """Two lines install into a folder of their own, and run the main job and the tests."""
        lines = [line for line in PAGES[0].read_text("utf-8").splitlines() if "pip install" in line]
        ends = [line.split()[-1] for line in lines]
        self.assertEqual(ends, ["--stn", "unit_test.py", "--stn"])
        for line in lines[:2]:
            self.assertIn(".venv/bin/pip install -q -r requirements.txt && .venv/bin/python", line)
        # Where PowerShell has neither `python3` nor `&&`.
        same = lines[0].replace("python3", "py -3.11", 1).replace(" &&", ";")
        self.assertEqual(lines[2], same.replace(".venv/bin/", ".venv\\Scripts\\"))


def parts(page):
    """Return a page's sections: heading, its level, and what both languages must have alike."""
    found = []
    for block in every(markdown.read(page.read_text(encoding="utf-8"))):
        if isinstance(block, Heading):
            found.append((block.text, block.level, {"commands": [], "code": [], "numbers": []}))
        if isinstance(block, Figure):
            found[-1][2].setdefault("pictures", []).append(block.name)
        if isinstance(block, Code):
            lines = [re.sub(r"(^|\s+)# .*", "", line) for line in block.text.split("\n")]
            found[-1][2]["commands"] += lines
            continue
        texts = [getattr(block, "text", "")]
        if isinstance(block, Table):
            found[-1][2].setdefault("tables", []).append(f"{len(block.rows)} x {len(block.head)}")
            texts += [cell for row in (block.head, *block.rows) for cell in row]
        for text in texts:
            found[-1][2]["code"] += re.findall(r"`[^`]+`", text)
            bare = re.sub(r"`[^`]+`|\]\([^)]*\)", " ", text)
            found[-1][2]["numbers"] += re.findall(r"\d(?:[\d,]*\d)?(?:\.\d+)?", bare)
    return found


class ChineseTest(unittest.TestCase):
    """A page and its translation have the same commands, code, numbers and tables by section."""

    def differences(self, page, translation):
        """Return what a section of either page has and the same section of the other has not."""
        for (title, level, alike), (other, other_level, translated) in zip(
            parts(page), parts(translation), strict=True
        ):
            if level != other_level:
                yield f"{title!r} and {other!r} are of different levels"
            for kind in alike | translated:
                have, has = (Counter(each.get(kind, [])) for each in (alike, translated))
                if have != has:
                    only, too = list((have - has).elements()), list((has - have).elements())
                    yield (
                        f"{kind} of {title!r}: {page.name} alone has {only}, "
                        f"{translation.name} alone, in {other!r}, {too}"
                    )

    def test_pages_are_alike(self):
        self.assertGreaterEqual(len(TRANSLATED), 5)
        for page in TRANSLATED:
            with self.subTest(page.name):
                found = list(self.differences(page, page.with_suffix(".zh.md")))
                self.assertFalse(found, "\n".join(["", *found]))

    def test_pages_know_each_other(self):
        self.assertIn("(README.zh.md)", PAGES[0].read_text(encoding="utf-8"))
        self.assertIn("(README.md)", PAGES[1].read_text(encoding="utf-8"))

    def test_differences_are_told(self):
        """Each kind of difference, in words that say where."""
        with tempfile.TemporaryDirectory() as folder:
            page, translation = (Path(folder) / name for name in ("a.md", "a.zh.md"))
            page.write_text("# A\n\nOf 3,900 `x` 94.2 %.\n\n![P](p.jpg)\n\n    python a.py  # so\n")
            text = page.read_text()
            for old, new, kind in (
                ("94.2", "94.3", "numbers"), ("`x`", "`y`", "code"), ("a.py", "b.py", "commands"),
                ("p.jpg", "q.jpg", "pictures"), ("# so", "# 这样", None), ("[P]", "[图]", None),
            ):  # fmt: skip
                translation.write_text(text.replace(old, new))
                found = list(self.differences(page, translation))
                self.assertEqual(len(found), kind is not None, found)
                if kind:
                    self.assertTrue(found[0].startswith(kind), found)


if __name__ == "__main__":
    unittest.main()
