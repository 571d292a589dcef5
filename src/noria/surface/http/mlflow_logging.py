"""The hot half of MLflow's protocol: logging metrics, params and tags, decoded by msgspec and committed in groups."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from noria.errors import InvalidInput
from noria.tracking.entities import Metric
from noria.tracking.writer import Batch

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Decode = Callable[[bytes], Batch]
Log = Callable[[Batch], Awaitable[None]]


class _Value(msgspec.Struct):
    key: str
    value: float
    timestamp: _Int64 = 0
    step: _Int64 = 0


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


class _LogMetric(_OfRun, kw_only=True):
    key: str
    value: float
    timestamp: _Int64 = 0
    step: _Int64 = 0


class _LogPair(_OfRun, kw_only=True):
    key: str
    value: str = ""


class _LogBatch(_OfRun, kw_only=True):
    metrics: list[_Value] = []
    params: list[_Pair] = []
    tags: list[_Pair] = []


def _log_metric(body: bytes) -> Batch:
    call = _decode(body, _LogMetric)
    return Batch(call.run, metrics=_metrics([call]))


def _log_param(body: bytes) -> Batch:
    call = _decode(body, _LogPair)
    return Batch(call.run, params={call.key: call.value})


def _set_tag(body: bytes) -> Batch:
    call = _decode(body, _LogPair)
    return Batch(call.run, tags={call.key: call.value})


def _log_batch(body: bytes) -> Batch:
    call = _decode(body, _LogBatch)
    return Batch(call.run, _metrics(call.metrics), _pairs(call.params), _pairs(call.tags))


DECODERS: Mapping[str, Decode] = {
    "/runs/log-metric": _log_metric,
    "/runs/log-parameter": _log_param,
    "/runs/set-tag": _set_tag,
    "/runs/log-batch": _log_batch,
}


def _decode(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body or b"{}", type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"the request body cannot be read: {error}", remedy="Send the fields of MLflow's REST API."
        ) from None


def _metrics(values: Sequence[_Value | _LogMetric]) -> list[Metric]:
    now = round(time.time() * 1000)
    return [Metric(value.key, value.value, value.timestamp or now, value.step) for value in values]


def _pairs(pairs: Sequence[_Pair]) -> dict[str, str]:
    """Raises InvalidInput for a key given twice with different values."""
    found: dict[str, str] = {}
    for pair in pairs:
        if found.setdefault(pair.key, pair.value) != pair.value:
            raise InvalidInput(f"key {pair.key!r} is given twice with different values", remedy="Send it once.")
    return found
