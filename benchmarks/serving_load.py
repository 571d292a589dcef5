"""Load by wrk, from a script that cycles through given requests: how many a second, how long each took."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from serving_process import Running
from serving_wire import Request

_SCRIPT = """\
local files, requests, at = {files}, {{}}, 0
{headers}
function init(args)
  for place, path in ipairs(files) do
    local file = assert(io.open(path, "rb"))
    requests[place] = wrk.format("POST", "{path}", nil, file:read("*a"))
    file:close()
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format('{{"requests": %d, "micros": %d, "p50": %f, "p99": %f, "refused": %d, "broken": %d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
"""
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Measured:
    """One run, or the medians of several.

    ``refused`` requests were answered with an error's status, ``broken`` ones not at all. ``wrk_cores`` is how much of
    a processor the load itself took, ``server_cores`` how much the server did: what a busy machine changes least.
    """

    a_second: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int
    wrk_cores: float
    server_cores: float

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return self.refused + self.broken


@dataclass(frozen=True)
class Case:
    """What is asked: so many rows a request, over so many connections."""

    name: str
    rows: int
    connections: int


ONE, MANY = Case("single rows, 1 connection", 1, 1), Case("single rows, 64 connections", 1, 64)
HUNDRED, TEN_THOUSAND = Case("100 rows, 4 connections", 100, 4), Case("10,000 rows, 2 connections", 10_000, 2)


def find_wrk() -> str:
    """The path of wrk; ends the program when it is missing."""
    found = shutil.which("wrk")
    if found is None:
        print("wrk makes the load, and it is not installed: apt-get install wrk", file=sys.stderr)
        sys.exit(2)
    return found


def load(server: Running, requests: Sequence[Request], connections: int, seconds: float) -> Measured:
    """Send ``requests`` over and over on that many kept-alive connections, then wait for what they left unanswered."""
    with tempfile.TemporaryDirectory(prefix="noria-bench-wrk-") as scratch:
        script = _write_script(Path(scratch), requests)
        command = [find_wrk(), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        command += ["--timeout", f"{_TIMEOUT_SECONDS}s", "-s", str(script), server.url]
        before, spent = os.times(), server.cpu_seconds()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        after, spent = os.times(), server.cpu_seconds() - spent
    found = json.loads(done.stdout.splitlines()[-1])
    taken, p50, p99 = found["micros"] / 1e6, found["p50"] / 1000, found["p99"] / 1000
    broken = found["broken"] if found["requests"] else max(1, found["broken"])
    used = after.children_user + after.children_system - before.children_user - before.children_system
    time.sleep(0.1 + 2 * p99 / 1000)
    return Measured(found["requests"] / taken, p50, p99, found["refused"], broken, used / taken, spent / taken)


def middle(runs: Sequence[Measured]) -> Measured:
    """The medians of several runs, and all their failures."""
    return Measured(
        median(run.a_second for run in runs),
        median(run.p50_ms for run in runs),
        median(run.p99_ms for run in runs),
        sum(run.refused for run in runs),
        sum(run.broken for run in runs),
        median(run.wrk_cores for run in runs),
        median(run.server_cores for run in runs),
    )


def _write_script(folder: Path, requests: Sequence[Request]) -> Path:
    files = []
    for place, request in enumerate(requests):
        files.append(folder / f"{place}.body")
        files[-1].write_bytes(request.body)
    listed = "{" + ", ".join(f'"{file}"' for file in files) + "}"
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in requests[0].headers.items())
    script = folder / "load.lua"
    script.write_text(_SCRIPT.format(files=listed, headers=headers, path=requests[0].path))
    return script
