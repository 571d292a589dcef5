"""`noria data diff`: files added, modified, deleted and renamed between two versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from noria.data.dvc.checkout import manifest_of, select
from noria.data.dvc.dvc_files import DvcFile
from noria.data.dvc.repository import Repository
from noria.data.dvc.tables import TableChange, compare_tables, is_table
from noria.data.dvc.workspace import Progress, content_of, silent
from noria.errors import NotFound


@dataclass(frozen=True, slots=True)
class Side:
    """One file of a version: its hash, its size in bytes where known, and where its content lies."""

    md5: str
    size: int | None
    place: Path


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a file: ``kind`` is added, modified, deleted or renamed; ``origin`` the path it had before."""

    kind: str
    path: str
    origin: str
    before: Side | None
    after: Side | None
    table: TableChange | None = None


def diff(
    repository: Repository,
    older: str = "",
    newer: str = "",
    *,
    targets: Sequence[Path | str] = (),
    key: Sequence[str] = (),
    progress: Progress = silent,
) -> list[Change]:
    """What changed from ``older`` to ``newer``, by path.

    They are revisions of git; without ``newer`` it is the workspace, and without ``older`` what the `.dvc` files record
    now. ``key`` names the columns by which rows of modified Parquet and CSV files are told apart. Raises NotFound for a
    revision, target or manifest that is not there, InvalidInput for a key that a table does not have.
    """
    with repository.reading():
        before, after = _sides(repository, older, newer, targets)
        if targets and not before and not after:
            raise NotFound(f"{', '.join(map(str, targets))}: tracked in neither version", remedy="Check the paths.")
        changes = list(_changes(before, after))
        return [_with_table(change, key, progress, n, len(changes)) for n, change in enumerate(changes, 1)]


def _sides(
    repository: Repository, older: str, newer: str, targets: Sequence[Path | str]
) -> tuple[dict[str, Side], dict[str, Side]]:
    if older:
        before = _recorded(repository, repository.dvc_files_at(repository.require_git().resolve(older)), targets)
    else:
        before = _recorded(repository, [file for file, _, _ in select(repository, targets)], targets)
    if newer:
        after = _recorded(repository, repository.dvc_files_at(repository.require_git().resolve(newer)), targets)
    else:
        after = _present(repository, targets)
    return before, after


def _recorded(repository: Repository, files: Iterable[DvcFile], targets: Sequence[Path | str]) -> dict[str, Side]:
    """Path from the root → what the `.dvc` files record there."""
    named = [repository.inside(target) for target in targets]
    sides: dict[str, Side] = {}
    for file in {file.path: file for file in files}.values():
        for output, path in zip(file.outputs, file.targets, strict=True):
            if not named or any(file.path == name or path.is_relative_to(name) for name in named):
                manifest = manifest_of(repository, output)
                found = repository.cache.present(set(manifest.files.values()))
                for name, md5 in manifest.files.items():
                    size = found[md5].st_size if md5 in found else (None if output.is_folder else output.size)
                    sides[repository.name_of(path / name)] = Side(md5, size, Path(repository.cache.path(md5)))
    return sides


def _present(repository: Repository, targets: Sequence[Path | str]) -> dict[str, Side]:
    sides: dict[str, Side] = {}
    for _, _, path in select(repository, targets):
        if path.exists():
            content = content_of(repository, path)
            for name, md5 in content.manifest.files.items():
                sides[repository.name_of(path / name)] = Side(md5, content.sizes[name], path / name)
    return sides


def _changes(before: Mapping[str, Side], after: Mapping[str, Side]) -> Iterable[Change]:
    """One change a path; a file deleted here and added there with the same content was renamed."""
    gone: dict[str, list[str]] = {}
    for path in sorted(before.keys() - after.keys(), reverse=True):
        gone.setdefault(before[path].md5, []).append(path)
    found = []
    for path in sorted(after):
        if path not in before:
            origins = gone.get(after[path].md5)
            origin = origins.pop() if origins else ""
            kind = "renamed" if origin else "added"
            found.append(Change(kind, path, origin, before.get(origin), after[path]))
        elif before[path].md5 != after[path].md5:
            found.append(Change("modified", path, "", before[path], after[path]))
    left = [path for paths in gone.values() for path in paths]
    found += [Change("deleted", path, "", before[path], None) for path in left]
    return sorted(found, key=lambda change: change.path)


def _with_table(change: Change, key: Sequence[str], progress: Progress, done: int, of: int) -> Change:
    progress("comparing", done, of)
    if change.kind != "modified" or not is_table(change.path) or change.before is None or change.after is None:
        return change
    for side in (change.before, change.after):
        if not side.place.exists():
            if not key:
                return change
            raise NotFound(
                f"the rows of {change.path} cannot be compared: {side.md5} is not in the cache",
                remedy="Fetch it with `noria data pull`, at the revision that has it.",
            )
    table = compare_tables(change.path, change.before.place, change.after.place, key)
    return Change(change.kind, change.path, change.origin, change.before, change.after, table)
