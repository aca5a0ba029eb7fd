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
    torch.ones(2**24)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

unprepared = faults()
start("cpu")
faults()
print(unprepared, faults())
"""


@unittest.skipUnless(platform.libc_ver()[0] == "glibc", "the allocator of glibc")
class MemoryTest(unittest.TestCase):
    def test_what_was_freed_is_not_fetched_again(self):
        """No page of a block is new to the process that had a block as large before."""
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], cwd=PROJECT, capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        unprepared, prepared = map(int, done.stdout.split())
        self.assertGreater(unprepared, 10 * (prepared + 1))


if __name__ == "__main__":
    unittest.main()
