"""Types of features, spelled as Feast spells them, and what they are in frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from noria.errors import InvalidConfig

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class FeatureType:
    """The type of one feature's values; null is a value of every type."""

    name: str
    inner: FeatureType | None = None
    members: tuple[tuple[str, FeatureType], ...] = ()

    def polars(self) -> pl.DataType:
        """The type of a Polars column of such values. Instants are UTC microseconds, documents JSON texts."""
        import polars as pl

        if self.inner is not None:
            return pl.List(self.inner.polars())
        plain: dict[str, pl.DataType] = {
            "Bytes": pl.Binary(),
            "String": pl.String(),
            "Bool": pl.Boolean(),
            "Int32": pl.Int32(),
            "Int64": pl.Int64(),
            "Float32": pl.Float32(),
            "Float64": pl.Float64(),
            "UnixTimestamp": pl.Datetime("us", "UTC"),
        }
        return plain.get(self.name, pl.String())

    @property
    def is_numeric(self) -> bool:
        """Whether a model takes such values as they are: numbers and booleans."""
        return self.inner is None and self.name in ("Bool", "Int32", "Int64", "Float32", "Float64")

    @property
    def is_document(self) -> bool:
        """Whether values are dictionaries, kept as JSON texts."""
        return self.name in ("Map", "Struct")

    def is_kind_of(self, other: FeatureType) -> bool:
        """Whether values of this type are taken for values of the other: numbers for numbers, lists for such lists."""
        if self.inner is not None and other.inner is not None:
            return self.inner.is_kind_of(other.inner)
        both = {self.name, other.name}
        return self == other or (self.is_numeric and other.is_numeric) or both <= _WRITTEN or both <= {"Map", "Struct"}

    def __str__(self) -> str:
        if self.members:
            return "Struct({" + ", ".join(f"{name}: {dtype}" for name, dtype in self.members) + "})"
        return f"Array({self.inner})" if self.inner is not None else self.name


Bytes = FeatureType("Bytes")
String = FeatureType("String")
Bool = FeatureType("Bool")
Int32 = FeatureType("Int32")
Int64 = FeatureType("Int64")
Float32 = FeatureType("Float32")
Float64 = FeatureType("Float64")
UnixTimestamp = FeatureType("UnixTimestamp")
Json = FeatureType("Json")
Map = FeatureType("Map")

_PLAIN = {one.name: one for one in (Bytes, String, Bool, Int32, Int64, Float32, Float64, UnixTimestamp, Json, Map)}
_WRITTEN = {"String", "Json", "Map", "Struct"}
"""Types whose values are texts in frames."""


def Array(inner: FeatureType) -> FeatureType:
    """A list of values of one plain type."""
    return FeatureType("Array", inner)


def Struct(members: Mapping[str, FeatureType]) -> FeatureType:
    """A dictionary whose members have names and types; the types are what people read, and are not checked."""
    return FeatureType("Struct", members=tuple(members.items()))


def parse_type(text: str) -> FeatureType:
    """The type whose ``str`` was ``text``. Raises InvalidConfig."""
    if text.startswith("Array(") and text.endswith(")"):
        return Array(parse_type(text[6:-1]))
    if text.startswith("Struct({") and text.endswith("})"):
        pairs = (member.split(": ", 1) for member in _members(text[8:-2]))
        return Struct({name: parse_type(dtype) for name, dtype in pairs})
    if text not in _PLAIN:
        raise InvalidConfig(f"{text!r} is no feature type", remedy=f"Use {', '.join(_PLAIN)} or Array(...) of one.")
    return _PLAIN[text]


def _members(text: str) -> list[str]:
    """The parts between commas that are in no bracket."""
    parts, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def type_of(dtype: pl.DataType) -> FeatureType:
    """The feature type that holds all values of a Polars column. Raises InvalidConfig when none does."""
    import polars as pl

    if isinstance(dtype, pl.List | pl.Array) and isinstance(dtype.inner, pl.DataType):
        return Array(type_of(dtype.inner))
    if dtype.is_float():
        return Float32 if dtype == pl.Float32 else Float64
    if dtype.is_integer():
        return Int32 if dtype in (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16) else Int64
    if isinstance(dtype, pl.Datetime | pl.Date):
        return UnixTimestamp
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return String
    if dtype == pl.Boolean:
        return Bool
    if isinstance(dtype, pl.Struct):
        return Map
    if dtype == pl.Binary:
        return Bytes
    if isinstance(dtype, pl.Decimal):
        return Float64
    raise InvalidConfig(
        f"a column of {dtype} cannot be a feature", remedy="Turn it into numbers, texts, instants or lists of those."
    )


class ValueType(Enum):
    """How an entity's ``value_type`` is spelled; the numbers are Feast's."""

    UNKNOWN = 0
    BYTES = 1
    STRING = 2
    INT32 = 3
    INT64 = 4
    DOUBLE = 5
    FLOAT = 6
    BOOL = 7
    UNIX_TIMESTAMP = 8

    @property
    def feature_type(self) -> FeatureType | None:
        """The same as the type of a field; None for UNKNOWN, which is found out from the data."""
        return {
            "BYTES": Bytes,
            "STRING": String,
            "INT32": Int32,
            "INT64": Int64,
            "DOUBLE": Float64,
            "FLOAT": Float32,
            "BOOL": Bool,
            "UNIX_TIMESTAMP": UnixTimestamp,
        }.get(self.name)
