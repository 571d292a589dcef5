"""The manifest: what a package holds, file by file, and what the records said when it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noria.errors import CorruptArtifact

MANIFEST_FILE = "MANIFEST.json"
STATE_FOLDER = "model"
PREDICTIONS_FOLDER = f"{STATE_FOLDER}/predictions"
VENV_FOLDER = ".venv"
_FORMAT = 1
_MADE_LATER = (PREDICTIONS_FOLDER, VENV_FOLDER)
"""What serving and installing put into a package, as its README has it."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A package whose files are those of its manifest; ``digest`` is the manifest's own SHA-256."""

    files: int
    digest: str
    manifest: Mapping[str, Any]


def write_manifest(folder: Path, facts: Mapping[str, object]) -> None:
    """Write down ``facts``, and size and hash of every file that lies in ``folder`` now."""
    document = {"format": _FORMAT, **facts, "files": {name: _described(path) for name, path in _files(folder)}}
    (folder / MANIFEST_FILE).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def verify_package(folder: Path) -> Verified:
    """Hold every file against the manifest. Raises CorruptArtifact that names each one that differs."""
    manifest, digest = _read(folder)
    recorded: Mapping[str, Any] = manifest["files"]
    found = {name: _described(path) for name, path in _files(folder)}
    faults = [f"{name} is missing" for name in sorted(recorded.keys() - found.keys())]
    faults += [f"{name} is not in the manifest" for name in sorted(found.keys() - recorded.keys())]
    faults += [
        f"{name} was changed" for name in sorted(recorded.keys() & found.keys()) if recorded[name] != found[name]
    ]
    if faults:
        raise CorruptArtifact(
            f"package {folder.name!r} is not what its manifest says",
            details=faults,
            remedy="Copy it again from where it was made, or make it again with `noria package`.",
        )
    return Verified(len(found), digest, manifest)


def _read(folder: Path) -> tuple[Mapping[str, Any], str]:
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
        manifest: Mapping[str, Any] = json.loads(content)
        known = manifest["format"] == _FORMAT and isinstance(manifest["files"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise CorruptArtifact(
            f"{folder} is no package: it has no {MANIFEST_FILE} that this version of Noria reads",
            remedy="Name a folder that `noria package` made.",
        )
    return manifest, hashlib.sha256(content).hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Whatever is there but folders that hold something: a pipe or an empty folder is as little the package's."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        later = any(f"{name}/".startswith(f"{one}/") for one in _MADE_LATER)
        holder = path.is_dir() and not path.is_symlink() and any(path.iterdir())
        if name != MANIFEST_FILE and not later and not holder:
            yield name, path


def _described(path: Path) -> dict[str, object]:
    content = path.read_bytes() if path.is_file() else b""
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
