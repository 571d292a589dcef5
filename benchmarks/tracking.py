"""The tracking server against MLflow's own, side by side: `make bench NAME=tracking`.

On SQLite with one worker each, then on PostgreSQL, where MLflow gets its four workers. Both take the same requests in
turn and must give the same answers; ours asks every request for a token, MLflow asks for nothing. STORE=sqlite or
STORE=postgresql runs one of them, RUNS sets how many runs are searched (10,000; ours alone also at ten times that).
Prints a line a measure and, last, one JSON object.
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
INSTALL = ["mlflow==3.17.*", "scikit-learn", "cloudpickle", "psycopg[binary]"]
API = "/api/2.0/mlflow"
REPEATS = 3
RUNS = int(os.environ.get("RUNS", "10000"))
STORES = os.environ.get("STORE", "sqlite postgresql").split()
CONNECTIONS = 8


@dataclass(frozen=True)
class Server:
    """One of the two, answering at ``url``."""

    name: str
    url: str
    pid: int
    ready_seconds: float = 0.0
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"content-type": "application/json"} | ({"authorization": f"Bearer {self.token}"} if self.token else {})

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request: POST with a body, else GET."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + API + path, data, self.headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read() or b"{}")

    def post_all(self, path: str, bodies: Sequence[dict[str, Any]], connections: int = CONNECTIONS) -> Answers:
        """All requests over that many kept-alive connections."""
        return asyncio.run(_post_all(self, API + path, [json.dumps(body).encode() for body in bodies], connections))


@dataclass(frozen=True)
class Answers:
    """What came back, in the order of the requests, and how fast."""

    bodies: list[bytes]
    a_second: float
    p99_ms: float


async def _post_all(target: Server, path: str, bodies: Sequence[bytes], connections: int) -> Answers:
    parts = urlsplit(target.url)
    queue, latencies = iter(enumerate(bodies)), []
    answers: list[bytes] = [b""] * len(bodies)
    fields = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{fields}".encode()

    async def worker() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for number, body in queue:
            began = time.perf_counter()
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert answer[9:12] == b"200", answer
            answers[number] = await _read_body(reader, answer)
            latencies.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(connections)))
    seconds = time.perf_counter() - began
    return Answers(answers, len(bodies) / seconds, sorted(latencies)[int(len(latencies) * 0.99)] * 1000)


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line[15:]))
    pieces = []
    while size := int(await reader.readline(), 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
    await reader.readline()
    return b"".join(pieces)


@contextmanager
def server(
    name: str, command: Sequence[str | Path], folder: Path, port: int, token: str = "", **environment: str
) -> Iterator[Server]:
    """The process, once it answers."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **environment}
        )
    url, began = f"http://127.0.0.1:{port}", time.perf_counter()
    try:
        while True:
            try:
                Server(name, url, process.pid, token=token).call("/experiments/search", {"max_results": 1})
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - began > 180:
                    raise RuntimeError((folder / f"{name}.log").read_text()[-2000:]) from None
                time.sleep(0.05)
        yield Server(name, url, process.pid, time.perf_counter() - began, token)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@contextmanager
def stores(kind: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Two empty databases of a kind, ours and MLflow's."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/noria.db", f"sqlite:///{folder}/mlflow.db"
        return
    sys.path.insert(0, str(ROOT / "tests"))
    import psycopg

    from servers import postgresql

    with postgresql() as url:
        with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
            for name in ("noria_bench", "mlflow_bench"):
                connection.execute(f"CREATE DATABASE {name}")
        yield f"{url}/noria_bench", f"{url}/mlflow_bench"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def install_peer() -> None:
    uv = [sys.executable, "-m", "uv"]
    if not (PEER / "bin/mlflow").exists():
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, PEER], check=True)
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", PEER / "bin/python", *INSTALL], check=True)


def new_run(target: Server, experiment: str = "0", **fields: Any) -> str:
    body = {"experiment_id": experiment, "start_time": round(time.time() * 1000), **fields}
    return str(target.call("/runs/create", body)["run"]["info"]["run_id"])


def log_metrics(target: Server, count: int) -> Answers:
    run = new_run(target)
    bodies = [{"run_id": run, "key": f"m{i % 10}", "value": i, "timestamp": i, "step": i} for i in range(count)]
    return target.post_all("/runs/log-metric", bodies)


def log_batch(target: Server, count: int) -> float:
    """Metrics a second, a thousand a request."""
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
    return 1000 * target.post_all("/runs/log-batch", bodies, 1).a_second


def fill(target: Server, name: str, count: int) -> str:
    """An experiment of many runs with two params and three metrics each."""
    experiment = str(target.call("/experiments/create", {"name": name})["experiment_id"])
    wanted = [{"experiment_id": experiment, "start_time": 1 + i, "run_name": f"run-{i}"} for i in range(count)]
    made = target.post_all("/runs/create", wanted).bodies
    bodies = [
        {
            "run_id": json.loads(answer)["run"]["info"]["run_id"],
            "params": [{"key": "depth", "value": str(i % 7)}, {"key": "kind", "value": "ab"[i % 2]}],
            "metrics": [
                {"key": f"m{k}", "value": (i * 7919 % 10007) / (k + 1), "timestamp": 1, "step": 0} for k in range(3)
            ],
        }
        for i, answer in enumerate(made)
    ]
    target.post_all("/runs/log-batch", bodies)
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


def row(what: str, ours: float, peer: float, goal: float, met: bool, *, less: bool) -> dict[str, Any]:
    """One line of the result, printed as it is found; ``less`` says that a smaller number is better."""
    ratio = (peer / ours if less else ours / peer) if peer and ours else 0.0
    print(
        f"{what:58} ours {ours:10.1f}  MLflow {peer:10.1f}  {ratio:6.1f}x  goal {goal:g} {'met' if met else 'MISSED'}",
        flush=True,
    )
    measured = {"what": what, "ours": round(ours, 1), "peer": round(peer, 1), "ratio": round(ratio, 1)}
    return {**measured, "goal": goal, "met": met}


def faster(
    what: str, measure: Callable[[Server], float], ours: Server, peer: Server, goal: float, *, less: bool = False
) -> dict[str, Any]:
    """Medians of alternating repeats; the goal is how many times better ours is."""
    found: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(REPEATS):
        found["ours"].append(measure(ours))
        found["peer"].append(measure(peer))
    mine, theirs = median(found["ours"]), median(found["peer"])
    return row(what, mine, theirs, goal, (theirs / mine if less else mine / theirs) >= goal, less=less)


def below(
    what: str, measure: Callable[[Server], float], ours: Server, peer: Server | None, limit: float
) -> dict[str, Any]:
    """Medians of alternating repeats; the goal is an upper limit for ours. ``peer`` may be left out."""
    mine, theirs = [], []
    for _ in range(REPEATS):
        mine.append(measure(ours))
        theirs.append(measure(peer) if peer else 0.0)
    return row(what, median(mine), median(theirs), limit, median(mine) < limit, less=True)


def resident_megabytes(target: Server) -> float:
    """Memory of the process and its children."""
    listed = subprocess.run(["ps", "-o", "rss=", "-g", str(target.pid)], capture_output=True, text=True, check=True)
    return sum(int(line) for line in listed.stdout.split()) / 1024


def measure(kind: str, ours: Server, peer: Server) -> Iterator[dict[str, Any]]:
    sqlite = kind == "sqlite"

    def count(target: Server) -> int:
        return 2000 if target is ours else 400

    yield row(
        f"{kind}: seconds until ready", ours.ready_seconds, peer.ready_seconds, 3, ours.ready_seconds < 3, less=True
    )
    yield faster(
        f"{kind}: log_metric a second, 8 connections",
        lambda s: log_metrics(s, count(s)).a_second,
        ours,
        peer,
        10 if sqlite else 5,
    )
    yield below(f"{kind}: log_metric p99 ms, 8 connections", lambda s: log_metrics(s, count(s)).p99_ms, ours, peer, 25)
    yield faster(
        f"{kind}: metrics a second by log_batch(1000)", lambda s: log_batch(s, 20), ours, peer, 8 if sqlite else 5
    )
    experiments = {target.name: fill(target, "many", RUNS) for target in (ours, peer)}
    names = [search(target, experiments[target.name])[1] for target in (ours, peer)]
    assert names[0] == names[1], "the searches differ"
    searched = below(
        f"{kind}: search ms, first 100 of {RUNS} runs, filter and order",
        lambda s: search(s, experiments[s.name])[0],
        ours,
        peer,
        100 if sqlite else 50,
    )
    yield searched
    runs = {target.name: long_run(target) for target in (ours, peer)}
    assert [history(target, runs[target.name])[1] for target in (ours, peer)] == [100_000, 100_000]
    yield below(f"{kind}: history ms, 100,000 points", lambda s: history(s, runs[s.name])[0], ours, peer, 500)
    large = fill(ours, "ten times as many", 10 * RUNS)
    yield below(
        f"{kind}: search ms among ten times as many runs, ours alone; linear is the limit",
        lambda s: search(s, large)[0],
        ours,
        None,
        10 * max(searched["ours"], 1.0),
    )
    used = resident_megabytes(ours)
    yield row(f"{kind}: MB in memory after all that", used, resident_megabytes(peer), 150, used < 150, less=True)


def make_token(project: Path, environment: dict[str, str]) -> str:
    """A contributor's API token."""
    noria = [sys.executable, "-m", "noria"]
    options: dict[str, Any] = {"cwd": project, "check": True, "env": {**os.environ, **environment}}
    subprocess.run(
        [*noria, "users", "add", "bench", "--role", "contributor", "--no-password"],
        **options,
        stdout=subprocess.DEVNULL,
    )
    made = subprocess.run([*noria, "tokens", "create", "bench"], **options, capture_output=True, text=True)
    return made.stdout.strip()


def compare(kind: str, folder: Path) -> Iterator[dict[str, Any]]:
    """All rows of one kind of database."""
    project, ports = folder / "shop", (free_port(), free_port())
    subprocess.run([sys.executable, "-m", "noria", "init", project], check=True, stdout=subprocess.DEVNULL)
    with stores(kind, folder) as (our_url, peer_url):
        environment = {"NORIA_STORE__DATABASE": our_url, "NORIA_ACCESS__ENABLED": "true"}
        token = make_token(project, environment)
        mine = [sys.executable, "-m", "noria", "server", "--project", project, "--port", str(ports[0])]
        theirs = [PEER / "bin/mlflow", "server", "--port", str(ports[1]), "--backend-store-uri", peer_url]
        theirs += ["--workers", "1" if kind == "sqlite" else "4", "--artifacts-destination", folder / "artifacts"]
        with (
            server("noria", mine, folder, ports[0], token, **environment) as ours,
            server("mlflow", theirs, folder, ports[1]) as peer,
        ):
            yield from measure(kind, ours, peer)


def main() -> None:
    install_peer()
    rows = []
    for kind in STORES:
        with tempfile.TemporaryDirectory() as scratch:
            rows += list(compare(kind, Path(scratch)))
    print(json.dumps({"bench": "tracking", "rows": rows}))


if __name__ == "__main__":
    main()
