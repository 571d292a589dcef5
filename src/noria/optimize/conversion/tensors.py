"""PyTorch modules as ONNX graphs of tensors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.optimize.conversion.closeness import NotConverted
from noria.optimize.conversion.graphs import NUMERIC
from noria.optimize.conversion.tensor_rows import OPEN_SIZES, SCALES, Arrays, difference, each_alone, made_up

_ROWS = 8
_CHECKED_ROWS = (1, 3, 8, 33)
_TOLERANCE = 1e-3
_TYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32", "bool": "BOOL", "uint8": "UINT8"}


@dataclass(frozen=True, slots=True)
class _Module:
    """A module, the name, type and shape of each tensor it takes, and two sizes of the axes these leave open."""

    module: Any
    taken: Sequence[tuple[str, str, Sequence[int]]]
    sizes: tuple[int, ...]

    def draw(self, random: np.random.Generator, rows: int, scale: Any, size: int) -> Arrays:
        return {name: made_up(random, kind, shape, rows, size, scale) for name, kind, shape in self.taken}

    def answers(self, given: Arrays) -> list[NDArray[Any]]:
        import torch

        with torch.no_grad():
            found = self.module(*(torch.from_numpy(given[name].copy()) for name, _, _ in self.taken))
        listed = list(found) if isinstance(found, tuple | list) else [found]
        if strange := [type(one).__name__ for one in listed if not isinstance(one, torch.Tensor)]:
            raise NotConverted(f"the module answers {', '.join(strange)}, and only tensors are converted")
        return [one.numpy() for one in listed]


def convert_torch(data: Path, out: Path, columns: list[Any], folder: Path | None = None) -> dict[str, Any]:
    """Write the module as ``out``/model.onnx. ``columns`` has [name, type, shape] of each tensor it takes.

    Checked on fresh random tensors of several sizes and scales, and on the example in the model's ``folder``; raises
    NotConverted when the graph answers differently, or may for others, since tracing kept one of several ways.
    """
    module = _loaded(data, columns)
    random = np.random.default_rng(0)
    given = [module.draw(random, _ROWS, 1.0, size) for size in module.sizes]
    first, *others = [module.answers(one) for one in given]
    shapes = [_open_shape(place, [one[place] for one in (first, *others)]) for place in range(len(first))]
    outputs = [f"output_{place}" for place in range(len(first))] if len(first) > 1 else ["output"]
    taken = {name: [-1, *shape[1:]] for name, _, shape in module.taken}
    _export(module, given[0], out / "model.onnx", taken | dict(zip(outputs, shapes, strict=True)), outputs)
    score = _scorer(out / "model.onnx", outputs)
    examples = [] if folder is None else list(_example(folder, module))
    rows, largest = _checked(module, score, random, examples)

    def draw(drawn: np.random.Generator, count: int, scale: Any) -> Arrays:
        return module.draw(drawn, count, scale, module.sizes[0])

    return {
        "task": "generic",
        "tensors": [[name, _TYPES[kind], taken[name]] for name, kind, _ in module.taken],
        "outputs": [[n, _TYPES[a.dtype.name], shape] for n, a, shape in zip(outputs, first, shapes, strict=True)],
        "rows_checked": rows,
        "labels_flipped": 0,
        "largest_difference": largest,
        "algorithm": type(module.module).__name__,
        "way": "torch",
        "rows_alone": each_alone(score, draw),
    }


def convert_torch_of_columns(data: Path, out: Path, columns: list[Any], folder: Path | None = None) -> dict[str, Any]:
    """The same for a module that takes a frame's columns, in order, as one matrix of float32.

    It predicts a value when it has one output a row, else whatever it answers. Raises ValueError for columns of texts.
    """
    if any(kind not in NUMERIC for _, kind in columns) or not columns:
        raise ValueError("a module takes numbers: log it with a signature of tensors or of columns of numbers")
    found = convert_torch(data, out, [["numbers", "float32", [-1, len(columns)]]], folder)
    (_, _, shape), *others = found["outputs"]
    if others:
        raise ValueError("a module of columns has one output: log it with a signature of tensors")
    if not found["rows_alone"]:
        raise NotConverted("what the module answers to a row depends on the rows beside it")
    one_value = shape in ([-1], [-1, 1])
    del found["tensors"], found["outputs"], found["rows_alone"]
    return found | {
        "task": "regression" if one_value else "generic",
        "columns": columns,
        "classes": [],
        "numbers": "numbers",
        "strings": "",
        "score": "output",
        "dtype": "float32",
        "example": [0.0] * len(columns),
    }


def _loaded(data: Path, columns: list[Any]) -> _Module:
    """The module, and sizes of open axes that it takes. Raises NotConverted."""
    import torch

    if not (data / "model.pth").is_file():
        kept = ", ".join(sorted(one.name for one in data.iterdir())) if data.is_dir() else "nothing"
        raise NotConverted(f"the module is kept as {kept}: only those logged as pickles (model.pth) are converted")
    names = [name or ("input" if len(columns) == 1 else f"input_{place}") for place, (name, _, _) in enumerate(columns)]
    taken = [(name, kind, shape) for name, (_, kind, shape) in zip(names, columns, strict=True)]
    for name, kind, _ in taken:
        _check_type(f"input {name!r}", kind)
    module = torch.load(data / "model.pth", map_location="cpu", weights_only=False)
    module.eval()
    has_open = any(size < 0 for _, _, shape in taken for size in shape[1:])
    failure = ""
    for sizes in OPEN_SIZES if has_open else ((1,),):
        found = _Module(module, taken, sizes)
        try:
            answers = [found.answers(found.draw(np.random.default_rng(0), _ROWS, 1.0, size)) for size in sizes]
        except NotConverted:
            raise
        except Exception as error:  # the model's own code
            failure = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            continue
        for place, answer in enumerate(answers[0]):
            _check_type(f"output {place}", answer.dtype.name)
            if answer.shape[:1] != (_ROWS,):
                raise NotConverted(f"output {place} of the module has shape {list(answer.shape)} for {_ROWS} rows")
        return found
    raise NotConverted(f"the module fails at made-up tensors of its signature: {failure}")


def _check_type(what: str, kind: str) -> None:
    if kind not in _TYPES:
        raise NotConverted(f"{what} of the module is {kind}, and only {', '.join(_TYPES)} are converted")


def _open_shape(place: int, answers: Sequence[NDArray[Any]]) -> list[int]:
    """An output's shape, -1 where it follows the rows or an open axis. Raises NotConverted for a varying rank."""
    if len({one.ndim for one in answers}) > 1:
        raise NotConverted(f"output {place} of the module has {' or '.join(str(one.ndim) for one in answers)} axes")
    sizes = [{one.shape[axis] for one in answers} for axis in range(1, answers[0].ndim)]
    return [-1, *(one.pop() if len(one) == 1 else -1 for one in sizes)]


def _export(
    module: _Module, given: Arrays, file: Path, shapes: Mapping[str, list[int]], outputs: Sequence[str]
) -> None:
    """Trace the module. Raises NotConverted when tracing says that it kept what depends on these very tensors."""
    import torch

    axes = {
        name: {axis: "rows" if not axis else f"{name}_{axis}" for axis, size in enumerate(shape) if size < 0}
        for name, shape in shapes.items()
    }
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", torch.jit.TracerWarning)
        torch.jit.TracerWarning.ignore_lib_warnings()  # PyTorch's own code knows what it does
        torch.onnx.export(
            module.module,
            tuple(torch.from_numpy(given[name].copy()) for name, _, _ in module.taken),
            str(file),
            input_names=[name for name, _, _ in module.taken],
            output_names=list(outputs),
            dynamic_axes=axes,
            dynamo=False,
            opset_version=17,
        )
    if traced := [one for one in told if issubclass(one.category, torch.jit.TracerWarning)]:
        raise NotConverted(
            f"the module's code depends on the values or the number of its rows (line {traced[0].lineno} of "
            f"{Path(traced[0].filename).name}): {str(traced[0].message).splitlines()[0][:200]}"
        )


def _scorer(file: Path, outputs: Sequence[str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, and said in our words
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(list(outputs), dict(given))


def _checked(module: _Module, score: Any, random: np.random.Generator, examples: Sequence[Arrays]) -> tuple[int, float]:
    """How many rows were compared, and how far apart graph and module are. Raises NotConverted when too far."""
    rows, largest = 0, 0.0
    for given in (*_fresh(module, random), *examples):
        try:
            expected = module.answers(given)
        except Exception:  # the module refuses these, as ids beyond its table
            continue
        said = {name: list(one.shape) for name, one in given.items()}
        try:
            found = score(given)
        except Exception as error:  # the runtime's own errors have no public class
            raise NotConverted(f"the graph fails at tensors of shape {said}: {str(error).splitlines()[0]}") from None
        apart = max(difference(one, other) for one, other in zip(expected, found, strict=True))
        if not apart <= _TOLERANCE:
            raise NotConverted(f"the graph differs from the module by {apart:.2g} at tensors of shape {said}")
        rows, largest = rows + len(expected[0]), max(largest, apart)
    if not rows:
        raise NotConverted("the module refuses all made-up tensors: no graph of it can be checked")
    return rows, largest


def _fresh(module: _Module, random: np.random.Generator) -> Iterator[Arrays]:
    """Tensors that the module was not traced with."""
    first, *others = module.sizes
    for scale in SCALES:
        for rows in _CHECKED_ROWS:
            yield module.draw(random, rows, scale, first)
        for size in others:
            yield module.draw(random, 3, scale, size)


def _example(folder: Path, module: _Module) -> Iterator[Arrays]:
    """The example that was logged with the model, if there is one that fits."""
    try:
        document = json.loads((folder / "input_example.json").read_text())
        if isinstance(document, dict):
            document = document.get("inputs", document.get("data", document))
        named = document if isinstance(document, dict) else {module.taken[0][0]: document}
        found = {name: np.array(named[name], dtype=kind) for name, kind, _ in module.taken}
    except Exception:
        return  # an example only helps
    if all(found[name].ndim == len(shape) for name, _, shape in module.taken):
        yield found
