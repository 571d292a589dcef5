"""What the page of a rollout shows: its traffic over time, its evidence as intervals, its decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from noria.rollout import Rollout, RouteTable, current_routes
from noria.rollout.deployments import published_routes
from noria.rollout.evidence import ERRORS, LATENCY, REWARD
from noria.rollout.records import (
    PROMOTED,
    RolloutDecision,
    RolloutStep,
    get_rollout,
    list_decisions,
    list_steps,
    percent_now,
    seen_last,
    share_history,
)
from noria.store.database import Transaction
from noria.surface.console.chart import Mark

_WIDTH, _HEIGHT = 900, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 8, 12, 26
_TICKS = 5
_AN_HOUR = timedelta(hours=1)
_HALF = 110
"""Half the width of an interval's drawing, whose zero is at 120."""

_SHOWN = ("reason", "guards", "experiment", "arms", "shares")
"""What of a look has a place of its own on the page."""
_UNITS = {ERRORS: (100.0, " points"), LATENCY: (100.0, " points"), REWARD: (100.0, " %")}
"""As the guards write their numbers: shares of requests in percentage points, a loss of reward in percent."""


@dataclass(frozen=True, slots=True)
class ShareLine:
    """One variant's share over time, as points of a polyline; ``color`` is the variant's among those of the routes."""

    name: str
    color: int
    points: str


@dataclass(frozen=True, slots=True)
class ShareChart:
    """Shares of the traffic over time, in a viewBox of ``width`` by ``height``."""

    width: int
    height: int
    lines: Sequence[ShareLine]
    levels: Sequence[Mark]
    dates: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bounds: places on an axis whose middle is no difference, and the numbers in words."""

    low: float
    estimate: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Compared:
    """One thing that is compared between the arms."""

    name: str
    state: str
    reason: str
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class ArmRow:
    """What one arm of a bandit has earned, and its share of the traffic, in percent; None without one yet."""

    name: str
    mean: str
    rewards: int
    pending: int
    percent: float | None


@dataclass(frozen=True, slots=True)
class RolloutPage:
    """All that the page needs."""

    rollout: Rollout
    routes: RouteTable | None
    shares: ShareChart | None
    looked_at: datetime | None
    reason: str
    comparisons: Sequence[Compared]
    arms: Sequence[ArmRow]
    measures: Sequence[tuple[str, str]]
    decisions: Sequence[RolloutDecision]
    percent: float
    may_change: bool
    serves_on: int | None
    """The version that it promoted, while the routes are as it left them: what a rollback would take back."""


def gather_rollout(tx: Transaction, rollout_id: str, now: datetime, *, may_change: bool) -> RolloutPage:
    """Read one rollout. Raises NotFound."""
    rollout = get_rollout(tx, rollout_id)
    look = seen_last(tx, rollout)
    seen = look[0] if look else {}
    return RolloutPage(
        rollout,
        published_routes(tx, rollout.deployment) if rollout.is_open else None,
        _share_chart(tx, rollout, rollout.ended_at or now),
        look[1] if look else None,
        str(seen.get("reason", "")),
        _comparisons(seen),
        _arms(seen),
        _measures({name: value for name, value in seen.items() if name not in _SHOWN}),
        list_decisions(tx, rollout.rollout_id),
        percent_now(tx, rollout),
        may_change,
        _serves_on(tx, rollout),
    )


def _serves_on(tx: Transaction, rollout: Rollout) -> int | None:
    routes = current_routes(tx, rollout.deployment)
    if rollout.status != PROMOTED or routes is None or routes.created_at != rollout.ended_at:
        return None
    return routes.variants[0].version


def _share_chart(tx: Transaction, rollout: Rollout, until: datetime) -> ShareChart | None:
    """Of a bandit its shares, of the others the challengers' percent at each step."""
    if history := share_history(tx, rollout.rollout_id):
        names = list(history[-1][1])
        series = {name: [(at, 100 * shares.get(name, 0.0)) for at, shares in history] for name in names}
    else:
        names = ["", "challengers"]
        series = {names[1]: _percents(rollout, list_steps(tx, rollout.rollout_id))}
    first = min((points[0][0] for points in series.values() if points), default=until)
    if (until - first).total_seconds() <= 0:
        return None

    def x(moment: datetime) -> float:
        return round(_LEFT + (moment - first) / (until - first) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(percent: float) -> float:
        return round(_HEIGHT - _BOTTOM - percent / 100 * (_HEIGHT - _TOP - _BOTTOM), 1)

    lines = []
    for name, points in series.items():
        corners: list[str] = []
        for place, (at, percent) in enumerate(points):
            after = points[place + 1][0] if place + 1 < len(points) else until
            corners += [f"{x(at)},{y(percent)}", f"{x(after)},{y(percent)}"]
        lines.append(ShareLine(name, names.index(name) + 1, " ".join(corners)))
    ticks = [first + (until - first) * place / (_TICKS - 1) for place in range(_TICKS)]
    form = "%d %b" if (until - first).days >= _TICKS else "%d %b %H:%M" if until - first > _AN_HOUR else "%H:%M:%S"
    return ShareChart(
        _WIDTH,
        _HEIGHT,
        lines,
        [Mark(_LEFT - 6, y(level), f"{level} %") for level in (0, 50, 100)],
        [Mark(x(tick), _HEIGHT - 8, tick.strftime(form)) for tick in ticks],
    )


def _percents(rollout: Rollout, steps: Sequence[RolloutStep]) -> list[tuple[datetime, float]]:
    return [(step.started_at, rollout.steps[step.step]) for step in steps]


def _comparisons(seen: Mapping[str, Any]) -> Sequence[Compared]:
    """The guards' findings, and each pair of an experiment's arms once."""
    found = [
        Compared(_of_arm(one), str(one["state"]), str(one["reason"]), _interval(one, *_UNITS.get(one["guard"], ())))
        for one in seen.get("guards") or ()
    ]
    pairs = set()
    for one in (seen.get("experiment") or {}).get("comparisons") or ():
        if (pair := frozenset((one["arm"], one["other"]))) in pairs:
            continue
        pairs.add(pair)
        state = "ok" if one["lower"] > 0 else "harmed" if one["upper"] < 0 else "undecided"
        words = f"mean reward a unit, p {one['p_value']:.3g}"
        found.append(Compared(f"{one['arm']} against {one['other']}", state, words, _interval(one)))
    return found


def _of_arm(finding: Mapping[str, Any]) -> str:
    """A guard, and of several challengers which one it is about."""
    arm = finding.get("arm")
    return f"{finding['guard']} of {arm}" if arm else str(finding["guard"])


def _interval(document: Mapping[str, Any], scale: float = 1.0, unit: str = "") -> Interval | None:
    """The numbers in words are ``scale`` times those kept, of ``unit``."""
    values = [document.get(name) for name in ("lower", "estimate", "upper")]
    if any(value is None for value in values):
        return None
    low, estimate, high = (scale * float(value) + 0.0 for value in values if value is not None)  # -0.0 becomes 0.0
    most = max(abs(value) for value in (low, estimate, high) if abs(value) < 1e9) or 1.0

    def place(value: float) -> float:
        return round(120 + max(-1.0, min(1.0, value / most)) * _HALF, 1)

    return Interval(place(low), place(estimate), place(high), f"{estimate:+.3g}{unit} ({low:+.3g} to {high:+.3g})")


def _arms(seen: Mapping[str, Any]) -> Sequence[ArmRow]:
    """The arms of a bandit; those without a reward have no mean to show."""
    shares = seen.get("shares") or {}
    return [
        ArmRow(
            name,
            f"{arm['mean']:.4g}" if arm["rewards"] else "",
            arm["rewards"],
            arm["pending"],
            100 * shares[name] if name in shares else None,
        )
        for name, arm in (seen.get("arms") or {}).items()
    ]


def _measures(seen: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """What else a look saw, one line each."""
    found: list[tuple[str, str]] = []
    for name, value in seen.items():
        told = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            found += _measures(value, f"{told} · ")
        elif isinstance(value, float):
            found.append((told, f"{value:.6g}"))
        elif isinstance(value, int) and value >= 10_000:
            found.append((told, f"{value:,}"))
        elif isinstance(value, list):
            found.append((told, ", ".join(map(str, value))))
        elif value is not None:
            found.append((told, str(value)))
    return found
