"""Values of features in Python: what may stand for a type, and what it then is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from noria.features.times import instant
from noria.features.types import FeatureType

if TYPE_CHECKING:
    import polars as pl

_BOUNDS = {"Int32": 2**31, "Int64": 2**63}


def typed(dtype: FeatureType, value: object) -> object:
    """``value`` as what a column of ``dtype`` gives back. Nothing is cut off, and no text is read as a number.

    Whole floats and booleans may stand for integers, any number for a float, a text in ISO form for an instant (UTC
    without a zone); null is null. Raises ValueError.
    """
    if value is None:
        return None
    if dtype.inner is not None:
        return _list(dtype.inner, value)
    return _PLAIN[dtype.name](dtype.name, value)


def typed_list(dtype: FeatureType, values: Sequence[object]) -> list[object]:
    """Each of ``values`` as ``typed`` gives it. Raises ValueError that tells which one is wrong."""
    done: list[object] = []
    try:
        for value in values:
            done.append(typed(dtype, value))
    except ValueError as error:
        raise ValueError(f"row {len(done)}: {error}") from None
    return done


def typed_series(dtype: FeatureType, series: pl.Series) -> pl.Series:
    """``series`` in the column type of ``dtype``, value by value what ``typed`` gives. Raises ValueError."""
    import polars as pl

    wanted, given = dtype.polars(), series.dtype
    if given == wanted:
        return series
    if given == pl.Null or (given in (pl.Categorical, pl.Enum) and wanted == pl.String):
        return series.cast(wanted)
    if wanted.is_float() and (given.is_float() or given.is_integer()):
        return series.cast(wanted)
    if wanted.is_integer() and given.is_integer():
        return _narrowed(dtype, series)
    if wanted.is_temporal() and isinstance(given, pl.Datetime | pl.Date):
        return series.to_frame().select(instant(series.name, given, "").dt.cast_time_unit("us")).to_series()
    return pl.Series(series.name, typed_list(dtype, series.to_list()), dtype=wanted)


def _narrowed(dtype: FeatureType, series: pl.Series) -> pl.Series:
    cast = series.cast(dtype.polars(), strict=False)
    if cast.null_count() > series.null_count():
        typed_list(dtype, series.to_list())
    return cast


def _list(inner: FeatureType, value: object) -> list[object]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise ValueError(f"{_shown(value)} is no Array({inner})")
    return [typed(inner, one) for one in value]


def _integer(name: str, value: object) -> int:
    if isinstance(value, float | np.floating) and _is_whole(float(value)):
        value = int(value)
    if not isinstance(value, int | np.integer | np.bool_):
        raise ValueError(f"{_shown(value)} is no {name}")
    if not -_BOUNDS[name] <= int(value) < _BOUNDS[name]:
        raise ValueError(f"{_shown(value)} does not fit {name}")
    return int(value)


def _is_whole(value: float) -> bool:
    return value.is_integer() and abs(value) < 2**64


def _float(name: str, value: object) -> float:
    if not isinstance(value, float | int | np.floating | np.integer | np.bool_ | Decimal):
        raise ValueError(f"{_shown(value)} is no {name}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{_shown(value)} does not fit {name}") from None
    return ctypes.c_float(number).value if name == "Float32" else number


def _bool(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{_shown(value)} is no {name}")
    return bool(value)


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is no {name}")
    return str(value)


def _document(name: str, value: object) -> str:
    """A dictionary as the JSON text it is kept as."""
    if isinstance(value, Mapping):
        return msgspec.json.encode(value).decode()
    return _string(name, value)


def _bytes(name: str, value: object) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise ValueError(f"{_shown(value)} is no {name}")
    return bytes(value)


def _instant(name: str, value: object) -> datetime | None:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, np.datetime64):
        value = None if np.isnat(value) else value.astype("datetime64[us]").item()
    if value is None or value != value:  # a missing time of numpy or pandas
        return None
    if not isinstance(value, date):
        raise ValueError(f"{_shown(value)} is no {name}")
    if not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    known = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    # a plain instant, also of pandas, whose own knows nanoseconds
    return datetime.combine(known.date(), known.time(), UTC)


def _shown(value: object) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= 80 else f"{text[:77]}..."


_PLAIN: Mapping[str, Callable[[str, object], object]] = {
    "Bytes": _bytes,
    "String": _string,
    "Json": _document,
    "Map": _document,
    "Struct": _document,
    "Bool": _bool,
    "Int32": _integer,
    "Int64": _integer,
    "Float32": _float,
    "Float64": _float,
    "UnixTimestamp": _instant,
}
