"""The how-to's blocks, run in order inside a bare project."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from support import noria

PAGE = Path(__file__).parents[2] / "docs/how-to/sweeps.md"


def test_every_block_of_the_page_runs(tmp_path):
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\n[model]\nname = "m"\ntask = "regression"\n')
    module, script = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (command,) = re.findall(r"```bash\nnoria (.*?)\n```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "objectives.py").write_text(module)
    best = json.loads(noria(*command.split(), "--json", cwd=tmp_path).stdout)
    assert best["best_value"] > 0.8 and sum(best["counts"].values()) == 12
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert best["best_run_id"] in done.stdout  # the same sweep, which is complete
