"""The bodies of Feast's feature server: what its clients send and read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from noria.clock import as_utc, iso
from noria.errors import InvalidInput
from noria.features.exact import Inexact
from noria.features.times import instants_of_texts
from noria.features.types import FeatureType, Json
from noria.structs import read_by_threads

if TYPE_CHECKING:
    import polars as pl

    from noria.features.retrieval import OnlineResponse


@read_by_threads
class Lookup(msgspec.Struct):
    """What ``/get-online-features`` takes: references or a service, and the join keys of entities by column."""

    entities: dict[str, list[Any]]
    feature_service: str | None = None
    features: list[str] = []
    full_feature_names: bool = False


@read_by_threads
class Push(msgspec.Struct):
    """What ``/push`` takes: rows by column, for every view of a push source."""

    push_source_name: str
    df: dict[str, list[Any]]
    to: str = "online"


@read_by_threads
class Write(msgspec.Struct):
    """What ``/write-to-online-store`` takes: rows of one view by column."""

    feature_view_name: str
    df: dict[str, list[Any]]


@read_by_threads
class Materialize(msgspec.Struct):
    """What ``/materialize`` takes; times are RFC 3339, UTC without a zone."""

    end_ts: str = ""
    start_ts: str | None = None
    feature_views: list[str] | None = None
    disable_event_timestamp: bool = False


Body = TypeVar("Body", Lookup, Push, Write, Materialize)


def decoded(kind: type[Body], content: bytes) -> Body:
    """A request's body. Raises InvalidInput."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"the body cannot be read: {error}", remedy="Send what Feast's feature server takes."
        ) from None


def frame_of(columns: Mapping[str, Sequence[Any]], instants: Sequence[str] = ()) -> pl.DataFrame:
    """Rows sent by column; ``instants`` come as seconds since 1970, or in ISO 8601. Raises InvalidInput."""
    import polars as pl

    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{len(values)} of {name!r}" for name, values in columns.items())
        raise InvalidInput(f"df is no table: {lengths}", remedy="Send columns of equal length.")
    return pl.DataFrame([_series(name, values, is_instant=name in instants) for name, values in columns.items()])


def _series(name: str, values: Sequence[Any], *, is_instant: bool) -> pl.Series:
    import polars as pl

    kinds = [_kind(value) for value in values]
    odd = next((row for row, kind in enumerate(kinds) if kind and kind != next(filter(None, kinds))), None)
    if odd is not None:
        raise InvalidInput(
            f"column {name!r} holds {values[odd]!r:.80} in row {odd} (counted from 0), beside values of another kind",
            remedy="Send values of one kind in every column; null where there is none.",
        )
    try:
        if is_instant and "str" in kinds:
            return instants_of_texts(pl.Series(name, values))
        if is_instant and "number" in kinds:
            micros = [None if value is None else round(value * 1_000_000) for value in values]
            return pl.Series(name, micros, pl.Int64).cast(pl.Datetime("us", "UTC"))
        as_floats = any(isinstance(value, float) for value in values)
        return pl.Series(name, [float(v) if as_floats and v is not None else v for v in values])
    except Inexact as error:
        _, row, value, _ = error.parts
        raise InvalidInput(
            f"column {name!r} holds {value} in row {row} (counted from 0), which is no time",
            remedy="Send seconds since 1970, or RFC 3339 such as 2026-03-01T12:00:00Z.",
        ) from None
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(
            f"column {name!r} cannot be read: {str(error).splitlines()[0]}",
            remedy="Send whole numbers of 64 bits, other numbers, texts, booleans, or lists of those.",
        ) from None


def _kind(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return type(value).__name__


def written(response: OnlineResponse) -> Mapping[str, object]:
    """The answer as Feast's protocol buffers read in JSON."""
    results = [
        {
            "values": _values(column.values, response.types.get(name)),
            "statuses": [status.name for status in column.statuses],
            "event_timestamps": [_rfc_3339(micros) for micros in column.event_timestamps],
        }
        for name, column in response.columns.items()
    ]
    return {"metadata": {"feature_names": list(response.columns)}, "results": results}


def _values(values: Sequence[Any], dtype: FeatureType | None) -> Sequence[Any]:
    """Values as a client reads them: instants in seconds since 1970, dictionaries as such, Json as its text."""
    if dtype is None or dtype == Json or (not dtype.is_document and "UnixTimestamp" not in str(dtype)):
        return values
    if dtype.is_document:
        return [_or_none(value, _dictionary) for value in values]
    if dtype.inner is None:
        return [_or_none(value, _seconds) for value in values]
    return [_or_none(value, lambda listed: [_or_none(one, _seconds) for one in listed]) for value in values]


def _or_none(value: Any, convert: Callable[[Any], Any]) -> Any:
    return None if value is None else convert(value)


def _seconds(moment: datetime) -> int:
    return math.floor(moment.timestamp())


def _dictionary(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


def instant(text: str) -> datetime:
    """A time as it is sent. Raises InvalidInput."""
    try:
        return as_utc(datetime.fromisoformat(text))
    except ValueError:
        raise InvalidInput(f"{text!r} is no time", remedy="Write RFC 3339, such as 2026-03-01T12:00:00Z.") from None


def _rfc_3339(micros: int | None) -> str:
    return iso(datetime.fromtimestamp((micros or 0) / 1_000_000, UTC))
