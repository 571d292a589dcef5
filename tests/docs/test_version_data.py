"""The how-to's blocks, run in order in one shell inside a new git repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/how-to/version-data.md"


def test_every_block_of_the_page_runs(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/noria.toml").write_text('[project]\nname = "shop"\n[model]\nname = "m"\ntask = "regression"\n')
    text = PAGE.read_text()
    shell, (python,) = (
        re.findall(r"```bash\n(.*?)```", text, re.DOTALL),
        re.findall(r"```python\n(.*?)```", text, re.DOTALL),
    )
    script = "set -euo pipefail\ngit init --quiet\n" + "\n".join(shell) + "\ncat prices/july.csv\n"
    environment = {
        **os.environ,
        **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
    }
    for command in (["bash", "-c", script], [sys.executable, "-c", python]):
        done = subprocess.run(
            command, cwd=tmp_path / "shop", env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if command[0] == "bash":
            assert "rows: 1 added, 0 removed, 1 changed; such as 2" in done.stdout
            assert '"rows": {"added": 1, "removed": 0, "changed": 1' in done.stdout
            assert done.stdout.endswith("day,price\n1,10\n2,11\n")
