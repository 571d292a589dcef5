"""The feature store against Feast, side by side: `make bench NAME=features`.

Both read the same Parquet files and must give the same answers. SCALE=0.1 makes everything ten times smaller. Prints a
line a measure and, last, one JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import features_online
from features_join import join_rows

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".bench/feast"
INSTALL = ["feast[duckdb]==0.67.*"]
SCALE = float(os.environ.get("SCALE", "1"))


def online_rows(_peer: Path, _scale: float) -> Iterator[dict[str, Any]]:
    """Lookups, materialization, and lookups beside a writer."""
    yield from features_online.rows()


PARTS: Sequence[Callable[[Path, float], Iterator[dict[str, Any]]]] = (join_rows, online_rows)
"""Each takes the Python of the peer and the scale, and gives the rows of its measures."""


def install_peer() -> Path:
    """The Python of an environment that has Feast."""
    python, uv = PEER / "bin/python", [sys.executable, "-m", "uv"]
    if not (PEER / "bin/feast").exists():
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, PEER], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", python, *INSTALL], check=True)
    return python


def main() -> None:
    python = install_peer()
    rows = [row for part in PARTS for row in part(python, SCALE)]
    print(json.dumps({"bench": "features", "rows": rows}))


if __name__ == "__main__":
    main()
