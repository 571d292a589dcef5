"""The chart of detector statistics: SVG coordinates, computed on the server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from noria.monitoring.records import Verdict, WindowResult

WIDTH, HEIGHT = 900, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 8, 12, 26
_CEILING_DECADES = 5
_TICKS = 6


@dataclass(frozen=True, slots=True)
class Line:
    """One detector's statistic over time; ``parts`` break where the model changed."""

    detector: str
    parts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Mark:
    """A point to look at: a verdict, or a tick of an axis."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """All that the template draws, in a viewBox of WIDTH by HEIGHT."""

    lines: Sequence[Line]
    threshold_y: float
    threshold: float
    verdicts: Sequence[Mark]
    dates: Sequence[Mark]
    decades: Sequence[Mark]


def draw(windows: Sequence[WindowResult], verdicts: Sequence[Verdict]) -> Chart | None:
    """The chart of ``windows`` on a log scale, capped at 10^5; None when there is nothing to draw."""
    if len({window.window_start for window in windows}) < 2:
        return None
    first, last = windows[0].window_start, windows[-1].window_start
    threshold = windows[-1].threshold

    def x(moment: datetime) -> float:
        return round(_LEFT + (moment - first) / (last - first) * (WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        decades = min(max(math.log10(max(value, 1e-9)), 0.0), _CEILING_DECADES)
        return round(HEIGHT - _BOTTOM - decades / _CEILING_DECADES * (HEIGHT - _TOP - _BOTTOM), 1)

    lines = []
    for detector in sorted({window.detector for window in windows}):
        mine = [window for window in windows if window.detector == detector]
        parts = []
        for version in sorted({window.model_version for window in mine}):
            points = [w for w in mine if w.model_version == version]
            parts.append(" ".join(f"{x(w.window_start)},{y(w.statistic)}" for w in points))
        lines.append(Line(detector, parts))
    ticks = [first + (last - first) * index / (_TICKS - 1) for index in range(_TICKS)]
    return Chart(
        lines=lines,
        threshold_y=y(threshold),
        threshold=threshold,
        verdicts=[
            Mark(x(v.window_start), y(v.statistic), f"{v.detector}: {v.window_start:%d %b %Y}") for v in verdicts
        ],
        dates=[Mark(x(tick), HEIGHT - 8, f"{tick:%d %b}") for tick in ticks],
        decades=[Mark(_LEFT - 6, y(10**power), f"{10**power:,}") for power in range(_CEILING_DECADES + 1)],
    )
