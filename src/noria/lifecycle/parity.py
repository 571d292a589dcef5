"""Parity: the vectors that predictions were made from, against the offline join as of the same moments."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.clock import from_millis, iso, to_millis
from noria.errors import NotFound
from noria.features import FeatureView, ViewSpec, join_as_of
from noria.features.definitions import content_hash
from noria.monitoring.log import Feature, PredictionRecord, read_predictions
from noria.optimize.bundle import Bundle, read_bundle
from noria.pipelines.project import Project
from noria.registry import get_version
from noria.registry.parity import record_parity
from noria.store.workspace import Workspace, artifact_key

if TYPE_CHECKING:
    import polars as pl

_RELATIVE = 1e-6  # the log keeps what a float32 graph was given
_AT, _ROW = "__at", "__row"
_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One value that was served and is not the one the offline join gives."""

    prediction_id: str
    event_time: datetime
    view: str
    feature: str
    entity: Mapping[str, str | int]
    online: Feature
    offline: Feature
    reason: str


@dataclass(frozen=True, slots=True)
class Parity:
    """How many of the looked-up values of one version's predictions are what training would have seen."""

    model: str
    version: int
    predictions: int
    values: int
    mismatches: Sequence[Mismatch]

    @property
    def share(self) -> float:
        """The share of equal values; 1 when nothing was looked up."""
        return 1.0 - len(self.mismatches) / self.values if self.values else 1.0

    @property
    def reasons(self) -> Mapping[str, int]:
        """Reason → how many values, the most frequent first."""
        return dict(Counter(one.reason for one in self.mismatches).most_common())

    def document(self) -> dict[str, object]:
        """What people read: figures, reasons, and some of the mismatches."""
        shown = [
            {
                "prediction": one.prediction_id,
                "at": iso(one.event_time),
                "feature": f"{one.view}:{one.feature}",
                "entity": dict(one.entity),
                "online": one.online,
                "offline": one.offline,
                "reason": one.reason,
            }
            for one in self.mismatches[:_EXAMPLES]
        ]
        parity = {
            "version": f"{self.model}@{self.version}",
            "predictions": self.predictions,
            "values": self.values,
            "equal": self.values - len(self.mismatches),
            "parity": round(self.share, 6),
        }
        return {"parity": parity, "reasons": dict(self.reasons), "mismatches": shown}


def measure_parity(
    project: Project,
    workspace: Workspace,
    model: str,
    version: int,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Parity:
    """Compare what one version was served with, for predictions with event times in [since, until).

    Every mismatch gets the first reason that explains it: the *definition* differs from the one the model was trained
    on; the value is of a *late row*, which happened or was recorded only after the prediction's time; it is one that
    the *TTL* excludes; a *tie* of event times was broken otherwise; it is an older value, or none, so *stale*: what
    was newer was not materialized.
    Raises NotFound when the version answered nothing in that time.
    """
    with workspace.database.read() as tx:
        source = get_version(tx, model, version).source
    bundle = read_bundle(workspace.artifacts.fetch(artifact_key(source)))
    records = list(_records(workspace.prediction_log, model, version, since, until))
    if not records:
        raise NotFound(f"{model}@{version} answered no prediction in that time", remedy="`noria serve` logs each one.")
    views = {view.name: view for view in project.views}
    mismatches: list[Mismatch] = []
    for spec, served in _served(bundle, records):
        mismatches += _compare(spec, views.get(spec.name), records, served, project.folder)
    looked_up = sum(len(spec.fields) for spec in bundle.views)
    return Parity(model, version, len(records), looked_up * len(records), mismatches)


def record(workspace: Workspace, found: Parity, *, at: datetime, actor: str) -> None:
    """Keep the result, audited, where a policy that asks for ``feature_parity`` finds it."""
    with workspace.database.write() as tx:
        record_parity(
            tx,
            found.model,
            found.version,
            predictions=found.predictions,
            values=found.values,
            equal=found.values - len(found.mismatches),
            reasons=found.reasons,
            at=at,
            actor=actor,
        )


def _records(
    log: Path, model: str, version: int, since: datetime | None, until: datetime | None
) -> Iterator[PredictionRecord]:
    begin = -math.inf if since is None else to_millis(since)
    end = math.inf if until is None else to_millis(until)
    for record in read_predictions(log):
        if record.model == model and record.version == version and begin <= record.event_time < end:
            yield record


def _served(bundle: Bundle, records: Sequence[PredictionRecord]) -> Iterator[tuple[ViewSpec, list[Sequence[Feature]]]]:
    """Each view with the part of every vector that was looked up in it."""
    start = len(bundle.request_columns)
    for spec in bundle.views:
        end = start + len(spec.fields)
        yield spec, [record.features[start:end] for record in records]
        start = end


def _compare(
    spec: ViewSpec,
    view: FeatureView | None,
    records: Sequence[PredictionRecord],
    served: Sequence[Sequence[Feature]],
    folder: Path,
) -> Iterator[Mismatch]:
    fields = list(spec.fields)
    if view is None or list(view.fields) != fields:
        nothing: list[Feature] = [None] * len(fields)
        offline: Sequence[Sequence[Feature]] = [nothing] * len(records)
    else:
        offline = _joined(view, records, folder)
    differing = [
        (row, column)
        for row, (online, expected) in enumerate(zip(served, offline, strict=True))
        for column in range(len(fields))
        if not _same(online[column], expected[column])
    ]
    explain = _Explanation(spec, view, [records[row] for row, _ in differing], folder)
    for row, column in differing:
        record = records[row]
        yield Mismatch(
            record.prediction_id,
            from_millis(record.event_time),
            spec.name,
            fields[column],
            {key: record.entities[key] for key in spec.join_keys if key in record.entities},
            served[row][column],
            offline[row][column],
            explain(record, column, served[row][column]),
        )


def _joined(view: FeatureView, records: Sequence[PredictionRecord], folder: Path) -> Sequence[Sequence[Feature]]:
    """The view's values as they were known at each prediction."""
    import polars as pl

    joined = join_as_of(_entities(view, records), [view], event_time=_AT, folder=folder)
    return joined.select(pl.col(name).cast(pl.Float64) for name in view.feature_names).rows()


def _entities(view: FeatureView, records: Sequence[PredictionRecord]) -> pl.DataFrame:
    import polars as pl

    keys = {key: [record.entities.get(key) for record in records] for key in view.join_keys}
    times = pl.Series(_AT, [record.event_time for record in records]).cast(pl.Datetime("ms", "UTC"))
    return pl.DataFrame({_AT: times, **keys}, infer_schema_length=None)


class _Explanation:
    """Why a value that was served differs: looked for among all rows of its entity."""

    def __init__(
        self, spec: ViewSpec, view: FeatureView | None, records: Sequence[PredictionRecord], folder: Path
    ) -> None:
        self._keys = spec.join_keys
        self._is_other = view is None or (spec.definition != "" and spec.definition != content_hash(view))
        self._ttl = spec.ttl_millis
        self._rows: dict[tuple[str, ...], list[tuple[int, int, Sequence[Any]]]] = {}
        if view is not None and records and not self._is_other:
            self._load(view, {self._key(record.entities) for record in records}, folder)

    def __call__(self, record: PredictionRecord, column: int, online: Feature) -> str:
        if self._is_other:
            return "definition"
        at = record.event_time * 1000
        rows = self._rows.get(self._key(record.entities), [])
        known = [row for row in rows if max(row[:2]) <= at]
        matching = [row for row in rows if _same(row[2][column], online)]
        if matching and all(max(row[:2]) > at for row in matching):
            return "late_row"
        best = max(known, key=lambda row: row[:2], default=None)
        if online is not None and best is not None and self._ttl is not None and at - best[0] > self._ttl * 1000:
            return "ttl"
        if best is not None and any(row[0] == best[0] for row in matching):
            return "tie"
        return "stale_materialize" if matching or online is None else "unknown"

    def _key(self, entities: Mapping[str, object]) -> tuple[str, ...]:
        return tuple(str(entities.get(key)) for key in self._keys)

    def _load(self, view: FeatureView, wanted: set[tuple[str, ...]], folder: Path) -> None:
        import polars as pl

        keys = list(view.join_keys)
        frame = view.load(folder).with_columns(
            pl.col("event_timestamp", "created_timestamp").dt.epoch("us"),
            pl.col(list(view.fields)).cast(pl.Float64),
        )
        for row in frame.select(*keys, "event_timestamp", "created_timestamp", *view.fields).iter_rows():
            key = tuple(str(value) for value in row[: len(keys)])
            if key in wanted:
                event, created, *values = row[len(keys) :]
                self._rows.setdefault(key, []).append((event, created, values))


def _same(online: Feature, offline: Feature) -> bool:
    if online is None or offline is None:
        return online is offline or _is_nan(online) or _is_nan(offline)
    if isinstance(online, str) or isinstance(offline, str):
        return online == offline
    return math.isclose(online, offline, rel_tol=_RELATIVE) or (_is_nan(online) and _is_nan(offline))


def _is_nan(value: Feature) -> bool:
    return isinstance(value, float) and math.isnan(value)
