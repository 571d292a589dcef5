"""What commands print, on terminals of every width."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from noria import __version__
from noria.surface.cli.context import show_sections
from noria.surface.cli.main import app
from support import noria

ID, REASON = "c0ffee" * 6, "errors are worse than the champion's by eleven points"
SHOWN = f"""
from noria.surface.cli.context import show
show([{{"rollout": "{ID}", "state": "rolled_back", "reason": "{REASON}"}}], as_json=False, title="Rollouts")
"""


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_tables_break_sentences_and_never_ids(columns):
    environment = os.environ | {"COLUMNS": str(columns)}
    done = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True, env=environment)
    words = done.stdout.split()
    assert ID in words and "rolled_back" in words
    assert [word for word in words if word in REASON.split()] == REASON.split()
    if columns > 40:
        assert max(map(len, done.stdout.splitlines())) <= max(columns, 90)


def test_a_row_is_one_line_in_a_pipe_and_says_the_zone_of_its_times(tmp_path):
    shown = SHOWN.replace('"state"', '"started_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "state"')
    script = f"from datetime import UTC, datetime\n{shown.replace(REASON, REASON * 5)}"
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert "started at (UTC)" in done.stdout
    assert any(ID in line and REASON * 5 in line and "2026-01-02 03:04" in line for line in done.stdout.splitlines())


def test_sections_tell_times_with_their_zone_and_what_lies_within_what(capsys):
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    document = {"source": {"batch": {"path": "a", "part": {"of": 1}}, "keys": [{"name": "shop"}]}, "seen": [{"at": at}]}
    show_sections(document, as_json=False)
    told = capsys.readouterr().out
    assert "batch: path = a, part = (of = 1)" in told and "name = shop" in told
    assert "at: 2026-01-02 03:04:05 UTC" in told


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--version"], 0, f"noria {__version__}"),
        (["modles"], 2, "Did you mean 'models'?"),
        (["rollout", "statsu"], 2, "Did you mean 'status'"),
        (["deploy", "-h"], 0, "noria deploy models:/NAME/3"),
        (["audit", "show", "--limit", "0"], 2, "--limit"),
    ],
)
def test_a_stranger_is_shown_the_way(words, code, told):
    done = CliRunner().invoke(app, words, prog_name="noria")
    assert (done.exit_code, told in " ".join(done.output.split())) == (code, True), done.output


def test_a_shell_completes_commands_and_options():
    for words, at, wanted in [("noria mo", 1, "models"), ("noria deploy wi", 2, "withdraw")]:
        asked = {"_NORIA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        done = CliRunner().invoke(app, [], prog_name="noria", env=asked)
        assert done.output.split() == [wanted]


def test_a_place_without_anchors_proves_nothing_and_is_told(tmp_path):
    (tmp_path / "noria.toml").write_text("")
    verify = ["audit", "verify", "--project", str(tmp_path), "--anchors", str(tmp_path / "elsewhere")]
    refused = CliRunner().invoke(app, verify, prog_name="noria")
    assert (refused.exit_code, "there is no anchor at" in refused.output) == (1, True)
    anchored = ["audit", "anchor", str(tmp_path / "elsewhere"), "--project", str(tmp_path)]
    assert CliRunner().invoke(app, anchored, prog_name="noria").exit_code == 0
    assert "verified, against 1 anchor, head" in CliRunner().invoke(app, verify, prog_name="noria").output
    nobodys = ["deploy", "keys", "list", "nobodys", "--project", str(tmp_path)]
    assert CliRunner().invoke(app, nobodys, prog_name="noria").exit_code == 1


def test_a_name_that_the_terminals_encoding_lacks_is_escaped(tmp_path):
    done = noria("init", "läden", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert "next: cd 'l\\xe4den', then noria run" in done.stdout


def test_a_folder_that_is_not_there_is_told_and_not_made(tmp_path):
    done = noria("serve", "--project", "nowhere", "--port", "0", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "there is no folder nowhere" in done.stderr
    assert list(tmp_path.iterdir()) == []
