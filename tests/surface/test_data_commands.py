"""`noria data` as a user runs it."""

from __future__ import annotations

import json
import os

from typer.testing import CliRunner

from noria.surface.cli.main import app

run = CliRunner().invoke


def test_data_goes_around_by_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[odd] name").write_text("1")
    assert (run(app, ["data", "add", "nothing"]).exit_code, (tmp_path / ".dvc").exists()) == (2, False)
    refused = run(app, ["data", "list"])
    assert refused.exit_code == 1 and "noria data add" in refused.stderr
    (added,) = json.loads(run(app, ["data", "add", "[odd] name", "--json"]).stdout)
    assert added == {
        "path": "[odd] name",
        "md5": "c4ca4238a0b923820dcc509a6f75849b",
        "size_bytes": 1,
        "files": None,
        "dvc_file": "[odd] name.dvc",
    }
    assert "[odd] name" in run(app, ["data", "list"]).stdout
    (tmp_path / ".dvc/config").write_text("[core]\nno_scm = true\n['remote \"near\"']\nurl = ../remote\n")
    (sent,) = json.loads(run(app, ["data", "push", "--remote", "near", "--json"]).stdout)
    assert sent == {"remote": "near", "objects": 1, "size_bytes": 1, "present": 0}
    (tmp_path / "[odd] name").write_text("22")
    (change,) = json.loads(run(app, ["data", "diff", "--json"]).stdout)
    assert (change["change"], change["before"]["size_bytes"], change["after"]["size_bytes"]) == ("modified", 1, 2)
    lost = run(app, ["data", "checkout", "--json"])
    assert lost.exit_code == 1 and "give them up with --force" in json.loads(lost.stdout)["error"]["remedy"]
    pulled = json.loads(run(app, ["data", "pull", "--remote", "near", "--force", "--json"]).stdout)
    assert pulled == {"fetched": [], "checked_out": [{"path": "[odd] name", "added": 0, "replaced": 1, "removed": 0}]}
    assert run(app, ["data", "add", "nothing"]).exit_code == 2
    (tmp_path / "folder").mkdir()
    (tmp_path / os.fsdecode(b"folder/\xff")).write_text("1")
    assert run(app, ["data", "add", "folder"]).exit_code == 0
    (tmp_path / os.fsdecode(b"folder/\xff")).write_text("2")
    assert "folder/\\udcff" in run(app, ["data", "diff"]).stdout
