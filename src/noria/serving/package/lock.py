"""Locks: every distribution an environment gets, by version and by the hashes its files may have."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from noria.errors import InvalidData
from noria.optimize.environments import run_uv

_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")
_INPUT, _CONSTRAINTS, _OUTPUT = "requirements.in", "constraints.txt", "requirements.lock"


@dataclass(frozen=True, slots=True)
class Locked:
    """One distribution of a lock; ``via`` are those that need it."""

    name: str
    version: str
    hashes: Sequence[str]
    via: Sequence[str] = ()

    @property
    def lines(self) -> str:
        """As a requirements file has it."""
        pinned = " \\\n    ".join([f"{self.name}=={self.version}", *(f"--hash={one}" for one in self.hashes)])
        return f"{pinned}\n    # via {', '.join(self.via)}\n" if self.via else f"{pinned}\n"


def resolve(requirements: Sequence[str], python: str, versions: Mapping[str, str] | None = None) -> list[Locked]:
    """All that ``requirements`` come to on Linux under ``python``, at ``versions`` where those are given.

    Raises Unavailable when uv finds no solution or no index, InvalidData for what has no version or hash.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / _INPUT).write_text("\n".join(requirements) + "\n")
        pins = [f"{one}=={version}" for one, version in (versions or {}).items()]
        (folder / _CONSTRAINTS).write_text("\n".join(pins) + "\n")
        run_uv(
            "pip", "compile", "--quiet", "--generate-hashes", "--no-emit-index-url", "--no-header",
            "--annotation-style", "line", "--python-platform", "linux", "--python-version", python,
            "--constraint", _CONSTRAINTS, "--output-file", _OUTPUT, _INPUT, folder=folder,
        )  # fmt: skip
        return parse((folder / _OUTPUT).read_text())


def parse(text: str) -> list[Locked]:
    """The distributions of a requirements file with hashes. Raises InvalidData for one without version or hash."""
    return [_locked(entry) for entry in re.split(r"\n(?=\S)", text.strip()) if not entry.startswith("#")]


def _locked(entry: str) -> Locked:
    match, hashes = _PINNED.match(entry), _HASH.findall(entry)
    if match is None or not hashes:
        raise InvalidData(
            f"{entry.splitlines()[0].rstrip(' ' + chr(92))!r} cannot be locked: it has no version, or no hash",
            remedy="Require packages by name and version, from an index, not by address or path.",
        )
    _, _, comment = entry.partition("# via ")
    via = (one.strip() for one in comment.replace("\n", ",").replace("#", "").split(","))
    return Locked(match["name"], match["version"], hashes, tuple(one for one in via if one and not one.startswith("-")))
