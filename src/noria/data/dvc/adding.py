"""`noria data add`: content into the cache, its hash into a `.dvc` file, its name into .gitignore."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from noria.data.dvc.checkout import place
from noria.data.dvc.dvc_files import SUFFIX, DvcFile, Output, check_name, overlapping, write_dvc_file
from noria.data.dvc.hashes import Fingerprint
from noria.data.dvc.manifests import Manifest
from noria.data.dvc.objects import Taken, in_parallel
from noria.data.dvc.repository import Repository
from noria.data.dvc.workspace import Content, Files, Progress, files_of, place_of, silent
from noria.errors import AlreadyExists, Conflict, InvalidInput


@dataclass(frozen=True, slots=True)
class Added:
    """What was recorded: ``to_commit`` are the files that belong into git now."""

    output: Output
    path: Path
    dvc_file: Path
    to_commit: tuple[Path, ...]


def add(repository: Repository, paths: Sequence[Path | str], progress: Progress = silent) -> list[Added]:
    """Track files or folders, or record what they hold now.

    Nothing is changed when one of the paths cannot be tracked: InvalidInput for what is missing, outside the project or
    has an unfit name, Conflict for what git tracks or what overlaps with something tracked. Conflict also when a file
    changes while it is added: its output keeps the version it had.
    """
    with repository.locked():
        files = repository.dvc_files()
        targets = [repository.inside(path) for path in paths]
        plans = [(target, _dvc_file_of(repository, target, files)) for target in dict.fromkeys(targets)]
        found = [files_of(repository, target) for target, _ in plans]
        return [_add(repository, *plan, files, progress) for plan, files in zip(plans, found, strict=True)]


def _dvc_file_of(repository: Repository, target: Path, files: Sequence[DvcFile]) -> Path:
    """Where the target is recorded, once nothing speaks against it."""
    name = repository.name_of(target)
    _check_place(repository, target, name)
    known = next((file for file in files if target in file.targets), None)
    if known is not None and len(known.outputs) > 1:
        raise Conflict(f"{known.path} records several outputs", remedy="Update it with `dvc`.")
    if found := overlapping(files, target):
        raise Conflict(
            f"{name} overlaps with {repository.name_of(found[1])}, which {found[0].path.name} tracks",
            remedy=f"Add {repository.name_of(found[1])} again, or delete {found[0].path.name} first.",
        )
    dvc_file = known.path if known else target.with_name(target.name + SUFFIX)
    if known is None and dvc_file.exists():
        raise AlreadyExists(f"{dvc_file} tracks another path", remedy="Rename one of them.")
    _check_git(repository, target, name, dvc_file)
    return dvc_file


def _check_place(repository: Repository, target: Path, name: str) -> None:
    check_name(target.name)
    if len(os.fsencode(target.name + SUFFIX)) > 255:
        raise InvalidInput(f"{name} has too long a name: {SUFFIX} would not fit", remedy="Shorten it.")
    if target.name.endswith(SUFFIX):
        raise InvalidInput(f"{name} is itself a {SUFFIX} file", remedy="Name the data that it tracks.")
    parents = [folder for folder in target.parents if folder.is_relative_to(repository.root)]
    linked = next((folder for folder in parents[:-1] if folder.is_symlink()), None)
    if linked or (target.is_symlink() and target.is_dir()):
        raise InvalidInput(f"{linked or target} is a link to a folder", remedy="Name the folder that it points to.")
    if repository.ignores.match(name, is_folder=target.is_dir()):
        raise InvalidInput(f"{name} is left out by .dvcignore", remedy="Change the pattern, or leave it out.")


def _check_git(repository: Repository, target: Path, name: str, dvc_file: Path) -> None:
    git = repository.git
    if git is None:
        return
    if git.tracked(target):
        raise Conflict(
            f"{name} is tracked by git", remedy=f"git rm -r --cached '{name}', commit that, and add it again."
        )
    if git.ignored(dvc_file):
        raise Conflict(f"{repository.name_of(dvc_file)} is ignored by git", remedy="Mend .gitignore: it is committed.")


def _add(repository: Repository, target: Path, dvc_file: Path, found: Files, progress: Progress) -> Added:
    content = _into_cache(repository, target, found, progress)
    output = Output(
        os.path.relpath(target, dvc_file.parent),
        content.md5,
        content.size,
        len(content.manifest.files) if content.is_folder else None,
        is_exec=not content.is_folder and bool(target.stat().st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)),
    )
    ignored = repository.git.ignore(target) if repository.git else None
    write_dvc_file(dvc_file, output, repository.staging)
    return Added(output, target, dvc_file, (dvc_file, *([ignored] if ignored else [])))


def _into_cache(repository: Repository, target: Path, found: Files, progress: Progress) -> Content:
    cache, index = repository.cache, repository.index
    places = {path: place_of(target, path) for path in found}
    known = index.lookup({places[path]: Fingerprint.of(status) for path, status in found.items()})
    sound, _ = cache.intact(set(known.values()))
    new = [path for path in found if known.get(places[path]) not in sound]
    taken = _take_all(repository, target, [places[path] for path in new], progress)
    for path, item in zip(new, taken, strict=True):
        known[places[path]] = item.md5
        index.record(places[path], item.print_, item.md5, at_ns=item.read_at_ns)
    cache.vouch({item.md5 for item in taken})
    sizes = {path: status.st_size for path, status in found.items()}
    sizes |= {path: item.print_.size for path, item in zip(new, taken, strict=True)}
    content = Content(Manifest({path: known[places[path]] for path in found}), sizes, "" not in found)
    if content.is_folder:
        cache.put(content.md5, [content.manifest.content])
    if repository.link_kind.shares:
        _relink(repository, places, content)
    return content


def _take_all(repository: Repository, target: Path, places: Sequence[str], progress: Progress) -> list[Taken]:
    kind, done = repository.link_kind, iter(range(1, len(places) + 1))

    def take(place: str) -> Taken:
        item = repository.cache.take(place, kind)
        progress(f"adding {target.name}", next(done), len(places))
        return item

    return in_parallel(take, places)


def _relink(repository: Repository, places: dict[str, str], content: Content) -> None:
    """Let the workspace share the cache's files, where it does not yet."""
    for path, md5 in content.manifest.files.items():
        here, there = Path(places[path]), repository.cache.path(md5)
        if here.is_symlink() or not here.samefile(there):
            place(repository, md5, str(here))
