"""ONNX Runtime: graphs of columns and of tensors."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput, MissingExtra, NoriaError
from noria.optimize.bundle import ONNX_FILE, Bundle, Task
from noria.processors import processors
from noria.serving.runtimes.base import Floats, Rows, Tensors
from noria.serving.runtimes.boosters import BoosterRuntime
from noria.serving.runtimes.whole import WholeColumns

_MANY_ROWS = 256
"""From here on the rows of one call are shared by several threads."""


class OnnxRuntime:
    """One graph. Small batches run in the caller's thread, large ones on all processors.

    A large batch of columns is cut into one part a processor: rows do not depend on each other, and one session stays
    enough. For large tensors there is a second one, whose operators share the work, since a graph of those may do
    anything with its rows.
    """

    inline = True

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self._path, self._bundle = folder / ONNX_FILE, bundle
        self._session = _session(self._path, threads=1)
        self._wide: Any = None
        self.concurrency = processors()
        self._helpers = ThreadPoolExecutor(max(self.concurrency - 1, 1), thread_name_prefix="onnx")
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._wanted = [bundle.onnx_score] if bundle.onnx_score else None
        self._dtype = np.dtype(bundle.input_dtype)
        self._casts = self._dtype != np.float64
        self._whole = WholeColumns.of(bundle)
        native = bundle.options.get("native")
        self._native_from = native["from_rows"] if native else sys.maxsize
        self._native = _booster(folder, bundle, native) if native else None

    def score(self, rows: Rows) -> Floats:
        """See Runtime. With one output column the result is (rows,), of two classes the last.

        Raises InvalidInput for what the graph refuses, or would cast to another number.
        """
        numbers, bundle = rows.numbers, self._bundle
        if self._native is not None and len(rows) >= self._native_from:
            return self._native.score(rows)
        if self._whole is not None:
            self._whole.check(numbers)
        if self._casts:
            with np.errstate(over="ignore"):  # a double too large for a float32 input is infinite to the model
                numbers = numbers.astype(self._dtype)
        feeds: dict[str, NDArray[Any]] = {bundle.onnx_input: numbers} if bundle.onnx_input else {}
        if rows.strings is not None and bundle.onnx_strings:
            feeds[bundle.onnx_strings] = self._texts(rows.strings)
        try:
            found = self._run(feeds, len(rows))
        except Exception as error:  # the runtime's own errors have no public class
            raise _refusal(error, "rows") or error from None
        if found.ndim > 1 and bundle.task != "generic":
            found = _scores(found, bundle.task)
        return found if found.dtype == np.float64 else found.astype(np.float64)

    def infer(self, tensors: Tensors, params: Mapping[str, Any] | None = None) -> Tensors:
        """See Runtime. Raises InvalidInput for what the graph refuses; a graph has no params."""
        del params
        rows = len(next(iter(tensors.values()))) if tensors else 0
        try:
            found = self._for_tensors(rows).run(None, dict(tensors))
        except Exception as error:
            raise _refusal(error, "tensors") or error from None
        return dict(zip(self._outputs, found, strict=True))

    def unload(self) -> None:
        """See Runtime."""
        self._session = self._wide = None
        self._helpers.shutdown(wait=False)

    def _texts(self, strings: NDArray[np.object_]) -> NDArray[np.object_]:
        """The texts as the graph takes them, to which a null is a text, too."""
        absent = strings == None  # noqa: E711  one by one
        return np.where(absent, self._bundle.null_text, strings) if absent.any() else strings

    def _run(self, feeds: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
        """The output for ``feeds``: of many rows by several threads, of which this one is the first."""
        run, wanted = self._session.run, self._wanted
        parts = self.concurrency if rows >= _MANY_ROWS else 1
        if parts == 1:
            (found,) = run(wanted, feeds)
            return found  # type: ignore[no-any-return]
        ends = [rows * part // parts for part in range(parts + 1)]
        mine, *others = ({name: values[start:end] for name, values in feeds.items()} for start, end in pairwise(ends))
        running = [self._helpers.submit(run, wanted, part) for part in others]
        try:
            answers = [run(wanted, mine)]
        finally:
            wait(running)
        answers += [one.result() for one in running]
        return np.concatenate([one for (one,) in answers])

    def _for_tensors(self, rows: int) -> Any:
        if rows < _MANY_ROWS or self.concurrency == 1:
            return self._session
        if self._wide is None:
            self._wide = _session(self._path, threads=self.concurrency)
        return self._wide


def _scores(found: NDArray[Any], task: Task) -> NDArray[Any]:
    """The value, or the probability of the second of two classes; of more classes all. Never one value of several."""
    if task == "regression" and found.shape[1] > 1:
        raise NoriaError(
            f"the graph gives {found.shape[1]} values a row, and a regression has one",
            remedy="Register the model again: models of several outputs are served as they were logged.",
        )
    return found[:, -1] if found.shape[1] < 3 else found


def _refusal(error: Exception, what: str) -> InvalidInput | None:
    """What to say when a graph that could score its example fails; None when that is not the rows' fault."""
    text = str(error)
    if "ONNXRuntimeError" not in text or "alloc" in text:
        return None
    reason = text.split("Status Message: ")[-1].split(" : ")[-1].strip().splitlines()[-1]
    return InvalidInput(f"the model refuses the {what}: {reason}", remedy="Send values of the kind it was trained on.")


def _booster(folder: Path, bundle: Bundle, options: dict[str, Any]) -> BoosterRuntime | None:
    """The model's own library, for the batches it is faster at; without it the graph scores them, too."""
    try:
        return BoosterRuntime(folder, bundle, options)
    except MissingExtra:
        return None


def _session(path: Path, *, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised, and said in our words
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
