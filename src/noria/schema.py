"""Column contracts of frames: what a table must look like, and which rows break it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from noria.errors import InvalidConfig

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["integer", "number", "text", "boolean", "instant"]
"""``instant`` is a timezone-aware datetime in UTC."""


@dataclass(frozen=True, slots=True)
class Column:
    """The contract of one column: its kind, whether nulls may occur, and the closed range of its values."""

    name: str
    kind: Kind
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    one_of: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidConfig(
                f"column {self.name!r} is of no known kind: {self.kind!r}", remedy=f"Use {', '.join(get_args(Kind))}."
            )
        if (self.minimum is not None or self.maximum is not None) and self.kind not in ("integer", "number"):
            raise InvalidConfig(
                f"column {self.name!r} is of kind {self.kind!r} and cannot have a range",
                remedy="Give minimum and maximum only to integer and number columns.",
            )


def has_kind(dtype: pl.DataType, kind: Kind) -> bool:
    """Whether values of the Polars ``dtype`` are of ``kind``; integers are numbers too."""
    import polars as pl

    if kind == "integer":
        return dtype.is_integer()
    if kind == "number":
        return dtype.is_numeric()
    if kind == "instant":
        return isinstance(dtype, pl.Datetime) and dtype.time_zone == "UTC"
    return dtype == (pl.String if kind == "text" else pl.Boolean)
