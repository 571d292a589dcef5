"""The tutorial's blocks, run in order in one shell, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TUTORIAL = Path(__file__).parents[2] / "docs/tutorial/the-wheel-in-ten-minutes.md"


def test_every_block_of_the_tutorial_runs(tmp_path):
    blocks = re.findall(r"```bash\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert len(blocks) >= 5
    script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(blocks)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    assert '"model_version":"1"' in done.stdout
    assert "entries verified" in done.stdout
