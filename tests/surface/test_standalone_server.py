"""`noria server --store … --artifacts …`: a team's server, without a project."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import httpx
import pytest

from support import noria


def start(folder, *arguments, **environment):
    """The process and its URL, once it answers."""
    command = [sys.executable, "-m", "noria", "server", "--port", "0", "--announce", *arguments]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    return process, f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"


@pytest.fixture
def servers(tmp_path, new_database_url, s3_environment):
    """Two servers over one PostgreSQL database and one bucket, and the environment of their records."""
    url = new_database_url("postgresql")
    started = [
        start(tmp_path, "--store", url, "--artifacts", f"s3://noria/{tmp_path.name}", **s3_environment)
        for _ in range(2)
    ]
    yield [address for _, address in started], url
    for process, _ in started:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def test_two_servers_share_records_and_artifacts(servers, tmp_path, monkeypatch):
    (first, second), url = servers
    made = httpx.post(f"{first}/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]
    content = os.urandom(3_000_000)
    file = f"mlflow-artifacts/artifacts/0/{made['run_id']}/artifacts/big.bin"
    assert httpx.put(f"{first}/api/2.0/{file}", content=content, timeout=60).status_code == 200
    assert httpx.get(f"{second}/api/2.0/{file}", timeout=60).content == content
    listed = httpx.get(f"{second}/api/2.0/mlflow/artifacts/list", params={"run_id": made["run_id"]}).json()
    assert listed["files"] == [{"path": "big.bin", "is_dir": False, "file_size": len(content)}]
    assert httpx.post(f"{second}/api/2.0/mlflow/registered-models/create", json={"name": "m"}).status_code == 200
    monkeypatch.setenv("NORIA_STORE__DATABASE", url)
    models = json.loads(noria("models", "list", "--json", cwd=tmp_path).stdout)
    assert [model["model"] for model in models] == ["m"]
    noria("audit", "verify", cwd=tmp_path)


def test_without_a_project_or_a_store_the_command_says_what_to_give(tmp_path):
    done = noria("server", cwd=tmp_path, check=False)
    assert (done.returncode, "noria init" in done.stderr) == (2, True)
