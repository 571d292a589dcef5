"""Clauses of MLflow's grammar as conditions of the database, the same on every engine."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ColumnElement, String, collate, func

from noria.errors import InvalidInput
from noria.store.database import Transaction
from noria.tracking.search import NULLS, Clause

if TYPE_CHECKING:
    import sqlite3

_POSTGRESQL_ESCAPES = {r"\b": r"\y", r"\B": r"\Y", r"\z": r"\Z"}
_SHORT = 250


def by_code_point(tx: Transaction, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """What to order by so that texts come by code point, whatever the database's language is."""
    return collate(column, "C") if tx.dialect.name != "sqlite" and isinstance(column.type, String) else column


def compare(tx: Transaction, column: ColumnElement[Any], clause: Clause, *, number: bool) -> ColumnElement[bool]:
    """The clause as a condition on a column. Raises InvalidInput for a comparison that makes no sense."""
    operator, value = clause.operator, clause.value
    if operator in NULLS or (not number and operator.startswith((">", "<"))):
        raise InvalidInput(
            f"{clause.kind}.{clause.key} cannot be compared by {operator}", remedy="Compare by = or LIKE."
        )
    if number != isinstance(value, float):
        wanted = "a number" if number else "a text in quotes"
        raise InvalidInput(f"{clause.kind}.{clause.key} is compared with {wanted}", remedy="Change the filter's value.")
    if operator in ("IN", "NOT IN"):
        values = [value] if isinstance(value, str | float) else list(value)
        return column.in_(values) if operator == "IN" else column.not_in(values)
    if operator == "RLIKE":
        return _rlike(tx, column, str(value))
    if "LIKE" in operator:
        matches = _ilike(tx, column, str(value)) if operator == "ILIKE" else _like(tx, column, str(value))
        return matches if operator != "NOT LIKE" else ~matches
    known: ColumnElement[bool] = column.op(operator, is_comparison=True)(value)
    return known


def _like(tx: Transaction, column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    """LIKE that minds case; SQLite's own does not, its GLOB does."""
    if tx.dialect.name != "sqlite":
        return column.like(pattern, escape="")
    special = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return func.glob("".join(special.get(char, char) for char in pattern), column, type_=None) == 1


def _ilike(tx: Transaction, column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    """LIKE that minds no case; no character escapes another, as in SQLite."""
    return column.ilike(pattern) if tx.dialect.name == "sqlite" else column.ilike(pattern, escape="")


def _rlike(tx: Transaction, column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    """Whether a regular expression in RE2's language, where a dot is any character, is found in the text.

    SQLite would run Python's own, which a pattern of ten characters keeps busy for years; RE2 takes linear time.
    """
    try:
        _find(pattern, "")
    except ValueError as error:
        raise InvalidInput(
            f"{pattern[:200]!r} is no regular expression: {error}",
            remedy="Write it in RE2's syntax, which has no lookaround and no backreferences.",
        ) from None
    if tx.dialect.name != "sqlite":
        translated = re.sub(r"\\.", lambda found: _POSTGRESQL_ESCAPES.get(found[0], found[0]), pattern)
        return column.op("~", is_comparison=True)(translated)
    handle = cast("sqlite3.Connection", tx.connection.driver_connection)
    handle.create_function("noria_matches", 2, _matches, deterministic=True)
    return func.noria_matches(f"(?s){pattern}", column, type_=None) == 1


def _matches(pattern: str, text: str | None) -> bool:
    if text is None:
        return False
    return _find_again(pattern, text) if len(text) <= _SHORT else _find(pattern, text)


def _find(pattern: str, text: str) -> bool:
    import pyarrow.compute as pc

    return bool(pc.match_substring_regex(text, pattern=pattern).as_py())


_find_again = functools.lru_cache(maxsize=10_000)(_find)  # names, states and tags come again and again
