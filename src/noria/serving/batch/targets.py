"""Where a job's output goes, part by part: a folder or an object store, each part there whole or not at all.

Beside a folder ``scores`` lies ``scores.noria``: the manifest, a record for every part that is there, and what was
refused. A part is written under another name, moved (or put) into its place at once, and only then recorded: one that
was cut short is done again, to the same content in the same place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from noria.errors import Conflict, NotFound
from noria.serving.batch.files import Format, open_place, split_place
from noria.serving.batch.manifest import Manifest, check_same, decode_done, encode_done
from noria.serving.batch.parts import Done
from noria.serving.batch.writers import check_types, open_writer

if TYPE_CHECKING:
    import polars as pl


class PartOutput(Protocol):
    """The output of one part, seen by nobody until it is committed."""

    def write(self, frame: pl.DataFrame) -> None:
        """Add rows."""

    def refuse(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Add rows that have no prediction, with the reason."""

    def commit(self, done: Done) -> None:
        """Make the part and its record visible."""

    def discard(self) -> None:
        """Leave nothing of what was not committed."""


class Target(Protocol):
    """The output of a job. Travels to the processes that write its parts."""

    def begin(
        self, manifest: Manifest, schema: Mapping[str, pl.DataType], *, restart: bool
    ) -> tuple[Manifest, list[Done]]:
        """The manifest to work by, that of an earlier run where there was one, and what that run has done.

        Raises InvalidInput for columns that cannot be written, Conflict when the place holds anything else, unless
        ``restart`` says to remove what a job wrote.
        """

    def part(self, number: int, manifest: Manifest, schema: Mapping[str, pl.DataType]) -> PartOutput:
        """A new output for a part."""

    def finish(self, manifest: Manifest) -> None:
        """All parts are committed."""

    def close(self) -> None:
        """Let go of the place."""

    @property
    def refusals(self) -> str:
        """Where refused rows are told."""


@dataclass
class FileTarget:
    """Files ``part-00000.parquet`` and so on below an address; one file when that names one."""

    address: str
    format: Format
    single: bool = False

    def __post_init__(self) -> None:
        self.root, key = split_place(self.address)
        self._state = f"{key}.noria"
        self._key = f"{self._state}/output" if self.single else key
        self._final = key
        self._lock: int | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_lock": None}

    @property
    def refusals(self) -> str:
        """See Target."""
        return f"{self.address.rstrip('/')}.noria/refused"

    @property
    def keys(self) -> Sequence[str]:
        """Where its files lie: each is one of these, or below one."""
        return self._final, self._state

    def begin(
        self, manifest: Manifest, schema: Mapping[str, pl.DataType], *, restart: bool
    ) -> tuple[Manifest, list[Done]]:
        """See Target."""
        check_types(self.format, schema)
        self._alone()
        place, where = open_place(self.root), f"{self._state}/manifest.json"
        try:
            before = msgspec.json.decode(place.read(where), type=Manifest)
        except NotFound:
            before = None
        if before is not None and not restart:
            check_same(before, manifest, self.address)
            manifest = before
        elif before is not None:
            self._remove_output()
        elif place.files(self._final) or (self.single and Path(self.root, self._final).is_dir()):
            raise Conflict(
                f"there are files at {self.address} already, and no job wrote them",
                remedy="Choose another --output, or remove them.",
            )
        place.write(where, msgspec.json.encode(manifest))
        if self._is_local:
            shutil.rmtree(self._staging, ignore_errors=True)
        there = {file.key for file in [*place.files(self._key), *place.files(self._final)]}
        records = [decode_done(place.read(record.key)) for record in place.files(f"{self._state}/parts")]
        return manifest, [done for done in records if self._where(done.number) & there]

    def part(self, number: int, manifest: Manifest, schema: Mapping[str, pl.DataType]) -> PartOutput:
        """See Target."""
        staging = self._staging if self._is_local else None
        if staging is not None:
            staging.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=staging, prefix=f"part-{number:05d}-"))
        return _FilePart(self, number, folder, manifest, schema)

    def finish(self, manifest: Manifest) -> None:
        """See Target. Of a single file, put the parts together."""
        if not self.single:
            return
        place, staging = open_place(self.root), self._staging
        names = [f"{self._key}/{self.name(number)}" for number in range(manifest.parts)]
        if not all(place.files(name) for name in names):
            return  # put together by an earlier run
        staging.mkdir(parents=True, exist_ok=True)
        together = staging / "together"
        _join([Path(self.root, name) for name in names], together, self.format)
        place.take(self._final, together)
        place.delete(self._key)

    def close(self) -> None:
        """See Target."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _where(self, number: int) -> set[str]:
        """Where the rows of a committed part may lie: somebody may have removed them since."""
        return (
            {f"{self._key}/{self.name(number)}", self._final} if self.single else {f"{self._key}/{self.name(number)}"}
        )

    def name(self, number: int) -> str:
        """The name of a part's file."""
        return f"part-{number:05d}.{self.format}"

    @property
    def _is_local(self) -> bool:
        return self.root == "/"

    @property
    def _staging(self) -> Path:
        """On the file system of the output, so that its files move there at once."""
        return Path(self.root, self._state, "staging")

    def _alone(self) -> None:
        """One run at a time, on this machine. Raises Conflict."""
        if not self._is_local:
            return
        state = Path(self.root, self._state)
        state.mkdir(parents=True, exist_ok=True)
        handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise Conflict(f"another run writes to {self.address}", remedy="Wait for it, or end it.") from None
        self._lock = handle

    def _remove_output(self) -> None:
        """Remove what a job wrote, records first: what is not recorded is done again."""
        place = open_place(self.root)
        mine = f"{self._final}/part-"
        for folder in (f"{self._state}/parts", f"{self._state}/refused", f"{self._state}/output"):
            if place.files(folder):
                place.delete(folder)
        for file in place.files(self._final):
            if self.single or file.key.startswith(mine):
                place.delete(file.key)


class _FilePart:
    """One part's files, in a folder of their own until they are committed."""

    def __init__(
        self, target: FileTarget, number: int, folder: Path, manifest: Manifest, schema: Mapping[str, pl.DataType]
    ) -> None:
        del manifest
        self._target, self._number, self._folder = target, number, folder
        self._rows, self._refused = folder / "rows", folder / "refused"
        self._writer = open_writer(self._rows, target.format, schema)

    def write(self, frame: pl.DataFrame) -> None:
        self._writer.write(frame)

    def refuse(self, rows: Sequence[Mapping[str, object]]) -> None:
        with self._refused.open("ab") as file:
            file.writelines(msgspec.json.encode(row, enc_hook=str) + b"\n" for row in rows)

    def commit(self, done: Done) -> None:
        self._writer.close()
        target, place = self._target, open_place(self._target.root)
        if self._refused.exists():
            place.take(f"{target._state}/refused/part-{self._number:05d}.jsonl", self._refused)
        place.take(f"{target._key}/{target.name(self._number)}", self._rows)
        place.write(f"{target._state}/parts/{self._number:05d}.json", encode_done(done))
        self.discard()

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # a full disk was told before
            self._writer.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _join(parts: Sequence[Path], together: Path, format_: Format) -> None:
    """Put files of one schema together."""
    if format_ == "parquet":
        import pyarrow.parquet

        schema = pyarrow.parquet.read_schema(parts[0])
        with pyarrow.parquet.ParquetWriter(together, schema, compression="zstd", compression_level=1) as out:
            for part in parts:
                for records in pyarrow.parquet.ParquetFile(part).iter_batches():
                    out.write_batch(records)
        return
    with together.open("wb") as out:
        for number, part in enumerate(parts):
            with part.open("rb") as file:
                if format_ == "csv" and number:
                    file.readline()
                shutil.copyfileobj(file, out)
