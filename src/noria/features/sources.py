"""Where the rows of feature views come from: files, SQL tables, pushes, requests, or a function of the project."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidConfig, InvalidData, NoriaError
from noria.features.exact import Inexact, exact, exactly
from noria.features.parquet_files import once, unpinned
from noria.features.referred_code import referred_code
from noria.features.times import instant, instants_of_texts
from noria.features.types import FeatureType, parse_type, type_of
from noria.features.user_code import failed_at, source_text

if TYPE_CHECKING:
    import polars as pl

EVENT, CREATED = "event_timestamp", "created_timestamp"
"""The names of the two times of a row wherever rows have been read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One feature: its name and type."""

    name: str
    dtype: FeatureType
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.dtype, FeatureType):
            raise InvalidConfig(
                f"the dtype of field {self.name!r} is {self.dtype!r}, not a feature type",
                remedy="Write dtype=Int64, Float32, String, ... from noria.features.types.",
            )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be read: columns, the types of the fields among them, and of which times and keys rows can matter."""

    names: Sequence[str]
    types: Mapping[str, FeatureType]
    event: str
    since: datetime | None
    until: datetime | None
    keys: Mapping[str, pl.Series]


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A table of feature values over time.

    ``timestamp_field`` is when a value was true, ``created_timestamp_column`` when it was known (the event's own time
    without one). ``field_mapping`` gives columns another name as they are read. A time without a zone is UTC.
    """

    name: str = ""
    timestamp_field: str = ""
    created_timestamp_column: str = ""
    field_mapping: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""

    @abstractmethod
    def scan(self, folder: Path) -> pl.LazyFrame:
        """All rows with all columns, as they are; relative paths start at ``folder``."""

    def rows(
        self,
        folder: Path,
        *,
        keys: Sequence[str],
        fields: Sequence[Field],
        since: datetime | None = None,
        until: datetime | None = None,
        wanted: Mapping[str, pl.Series] = MappingProxyType({}),
    ) -> pl.LazyFrame:
        """The rows with event times in [since, until]: keys, both times in UTC, and the fields in their types.

        Rows without an event time are left out, and others may be whose keys are not among the ``wanted`` values.
        Raises InvalidData when a column is missing or of another kind.
        """
        import polars as pl

        schema = self.columns(folder)
        event, created = self.times(schema)
        self._require(schema, [*keys, *(one.name for one in fields)])
        schema = self.read_as(schema, {one.name: one.dtype for one in fields})
        needed = dict.fromkeys([*keys, event, created or event, *(one.name for one in fields)])
        frame = (
            self.fetch(
                folder, Wanted(list(needed), {one.name: one.dtype for one in fields}, event, since, until, wanted)
            )
            .select(
                *keys,
                instant(event, schema[event], self.name).alias(EVENT),
                instant(created or event, schema[created or event], self.name).alias(CREATED),
                *(self._typed(one, schema[one.name]) for one in fields),
            )
            .filter(pl.col(EVENT).is_not_null())
        )
        if since is not None:
            frame = frame.filter(pl.col(EVENT) >= since)
        return frame if until is None else frame.filter(pl.col(EVENT) <= until)

    def columns(self, folder: Path) -> Mapping[str, pl.DataType]:
        """What there is to read, under the names it is read by, and its types."""
        return once(("columns", id(self), folder), lambda: dict(self._renamed(self.scan(folder)).collect_schema()))

    def fetch(self, folder: Path, wanted: Wanted) -> pl.LazyFrame:
        """The columns that are wanted; rows that are not may already be left out."""
        return self._renamed(self.scan(folder)).select(wanted.names)  # a lazy frame leaves them out by itself

    def read_as(
        self, columns: Mapping[str, pl.DataType], types: Mapping[str, FeatureType]
    ) -> Mapping[str, pl.DataType]:
        """The types that ``fetch`` gives these columns in, for fields of these types."""
        del types
        return columns

    def appending(self, folder: Path, frame: pl.DataFrame) -> AbstractContextManager[Callable[[], None]]:
        """Rows to be added, in the columns the source itself has: what the context gives makes them visible.

        Raises InvalidConfig for a source that takes none, InvalidData for rows that do not fit it.
        """
        del folder, frame
        raise InvalidConfig(
            f"rows cannot be added to source {self.name!r}",
            remedy="Push online only, or use a FileSource.",
        )

    @contextmanager
    def telling(self, folder: Path, view: str = "") -> Iterator[None]:
        """Whatever fails while its rows are read is InvalidData that names the source and, if one is, its bad file."""
        import polars as pl

        try:
            yield
        except Inexact as error:
            raise self._told(error, folder) from None
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            used = f" of feature view {view!r}" if view else ""
            file = self.damaged(folder)
            where = f" ({file} is damaged)" if file else ""
            why = unpinned(str(error)).strip().partition("\n")[0]
            raise InvalidData(
                f"source {self.name!r}{used} cannot be read{where}: {why}",
                remedy="Check that its columns have the types of the schema, and that its files are whole.",
            ) from error

    def damaged(self, folder: Path) -> Path | None:
        """A file of it that cannot be read to its end, where that can be found out."""
        del folder
        return None

    def _told(self, error: Inexact, folder: Path) -> InvalidData:
        """The error for a value that its field's type lacks. Its row is looked for: batches come in disorder."""
        column, row, value, kind = error.parts
        before = 0
        for batch in self._renamed(self.scan(folder)).select(column).collect_batches(maintain_order=True):
            try:
                instants_of_texts(batch[column]) if kind == "time" else exact(batch[column], parse_type(kind).polars())
            except Inexact as found:
                row = before + found.parts[1]
                break
            before += batch.height
        return InvalidData(
            f"column {column!r} of source {self.name!r} holds {value}, which is no {kind}, in row {row} (from 0)",
            remedy="Mend the rows, or declare the field in a type that all of them have.",
        )

    def _renamed(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame.rename(dict(self.field_mapping), strict=False) if self.field_mapping else frame

    def _typed(self, one: Field, dtype: pl.DataType) -> pl.Expr:
        import polars as pl

        wanted = one.dtype.polars()
        if pl.Null not in (dtype, getattr(dtype, "inner", None)) and not type_of(dtype).is_kind_of(one.dtype):
            raise InvalidData(
                f"column {one.name!r} of source {self.name!r} is {dtype}, and the field is {one.dtype}",
                remedy=f"Declare Field(name={one.name!r}, dtype={type_of(dtype)}), or change the source.",
            )
        if isinstance(wanted, pl.Datetime):
            return instant(one.name, dtype, self.name).cast(wanted)
        if isinstance(dtype, pl.Struct):
            return pl.when(pl.col(one.name).is_not_null()).then(pl.col(one.name).struct.json_encode()).alias(one.name)
        return exactly(one.name, dtype, one.dtype)

    def times(self, schema: Mapping[str, pl.DataType]) -> tuple[str, str]:
        """The columns of event and created time; the latter empty when there is none. Raises InvalidData."""
        mapped = {name: self.field_mapping.get(name, name) for name in (self.timestamp_field, EVENT)}
        created = self.field_mapping.get(self.created_timestamp_column, self.created_timestamp_column)
        if not created and CREATED in schema and not self.timestamp_field:
            created = CREATED
        event = mapped[self.timestamp_field] if self.timestamp_field else _guessed(schema, created)
        self._require(schema, [name for name in (event or EVENT, created) if name])
        return event, created

    def _require(self, schema: Mapping[str, object], needed: Sequence[str]) -> None:
        if missing := [name for name in needed if name not in schema]:
            raise InvalidData(
                f"source {self.name!r} lacks columns: {', '.join(missing)}", remedy=f"It has: {', '.join(schema)}."
            )

    def document(self) -> Mapping[str, object]:
        """What says all of it, as JSON: the definition's hash is made of this, and it can be read back."""
        shared = ("name", "timestamp_field", "created_timestamp_column", "field_mapping")
        return {"kind": type(self).__name__, **{name: getattr(self, name) for name in shared}}


@dataclass(frozen=True, kw_only=True)
class PushSource(Source):
    """Rows that are pushed as they happen; what was true before comes from ``batch_source``."""

    batch_source: Source | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidConfig("a push source needs a name", remedy="Write PushSource(name=..., batch_source=...).")

    def scan(self, folder: Path) -> pl.LazyFrame:
        return self._history().scan(folder)

    def rows(self, folder: Path, **wanted: Any) -> pl.LazyFrame:
        return self._history().rows(folder, **wanted)

    def times(self, schema: Mapping[str, pl.DataType]) -> tuple[str, str]:
        return self._history().times(schema)

    @contextmanager
    def telling(self, folder: Path, view: str = "") -> Iterator[None]:
        with self._history().telling(folder, view):
            yield

    def _history(self) -> Source:
        if self.batch_source is None:
            raise InvalidConfig(
                f"push source {self.name!r} has no batch_source, so its past cannot be read",
                remedy="Give it a batch_source, such as FileSource(path=...).",
            )
        return self.batch_source

    def document(self) -> Mapping[str, object]:
        batch = None if self.batch_source is None else self.batch_source.document()
        return {**super().document(), "batch_source": batch}


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSource:
    """Values that come with each request, for on-demand features."""

    name: str
    schema: Sequence[Field]
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""

    def document(self) -> Mapping[str, object]:
        """What says all of it, as JSON."""
        fields = [[one.name, str(one.dtype)] for one in self.schema]
        return {"kind": "RequestSource", "name": self.name, "schema": fields}


@dataclass(frozen=True, kw_only=True)
class FrameSource(Source):
    """A function of the project that gives a Polars frame.

    Two are the same when their ``text`` is, and that of all the project's own code they refer to (``referred``).
    """

    function: Callable[[], pl.DataFrame | pl.LazyFrame]
    text: str = ""
    referred: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text or source_text(self.function))
        object.__setattr__(self, "name", self.name or getattr(self.function, "__qualname__", "function"))

    def scan(self, folder: Path) -> pl.LazyFrame:  # noqa: ARG002  functions find their files themselves
        import polars as pl

        try:
            found = once(("rows", id(self.function)), self.function)
        except NoriaError:
            raise
        except Exception as error:
            raise InvalidData(
                f"source {self.name!r} failed at {failed_at(error, self.function)}: {type(error).__name__}: {error}",
                remedy="It is a function of the project: mend the line that is named.",
            ) from error
        if not isinstance(found, pl.DataFrame | pl.LazyFrame):
            raise InvalidData(
                f"source {self.name!r} gave a {type(found).__name__}, not a Polars frame",
                remedy="Return pl.read_csv(...), pl.read_parquet(...) or pl.from_pandas(...).",
            )
        return found.lazy()

    def document(self) -> Mapping[str, object]:
        referred = referred_code(self.function) if self.referred is None else self.referred
        return {**super().document(), "text": self.text, **({"referred": dict(referred)} if referred else {})}


def _guessed(schema: Mapping[str, pl.DataType], created: str) -> str:
    """The column of event times when nobody named it."""
    import polars as pl

    if EVENT in schema:
        return EVENT
    instants = [name for name, dtype in schema.items() if isinstance(dtype, pl.Datetime | pl.Date) and name != created]
    return instants[0] if len(instants) == 1 else ""


def inferred_fields(source: Source, folder: Path, keys: Sequence[str]) -> list[Field]:
    """The source's columns but its times, as fields; those of the join keys come first. Raises InvalidData."""
    renamed = source.columns(folder)
    times = source.times(renamed)
    names = [*keys, *(name for name in renamed if name not in keys and name not in times)]
    return [Field(name=name, dtype=type_of(renamed[name])) for name in names if name in renamed]
