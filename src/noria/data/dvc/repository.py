"""A project with data under version: its root, configuration, cache and lock, all shared with DVC."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from noria.config import nearest_project
from noria.data.dvc.config import DvcConfig, read_config
from noria.data.dvc.dvc_files import SUFFIX, DvcFile, parse_dvc_file, read_dvc_file
from noria.data.dvc.git import Git, find_git
from noria.data.dvc.hashes import HashIndex
from noria.data.dvc.ignores import IGNORE_FILE, Ignores
from noria.data.dvc.links import LinkKind, link
from noria.data.dvc.objects import Objects
from noria.data.dvc.staging import Staging
from noria.errors import InvalidInput, NotFound, Unavailable

DVC_FOLDER = ".dvc"
_GITIGNORE = "/config.local\n/tmp\n/cache\n"
_IGNORES = (
    "# Add patterns of files dvc should ignore, which could improve\n"
    "# the performance. Learn more at\n"
    "# https://dvc.org/doc/user-guide/dvcignore\n"
)


class Repository:
    """The project at ``root``, which has a folder ``.dvc``. Read again what may have changed by making another."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tmp = root / DVC_FOLDER / "tmp"
        self.config: DvcConfig = read_config(root / DVC_FOLDER)
        self.index = HashIndex(self._tmp / "noria" / "hashes.db")
        self.staging = Staging(self._tmp / "noria" / "staging")
        self.ignores = Ignores(root)
        beside = self.config.cache.is_relative_to(root)
        staging = self.staging if beside else Staging(self.config.cache / "noria-staging")
        self.cache = Objects(self.config.cache, self.index, staging)

    @cached_property
    def git(self) -> Git | None:
        """The working tree around it, unless DVC is told that there is none."""
        return find_git(self.root) if self.config.uses_git else None

    @cached_property
    def link_kind(self) -> LinkKind:
        """The first kind of ``cache.type`` that works between cache and workspace."""
        with self.cache.staging.file() as probe, self.staging.file() as linked:
            Path(probe).write_bytes(b"?")
            try:
                return link(probe, linked, self.config.link_kinds)
            finally:
                Path(linked).unlink(missing_ok=True)
                Path(probe).unlink()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes the project meanwhile, DVC included; waits for who does."""
        with clear_faults():
            self._tmp.mkdir(parents=True, exist_ok=True)
            with (self._tmp / "lock").open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
                self.index.flush()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Hashes found meanwhile are remembered; nothing is changed, so nobody waits."""
        with clear_faults():
            yield
            self.index.flush()

    def dvc_files(self) -> list[DvcFile]:
        """Every `.dvc` file, by path. Raises InvalidInput for a damaged one."""
        return sorted(self._dvc_files_in(""), key=lambda file: file.path)

    def _dvc_files_in(self, folder: str) -> Iterator[DvcFile]:
        """Those of a folder and of the folders in it; not in tracked ones, which hold data only."""
        tracked: set[Path] = set()
        subfolders = []
        with os.scandir(self.root / folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                if not self.ignores.leaves_out(folder, entry.name, is_folder=is_folder):
                    if is_folder:
                        subfolders.append(entry.name)
                    elif entry.name.endswith(SUFFIX) and entry.name != SUFFIX and entry.is_file():
                        file = self._contained(read_dvc_file(Path(entry.path)))
                        tracked.update(file.targets)
                        yield file
        for name in subfolders:
            path = self.root / folder / name
            if path not in tracked and not (path / DVC_FOLDER).is_dir():
                yield from self._dvc_files_in(f"{folder}/{name}" if folder else name)

    def dvc_files_at(self, commit: str) -> list[DvcFile]:
        """Every `.dvc` file of a commit, by path."""
        git = self.require_git()
        prefix = "" if self.root == git.root else f"{self.root.relative_to(git.root).as_posix()}/"
        inside = [p for p in git.files(commit) if p.startswith(prefix) and p.endswith(SUFFIX)]
        files = [(git.root / path, path) for path in inside if Path(path).name != SUFFIX]
        return [self._contained(parse_dvc_file(path, git.read(commit, name))) for path, name in files]

    def _contained(self, file: DvcFile) -> DvcFile:
        """``file``, unless it speaks of what is not the project's data: it may come from somebody else."""
        for target in file.targets:
            inner = target.relative_to(self.root).parts if target.is_relative_to(self.root) else ()
            if not inner or inner[0] in (DVC_FOLDER, ".git"):
                raise InvalidInput(
                    f"{file.path} records {target}, which is outside the project's data",
                    remedy="Mend or delete it: nothing was read or written there.",
                )
        return file

    def require_git(self) -> Git:
        """The working tree. Raises NotFound."""
        if self.git is None:
            raise NotFound(f"{self.root} is in no git repository", remedy="Revisions need git: `git init`.")
        return self.git

    def name_of(self, path: Path) -> str:
        """A path as it reads from the root."""
        return path.relative_to(self.root).as_posix()

    def inside(self, path: Path | str) -> Path:
        """The absolute path, links of its folders not followed. Raises InvalidInput outside the project."""
        absolute = Path.cwd() / Path(path).expanduser()
        absolute = Path(*_normal(absolute.parts))
        if not absolute.is_relative_to(self.root) and absolute.parent.resolve().is_relative_to(self.root.resolve()):
            absolute = self.root / absolute.parent.resolve().relative_to(self.root.resolve()) / absolute.name
        if absolute == self.root or not absolute.is_relative_to(self.root):
            where = "the project itself" if absolute == self.root else f"outside the project {self.root}"
            raise InvalidInput(f"{path} is {where}", remedy="Name a file or folder inside the project.")
        return absolute


def _normal(parts: tuple[str, ...]) -> list[str]:
    kept: list[str] = []
    for part in parts:
        if part == "..":
            kept = kept[:-1] or kept
        elif part != ".":
            kept.append(part)
    return kept


@contextlib.contextmanager
def clear_faults() -> Iterator[None]:
    """Tell in plain words what the operating system refuses: a full disk, a permission."""
    try:
        yield
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        raise Unavailable(
            f"{where}{error.strerror or error}", remedy="Check the path, its permissions and the free space."
        ) from error


def find_repository(start: Path) -> Repository | None:
    """The project with a ``.dvc`` folder that ``start`` is in."""
    start = start.resolve()
    root = next((folder for folder in (start, *start.parents) if (folder / DVC_FOLDER).is_dir()), None)
    return Repository(root) if root else None


def open_repository(start: Path) -> Repository:
    """As ``find_repository``; raises NotFound."""
    found = find_repository(start)
    if found is None:
        raise NotFound(f"nothing is tracked in {start} or above", remedy="Track data with `noria data add PATH`.")
    return found


def open_or_make_repository(start: Path) -> Repository:
    """As ``open_repository``, made as ``dvc init`` makes it where there is none.

    It is made beside the nearest noria.toml, else at the root of the git repository, else at ``start``.
    """
    if (found := find_repository(start)) is not None:
        return found
    start = start.resolve()
    git = find_git(start)
    root = nearest_project(start) or (git.root if git else start)
    with clear_faults():
        _make(root, uses_git=git is not None)
    return Repository(root)


def _make(root: Path, *, uses_git: bool) -> None:
    folder = root / DVC_FOLDER
    (folder / "tmp").mkdir(parents=True)
    if uses_git:
        (folder / ".gitignore").write_text(_GITIGNORE)
    (folder / "config").write_text("" if uses_git else "[core]\n    no_scm = True\n")
    if not (root / IGNORE_FILE).exists():
        (root / IGNORE_FILE).write_text(_IGNORES)
