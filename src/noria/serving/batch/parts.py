"""What a batch job is cut into, and what its inputs and outputs are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from noria.errors import InvalidData
from noria.structs import read_by_threads

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one source that are scored, and committed, together.

    ``span`` says which: row groups of a Parquet file, bytes of a text, [first, last) keys of a table (None: no bound).
    ``rows`` is how many there are, None where only reading tells; ``first_row`` is the first one's place in its source.
    """

    number: int
    source: str
    span: tuple[Any, Any]
    rows: int | None = None
    first_row: int | None = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row without a prediction: its place in the batch, and why; ``given`` is what stood where the frame has null."""

    place: int
    reason: str
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a part in the types of the source's schema; ``refused`` are those that do not fit it."""

    frame: pl.DataFrame
    refused: Sequence[Refusal] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """One of the things a job reads, and what shows that it is still the same."""

    name: str
    size: int
    tag: str


class Source(Protocol):
    """Rows to score. Travels to the processes that read its parts.

    What reads raises InvalidData for what is not as it should be, Unavailable for what cannot be reached now.
    """

    @property
    def typed(self) -> bool:
        """Whether columns have types of their own; else each value is looked at, and what is no number is refused."""

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        """The columns there are, and the types their values are given in."""

    def number_type(self, name: str) -> pl.DataType:
        """The type in which the column ``name`` is read where the model takes it for a number."""

    def shown(self, name: str) -> str:
        """The source of a part by the name its user knows it by."""

    def listing(self) -> Sequence[Listed]:
        """What is read."""

    def parts(self, rows: int) -> Sequence[Part]:
        """The work, cut into parts of about that many rows."""

    def batches(self, part: Part, columns: Sequence[str], numbers: Sequence[str], rows: int) -> Iterator[Batch]:
        """The columns wanted of a part's rows, at most ``rows`` at a time; ``numbers`` of them are to be numbers."""


@read_by_threads
@dataclass(frozen=True, slots=True)
class Done:
    """A part that is committed: how many rows were scored, and how many were left out."""

    number: int
    rows: int
    skipped: int


class RowRefused(InvalidData):
    """A row has no prediction, and the job is to end at the first such row."""
