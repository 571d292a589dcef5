"""Environments that models bring along: made once with uv, kept, shared by all that ask for the same."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from noria.errors import InvalidConfig, Unavailable

_PINNED = re.compile(r"^\s*([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*==\s*([\w.+!-]+)\s*$")
_ERROR_LINES = 12
_COMPLETE = ".complete"
_CACHE_FOLDER = "noria/environments"
ENVIRONMENTS_VARIABLE = "NORIA_ENVIRONMENTS"


def requirements_of(folder: Path) -> Sequence[str]:
    """The packages an MLflow model says it needs; none when it says nothing."""
    path = folder / "requirements.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [text for line in lines if (text := line.split("#")[0].strip())]


def python_of(folder: Path, default: str = "") -> str:
    """The Python version an MLflow model was logged with, such as 3.11.7; ``default``, or ours, if it says nothing."""
    path = folder / "python_env.yaml"
    document: Any = yaml.safe_load(path.read_text()) if path.is_file() else {}
    return str((document or {}).get("python") or default or f"{sys.version_info[0]}.{sys.version_info[1]}")


def fits_here(requirements: Sequence[str], packages: Sequence[str]) -> bool:
    """Whether this process's environment has ``packages``, in the versions that ``requirements`` pin, if they do."""
    pinned = {match[1].lower().replace("_", "-"): match[2] for line in requirements if (match := _PINNED.match(line))}
    for package in packages:
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError:
            return False
        if package in pinned and installed.split("+")[0] != pinned[package].split("+")[0]:
            return False
    return True


def environment_for(requirements: Sequence[str], python: str) -> Path:
    """The interpreter of an environment with these packages, in the user's cache; made when it is missing.

    Where NORIA_MODEL_PYTHON names an interpreter, that one is taken for all models, as it is: for machines without a
    package index. Raises InvalidConfig without uv, Unavailable when the packages cannot be installed.
    """
    if given := os.environ.get("NORIA_MODEL_PYTHON"):
        return Path(given)
    root, name = _root(), environment_name(requirements, python)
    folder, interpreter = root / name, root / name / "bin/python"
    if (folder / _COMPLETE).is_file():
        return interpreter  # before the lock: a container's file system may be read-only
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making the same
        if not (folder / _COMPLETE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            version = ".".join(python.split(".")[:2])
            run_uv("venv", "--quiet", "--python", version, str(folder))
            if requirements:
                run_uv("pip", "install", "--quiet", "--python", str(interpreter), *requirements)
            (folder / _COMPLETE).write_text("\n".join(requirements))
    return interpreter


def environment_name(requirements: Sequence[str], python: str) -> str:
    """The folder of the environment with these packages, below the one that all environments are in."""
    return hashlib.sha256("\n".join([python, *sorted(requirements)]).encode()).hexdigest()[:16]


def _root() -> Path:
    """Where the environments are: in the user's cache, but for a package, which brings its own."""
    named = os.environ.get(ENVIRONMENTS_VARIABLE)
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / _CACHE_FOLDER


def run_uv(*words: str, folder: Path | None = None) -> None:
    """Run uv in ``folder``, with our own environment out of its sight.

    Raises InvalidConfig without uv, Unavailable when it fails.
    """
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise InvalidConfig(
            "uv, which makes the environments of models and locks them, is not installed", remedy="pip install uv"
        )
    done = subprocess.run([uv, *words], cwd=folder, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        lines = done.stderr.strip().splitlines()[-_ERROR_LINES:]
        raise Unavailable(
            f"the packages a model needs cannot be {'locked' if 'compile' in words else 'installed'}",
            details=lines,
            remedy="Check the model's requirements.txt, and that this machine reaches a package index.",
        )


def _environment() -> Mapping[str, str]:
    """Ours, without what would point uv to our own packages."""
    return {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
