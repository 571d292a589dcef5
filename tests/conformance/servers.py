"""MLflow's own server and Noria's, each on an empty store: what checks are run against."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from noria.surface.cli.processes import Child
from servers import free_port
from support import mlflow_environment, noria

_START_SECONDS = 240


@contextmanager
def both(folder: Path) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of (MLflow, Noria)."""
    with mlflow_server(folder) as reference, noria_server(folder) as own:
        yield reference, own


@contextmanager
def mlflow_server(folder: Path) -> Iterator[httpx.Client]:
    """MLflow with one worker on SQLite, once it answers."""
    mlflow = mlflow_environment().with_name("mlflow")
    url = f"http://127.0.0.1:{free_port()}"
    command = [mlflow, "server", "--workers", "1", "--port", url.rpartition(":")[2]]
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    artifacts = ["--serve-artifacts", "--artifacts-destination", folder / "files"]
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *store, *artifacts], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(url, process, folder / "mlflow.log")
        with httpx.Client(base_url=url, timeout=60) as client:
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@contextmanager
def noria_server(folder: Path) -> Iterator[httpx.Client]:
    """`noria server` over a new project without policies."""
    project = folder / "project"
    noria("init", str(project), cwd=folder)
    config = project / "noria.toml"
    config.write_text(config.read_text().partition("[policies")[0])
    child = Child("server", project, 0, log=folder / "noria.log")
    try:
        with httpx.Client(base_url=child.url, timeout=60) as client:
            yield client
    finally:
        child.stop()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx.get(f"{url}/version").raise_for_status()
            return
        except httpx.HTTPError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MLflow does not answer: {log.read_text()[-2000:]}") from None
            time.sleep(0.2)
