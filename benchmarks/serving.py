"""Serving against every model server we know of, side by side: `make bench NAME=serving`.

All answer with the same forest (30 features, 100 trees), which is compared first: the same labels, probabilities within
1e-4. One server runs at a time, under load by wrk (Debian: apt-get install wrk); ours takes its turns before, between
and after the peers, so that a machine that changes under them is seen. PEERS=fastapi,fastapi-ort runs these alone
(PEERS=none: no peer), REPEATS (3) runs of SECONDS (5) each are taken, and their medians. Prints a table of the goals,
one of all figures and, last, one JSON object; a server that does not install or answer is named there with the reason.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from serving_goals import BEST_AT_100, Goals, Row
from serving_load import HUNDRED, MANY, ONE, TEN_THOUSAND, Measured, find_wrk
from serving_measure import SECONDS, Data, Figures, measure, tell
from serving_ours import FULL, WORKERS, batched_row_seconds, load_average, take_turn
from serving_peers import PEERS, Peer, environment_of, install, make_mlflow_models, make_model
from serving_process import NotServing, free_port, serving

REPEATS = int(os.environ.get("REPEATS", "3"))
_QUIET = 1.25
_TWO_PROCESSORS = 1.9
CASES = (ONE, MANY, HUNDRED, TEN_THOUSAND)


def chosen_peers() -> Sequence[Peer]:
    """Those that PEERS names; ends the program when it names one there is not."""
    asked = os.environ.get("PEERS", "all")
    names = [] if asked == "none" else asked.replace(",", " ").split()
    known = {peer.name: peer for peer in PEERS}
    if names == ["all"]:
        return PEERS
    if unknown := [name for name in names if name not in known]:
        print(f"PEERS has {', '.join(unknown)}; there are {', '.join(known)}, all and none", file=sys.stderr)
        sys.exit(2)
    return [known[name] for name in names]


def measure_peer(peer: Peer, model: Path, data: Data, scratch: Path) -> Figures:
    """All cases of one peer; never raises for what is the peer's fault."""
    figures, folder = Figures(), scratch / peer.name
    folder.mkdir()
    try:
        binaries = install(peer.environment)
        if peer.environment == "serving-mlflow" and not (model / "mlflow-onnx").exists():
            make_mlflow_models(model)
        port = free_port()
        command, environment = peer.command(binaries, model, folder, port), environment_of(peer, binaries, model)
        with serving([command], port, data.probe(peer.wire), folder, environment) as server:
            measure(peer.name, figures, server, data, [(case, peer.wire) for case in CASES], REPEATS)
    except (NotServing, OSError) as error:
        figures.failed = f"{type(error).__name__}: {error}"
        tell(f"{peer.name}: FAILED: {error}")
    return figures


def measure_all(peers: Sequence[Peer], scratch: Path) -> tuple[dict[str, Figures], dict[str, Figures], float]:
    """Our shapes' figures, the peers', and what a row costs in the runtime alone."""
    model = scratch / "model"
    model.mkdir()
    make_model(model)
    data = Data.read(model)
    row_seconds = batched_row_seconds(model, scratch, data.rows)
    ours: dict[str, Figures] = {}
    found: dict[str, Figures] = {}
    for turn in range(REPEATS):
        take_turn(ours, model, data, scratch)
        between = slice(len(peers) * turn // max(1, REPEATS - 1), len(peers) * (turn + 1) // max(1, REPEATS - 1))
        for peer in peers[between]:
            found[peer.name] = measure_peer(peer, model, data, scratch)
    return ours, found, row_seconds


def goals_table(rows: Sequence[Row]) -> Table:
    table = Table(title="Goals")
    for column in ("what", "ours", "compared with", "ratio", "goal", ""):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        said = "not measured" if row.met is None else "met" if row.met else "MISSED"
        limit = row.peer is None and row.ratio is None and row.met is not None
        goal = f"≤ {row.goal:g}" if limit or "added" in row.what else f"≥ {row.goal:g}x"
        table.add_row(row.what, _figure(row.ours), _figure(row.peer), _figure(row.ratio), goal, said)
    return table


def figures_table(servers: Mapping[str, Figures]) -> Table:
    table = Table(title="Requests a second, and in brackets the 99th percentile in ms")
    cases = ("1 connection", "64 connections", "100 rows", "10,000 rows")
    for column in ("server", *cases, "CPU µs a request", "MB (PSS)", "ready s"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for name, figures in servers.items():
        raw = figures.as_json()
        if figures.failed:
            table.add_row(name, f"failed: {figures.failed.splitlines()[0][:80]}")
            continue
        cells = [_cell(figures, case.name) for case in CASES]
        table.add_row(name, *cells, _cpu(figures), str(raw["pss_megabytes"]), str(raw["ready_seconds"]))
    return table


def _cell(figures: Figures, case: str) -> str:
    if case not in figures.runs:
        return ""
    found = figures.of(case)
    return "failed" if found is None else f"{found.a_second:,.1f} ({found.p99_ms:,.1f})"


def _cpu(figures: Figures) -> str:
    """Processor time of the server at 64 connections, which a busy machine changes less than anything else."""
    found = figures.of(MANY.name)
    return "" if found is None else f"{found.server_cores / found.a_second * 1e6:,.0f}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"


def warn_of_noise(found: Mapping[str, float]) -> None:
    """Say so when our own turns, minutes apart, differ by more than what is compared."""
    case, most = max(found.items(), key=lambda one: one[1], default=("", 1.0))
    if most > _QUIET:
        tell(f"the machine was busy: our own turns differ by {most:.2f}x at {case}; trust ratios of CPU time at most")


def warn_of_processors(workers: Measured | None) -> None:
    """Say so when two workers did not get a processor each, the load having taken its part of them."""
    if workers is not None and workers.server_cores < _TWO_PROCESSORS:
        tell(
            f"two workers had {workers.server_cores:.2f} processors, the load {workers.wrk_cores:.2f}: "
            "what a second worker adds shows with a third processor"
        )


def tell_of_the_model(rows: Sequence[Row], row_seconds: float) -> None:
    """Say what the model leaves to gain at 100 rows: no server around it is faster than it alone."""
    missed = next((row for row in rows if row.what == BEST_AT_100 and row.peer and not row.met), None)
    if missed is not None and missed.peer is not None:
        alone = 1 / (HUNDRED.rows * row_seconds)
        tell(
            f"100 rows: the model alone does {alone:,.0f} requests/s on one processor, {alone / missed.peer:.2f}x the "
            "best peer: what a server around it adds can come near that, not beyond"
        )


def noise(figures: Figures) -> Mapping[str, float]:
    """How far apart our own turns are, the fastest over the slowest, by case."""
    return {
        case: round(max(run.a_second for run in runs) / max(1e-9, min(run.a_second for run in runs)), 2)
        for case, runs in figures.runs.items()
    }


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are ended, too
    find_wrk()
    peers, before = chosen_peers(), load_average()
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as scratch:
        ours, found, row_seconds = measure_all(peers, Path(scratch))
    rows = Goals(ours, found, row_seconds).rows()
    console = Console(width=160)
    console.print(goals_table(rows), figures_table({**ours, **found}))
    spread = noise(ours[FULL])
    warn_of_noise(spread)
    warn_of_processors(ours[WORKERS].of(MANY.name))
    tell_of_the_model(rows, row_seconds)
    document = {
        "bench": "serving",
        "rows": [row.as_json() for row in rows],
        "ours": {name: figures.as_json() for name, figures in ours.items()},
        "peers": {name: figures.as_json() for name, figures in found.items()},
        "noise": spread,
        "batched_row_micros": round(row_seconds * 1e6, 2),
        "load_average": [before, load_average()],
        "processors": os.cpu_count(),
        "seconds": SECONDS,
        "repeats": REPEATS,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
