"""The peers: what is installed for each, how it is started, and which protocol it is asked in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving_process import NotServing, free_port
from serving_wire import SEEDS, Wire, named, v2

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".bench"
SCRIPTS = Path(__file__).parent / "peers"
_MODEL = ("scikit-learn==1.7.*", "onnxruntime")
PACKAGES: Mapping[str, Sequence[str]] = {
    "serving-fastapi": ("fastapi", "uvicorn[standard]", "skl2onnx", *_MODEL),
    "serving-mlflow": ("mlflow==3.17.*", "cloudpickle", *_MODEL),
    "serving-bentoml": ("bentoml==1.4.*", *_MODEL),
    "serving-mlserver": ("mlserver==1.7.*", "mlserver-sklearn==1.7.*", "uvloop<0.22", *_MODEL),
    "serving-litserve": ("litserve==0.2.*", *_MODEL),
    "serving-kserve": ("kserve==0.21.*", *_MODEL),
    "serving-ray": ("ray[serve]==2.60.*", *_MODEL),
}
"""MLServer 1.7 crash-loops on uvloop 0.22 and newer."""

Command = Sequence[str | Path]


@dataclass(frozen=True)
class Peer:
    """One server. ``command`` takes its environment's ``bin``, the model's folder, a scratch folder and the port."""

    name: str
    environment: str
    wire: Wire
    command: Callable[[Path, Path, Path, int], Command]
    on_onnx: bool = False


def _uvicorn(binaries: Path, _model: Path, _scratch: Path, port: int) -> Command:
    return [binaries / "uvicorn", "serving_fastapi:app", "--host", "127.0.0.1", "--port", str(port)]


def _mlflow(saved: str) -> Callable[[Path, Path, Path, int], Command]:
    def command(binaries: Path, model: Path, _scratch: Path, port: int) -> Command:
        serve = [binaries / "mlflow", "models", "serve", "--env-manager", "local", "--model-uri", model / saved]
        return [*serve, "--host", "127.0.0.1", "--port", str(port)]

    return command


def _bentoml(service: str) -> Callable[[Path, Path, Path, int], Command]:
    def command(binaries: Path, _model: Path, _scratch: Path, port: int) -> Command:
        serve = [binaries / "bentoml", "serve", f"serving_bentoml:{service}", "--working-dir", SCRIPTS]
        return [*serve, "--host", "127.0.0.1", "--port", str(port)]

    return command


def _mlserver(implementation: str) -> Callable[[Path, Path, Path, int], Command]:
    def command(binaries: Path, model: Path, scratch: Path, port: int) -> Command:
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        (scratch / "settings.json").write_text(json.dumps({"host": "127.0.0.1", **ports}))
        parameters = {"uri": str(model / "pipeline.joblib")}
        document = {"name": "forest", "implementation": implementation, "parameters": parameters}
        (scratch / "model-settings.json").write_text(json.dumps(document))
        return [binaries / "mlserver", "start", scratch]

    return command


def _script(name: str) -> Callable[[Path, Path, Path, int], Command]:
    return lambda binaries, _model, _scratch, port: [binaries / "python", SCRIPTS / f"{name}.py", str(port)]


def _kserve(binaries: Path, _model: Path, _scratch: Path, port: int) -> Command:
    ports = [f"--http_port={port}", f"--grpc_port={free_port()}"]
    return [binaries / "python", SCRIPTS / "serving_kserve.py", *ports]


_MLFLOW, _BENTOML = named("/invocations", "inputs", "predictions"), named("/predict", "rows")
_LITSERVE, _RAY = named("/predict", "rows", "probabilities"), named("/", "rows", "probabilities")
_V2 = v2("predict_proba")
PEERS: Sequence[Peer] = (
    Peer("fastapi", "serving-fastapi", SEEDS, _uvicorn),
    Peer("fastapi-ort", "serving-fastapi", SEEDS, _uvicorn, on_onnx=True),
    Peer("mlflow", "serving-mlflow", _MLFLOW, _mlflow("mlflow-sklearn")),
    Peer("mlflow-ort", "serving-mlflow", _MLFLOW, _mlflow("mlflow-onnx"), on_onnx=True),
    Peer("bentoml", "serving-bentoml", _BENTOML, _bentoml("Single")),
    Peer("bentoml-batchable", "serving-bentoml", _BENTOML, _bentoml("Batched")),
    Peer("bentoml-ort", "serving-bentoml", _BENTOML, _bentoml("Single"), on_onnx=True),
    Peer("mlserver", "serving-mlserver", _V2, _mlserver("mlserver_sklearn.SKLearnModel")),
    Peer("mlserver-ort", "serving-mlserver", _V2, _mlserver("serving_mlserver.OnnxModel"), on_onnx=True),
    Peer("litserve", "serving-litserve", _LITSERVE, _script("serving_litserve")),
    Peer("litserve-ort", "serving-litserve", _LITSERVE, _script("serving_litserve"), on_onnx=True),
    Peer("kserve", "serving-kserve", _V2, _kserve),
    Peer("kserve-ort", "serving-kserve", _V2, _kserve, on_onnx=True),
    Peer("ray", "serving-ray", _RAY, _script("serving_ray")),
    Peer("ray-ort", "serving-ray", _RAY, _script("serving_ray"), on_onnx=True),
)


def install(name: str) -> Path:
    """The ``bin`` of an environment, installed when it is missing or holds something else. Raises NotServing."""
    folder, installed = ENVIRONMENTS / name, ENVIRONMENTS / f"{name}.installed"
    binaries, packages, uv = folder / "bin", PACKAGES[name], [sys.executable, "-m", "uv"]
    if installed.exists() and installed.read_text() == " ".join(packages):
        return binaries
    make = [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder]
    fill = [*uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", binaries / "python", *packages]
    for command in (make, fill):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotServing(f"cannot be installed: {done.stderr.strip()[-1500:]}")
    installed.write_text(" ".join(packages))
    return binaries


def environment_of(peer: Peer, binaries: Path, model: Path) -> dict[str, str]:
    """What its processes find in their environment."""
    return {
        "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(SCRIPTS),
        "SERVING_MODEL": str(model),
        "SERVING_RUNTIME": "onnx" if peer.on_onnx else "sklearn",
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "ORT_DISABLE_TELEMETRY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def make_model(folder: Path) -> None:
    """Train the model, with the packages of the plainest peer."""
    subprocess.run([install("serving-fastapi") / "python", SCRIPTS / "serving_train.py", folder], check=True)


def make_mlflow_models(folder: Path) -> None:
    """Save it as MLflow does. Raises NotServing."""
    command = [install("serving-mlflow") / "python", SCRIPTS / "serving_mlflow.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotServing(f"the model cannot be saved: {done.stderr[-1500:]}")
