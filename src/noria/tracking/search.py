"""Search in MLflow's grammar: ``metrics.auc > 0.8 AND tags.team = 'x'``, read for all, answered for short lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from noria.errors import InvalidInput

T = TypeVar("T")
NULLS = ("IS NULL", "IS NOT NULL")
Value = str | float | None
Fields = Callable[[str, str], Value]
"""(kind, key) → the value of one candidate: kinds are attributes, metrics, params, tags."""

_CLAUSE = re.compile(
    r"""^\s*(?:(?P<kind>\w+)\.)?(?P<key>(?:attributes\.)?(?:`[^`]+`|"[^"]+"|[\w.\-/]+))\s*
        (?:(?P<null>IS\s+(?:NOT\s+)?NULL)|(?P<op>!=|>=|<=|=|>|<|NOT\s+LIKE|LIKE|ILIKE|RLIKE|NOT\s+IN|IN)\s*
        (?P<value>'[^']*'|"[^"]*"|-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|\([^)]*\)))\s*$""",
    re.IGNORECASE | re.VERBOSE,
)
_AND = re.compile(r"""\s+AND\s+(?=(?:[^'"]|'[^']*'|"[^"]*")*$)""", re.IGNORECASE)
_KINDS: Mapping[str, str] = {
    "metric": "metrics", "metrics": "metrics", "param": "params", "params": "params", "parameters": "params",
    "tag": "tags", "tags": "tags", "attribute": "attributes", "attributes": "attributes", "attr": "attributes",
    "run": "attributes", "dataset": "datasets", "datasets": "datasets",
}  # fmt: skip
TRACE_KINDS: Mapping[str, str] = {
    "tag": "tags", "tags": "tags", "attribute": "attributes", "attributes": "attributes", "trace": "attributes",
    "metadata": "metadata", "request_metadata": "metadata", "span": "span", "feedback": "feedback",
    "expectation": "expectation", "issue": "issue",
}  # fmt: skip
"""What clauses about traces begin with → their kind."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison of a filter."""

    kind: str
    key: str
    operator: str
    value: str | float | Sequence[str]

    def holds(self, fields: Fields) -> bool:
        """Whether a candidate meets it; a missing value meets none."""
        found = fields(self.kind, self.key)
        if self.operator in NULLS:
            return (found is None) == (self.operator == "IS NULL")
        if found is None:
            return False
        if isinstance(found, float | int) and isinstance(self.value, float):
            return _compare(self.operator, found, self.value)
        return _match(self.operator, str(found), self.value)


@dataclass(frozen=True, slots=True)
class Searchable:
    """What of a kind of thing can be asked for: attributes that are texts or numbers, and more than those."""

    texts: Collection[str] = ()
    numbers: Collection[str] = ()
    orders: Collection[str] = ()
    kinds: Collection[str] = ("tags",)
    ordered_kinds: Collection[str] = ()
    nulls: bool = True

    def check(self, clause: Clause) -> None:
        """Raises InvalidInput for a clause that compares what is not there, or in a way that makes no sense."""
        is_number = clause.kind == "metrics" or (clause.kind == "attributes" and clause.key in self.numbers)
        if clause.kind == "attributes":
            known = clause.key in self.texts or clause.key in self.numbers
        else:
            known = clause.kind in self.kinds
        if not known:
            raise _no_clause(clause, f"Use {', '.join((*self.texts, *self.numbers, *self.kinds))}.")
        if clause.operator in NULLS:
            sound = self.nulls and clause.kind in ("tags", "params")
        elif is_number:
            sound = isinstance(clause.value, float) and clause.operator in ("=", "!=", ">", ">=", "<", "<=")
        else:
            sound = not isinstance(clause.value, float) and not clause.operator.startswith((">", "<", "RLIKE"))
        if not sound:
            raise _no_clause(clause, "Compare texts by =, !=, LIKE, ILIKE or IN, and numbers by =, !=, >, >=, < or <=.")

    def check_order(self, kind: str, key: str) -> None:
        """Raises InvalidInput for what cannot be ordered by."""
        if key not in self.orders if kind == "attributes" else kind not in self.ordered_kinds:
            raise InvalidInput(f"Invalid order_by {key!r}", remedy=f"Order by {', '.join(self.orders)}.")


def parse_filter(text: str, kinds: Mapping[str, str] = _KINDS) -> list[Clause]:
    """The clauses of a filter string, joined by AND. Raises InvalidInput naming the clause that is none."""
    return [_clause(part, kinds) for part in _AND.split(text)] if text.strip() else []


def parse_order(text: str, kinds: Mapping[str, str] = _KINDS) -> tuple[str, str, bool]:
    """(kind, key, descending) of an order_by such as ``metrics.auc DESC``."""
    match = re.match(r"^\s*(?:(\w+)\.)?(`[^`]+`|\"[^\"]+\"|[\w.\-/]+)(?:\s+(ASC|DESC))?\s*$", text, re.IGNORECASE)
    if match is None:
        raise InvalidInput(f"{text!r} is not an order", remedy="Write a key such as 'metrics.auc DESC'.")
    kind, key, direction = match.groups()
    return _kind(kind, kinds), key.strip('`"'), (direction or "ASC").upper() == "DESC"


def select_matching(
    candidates: Sequence[T],
    fields_of: Callable[[T], Fields],
    filter_text: str,
    order_by: Sequence[str],
    searchable: Searchable,
) -> list[T]:
    """The candidates that meet the filter, ordered; ties keep the order given, missing values come last.

    Raises InvalidInput for a filter or an order of what is not ``searchable``.
    """
    clauses, orders = parse_filter(filter_text), [parse_order(text) for text in order_by]
    for clause in clauses:
        searchable.check(clause)
    for kind, key, _ in orders:
        searchable.check_order(kind, key)
    chosen = [item for item in candidates if all(clause.holds(fields_of(item)) for clause in clauses)]
    for kind, key, descending in reversed(orders):
        chosen = order(chosen, lambda item, kind=kind, key=key: fields_of(item)(kind, key), descending)  # type: ignore[misc]
    return chosen


def order(items: Sequence[T], value_of: Callable[[T], Value], descending: bool) -> list[T]:
    """The items by a value of theirs; ties keep the order given, missing values come last."""
    known = [item for item in items if value_of(item) is not None]
    missing = [item for item in items if value_of(item) is None]
    return sorted(known, key=lambda item: _sortable(value_of(item)), reverse=descending) + missing


def _clause(text: str, kinds: Mapping[str, str]) -> Clause:
    match = _CLAUSE.match(text)
    if match is None:
        raise InvalidInput(
            f"Invalid clause(s) in filter string: {text.strip()!r}",
            remedy="Write clauses such as metrics.auc > 0.8, joined by AND.",
        )
    operator = re.sub(r"\s+", " ", (match["null"] or match["op"]).upper())
    value = _value(match["value"] or "''")
    if operator.endswith("IN") != isinstance(value, list) or value == []:
        raise InvalidInput(f"Invalid list in {text.strip()!r}", remedy="Write a list after IN: key IN ('a', 'b').")
    return Clause(_kind(match["kind"], kinds), match["key"].strip('`"'), operator, value)


def _no_clause(clause: Clause, remedy: str) -> InvalidInput:
    return InvalidInput(f"Invalid clause on {clause.kind}.{clause.key} {clause.operator}", remedy=remedy)


def _kind(name: str | None, kinds: Mapping[str, str]) -> str:
    kind = kinds.get((name or "attributes").lower())
    if kind is None:
        raise InvalidInput(
            f"Invalid entity type {name!r} in filter string",
            remedy=f"Use {', '.join(dict.fromkeys(kinds.values()))}.",
        )
    return kind


def _value(text: str) -> str | float | Sequence[str]:
    if text.startswith("("):
        return [part.strip().strip("'\"") for part in text[1:-1].split(",") if part.strip()]
    return text[1:-1] if text[0] in "'\"" else float(text)


def _compare(operator: str, found: float, value: float) -> bool:
    return {
        "=": found == value,
        "!=": found != value,
        ">": found > value,
        ">=": found >= value,
        "<": found < value,
        "<=": found <= value,
    }.get(operator, False)


def _match(operator: str, found: str, value: str | float | Sequence[str]) -> bool:
    if operator in ("IN", "NOT IN"):
        inside = found in (value if isinstance(value, Sequence) and not isinstance(value, str) else [str(value)])
        return inside is (operator == "IN")
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if "LIKE" in operator:
        flags = re.IGNORECASE if operator == "ILIKE" else re.NOFLAG
        pattern = "".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in text)
        return (re.fullmatch(pattern, found, flags | re.DOTALL) is not None) is (operator != "NOT LIKE")
    return {"=": found == text, "!=": found != text}.get(operator, False)


def _sortable(value: Value) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, float | int) else (1, 0.0, str(value))
