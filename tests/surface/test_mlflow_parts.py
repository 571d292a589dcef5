"""The stock client asks what the server can do, and sends large files in parts and fetches by signed URL by itself."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path

import pytest

_SMALL_PARTS = {
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "300000",
    "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": "300000",
    "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": "300000",
}
_FOLDER = {"signed": 0, "through_the_server": 3}
_OBJECT_STORE = {"signed": 3, "through_the_server": 0}


@pytest.mark.parametrize(("world", "downloads"), [("server", _FOLDER), ("production_server", _OBJECT_STORE)])
def test_a_large_file_goes_up_in_parts_and_comes_back_whole(world, downloads, request, mlflow_python):
    url = request.getfixturevalue(world)
    script = Path(__file__).parent / "parts_script.py"
    done = subprocess.run(
        [mlflow_python, script, url],
        env={**os.environ, **_SMALL_PARTS},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(found["same"].values()) == {True}
    assert (found["parts"], found["completed"]) == (5, 1)
    assert {name: found[name] for name in downloads} == downloads


@pytest.mark.parametrize(("world", "signs"), [("server", False), ("production_server", True)])
def test_the_server_says_what_it_can_do(world, signs, request):
    url = request.getfixturevalue(world)
    for prefix in ("api", "ajax-api"):
        with urllib.request.urlopen(f"{url}/{prefix}/3.0/mlflow/server-info", timeout=30) as answer:
            told = json.loads(answer.read())
        assert told["multipart_uploads_enabled"] is True
        assert told["multipart_downloads_enabled"] is signs
        assert (told["store_type"], told["workspaces_enabled"]) == ("SqlStore", False)
