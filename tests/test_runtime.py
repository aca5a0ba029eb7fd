"""What every script starts with: memory that stays."""

import platform
import subprocess
import sys
import unittest

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


if __name__ == "__main__":
    unittest.main()
