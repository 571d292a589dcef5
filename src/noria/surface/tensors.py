"""Inference on named tensors, as the Open Inference Protocol has it over HTTP and over gRPC."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput
from noria.optimize.bundle import DTYPES, Bundle, TensorSpec
from noria.serving import Block, DataPlane, PredictionRequest
from noria.serving.items import Item, Outcome, Result, ids_of
from noria.serving.live import Arm, Live

_OWN_PARAMETERS = ("prediction_id", "unit_id", "event_time", "timeout", "binary_data_output")
_MICROS = 1e-6


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One tensor sent; of BYTES the entries are texts."""

    name: str
    datatype: str
    array: NDArray[Any]


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One tensor answered; ``data`` is flat, row-major."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: NDArray[Any]
    binary: bool = False


@dataclass(frozen=True, slots=True)
class InferCall:
    """An infer request. ``outputs`` are the names asked for, empty for all, each with whether it is wanted as bytes.

    Where that is None, ``all_binary`` says it.
    """

    inputs: Sequence[InputTensor]
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, bool | None] = field(default_factory=dict)
    all_binary: bool = False


@dataclass(frozen=True, slots=True)
class InferResult:
    """An infer answer."""

    model_name: str
    model_version: str
    id: str
    parameters: Mapping[str, str | int]
    outputs: Sequence[OutputTensor]


async def infer(
    plane: DataPlane, live: Live, arm: Arm, version: str | None, call: InferCall, timeout: float | None
) -> InferResult:
    """Answer ``call`` by the named version, or by the one the request is routed to. Raises what predictions raise."""
    _check_names(call.inputs)
    given = {name: value for name, value in call.parameters.items() if name not in _OWN_PARAMETERS}
    timeout = _timeout(call.parameters, timeout)
    named = _Named(*(_as_text(call.parameters.get(name)) for name in _Named._fields))
    bundle = arm.served.bundle
    if version is None and not bundle.tensors and (requests := _requests(bundle, call, named)) is not None:
        return _joined(call, live, arm, await plane.ask_many(live, requests, timeout))
    if bundle.tensors:
        tensors = fitting(bundle, call.inputs)
        rows = len(next(iter(tensors.values())))
        block = Block(np.empty((rows, 0)), None, *named, params=given or None, tensors=tensors)
    else:
        numbers, texts = rows_of(bundle, call.inputs)
        block = Block(numbers, texts, *named, params=given or None)
    item, outcome = await plane.predict_block(live, block, version, timeout)
    parameters: dict[str, str | int] = {
        "prediction_id": item.prediction_id,
        "variant": item.arm.variant.name,
        "route_revision": item.live.table.revision,
    }
    return InferResult(live.table.deployment, item.arm.version, call.id, parameters, _outputs(call, item, outcome))


def metadata(live: Live, arm: Arm) -> dict[str, object]:
    """What a model takes and gives, as the protocol describes it."""
    bundle = arm.served.bundle
    return {
        "name": live.table.deployment,
        "versions": [one.version for one in live.arms],
        "platform": "onnx_onnxv1" if bundle.runtime == "onnx" else f"noria_{bundle.runtime}",
        "inputs": [_described(spec) for spec in _inputs(bundle)],
        "outputs": [_described(spec) for spec in _output_specs(bundle)],
        "parameters": {"columns": list(bundle.inputs)},
    }


def rows_of(bundle: Bundle, tensors: Sequence[InputTensor]) -> tuple[NDArray[np.float64], NDArray[np.object_] | None]:
    """Numbers and texts out of one matrix of all columns, or of one tensor a column. Raises InvalidInput."""
    columns, texts = bundle.inputs, bundle.string_places
    first = tensors[0] if tensors else None
    if first is not None and len(tensors) == 1 and not texts and (len(columns) != 1 or first.name not in columns):
        if first.array.ndim != 2 or first.array.shape[1] != len(columns):
            raise InvalidInput(
                f"input {first.name!r} has shape {list(first.array.shape)}, expected [rows, {len(columns)}]",
                remedy=f"The columns are, in order: {', '.join(columns)}.",
            )
        return _finite(_numbers(first), columns), None
    by_name = {tensor.name: tensor for tensor in tensors}
    _check_columns(by_name, columns)
    numbers = [_column(by_name[name]) for name in bundle.number_names]
    strings = [_texts(by_name[columns[place]]) for place in texts]
    lengths = {len(column) for column in [*numbers, *strings]}
    if len(lengths) > 1:
        raise InvalidInput("input tensors differ in rows", remedy="Give all of them the same first dimension.")
    rows = lengths.pop() if lengths else 0
    matrix = np.stack(numbers, axis=1) if numbers else np.empty((rows, 0))
    return _finite(matrix, bundle.number_names), np.stack(strings, axis=1) if strings else None


def _finite(matrix: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.float64]:
    """The matrix, whose columns have ``names``. Raises InvalidInput for an infinite number, which JSON has none of."""
    infinite = np.isinf(matrix)
    if infinite.any():
        row, column = (int(place) for place in np.argwhere(infinite)[0])
        raise InvalidInput(f"column {names[column]!r} is infinite in row {row}", remedy="Send finite numbers, or NaN.")
    return matrix


class _Named(NamedTuple):
    """What a client says of a request beside its rows, in the order a block has it."""

    prediction_id: str
    event_time: str
    unit_id: str


def _requests(bundle: Bundle, call: InferCall, named: _Named) -> list[PredictionRequest] | None:
    """The rows as requests whose features are to be looked up, where the tensors are columns and entity keys."""
    keys = set(bundle.entity_keys)
    names = {tensor.name for tensor in call.inputs}
    if not (keys or bundle.computed) or names != keys | set(bundle.sent):
        return None
    columns = {tensor.name: _plain(tensor, tensor.name in keys) for tensor in call.inputs}
    if len({len(column) for column in columns.values()}) != 1:
        raise InvalidInput("input tensors differ in rows", remedy="Give all of them the same first dimension.")
    rows = len(next(iter(columns.values())))
    ids = ids_of(named.prediction_id, rows) if named.prediction_id else [""] * rows
    return [
        PredictionRequest(
            prediction_id,
            named.event_time,
            entities={key: columns[key][row] for key in keys},
            features={name: columns[name][row] for name in bundle.sent},
            unit_id=named.unit_id,
        )
        for row, prediction_id in enumerate(ids)
    ]


def _plain(tensor: InputTensor, is_key: bool) -> list[Any]:
    """The values as requests have them: keys may be integers, features are doubles."""
    is_integer = tensor.array.dtype.kind in "iu" and not is_key
    array = tensor.array.astype(np.float64) if is_integer else tensor.array
    values: list[Any] = array.reshape(-1).tolist()
    return values


def _joined(call: InferCall, live: Live, arm: Arm, answers: Sequence[tuple[Item, Result]]) -> InferResult:
    """The answers to several rows, which several versions may have given, as tensors."""
    bundle, rows = arm.served.bundle, [item.prediction(*result) for item, result in answers]
    outputs = [_values("prediction", _prediction_type(bundle), [one.prediction for one in rows])]
    if all(outcome.probabilities is not None for _, (outcome, _) in answers):
        outputs.append(OutputTensor("probability", "FP64", [len(rows)], np.array([one.probability for one in rows])))
        if "probabilities" in call.outputs:
            outputs.append(_of_classes([_every_class(outcome.part(at, 1)) for _, (outcome, at) in answers]))
    versions = sorted({one.model_version for one in rows}) or [arm.version]
    parameters = {"variants": ",".join(versions)}
    return InferResult(live.table.deployment, versions[0], call.id, parameters, _asked(call, outputs))


def _every_class(outcome: Outcome) -> NDArray[np.float64]:
    """The probability of every class, (rows, classes)."""
    every = outcome.all_classes
    return np.stack([1 - outcome.scores, outcome.scores], axis=1) if every is None else every


def _of_classes(parts: Sequence[NDArray[np.float64]]) -> OutputTensor:
    """One tensor of them. Raises InvalidInput where versions that answered know other numbers of classes."""
    if len({part.shape[1] for part in parts}) > 1:
        raise InvalidInput(
            "the versions that answered differ in their classes", remedy="Ask one of them, by its version in the path."
        )
    every = np.concatenate(parts)
    return OutputTensor("probabilities", "FP64", every.shape, every.reshape(-1))


def _outputs(call: InferCall, item: Item, outcome: Outcome) -> Sequence[OutputTensor]:
    bundle = item.arm.served.bundle
    if outcome.tensors is not None:
        return _asked(call, [_raw(name, tensor) for name, tensor in outcome.tensors.items()])
    found = [_values("prediction", _prediction_type(bundle), outcome.predictions)]
    if outcome.probabilities is not None:
        found.append(OutputTensor("probability", "FP64", [item.count], outcome.probabilities))
    if "probabilities" in call.outputs and outcome.probabilities is not None:
        found.append(_of_classes([_every_class(outcome)]))
    return _asked(call, found)


def _asked(call: InferCall, found: Sequence[OutputTensor]) -> Sequence[OutputTensor]:
    """The outputs that were asked for, as bytes where that was asked for. Raises InvalidInput for one there is not."""
    by_name = {output.name: output for output in found}
    if unknown := [name for name in call.outputs if name not in by_name]:
        raise InvalidInput(
            f"the model has no output {unknown[0]!r}", remedy=f"It has: {', '.join(by_name)}; metadata lists all."
        )
    wanted = call.outputs or dict.fromkeys(by_name)
    return [
        replace(by_name[name], binary=call.all_binary if binary is None else binary) for name, binary in wanted.items()
    ]


def _values(name: str, datatype: str, values: Sequence[Any]) -> OutputTensor:
    if datatype == "BYTES":
        texts = [value if isinstance(value, str) else msgspec.json.encode(value).decode() for value in values]
        return OutputTensor(name, datatype, [len(values)], np.array(texts, dtype=object))
    return OutputTensor(name, datatype, [len(values)], np.array(values, dtype=DTYPES[datatype]))


def _raw(name: str, tensor: NDArray[Any]) -> OutputTensor:
    return OutputTensor(name, datatype_of(tensor), tensor.shape, np.ascontiguousarray(tensor).reshape(-1))


def _prediction_type(bundle: Bundle) -> str:
    if bundle.task == "regression":
        return "FP64"
    if bundle.task != "classification":
        return "BYTES"
    kinds = set(map(type, bundle.classes))
    if kinds == {float}:
        return "FP64"
    return "BOOL" if kinds == {bool} else "INT64" if kinds <= {bool, int} else "BYTES"


def _inputs(bundle: Bundle) -> Sequence[TensorSpec]:
    if bundle.tensors:
        return bundle.tensors
    if not bundle.string_places:
        return [TensorSpec("input", "FP64", (-1, len(bundle.inputs)))]
    texts = set(bundle.string_places)
    return [
        TensorSpec(name, "BYTES" if place in texts else "FP64", (-1, 1)) for place, name in enumerate(bundle.inputs)
    ]


def _output_specs(bundle: Bundle) -> Sequence[TensorSpec]:
    if bundle.tensors:
        return bundle.outputs
    outputs = [TensorSpec("prediction", _prediction_type(bundle), (-1,))]
    if bundle.task == "classification":
        outputs.append(TensorSpec("probability", "FP64", (-1,)))
        outputs.append(TensorSpec("probabilities", "FP64", (-1, len(bundle.classes))))
    return outputs


def _described(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def datatype_of(tensor: NDArray[Any]) -> str:
    """The protocol's name for an array's type."""
    if tensor.dtype.kind in "OUS":
        return "BYTES"
    return next(name for name, dtype in DTYPES.items() if np.dtype(dtype) == tensor.dtype)


def fitting(bundle: Bundle, inputs: Sequence[InputTensor]) -> dict[str, NDArray[Any]]:
    """The tensors a model takes, in its types. Raises InvalidInput."""
    by_name = {tensor.name: tensor for tensor in inputs}
    _check_columns(by_name, [spec.name for spec in bundle.tensors])
    found: dict[str, NDArray[Any]] = {}
    for spec in bundle.tensors:
        array = by_name[spec.name].array
        fits = array.ndim == len(spec.shape) and all(
            wanted < 0 or wanted == size for wanted, size in zip(spec.shape, array.shape, strict=True)
        )
        if not fits:
            raise InvalidInput(
                f"input {spec.name!r} has shape {list(array.shape)}, expected {list(spec.shape)}",
                remedy="-1 stands for any size; the first dimension is the rows.",
            )
        if (spec.datatype == "BYTES") != (by_name[spec.name].datatype == "BYTES"):
            raise InvalidInput(
                f"input {spec.name!r} has datatype {by_name[spec.name].datatype}, expected {spec.datatype}",
                remedy="Send the datatype that the model's metadata gives.",
            )
        found[spec.name] = _cast(spec.name, array, spec.datatype)
    if len({len(array) for array in found.values()}) != 1:
        raise InvalidInput("input tensors differ in rows", remedy="Give all of them the same first dimension.")
    return found


def _cast(name: str, array: NDArray[Any], datatype: str) -> NDArray[Any]:
    """The array as a datatype: floats are rounded to narrower ones. Raises InvalidInput where a value would be lost."""
    dtype = np.dtype(DTYPES[datatype])
    if array.dtype == dtype:
        if datatype == "BYTES" and not {str}.issuperset(map(type, array.flat)):
            raise _no_value(name, datatype)
        return array
    try:
        with np.errstate(invalid="raise", over="raise"):
            found = array.astype(dtype)
    except FloatingPointError:
        raise _no_value(name, datatype) from None
    if dtype.kind != "f" and not np.array_equal(found, array):
        raise _no_value(name, datatype)
    return found


def whole_numbers(values: Sequence[Any], name: str, datatype: str) -> NDArray[Any]:
    """Numbers, nested or not, as an integer datatype or BOOL. Raises InvalidInput, OverflowError for one too large."""
    # keeps integers that no double has, and takes 1.5 for 1
    found: NDArray[Any] = np.array(values, dtype=DTYPES[datatype])
    if not np.array_equal(found, np.array(values, dtype=np.float64)):
        raise _no_value(name, datatype)
    return found


def _no_value(name: str, datatype: str) -> InvalidInput:
    return InvalidInput(
        f"input {name!r} holds a value that {datatype} has not", remedy=f"Send values of {datatype} alone."
    )


def _check_names(inputs: Sequence[InputTensor]) -> None:
    names = [tensor.name for tensor in inputs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"input {twice!r} is sent twice", remedy="Send each input once.")


def _check_columns(given: Mapping[str, InputTensor], wanted: Sequence[str]) -> None:
    missing, unknown = [name for name in wanted if name not in given], sorted(set(given) - set(wanted))
    if missing or unknown:
        raise InvalidInput(
            f"input tensors do not fit the model: missing {missing}, unknown {unknown}",
            remedy=f"Send one for each of {', '.join(wanted)}, or, where all are numbers, one of shape "
            f"[rows, {len(wanted)}].",
        )


def _column(tensor: InputTensor) -> NDArray[np.float64]:
    array = tensor.array
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InvalidInput(
            f"input {tensor.name!r} has shape {list(tensor.array.shape)}, expected [rows] or [rows, 1]",
            remedy="Send a column.",
        )
    return _numbers(InputTensor(tensor.name, tensor.datatype, array))


def _numbers(tensor: InputTensor) -> NDArray[np.float64]:
    if tensor.datatype == "BYTES":
        raise InvalidInput(f"input {tensor.name!r} is BYTES, and the model takes numbers", remedy="Use FP64.")
    return tensor.array.astype(np.float64, copy=False)


def _texts(tensor: InputTensor) -> NDArray[np.object_]:
    if tensor.datatype != "BYTES":
        raise InvalidInput(
            f"input {tensor.name!r} is {tensor.datatype}, and the model takes texts", remedy="Use BYTES."
        )
    return tensor.array.reshape(-1)


def _as_text(parameter: object) -> str:
    return "" if parameter is None else str(parameter)


def _timeout(parameters: Mapping[str, Any], header: float | None) -> float | None:
    """Seconds allowed: by header, or by the protocol's ``timeout`` parameter, in microseconds."""
    micros = parameters.get("timeout")
    if micros is None:
        return header
    if isinstance(micros, bool) or not isinstance(micros, int | float) or not 0 < micros < math.inf:
        raise InvalidInput(f"parameter timeout is {micros!r}", remedy="Send microseconds, such as 500000.")
    return micros * _MICROS if header is None else min(header, micros * _MICROS)
