"""The core every front shares: route, look up, score in micro-batches, log, answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import structlog

from noria.errors import InvalidData, InvalidInput, NoriaError, NotFound, Unavailable
from noria.ids import new_id
from noria.monitoring.log import LabelRecord, LogWriter, PredictionRecord
from noria.rollout.routes import RouteTable, Variant
from noria.serving.inputs import Inputs, PredictionRequest, parse_instant
from noria.serving.metrics import ServingMetrics
from noria.serving.runtime import Runtime, load_runtime
from noria.store.blobs import BlobStore

_log = structlog.get_logger()
_Runtimes = Mapping[tuple[str, int], Runtime]


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
    runtimes: _Runtimes


@dataclass(slots=True, eq=False)
class _Pending:
    """A row waiting for the end of the loop's tick, with the table that chose its variant."""

    table: RouteTable
    variant: Variant
    runtime: Runtime
    row: Sequence[float | None]
    prediction_id: str
    event_time: int
    entities: Mapping[str, str | int]
    received: float
    answer: asyncio.Future[Prediction]


class DataPlane:
    """Answers predictions. Lives in one event loop; what arrives in one tick is scored in one call a variant.

    ``fault`` is why the newest route table does not serve, ``log_fault`` why the last batch was not logged.
    """

    def __init__(self, artifacts: BlobStore, online_store: str, prediction_log: Path) -> None:
        self._artifacts = artifacts
        self._inputs = Inputs(online_store)
        self._predictions = LogWriter(prediction_log, "predictions")
        self._labels = LogWriter(prediction_log, "labels")
        self._serving: _Serving | None = None
        self._pending: list[_Pending] = []
        self.metrics = ServingMetrics()
        self.fault: NoriaError | None = None
        self.log_fault: NoriaError | None = None

    @property
    def table(self) -> RouteTable:
        """The route table that serves. Raises Unavailable when none does."""
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

    async def swap(self, table: RouteTable) -> None:
        """Serve ``table`` once its new versions are loaded, beside the loop; when one fails, the old one goes on."""
        before = {} if self._serving is None else self._serving.runtimes
        try:
            runtimes = await asyncio.to_thread(_load, self._artifacts, table, before)
        except NoriaError as error:
            self.refuse(error, table.revision)
            return
        except Exception as error:
            _log.exception("route_table_failed", revision=table.revision)
            unknown = f"route table {table.revision} cannot be served: {type(error).__name__}: {error}"
            self.refuse(Unavailable(unknown, remedy="The gateway's log says where."), table.revision)
            return
        self.fault = None
        self._serving = _Serving(table, runtimes)
        self.metrics.set_routes(table)
        _log.info("route_table_swapped", revision=table.revision, reason=table.reason)

    def refuse(self, error: NoriaError, revision: int | None = None) -> None:
        """Remember why the newest table does not serve; said once for as long as it stays the same."""
        if self.fault is None or self.fault.message != error.message:
            _log.error("route_table_refused", revision=revision, reason=error.message)
        self.fault = error

    async def predict(self, request: PredictionRequest) -> Prediction:
        """Route, look up and score one row. Raises InvalidInput or NotFound for a row that cannot be scored."""
        item = await self._admit_remote(request) if self._inputs.remote else self._admit(request)
        return await self._enqueue(item)

    async def predict_many(self, requests: Sequence[PredictionRequest]) -> Sequence[Prediction]:
        """All rows of one request. None is scored or logged unless every one is well-formed; each bad one is named."""
        found = await self._admit_all(requests)
        if faults := [(index, item) for index, item in enumerate(found) if isinstance(item, BaseException)]:
            raise _bad_instances(faults, len(requests))
        return await asyncio.gather(*[self._enqueue(item) for item in found if isinstance(item, _Pending)])

    async def predict_vector(self, model: str, version: int | None, row: Sequence[float | None]) -> Prediction:
        """Score a complete input vector (Open Inference Protocol): a named version directly, else by route."""
        self.runtime(model, version)
        table, prediction_id = self.table, new_id()
        chosen = table.choose(prediction_id)
        if version is not None:
            chosen = next(v for v in table.variants if (v.model, v.version) == (model, version))
        item = self._item(chosen, prediction_id, round(time.time() * 1000), {})
        item.row = _floats(row)
        return await self._enqueue(item)

    def record_labels(self, labels: Sequence[LabelRecord]) -> None:
        """Append outcomes to the label log. Raises Unavailable when they could not be written."""
        try:
            self._labels.append(labels)
        except OSError as error:
            raise _not_logged("labels", error) from error

    def close(self) -> None:
        """Close the log segments and the online store."""
        self._predictions.close()
        self._labels.close()
        self._inputs.close()

    def _now(self) -> _Serving:
        if self._serving is not None:
            return self._serving
        if self.fault is not None:
            raise Unavailable(f"no model serves: {self.fault.message}", remedy=self.fault.remedy)
        raise Unavailable("nothing is deployed yet", remedy="Promote a version and deploy it with `noria run`.")

    async def _admit_all(self, requests: Sequence[PredictionRequest]) -> Sequence[_Pending | BaseException]:
        if self._inputs.remote:
            return await asyncio.gather(*map(self._admit_remote, requests), return_exceptions=True)
        found: list[_Pending | BaseException] = []
        for request in requests:
            try:
                found.append(self._admit(request))
            except NoriaError as error:
                found.append(error)
        return found

    async def _admit_remote(self, request: PredictionRequest) -> _Pending:
        """``_admit`` for an online store behind a network: the loop goes on while a thread waits for it."""
        item = self._route(request)
        if not item.runtime.bundle.views:
            item.row = self._inputs.row(item.runtime.bundle, request, item.event_time)
        else:
            item.row = await asyncio.to_thread(self._inputs.row, item.runtime.bundle, request, item.event_time)
        return item

    def _admit(self, request: PredictionRequest) -> _Pending:
        item = self._route(request)
        item.row = self._inputs.row(item.runtime.bundle, request, item.event_time)
        return item

    def _route(self, request: PredictionRequest) -> _Pending:
        serving = self._now()
        if not self._pending:
            self._inputs.refresh()  # once a tick
        prediction_id = request.prediction_id or new_id()
        event_time = parse_instant(request.event_time) if request.event_time else round(time.time() * 1000)
        return self._item(serving.table.choose(prediction_id), prediction_id, event_time, request.entities)

    def _item(
        self, variant: Variant, prediction_id: str, event_time: int, entities: Mapping[str, str | int]
    ) -> _Pending:
        """What waits for its row to be put in, then for its score."""
        serving, answer = self._now(), asyncio.get_running_loop().create_future()
        runtime = serving.runtimes[variant.model, variant.version]
        received = time.perf_counter()
        return _Pending(serving.table, variant, runtime, (), prediction_id, event_time, entities, received, answer)

    def _enqueue(self, item: _Pending) -> asyncio.Future[Prediction]:
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append(item)
        return item.answer

    def _flush(self) -> None:
        """Score all that waits, write it to the log in one go, then let the answers leave.

        The answers are set here and leave in later callbacks: a client that has one finds it in the log.
        """
        waiting, self._pending = self._pending, []
        groups: dict[tuple[int, str], list[_Pending]] = {}
        for item in waiting:
            groups.setdefault((id(item.runtime), item.variant.name), []).append(item)
        records: list[PredictionRecord] = []
        for group in groups.values():
            records += self._answer(group)
        self._write(records)

    def _answer(self, group: Sequence[_Pending]) -> list[PredictionRecord]:
        try:
            scores = group[0].runtime.score(np.array([item.row for item in group], dtype=np.float64))
        except Exception:
            return self._answer_singly(group)
        now, records = round(time.time() * 1000), []
        for item, score in zip(group, scores, strict=True):
            if not math.isfinite(score):
                _fail(item, _no_number(item))
                continue
            answer = _prediction(item, score)
            if not item.answer.done():
                item.answer.set_result(answer)
            records.append(_record(item, answer, score, now))
        ended = time.perf_counter()
        latencies = [ended - item.received for item in group]
        self.metrics.observe(group[0].variant, [r.prediction for r in records], group[0].runtime, latencies)
        return records

    def _answer_singly(self, group: Sequence[_Pending]) -> list[PredictionRecord]:
        """After a batch failed: each row on its own, so that only the one at fault goes without an answer."""
        if len(group) > 1:
            return [record for item in group for record in self._answer([item])]
        named = f"{group[0].runtime.model}@{group[0].runtime.version}"
        _log.exception("row_failed", model_version=named, prediction_id=group[0].prediction_id)
        _fail(group[0], NoriaError(f"{named} failed at this row", remedy="The gateway's log says why."))
        return []

    def _write(self, records: Sequence[PredictionRecord]) -> None:
        if not records:
            return
        try:
            self._predictions.append(records)
        except Exception as error:
            self.log_fault = _not_logged("predictions", error)
            self.metrics.count_error("not_logged", len(records))
            _log.exception("predictions_not_logged", rows=len(records))
        else:
            self.log_fault = None


def _load(artifacts: BlobStore, table: RouteTable, before: _Runtimes) -> _Runtimes:
    """The runtimes of ``table``; one that is loaded already is kept when its files are to be the same."""
    table.choose("probe")  # a malformed table fails here, not at its first request
    runtimes: dict[tuple[str, int], Runtime] = {}
    for variant in table.variants:
        key = (variant.model, variant.version)
        loaded = runtimes.get(key) or before.get(key)
        fits = loaded is not None and loaded.digest == variant.digest
        runtimes[key] = loaded if loaded is not None and fits else load_runtime(artifacts, variant)
    return runtimes


def _floats(row: Sequence[float | None]) -> Sequence[float | None]:
    try:
        return [None if value is None else float(value) for value in row]
    except OverflowError:
        raise InvalidInput("a value is too large for a double", remedy="Send numbers below 1.8e308.") from None


def _fail(item: _Pending, error: NoriaError) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)


def _no_number(item: _Pending) -> InvalidInput:
    missing = [name for name, value in zip(item.runtime.bundle.inputs, item.row, strict=True) if value is None]
    cause = f"without {', '.join(missing)}" if missing else "for these values"
    return InvalidInput(
        f"{item.runtime.model}@{item.runtime.version} gives no number {cause}",
        remedy="Send every feature in its usual range; this model was not trained to do without.",
    )


def _not_logged(kind: str, error: Exception) -> Unavailable:
    return Unavailable(f"{kind} could not be logged: {error}", remedy="Check the disk of the prediction log.")


def _bad_instances(faults: Sequence[tuple[int, BaseException]], rows: int) -> BaseException:
    """One error that names every bad instance; what is no fault of an instance, such as a store that is down, alone."""
    bad = [(index, fault) for index, fault in faults if isinstance(fault, InvalidInput | InvalidData | NotFound)]
    if len(bad) < len(faults):
        return next(fault for _, fault in faults if not isinstance(fault, InvalidInput | InvalidData | NotFound))
    details = [f"instances[{index}]: {error.message}" for index, error in bad]
    message = details[0] if len(bad) == 1 else f"{len(bad)} of {rows} instances cannot be scored"
    return InvalidInput(message, remedy=bad[0][1].remedy, details=details)


def _prediction(item: _Pending, score: float) -> Prediction:
    runtime, revision = item.runtime, item.table.revision
    head, tail = item.prediction_id, (runtime.model, runtime.version, item.variant.name, revision)
    if runtime.bundle.task == "regression":
        return Prediction(head, score, *tail)
    label = int(score >= runtime.bundle.decision_threshold)
    return Prediction(head, label, *tail, score, confidence(score if label else 1 - score))


def _record(item: _Pending, answer: Prediction, score: float, now: int) -> PredictionRecord:
    return PredictionRecord(
        prediction_id=item.prediction_id,
        event_time=item.event_time,
        received_at=now,
        deployment=item.table.deployment,
        revision=item.table.revision,
        variant=item.variant.name,
        model=item.runtime.model,
        version=item.runtime.version,
        entities=item.entities,
        features=item.row,
        prediction=float(answer.prediction),
        score=score,
    )


def confidence(probability: float) -> str:
    """The word for the probability of the predicted class: very_high from 0.9, high 0.7, medium 0.5, else low."""
    for least, word in ((0.9, "very_high"), (0.7, "high"), (0.5, "medium")):
        if probability >= least:
            return word
    return "low"
