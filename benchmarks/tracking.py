"""The tracking server against MLflow's own, side by side: `make bench NAME=tracking`.

Both run here with one worker on SQLite, take the same requests in turn, and must give the same answers. Prints a line a
measure and, last, one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".bench/mlflow"
INSTALL = ["mlflow==3.17.*", "scikit-learn", "cloudpickle"]
API = "/api/2.0/mlflow"
REPEATS = 3
RUNS = 2000


@dataclass(frozen=True)
class Server:
    """One of the two, answering at ``url``."""

    name: str
    url: str

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request: POST with a body, else GET."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + API + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read() or b"{}")

    def post_all(self, path: str, bodies: Sequence[dict[str, Any]], connections: int) -> tuple[float, float]:
        """(requests a second, p99 in milliseconds) over that many kept-alive connections."""
        return asyncio.run(_post_all(self.url, API + path, [json.dumps(body).encode() for body in bodies], connections))


async def _post_all(url: str, path: str, bodies: Sequence[bytes], connections: int) -> tuple[float, float]:
    parts = urlsplit(url)
    queue, latencies = iter(bodies), []

    async def worker() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for body in queue:
            began = time.perf_counter()
            head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert answer[9:12] == b"200", answer
            await _read_body(reader, answer)
            latencies.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(connections)))
    seconds = time.perf_counter() - began
    return len(bodies) / seconds, sorted(latencies)[int(len(latencies) * 0.99)] * 1000


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> None:
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line[15:]))
            return
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()


@contextmanager
def server(name: str, command: Sequence[str | Path], folder: Path, port: int) -> Iterator[Server]:
    """The process, once it answers."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    made = Server(name, f"http://127.0.0.1:{port}")
    began = time.perf_counter()
    try:
        while True:
            try:
                made.call("/experiments/search", {"max_results": 1})
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - began > 120:
                    raise RuntimeError((folder / f"{name}.log").read_text()[-2000:]) from None
                time.sleep(0.1)
        print(f"{name} ready after {time.perf_counter() - began:.1f} s", flush=True)
        yield made
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def install_peer() -> None:
    if not (PEER / "bin/mlflow").exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, PEER], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", PEER / "bin/python", *INSTALL], check=True)


def new_run(target: Server, experiment: str = "0", **fields: Any) -> str:
    body = {"experiment_id": experiment, "start_time": round(time.time() * 1000), **fields}
    return str(target.call("/runs/create", body)["run"]["info"]["run_id"])


def log_metric(target: Server, count: int) -> float:
    run = new_run(target)
    bodies = [{"run_id": run, "key": f"m{i % 10}", "value": i, "timestamp": i, "step": i} for i in range(count)]
    return target.post_all("/runs/log-metric", bodies, 8)[0]


def log_metric_p99(target: Server, count: int) -> float:
    run = new_run(target)
    bodies = [{"run_id": run, "key": f"m{i % 10}", "value": i, "timestamp": i, "step": i} for i in range(count)]
    return target.post_all("/runs/log-metric", bodies, 8)[1]


def log_batch(target: Server, count: int) -> float:
    run = new_run(target)
    bodies = [
        {
            "run_id": run,
            "metrics": [
                {"key": f"m{i % 10}", "value": i, "timestamp": i, "step": batch * 1000 + i} for i in range(1000)
            ],
        }
        for batch in range(count)
    ]
    return 1000 * target.post_all("/runs/log-batch", bodies, 1)[0]


def fill(target: Server) -> str:
    """An experiment of many runs with two params and three metrics each."""
    experiment = str(target.call("/experiments/create", {"name": "many"})["experiment_id"])
    runs = [new_run(target, experiment, run_name=f"run-{i}") for i in range(RUNS)]
    bodies = [
        {
            "run_id": run,
            "params": [{"key": "depth", "value": str(i % 7)}, {"key": "kind", "value": "ab"[i % 2]}],
            "metrics": [
                {"key": f"m{k}", "value": (i * 7919 % 10007) / (k + 1), "timestamp": 1, "step": 0} for k in range(3)
            ],
        }
        for i, run in enumerate(runs)
    ]
    target.post_all("/runs/log-batch", bodies, 8)
    return experiment


def search(target: Server, experiment: str) -> tuple[float, list[str]]:
    """(milliseconds, names) of the first 100 of a filtered and ordered search."""
    body = {
        "experiment_ids": [experiment],
        "filter": "metrics.m0 > 2000 and params.kind = 'a'",
        "order_by": ["metrics.m1 DESC"],
        "max_results": 100,
    }
    began = time.perf_counter()
    found = target.call("/runs/search", body)["runs"]
    return (time.perf_counter() - began) * 1000, [run["info"]["run_name"] for run in found]


def history(target: Server, run: str) -> tuple[float, int]:
    """(milliseconds, points) of a whole metric history, page by page."""
    began, points, token = time.perf_counter(), 0, ""
    while True:
        query = f"/metrics/get-history?run_id={run}&metric_key=m0&max_results=25000" + (
            f"&page_token={token}" if token else ""
        )
        page = target.call(query)
        points += len(page.get("metrics", []))
        token = page.get("next_page_token", "")
        if not token:
            return (time.perf_counter() - began) * 1000, points


def long_run(target: Server) -> str:
    run = new_run(target)
    for batch in range(100):
        values = [{"key": "m0", "value": i, "timestamp": i, "step": batch * 1000 + i} for i in range(1000)]
        target.call("/runs/log-batch", {"run_id": run, "metrics": values})
    return run


def compare(
    what: str, measure: Callable[[Server], float], ours: Server, peer: Server, goal: float, *, less: bool
) -> dict[str, Any]:
    """Medians of alternating repeats; ``less`` says that a smaller number is better."""
    found: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(REPEATS):
        found["ours"].append(measure(ours))
        found["peer"].append(measure(peer))
    mine, theirs = median(found["ours"]), median(found["peer"])
    ratio = theirs / mine if less else mine / theirs
    row = {
        "what": what,
        "ours": round(mine, 1),
        "peer": round(theirs, 1),
        "ratio": round(ratio, 1),
        "goal": goal,
        "met": ratio >= goal,
    }
    verdict = "met" if row["met"] else "MISSED"
    print(f"{what:44} ours {mine:10.1f}  MLflow {theirs:10.1f}  {ratio:6.1f}x  goal {goal}x {verdict}", flush=True)
    return row


def main() -> None:
    install_peer()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        project = folder / "shop"
        noria = [sys.executable, "-m", "noria"]
        subprocess.run([*noria, "init", project], check=True, stdout=subprocess.DEVNULL)
        ports = free_port(), free_port()
        mine = [*noria, "server", "--project", project, "--port", str(ports[0])]
        theirs = [PEER / "bin/mlflow", "server", "--port", str(ports[1]), "--workers", "1"]
        theirs += [
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination",
            folder / "artifacts",
        ]
        with server("noria", mine, folder, ports[0]) as ours, server("mlflow", theirs, folder, ports[1]) as peer:
            rows = [
                compare(
                    "log_metric a second, 8 connections",
                    lambda s: log_metric(s, 2000 if s is ours else 300),
                    ours,
                    peer,
                    10,
                    less=False,
                ),
                compare(
                    "log_metric p99 ms, 8 connections",
                    lambda s: log_metric_p99(s, 2000 if s is ours else 300),
                    ours,
                    peer,
                    10,
                    less=True,
                ),
                compare("metrics a second by log_batch(1000)", lambda s: log_batch(s, 20), ours, peer, 8, less=False),
            ]
            experiments = {target.name: fill(target) for target in (ours, peer)}
            names = [search(target, experiments[target.name])[1] for target in (ours, peer)]
            assert names[0] == names[1] and len(names[0]) == 100, "the searches differ"
            rows.append(
                compare(
                    f"search ms, 100 of {RUNS} runs, filter and order",
                    lambda s: search(s, experiments[s.name])[0],
                    ours,
                    peer,
                    5,
                    less=True,
                )
            )
            runs = {target.name: long_run(target) for target in (ours, peer)}
            assert [history(target, runs[target.name])[1] for target in (ours, peer)] == [100_000, 100_000]
            rows.append(
                compare("history ms, 100,000 points", lambda s: history(s, runs[s.name])[0], ours, peer, 10, less=True)
            )
    print(json.dumps({"bench": "tracking", "rows": rows}))


if __name__ == "__main__":
    main()
