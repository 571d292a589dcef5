"""Noria's own endpoints on a gateway: predictions, outcomes, health, what serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput
from noria.serving import Block, DataPlane
from noria.serving.inputs import PredictionRequest, Value, ill_typed_feature
from noria.serving.items import Item, Outcome, confidence
from noria.serving.live import Arm, Live
from noria.surface.errors import problem
from noria.surface.http.gateway_bodies import PredictBody, decode_batch, decode_labels, decode_predict, decode_rewards
from noria.surface.http.gateway_requests import LARGE_BYTES, Request, admitted, admitting, beside, check_any_key
from noria.surface.http.tensor_bodies import doubles

_encode = msgspec.json.Encoder().encode
_ROWS_AT_ONCE = 500
"""A long answer is written in parts: all its rows as Python values would take ten times its bytes."""


async def predict(plane: DataPlane, request: Request) -> bytes:
    """POST /predict: one row, or several as ``instances``."""
    live, body = admitted(plane, request), request.body
    return await answer(plane, live, await beside(len(body), decode_predict, body), request.timeout)


async def answer(plane: DataPlane, live: Live, body: PredictBody, timeout: float | None = None) -> bytes:
    """What POST /predict answers to a body."""
    if body.instances is None:
        return _encode(await plane.predict(live, body, timeout))
    return await _encoded({"predictions": await plane.predict_many(live, body.instances, timeout)})


async def predict_batch(plane: DataPlane, request: Request) -> bytes:
    """POST /predict/batch: ``instances``, each routed by itself, or rows of ``features`` that one version answers."""
    live = admitted(plane, request)
    asked = await beside(len(request.body), _batch, live.champion, request.body)
    if not isinstance(asked, Block):
        return await _encoded({"predictions": await plane.predict_many(live, asked, request.timeout)})
    item, outcome = await plane.predict_block(live, asked, timeout=request.timeout)
    return await beside(item.count * 100, _rows, item, outcome)


async def labels(plane: DataPlane, request: Request) -> bytes:
    """POST /labels: what turned out to be true."""
    check_any_key(plane, request)
    records = await beside(len(request.body), decode_labels, request.body)
    plane.recorder.labels(records)
    return _encode({"accepted": len(records)})


async def rewards(plane: DataPlane, request: Request) -> bytes:
    """POST /rewards: what predictions or units were worth, to the deployment that is named or the only one there is."""
    check_any_key(plane, request)
    named = "" if request.model is None else plane.find(request.model).table.deployment
    only = plane.deployments[0].table.deployment if len(plane.deployments) == 1 else ""
    sending = request.header(b"idempotency-key")
    records = await beside(len(request.body), decode_rewards, request.body, named, only, sending)
    plane.recorder.rewards(records)
    return _encode({"accepted": len(records)})


async def health(plane: DataPlane, request: Request) -> bytes:
    """GET /health: whether predictions are answered, and what is wrong if something is."""
    deployments = plane.deployments if request.model is None else [plane.find(request.model)]
    revision = deployments[0].table.revision if len(deployments) == 1 else None
    document: dict[str, object] = {"status": "healthy", "model_loaded": True}
    if revision is not None:
        document["route_revision"] = revision
    if (fault := plane.fault) is not None:
        document |= {"status": "degraded", "fault": problem(fault)}
    return _encode(document)


async def info(plane: DataPlane, request: Request) -> bytes:
    """GET /model/info: what serves, what it takes, who gets which share. Of several deployments, those with its key."""
    found = admitting(plane, request)
    if request.model is None and len(plane.deployments) > 1:
        return _encode({"models": [_described(live) for live in found]})
    return _encode(_described(found[0]))


async def metrics(plane: DataPlane, _request: Request) -> bytes:
    """GET /metrics: the Prometheus text format."""
    return plane.metrics.render()


def _described(live: Live) -> Mapping[str, object]:
    champion, table = live.champion, live.table
    bundle = champion.served.bundle
    document: dict[str, object] = {
        "deployment": table.deployment,
        "route_revision": table.revision,
        "model": champion.variant.model,
        "model_version": champion.version,
        "model_type": bundle.options.get("algorithm", bundle.runtime),
        "task": bundle.task,
        "runtime": bundle.runtime,
        "n_features": len(bundle.inputs),
        "request_features": bundle.sent,
        "kinds": {name: bundle.kinds.get(name, "double") for name in bundle.sent},
        "entity_keys": bundle.entity_keys,
        "inputs": bundle.inputs,
        "variants": [
            {"name": v.name, "model_version": str(v.version), "percent": v.percent, "shadow": v.shadow}
            for v in table.variants
        ],
    }
    if bundle.task == "classification":
        document["classes"] = bundle.classes
    if bundle.tensors:
        document |= {"tensors": bundle.tensors, "outputs": bundle.outputs}
    return document


def _batch(arm: Arm, body: bytes) -> Block | Sequence[PredictionRequest]:
    """The rows of a body: as arrays, or each by itself."""
    read = decode_batch(body)
    if read.features is None:
        assert read.instances is not None
        return read.instances
    if arm.served.bundle.looked_up or arm.served.bundle.computed:
        raise InvalidInput(
            "this model looks features up, by entity keys that rows of plain values do not have",
            remedy='Send "instances", each with "entities" and "features".',
        )
    numbers, texts = matrix_of(arm, read.features)
    return Block(numbers, texts, read.prediction_id, read.event_time, read.unit_id)


def matrix_of(arm: Arm, rows: Sequence[Sequence[Value]]) -> tuple[Any, Any]:
    """The arrays of rows in the model's order: numbers, and texts or None. Raises InvalidInput that names the row."""
    bundle = arm.served.bundle
    if bundle.tensors:
        arm.columns.row([])  # which says so
    width = len(bundle.request_columns)
    for place, row in enumerate(rows):
        if len(row) != width:
            raise InvalidInput(
                f"row {place} has {len(row)} values, and the model takes {width}",
                remedy=f"Send, in this order: {', '.join(bundle.request_columns)}.",
            )
    if not arm.columns.has_texts:
        numbers = doubles(rows)
        if numbers is None:
            numbers = _with_nulls(arm, rows)
        return numbers.reshape(len(rows), width), None
    split, of_texts = [arm.columns.row(list(row)) for row in rows], len(bundle.string_places)
    numbers = np.array([row[0] for row in split], dtype=np.float64).reshape(len(rows), width - of_texts)
    return numbers, np.array([row[1] for row in split], dtype=object).reshape(len(rows), of_texts)


def _with_nulls(arm: Arm, rows: Sequence[Sequence[Value]]) -> NDArray[np.float64]:
    try:
        found = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError):
        raise _bad_row(arm, rows) from None
    # numpy reads a text as the number in it, where it can, and takes lists for more axes
    if found.ndim > 2 or any(value.__class__ is str for row in rows for value in row):
        raise _bad_row(arm, rows)
    return found


def _bad_row(arm: Arm, rows: Sequence[Sequence[Value]]) -> InvalidInput:
    for place, row in enumerate(rows):
        for name, value in zip(arm.served.bundle.request_columns, row, strict=True):
            if isinstance(value, str | list | dict):
                error = ill_typed_feature(name, value, "a number")
                return InvalidInput(f"row {place}: {error.message}", remedy=error.remedy)
    return InvalidInput("the rows are no numbers", remedy="Send lists of numbers, null where one is missing.")


def _rows(item: Item, outcome: Outcome) -> bytes:
    """The answers to a block, one a row: what they share is said once."""
    shared = {
        "model": item.arm.variant.model,
        "model_version": item.arm.version,
        "variant": item.arm.variant.name,
        "route_revision": item.live.table.revision,
    }
    ids, starts = item.prediction_ids, range(0, item.count, _ROWS_AT_ONCE)
    parts = [slice(start, start + _ROWS_AT_ONCE) for start in starts]
    rows = b",".join(_encode(_answers(ids[part], outcome, part))[1:-1] for part in parts)
    return b'%s,"predictions":[%s]}' % (_encode(shared)[:-1], rows)


def _answers(ids: Sequence[str], outcome: Outcome, part: slice) -> Sequence[Mapping[str, object]]:
    predictions = outcome.predictions[part]
    if outcome.probabilities is None:
        return [{"prediction_id": one, "prediction": value} for one, value in zip(ids, predictions, strict=True)]
    probabilities = outcome.probabilities[part].tolist()
    return [
        {"prediction_id": one, "prediction": value, "probability": probability, "confidence": confidence(probability)}
        for one, value, probability in zip(ids, predictions, probabilities, strict=True)
    ]


async def _encoded(document: Mapping[str, Sequence[object]]) -> bytes:
    rows = next(iter(document.values()))
    return await beside(len(rows) * LARGE_BYTES // _ROWS_AT_ONCE, _encode, document)
