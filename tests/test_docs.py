"""The README and its pages: each command is one that its script takes, each file named is there."""

import contextlib
import importlib
import io
import re
import shlex
import sys
import unittest
from unittest import mock

import tasks
import train
from lab.console import Parser
from tests.support import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:python|torchrun --nproc_per_node=2) (?:\S+/)?(\w+\.py)((?: [^`#&|]+)?)")


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
            task = flags[flags.index("--task") + 1] if "--task" in flags else tasks.DEFAULT
            train.make_parser(tasks.load(task)).parse_args(flags)
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
            importlib.import_module(name.removesuffix(".py")).main()

    def test_scripts_take_every_command(self):
        """Flags, choices and types; a page without any command is a page of nothing."""
        for page in PAGES:
            found = commands(page)
            self.assertTrue(found, page)
            for name, flags in found:
                with self.subTest(page.name, command=f"{name} {shlex.join(flags)}"):
                    said = io.StringIO()
                    with contextlib.redirect_stderr(said):
                        try:
                            self.parse(name, flags)
                        except SystemExit:
                            self.fail(said.getvalue())

    def test_what_is_wrong_is_noticed(self):
        for name, flags in (("train.py", ["--bm"]), ("style.py", ["--presets", "starry"])):
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
                self.parse(name, flags)

    def test_links_lead_somewhere(self):
        for page in PAGES:
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
                self.assertTrue((page.parent / target).is_file(), f"{page.name}: {target}")

    def test_the_setup_commands(self):
        """Two lines install into a folder of their own, and run the main job and the tests."""
        lines = [line for line in PAGES[0].read_text().splitlines() if "pip install" in line]
        self.assertEqual([line.split()[-1] for line in lines], ["--stn", "unit_test.py"])
        for line in lines:
            self.assertIn(".venv/bin/pip install -q -r requirements.txt && .venv/bin/python", line)


if __name__ == "__main__":
    unittest.main()
