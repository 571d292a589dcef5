"""MLflow's scoring protocol: /invocations with JSON or CSV, and the two probes beside it."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput
from noria.optimize.bundle import DTYPES, GRAPH, TEXTS, TensorSpec
from noria.serving import Block, DataPlane
from noria.serving.frames import Columns, arrays_of, columns_of_records, columns_of_rows, requests_of
from noria.serving.inputs import is_nested
from noria.serving.live import Arm, Live
from noria.serving.runtimes import Tensors
from noria.surface.http.gateway_requests import Request, admitted, beside
from noria.surface.tensors import InputTensor, fitting, whole_numbers

_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_NUMBERS = frozenset((float, int, bool, type(None)))
_FLOATS = frozenset(name for name, dtype in DTYPES.items() if np.dtype(dtype).kind == "f")
_NO_VALUE = frozenset(("", "#n/a", "#na", "-nan", "<na>", "n/a", "na", "nan", "none", "null"))
"""What pandas, and MLflow's server with it, reads as a missing number, in lower case."""
_encode = msgspec.json.Encoder().encode


async def invoke(plane: DataPlane, request: Request) -> bytes:
    """POST /invocations: rows in any of MLflow's formats, answered with their predictions."""
    live = admitted(plane, request)
    arm = live.champion
    if arm.served.bundle.tensors:
        return await _invoke_tensors(plane, live, request)
    columns, params = await beside(len(request.body), _read, arm, request)
    scored = arm.served.bundle.predicts_scores
    if (requests := requests_of(arm, columns)) is not None:
        answers = await plane.predict_many(live, requests, request.timeout)
        return _encode({"predictions": [one.score if scored else one.prediction for one in answers]})
    numbers, texts = arrays_of(arm, columns)
    if not len(numbers):
        return _encode({"predictions": []})
    _, outcome = await plane.predict_block(live, Block(numbers, texts, params=params or None), timeout=request.timeout)
    return _encode({"predictions": outcome.scores.tolist() if scored else outcome.predictions})


async def _invoke_tensors(plane: DataPlane, live: Live, request: Request) -> bytes:
    tensors, params = await beside(len(request.body), _read_tensors, live.champion, request)
    rows = np.empty((len(next(iter(tensors.values()))), 0))
    _, outcome = await plane.predict_block(
        live, Block(rows, params=params or None, tensors=tensors), timeout=request.timeout
    )
    found = {name: tensor.tolist() for name, tensor in (outcome.tensors or {}).items()}
    alone = len(found) == 1 and live.champion.served.bundle.options.get("algorithm") != GRAPH
    return _encode({"predictions": next(iter(found.values())) if alone else found})


def _read(arm: Arm, request: Request) -> tuple[Columns, Mapping[str, Any]]:
    """The rows by column, and the params beside them. Raises InvalidInput."""
    if request.media_type == "text/csv":
        return _csv(arm, request.body), {}
    kind, content, params = _document(request)
    return _READERS[kind](arm, content), params


def _read_tensors(arm: Arm, request: Request) -> tuple[Tensors, Mapping[str, Any]]:
    """The same for a model of tensors: one as nested lists, or several by name."""
    kind, content, params = _document(request)
    specs = {spec.name: spec for spec in arm.served.bundle.tensors}
    if kind == "dataframe_split" and isinstance(content, dict):
        content = _split(arm, content) if _has_columns(arm, content) else content.get("data")
    if isinstance(content, list) and content and isinstance(content[0], dict):
        content = columns_of_records(content)
    known = arm.served.bundle.options.get("columns", ())
    if isinstance(content, dict) and known and not set(specs) <= set(content):
        content = _matrix(known, content)
    if not isinstance(content, dict) and len(specs) > 1:
        raise InvalidInput(f"the model takes several tensors: {', '.join(specs)}", remedy="Name them, in an object.")
    named = content if isinstance(content, dict) else {next(iter(specs)): content}
    given = [_tensor(name, values, specs.get(name)) for name, values in named.items()]
    return fitting(arm.served.bundle, given), params


def _has_columns(arm: Arm, split: Mapping[str, Any]) -> bool:
    """Whether the columns of a dataframe are known to a model of tensors: where it knows none, places count."""
    names, bundle = split.get("columns"), arm.served.bundle
    wanted = {spec.name for spec in bundle.tensors}
    return isinstance(names, list) and ("columns" in bundle.options or wanted <= set(map(str, names)))


def _matrix(names: Sequence[str], columns: Columns) -> list[list[Any]]:
    """The rows of a model that was logged with these columns, in their order. Raises InvalidInput."""
    if missing := [name for name in names if name not in columns]:
        raise InvalidInput(f"columns are missing: {', '.join(missing)}", remedy=f"The model takes: {', '.join(names)}.")
    given = [columns[name] for name in names]
    if not all(isinstance(column, Sequence) for column in given) or len(set(map(len, given))) > 1:
        raise InvalidInput("the columns differ in length", remedy="Send one value a row in every column.")
    return [list(row) for row in zip(*given, strict=True)]


def _tensor(name: str, values: Any, spec: TensorSpec | None) -> InputTensor:
    """Nested lists as a tensor; a column's plain values where that has one value a row in a list of its own."""
    datatype = "FP64" if spec is None else spec.datatype
    if spec is not None and spec.shape[1:] == (1,) and isinstance(values, Sequence):
        values = [one if isinstance(one, list) else [one] for one in values]
    try:
        return InputTensor(name, datatype, _array(name, values, datatype))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(
            f"{name!r} is no {datatype} tensor: {error}", remedy="Send lists of its values, nested alike."
        ) from None


def _array(name: str, values: Any, datatype: str) -> NDArray[Any]:
    """Nested lists as they are: NumPy would take "7" for a number and "false" for true. Raises what NumPy does."""
    if datatype == "BYTES":
        return np.array(values, dtype=np.object_)
    found = np.array(values)
    if found.dtype.kind not in "biuf" and not _NUMBERS.issuperset(map(type, found.astype(np.object_).flat)):
        raise TypeError("it holds what is no number")
    if found.dtype.kind in "biu" or (found.dtype.kind == "f" and datatype in _FLOATS):
        return found
    return np.array(values, dtype=np.float64) if datatype in _FLOATS else whole_numbers(values, name, datatype)


def _document(request: Request) -> tuple[str, Any, Mapping[str, Any]]:
    """In which of the formats the rows come, the rows, and the params beside them. Raises InvalidInput."""
    kind = request.media_type or "application/json"
    if kind != "application/json":
        raise InvalidInput(f"content-type {kind!r} is not understood", remedy="Send application/json or text/csv.")
    try:
        document = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the request body cannot be read: {error}", remedy="Send JSON.") from None
    given = [name for name in _FORMATS if isinstance(document, dict) and name in document]
    if len(given) != 1:
        raise InvalidInput(
            f"the request body holds {' and '.join(given) or 'no rows'}", remedy=f"Send one of: {', '.join(_FORMATS)}."
        )
    params = document.get("params") or {}
    if not isinstance(params, dict):
        raise InvalidInput("params is no object", remedy='Send {"params": {"name": value}}.')
    return given[0], document[given[0]], params


def _split(arm: Arm, content: Any) -> Columns:
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise InvalidInput("dataframe_split has no data", remedy='Send {"columns": [...], "data": [[...], ...]}.')
    if "columns" not in content:
        return columns_of_rows(arm, content["data"])
    names = content["columns"]
    if not isinstance(names, list):
        raise InvalidInput("dataframe_split.columns is no list", remedy="Send the columns' names.")
    _check_unlike(names, "dataframe_split.columns")
    for place, row in enumerate(content["data"]):
        if not isinstance(row, list) or len(row) != len(names):
            raise InvalidInput(
                f"dataframe_split.data[{place}] does not fit its columns", remedy="Send a value for each."
            )
    rows = zip(*content["data"], strict=True) if content["data"] else [()] * len(names)
    return dict(zip(map(str, names), rows, strict=True))


def _records(arm: Arm, content: Any) -> Columns:
    if not isinstance(content, list):
        raise InvalidInput("the rows are no list", remedy='Send [{"column": value}, ...].')
    if arm.served.bundle.one_value:
        return {arm.served.bundle.inputs[0]: content}
    if content and isinstance(content[0], dict):
        return columns_of_records(content)
    if content and not isinstance(content[0], list):
        content = [[value] for value in content]
    return columns_of_rows(arm, content)


def _inputs(arm: Arm, content: Any) -> Columns:
    """A list of rows, or an object of columns."""
    if not isinstance(content, dict):
        return _records(arm, content)
    return {str(name): column if isinstance(column, list) else [column] for name, column in content.items()}


_READERS = {"dataframe_split": _split, "dataframe_records": _records, "instances": _records, "inputs": _inputs}


def _csv(arm: Arm, body: bytes) -> Columns:
    """A CSV file with a header; numbers where the model takes numbers, nothing for null."""
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"the CSV cannot be read: {error}", remedy="Send UTF-8 with a header line.") from None
    if not rows:
        raise InvalidInput("the CSV is empty", remedy="Send a header line, then the rows.")
    header, *rest = rows
    _check_unlike(header, "the CSV's header")
    if bad := next((place for place, row in enumerate(rest, 2) if len(row) != len(header)), 0):
        raise InvalidInput(f"line {bad} of the CSV does not fit its header", remedy="Send a value for each column.")
    bundle = arm.served.bundle
    texts = {bundle.inputs[place] for place in bundle.string_places} | {*bundle.entity_keys}
    texts |= {name for name in bundle.sent if bundle.kinds.get(name) in TEXTS}
    columns = dict(zip(header, zip(*rest, strict=True) if rest else [()] * len(header), strict=True))

    def read(name: str, column: Sequence[str]) -> Sequence[Any]:
        if is_nested(bundle, name):
            return _nested(name, column)
        return [text or None for text in column] if name in texts else _numbers(name, column, bundle.kinds.get(name))

    return {
        name: read(name, column) for name, column in columns.items() if name in {*bundle.inputs, *bundle.sent, *texts}
    }


def _nested(name: str, column: Sequence[str]) -> Sequence[Any]:
    """Values of whatever JSON holds, each as JSON."""
    found: list[Any] = []
    for line, text in enumerate(column, 2):
        try:
            found.append(msgspec.json.decode(text) if text else None)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"line {line} of the CSV: {name} is no JSON: {error}", remedy="Send JSON.") from None
    return found


def _check_unlike(names: Sequence[Any], where: str) -> None:
    """Raises InvalidInput for a name that stands there twice: which of the values is meant?"""
    twice = [name for name, count in Counter(map(str, names)).items() if count > 1]
    if twice:
        raise InvalidInput(f"{where} has {twice[0]!r} more than once", remedy="Send each column once.")


def _numbers(name: str, column: Sequence[str], kind: str | None) -> Sequence[float | None]:
    found: list[float | None] = []
    for line, text in enumerate(column, 2):
        try:
            found.append(_number(text, is_boolean=kind == "boolean"))
        except ValueError:
            raise InvalidInput(
                f"line {line} of the CSV: {name} is {text!r:.60}", remedy="Send finite numbers, nothing for null."
            ) from None
    return found


def _number(text: str, *, is_boolean: bool) -> float | None:
    """A number, null, or where it is to be one a truth value, as pandas and others write them. Raises ValueError."""
    word = text.strip().lower()
    if word in _NO_VALUE:
        return None
    if is_boolean and word in ("true", "false"):
        return word == "true"
    number = float(word)
    if not math.isfinite(number) or "_" in word:  # which Python alone takes for part of a number
        raise ValueError
    return number
