"""What every script starts with: memory that stays."""

import platform
import subprocess
import sys
import unittest

from tests.support import PROJECT

FAULTS = """
import resource
import torch
from lab.runtime import start

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

unprepared = faults()
start("cpu")
print(unprepared, faults())
"""


@unittest.skipUnless(platform.libc_ver()[0] == "glibc", "the allocator of glibc")
class MemoryTest(unittest.TestCase):
    def test_what_was_freed_is_not_fetched_again(self):
        """Few pages of a block are new to the process that had a block as large before."""
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], cwd=PROJECT, capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        unprepared, prepared = map(int, done.stdout.split())
        # Where a freed block lies a few bytes off, one more is fetched: at times, not ten times.
        self.assertLess(prepared, unprepared / 2)


if __name__ == "__main__":
    unittest.main()
