"""The how-to's Python blocks, run in order inside a new project."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from support import noria

PAGE = Path(__file__).parents[2] / "docs/how-to/features.md"


def test_every_block_of_the_page_runs(tmp_path):
    noria("init", str(tmp_path / "shop"), cwd=tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 7
    command = [sys.executable, "-W", "error", "-c", "\n".join(blocks)]
    done = subprocess.run(command, cwd=tmp_path / "shop", capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'orders': [3, None]" in done.stdout and "'NULL_VALUE', 'OUTSIDE_MAX_AGE'" in done.stdout
    listed = json.loads(noria("features", "list", "--json", cwd=tmp_path / "shop").stdout)
    assert {"customer_orders", "churn"} <= {row["name"] for row in listed}
