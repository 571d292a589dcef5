"""Parity: the vectors that predictions were made from, against the offline join as of the same moments."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from noria.clock import from_millis, iso, to_millis
from noria.errors import NoriaError, NotFound
from noria.features import FeatureView, ViewSpec, catalog, join_as_of
from noria.features.documents import is_elsewhere
from noria.features.function_code import load
from noria.features.transformation import Transformation
from noria.lifecycle.parity_reasons import explanation, same
from noria.monitoring.log import PredictionRecord, read_predictions
from noria.optimize.bundle import Bundle, ComputedSpec, read_bundle
from noria.pipelines.project import Project
from noria.registry import get_version
from noria.registry.parity import record_parity
from noria.store.database import Transaction
from noria.store.workspace import Workspace, artifact_key

_AT = "__at"
_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One value that was served and is not the one the offline join gives."""

    prediction_id: str
    event_time: datetime
    view: str
    feature: str
    entity: Mapping[str, str | int]
    online: Any
    offline: Any
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
    progress: Callable[[str], None] = lambda _view: None,
) -> Parity:
    """Compare what one version was served with, for predictions with event times in [since, until).

    Values are replayed by the definitions the version was trained on, those on demand by the code it was trained with,
    from the inputs it was served with. Every mismatch gets the first reason that explains it: the *definition* that was
    applied when it was predicted is another one; it is *not replayed*, since the definition is neither in the project
    nor in the catalog; the value is of a *late row*, which happened or was recorded only after the prediction's time;
    it is one that the *TTL* excludes; a *tie* of event times was broken otherwise; it is an older value, or none, so
    *stale*: what was newer was not materialized; the *transform* gave something else.
    Raises NotFound when the version answered nothing in that time. ``progress`` is called with each view's name.
    """
    with workspace.database.read() as tx:
        source = get_version(tx, model, version).source
    folder = workspace.artifacts.fetch(artifact_key(source))
    bundle = read_bundle(folder)
    records = list(_records(workspace.prediction_log, model, version, since, until))
    if not records:
        raise NotFound(f"{model}@{version} answered no prediction in that time", remedy="`noria serve` logs each one.")
    mismatches: list[Mismatch] = []
    served = _Served.of(bundle, records)
    for spec in bundle.looked_up:
        progress(spec.name)
        with workspace.database.read() as tx:
            trained = _Trained.of(tx, project, spec)
        mismatches += _compare(trained, records, [served.rows[name] for name in spec.feature_names], project.folder)
    for computed in bundle.computed:
        progress(computed.name)
        mismatches += _compare_computed(computed, load((folder / computed.file).read_bytes()), records, served)
    fields = sum(len(view.fields) for view in bundle.looked_up) + sum(len(one.fields) for one in bundle.computed)
    return Parity(model, version, len(records), fields * len(records), mismatches)


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


@dataclass(frozen=True, slots=True)
class _Served:
    """What was served, by column: sent, looked up, computed."""

    rows: Mapping[str, Sequence[Any]]

    @classmethod
    def of(cls, bundle: Bundle, records: Sequence[PredictionRecord]) -> _Served:
        beside = [*bundle.sent_beside, *(name for view in bundle.views_beside for name in view.feature_names)]
        names = [*bundle.inputs, *beside]
        values = zip(*([*record.features, *record.beside] for record in records), strict=True)
        return cls(dict(zip(names, values, strict=True)))


@dataclass(frozen=True, slots=True)
class _Trained:
    """A view as a version was trained on it, None where nobody has it any more, and what was applied when since."""

    spec: ViewSpec
    view: FeatureView | None
    applied: Sequence[tuple[int, str]]

    @classmethod
    def of(cls, tx: Transaction, project: Project, spec: ViewSpec) -> _Trained:
        name = project.settings.project.name
        versions = catalog.versions(tx, name, spec.name, "view")
        view = project.definitions.views.get(spec.name)
        if view is None or spec.definition not in ("", view.definition):
            view = catalog.view_as_of(tx, name, spec.name, spec.definition)
            view = None if view is None or is_elsewhere(view.source) else view
        return cls(spec, view, [(to_millis(one.applied_at), one.content_hash) for one in versions])

    def was_changed(self, record: PredictionRecord) -> bool:
        """Whether another definition was applied when a prediction was made."""
        applied = [digest for at, digest in self.applied if at <= record.received_at]
        return bool(applied and self.spec.definition) and applied[-1] != self.spec.definition


def _compare(
    trained: _Trained, records: Sequence[PredictionRecord], served: Sequence[Sequence[Any]], folder: Path
) -> Iterator[Mismatch]:
    spec, view = trained.spec, trained.view
    nothing: Sequence[Sequence[Any]] = [[None] * len(records)] * len(spec.fields)
    offline = nothing if view is None else _joined(view, spec, records, folder)
    differing = [
        (row, column)
        for row in range(len(records))
        for column in range(len(spec.fields))
        if not same(served[column][row], offline[column][row])
    ]
    to_explain = [records[row] for row, _ in differing if not trained.was_changed(records[row])]
    explain = None if view is None else explanation(spec, view, to_explain, folder)
    for row, column in differing:
        record, online = records[row], served[column][row]
        if trained.was_changed(record):
            reason = "definition"
        else:
            reason = "not_replayed" if explain is None else explain(record, column, online)
        yield _mismatch(record, spec.name, spec.fields[column], spec.join_keys, online, offline[column][row], reason)


def _joined(
    view: FeatureView, spec: ViewSpec, records: Sequence[PredictionRecord], folder: Path
) -> Sequence[Sequence[Any]]:
    """The view's values as they were known at each prediction, by column."""
    import polars as pl

    keys = {key: [record.entities.get(key) for record in records] for key in spec.join_keys}
    times = pl.Series(_AT, [record.event_time for record in records]).cast(pl.Datetime("ms", "UTC"))
    entities = pl.DataFrame({_AT: times, **keys}, infer_schema_length=None)
    wanted = view[spec.fields].with_join_key_map(dict(zip(view.join_keys, spec.join_keys, strict=True)))
    joined = join_as_of(entities, [wanted], event_time=_AT, folder=folder)
    return [joined[name].to_list() for name in wanted.feature_names]


def _compare_computed(
    spec: ComputedSpec, transformation: Transformation, records: Sequence[PredictionRecord], served: _Served
) -> Iterator[Mismatch]:
    """What was computed against what the same code gives for a frame, as it was trained."""
    again = _recomputed(transformation, served, range(len(records)))
    for field, name in zip(spec.fields, spec.feature_names, strict=True):
        for row, record in enumerate(records):
            if not same(served.rows[name][row], again[field][row]):
                yield _mismatch(record, spec.name, field, (), served.rows[name][row], again[field][row], "transform")


def _recomputed(transformation: Transformation, served: _Served, rows: Sequence[int]) -> dict[str, list[Any]]:
    """Each output for some rows; None where the function fails."""
    import polars as pl

    names = [one.full_name for one in transformation.inputs]
    frame = pl.DataFrame(
        [pl.Series(name, [served.rows[name][row] for row in rows], strict=False) for name in dict.fromkeys(names)]
    )
    try:
        return transformation.transform_frame(frame).to_dict(as_series=False)
    except NoriaError:
        if len(rows) == 1:
            return {one.name: [None] for one in transformation.outputs}
    single = [_recomputed(transformation, served, [row]) for row in rows]
    return {one.name: [found[one.name][0] for found in single] for one in transformation.outputs}


def _mismatch(
    record: PredictionRecord, view: str, feature: str, keys: Sequence[str], online: Any, offline: Any, reason: str
) -> Mismatch:
    entity = {key: record.entities[key] for key in keys if key in record.entities}
    at = from_millis(record.event_time)
    return Mismatch(record.prediction_id, at, view, feature, entity or dict(record.entities), online, offline, reason)
