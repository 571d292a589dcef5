"""What tests call: the command line as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

_MLFLOW = Path(__file__).parents[1] / ".bench/mlflow"
_INSTALL = ["mlflow==3.17.*", "scikit-learn", "cloudpickle"]


def noria(*arguments: str, cwd: Path, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "noria", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        input=stdin,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def process_of(command: str, folder: Path) -> int | None:
    """The process id of ``noria COMMAND`` on the project in ``folder``."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes().decode().split("\0")
        except OSError:
            continue
        if command in words and str(folder) in words:
            return int(line.parent.name)
    return None


def resident_megabytes(pid: int) -> float:
    """The memory a process holds."""
    return int(re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


def require(found: object, what: str, how: str) -> None:
    """Skip without ``what``, telling how to get it; in CI that is a failure."""
    if not found:
        message = f"{what} is missing: {how}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def mlflow_environment() -> Path:
    """The interpreter of an environment with MLflow in it, installed when it is missing."""
    python = _MLFLOW / "bin/python"
    _MLFLOW.parent.mkdir(exist_ok=True)
    with FileLock(f"{_MLFLOW}.lock"):
        if not (_MLFLOW / "bin/mlflow").exists():
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, _MLFLOW], check=True)
            subprocess.run([*uv, "pip", "install", "--quiet", "--python", python, *_INSTALL], check=True)
    return python
