"""What a rollout is to do: its strategy and what it may risk, fixed when it starts and kept with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, isfinite
from typing import Any, cast

import msgspec

from noria.errors import InvalidInput
from noria.ladder import GIVE_A_LADDER, is_ladder, rises
from noria.rollout.bandits import BanditSettings
from noria.rollout.evidence import ERRORS, LATENCY, QUALITY, REWARD, SCORES, GuardSettings
from noria.rollout.experiments import ExperimentSettings
from noria.structs import read_by_threads

_MOST_DAYS = 3650


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


@read_by_threads
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

    def told(self) -> dict[str, object]:
        """``as_document`` for people: without what this strategy does not go by."""
        document, is_canary = self.as_document(), self.strategy is Strategy.CANARY
        if self.contextual:
            document["bandit"] = {"algorithm": "linucb", "floor": self.bandit.floor}
        goes_by = {
            "bandit": self.strategy is Strategy.BANDIT,
            "contextual": False,
            "rewards": self.strategy in (Strategy.AB, Strategy.BANDIT) or REWARD in self.guards.guards,
            "checks": self.strategy is Strategy.BLUE_GREEN,
            "min_minutes": is_canary or self.strategy is Strategy.SHADOW,
            "salt": bool(self.salt),
            **dict.fromkeys(("required", "errors_to_see", "latency_to_see"), is_canary),
        }
        return {name: value for name, value in document.items() if goes_by.get(name, True)}


def read_plan(document: Any) -> Plan:
    """The plan ``as_document`` wrote."""
    return msgspec.convert(document, Plan)


def check_plan(plan: Plan, challengers: int) -> None:
    """Raises InvalidInput for steps that are no ladder, numbers that make no sense, or what a strategy does not do.

    The one place where this is told, whoever asks for the rollout.
    """
    _check_steps(plan)
    _check_durations(plan)
    _check_metric(plan)
    _check_harm_to_see(plan)
    if challengers != 1 and plan.strategy not in (Strategy.AB, Strategy.BANDIT):
        raise InvalidInput(
            f"a {plan.strategy} rollout has one challenger, not {challengers}", remedy="Use ab or bandit for several."
        )
    _check_required(plan)
    if plan.strategy is Strategy.AB:
        _check_experiment(plan)
    if plan.strategy is Strategy.BANDIT:
        _check_bandit(plan.bandit, challengers + 1)


def _check_required(plan: Plan) -> None:
    """A step would not wait for a guard that is off, and nobody would be told."""
    on, known = plan.guards.guards, (ERRORS, LATENCY, SCORES, QUALITY, REWARD)
    if off := sorted(set(plan.required) - set(on)):
        why = "off" if set(off) <= set(known) else "no guard that there is"
        raise InvalidInput(
            f"required, but {why}: {', '.join(off)}",
            remedy=f"Require what is on: {', '.join(on)}. Of {', '.join(known)} those are on that `guards` "
            "under [rollout] of noria.toml names.",
        )


def _check_steps(plan: Plan) -> None:
    steps, strategy = list(plan.steps), plan.strategy
    if strategy is Strategy.CANARY:
        fits, remedy = is_ladder(steps), GIVE_A_LADDER
    elif strategy in (Strategy.AB, Strategy.BANDIT):
        fits = len(steps) == 1 and steps[0] < 100
        remedy = "Give one percent above 0 and below 100, the challengers' together: the champion needs traffic too."
    elif strategy is Strategy.SHADOW:
        fits, remedy = len(steps) == 1, "Give one percent above 0, such as 100: the share of the requests it is asked."
    else:
        fits, remedy = steps == [100], "Give none: it is switched to at once, with all the traffic."
    if not (rises(steps) and fits):
        percents = ", ".join(f"{step:g}" for step in steps) or "nothing"
        raise InvalidInput(f"{percents}: these are no steps for {strategy}", remedy=remedy)


def _check_durations(plan: Plan) -> None:
    least = {"min_minutes": plan.min_minutes, "window_minutes": plan.rewards.window_minutes}
    for name, value in (*least.items(), ("max_days", plan.max_days)):
        if not (isfinite(value) and (value > 0 or (value == 0 and name in least))):
            allowed = "of at least 0" if name in least else "above 0"
            raise InvalidInput(f"{name} is {value:g}: no duration", remedy=f"Give a finite number {allowed}.")
        if value > (most := _MOST_DAYS * (1440 if name in least else 1)):
            raise InvalidInput(
                f"{name} is {value:g}: longer than any rollout", remedy=f"Give {most:,} at most: that is ten years."
            )


def _check_metric(plan: Plan) -> None:
    if not plan.rewards.metric.strip():
        raise InvalidInput("the metric has no name", remedy="Name the rewards that count, or leave it out: 'reward'.")


def _check_harm_to_see(plan: Plan) -> None:
    """What is allowed is never seen as harm: no step would wait to see it."""
    if plan.strategy is not Strategy.CANARY:
        return
    errors, latency = plan.guards.max_error_increase, plan.guards.max_latency_factor
    if errors is not None and plan.errors_to_see <= errors:
        raise InvalidInput(
            f"an increase of errors of {plan.errors_to_see:g} cannot be seen as harm while {errors:g} is allowed",
            remedy="Set errors_to_see above max_error_increase under [rollout] of noria.toml, or leave it out: it then "
            "is twice that. Where any number of errors is allowed, take errors out of `guards` and `required`.",
        )
    if latency is not None and plan.latency_to_see <= latency:
        raise InvalidInput(
            f"answers that take {plan.latency_to_see:g} times as long cannot be seen as harm while {latency:g} times "
            "is allowed",
            remedy="Set latency_to_see above max_latency_factor under [rollout] of noria.toml, or leave it out: it "
            "then is twice as far above 1.",
        )


def _check_experiment(plan: Plan) -> None:
    effect = plan.experiment.effect if plan.experiment is not None else 0.0
    if not 0 < effect < inf:
        raise InvalidInput(
            f"an experiment needs to know which difference is worth finding, and {effect:g} is none",
            remedy="Give the difference in mean reward per unit with --effect, such as 0.01.",
        )


def _check_bandit(bandit: BanditSettings, arms: int) -> None:
    if not 0 <= bandit.floor <= 1 / arms:
        raise InvalidInput(
            f"{arms} arms cannot keep a floor of {bandit.floor:g} of the traffic each",
            remedy=f"Give a floor from 0 to {1 / arms:.3g}: the champion is an arm too.",
        )
    if not 0 <= bandit.epsilon <= 1:
        raise InvalidInput(
            f"an epsilon of {bandit.epsilon:g} is no share of the traffic", remedy="Give a number from 0 to 1."
        )
