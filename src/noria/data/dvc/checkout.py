"""`noria data checkout`: the workspace as the `.dvc` files record it."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from noria.data.dvc.dvc_files import DvcFile, Output
from noria.data.dvc.hashes import Fingerprint
from noria.data.dvc.links import LinkKind, link
from noria.data.dvc.manifests import Manifest
from noria.data.dvc.objects import in_parallel
from noria.data.dvc.repository import Repository
from noria.data.dvc.workspace import Content, Progress, content_of, place_of, silent
from noria.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class CheckedOut:
    """How many files of an output were added to the workspace, replaced and removed."""

    path: Path
    added: int
    replaced: int
    removed: int


def select(repository: Repository, targets: Sequence[Path | str]) -> list[tuple[DvcFile, Output, Path]]:
    """The outputs that ``targets`` name by their path, by their `.dvc` file or by a folder above; all without any.

    Raises NotFound for a target that names none.
    """
    everything = [
        (file, output, path)
        for file in repository.dvc_files()
        for output, path in zip(file.outputs, file.targets, strict=True)
    ]
    if not targets:
        return everything
    chosen: list[tuple[DvcFile, Output, Path]] = []
    for target in targets:
        named = repository.inside(target)
        found = [item for item in everything if named == item[0].path or item[2].is_relative_to(named)]
        if not found:
            above = next((item[2] for item in everything if named.is_relative_to(item[2])), None)
            remedy = f"Name the whole of {repository.name_of(above)}." if above else "`noria data list` tells what is."
            raise NotFound(f"{target} is not tracked", remedy=remedy)
        chosen += [item for item in found if item not in chosen]
    return chosen


def manifest_of(repository: Repository, output: Output) -> Manifest:
    """The files of an output. Raises NotFound, CorruptArtifact when its manifest is not sound in the cache."""
    return repository.cache.manifest(output.md5) if output.is_folder else Manifest({"": output.md5})


def checkout(
    repository: Repository, targets: Sequence[Path | str] = (), *, force: bool = False, progress: Progress = silent
) -> list[CheckedOut]:
    """Bring the workspace to what is recorded.

    Every object is checked before the first file is touched. Raises NotFound for objects that are not in the cache,
    CorruptArtifact for damaged ones, and, unless ``force``, Conflict for content that would be lost.
    """
    with repository.locked():
        chosen = select(repository, targets)
        wanted = [(output, path, manifest_of(repository, output)) for _, output, path in chosen]
        repository.cache.require(md5 for _, _, manifest in wanted for md5 in manifest.files.values())
        for _, path, manifest in wanted:
            _check_links(repository, path, manifest)
        present = [_present(repository, path) for _, path, _ in wanted]
        if not force:
            _check_losses(repository, [(p, m, c) for (_, p, m), c in zip(wanted, present, strict=True)])
        return [_bring(repository, *item, now, progress) for item, now in zip(wanted, present, strict=True)]


def _check_links(repository: Repository, path: Path, manifest: Manifest) -> None:
    """Raises Conflict when a folder that data belongs into is a link: what is written there would land elsewhere."""
    folders = {Path(place_of(path, name)).parent for name in manifest.files} | {path.parent}
    for folder in folders.union(*(inner.parents for inner in folders)):
        if folder.is_relative_to(repository.root) and folder != repository.root and folder.is_symlink():
            raise Conflict(
                f"{repository.name_of(folder)} is a link, and {repository.name_of(path)} has files in it",
                remedy="Remove the link, then check out again.",
            )


def _present(repository: Repository, path: Path) -> Content | None:
    return content_of(repository, path) if os.path.lexists(path) and _leads_somewhere(path) else None


def _leads_somewhere(path: Path) -> bool:
    """Whether there is content at ``path``: a broken link, as to an object since removed, holds none."""
    try:
        return path.exists()
    except OSError:
        return False


def _check_losses(repository: Repository, items: Sequence[tuple[Path, Manifest, Content | None]]) -> None:
    lost = []
    for path, manifest, content in items:
        files = content.manifest.files if content else {}
        going = {name: md5 for name, md5 in files.items() if manifest.files.get(name) != md5}
        kept = repository.cache.present(set(going.values()))
        lost += [repository.name_of(path / name) for name, md5 in going.items() if md5 not in kept]
    if lost:
        raise Conflict(
            f"{len(lost)} files hold changes that are not in the cache",
            details=lost[:5],
            remedy="Keep them with `noria data add`, or give them up with --force.",
        )


def _bring(
    repository: Repository, output: Output, path: Path, manifest: Manifest, now: Content | None, progress: Progress
) -> CheckedOut:
    here: Mapping[str, str] = now.manifest.files if now else {}
    removed = [name for name in here if name not in manifest.files]
    changed = [name for name, md5 in manifest.files.items() if here.get(name) != md5]
    for name in removed:
        (path / name).unlink()
    _clear_way(path, removed, is_folder=output.is_folder)
    done = iter(range(1, len(changed) + 1))

    def bring(name: str) -> tuple[str, Fingerprint]:
        target = place_of(path, name)
        placed = place(repository, manifest.files[name], target)
        progress(f"checking out {path.name}", next(done), len(changed))
        return target, placed

    for name, (target, print_) in zip(changed, in_parallel(bring, changed), strict=True):
        repository.index.record(target, print_, manifest.files[name])
    if output.is_exec and repository.link_kind is not LinkKind.SYMLINK:
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    replaced = sum(name in here for name in changed)
    return CheckedOut(path, len(changed) - replaced, replaced, len(removed))


def _clear_way(path: Path, removed: Sequence[str], *, is_folder: bool) -> None:
    """Remove folders that became empty; make the output's own, or take away what stands where it goes."""
    for name in removed:
        for folder in (path / name).parents:
            if folder == path or not folder.is_relative_to(path):
                break
            with contextlib.suppress(OSError):
                folder.rmdir()
    if is_folder:
        if not path.is_dir():
            path.unlink(missing_ok=True)
        path.mkdir(parents=True, exist_ok=True)
    elif path.is_dir() and not path.is_symlink():
        path.rmdir()


def place(repository: Repository, md5: str, target: str) -> Fingerprint:
    """Put an object, known to be intact, at ``target``; the fingerprint of the file there.

    A copy gets a modification time to the nanosecond, so that no change after it goes unnoticed.
    """
    with repository.staging.file() as staged:
        used = link(repository.cache.path(md5), staged, (repository.link_kind, LinkKind.COPY))
        if not used.shares:
            os.utime(staged, ns=(time.time_ns(), time.time_ns()))
        repository.staging.settle(staged, target)
    return Fingerprint.of(os.stat(target))  # noqa: PTH116 - for small files pathlib costs more than the disk
