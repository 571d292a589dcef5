"""The other end of a model process: loads what it is told to, and answers. Imports nothing of Noria.

Frames are two lengths, a JSON header and raw arrays; answers are JSON. What the model prints goes to standard error.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, ValuesView
from typing import Any

_HEAD = struct.Struct("<II")


def main() -> None:
    """Load, say that it is done, and answer until the socket closes."""
    kind, target, descriptor = sys.argv[1:4]
    link = socket.socket(fileno=int(descriptor))
    threading.Thread(target=_end_with, args=(link.fileno(),), daemon=True).start()
    try:
        model = _Pyfunc(target) if kind == "pyfunc" else _Transformer(target)
    except Exception as error:
        _send(link, {"error": f"{type(error).__name__}: {error}"})
        raise
    _send(link, {"ready": True})
    while (frame := _receive(link)) is not None:
        header, arrays = frame
        try:
            answer = {"result": model.answer(header, arrays)}
        except (Exception, SystemExit) as error:  # the model's own code runs here
            answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
        _send(link, answer)


def _end_with(descriptor: int) -> None:
    """End this process, whatever it is doing, when the one that started it is gone."""
    poll = select.poll()
    poll.register(descriptor, 0)  # hanging up is told of unasked
    poll.poll()
    os._exit(0)


class _Pyfunc:
    """Any MLflow model, through its python_function flavor; one of classes also through its own functions."""

    def __init__(self, folder: str) -> None:
        import mlflow

        self._model = mlflow.pyfunc.load_model(folder)
        self._raw = _raw(self._model)

    def answer(self, header: dict[str, Any], arrays: dict[str, Any]) -> Any:
        if header["verb"] == "tensors":
            return _outputs(self._predict(self._tensors(arrays), header.get("params")))
        if header.get("one_value"):
            return _plain(self._predict(_values(arrays, header["kinds"]), header.get("params")))
        rows, categorical = self._fitted(_frame(arrays, header["kinds"])), header.get("categorical")
        if categorical:
            rows = rows.assign(**{name: _category(rows[name]) for name in categorical})
        if header["verb"] == "classes":
            return _plain(self._classified(rows, categorical))
        return _plain(self._natively(rows) if categorical else self._predict(rows, header.get("params")))

    def _predict(self, rows: Any, params: dict[str, Any] | None) -> Any:
        return self._model.predict(rows, params=params) if params else self._model.predict(rows)

    def _classified(self, rows: Any, categorical: Any) -> dict[str, Any]:
        """The places of the labels among the classes, and the probability of every class."""
        import numpy as np

        if not hasattr(self._raw, "predict_proba"):  # a booster's own: the probability of the second of two
            found = self._natively(rows) if categorical else self._predict(rows, None)
            second = np.asarray(found, dtype=np.float64).reshape(-1)
            return {"places": second > 0.5, "probabilities": np.stack([1 - second, second], axis=1)}
        places = {label: place for place, label in enumerate(np.asarray(self._raw.classes_).tolist())}
        labels = np.asarray(self._raw.predict(rows)).reshape(-1).tolist()
        return {"places": [places[label] for label in labels], "probabilities": self._raw.predict_proba(rows)}

    def _natively(self, rows: Any) -> Any:
        """What a booster says of categories, which MLflow refuses."""
        if hasattr(self._raw, "get_booster") or not type(self._raw).__module__.startswith("xgboost"):
            return self._raw.predict(rows)
        import xgboost

        return self._raw.predict(xgboost.DMatrix(rows, enable_categorical=True))

    def _fitted(self, rows: Any) -> Any:
        """The rows as the model was fitted: as a matrix, or by their places, where it knows no names."""
        schema = self._model.metadata.get_input_schema()
        if schema is not None and schema.is_tensor_spec():
            return rows.to_numpy(dtype=schema.inputs[0].type)
        if schema is None and self._raw is not None and not _knows_names(self._raw):
            return rows.to_numpy()
        if schema is not None and not schema.has_input_names():
            return rows.set_axis(range(rows.shape[1]), axis=1)
        return rows

    def _tensors(self, arrays: dict[str, Any]) -> Any:
        """In the types of the model's signature: by name if that names them, else the only one."""
        schema = self._model.metadata.get_input_schema()
        if not schema.has_input_names():
            ((_, array),) = arrays.items()
            return array.astype(schema.inputs[0].type, copy=False)
        return {spec.name: arrays[spec.name].astype(spec.type, copy=False) for spec in schema.inputs}


def _raw(model: Any) -> Any:
    """The estimator or booster within a model of these flavors, else None."""
    held = getattr(getattr(model, "_model_impl", None), "__dict__", {})
    return next((held[name] for name in ("sklearn_model", "xgb_model", "lgb_model") if name in held), None)


def _knows_names(raw: Any) -> bool:
    """Whether an estimator or booster knows its columns by name."""
    if getattr(raw, "feature_names_in_", None) is not None:
        return True
    return bool(getattr(raw, "feature_names", None)) or hasattr(raw, "feature_name")


class _Transformer:
    """A file with ``preprocess(columns)``, ``postprocess(answers, columns)``, or both."""

    def __init__(self, path: str) -> None:
        spec = importlib.util.spec_from_file_location("transformer", path)
        assert spec is not None and spec.loader is not None
        self._module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, os.path.dirname(path))  # noqa: PTH120  files beside it may be imported
        spec.loader.exec_module(self._module)

    def answer(self, header: dict[str, Any], arrays: dict[str, Any]) -> Any:
        columns = {name: array.tolist() for name, array in arrays.items()}
        if header["verb"] == "describe":
            told = {name: getattr(self._module, name, None) for name in ("columns", "example")}
            return {**told, "verbs": [verb for verb in ("preprocess", "postprocess") if hasattr(self._module, verb)]}
        if header["verb"] == "preprocess":
            found = self._module.preprocess(columns)
            if not hasattr(found, "items"):
                raise TypeError(f"preprocess returns {type(found).__name__} instead of a dict of columns by name")
            return {name: _plain(column) for name, column in found.items()}
        return _plain(self._module.postprocess(header["answers"], columns))


def _frame(arrays: dict[str, Any], kinds: dict[str, str]) -> Any:
    """A pandas frame in the types of the model's signature."""
    import pandas as pd

    return pd.DataFrame({name: _column(array, kinds.get(name, "double")) for name, array in arrays.items()})


def _values(arrays: dict[str, Any], kinds: dict[str, str]) -> Any:
    """The values of the only column as a request has them: MLflow makes of them what the model's type hints say."""
    ((name, array),) = arrays.items()
    kind = kinds.get(name, "double")
    return array.tolist() if kind in ("string", "datetime", "binary") else _column(array, kind).tolist()


def _category(column: Any) -> Any:
    """A column as categories; of nulls alone there is one all the same, without which XGBoost fails."""
    import pandas as pd

    return pd.Categorical(column, categories=[""]) if column.isna().all() else column.astype("category")


_NESTED = ("array", "object", "map", "any")
_READ_OF: dict[str, Callable[[str], Any]] = {"binary": base64.b64decode, **dict.fromkeys(_NESTED, json.loads)}
"""How the texts of a kind are read, where they stand for something else."""


def _column(array: Any, kind: str) -> Any:
    import numpy as np
    import pandas as pd

    if kind == "datetime":
        return _instants(array.tolist())
    if kind == "string":
        return pd.Series(array.tolist())  # with the null that pandas has in texts
    if kind in _READ_OF:
        return pd.Series([None if text is None else _READ_OF[kind](text) for text in array.tolist()], dtype=object)
    whole = {"long": "int64", "integer": "int32", "boolean": "bool"}.get(kind)
    if whole is not None:  # without fractions: those were refused; MLflow refuses a null
        return array if np.isnan(array).any() else array.astype(whole)
    return array.astype("float32") if kind == "float" else array


def _instants(texts: list[str | None]) -> Any:
    """In nanoseconds and without a zone, those with one in UTC, as MLflow gives them.

    Each for itself: of several together, pandas would have the first decide which of their numbers are days.
    """
    import pandas as pd

    found = [pd.NaT if text is None else pd.Timestamp(text) for text in texts]
    plain = [one.tz_convert("UTC").tz_localize(None) if one.tzinfo else one for one in found]
    return pd.Series(plain, dtype="datetime64[ns]")


def _outputs(found: Any) -> Any:
    """Name, type and values of every output: of what has columns or names each, else one without a name."""
    if hasattr(found, "columns"):
        found = {str(name): found[name].tolist() for name in found.columns}
    named = found if isinstance(found, dict) else {"": found}
    return [_output(str(name), value) for name, value in named.items()]


def _output(name: str, value: Any) -> Any:
    import numpy as np

    array = np.asarray(value)
    return [name, array.dtype.str if array.dtype.kind in "biuf" else "O", _plain(array)]


def _plain(value: Any) -> Any:
    """What JSON can hold: frames as one object a row."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return json.loads(value.to_json(orient="records", date_format="iso"))
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | range | Iterator | ValuesView):
        return [_plain(one) for one in value]
    if type(value).__name__ in ("NAType", "NaTType"):  # what pandas has where there is nothing
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "model_dump"):  # an object of pydantic
        return _plain(value.model_dump())
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()  # as MLflow's own server
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _send(link: socket.socket, answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    link.sendall(_HEAD.pack(len(body), 0) + body)


def _receive(link: socket.socket) -> tuple[dict[str, Any], dict[str, Any]] | None:
    import numpy as np

    lengths = _exactly(link, _HEAD.size)
    if lengths is None:
        return None
    head, body = _HEAD.unpack(lengths)
    content, raw = _exactly(link, head), memoryview(_exactly(link, body) or b"")
    header: dict[str, Any] = json.loads(content or b"{}")
    arrays, start = {}, 0
    for (name, dtype, shape), size in zip(header["arrays"], header["sizes"], strict=True):
        part = raw[start : start + size]
        start += size
        if "O" in dtype:
            arrays[name] = np.array(json.loads(bytes(part)), dtype=object).reshape(shape)
        else:
            arrays[name] = np.frombuffer(part, dtype).reshape(shape)
    return header, arrays


def _exactly(link: socket.socket, size: int) -> bytearray | None:
    parts = []
    while size:
        part = link.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return bytearray().join(parts)  # which arrays may be written to


if __name__ == "__main__":
    main()
