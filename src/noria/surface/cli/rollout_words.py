"""How `noria rollout` tells of rollouts: as rows for programs, and in words for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from noria.rollout import Rollout


def rollout_row(rollout: Rollout, percent: float) -> dict[str, object]:
    """One rollout; ``percent`` is the challengers' of now."""
    return {
        "rollout": rollout.rollout_id[:8],
        "deployment": rollout.deployment,
        "strategy": rollout.plan.strategy.value,
        "champion": rollout.champion,
        "challengers": rollout.challengers,
        "status": rollout.status,
        "step": rollout.step + 1,
        "steps": rollout.steps,
        "percent": percent,
        "started_at": rollout.started_at,
        "ended_at": rollout.ended_at,
    }


def narrow(row: Mapping[str, object]) -> dict[str, object]:
    """What of a row has room on 80 columns."""
    started, status = row["started_at"], str(row["status"]).replace("_", " ")
    return {
        "rollout": row["rollout"],
        "deployment": row["deployment"],
        "strategy": row["strategy"],
        "versions": f"{_listed(row['challengers'])} vs {row['champion']}",
        "status": f"{status} {row['percent']:.3g}%" if row["ended_at"] is None else status,
        "started (UTC)": f"{started:%d %b %H:%M}",
    }


def in_words(row: Mapping[str, object]) -> dict[str, object]:
    """The row to read: lists as words, the step of how many, without what is not yet, such as an end."""
    words = {
        **row,
        "challengers": _listed(row["challengers"]),
        "step": f"{row['step']} of {len(cast(Sequence[float], row['steps']))}",
        "steps": None,
    }
    return {name: value for name, value in words.items() if value is not None}


def _listed(numbers: object) -> str:
    return ", ".join(map(str, cast(Sequence[int], numbers)))


def readable(look: Mapping[str, object], reason: str) -> dict[str, object]:
    """What a look saw, one line a guard; ``reason`` names what its reason is one for."""
    found: dict[str, object] = {reason: look.get("reason")}
    guards = look.get("guards")
    if isinstance(guards, list):
        found["guards"] = [f"{one['guard']}: {one['state']}: {one['reason']}" for one in guards]
    for name, value in look.items():
        if name not in ("reason", "guards"):
            found[name] = flat(_each_pair_once(value)) if isinstance(value, Mapping) else value
    return found


def _each_pair_once(measure: Mapping[str, object]) -> Mapping[str, object]:
    """An experiment's comparisons are kept both ways round; to read, one is enough."""
    comparisons = measure.get("comparisons")
    if not isinstance(comparisons, list):
        return measure
    pairs = {frozenset((one["arm"], one["other"])): one for one in reversed(comparisons)}
    return {**measure, "comparisons": list(pairs.values())[::-1]}


def flat(document: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """A document without levels: their names joined by dots."""
    found: dict[str, object] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            plain = not any(isinstance(item, Mapping) for item in value)
            found[prefix + name] = ", ".join(map(str, value)) if plain else [_line(item) for item in value]
        elif value is not None:
            found[prefix + name] = value
    return found


def _line(document: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in document.items()
    )


def shares_told(shares: Mapping[str, float]) -> str:
    """A bandit\'s shares as percents by name."""
    return ", ".join(f"{name} {100 * share:.1f}%" for name, share in shares.items())
