"""Moving in from a real MLflow server, filled by its own client, and out to another one."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from noria.config import load_settings
from noria.registry import Policies, get_version
from noria.registry.models import create_model
from noria.store.workspace import Workspace
from noria.surface.cli.processes import Child
from noria.tracking import experiments, runs
from support import noria

pytestmark = pytest.mark.peer

HERE = Path(__file__).parent
DEADLINE_SECONDS = 120
MLFLOW_ENVIRONMENT = {
    **os.environ,
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


@pytest.fixture(scope="module")
def mlflows(mlflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, Path]]]:
    """Two live MLflow servers, the first one filled: address and folder of each."""
    folders = [tmp_path_factory.mktemp(name) for name in ("full", "empty")]
    started = [start_mlflow(mlflow_python, folder) for folder in folders]
    try:
        for address, process, folder in started:
            wait_until(lambda a=address, p=process, f=folder: answers(a, p, f), "MLflow")
        client(mlflow_python, "fill_mlflow.py", started[0][0])
        yield [(address, folder) for address, _, folder in started]
    finally:
        for _, process, _ in started:
            os.killpg(process.pid, signal.SIGKILL)  # the group that start_mlflow made
            process.wait()


@pytest.fixture(scope="module")
def moved(mlflows: list[tuple[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A project that everything was imported into by http, through two kills, and the report of the last import."""
    folder = new_project(tmp_path_factory.mktemp("moved"))
    import_ = ["import", "mlflow", mlflows[0][0], "--json"]
    kill_when(import_, folder, lambda: rows(folder, "runs") >= 3)
    assert rows(folder, "runs") < 16
    kill_when(import_, folder, lambda: rows(folder, "model_versions") >= 1)
    return folder, json.loads(noria(*import_, cwd=folder).stdout)


@pytest.fixture(scope="module")
def from_database(mlflows: list[tuple[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """The reports of an import from the database: without the folder of artifacts, then with it."""
    folder, source = new_project(tmp_path_factory.mktemp("offline")), mlflows[0][1]
    import_ = ["import", "mlflow", f"sqlite:///{source}/mlflow.db", "--json"]
    without = noria(*import_, cwd=folder, check=False)
    assert without.returncode == 1
    complete = noria(*import_, "--artifacts", str(source / "artifacts"), cwd=folder)
    return json.loads(without.stdout), json.loads(complete.stdout)


def test_an_import_killed_twice_ends_complete_with_nothing_doubled(moved):
    folder, report = moved
    assert report["same"], report
    assert not report["refused"] and not report["not_copied"]
    assert report["skipped"]["runs"] >= 3
    counts = {item["name"]: item["target"] for item in report["experiments"]}
    churn = counts["churn 'quoted' ÄÖ"]
    assert (churn["runs"], churn["params"], churn["metric_points"], churn["files"]) == (11, 30, 430, 20)
    assert counts["models"]["datasets"] == 2
    assert counts["models"]["logged_models"] == 2
    models = {item["name"]: item["target"] for item in report["models"]}
    assert (models["doubler"]["in Production"], models["from-run"]["versions"], models["greeting"]["versions"]) == (
        1,
        2,
        1,
    )
    done = [
        entry["action"] for entry in json.loads(noria("audit", "show", "--json", "--limit", "999", cwd=folder).stdout)
    ]
    assert (done.count("model.import"), done.count("version.import"), done.count("alias.set")) == (3, 5, 3)
    noria("audit", "verify", cwd=folder)


def test_a_second_import_copies_nothing(moved, mlflows):
    again = json.loads(noria("import", "mlflow", mlflows[0][0], "--json", cwd=moved[0]).stdout)
    assert again["same"]
    assert set(again["copied"]) <= {"runs", "files"}  # the one that still runs is looked at again
    assert again["copied"]["runs"] == 1
    assert [item["target_sha256"] for item in again["experiments"]] == [
        item["target_sha256"] for item in moved[1]["experiments"]
    ]


def test_the_database_gives_the_same_as_the_server(moved, from_database):
    without, complete = from_database
    assert without["not_copied"]
    assert "--artifacts" in without["not_copied"][0]
    assert complete["same"], complete
    for kind in ("experiments", "models"):
        assert [item["target_sha256"] for item in complete[kind]] == [item["target_sha256"] for item in moved[1][kind]]


def test_a_postgresql_database_is_moved_whole_whatever_driver_its_address_names(
    moved, mlflow_python, new_database_url, tmp_path
):
    address = new_database_url("postgresql")
    client(mlflow_python, "fill_mlflow.py", address.replace("postgresql:", "postgresql+psycopg2:"), cwd=tmp_path)
    folder = new_project(tmp_path)
    first, again = (
        json.loads(noria("import", "mlflow", address.replace(":", driver, 1), "--json", cwd=folder).stdout)
        for driver in ("+psycopg2:", ":")
    )
    assert first["same"] and again["same"], (first, again)
    assert not first["refused"] and not first["not_copied"]
    assert (again["source"], again["copied"]) == (address, {"runs": 1, "files": 0})  # the one that still runs
    assert counted(first) == counted(moved[1])


def test_the_stock_client_reads_the_same_from_noria(moved, mlflows, mlflow_python):
    child = Child("server", moved[0], 0)
    try:
        printed = client(mlflow_python, "read_mlflow.py", mlflows[0][0], child.url)
    finally:
        child.stop()
    at_mlflow, at_noria = json.loads(printed.strip().splitlines()[-1])
    assert at_noria == at_mlflow
    assert len(at_noria) > 20


def test_what_came_from_elsewhere_is_refused_and_kept(mlflows, tmp_path):
    folder, source = new_project(tmp_path), mlflows[0][1]
    with sqlite3.connect(source / "mlflow.db") as database:
        run_id = database.execute("SELECT run_uuid FROM runs WHERE name = 'run 0'").fetchone()[0]
    database.close()
    workspace = Workspace(folder, load_settings(folder))
    at, policies = datetime.now(UTC), Policies.from_settings({})
    with workspace.database.write() as tx:
        experiments.ensure_default(tx, artifact_root="mlflow-artifacts:/", at=at)
        runs.create(tx, "0", run_id=run_id, name="mine", user="me", artifact_uri="mlflow-artifacts:/x", at=at, tags={})
        create_model(tx, "doubler", policies=policies, at=at, actor="me")
    command = ["import", "mlflow", f"sqlite:///{source}/mlflow.db", "--artifacts", str(source / "artifacts"), "--json"]
    done = noria(*command, cwd=folder, check=False)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert [text.partition(" exists already")[0] for text in report["refused"]] == [f"run {run_id}", "model 'doubler'"]
    with workspace.database.read() as tx:
        assert runs.get(tx, run_id).name == "mine"
    workspace.database.close()


def test_a_name_that_noria_does_not_take_is_listed_and_all_else_is_moved(mlflow_python, tmp_path):
    client(mlflow_python, "fill_odd_names.py", f"sqlite:///{tmp_path}/mlflow.db", cwd=tmp_path)
    folder = new_project(tmp_path)
    done = noria("import", "mlflow", f"sqlite:///{tmp_path}/mlflow.db", "--json", cwd=folder, check=False)
    report = json.loads(done.stdout)
    assert (done.returncode, [text[:12] for text in report["refused"]]) == (1, ["model xxxxxx"])
    assert (report["copied"]["runs"], report["copied"]["models"], report["copied"]["versions"]) == (2, 2, 2)
    differing = [item["name"] for item in (*report["experiments"], *report["models"]) if item["differences"]]
    assert (differing, report["not_copied"]) == (["x" * 256], [])
    workspace = Workspace(folder, load_settings(folder))
    with workspace.database.read() as tx:
        copy, original = get_version(tx, "copy", 1), get_version(tx, "模型" * 100, 2)
    assert (copy.source, copy.run_id) == (original.source, original.run_id)
    assert copy.named_source == f"models:/{original.model}/1"
    workspace.database.close()
    noria("audit", "verify", cwd=folder)


@pytest.mark.parametrize(
    ("uri", "code", "said"),
    [
        ("http://127.0.0.1:1", 1, "does not answer"),
        ("sqlite:////nowhere/mlflow.db", 1, "there is no database"),
        ("sqlite:///.noria/noria.db", 2, "is no database of MLflow"),
        ("ftp://somewhere", 2, "neither a server nor a database"),
        ("postgresql://me:secret@127.0.0.1:1/mlflow", 1, "postgresql://me:***@127.0.0.1:1/mlflow cannot be read"),
        ("postgresql://me:secret@[::/mlflow", 2, "no address of a database"),
    ],
)
def test_a_wrong_address_is_told_with_what_to_do(moved, uri, code, said):
    done = noria("import", "mlflow", uri, cwd=moved[0], check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert said in done.stderr and "secret" not in done.stderr


def test_an_export_killed_on_the_way_ends_complete_at_another_mlflow(moved, mlflows):
    address = mlflows[1][0]
    export = ["export", "mlflow", address, "--json"]
    kill_when(export, moved[0], lambda: len(runs_at(address)) >= 4)
    report = json.loads(noria(*export, cwd=moved[0]).stdout)
    assert report["same"], report
    found = runs_at(address)
    origins = [tag["value"] for run in found for tag in run["data"]["tags"] if tag["key"] == "noria.run_id"]
    assert len(origins) == len(set(origins)) == rows(moved[0], "runs")
    assert [item["source_sha256"] for item in report["models"]] == [item["target_sha256"] for item in report["models"]]


def counted(report: dict) -> dict[str, dict[str, int]]:
    """What the target holds of everything; the documents of models are as long as their times and paths are."""
    items = [*report["experiments"], *report["models"]]
    return {item["name"]: {k: n for k, n in item["target"].items() if k != "bytes"} for item in items}


def new_project(folder: Path) -> Path:
    noria("init", str(folder / "shop"), cwd=folder)
    return folder / "shop"


def start_mlflow(python: Path, folder: Path) -> tuple[str, subprocess.Popen[bytes], Path]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [python.parent / "mlflow", *words, *stores],
            cwd=folder,
            env=MLFLOW_ENVIRONMENT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return f"http://127.0.0.1:{port}", process, folder


def client(python: Path, script: str, *arguments: str, cwd: Path | None = None) -> str:
    """What a script of the stock client prints."""
    words = [python, HERE / script, *arguments]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=300, env=MLFLOW_ENVIRONMENT, cwd=cwd
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def answers(address: str, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "log").read_text()[-4000:]
    try:
        return httpx.get(f"{address}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def kill_when(command: list[str], folder: Path, reached: Callable[[], bool]) -> None:
    """Start a command and kill it as soon as ``reached``."""
    words = [sys.executable, "-m", "noria", *command]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: process.poll() is not None or reached(), "a moment to kill")
    process.kill()
    assert process.wait() == -signal.SIGKILL


def wait_until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not reached():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


def rows(folder: Path, table: str) -> int:
    try:
        database = sqlite3.connect(f"file:{folder}/.noria/noria.db?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return 0
    try:
        return int(database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        database.close()


def runs_at(address: str) -> list[dict]:
    with httpx.Client(base_url=f"{address}/api/2.0/mlflow") as client:
        found = client.post("/experiments/search", json={"max_results": 100, "view_type": "ALL"}).json()
        ids = [item["experiment_id"] for item in found["experiments"]]
        search = {"experiment_ids": ids, "run_view_type": "ALL", "max_results": 1000}
        return client.post("/runs/search", json=search).json().get("runs", [])
