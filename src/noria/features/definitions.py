"""What a feature is: entities, views, and the rules their source must obey."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from noria.errors import InvalidConfig, InvalidData

if TYPE_CHECKING:
    import polars as pl

OnMissing = Literal["error", "null"]


@dataclass(frozen=True, slots=True)
class Entity:
    """What features are about; ``join_keys`` are the columns that name one."""

    name: str
    join_keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class FeatureView:
    """Numeric features of one entity over time.

    ``source`` gives a frame with the entity's join keys, ``event_timestamp`` (when the value was true),
    ``created_timestamp`` (when it was known; the event's own time when the column is absent), both UTC, and ``fields``.
    A value older than ``ttl`` counts as missing. ``on_missing`` says what a prediction for an entity without a row
    gets: an error, or nulls that the model must be able to take.
    """

    name: str
    entity: Entity
    fields: Sequence[str]
    source: Callable[[], pl.DataFrame]
    ttl: timedelta | None = None
    on_missing: OnMissing = "error"

    def __post_init__(self) -> None:
        if not self.fields or len(set(self.fields)) != len(self.fields):
            raise InvalidConfig(
                f"feature view {self.name!r} needs distinct fields", remedy="List every feature column once."
            )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns the view adds to a training frame: ``view__field``."""
        return tuple(f"{self.name}__{field}" for field in self.fields)

    def load(self) -> pl.DataFrame:
        """The source's rows with both timestamps. Raises InvalidData when a column is missing or not UTC."""
        import polars as pl

        frame = self.source()
        needed = [*self.entity.join_keys, "event_timestamp", *self.fields]
        if missing := [name for name in needed if name not in frame.columns]:
            raise InvalidData(
                f"the source of feature view {self.name!r} lacks columns: {', '.join(missing)}",
                remedy=f"It gave: {', '.join(frame.columns)}.",
            )
        if "created_timestamp" not in frame.columns:
            frame = frame.with_columns(created_timestamp=pl.col("event_timestamp"))
        for column in ("event_timestamp", "created_timestamp"):
            dtype = frame.schema[column]
            if not isinstance(dtype, pl.Datetime) or dtype.time_zone != "UTC":
                raise InvalidData(
                    f"{column!r} of feature view {self.name!r} is {dtype}, not a UTC datetime",
                    remedy="Convert it with .dt.replace_time_zone('UTC') or .dt.convert_time_zone('UTC').",
                )
        return frame.select(
            *self.entity.join_keys,
            pl.col("event_timestamp", "created_timestamp").dt.cast_time_unit("ms"),
            *(pl.col(field).cast(pl.Float64) for field in self.fields),
        ).drop_nulls(["event_timestamp", "created_timestamp"])
