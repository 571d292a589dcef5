"""The how-to's blocks, run in order in one shell inside a trained project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/how-to/predict-in-batch.md"


def test_every_block_of_the_page_runs(project):
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 8
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    script = "set -euo pipefail\n" + "\n".join(blocks)
    done = subprocess.run(
        ["bash", "-c", script], cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"parts_done_before": 2' in done.stdout or '"parts_done_before": 3' in done.stdout
    assert "column 'hour' is \\\"nine\\\", not a number" in done.stdout
    assert (project / "from-a-file/part-00000.parquet").is_file()
