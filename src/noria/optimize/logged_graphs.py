"""Graphs as a client logged them: with their weights in one file, without what cannot be served, and tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from noria.errors import InvalidData
from noria.optimize.bundle import DTYPES, ONNX_FILE, TensorSpec
from noria.optimize.conversion.converter_gaps import lower_anywhere
from noria.optimize.conversion.tensor_rows import OPEN_SIZES, Arrays, each_alone, made_up

_TRIED_ROWS = 5
_MOST_BYTES_INLINE = 2**31 - 2**20
"""A protobuf holds no more: larger weights stay in a file beside the graph."""
_DATA_FILE = "model.onnx.data"
_TYPES: Mapping[str, str] = {
    "tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(float16)": "FP16", "tensor(int64)": "INT64",
    "tensor(int32)": "INT32", "tensor(int16)": "INT16", "tensor(int8)": "INT8", "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16", "tensor(uint32)": "UINT32", "tensor(uint64)": "UINT64", "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoggedGraph:
    """What a graph takes and gives; ``rows_alone`` says that it was found to score each row by itself."""

    taken: tuple[TensorSpec, ...]
    given: tuple[TensorSpec, ...]
    rows_alone: bool
    notes: Sequence[str]


def take_graph(logged: Path, out: Path) -> LoggedGraph:
    """Write the graph in ``logged`` as ``out``/model.onnx. Raises InvalidData that names what cannot be served."""
    import onnxruntime

    model = _read(logged)
    scalars = _scalars(model)
    unzipped = _without_zipmaps(model)
    lower_anywhere(model)
    _write(model, out)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised, and said in our words
        session = onnxruntime.InferenceSession(str(out / ONNX_FILE), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own errors have no public class
        raise _refused(f"ONNX Runtime cannot load it: {_reason(error)}") from None
    if not session.get_inputs():
        raise _refused("it takes no input")
    taken, given = (
        tuple(_spec(what, one, scalars) for one in ends)
        for what, ends in (("input", session.get_inputs()), ("output", session.get_outputs()))
    )
    alone = _tried(session, taken)
    notes = [] if alone else ["requests are scored one by one: its rows were not found to be independent of each other"]
    more = [f"{', '.join(unzipped)}: the probabilities as a tensor instead of a map a row"] if unzipped else []
    return LoggedGraph(taken, given, alone, [*more, *notes])


def _read(logged: Path) -> Any:
    """The graph with all its weights, also those that MLflow put into files beside it."""
    import onnx

    try:
        return onnx.load(str(logged))
    except Exception as error:  # protobuf's, onnx's and the file system's
        raise InvalidData(
            f"the graph {logged.name!r} cannot be read: {_reason(error)}",
            remedy="Log it again, with the files of its external data beside it.",
        ) from None


def _write(model: Any, out: Path) -> None:
    import onnx

    if model.ByteSize() < _MOST_BYTES_INLINE:
        (out / ONNX_FILE).write_bytes(model.SerializeToString())
    else:
        onnx.save_model(model, str(out / ONNX_FILE), save_as_external_data=True, location=_DATA_FILE)


def _scalars(model: Any) -> set[str]:
    """The inputs and outputs that are said to have no axis at all, rather than any."""
    ends = [*model.graph.input, *model.graph.output]
    tensors = [one for one in ends if one.type.HasField("tensor_type") and one.type.tensor_type.HasField("shape")]
    return {one.name for one in tensors if not one.type.tensor_type.shape.dim}


def _without_zipmaps(model: Any) -> list[str]:
    """Have the graph answer probabilities as a tensor, where skl2onnx made a map a row of them; the outputs' names."""
    from onnx import TensorProto, helper

    outputs = {one.name: one for one in model.graph.output}
    changed = []
    for node in model.graph.node:
        if node.op_type != "ZipMap" or node.output[0] not in outputs:
            continue
        labels = next(list(one.ints) or list(one.strings) for one in node.attribute)
        name = node.output[0]
        outputs[name].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", len(labels)]))
        node.CopyFrom(helper.make_node("Identity", list(node.input), [name], name=node.name))
        changed.append(name)
    return changed


def _spec(what: str, end: Any, scalars: set[str]) -> TensorSpec:
    """What the Open Inference Protocol says of an input or output. Raises InvalidData for what it cannot hold."""
    if end.type not in _TYPES:
        raise _refused(f"its {what} {end.name!r} is {end.type}, which cannot be sent")
    if end.name in scalars:
        raise _refused(f"its {what} {end.name!r} is one number, without an axis for the rows")
    shape = tuple(size if isinstance(size, int) and size > 0 else -1 for size in end.shape)
    return TensorSpec(end.name, _TYPES[end.type], shape or (-1,))


def _tried(session: Any, taken: Sequence[TensorSpec]) -> bool:
    """Whether each row is scored by itself. Raises InvalidData for outputs that have no entry a row.

    Where made-up tensors are refused nothing is proven.
    """
    fixed = {spec.shape[0] for spec in taken} - {-1}
    rows = next(iter(fixed)) if fixed else _TRIED_ROWS
    for sizes in OPEN_SIZES:

        def draw(random: np.random.Generator, count: int, scale: Any, size: int = sizes[0]) -> Arrays:
            return {one.name: made_up(random, _kind(one), one.shape, count, size, scale) for one in taken}

        try:
            found = session.run(None, draw(np.random.default_rng(0), rows, 1.0))
        except Exception:  # the runtime's own errors have no public class
            continue
        if len(fixed) < 2:
            _check_rows(session, found, rows)
        return not fixed and each_alone(lambda given: session.run(None, dict(given)), draw)
    return False


def _kind(spec: TensorSpec) -> str:
    return np.dtype(DTYPES[spec.datatype]).name


def _check_rows(session: Any, found: Sequence[Any], rows: int) -> None:
    for end, answer in zip(session.get_outputs(), found, strict=True):
        if np.ndim(answer) == 0 or len(answer) != rows:
            raise _refused(f"its output {end.name!r} has shape {list(np.shape(answer))} for {rows} rows")


def _refused(why: str) -> InvalidData:
    return InvalidData(
        f"the graph cannot be served: {why}",
        remedy="Log a graph of tensors whose first axis is the rows, each output with an entry a row, "
        f"of the types {', '.join(_TYPES.values())}.",
    )


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
