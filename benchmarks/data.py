"""`noria data` against DVC itself, side by side: `make bench NAME=data`.

Each command runs as a user runs it, in a project of its own over the same files: one of MEGABYTES (1,024), and a folder
of FILES (10,000) of 4 KiB. Both must write the same .dvc files and manifests. Rounds alternate between the two; medians
of ROUNDS (3) are told in seconds of wall time and of CPU. What both need to start is a row of its own. Prints a line a
measure and, last, one JSON object.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".bench/dvc"
MEGABYTES = int(os.environ.get("MEGABYTES", "1024"))
FILES = int(os.environ.get("FILES", "10000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
TOOLS: dict[str, list[str | Path]] = {
    "noria": [sys.executable, "-m", "noria", "data"],
    "dvc": [PEER / "bin/dvc"],
}
Seconds = tuple[float, float]


def install_peer() -> None:
    uv = [sys.executable, "-m", "uv"]
    if not (PEER / "bin/dvc").exists():
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, PEER], check=True)
        subprocess.run(
            [*uv, "pip", "install", "--quiet", "--python", PEER / "bin/python", "dvc[s3]==3.67.*"], check=True
        )


def fill(project: Path) -> None:
    """The large file and the many small ones; the same bytes for both."""
    block = os.urandom(1 << 20)
    with (project / "large").open("wb") as file:
        for number in range(MEGABYTES):
            file.write(number.to_bytes(8, "big") + block[8:])
    for number in range(FILES):
        folder = project / "many" / f"{number % 100:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(number.to_bytes(8, "big") + block[number : number + 4088])


def run(tool: str, project: Path, *words: str) -> Seconds:
    """Wall and CPU seconds of one command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*TOOLS[tool], *words], cwd=project, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def one_round(tool: str, project: Path) -> dict[str, Seconds]:
    """Every measure once, from an empty cache."""
    for left in project.glob("*.dvc"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    subprocess.run([*TOOLS["dvc"], "init", "--quiet", "--no-scm", "--force"], cwd=project, check=True)
    with (project / ".dvc/config").open("a") as config:
        config.write("    remote = near\n['remote \"near\"']\n    url = remote\n")
    taken = {"start": run(tool, project, "--help" if tool == "noria" else "--version")}
    for what in ("large", "many"):
        taken[f"add {what}"] = run(tool, project, "add", what)
        taken[f"add {what} again"] = run(tool, project, "add", what)
    taken["push"] = run(tool, project, "push")
    shutil.rmtree(project / "many")
    (project / "large").unlink()
    taken["checkout"] = run(tool, project, "checkout")
    shutil.rmtree(project / ".dvc/remote")
    return taken


def recorded(project: Path) -> dict[str, bytes]:
    files = [*project.glob("*.dvc"), *(project / ".dvc/cache/files").rglob("*.dir")]
    return {str(path.relative_to(project)): path.read_bytes() for path in files if path.is_file()}


def measure(folder: Path) -> list[dict[str, Any]]:
    projects = {tool: folder / tool for tool in TOOLS}
    projects["noria"].mkdir()
    fill(projects["noria"])
    shutil.copytree(projects["noria"], projects["dvc"])
    rounds: dict[str, list[dict[str, Seconds]]] = {tool: [] for tool in TOOLS}
    for _ in range(ROUNDS):
        for tool, project in projects.items():
            rounds[tool].append(one_round(tool, project))
    assert recorded(projects["noria"]) == recorded(projects["dvc"]), "the two wrote different versions"
    return [row(what, rounds) for what in rounds["dvc"][0]]


def row(what: str, rounds: dict[str, Sequence[dict[str, Seconds]]]) -> dict[str, Any]:
    """The medians of one measure, and how many times as long DVC takes."""
    found: dict[str, Any] = {"measure": what}
    for place, unit in enumerate(("wall", "cpu")):
        for tool, taken in rounds.items():
            found[f"{tool}_{unit}_seconds"] = round(median(one[what][place] for one in taken), 2)
        found[f"{unit}_ratio"] = round(found[f"dvc_{unit}_seconds"] / found[f"noria_{unit}_seconds"], 1)
    print("  ".join(f"{name} {value}" for name, value in found.items()), flush=True)
    return found


def main() -> None:
    install_peer()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(Path(scratch))
    print(json.dumps({"bench": "data", "megabytes": MEGABYTES, "files": FILES, "rows": rows}))


if __name__ == "__main__":
    main()
