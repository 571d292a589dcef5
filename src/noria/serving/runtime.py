"""The runtime: one loaded version, scoring rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import CorruptArtifact, NotFound
from noria.optimize.bundle import ONNX_FILE, Bundle, read_bundle
from noria.rollout.routes import Variant
from noria.store.blobs import BlobStore, folder_digest


class Runtime:
    """A version ready to score. ``score`` may be called from one thread at a time."""

    def __init__(self, variant: Variant, bundle: Bundle, session: Any) -> None:
        self.model = variant.model
        self.version = variant.version
        self.digest = variant.digest
        self.bundle = bundle
        self._session = session
        self._dtype = np.dtype(bundle.input_dtype)

    def score(self, matrix: NDArray[np.float64]) -> list[float]:
        """The score of every row of ``matrix``, shape (rows, inputs); NaN where a feature is missing."""
        with np.errstate(over="ignore"):  # a double too large for a float32 input is infinite to the model
            feeds = {self.bundle.onnx_input: matrix.astype(self._dtype, copy=False)}
        (scores,) = self._session.run([self.bundle.onnx_score], feeds)
        column: list[float] = np.asarray(scores, dtype=np.float64).reshape(len(matrix), -1)[:, -1].tolist()
        return column


def load_runtime(artifacts: BlobStore, variant: Variant) -> Runtime:
    """Load the version a variant names. Raises CorruptArtifact when its files are not those registered."""
    try:
        folder = artifacts.fetch(variant.source)
        found = folder_digest(folder)
    except NotFound:
        found = "nothing"
    if found != variant.digest:
        raise CorruptArtifact(
            f"the files of {variant.model}@{variant.version} are not those registered: "
            f"hash {found[:12]}, recorded {variant.digest[:12]}",
            remedy="Restore the model's folder from a backup, or roll back to another version.",
        )
    bundle = read_bundle(folder)
    try:
        runtime = Runtime(variant, bundle, _session(folder / ONNX_FILE))
        # A graph that does not fit its bundle fails here, before it is given a request.
        runtime.score(np.zeros((1, len(bundle.inputs))))
    except ImportError:
        raise
    except Exception as error:
        raise CorruptArtifact(
            f"the ONNX graph of {variant.model}@{variant.version} cannot be loaded: {error}",
            remedy="Register the model again with `noria run`.",
        ) from error
    return runtime


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
