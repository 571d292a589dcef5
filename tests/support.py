"""What tests call: the command line as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def noria(*arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "noria", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def require(found: object, what: str, how: str) -> None:
    """Skip without ``what``, telling how to get it; in CI that is a failure."""
    if not found:
        message = f"{what} is missing: {how}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
