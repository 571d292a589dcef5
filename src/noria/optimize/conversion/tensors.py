"""PyTorch modules as ONNX graphs of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_ROWS = 8
_TOLERANCE = 1e-3
_TYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32", "bool": "BOOL", "uint8": "UINT8"}


def convert_torch(data: Path, out: Path, columns: list[Any]) -> dict[str, Any]:
    """Write the module as ``out``/model.onnx. ``columns`` has [name, type, shape] of each tensor it takes.

    Checked on random tensors; raises ValueError when the graph answers differently.
    """
    import torch

    module = torch.load(data / "model.pth", map_location="cpu", weights_only=False)
    module.eval()
    random = np.random.default_rng(0)
    given = [_tensor(random, kind, shape) for _, kind, shape in columns]
    names = [name or f"input_{place}" for place, (name, _, _) in enumerate(columns)]
    with torch.no_grad():
        expected = _listed(module(*map(torch.from_numpy, given)))
    outputs = [f"output_{place}" for place in range(len(expected))] if len(expected) > 1 else ["output"]
    torch.onnx.export(
        module,
        tuple(map(torch.from_numpy, given)),
        str(out / "model.onnx"),
        input_names=names,
        output_names=outputs,
        dynamic_axes={name: {0: "rows"} for name in [*names, *outputs]},
        dynamo=False,
        opset_version=17,
    )
    import onnxruntime

    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    answers = session.run(outputs, dict(zip(names, given, strict=True)))
    pairs = list(zip(answers, (one.numpy() for one in expected), strict=True))
    difference = max(float(np.max(np.abs(answer - one))) for answer, one in pairs)
    scale = max(float(np.max(np.abs(one), initial=1.0)) for _, one in pairs)
    if difference > _TOLERANCE * scale:
        raise ValueError(f"the graph differs from the module by {difference:.2g}")
    return {
        "task": "generic",
        "tensors": [[n, _TYPES[str(t.dtype)], [-1, *t.shape[1:]]] for n, t in zip(names, given, strict=True)],
        "outputs": [[n, _TYPES[str(a.dtype)], [-1, *a.shape[1:]]] for n, a in zip(outputs, answers, strict=True)],
        "rows_checked": _ROWS,
        "labels_flipped": 0,
        "largest_difference": difference / scale,
        "algorithm": type(module).__name__,
        "way": "torch",
    }


def convert_torch_of_columns(data: Path, out: Path, columns: list[Any]) -> dict[str, Any]:
    """The same for a module that takes a frame's columns, in order, as one matrix of float32.

    It predicts a value when it has one output a row, else whatever it answers. Raises ValueError for columns of texts.
    """
    if any(kind in ("string", "datetime") for _, kind in columns) or not columns:
        raise ValueError("a module takes numbers: log it with a signature of tensors or of columns of numbers")
    found = convert_torch(data, out, [["numbers", "float32", [-1, len(columns)]]])
    (_, _, shape), *others = found["outputs"]
    if others:
        raise ValueError("a module of columns has one output: log it with a signature of tensors")
    one_value = shape in ([-1], [-1, 1])
    del found["tensors"], found["outputs"]
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


def _tensor(random: np.random.Generator, kind: str, shape: list[int]) -> Any:
    sizes = [_ROWS, *(size if size > 0 else 4 for size in shape[1:])]
    values = random.integers(0, 10, sizes) if "int" in kind else random.normal(size=sizes)
    return values.astype(kind)


def _listed(found: Any) -> list[Any]:
    return list(found) if isinstance(found, tuple | list) else [found]
