"""What a rollout is to do: its strategy and what it may risk, fixed when it starts and kept with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

import msgspec

from noria.errors import InvalidInput
from noria.rollout.bandits import BanditSettings
from noria.rollout.evidence import QUALITY, REWARD, SCORES, GuardSettings
from noria.rollout.experiments import ExperimentSettings


class Strategy(StrEnum):
    """How a challenger meets the traffic."""

    CANARY = "canary"
    BLUE_GREEN = "blue_green"
    SHADOW = "shadow"
    AB = "ab"
    BANDIT = "bandit"


@dataclass(frozen=True, slots=True)
class RewardPlan:
    """Which rewards count, and when one is final.

    A unit's reward is the sum of what came in for it within ``window_minutes`` of its first answer; one without any has
    ``missing`` then. 0 minutes: whatever came in, as soon as it came. Only rewards of ``metric`` count.
    """

    metric: str = "reward"
    window_minutes: float = 60.0
    missing: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of one rollout.

    ``steps`` are percents of the traffic: of a canary's ladder, or the one share that a shadow, an experiment's
    challengers together or a bandit's begin with. A step ends after ``min_minutes`` at the earliest, once every guard
    of ``required`` is measured and none has anything against it; after ``max_days`` without that the champion stays.
    ``errors_to_see`` and ``latency_to_see`` are the harm that must be seen before a step may end: they say how many
    requests it needs. ``checks`` is how many logged requests a blue-green switch is tested with beforehand.
    """

    strategy: Strategy
    steps: tuple[float, ...]
    guards: GuardSettings = field(default_factory=GuardSettings)
    required: tuple[str, ...] = ("errors", "latency")
    min_minutes: float = 10.0
    max_days: float = 14.0
    errors_to_see: float = 0.01
    latency_to_see: float = 1.2
    approves: bool = True
    promotes: bool = True
    checks: int = 200
    rewards: RewardPlan = field(default_factory=RewardPlan)
    experiment: ExperimentSettings | None = None
    bandit: BanditSettings = field(default_factory=BanditSettings)
    contextual: bool = False
    salt: str = ""

    def as_document(self) -> dict[str, object]:
        """The JSON kept with the rollout."""
        return cast("dict[str, object]", msgspec.to_builtins(self))


def read_plan(document: Any) -> Plan:
    """The plan ``as_document`` wrote."""
    return msgspec.convert(document, Plan)


def check_plan(plan: Plan, challengers: int) -> None:
    """Raises InvalidInput for steps that are no ladder, or a strategy that does not fit the number of challengers."""
    steps = list(plan.steps)
    ladder = all(0 < step <= 100 for step in steps) and steps == sorted(set(steps))
    if not steps or not ladder or (plan.strategy is Strategy.CANARY and steps[-1] != 100):
        raise InvalidInput(
            f"{', '.join(f'{step:g}' for step in steps) or 'nothing'} are no steps of a {plan.strategy} rollout",
            remedy="Give rising percents above 0, a canary's last being 100, such as 5,10,25,50,100.",
        )
    if challengers != 1 and plan.strategy not in (Strategy.AB, Strategy.BANDIT):
        raise InvalidInput(
            f"a {plan.strategy} rollout has one challenger, not {challengers}", remedy="Use ab or bandit for several."
        )
    unknown = set(plan.required) - {*plan.guards.guards, QUALITY, REWARD, SCORES}
    if unknown:
        raise InvalidInput(f"there is no guard {', '.join(sorted(unknown))}", remedy="See docs: how rollouts decide.")
