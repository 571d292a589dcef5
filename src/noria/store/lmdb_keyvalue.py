"""Online rows in LMDB: a memory-mapped file that is read without a system call; the fastest on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from noria.errors import MissingExtra, Unavailable
from noria.store.sqlite_keyvalue import no_store
from noria.store.stamps import STAMP_BYTES

_MAP_BYTES = 1 << 38  # address space, not disk: what the file may grow to

_open: dict[Path, tuple[Any, int]] = {}
"""The environments of this process and how many handles each has: LMDB allows one a process."""
_open_lock = Lock()


class LmdbKeyValues:
    """One LMDB environment in a folder: readers never wait, writers wait for each other.

    ``metasync=False``: a crash of the machine may undo the last batch, which is materialized again.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        try:
            import lmdb
        except ImportError:
            raise MissingExtra(
                "an LMDB online store needs a package that is not installed", remedy="pip install 'noria[lmdb]'"
            ) from None
        self.path: Path | None = path
        self._name = str(path)
        self._fault: type[Exception] = lmdb.Error
        with self._telling("opened"):
            if create:
                path.mkdir(parents=True, exist_ok=True)
            elif not path.exists():
                raise no_store(path)
            self._place = path.resolve()
            with _open_lock:
                environment, handles = _open.get(self._place, (None, 0))
                environment = environment or lmdb.open(self._name, map_size=_MAP_BYTES, metasync=False, max_readers=512)
                _open[self._place] = (environment, handles + 1)
        self._environment: Any = environment
        self._closed = False

    def put_newer(self, entries: Iterable[tuple[bytes, bytes]]) -> int:
        written = 0
        with self._telling("written"), self._environment.begin(write=True) as transaction:
            get, put = transaction.get, transaction.put
            for key, value in entries:
                stored = get(key)
                if stored is None or stored[:STAMP_BYTES] <= value[:STAMP_BYTES]:
                    put(key, value)
                    written += 1
        return written

    def update(self, keys: Sequence[bytes], change: Callable[[list[bytes | None]], list[bytes]]) -> None:
        with self._telling("written"), self._environment.begin(write=True) as transaction:
            for key, value in zip(keys, change(list(map(transaction.get, keys))), strict=True):
                transaction.put(key, value)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            with self._environment.begin() as transaction:
                return list(map(transaction.get, keys))
        except self._fault as error:
            raise self._unavailable("read", error) from error

    def delete(self, prefix: bytes) -> int:
        deleted = 0
        with self._telling("written"), self._environment.begin(write=True) as transaction:
            cursor = transaction.cursor()
            found = cursor.set_range(prefix) if prefix else cursor.first()
            while found and cursor.key().startswith(prefix):
                cursor.delete()
                deleted += 1
                found = bool(cursor.key())
        return deleted

    def close(self) -> None:
        with _open_lock:
            if self._closed:
                return
            self._closed = True
            environment, handles = _open.pop(self._place)
            if handles > 1:
                _open[self._place] = (environment, handles - 1)
            else:
                environment.close()

    @contextmanager
    def _telling(self, done: str) -> Iterator[None]:
        try:
            yield
        except (self._fault, OSError) as error:
            raise self._unavailable(done, error) from error

    def _unavailable(self, done: str, error: Exception) -> Unavailable:
        return Unavailable(
            f"the online store {self._name} cannot be {done}: {error}",
            remedy="Check the disk's space and the folder's permissions; a damaged one may be deleted, and is filled "
            "again by materializing.",
        )
