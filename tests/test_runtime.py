"""What every script starts with: memory that stays, threads that do not wait for others."""

import io
import itertools
import os
import platform
import subprocess
import sys
import time
import unittest
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from unittest import mock

import torch

from lab import runtime
from lab.runtime import Runtime
from tests.support import PROJECT

# What glibc's heap has grown by when a block has come and gone (mallinfo of malloc/malloc.h).
GROWTH = """
import ctypes
import torch
from lab.runtime import start

class Mallinfo(ctypes.Structure):
    _fields_ = [("arena", ctypes.c_int), ("others", ctypes.c_int * 9)]

mallinfo = ctypes.CDLL("libc.so.6").mallinfo
mallinfo.restype = Mallinfo

def growth():
    storage = torch.empty(0).untyped_storage()
    before = mallinfo().arena
    storage.resize_(2**26)
    storage.resize_(0)  # nothing was allocated after it: the system could have it back
    return mallinfo().arena - before

unprepared = growth()
start("cpu")
print(unprepared, growth())
"""


@unittest.skipUnless(platform.libc_ver()[0] == "glibc", "the allocator of glibc")
class MemoryTest(unittest.TestCase):
    def test_what_was_freed_is_kept(self):
        """A layer's block stays a part of the heap; malloc by itself gives it back."""
        done = subprocess.run(
            [sys.executable, "-c", GROWTH], cwd=PROJECT, capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        unprepared, prepared = map(int, done.stdout.split())
        self.assertLess(unprepared, 2**25)
        self.assertGreater(prepared, 2**25)


class ThreadTest(unittest.TestCase):
    def setUp(self):
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())

    def test_it_looks_now_and_then(self):
        """Soon after a change, ever less often while nothing changes, but again and again."""
        most, clock, looked = Runtime(torch.device("cpu"), threads=2), [100.0], []

        def taken() -> tuple[float, float]:
            looked.append(clock[0])  # others: one of three cores, once many
            return clock[0] + 50 * (len(looked) >= 9), 0.0

        torch.set_num_threads(2)
        with (
            mock.patch.object(runtime, "seconds_taken", taken),
            mock.patch("time.monotonic", lambda: clock[0]),
            mock.patch("os.cpu_count", return_value=3), redirect_stdout(io.StringIO()),
        ):  # fmt: skip
            runtime._looks = runtime.Looks(last=clock[0], taken=taken())
            for _ in range(400):
                most.take_free_threads()
                clock[0] += 0.1
        pauses = [later - sooner for sooner, later in itertools.pairwise(looked)]
        for pause, expected in zip(pauses, (0.3, 0.6, 1.2, 2.4, 4.8, 5, 5, 5, 0.3), strict=False):
            self.assertAlmostEqual(pause, expected, delta=0.11)

    def test_what_others_leave(self):
        """Of four cores: what all have computed in two seconds, but for what is our own."""
        torch.set_num_threads(4)
        most = Runtime(torch.device("cpu"), threads=4)
        known = (7.8, 7.6, 4), (7.8, 7.2, 3), (8.0, 4.0, 2), (8.0, 0.5, 1), (9.9, 0.0, 1)
        for all_taken, own_taken, expected in (*known, (2.0, 2.1, 4)):
            runtime._looks = runtime.Looks(last=50.0, taken=(1000.0, 30.0))
            taken = 1000 + all_taken, 30 + own_taken
            before = torch.get_num_threads()
            with (
                mock.patch("time.monotonic", return_value=52.0),
                mock.patch.object(runtime, "seconds_taken", return_value=taken),
                mock.patch("os.cpu_count", return_value=4), redirect_stdout(io.StringIO()) as said,
            ):  # fmt: skip
                most.take_free_threads()
            self.assertEqual(torch.get_num_threads(), expected)
            words = f"Computing with {expected} of 4 threads"
            words += "; others keep cores busy\n" if expected < 4 else "\n"
            self.assertEqual(said.getvalue(), words if before != expected else "")

    def test_where_nobody_says(self):
        """Another system: as many as there are."""
        runtime._looks = runtime.Looks(last=-100.0, taken=None)
        torch.set_num_threads(2)
        Runtime(torch.device("cpu"), threads=2).take_free_threads()
        self.assertEqual(torch.get_num_threads(), 2)

    @unittest.skipUnless(Path("/proc/stat").exists(), "what Linux says of its cores")
    def test_others_are_seen(self):
        """A busy process for half a second, beside a busy thread of ours."""
        looks = runtime.Looks()
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            end = time.monotonic() + 0.7
            while time.monotonic() < end:
                pass
            self.assertGreater(looks.others(), 0.2)
            busy.kill()

    def test_a_number_that_is_given_stays(self):
        for environment, most in (({"OMP_NUM_THREADS": "2"}, 1), ({}, torch.get_num_threads())):
            with ExitStack() as stack:
                stack.enter_context(mock.patch.dict(os.environ, environment))
                if not environment:
                    os.environ.pop("OMP_NUM_THREADS", None)
                self.assertEqual(runtime.start("cpu").threads, most)

    @unittest.skipUnless(Path("/proc/stat").exists(), "what Linux says of its cores")
    def test_beside_busy_processes(self):
        """Two threads of ours where all cores are taken twice over: one computes alone."""
        busy = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(2 * os.cpu_count())
        ]
        try:
            runtime._looks = runtime.Looks()
            time.sleep(2 * runtime.SOON)
            with redirect_stdout(io.StringIO()):
                Runtime(torch.device("cpu"), threads=2).take_free_threads()
            self.assertEqual(torch.get_num_threads(), 1)
        finally:
            for process in busy:
                process.kill()
                process.wait()


if __name__ == "__main__":
    unittest.main()
