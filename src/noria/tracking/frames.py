"""Frames a user hands in, polars or pandas, and the digest that names their content."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

_ROWS_AT_ONCE = 50_000


def as_frame(data: Any, what: str) -> pl.DataFrame:
    """``data`` as a polars frame. Raises InvalidInput for anything but a polars or pandas one."""
    import polars as pl

    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, pl.LazyFrame):
        return data.collect()
    if type(data).__module__.split(".")[0] == "pandas" and hasattr(data, "columns"):
        return pl.from_pandas(data)
    raise InvalidInput(f"{what} is {type(data).__name__}, not a frame", remedy="Give a polars or pandas DataFrame.")


def digest(frame: pl.DataFrame) -> str:
    """32 hex characters of SHA-256 over column names, types and rows: the same for equal polars and pandas frames."""
    found = hashlib.sha256(repr(list(frame.schema.items())).encode())
    for part in frame.iter_slices(_ROWS_AT_ONCE):
        text = io.BytesIO()
        part.write_ndjson(text)
        found.update(text.getbuffer())
    return found.hexdigest()[:32]
