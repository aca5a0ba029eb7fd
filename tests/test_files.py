"""Files that are written whole or not, and many that are decoded at once."""

import errno
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np

from lab import decoding
from lab.console import LabError
from lab.decoding import decode, decode_pictures, fits_in_memory, say_read_from_disk
from lab.files import alone, attempt, read_lines, read_text, reason, write_whole
from lab.folders import PROJECT
from tests.support import environment


class ReadingTest(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = Path(holder.name) / "list.txt"

    def test_whoever_wrote_it(self):
        """Notepad, a Mac of old, PowerShell: the same text, and the same lines."""
        for text, encoding in (
            ("a b\n\n é\n", "utf-8"), ("a b\r\n\r\n é\r\n", "utf-8-sig"), ("a b\r\r é\r", "utf-8"),
            ("a b\r\n\r\n é\r\n", "utf-16"), ("\ufeffa b\n\n é\n", "utf-16-be"),
        ):  # fmt: skip
            self.path.write_bytes(text.encode(encoding))
            self.assertEqual(read_text(self.path), "a b\n\n é\n", encoding)
            self.assertEqual(read_lines(self.path), ["a b", "é"])

    def test_what_is_no_text(self):
        self.path.write_bytes("学生".encode("gbk"))
        with self.assertRaisesRegex(LabError, "list.txt: it is no UTF-8 text; save it as UTF-8"):
            read_text(self.path)
        self.assertEqual(os.fsencode(read_text(self.path, "surrogateescape")), "学生".encode("gbk"))
        with self.assertRaisesRegex(LabError, "cannot read .*: No such file"):
            read_text(self.path.with_name("none"))

    def test_nothing_else_reads_text(self):
        """A second reader would forget the byte order mark again; the course has its own."""
        others = [
            f"{path.relative_to(PROJECT)}:{number}"
            for path in sorted(PROJECT.rglob("*.py"))
            if path.relative_to(PROJECT).parts[0] not in ("tests", ".venv", "course")
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
            if re.search(r"\.read_text\(|[^.\w]open\(|\.open\((\)|newline|encoding|\"r)", line)
        ]
        self.assertEqual(others, [])


class WritingTest(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = Path(holder.name)

    def test_one_process_at_a_time(self):
        """Two that find the same data missing: one draws, and the other waits for it."""
        draws = (
            "import sys; from dataclasses import replace; from pathlib import Path\n"
            "from world import missing, signs\n"
            "few = replace(signs.draw_dataset, splits=dict(train=20, val=1, test=1))\n"
            "drawn = missing.Drawn(few, 'drawing')\n"
            "if __name__ == '__main__':\n"
            "    missing.draw_missing(drawn, Path(sys.argv[1]))\n"
        )
        program = self.root / "draws.py"
        program.write_text(draws)
        data = self.root / "data"
        processes = [
            subprocess.Popen(
                [sys.executable, program, data], cwd=PROJECT, text=True,
                env=environment() | {"PYTHONPATH": str(PROJECT)},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for _ in range(2)
        ]  # fmt: skip
        said = [process.communicate(timeout=120) for process in processes]
        self.assertEqual([process.returncode for process in processes], [0, 0], said)
        self.assertEqual(sum(output.count("drawing") for output, _ in said), 1, said)
        self.assertEqual({path.name for path in data.iterdir()}, {"train", "val", "test"})

    def test_alone(self):
        """A second one is told, waits, or is refused with what to do instead."""
        with alone(self.root, "draws into"):
            refused = f"another process draws into {self.root}: wait for it"
            with (
                self.assertRaisesRegex(LabError, refused),
                alone(self.root, "draws into", "wait for it"),
            ):
                self.fail("two at once")
        with alone(self.root, "draws into", "wait for it"):  # once it is free
            pass
        self.assertEqual(list(self.root.iterdir()), [])
        (self.root / "file").write_text("in the way")
        with (
            self.assertRaisesRegex(LabError, f"cannot write to {self.root / 'file'}"),
            alone(self.root / "file", "draws into"),
        ):
            self.fail("no folder")

    def test_reasons(self):
        for error, words in (
            (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "name"), "No space left on device"),
            (OSError("empty file"), "empty file"),
            (BrokenPipeError(), "BrokenPipeError"),
        ):
            self.assertEqual(reason(error), words)

    def test_attempt(self):
        """What the system refuses is said in one line; any other error stays what it is."""
        place = self.root / "none" / "file"
        with self.assertRaises(LabError) as caught, attempt(f"write {place}"):
            place.write_text("")
        self.assertEqual(str(caught.exception), f"cannot write {place}: No such file or directory")
        with self.assertRaises(ValueError), attempt("write"):
            raise ValueError

    def test_whole_or_as_it_was(self):
        path = self.root / "metrics.csv"
        write_whole(path, "old\udcff")
        self.assertEqual(path.read_bytes(), b"old\xff")
        with (
            mock.patch.object(Path, "replace", side_effect=OSError(errno.EIO, "gone")),
            self.assertRaisesRegex(LabError, "cannot write .*metrics.csv: gone"),
        ):
            write_whole(path, "new")
        self.assertEqual(path.read_bytes(), b"old\xff")
        write_whole(path, "new")
        self.assertEqual(path.read_text(), "new")


class DecodingTest(unittest.TestCase):
    def read(self, number):
        time.sleep(0.01 * (number % 3))
        if number % 4 == 2:
            raise OSError(f"{number} is damaged")
        return np.full((2, 3, 3), number, np.uint8), str(number)

    def test_in_order(self):
        """Each file in its place, whoever is done first; what is wrong does not stop others."""
        threads = set()

        def read(number):
            threads.add(threading.get_ident())
            return self.read(number)[1]

        decoded = list(decode(read, range(8), "reading"))
        expected = [(k, None, f"{k} is damaged") if k % 4 == 2 else (k, str(k), "") for k in
                    range(8)]  # fmt: skip
        self.assertEqual(decoded, expected)
        self.assertNotIn(threading.get_ident(), threads)

    def test_other_errors_are_raised(self):
        with self.assertRaises(ZeroDivisionError):
            list(decode(lambda number: 1 // number, [1, 0, 1], "reading"))

    def test_all_pictures_or_none(self):
        """Five of six can be read, of 18 bytes each."""
        for limit, kept in ((90, True), (89, False)):
            with mock.patch.object(decoding, "CACHE_BUDGET", limit):
                readable, pictures, problems = decode_pictures(self.read, range(6), "reading")
                self.assertEqual(fits_in_memory(5, (2, 3, 3)), kept)
            self.assertEqual(readable, [(k, str(k)) for k in (0, 1, 3, 4, 5)])
            self.assertEqual(problems, [(2, "2 is damaged")])
            self.assertEqual(pictures is not None, kept)
            if kept:
                self.assertEqual([int(p[0, 0, 0]) for p in pictures], [0, 1, 3, 4, 5])

    def test_what_is_said(self):
        with redirect_stdout(io.StringIO()) as said:
            say_read_from_disk(Path("data"), 1234, "pictures")
        self.assertIn("data: 1,234 pictures would take more than 2.0 GiB of", said.getvalue())


if __name__ == "__main__":
    unittest.main()
