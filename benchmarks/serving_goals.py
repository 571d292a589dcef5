"""The goals: each a row with what was measured of ours and of what it is compared with, and whether it is met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from serving_load import HUNDRED, MANY, ONE, TEN_THOUSAND, Case, Measured
from serving_measure import Figures
from serving_ours import BARE, FULL, HUNDRED_BINARY, LARGE_BINARY, LOOKUP, NO_OP, SHADOW, WORKERS
from serving_peers import PEERS


@dataclass(frozen=True)
class Row:
    """``ratio`` is how many times better ours is; with ``is_limit`` the goal bounds ours itself. None: not measured."""

    what: str
    ours: float | None
    peer: float | None
    ratio: float | None
    goal: float
    met: bool | None

    def as_json(self) -> Mapping[str, object]:
        """Its fields."""
        return asdict(self)


BEST_AT_100 = "100 rows: requests/s, best of all peers"
_ALL = {peer.name for peer in PEERS}
_STOCK = {peer.name for peer in PEERS if not peer.on_onnx}
_Figure = Callable[[Measured], float]


def _speed(measured: Measured) -> float:
    return measured.a_second


def _p99(measured: Measured) -> float:
    return measured.p99_ms


class Goals:
    """Works out the rows from the figures of our shapes and of the peers, by name."""

    def __init__(self, ours: Mapping[str, Figures], peers: Mapping[str, Figures], batched_row_seconds: float) -> None:
        self._ours, self._peers, self._row_seconds = ours, peers, batched_row_seconds

    def rows(self) -> Sequence[Row]:
        """All of them, in the order of the issue that set them."""
        return [*self._against_peers(), *self._against_ourselves(), *self._limits()]

    def _against_peers(self) -> Iterable[Row]:
        yield self._times("single rows, 64 connections: requests/s, mlflow", MANY, {"mlflow"}, 100)
        yield self._times("single rows, 64 connections: requests/s, best stock peer", MANY, _STOCK, 20)
        yield self._times("single rows, 64 connections: requests/s, kserve-ort", MANY, {"kserve-ort"}, 10)
        yield self._times("single rows, 64 connections: requests/s, litserve-ort", MANY, {"litserve-ort"}, 10)
        yield self._times("single rows, 64 connections: requests/s, fastapi-ort", MANY, {"fastapi-ort"}, 3)
        yield self._times("single rows, 1 connection: requests/s, fastapi-ort", ONE, {"fastapi-ort"}, 1.5)
        yield self._times("single rows, 64 connections: p99 ms, best stock peer", MANY, _STOCK, 10, _p99, less=True)
        yield self._times("100 rows: requests/s, best stock peer", HUNDRED, _STOCK, 4)
        yield self._times(BEST_AT_100, HUNDRED, _ALL, 4)
        yield self._times("10,000 rows JSON: requests/s, mlserver", TEN_THOUSAND, {"mlserver"}, 1.3)
        yield self._times("10,000 rows JSON: requests/s, mlserver-ort", TEN_THOUSAND, {"mlserver-ort"}, 1.3)

    def _against_ourselves(self) -> Iterable[Row]:
        full, bare, many = self._mine(FULL, MANY), self._mine(BARE, MANY), MANY.name
        json_100, json_10k = self._mine(FULL, HUNDRED), self._mine(FULL, TEN_THOUSAND)
        yield _ratio("100 rows: v2 binary, of our JSON", self._mine(FULL, HUNDRED_BINARY), json_100, 1.3)
        yield _ratio("10,000 rows: v2 binary, of our JSON", self._mine(FULL, LARGE_BINARY), json_10k, 1.3)
        yield _ratio(f"{many}: two workers, of one", self._mine(WORKERS, MANY), full, 1.7)
        yield _ratio(f"{many}: with split, metrics and log, of bare", full, bare, 0.65)
        yield _ratio(f"{many}: with a shadow, of without", self._mine(SHADOW, MANY), full, 0.9)
        no_op = self._mine(NO_OP, MANY)
        limit = None if no_op is None else 1 / (1 / no_op + self._row_seconds)
        yield _ratio(f"{many}: bare, of the limit by no-op and ONNX", bare, limit, 0.6)

    def _limits(self) -> Iterable[Row]:
        full = self._ours[FULL]
        for case in (ONE, MANY):
            sent, found = full.of(case.name), self._ours[LOOKUP].of(case.name)
            added = None if sent is None or found is None else max(0.0, found.p99_ms - sent.p99_ms)
            yield _limit(f"{case.name}: p99 ms added by online features", added, 1)
        yield _limit("MB resident after all that, at rest (RSS), one worker", _worst(full.rss_megabytes), 150)
        yield _limit("seconds until the first prediction", _worst(full.ready_seconds), 2)

    def _times(
        self, what: str, case: Case, against: set[str], goal: float, figure: _Figure = _speed, *, less: bool = False
    ) -> Row:
        mine = self._ours[FULL].of(case.name)
        theirs = [figure(found) for name in against & set(self._peers) if (found := self._peers[name].of(case.name))]
        peer = (min(theirs) if less else max(theirs)) if theirs else None
        return _ratio(what, None if mine is None else figure(mine), peer, goal, less=less)

    def _mine(self, shape: str, case: Case) -> float | None:
        found = None if self._ours[shape].failed else self._ours[shape].of(case.name)
        return None if found is None else found.a_second


def _ratio(what: str, ours: float | None, peer: float | None, goal: float, *, less: bool = False) -> Row:
    if not ours or not peer:
        return Row(what, _short(ours), _short(peer), None, goal, None)
    ratio = peer / ours if less else ours / peer
    return Row(what, _short(ours), _short(peer), round(ratio, 2), goal, ratio >= goal)


def _limit(what: str, ours: float | None, goal: float) -> Row:
    return Row(what, _short(ours), None, None, goal, None if ours is None else ours <= goal)


def _worst(found: Sequence[float]) -> float | None:
    return max(found) if found else None


def _short(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 2)
