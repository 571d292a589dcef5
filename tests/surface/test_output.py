"""What commands print, on terminals of every width."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


def test_a_folder_that_is_not_there_is_told_and_not_made(tmp_path):
    done = noria("serve", "--project", "nowhere", "--port", "0", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "there is no folder nowhere" in done.stderr
    assert list(tmp_path.iterdir()) == []
