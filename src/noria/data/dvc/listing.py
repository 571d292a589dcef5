"""`noria data list`, and the version of what a run reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from noria.data.dvc.checkout import manifest_of, select
from noria.data.dvc.dvc_files import Output
from noria.data.dvc.repository import Repository, find_repository
from noria.data.dvc.workspace import Progress, content_of, silent
from noria.errors import NotFound


class Status(StrEnum):
    """How an output stands."""

    UP_TO_DATE = "up to date"
    MODIFIED = "modified"
    MISSING = "missing"
    NOT_IN_CACHE = "not in cache"


@dataclass(frozen=True, slots=True)
class Tracked:
    """An output, the `.dvc` file that records it, and whether workspace and cache hold what it records."""

    path: Path
    dvc_file: Path
    output: Output
    status: Status


def list_tracked(
    repository: Repository, targets: Sequence[Path | str] = (), progress: Progress = silent
) -> list[Tracked]:
    """The outputs that ``targets`` name, all without any, by path."""
    rows = []
    with repository.reading():
        chosen = select(repository, targets)
        for done, (file, output, path) in enumerate(chosen, 1):
            rows.append(Tracked(path, file.path, output, _status(repository, output, path)))
            progress("looking", done, len(chosen))
    return sorted(rows, key=lambda row: row.path)


def version_of(path: Path | str) -> str | None:
    """The MD5 that DVC would record for what lies at ``path`` now; None when nothing tracks it.

    That of a folder ends in ``.dir``. A path inside a tracked folder has the version of its own content. So what a run
    read can be named even when it was not yet added; once it was, the version is the one in its `.dvc` file.
    Raises InvalidInput when ``path`` does not exist.
    """
    repository = find_repository(Path(path).absolute().parent)
    if repository is None:
        return None
    target = repository.inside(path)
    tracked = [place for file in repository.dvc_files() for place in file.targets]
    if not any(target.is_relative_to(place) for place in tracked):
        return None
    with repository.reading():
        return content_of(repository, target).md5


def _status(repository: Repository, output: Output, path: Path) -> Status:
    if not path.exists():
        return Status.MISSING
    if content_of(repository, path).md5 != output.md5:
        return Status.MODIFIED
    return Status.UP_TO_DATE if _is_cached(repository, output) else Status.NOT_IN_CACHE


def _is_cached(repository: Repository, output: Output) -> bool:
    try:
        wanted = set(manifest_of(repository, output).files.values())
    except NotFound:
        return False
    return len(repository.cache.present(wanted)) == len(wanted)
