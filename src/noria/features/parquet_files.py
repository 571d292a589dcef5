"""Parquet files on this machine: which of a folder are data, which of them is damaged, and one that may be replaced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")
_SUFFIX = ".parquet"
HIDDEN = (".", "_")
"""What names of files begin with that are no data: of writes under way, of markers such as _SUCCESS, of checksums."""

_OPEN_FILES = Path("/proc/self/fd")

_pins: ContextVar[dict[int, Path] | None] = ContextVar("pins", default=None)
_once: ContextVar[dict[object, Any] | None] = ContextVar("once", default=None)


def scan_local(path: Path) -> pl.LazyFrame:
    """The rows of a file, of the files of a pattern, or of all data files below a folder, hive-partitioned or not."""
    import polars as pl

    if not path.exists() and any(mark in str(path) for mark in "*?["):
        return pl.scan_parquet(path, hidden_file_prefix=list(HIDDEN))
    if not path.is_dir():
        return pl.scan_parquet(_pinned(path), glob=False)
    files = data_files(path)
    if not files or any("=" in part for part in path.parts):  # Polars would take such a part for a partition
        return pl.scan_parquet(path, hidden_file_prefix=list(HIDDEN))
    partitioned = any("=" in part for file in files for part in file.relative_to(path).parent.parts)
    return pl.scan_parquet(files, hive_partitioning=partitioned, glob=False)


def data_files(folder: Path) -> list[Path]:
    """The data files below ``folder``, in order; where some are called ``*.parquet``, only those."""
    found = sorted(file for file in folder.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(folder)))
    return [file for file in found if file.suffix == _SUFFIX] or found


def damaged(path: Path) -> Path | None:
    """The first of the files at ``path`` that is there and cannot be read to its end."""
    import polars as pl

    for file in data_files(path) if path.is_dir() else [path] * path.is_file():
        try:
            pl.scan_parquet(file, glob=False).select(pl.all().null_count()).collect(engine="streaming")
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            return file
    return None


@contextmanager
def pinned() -> Iterator[None]:
    """While it is open, a single file that was scanned stays the one it was, though a push may put another there.

    A scan looks at a file twice: for its schema, and when its rows are asked for. What is found by ``once`` stays, too.
    """
    if _pins.get() is not None:
        yield
        return
    held: dict[int, Path] = {}
    token, found = _pins.set(held), _once.set({})
    try:
        yield
    finally:
        _once.reset(found)
        _pins.reset(token)
        for descriptor in held:
            os.close(descriptor)


def once(what: object, find: Callable[[], T]) -> T:
    """What ``find`` gives, found a single time while a source is pinned."""
    known = _once.get()
    if known is None:
        return find()
    if what not in known:
        known[what] = find()
    return known[what]  # type: ignore[no-any-return]


def unpinned(text: str) -> str:
    """An error's text with the names of pinned files in it."""
    for descriptor, path in sorted((_pins.get() or {}).items(), reverse=True):
        text = text.replace(_name_of(descriptor), str(path))
    return text


def _pinned(path: Path) -> str:
    held = _pins.get()
    if held is None or not path.is_file() or not _OPEN_FILES.is_dir():
        return str(path)
    descriptor = os.open(path, os.O_RDONLY)
    held[descriptor] = path
    return _name_of(descriptor)


def _name_of(descriptor: int) -> str:
    """A name of what is open, whatever lies at its path by now."""
    return f"{_OPEN_FILES}/{descriptor}"


def _is_hidden(relative: Path) -> bool:
    *folders, name = relative.parts
    return name.startswith(HIDDEN) or any(_is_hidden_folder(folder) for folder in folders)


def _is_hidden_folder(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)
