"""Outcomes from outside: labels and rewards out of files and databases, into the log that HTTP writes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from math import isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.clock import to_millis
from noria.errors import InvalidData, InvalidInput, NotFound
from noria.monitoring.log import (
    MOST_AHEAD_MILLIS,
    REWARDS,
    LabelRecord,
    PredictionLog,
    RewardRecord,
    read_records,
)
from noria.monitoring.reward_keys import key_by_content, key_by_place, name_of_table
from noria.rollout.records import list_deployments
from noria.store.foreign import driver_url, filled_in, verbatim
from noria.store.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl

_READERS = {".csv": "read_csv", ".parquet": "read_parquet", ".jsonl": "read_ndjson", ".ndjson": "read_ndjson"}
_NAMES = ("prediction_id", "unit_id", "metric", "deployment")
"""What is text in a CSV even where it looks like a number: the customer 007 is not the customer 7."""


@dataclass(frozen=True, slots=True)
class BroughtIn:
    """How many rows a table has, and how many of them are rewards that had been brought in before."""

    rows: int
    known: int = 0


def read_table(source: str, query: str, folder: Path) -> pl.DataFrame:
    """The rows of a file (CSV, Parquet, JSON lines), or of a query of the database at a URL.

    Raises InvalidInput for a source that is neither, InvalidData for one that cannot be read.
    """
    import polars as pl

    if query:
        return _query(source, query, folder)
    path = folder / source
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(
            f"{source!r} is no table",
            remedy=f"Give a file that ends in {', '.join(_READERS)}, or a database URL and --query.",
        )
    try:
        options = {"schema_overrides": dict.fromkeys(_NAMES, pl.String)} if reader == "read_csv" else {}
        found: pl.DataFrame = getattr(pl, reader)(path, **options)
    except Exception as error:  # each reader has errors of its own
        raise InvalidData(f"{source} cannot be read: {error}", remedy="Check the path, and that it is whole.") from None
    return found


def bring_in(
    workspace: Workspace, frame: pl.DataFrame, *, kind: str, metric: str, at: datetime, deployment: str = ""
) -> BroughtIn:
    """Log ``frame`` as rewards or labels. Nothing is logged unless every row can be.

    Rewards need ``value`` and ``prediction_id`` or ``unit_id``; labels ``prediction_id``, ``event_time`` and ``label``.
    ``observed_at`` is ``at`` where it is missing, a reward's ``metric`` and ``deployment`` are those given here; of no
    deployment it counts in all. A reward that is known is left out: one that says the same, or where rows do not say
    when they were observed, that of the same table. Raises InvalidData that names column or row, NotFound for an
    unknown deployment.
    """
    if kind not in ("rewards", "labels"):
        raise InvalidInput(f"{kind!r} are no outcomes", remedy="Use rewards or labels.")
    log = PredictionLog(workspace.prediction_log)
    try:
        if kind == "labels":
            log.labels(_labels(frame, at))
            return BroughtIn(frame.height)
        records = _rewards(frame, metric, at, deployment)
        _check_deployments(workspace, {record.deployment for record in records} - {""})
        keys = {record.key for record in read_records(workspace.prediction_log, REWARDS, RewardRecord)}
        new = [record for record in records if record.key not in keys]
        log.rewards(new)
        return BroughtIn(frame.height, frame.height - len(new))
    finally:
        log.close()


def _check_deployments(workspace: Workspace, named: set[str]) -> None:
    """Raises NotFound for what never was a deployment: rewards of a mistyped name would count nowhere."""
    if not named:
        return
    with workspace.database.read() as tx:
        unknown = named - set(list_deployments(tx))
    if unknown:
        raise NotFound(
            f"nothing was ever deployed as {', '.join(map(repr, sorted(unknown)))}",
            remedy="`noria deploy list` shows the deployments. Nothing was brought in.",
        )


def _rewards(frame: pl.DataFrame, metric: str, at: datetime, deployment: str) -> Sequence[RewardRecord]:
    if not {"prediction_id", "unit_id"} & set(frame.columns):
        raise InvalidData("the rewards name neither prediction_id nor unit_id", remedy="Give one of the columns.")
    _require(frame, ["value"])
    rows = list(frame.iter_rows(named=True))
    records = [
        RewardRecord(
            _observed(row.get("observed_at"), at, place),
            _number(row["value"], "value", place),
            *_names(row, place),
            _metric(row, metric, place),
            str(row.get("deployment") or deployment),
        )
        for place, row in enumerate(rows)
    ]
    by_content = key_by_content(records)
    if all(row.get("observed_at") for row in rows):
        return by_content
    by_place = key_by_place(records, name_of_table(records))
    return [
        one if row.get("observed_at") else other for row, one, other in zip(rows, by_content, by_place, strict=True)
    ]


def _labels(frame: pl.DataFrame, at: datetime) -> Sequence[LabelRecord]:
    _require(frame, ["prediction_id", "event_time", "label"])
    return [
        LabelRecord(
            _name(row, "prediction_id", place),
            _millis(row["event_time"], at, place),
            _millis(row.get("observed_at"), at, place),
            _number(row["label"], "label", place),
        )
        for place, row in enumerate(frame.iter_rows(named=True))
    ]


def _require(frame: pl.DataFrame, names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in frame.columns]:
        raise InvalidData(
            f"columns are missing: {', '.join(missing)}", remedy=f"The table has: {', '.join(frame.columns)}."
        )


def _names(row: Mapping[str, Any], place: int) -> tuple[str, str]:
    """Prediction and unit, of which a row names at least one."""
    found = _text(row.get("prediction_id")), _text(row.get("unit_id"))
    if not any(found):
        raise InvalidData(
            f"row {place} names neither a prediction_id nor a unit_id",
            remedy="Say in every row whose reward it is; leave out those of nobody.",
        )
    return found


def _name(row: Mapping[str, Any], column: str, place: int) -> str:
    found = _text(row[column])
    if not found:
        raise InvalidData(f"row {place} has no {column}", remedy="Give one in every row; leave out those without.")
    return found


def _metric(row: Mapping[str, Any], metric: str, place: int) -> str:
    found = _text(row.get("metric")) or metric
    if not found.strip():
        raise InvalidData(f"row {place} has no metric", remedy="Name the reward with --metric, or in every row.")
    return found


def _text(value: Any) -> str:
    """A name; of a column of numbers that has gaps, which many tools make one of floats, 7.0 is the customer 7."""
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:.0f}" if value.is_integer() else str(value)
    return "" if value is None else str(value)


def _number(value: Any, name: str, place: int) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = float("nan")
    if not isfinite(found):
        raise InvalidData(f"row {place}: {name} is {value!r}, no number", remedy="Give a finite number in every row.")
    return found


def _observed(value: Any, at: datetime, place: int) -> int:
    """When a reward became known: not in days to come, as its window would never be over."""
    found = _millis(value, at, place)
    if found > to_millis(at) + MOST_AHEAD_MILLIS:
        raise InvalidData(
            f"row {place}: observed_at is {value}, which is in the future",
            remedy="Give when the reward became known, or nothing for now.",
        )
    return found


def _millis(value: Any, at: datetime, place: int) -> int:
    """UTC milliseconds of an instant: a time (UTC without a zone), RFC 3339 text, or nothing for ``at``."""
    try:
        if value is None or value == "":
            return to_millis(at)
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day)
        return to_millis(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, AttributeError):
        raise InvalidData(f"row {place}: {value!r} is no instant", remedy="Write RFC 3339.") from None


def _query(url: str, query: str, folder: Path) -> pl.DataFrame:
    """What a query gives; where that is no row, its columns all the same."""
    import polars as pl
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    if "://" not in url:
        raise InvalidInput(
            f"{url!r} is no database URL, which --query wants",
            remedy="Give one such as postgresql://HOST/NAME or sqlite:///FILE; of a file leave --query out.",
        )
    try:
        made = driver_url(filled_in(url, "the query"), folder)
        if made.drivername == "sqlite" and not Path(made.database or "").is_file():
            raise InvalidData(f"there is no database {made.database}", remedy="Check the path.")
        with create_engine(made).connect() as connection:
            result = connection.execute(verbatim(query))
            names, rows = list(result.keys()), [dict(row._mapping) for row in result]
    except SQLAlchemyError as error:
        raise InvalidData(f"the query fails: {error}", remedy="Check the URL and the SQL.") from None
    return pl.DataFrame(rows, infer_schema_length=None) if rows else pl.DataFrame(schema=names)
