"""Manifests as files: one an object, named so that they are applied in order."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from noria.errors import Conflict
from noria.serving.kubernetes.pods import Manifest

HEAD = "# Written by `noria deploy k8s`; write it anew rather than change it.\n"
_LIST_FILE = ".noria-files"
"""Names what was written into a folder: that alone is replaced."""


def _text(dumper: Any, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper: Any = type("_Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
"""Texts of several lines as blocks, and no aliases: manifests are read by people."""
_Dumper.add_representer(str, _text)


def yaml_of(document: object) -> str:
    """One YAML document."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return text


def file_names(manifests: Sequence[Manifest]) -> list[str]:
    """A name for each: its place, its kind, and its own name."""
    width = len(str(len(manifests)))
    return [
        f"{place:0{width}}-{one['kind'].lower()}-{one['metadata']['name']}.yaml"
        for place, one in enumerate(manifests, 1)
    ]


def write_manifests(manifests: Sequence[Manifest], folder: Path) -> list[str]:
    """Write the manifests into ``folder``, in place of those written there before; returns the files' names.

    Raises Conflict for a folder that holds anything else.
    """
    names = file_names(manifests)
    write_files({name: HEAD + yaml_of(one) for name, one in zip(names, manifests, strict=True)}, folder)
    return names


def write_files(files: Mapping[str, str], folder: Path) -> None:
    """Write ``files`` into ``folder``, all or none. Raises Conflict for a folder that holds anything else."""
    _check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".manifests-") as name:
        staging = Path(name) / "manifests"
        for file, text in {**files, _LIST_FILE: "\n".join([*files, ""])}.items():
            path = staging / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        return
    listed = folder / _LIST_FILE
    ours = {_LIST_FILE, *(listed.read_text().splitlines() if listed.is_file() else [])}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if not folder.is_dir() or found - ours:
        other = sorted(found - ours)[:1] or [folder.name]
        raise Conflict(f"{folder} holds what `noria deploy k8s` did not write: {other[0]}", remedy="Name a new folder.")
