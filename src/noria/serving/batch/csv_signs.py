"""Which signs a CSV file is written with: what stands between its values, and what before decimals."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from noria.serving.batch.text_blocks import records_of

if TYPE_CHECKING:
    import polars as pl

_OTHER = re.compile(r"[;\t|]")
"""What stands between values in place of commas; in the only column's name it is taken for that."""
_QUOTED = re.compile(rb'"[^"]*"')
_TOLD = re.compile(rb'(?:\xef\xbb\xbf)?"?sep=([,;\t|])"?\r?\n?', re.IGNORECASE)
_DECIMAL_COMMAS = r"^\s*[+-]?\d+(,\d+)?\s*$"


@dataclass(frozen=True, slots=True)
class Signs:
    """``separator`` stands between values; with ``decimal_commas`` 1,5 is a number, and 1.5 is none: it may be 15.

    Between commas there are no decimal commas.
    """

    separator: str = ","
    decimal_commas: bool = False

    def read(self, block: bytes, schema: dict[str, Any]) -> pl.DataFrame:
        """A block of sound rows in the types of ``schema``, of which none is a float where there are decimal commas:
        Polars would take points for them, too. Raises PolarsError for values that are none of these types."""
        import polars as pl

        if not block:
            return pl.DataFrame(schema=schema)
        return pl.read_csv(block, has_header=False, schema=schema, separator=self.separator)

    def guess(self, block: bytes, header: Sequence[str]) -> pl.DataFrame:
        """A block of sound rows in the types that its values look like."""
        import polars as pl

        return pl.read_csv(
            block, has_header=False, new_columns=header, infer_schema_length=None,
            separator=self.separator, decimal_comma=self.decimal_commas,
        )  # fmt: skip

    def is_even(self, block: bytes, rows: int, width: int) -> bool:
        """Whether no row is shorter than ``width``, where none is longer: Polars takes what is missing for null."""
        sign = self.separator.encode()
        within = b"".join(_QUOTED.findall(block)) if b'"' in block else b""
        return block.count(sign) - within.count(sign) == rows * (width - 1)

    def records(self, block: bytes) -> list[bytes]:
        """The block's records without their ends."""
        return [record.rstrip(b"\r\n") for record in records_of(block, self.separator)]

    def mended_row(self, line: bytes, width: int) -> tuple[bytes, str]:
        """A line without its end, quoted as it should be, or why it is no row of ``width`` values."""
        try:
            text = line.decode()
        except UnicodeDecodeError as error:  # to replace what it cannot say would make one key of two
            return b"", f"the row is not UTF-8: {error.reason} at its byte {error.start}"
        if b'"' not in line or _well_quoted(self.separator).fullmatch(line):
            row, found = line, _QUOTED.sub(b"", line).count(self.separator.encode()) + 1
        else:
            try:
                values = next(csv.reader([text], delimiter=self.separator))
            except csv.Error as error:
                return b"", f"the row is no CSV: {error}"
            row, found = self._quoted(values), len(values)
        return row, "" if found == width else f"the row has {found} values, and the header {width}"

    def number(self, column: pl.Expr) -> pl.Expr:
        """Texts as they are cast to numbers; null for what these signs do not write."""
        import polars as pl

        text = column.str.strip_chars()
        if not self.decimal_commas:
            return text
        return pl.when(~text.str.contains(".", literal=True)).then(text.str.replace(",", ".", literal=True))

    def _quoted(self, values: Sequence[str]) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self.separator, lineterminator="").writerow(values)
        return text.getvalue().encode()


def told_separator(line: bytes) -> str:
    """What stands between values by a first line ``sep=;``, as Excel reads and writes it; empty for any other line."""
    found = _TOLD.fullmatch(line)
    return found[1].decode() if found else ""


def header_of(line: str, separator: str = "") -> tuple[list[str], Signs]:
    """The names in a header, and what stands between them: ``separator`` or, where none is known, commas or, where
    these would make one name of it all, the other sign that is in it. Raises csv.Error, also for several others."""
    if separator:
        return next(csv.reader([line], delimiter=separator), []), Signs(separator)
    header = next(csv.reader([line]), [])
    others = sorted(set(_OTHER.findall(header[0]))) if len(header) == 1 else []
    if not others:
        return header, Signs()
    if len(others) > 1:
        raise csv.Error(f"its values may stand between {' or '.join(map(repr, others))}")
    (separator,) = others
    return next(csv.reader([line], delimiter=separator)), Signs(separator)


def has_decimal_commas(texts: pl.DataFrame) -> bool:
    """Whether the values of a column are numbers with decimal commas, as far as they have decimals."""
    for column in texts:
        found = column.drop_nulls()
        if found.str.contains(",", literal=True).any() and found.str.contains(_DECIMAL_COMMAS).all():
            return True
    return False


@functools.cache
def _well_quoted(separator: str) -> re.Pattern[bytes]:
    sign = re.escape(separator.encode())
    value = rb'(?:"[^"]*+(?:""[^"]*+)*+"|[^"%s]*+)' % sign  # possessive: of each step back, memory is taken
    return re.compile(rb"%s(?:%s%s)*+" % (value, sign, value))
