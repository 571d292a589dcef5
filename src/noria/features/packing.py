"""Online rows as bytes: a stamp, the id of the row's layout, then its values in MessagePack, in the layout's order."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from noria.errors import CorruptArtifact, InvalidData
from noria.features.definitions import FeatureView
from noria.features.entity_keys import converter, pack_key, view_prefix
from noria.features.exact import Inexact, exact
from noria.features.sources import CREATED, EVENT
from noria.features.types import FeatureType, UnixTimestamp, type_of
from noria.store.stamps import SIGN, pack_stamp
from noria.structs import read_by_threads

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

HEAD = struct.Struct(">QQ8s")
"""Of a row: event time and created time (``noria.store.stamps``), and the id of its layout."""

LAYOUTS = b"\xc0"  # no view's keys begin so
_ID_BYTES = 8
DEFINITION_DIGITS = 16
"""How much of a definition's hash is kept with rows."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.msgpack.Encoder().encode


@read_by_threads
class Layout(msgspec.Struct, array_like=True, frozen=True):
    """The fields of a packed row in order, with their types. Kept beside the rows, so that old ones stay readable.

    ``definition`` is that of the view they were written for, shortened; those of rows written before have none.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    definition: str = ""

    @classmethod
    def of(cls, view: FeatureView) -> Layout:
        """The layout rows of ``view`` are written in."""
        return cls(view.fields, tuple(str(one.dtype) for one in view.features), view.definition[:DEFINITION_DIGITS])

    @property
    def id(self) -> bytes:
        """A hash of all of it."""
        return hashlib.blake2b(_encode(self), digest_size=_ID_BYTES).digest()

    def entry(self) -> tuple[bytes, bytes]:
        """What is stored of the layout itself."""
        return layout_key(self.id), pack_stamp(0, 0) + _encode(self)


def layout_key(layout_id: bytes) -> bytes:
    """Where the layout with this id is stored."""
    return LAYOUTS + layout_id


def parse_layout(stored: bytes | None, view: str) -> Layout:
    """The layout of an entry. Raises CorruptArtifact when there is none."""
    if stored is None:
        raise CorruptArtifact(
            f"a row of feature view {view!r} is stored in a layout that is not in the online store",
            remedy="Materialize the view again.",
        )
    return msgspec.msgpack.decode(stored[HEAD.size - _ID_BYTES :], type=Layout)


def pack_rows(view: FeatureView, rows: pl.DataFrame) -> list[tuple[bytes, bytes]]:
    """The entries of ``rows`` (as ``FeatureView.load`` gives them), in order; rows without a join key have none."""
    if any(rows[name].null_count() for name in view.join_keys):
        rows = rows.drop_nulls(list(view.join_keys))
    keys = [_key_values(rows[name], view.key_types().get(name)) for name in view.join_keys]
    fields = [_plain(rows[one.name], one.dtype) for one in view.features]
    values = zip(*fields, strict=True) if fields else ((),) * rows.height
    parts = zip(*keys, strict=True) if keys else ((),) * rows.height
    prefix, encode = view_prefix(view.name), _encode
    return [
        (pack_key(prefix, part), head + encode(row))
        for part, head, row in zip(parts, _heads(rows, Layout.of(view).id), values, strict=True)
    ]


def _heads(rows: pl.DataFrame, layout_id: bytes) -> list[bytes]:
    """The first bytes of every row."""
    import numpy as np

    heads = np.empty((rows.height, 3), dtype=">u8")
    created = rows[CREATED].fill_null(rows[EVENT]) if rows[CREATED].null_count() else rows[CREATED]
    for column, times in enumerate((rows[EVENT], created)):
        heads[:, column] = _micros(times).view(np.uint64) ^ np.uint64(SIGN)
    heads[:, 2] = int.from_bytes(layout_id)
    found: list[bytes] = heads.view(f"V{HEAD.size}").ravel().tolist()
    return found


def _micros(times: pl.Series) -> NDArray[np.int64]:
    """UTC microseconds. By NumPy: an expression costs more than all the rest of a frame of few rows."""
    return times.to_numpy().astype("datetime64[us]").view("int64")


def _key_values(column: pl.Series, declared: FeatureType | None) -> list[object]:
    """The values of a join key in the declared type, or in that of the data."""
    kind = declared or type_of(column.dtype)
    values = _plain(exact_key(column, kind), kind)
    return list(map(converter(str(kind)), values)) if kind.name in ("Float32", "Float64") else values


def exact_key(column: pl.Series, kind: FeatureType) -> pl.Series:
    """The values of a join key in its type. Raises InvalidData that names a row."""
    try:
        return exact(column, kind.polars(), str(kind))
    except Inexact as error:
        _, row, value, _ = error.parts
        raise InvalidData(
            f"join key {column.name!r} is declared {kind}, and row {row} (counted from 0) holds {value}",
            remedy="Mend the rows, or the key's type in the view's schema or its entity.",
        ) from None


def _plain(column: pl.Series, kind: FeatureType) -> list[object]:
    """The values as MessagePack holds them: instants as UTC microseconds."""
    instants = UnixTimestamp in (kind, kind.inner)
    found: list[object] = (column.to_physical() if instants else column).to_list()
    return found


def unpacker(stored: str, wanted: str) -> Callable[[object], object] | None:
    """What turns a value stored in one type into another ("" is as stored). None: nothing to do.

    Raises LookupError when no value of the one is one of the other.
    """
    if not wanted or stored == wanted:
        return _UNPACKERS.get(stored)
    if (stored in _NUMBERS and wanted in ("Float32", "Float64")) or (stored, wanted) == ("Int32", "Int64"):
        return _as_float if wanted.startswith("Float") else None
    raise LookupError(wanted)


_NUMBERS = ("Int32", "Int64", "Float32", "Float64")


def _as_float(number: Any) -> float:
    return float(number)


def _instant(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _instants(micros: Sequence[int | None]) -> list[datetime | None]:
    return [None if one is None else _instant(one) for one in micros]


_UNPACKERS: Mapping[str, Callable[..., object]] = {
    "UnixTimestamp": _instant,
    "Array(UnixTimestamp)": _instants,
}
