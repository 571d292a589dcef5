"""The hot half of MLflow's protocol: logging metrics, params and tags, decoded by msgspec and committed in groups."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from noria.errors import InvalidInput
from noria.structs import read_by_threads
from noria.surface.http.mlflow_call import check_texts
from noria.tracking.entities import Metric, ModelMetric
from noria.tracking.writer import Batch

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_MOST_METRICS, _MOST_PAIRS, _MOST_ENTITIES = 1000, 100, 1000
_ESCAPED = b"\\u"
Decode = Callable[[bytes], Batch]
Log = Callable[[Batch], Awaitable[None]]


class _Value(msgspec.Struct):
    key: str
    value: float
    timestamp: _Time
    step: _Int64 = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


class _Pair(msgspec.Struct):
    key: str
    value: str = ""


class _OfRun(msgspec.Struct, kw_only=True):
    run_id: str = ""
    run_uuid: str = ""

    @property
    def run(self) -> str:
        """The run that either field names."""
        if named := self.run_id or self.run_uuid:
            return named
        raise InvalidInput("Missing value for required parameter 'run_id'.", remedy="Send run_id.")


@read_by_threads
class _LogMetric(_OfRun, kw_only=True):
    key: str
    value: float
    timestamp: _Time
    step: _Int64 = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


@read_by_threads
class _LogPair(_OfRun, kw_only=True):
    key: str
    value: str = ""


@read_by_threads
class _LogBatch(_OfRun, kw_only=True):
    metrics: list[_Value] = []
    params: list[_Pair] = []
    tags: list[_Pair] = []


def _log_metric(body: bytes) -> Batch:
    call = _decode(body, _LogMetric)
    return Batch(call.run, metrics=_metrics([call]), of_models=_of_models(call.run, [call]))


def _log_param(body: bytes) -> Batch:
    call = _decode(body, _LogPair)
    return Batch(call.run, params={call.key: call.value})


def _set_tag(body: bytes) -> Batch:
    call = _decode(body, _LogPair)
    return Batch(call.run, tags={call.key: call.value})


def _log_batch(body: bytes) -> Batch:
    call = _decode(body, _LogBatch)
    sizes = len(call.metrics), len(call.params), len(call.tags)
    if sizes[0] > _MOST_METRICS or max(sizes[1:]) > _MOST_PAIRS or sum(sizes) > _MOST_ENTITIES:
        raise InvalidInput(
            f"A batch of {sizes[0]} metrics, {sizes[1]} params and {sizes[2]} tags is too large",
            remedy=f"Send at most {_MOST_METRICS} metrics, {_MOST_PAIRS} params and {_MOST_PAIRS} tags, "
            f"and {_MOST_ENTITIES} of them together.",
        )
    tags, of_models = {tag.key: tag.value for tag in call.tags}, _of_models(call.run, call.metrics)
    return Batch(call.run, _metrics(call.metrics), _params(call.params), tags, of_models)


DECODERS: Mapping[str, Decode] = {
    "/runs/log-metric": _log_metric,
    "/runs/log-parameter": _log_param,
    "/runs/set-tag": _set_tag,
    "/runs/log-batch": _log_batch,
}


def _decode(body: bytes, kind: Any) -> Any:
    if _ESCAPED in body:  # nothing else yields a character that no database keeps
        check_texts(_parsed(body))
    return _parsed(body, kind)


def _parsed(body: bytes, kind: Any = Any) -> Any:
    try:
        return msgspec.json.decode(body or b"{}", type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"the request body cannot be read: {error}", remedy="Send the fields of MLflow's REST API."
        ) from None


def _metrics(values: Sequence[_Value | _LogMetric]) -> list[Metric]:
    return [Metric(value.key, value.value, value.timestamp, value.step) for value in values]


def _of_models(run_id: str, values: Sequence[_Value | _LogMetric]) -> list[ModelMetric]:
    """Of the values those that name a logged model."""
    return (
        [
            ModelMetric(value.model_id, run_id, metric, value.dataset_name, value.dataset_digest)
            for value, metric in zip(values, _metrics(values), strict=True)
            if value.model_id
        ]
        if any(value.model_id for value in values)
        else []
    )


def _params(pairs: Sequence[_Pair]) -> dict[str, str]:
    """Raises InvalidInput for a key given twice."""
    found = {pair.key: pair.value for pair in pairs}
    if len(found) < len(pairs):
        raise InvalidInput("a param is given twice", remedy="Send each param once.")
    return found
