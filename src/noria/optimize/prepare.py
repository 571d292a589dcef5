"""Preparation: from the model a client logged, in any of MLflow's flavors, to the folder a gateway serves.

What can be an ONNX graph becomes one, checked against the model on labels and probabilities; a booster whose graph
differs keeps its own runtime; all else is served by a process with the model's own environment. Loading a model runs
code that came with it: that happens in a process of its own, once, when somebody deploys it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import yaml

from noria.errors import CorruptArtifact, InvalidData
from noria.optimize.bundle import (
    BUNDLE_FILE,
    DTYPES,
    GRAPH,
    ONNX_FILE,
    Bundle,
    Kind,
    Task,
    TensorSpec,
    read_bundle,
    write_bundle,
)
from noria.optimize.environments import environment_for, fits_here, python_of, requirements_of
from noria.optimize.logged_graphs import take_graph
from noria.optimize.onnx import ParityBroken, check_parity

REVISION = 3
"""Of the way in which models are prepared: raised when what is prepared answers otherwise, or faster, than before."""
MLMODEL_FILE = "MLmodel"
MODEL_FOLDER = "model"
_CONVERTIBLE: Mapping[str, Sequence[str]] = {
    "lightgbm": ("lightgbm",),
    "xgboost": ("xgboost",),
    "sklearn": ("scikit-learn",),
    "pytorch": ("torch",),
}
"""Flavors that converters know, and the packages it takes to load them."""
_CONVERTERS = (
    "skl2onnx",
    "onnxmltools",
    "onnxruntime",
    "onnx",
    "protobuf<7",
    "numpy",
    "pandas",
    "cloudpickle",
    "joblib",
)
_CONVERSION_SECONDS = 900
_PACKAGE = Path(__file__).parents[1]

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Logged:
    """An MLflow model: its folder, and what its MLmodel says.

    ``one_value``: that the signature was read off the type hints of a predict, which takes a list of values.
    """

    folder: Path
    flavors: Mapping[str, Any]
    signature: Mapping[str, Any]
    one_value: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a version is served from: its runtime, and what there is to say about how it came about."""

    bundle: Bundle
    notes: Sequence[str]


def prepare(folder: Path, out: Path, progress: Progress = lambda _: None) -> Prepared:
    """Make of the model in ``folder`` one to serve, in ``out``, which is empty.

    Raises CorruptArtifact for a folder that is no MLflow model, InvalidData for one that nothing here can serve.
    """
    if (folder / BUNDLE_FILE).is_file():
        shutil.copytree(folder, out, dirs_exist_ok=True)
        return Prepared(read_bundle(out), ["as it was registered"])
    logged = _read(folder)
    flavors, signature = logged.flavors, logged.signature
    columns, tensors, optional = _columns(signature), _tensors(signature), _optional(signature)
    notes: list[str] = []
    known: Mapping[str, Any] = {}
    if "onnx" in flavors:
        return _graph(folder, out, flavors["onnx"], [] if tensors else [name for name, _ in columns])
    if convertible := [name for name in _CONVERTIBLE if name in flavors]:
        progress("convert")
        taken = [(name, "double") for name, _ in columns] if tensors else columns
        spec = {"folder": str(folder), "out": str(out), "flavors": flavors, "columns": taken, "tensors": tensors}
        packages = [package for name in convertible for package in _packages_of(name, flavors[name])]
        result = _converted(folder, out, spec, packages) | {"optional": optional}
        notes, known = list(result.get("failures", [])), result.get("known", {})
        if not notes:
            try:
                return _from_result(out, result)
            except ParityBroken as error:
                notes.append(error.message)
                if "native" in result:
                    return _booster(out, result, notes)
    if "python_function" not in flavors:
        raise InvalidData(
            f"a model of the flavors {', '.join(sorted(flavors)) or '(none)'} cannot be served",
            details=notes,
            remedy="Log it with a python_function flavor, as all of MLflow's log_model functions do.",
        )
    return _pyfunc(logged, out, known, notes, progress)


def _read(folder: Path) -> _Logged:
    try:
        document: Any = yaml.safe_load((folder / MLMODEL_FILE).read_text())
        return _Logged(
            folder,
            dict(document.get("flavors") or {}),
            document.get("signature") or {},
            document.get("is_signature_from_type_hint") is True,
        )
    except (OSError, yaml.YAMLError, AttributeError, UnicodeDecodeError) as error:
        raise CorruptArtifact(
            f"{folder.name!r} is no MLflow model: its {MLMODEL_FILE} cannot be read: {error}",
            remedy="Register what log_model saved.",
        ) from None


def _columns(signature: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and kind of every column, also of one matrix; empty for other tensors, and without a signature."""
    found: list[tuple[str, str]] = []
    for place, entry in enumerate(_entries(signature, "inputs")):
        if entry.get("type") == "tensor":
            shape, kind = entry["tensor-spec"]["shape"], _KINDS.get(entry["tensor-spec"]["dtype"])
            is_matrix = not entry.get("name") and len(shape) == 2 and shape[1] > 0 and kind is not None
            return [(f"x{number}", str(kind)) for number in range(shape[1])] if is_matrix else []
        found.append((str(entry.get("name", f"x{place}")), str(entry.get("type", "double"))))
    return found


def _optional(signature: Mapping[str, Any]) -> list[str]:
    """The columns that may be left out."""
    entries = zip(_columns(signature), _entries(signature, "inputs"), strict=False)
    return [name for (name, _), entry in entries if entry.get("required") is False]


def _tensors(signature: Mapping[str, Any], part: str = "inputs") -> list[list[Any]]:
    """Name, numpy type and shape of every tensor."""
    entries = [entry for entry in _entries(signature, part) if "tensor-spec" in entry]
    return [[one.get("name", ""), one["tensor-spec"]["dtype"], one["tensor-spec"]["shape"]] for one in entries]


def _entries(signature: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
    listed = signature.get(part)
    return json.loads(listed) if isinstance(listed, str) else list(listed or [])


def _packages_of(name: str, flavor: Mapping[str, Any]) -> list[str]:
    """The packages it takes to load a model of a flavor."""
    return [*_CONVERTIBLE[name], *(["skops"] if flavor.get("serialization_format") == "skops" else [])]


def _converted(folder: Path, out: Path, spec: Mapping[str, Any], packages: Sequence[str]) -> dict[str, Any]:
    """What the conversion made, run with the packages the model was made with."""
    requirements = requirements_of(folder)
    if fits_here(requirements, packages):
        interpreter = Path(sys.executable)
    else:
        needed = [line for line in requirements if not line.lower().startswith("mlflow")]
        interpreter = environment_for([*needed, *packages, *_CONVERTERS], python_of(folder))
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "noria").symlink_to(_PACKAGE)  # ours alone: the environment's packages are its own
        spec_file = Path(scratch) / "spec.json"
        spec_file.write_text(json.dumps(spec))
        done = subprocess.run(
            [interpreter, "-m", "noria.optimize.conversion.run", spec_file],
            env={**os.environ, "PYTHONPATH": scratch},
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CONVERSION_SECONDS,
        )
    result = out / "result.json"
    if not result.is_file():
        return {"failures": [f"the conversion ended without a result: {done.stderr.strip()[-500:]}"]}
    found: dict[str, Any] = json.loads(result.read_text())
    result.unlink()
    return found


def _from_result(out: Path, result: dict[str, Any]) -> Prepared:
    """The bundle of a graph, when it is close enough to its model. Raises ParityBroken."""
    task = cast(Task, result["task"])
    difference, flipped, rows = result["largest_difference"], result["labels_flipped"], result["rows_checked"]
    check_parity(task, rows, flipped, difference)
    options: dict[str, Any] = {"algorithm": result["algorithm"]}
    native = result.get("native")
    if native and native["from_rows"]:
        options["native"] = {name: native[name] for name in ("kind", "file", "from_rows")}
    elif native:
        (out / native["file"]).unlink()
    if "tensors" in result:
        taken, given = _specs(result["tensors"]), _specs(result["outputs"])
        bundle = Bundle(task, tensors=taken, outputs=given, options=options, rows_alone=result.get("rows_alone", False))
    else:
        bundle = _column_bundle(result, options=options, onnx_input=result["numbers"], onnx_score=result["score"],
                                onnx_strings=result["strings"], input_dtype=result["dtype"],
                                null_text=result.get("null_text", "None"))  # fmt: skip
    write_bundle(out, bundle)
    notes = [f"ONNX graph ({result['way']}): {rows} rows checked, {flipped} labels flipped, "
             f"largest difference {difference:.2g}"]  # fmt: skip
    if native and native["from_rows"]:
        notes.append(f"{native['kind']}'s own runtime from {native['from_rows']} rows on, where it is faster")
    return Prepared(bundle, notes)


def _booster(out: Path, result: dict[str, Any], notes: Sequence[str]) -> Prepared:
    """A booster served by its own library."""
    native = result["native"]
    (out / ONNX_FILE).unlink()
    bundle = _column_bundle(
        result, runtime=native["kind"], options={"algorithm": result["algorithm"], "file": native["file"]}
    )
    write_bundle(out, bundle)
    return Prepared(bundle, [*notes, f"served by {native['kind']} itself"])


def _column_bundle(result: Mapping[str, Any], **more: Any) -> Bundle:
    kinds = {name: cast(Kind, kind) for name, kind in result["columns"] if kind != "double"}
    return Bundle(
        cast(Task, result["task"]),
        tuple(name for name, _ in result["columns"]),
        kinds=kinds,
        classes=tuple(result["classes"]) or (0, 1),
        decision_threshold=result.get("threshold", 0.5),
        optional=tuple(result["optional"]),
        example=tuple(result["example"]),
        predicts_scores=result.get("predicts_scores", False),
        **more,
    )


def _graph(folder: Path, out: Path, flavor: Mapping[str, Any], columns: Sequence[str]) -> Prepared:
    """A model that is a graph already, of whose only matrix the signature may name ``columns``.

    Raises InvalidData for one that cannot be served.
    """
    graph = take_graph(folder / flavor["data"], out)
    options: dict[str, Any] = {"algorithm": GRAPH}
    if columns and [spec.shape[1:] in ((len(columns),), (-1,)) for spec in graph.taken] == [True]:
        options["columns"] = columns
    bundle = Bundle("generic", tensors=graph.taken, outputs=graph.given, options=options, rows_alone=graph.rows_alone)
    write_bundle(out, bundle)
    return Prepared(bundle, ["the graph as it was logged", *graph.notes])


def _pyfunc(logged: _Logged, out: Path, known: Mapping[str, Any], notes: Sequence[str], progress: Progress) -> Prepared:
    """The model as it is, for a process with its own environment. Raises InvalidData where nobody knows what it takes.

    ``known`` is what the conversion found out: task and classes, and columns for want of a signature.
    """
    signature = logged.signature
    columns = _columns(signature) or ([] if _entries(signature, "inputs") else known.get("columns", []))
    if not columns and not _tensors(signature):
        raise _no_inputs(notes)
    _check_kinds(columns)
    progress("environment")
    interpreter_of(logged.folder)
    kinds = {name: cast(Kind, kind) for name, kind in columns if kind != "double"}
    params = {entry["name"]: entry.get("default") for entry in _entries(signature, "params")}
    bundle = Bundle(
        cast(Task, known.get("task", "generic") if columns and not params else "generic"),
        tuple(name for name, _ in columns),
        kinds=kinds,
        classes=tuple(known.get("classes", ())) or (0, 1),
        predicts_scores=known.get("predicts_scores", False),
        tensors=() if columns else _tensors_taken(signature),
        outputs=() if columns else _tensors_given(signature),
        optional=tuple(_optional(signature)),
        one_value=logged.one_value and len(columns) == 1,
        runtime="pyfunc",
        options={"algorithm": "python_function", "params": params, "categorical": known.get("categorical", [])},
    )
    write_bundle(out, bundle)
    shutil.copytree(logged.folder, out / MODEL_FOLDER)
    (out / ONNX_FILE).unlink(missing_ok=True)  # a graph that differs
    return Prepared(bundle, [*notes, "served by a process with the model's own environment"])


def _check_kinds(columns: Sequence[tuple[str, str]]) -> None:
    """Raises InvalidData for a column of values that no request holds, such as Spark's vectors."""
    known = get_args(Kind)
    if strange := [f"{name} ({kind})" for name, kind in columns if kind not in known]:
        raise InvalidData(
            f"no request holds values of the columns that this model takes: {', '.join(strange)}",
            remedy=f"Log it with a signature of {', '.join(known)}.",
        )


def _no_inputs(notes: Sequence[str]) -> InvalidData:
    return InvalidData(
        "nobody knows what the model takes: it was logged without a signature",
        details=notes,
        remedy="Log it with `signature=` (mlflow.models.infer_signature makes one) or with `input_example=`.",
    )


def interpreter_of(folder: Path) -> Path:
    """The interpreter that runs an MLflow model: of its own environment, made when it is missing."""
    requirements = requirements_of(folder)
    if fits_here(requirements, ["mlflow"]) and all(map(_is_here, requirements)):
        return Path(sys.executable)
    return environment_for(environment_requirements(folder), python_of(folder))


def environment_requirements(folder: Path) -> list[str]:
    """What an MLflow model's own environment holds: the packages it says it needs, and MLflow."""
    requirements = requirements_of(folder)
    has_mlflow = any(line.lower().startswith("mlflow") for line in requirements)
    return [*requirements, *([] if has_mlflow else ["mlflow"])]


def _is_here(requirement: str) -> bool:
    name = requirement.split("=")[0].split("[")[0].split("<")[0].split(">")[0].strip()
    return fits_here([requirement], [name])


def _specs(listed: Sequence[Sequence[Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, datatype, tuple(shape)) for name, datatype, shape in listed)


def _tensors_taken(signature: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """The signature's tensors as the Open Inference Protocol has them. Raises InvalidData for one it cannot hold."""
    listed = _tensors(signature)
    for name, dtype, shape in listed:
        if dtype not in _DATATYPES or not shape:
            raise InvalidData(
                f"a tensor {name!r} of type {dtype} and shape {shape} cannot be sent",
                remedy=f"Log a signature of tensors with an axis for the rows, of {', '.join(_DATATYPES)}.",
            )
    return _specs([[name or "input", _DATATYPES[dtype], shape] for name, dtype, shape in listed])


def _tensors_given(signature: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """What the signature says that it answers; nothing of what the protocol cannot describe."""
    listed = [one for one in _tensors(signature, "outputs") if one[1] in _DATATYPES]
    return _specs([[name or "output", _DATATYPES[dtype], shape] for name, dtype, shape in listed])


_KINDS: Mapping[str, Kind] = {
    "float64": "double",
    "float32": "float",
    "int64": "long",
    "int32": "integer",
    "bool": "boolean",
}
"""Kinds of columns by the numpy type of a matrix of them."""
_DATATYPES: Mapping[str, str] = {
    **{np.dtype(kind).name: name for name, kind in DTYPES.items()},
    "str": "BYTES",
}
"""The Open Inference Protocol's datatypes by numpy's."""
