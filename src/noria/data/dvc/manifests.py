"""Manifests: the files of a folder and their hashes, as the JSON of DVC's ``.dir`` objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from noria.data.dvc.dvc_files import FOLDER_SUFFIX, is_md5
from noria.data.dvc.hashes import md5_of_pieces
from noria.errors import CorruptArtifact


@dataclass(frozen=True, slots=True)
class Manifest:
    """Relative POSIX path → MD5 of each file; the path ``""`` stands for an output that is a file itself."""

    files: Mapping[str, str]

    @property
    def content(self) -> bytes:
        """The bytes of the ``.dir`` object."""
        entries = [{"md5": self.files[path], "relpath": path} for path in sorted(self.files)]
        return json.dumps(entries).encode()

    @property
    def md5(self) -> str:
        """The name of the ``.dir`` object."""
        return md5_of_pieces([self.content]) + FOLDER_SUFFIX


def parse_manifest(name: str, content: bytes) -> Manifest:
    """The manifest in the object ``name``. Raises CorruptArtifact, also for paths that leave the folder."""
    try:
        entries = json.loads(content)
        files = {entry["relpath"]: entry["md5"] for entry in entries}
        sound = all(_is_inside(path) and is_md5(md5) for path, md5 in files.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise CorruptArtifact(
            f"the manifest {name} is damaged, or names files outside its folder",
            remedy="Fetch it again from a remote you trust, or add the folder again.",
        )
    return Manifest(files)


def _is_inside(path: str) -> bool:
    return all(part not in ("", ".", "..") for part in path.split("/")) and "\0" not in path
