"""Which arms of a bandit do harm: the guards of errors and latency, where the shares change all the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from noria.lifecycle.evidence import Evidence
from noria.rollout.evidence import ERRORS, LATENCY, ArmEvidence, GuardFinding, GuardSettings, GuardState, StepEvidence
from noria.rollout.guards import judge_guards
from noria.rollout.planning import LatencyBar

if TYPE_CHECKING:
    import polars as pl

_EVENTS = {ERRORS: "failed", LATENCY: "slow"}
_TOGETHER, _SEED = 100, 7


def harmed_arms(
    evidence: Evidence, settings: GuardSettings, champion: str, challengers: Sequence[str], fixed: Mapping[str, object]
) -> Mapping[str, GuardFinding]:
    """The challengers that harm, and how; ``fixed`` says what is slow (``looks.fixed_at_start``)."""
    bar = msgspec.convert(fixed["bar"], LatencyBar) if "bar" in fixed else None
    since = int(str(fixed.get("since", 0)))
    usual = evidence.pulls(champion, bar, since)
    found = {}
    for name in challengers:
        tried = evidence.pulls(name, bar, since)
        steps = {guard: _step(usual, tried, _EVENTS[guard], bar) for guard in settings.guards if guard in _EVENTS}
        findings = [
            one for guard, step in steps.items() for one in judge_guards(settings, [step]) if one.guard == guard
        ]
        if harm := [one for one in findings if one.state is GuardState.HARMED]:
            several = replace(harm[0], arm=name, reason=f"{name}: {harm[0].reason}")
            found[name] = several if len(challengers) > 1 else harm[0]
    return found


def _step(champion: pl.DataFrame, challenger: pl.DataFrame, event: str, bar: LatencyBar | None) -> StepEvidence:
    """Both arms so far, with the share that holds for ``event``."""
    share = _share(champion, challenger, event)
    return StepEvidence(_arm(champion, 1 - share, bar), _arm(challenger, share, bar), bar)


def _arm(pulls: pl.DataFrame, share: float, bar: LatencyBar | None) -> ArmEvidence:
    slow = None if bar is None else int(pulls["slow"].sum())
    return ArmEvidence(share, pulls.height, int(pulls["failed"].sum()), slow)


def _share(champion: pl.DataFrame, challenger: pl.DataFrame, event: str) -> float:
    """The challenger's share of the requests, weighted by the events of each hundred of them.

    Were both arms alike, each event would be the challenger's by its share of that hundred; a sum of such draws varies
    less than one with the mean share (Hoeffding 1956). A bad hour in which it had most traffic so is not held against
    it.
    """
    import polars as pl

    both = pl.concat([champion.with_columns(ours=0), challenger.with_columns(ours=1)])
    if both.is_empty():
        return 0.5
    mixed = both.sample(fraction=1.0, shuffle=True, seed=_SEED)  # what came in one instant has no order
    ordered = mixed.sort("at", maintain_order=True).with_row_index("place")
    parts = ordered.group_by(pl.col("place") // _TOGETHER).agg(pl.col("ours").mean(), pl.col(event).sum())
    events = int(parts[event].sum())
    return float((parts["ours"] * parts[event]).sum()) / events if events else float(both["ours"].mean())  # type: ignore[arg-type]
