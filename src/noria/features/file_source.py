"""Feature rows out of files: Parquet, Delta Lake, Iceberg, on this machine or in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from noria.errors import InvalidConfig, InvalidData, MissingExtra, NoriaError
from noria.features.append import appending_parquet, shaped
from noria.features.parquet_files import HIDDEN, damaged, scan_local
from noria.features.sources import Source

if TYPE_CHECKING:
    import polars as pl

FileFormat = Literal["parquet", "delta", "iceberg"]
_TEXTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".csv.gz")
_READERS: Mapping[FileFormat, str] = {"parquet": "scan_parquet", "delta": "scan_delta", "iceberg": "scan_iceberg"}


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """Parquet files (one, a folder, a pattern, hive-partitioned or not), a Delta Lake or an Iceberg table.

    On this machine or at s3://, gs://, az://, with credentials from the environment as the providers' own tools take
    them; ``s3_endpoint_override`` names another S3 server. An Iceberg table is named by its metadata file.
    """

    path: str
    file_format: FileFormat = "parquet"
    s3_endpoint_override: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.path)
        if self.file_format not in _READERS:
            raise InvalidConfig(
                f"source {self.name!r} is of format {self.file_format!r}", remedy=f"Use {', '.join(_READERS)}."
            )

    def scan(self, folder: Path) -> pl.LazyFrame:
        try:
            with self.telling(folder):
                frame = self._scan(folder)
                frame.collect_schema()
        except ImportError:
            raise MissingExtra(
                f"a table in {self.file_format} needs a package that is not installed",
                remedy="pip install 'noria[lake]'",
            ) from None
        except NoriaError:
            raise
        except Exception as error:  # the readers of lakes have errors of their own
            raise InvalidData(
                f"source {self.name!r} cannot be read: {error}", remedy="Check the path and that the table is whole."
            ) from error
        return frame

    def _scan(self, folder: Path) -> pl.LazyFrame:
        import polars as pl

        if self.file_format == "parquet" and self.path.lower().endswith(_TEXTS):
            raise InvalidData(
                f"source {self.name!r} is text, and Parquet is read",
                remedy=f"Write it once: pl.read_csv({self.path!r}, try_parse_dates=True).write_parquet(...). "
                "Or let the view's source be a function that returns the frame.",
            )
        if self._local is not None:
            return scan_local(folder / self._local)
        read = getattr(pl, _READERS[self.file_format])
        hidden = {"hidden_file_prefix": list(HIDDEN)} if self.file_format == "parquet" else {}
        frame: pl.LazyFrame = read(self._place(folder), storage_options=self._options(), **hidden)
        return frame

    def appending(self, folder: Path, frame: pl.DataFrame) -> AbstractContextManager[Callable[[], None]]:
        if self.file_format == "delta":
            return self._appending_delta(folder, frame)
        if self._local is None or "*" in self.path:
            return super().appending(folder, frame)
        return self._appending_parquet(folder / self._local, folder, frame)

    @contextmanager
    def _appending_parquet(self, path: Path, folder: Path, frame: pl.DataFrame) -> Iterator[Callable[[], None]]:
        with ExitStack() as stack:
            with self.telling(folder):
                publish = stack.enter_context(appending_parquet(path, frame))
            yield publish

    @contextmanager
    def _appending_delta(self, folder: Path, frame: pl.DataFrame) -> Iterator[Callable[[], None]]:
        rows = shaped(frame, self.scan(folder).collect_schema(), self.name)

        def publish() -> None:
            rows.write_delta(self._place(folder), mode="append", storage_options=self._options())

        yield publish

    def damaged(self, folder: Path) -> Path | None:
        return None if self._local is None else damaged(folder / self._local)

    @property
    def _local(self) -> str | None:
        """The path of Parquet files on this machine."""
        return self.path if self.file_format == "parquet" and "://" not in self.path else None

    def _place(self, folder: Path) -> str:
        return self.path if "://" in self.path else str(folder / self.path)

    def _options(self) -> dict[str, str] | None:
        if not self.s3_endpoint_override:
            return None
        insecure = str(self.s3_endpoint_override.startswith("http://")).lower()
        return {"aws_endpoint_url": self.s3_endpoint_override, "aws_allow_http": insecure}

    def document(self) -> Mapping[str, object]:
        mine = ("path", "file_format", "s3_endpoint_override")
        return {**super().document(), **{name: getattr(self, name) for name in mine}}


def ParquetFormat() -> FileFormat:
    """The ``file_format`` of Parquet files, as Feast spells it."""
    return "parquet"


def DeltaFormat() -> FileFormat:
    """The ``file_format`` of a Delta Lake table, as Feast spells it."""
    return "delta"


def IcebergFormat() -> FileFormat:
    """The ``file_format`` of an Iceberg table."""
    return "iceberg"
