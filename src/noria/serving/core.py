"""The core every front shares: route, look up, score in micro-batches, answer, log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import structlog

from noria.errors import InvalidInput, NoriaError, Unavailable
from noria.features.online import OnlineFeatures
from noria.ids import new_id
from noria.monitoring.log import LabelRecord, LogWriter, PredictionRecord
from noria.rollout.routes import RouteTable, Variant
from noria.serving.metrics import ServingMetrics
from noria.serving.runtime import Runtime, load_runtime
from noria.store.keyvalue import KeyValueStore

_log = structlog.get_logger()
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class PredictionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row to predict. ``event_time`` is RFC 3339; now when it is left out."""

    prediction_id: str = ""
    event_time: str = ""
    entities: dict[str, str | int] = {}
    features: dict[str, float | int | bool | None] = {}


class Prediction(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one row."""

    prediction_id: str
    prediction: float | int
    model: str
    model_version: int
    variant: str
    route_revision: int
    probability: float | None = None
    confidence: str | None = None


@dataclass(frozen=True, slots=True)
class _Serving:
    """What serves at one moment; replaced as a whole."""

    table: RouteTable
    runtimes: Mapping[tuple[str, int], Runtime]


@dataclass(slots=True)
class _Pending:
    """A row waiting for the end of the loop's tick."""

    variant: Variant
    runtime: Runtime
    row: Sequence[float | None]
    prediction_id: str
    event_time: int
    entities: Mapping[str, str | int]
    answer: asyncio.Future[Prediction]


class DataPlane:
    """Answers predictions. Lives in one event loop; what arrives in one tick is scored in one call a version."""

    def __init__(self, artifacts: Path, online_store: Path, prediction_log: Path) -> None:
        self._artifacts = artifacts
        self._online_path = online_store
        self._features: OnlineFeatures | None = None
        self._online_inode = 0
        self._predictions = LogWriter(prediction_log, "predictions")
        self._labels = LogWriter(prediction_log, "labels")
        self._serving: _Serving | None = None
        self._pending: list[_Pending] = []
        self.metrics = ServingMetrics()
        self.fault: NoriaError | None = None

    @property
    def table(self) -> RouteTable:
        """The route table that serves. Raises Unavailable when nothing is deployed."""
        return self._now().table

    @property
    def serving(self) -> bool:
        """Whether any table serves."""
        return self._serving is not None

    def runtime(self, model: str, version: int | None = None) -> Runtime:
        """The runtime of a served version, the champion's when none is named. Raises InvalidInput."""
        serving = self._now()
        for variant in serving.table.variants:
            if variant.model == model and version in (None, variant.version):
                return serving.runtimes[variant.model, variant.version]
        named = model if version is None else f"{model}@{version}"
        served = ", ".join(f"{v.model}@{v.version}" for v in serving.table.variants)
        raise InvalidInput(f"{named} is not served here", remedy=f"Served are: {served}.")

    def swap(self, table: RouteTable) -> None:
        """Serve ``table`` from now on. New versions are loaded first: when one fails, the old table goes on serving."""
        before = {} if self._serving is None else self._serving.runtimes
        try:
            runtimes = {
                (v.model, v.version): before.get((v.model, v.version)) or load_runtime(self._artifacts, v)
                for v in table.variants
            }
        except NoriaError as error:
            self.fault = error
            _log.error("route_table_refused", revision=table.revision, reason=error.message)
            return
        self.fault = None
        self._serving = _Serving(table, runtimes)
        self.metrics.set_routes(table)
        _log.info("route_table_swapped", revision=table.revision, reason=table.reason)

    async def predict(self, request: PredictionRequest) -> Prediction:
        """Route, look up and score one row. Raises InvalidInput or NotFound for a row that cannot be scored."""
        serving = self._now()
        received = time.time()
        prediction_id = request.prediction_id or new_id()
        event_time = parse_instant(request.event_time, received)
        variant = serving.table.choose(prediction_id)
        runtime = serving.runtimes[variant.model, variant.version]
        row = self._assemble(runtime, request, event_time)
        return await self._score(variant, runtime, row, prediction_id, event_time, request.entities)

    async def predict_vector(self, model: str, version: int | None, row: Sequence[float | None]) -> Prediction:
        """Score a complete input vector (Open Inference Protocol): a named version directly, else by route."""
        serving, prediction_id = self._now(), new_id()
        self.runtime(model, version)
        chosen = serving.table.choose(prediction_id)
        if version is not None:
            chosen = next(v for v in serving.table.variants if (v.model, v.version) == (model, version))
        runtime = serving.runtimes[chosen.model, chosen.version]
        return await self._score(chosen, runtime, row, prediction_id, round(time.time() * 1000), {})

    def record_labels(self, labels: Sequence[LabelRecord]) -> None:
        """Append outcomes to the label log."""
        self._labels.append(labels)

    def close(self) -> None:
        """Close the log segments."""
        self._predictions.close()
        self._labels.close()

    def _now(self) -> _Serving:
        if self._serving is None:
            raise Unavailable("nothing is deployed yet", remedy="Promote a version and deploy it with `noria run`.")
        return self._serving

    def _assemble(self, runtime: Runtime, request: PredictionRequest, event_time: int) -> list[float | None]:
        bundle = runtime.bundle
        given = request.features
        try:
            row: list[float | None] = [given[name] for name in bundle.request_columns]
        except KeyError as missing:
            raise InvalidInput(
                f"feature {missing.args[0]!r} is missing",
                remedy=f'Send "features" with {", ".join(bundle.request_columns)}.',
            ) from None
        if len(given) > len(row):
            unknown = sorted(set(given) - set(bundle.request_columns))
            raise InvalidInput(
                f"unknown features: {', '.join(unknown)}",
                remedy=f"The model takes {', '.join(bundle.request_columns)}; the rest is looked up.",
            )
        if bundle.views:
            online = self._online()
            for view in bundle.views:
                row.extend(online.lookup(view, request.entities, event_time))
        return row

    def _online(self) -> OnlineFeatures:
        """The online features, opened again when their file was replaced by a rebuilt one."""
        inode = self._online_path.stat().st_ino if self._online_path.exists() else 0
        if self._features is None or inode != self._online_inode:
            self._features = OnlineFeatures(KeyValueStore(self._online_path))
            self._online_inode = self._online_path.stat().st_ino
        return self._features

    async def _score(
        self,
        variant: Variant,
        runtime: Runtime,
        row: Sequence[float | None],
        prediction_id: str,
        event_time: int,
        entities: Mapping[str, str | int],
    ) -> Prediction:
        loop = asyncio.get_running_loop()
        if not self._pending:
            loop.call_soon(self._flush)
        answer: asyncio.Future[Prediction] = loop.create_future()
        self._pending.append(_Pending(variant, runtime, row, prediction_id, event_time, entities, answer))
        return await answer

    def _flush(self) -> None:
        """Score and answer all that waits, then log it with one write a version."""
        waiting, self._pending = self._pending, []
        groups: dict[tuple[str, int], list[_Pending]] = {}
        for item in waiting:
            groups.setdefault((item.runtime.model, item.runtime.version), []).append(item)
        for group in groups.values():
            try:
                self._answer(group)
            except Exception as error:
                _log.exception("batch_failed", rows=len(group))
                for item in group:
                    if not item.answer.done():
                        item.answer.set_exception(error)

    def _answer(self, group: Sequence[_Pending]) -> None:
        started = time.perf_counter()
        runtime = group[0].runtime
        matrix = np.array([item.row for item in group], dtype=np.float64)
        scores = runtime.score(matrix)
        revision = self._now().table.revision
        now = round(time.time() * 1000)
        records = []
        for item, score in zip(group, scores, strict=True):
            answer = _prediction(item, score, revision)
            if not item.answer.done():
                item.answer.set_result(answer)
            records.append(self._record(item, answer, score, now))
        self._predictions.append(records)
        self.metrics.observe(group[0].variant, [r.prediction for r in records], runtime, time.perf_counter() - started)

    def _record(self, item: _Pending, answer: Prediction, score: float, now: int) -> PredictionRecord:
        return PredictionRecord(
            prediction_id=item.prediction_id,
            event_time=item.event_time,
            received_at=now,
            deployment=self.table.deployment,
            revision=answer.route_revision,
            variant=item.variant.name,
            model=item.runtime.model,
            version=item.runtime.version,
            entities=item.entities,
            features=item.row,
            prediction=float(answer.prediction),
            score=score,
        )


def _prediction(item: _Pending, score: float, revision: int) -> Prediction:
    bundle = item.runtime.bundle
    common: dict[str, Any] = {
        "prediction_id": item.prediction_id,
        "model": item.runtime.model,
        "model_version": item.runtime.version,
        "variant": item.variant.name,
        "route_revision": revision,
    }
    if bundle.task == "regression":
        return Prediction(prediction=score, **common)
    label = int(score >= bundle.decision_threshold)
    return Prediction(
        prediction=label, probability=score, confidence=confidence(score if label else 1 - score), **common
    )


def confidence(probability: float) -> str:
    """The word for the probability of the predicted class: very_high from 0.9, high 0.7, medium 0.5, else low."""
    for least, word in ((0.9, "very_high"), (0.7, "high"), (0.5, "medium")):
        if probability >= least:
            return word
    return "low"


def parse_instant(text: str, default_seconds: float) -> int:
    """UTC milliseconds of an RFC 3339 text; of ``default_seconds`` when it is empty. Raises InvalidInput."""
    if not text:
        return round(default_seconds * 1000)
    try:
        return round(msgspec.convert(text, _Instant, strict=False).timestamp() * 1000)
    except (msgspec.ValidationError, OverflowError):
        raise InvalidInput(
            f"{text!r} is not an instant", remedy="Write RFC 3339 with a zone, such as 2013-03-01T12:00:00Z."
        ) from None
