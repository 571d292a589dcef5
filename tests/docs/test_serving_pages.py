"""The blocks of the pages on serving and on rollouts, run in order in one shell inside a trained project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HOW_TO = Path(__file__).parents[2] / "docs/how-to"


def run_page(name: str, project: Path) -> str:
    blocks = re.findall(r"```(bash|python)\n(.*?)```", (HOW_TO / name).read_text(), re.DOTALL)
    assert len(blocks) >= 4
    parts = [text if kind == "bash" else f"python - <<'EOF'\n{text}EOF\n" for kind, text in blocks]
    script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(parts)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_block_of_serve_models_runs(project):
    told = run_page("serve-models.md", project)
    assert "requests/s" in told
    assert "\n401\n" in told
    assert "demand needs no key; 1 forgotten" in told


def test_every_block_of_roll_out_a_version_runs(project):
    told = run_page("roll-out-a-version.md", project)
    assert "rolled back" in told.lower()
