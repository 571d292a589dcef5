"""A server that took large requests becomes small again."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from support import resident_megabytes
from noria.surface.http.memory import give_back, keep_one_arena
keep_one_arena()
held = [bytes(2000) for _ in range(30_000)]
last = held.pop()  # lies at the end, so that the C library keeps all that is before it
del held
before = resident_megabytes(os.getpid())
give_back()
print(before - resident_megabytes(os.getpid()))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="nothing is done elsewhere")
def test_what_is_free_goes_back_to_the_system():
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 40
