"""What flags take, and the frozen records that they become."""

import argparse
import contextlib
import io
import unittest
from dataclasses import dataclass

import numpy as np
import torch

from lab.flags import (
    Parser,
    add_flags,
    as_name,
    as_words,
    asked_for,
    flag,
    plain_name,
    positive_int,
    read_flags,
    seed,
    share,
)
from tasks import ViewFlags


@dataclass(frozen=True)
class Flags:
    """One of each kind."""

    size: int = flag(320, positive_int, "pixels a side", "--side")
    mirror: bool = flag(True, bool, "mirror left and right")
    quick: bool = flag(False, bool, "leave out half", undone=False)
    kind: str = flag("round", ("round", "square"), "shape", group="looks")
    file: str | None = flag(None, str, "read it", metavar="FILE", excludes="source", group="looks")
    address: str | None = flag(None, str, "fetch it", excludes="source", group="looks")
    words: tuple[str, ...] = ()  # without a flag


class RecordTest(unittest.TestCase):
    """From a command line to a frozen record."""

    def parse(self, *words: str, **options: object) -> Flags:
        parser = Parser("Do something.\n\nAt length.", prog="script.py")
        add_flags(parser, Flags, **options)
        return read_flags(parser.parse_args(words), Flags)

    def said(self, *words: str, **options: object) -> tuple[int, str]:
        """Return the exit code, and what is printed."""
        text = io.StringIO()
        with (
            self.assertRaises(SystemExit) as end,
            contextlib.redirect_stdout(text),
            contextlib.redirect_stderr(text),
        ):
            self.parse(*words, **options)
        return end.exception.code, text.getvalue()

    def test_what_is_given(self):
        """All by their declared names; what has no flag, or is not given, keeps its default."""
        self.assertEqual(self.parse(), Flags())
        given = self.parse("--side", "3", "--no-mirror", "--quick", "--kind", "square")
        self.assertEqual(given, Flags(3, False, True, "square"))
        self.assertEqual(self.parse("--file", "a").file, "a")
        with self.assertRaises(AttributeError):
            given.size = 4

    def test_other_defaults(self):
        """A task's own hold unless given, those that are nothing, too."""
        own = {"size": 7, "mirror": False}
        self.assertEqual(self.parse(defaults=own), Flags(size=7, mirror=False))
        self.assertEqual(self.parse("--mirror", "--size", "8", defaults=own), Flags(size=8))
        self.assertIn("(default 7)", self.said("--help", defaults=own)[1])

    def test_some_of_them(self):
        self.assertEqual(self.parse("--size", "2", only=("size", "kind")), Flags(2))
        self.assertEqual(self.said("--quick", only=("size", "kind"))[0], 2)

    def test_what_is_refused(self):
        """In one line: a value that is none, two that exclude each other, half a flag."""
        for words, why in (
            (("--size", "0"), "--size/--side: '0' is not a whole number of at least 1"),
            (("--kind", "flat"), "--kind: invalid choice: 'flat'"),
            (("--file", "a", "--address", "b"), "--address: not allowed with argument --file"),
            (("--no-quick",), "unrecognized arguments: --no-quick"),
            (("--siz", "3"), "unrecognized arguments: --siz 3"),
            (("--words", "a"), "unrecognized arguments: --words a"),
        ):
            with self.subTest(words):
                code, text = self.said(*words)
                self.assertEqual((code, len(text.splitlines())), (2, 1), text)
                self.assertTrue(text.startswith("script.py: error: "), text)
                self.assertIn(why, text)
                self.assertTrue(text.endswith(" (--help lists the flags)\n"), text)

    def test_help(self):
        """The text's first paragraph; groups, defaults and other names of flags."""
        code, text = self.said("--help")
        self.assertEqual(code, 0)
        for words in ("Do something.", "--side", "pixels a side (default 320)", "--no-mirror",
                      "\nlooks:\n", "shape (default round)", "--file FILE"):  # fmt: skip
            self.assertIn(words, text)
        for words in ("At length", "--no-quick", "None"):
            self.assertNotIn(words, text)


class NameTest(unittest.TestCase):
    """What was asked for, as the end of a file's name and as words."""

    def test_asked_for(self):
        """Those alone that differ from their defaults."""
        flags = ViewFlags(type="class", target=["no entry", "3"], steps=None, lr=0.5)
        asked = asked_for(flags, "target", "steps", "lr", "seed")
        self.assertEqual(asked, {"target": ["no entry", "3"], "lr": 0.5})
        self.assertEqual(as_name(asked), "_target_no_entry_3_lr_0.5")
        self.assertEqual(as_words(asked), "--target 'no entry' 3 --lr 0.5")
        self.assertEqual((as_name({}), as_words({})), ("", ""))
        first = asked_for(ViewFlags(image_idx=0, seed=0), "image_idx", "seed")
        self.assertEqual(first, {"image_idx": 0, "seed": 0})

    def test_two_texts_have_two_names(self):
        """Short and of plain letters, whatever was asked for."""
        texts = (
            "stop",
            "a/stop",
            "b/stop",
            "st\\op",
            "s" * 70,
            "s" * 71,
            "停",
            "止",
            "\udcff",
            "..",
        )
        names = [plain_name(text) for text in texts]
        self.assertEqual(len(set(names)), len(texts))
        for name in names:
            self.assertRegex(name, r"^[A-Za-z0-9._-]{1,69}$")
        self.assertEqual(names[0], "stop")


class NumberTest(unittest.TestCase):
    def test_seed(self):
        """Whole numbers that every generator takes, and no others."""
        for text in ("0", "7", str(2**63 - 1)):
            value = seed(text)
            self.assertEqual(str(value), text)
            torch.manual_seed(value)
            torch.Generator().manual_seed(value)
            np.random.default_rng([value, 1])
        for text in ("-1", "1.5", "", "x", str(2**63), "1" + "0" * 20, "9" * 5000):
            with self.assertRaisesRegex(argparse.ArgumentTypeError, "is not a whole number from 0"):
                seed(text)

    def test_share(self):
        self.assertEqual(share("0.25"), 0.25)
        for text in ("0", "1", "-0.1", "nan", "x"):
            with self.assertRaisesRegex(argparse.ArgumentTypeError, "a number between 0 and 1"):
                share(text)


if __name__ == "__main__":
    unittest.main()
