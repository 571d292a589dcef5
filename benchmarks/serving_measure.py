"""Measuring one server: its answers compared with the model's own, then load, case by case."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from serving_load import Case, Measured, load, middle
from serving_process import NotServing, Running
from serving_wire import Request, Rows, Wire

SECONDS = float(os.environ.get("SECONDS", "5"))
_REST_SECONDS = 2
"""How long a server rests before it is weighed: what a request took is gone by then, what it left behind is not."""
_WARM_UP_SECONDS = 1
_CHECKED_SINGLY = 20
_TOLERANCE = 1e-4
_BEGAN = time.monotonic()


@dataclass(frozen=True)
class Data:
    """``rows`` to ask for, of which the first are those whose ``probabilities`` the model itself gave."""

    rows: Rows
    probabilities: Sequence[float]

    @classmethod
    def read(cls, folder: Path) -> Data:
        """The checked rows that training left, and ten thousand in all."""
        found = json.loads((folder / "check.json").read_text())
        checked, chance = np.array(found["rows"]), np.random.default_rng(7)
        more = checked[chance.integers(0, len(checked), 10_000 - len(checked))]
        return cls(np.concatenate([checked, more + chance.normal(0, 0.5, more.shape)]), found["probabilities"])

    def requests(self, wire: Wire, rows: int) -> list[Request]:
        """Different requests of that many rows: a thousand single ones, sixteen of a hundred, two of all."""
        if rows == len(self.rows):
            return [wire.ask(self.rows), wire.ask(self.rows[::-1])]
        count = 1000 if rows == 1 else 16
        starts = range(0, len(self.rows) - rows + 1, len(self.rows) // count)
        return [wire.ask(self.rows[start : start + rows]) for start in starts][:count]

    def probe(self, wire: Wire) -> Request:
        """A single row."""
        return wire.ask(self.rows[:1])


@dataclass
class Figures:
    """What was measured of one server, by case; ``failed`` says why nothing was."""

    runs: dict[str, list[Measured]] = field(default_factory=dict)
    ready_seconds: list[float] = field(default_factory=list)
    pss_megabytes: list[float] = field(default_factory=list)
    rss_megabytes: list[float] = field(default_factory=list)
    failed: str = ""

    def of(self, case: str) -> Measured | None:
        """The medians of a case; None when it was not measured, or had failures."""
        found = middle(self.runs[case]) if self.runs.get(case) else None
        return None if found is None or found.failed else found

    def as_json(self) -> Mapping[str, object]:
        """Its raw figures."""
        if self.failed:
            return {"failed": self.failed}
        cases = {name: middle(runs) for name, runs in self.runs.items()}
        return {
            "ready_seconds": round(median(self.ready_seconds), 2),
            "pss_megabytes": round(median(self.pss_megabytes), 1),
            "rss_megabytes": round(median(self.rss_megabytes), 1),
            "cases": {
                name: {
                    "requests_per_second": round(found.a_second, 1),
                    "p50_ms": round(found.p50_ms, 3),
                    "p99_ms": round(found.p99_ms, 3),
                    "refused": found.refused,
                    "broken": found.broken,
                    "wrk_cores": round(found.wrk_cores, 2),
                    "server_cores": round(found.server_cores, 2),
                }
                for name, found in cases.items()
            },
        }


def measure(
    name: str, figures: Figures, server: Running, data: Data, cases: Iterable[tuple[Case, Wire]], repeats: int
) -> None:
    """Compare answers, then add ``repeats`` runs of every case, and the memory after them. Raises NotServing."""
    figures.ready_seconds.append(server.ready_seconds)
    for case, wire in cases:
        requests = data.requests(wire, case.rows)
        if case.name not in figures.runs:
            check(server, wire, data, case.rows)
        load(server, requests, case.connections, _WARM_UP_SECONDS)
        runs = [load(server, requests, case.connections, SECONDS) for _ in range(repeats)]
        figures.runs.setdefault(case.name, []).extend(runs)
        found = middle(runs)
        faults = f", FAILED: {found.refused} refused, {found.broken} broken" if found.failed else ""
        tell(f"{name}: {case.name}: {found.a_second:.1f}/s, p99 {found.p99_ms:.2f} ms{faults}")
    time.sleep(_REST_SECONDS)
    figures.pss_megabytes.append(server.megabytes())
    figures.rss_megabytes.append(server.megabytes("Rss"))


def check(server: Running, wire: Wire, data: Data, rows: int) -> None:
    """The server must say what the model says. Raises NotServing where it does not."""
    count = len(data.probabilities)
    wanted = np.array(data.probabilities)
    asked = [data.rows[i : i + 1] for i in range(_CHECKED_SINGLY)] if rows == 1 else [data.rows[:count]]
    labels, probabilities = [], []
    for one in asked:
        found = wire.read(*server.post(wire.ask(one)))
        labels += found[0]
        probabilities += found[1]
    wanted = wanted[: len(probabilities)]
    if labels != (wanted > 0.5).astype(int).tolist() or np.abs(np.array(probabilities) - wanted).max() > _TOLERANCE:
        raise NotServing("its answers are not the model's")


def tell(text: str) -> None:
    """A line of progress."""
    print(f"[{time.monotonic() - _BEGAN:5.0f} s] {text}", file=sys.stderr, flush=True)
