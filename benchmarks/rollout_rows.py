"""One line of the result, printed as it is found."""

from __future__ import annotations

from math import isnan, nan
from typing import Any


def row(what: str, ours: float, peer: float, goal: float, *, less: bool) -> dict[str, Any]:
    """``less`` says that a smaller number is better; nan stands for no peer, or for no goal."""
    met = None if isnan(goal) else bool(ours <= goal if less else ours >= goal)
    ratio = nan if isnan(peer) or not ours or not peer else peer / ours if less else ours / peer
    told = "no goal" if met is None else f"goal {'<=' if less else '>='} {goal:<8.6g} {'met' if met else 'MISSED'}"
    print(f"{what:76} ours {ours:9.2f}  peer {peer:9.2f} {ratio:7.2f}x  {told}", flush=True)
    return {
        "what": what,
        "ours": known(ours),
        "peer": known(peer),
        "ratio": known(ratio),
        "goal": known(goal),
        "met": met,
    }


def known(value: float) -> float | None:
    """As JSON has it."""
    return None if isnan(value) else round(float(value), 2)
