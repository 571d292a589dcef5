"""The how-to's commands as written, and those of the README of the package they make."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/how-to/package-a-model.md"


def test_every_command_of_the_page_and_of_its_package_runs(project, tmp_path):
    _, package = _blocks(PAGE.read_text())
    interpreter = tmp_path / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    interpreter.symlink_to(sys.executable)
    path = f"{Path(sys.executable).parent}:{tmp_path}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "NORIA_GATEWAY__PORT": "0", "COLUMNS": "200"}
    _run(package, project, environment)
    _container, install, ask = _blocks((project / "packages/demand/README.md").read_text())
    serving = install.replace("noria serve --project .", "noria serve --project . --announce >port & server=$!")
    wait = "for _ in $(seq 300); do [ -s port ] && break; sleep 0.1; done\nport=$(grep -o '[0-9]*' port)\n"
    known = ask.replace(":8000", ":$port").replace('"shop": ""', '"shop": "north"')
    known = known.replace('{"features"', '{"event_time": "2026-02-28T00:00:00Z", "features"')
    done = _run(f"{serving}{wait}{known}kill $server; wait $server || true\n", project / "packages/demand", environment)
    assert '"status":"healthy"' in done and '"prediction":' in done


def _blocks(text: str) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", text, re.DOTALL)


def _run(script: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
