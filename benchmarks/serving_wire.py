"""How each kind of server is asked for rows, and what its answers say: bodies out, (labels, probabilities) back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Answers = tuple[Sequence[int], Sequence[float]]
"""Of each row the label, and the probability of the second class."""


@dataclass(frozen=True)
class Request:
    """One POST."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wire:
    """A protocol: from rows to a request, and from an answer's body and headers back."""

    ask: Callable[[Rows], Request]
    read: Callable[[bytes, Mapping[str, str]], Answers]


def json_post(path: str, document: object) -> Request:
    return Request(path, json.dumps(document, separators=(",", ":")).encode(), {"Content-Type": "application/json"})


def of_pairs(pairs: Sequence[Sequence[float]]) -> Answers:
    """Answers given as the probabilities of both classes."""
    found = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    return found.argmax(axis=1).tolist(), found[:, 1].tolist()


def of_winners(labels: Sequence[int], winners: Sequence[float]) -> Answers:
    """Answers given as labels, each with its own probability."""
    return labels, [win if label else 1 - win for label, win in zip(labels, winners, strict=True)]


def _ask_seeds(rows: Rows) -> Request:
    if len(rows) == 1:
        return json_post("/predict", {"features": rows[0].tolist()})
    return json_post("/predict/batch", {"features": rows.tolist()})


def _read_seeds(body: bytes, _headers: Mapping[str, str]) -> Answers:
    answer = json.loads(body)
    if "predictions" in answer:
        return of_winners(answer["predictions"], answer["probabilities"])
    return of_winners([answer["prediction"]], [answer["probability"]])


def named(path: str, key: str, found: str = "") -> Wire:
    """JSON with the rows under ``key``; the answer has pairs of probabilities, under ``found`` if that is not empty."""

    def read(body: bytes, _headers: Mapping[str, str]) -> Answers:
        answer: Any = json.loads(body)
        return of_pairs(answer[found] if found else answer)

    return Wire(lambda rows: json_post(path, {key: rows.tolist()}), read)


def tensor(rows: Rows) -> dict[str, Any]:
    """The one input of an Open Inference request, without its data."""
    return {"name": "input", "shape": list(rows.shape), "datatype": "FP64"}


def v2(*outputs: str) -> Wire:
    """Open Inference Protocol in JSON; with ``outputs`` that is what is asked for, and a pair a row comes back."""
    wanted = {"outputs": [{"name": name} for name in outputs]} if outputs else {}

    def ask(rows: Rows) -> Request:
        return json_post(V2_PATH, {"inputs": [tensor(rows) | {"data": rows.ravel().tolist()}], **wanted})

    def read(body: bytes, _headers: Mapping[str, str]) -> Answers:
        data = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
        return of_pairs(data[outputs[0]]) if outputs else of_winners(data["prediction"], data["probability"])

    return Wire(ask, read)


def _ask_binary(rows: Rows) -> Request:
    raw = rows.tobytes()
    document = {
        "inputs": [tensor(rows) | {"parameters": {"binary_data_size": len(raw)}}],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(document).encode()
    length = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return Request(V2_PATH, head + raw, length)


def _read_binary(body: bytes, headers: Mapping[str, str]) -> Answers:
    size = int(headers["inference-header-content-length"])
    found, at = {}, size
    for output in json.loads(body[:size])["outputs"]:
        dtype = {"INT64": "<i8", "FP64": "<f8"}[output["datatype"]]
        found[output["name"]] = np.frombuffer(body, dtype, output["shape"][0], at).tolist()
        at += output["parameters"]["binary_data_size"]
    return of_winners(found["prediction"], found["probability"])


def _read_noria_batch(body: bytes, _headers: Mapping[str, str]) -> Answers:
    rows = json.loads(body)["predictions"]
    return of_winners([row["prediction"] for row in rows], [row["probability"] for row in rows])


V2_PATH = "/v2/models/forest/infer"
SEEDS = Wire(_ask_seeds, _read_seeds)
BATCH = Wire(lambda rows: json_post("/predict/batch", {"features": rows.tolist()}), _read_noria_batch)
BINARY = Wire(_ask_binary, _read_binary)
