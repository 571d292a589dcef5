"""Plans of rollouts, from the settings of the project and what is asked for beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from noria.config import RolloutSettings
from noria.errors import InvalidInput
from noria.ids import new_id
from noria.rollout import Plan, Strategy
from noria.rollout.bandits import BanditSettings
from noria.rollout.evidence import GuardSettings
from noria.rollout.experiments import ExperimentSettings
from noria.rollout.plan import RewardPlan

Value = TypeVar("Value")

_BANDIT = (Strategy.BANDIT,)
_GOES_BY: Mapping[str, Sequence[Strategy]] = {
    "min_minutes": (Strategy.CANARY, Strategy.SHADOW),
    "required": (Strategy.CANARY,),
    "effect": (Strategy.AB,),
    "metric": (Strategy.AB, Strategy.BANDIT),
    "window_minutes": (Strategy.AB, Strategy.BANDIT),
    "algorithm": _BANDIT,
    "floor": _BANDIT,
    "epsilon": _BANDIT,
    "real rewards": _BANDIT,
}
"""Which strategies an option says something to; a canary takes the metric where the guard of rewards is on."""


def plan_of(settings: RolloutSettings, strategy: Strategy, **changes: object) -> Plan:
    """The plan that the settings ask for; ``changes`` are fields of the plan given otherwise."""
    _check_once(settings.guards)
    on = set(settings.guards)
    guards = GuardSettings(
        alpha=settings.alpha,
        max_error_increase=settings.max_error_increase if "errors" in on else None,
        max_latency_factor=settings.max_latency_factor if "latency" in on else None,
        latency_tolerance_seconds=settings.latency_tolerance_seconds,
        max_score_shift=settings.max_score_shift if "scores" in on else None,
        max_quality_loss=settings.max_quality_loss if "quality" in on else None,
        max_reward_loss=settings.max_reward_loss if "reward" in on else None,
        min_rows=settings.min_rows,
    )
    plan = Plan(
        strategy,
        tuple(settings.steps),
        guards,
        _required(settings),
        settings.min_minutes,
        settings.max_days,
        *_harm_to_see(settings),
        settings.approves,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]


def _harm_to_see(settings: RolloutSettings) -> tuple[float, float]:
    """The increase of errors and the factor of latency that a step must be able to show.

    Where they were not said, twice what is allowed if that is more: what is allowed is never seen as harm, and what is
    little more needs traffic without end.
    """
    errors, latency, said = settings.errors_to_see, settings.latency_to_see, settings.model_fields_set
    if "errors_to_see" not in said:
        errors = max(errors, min(1.0, 2 * settings.max_error_increase))
    if "latency_to_see" not in said:
        latency = max(latency, round(2 * settings.max_latency_factor - 1, 9))
    return errors, latency


def _check_once(guards: Sequence[str]) -> None:
    if twice := sorted({name for name in guards if guards.count(name) > 1}):
        raise InvalidInput(
            f"the guards name {', '.join(twice)} twice",
            remedy="Name each once in `guards` under [rollout] of noria.toml: a second time changes nothing.",
        )


def _required(settings: RolloutSettings) -> tuple[str, ...]:
    """Those that were asked for, for ``check_plan`` to judge; of the usual ones those that are on."""
    asked_for = "required" in settings.model_fields_set
    return tuple(name for name in settings.required if asked_for or name in settings.guards)


def planned(
    settings: RolloutSettings,
    strategy: Strategy,
    *,
    steps: Sequence[float] = (),
    min_minutes: float | None = None,
    max_days: float | None = None,
    required: Sequence[str] | None = None,
    promotes: bool = True,
    effect: float | None = None,
    metric: str | None = None,
    window_minutes: float | None = None,
    algorithm: str | None = None,
    floor: float | None = None,
    epsilon: float | None = None,
    rewards: Literal["binary", "real"] | None = None,
) -> Plan:
    """The plan of a rollout that somebody starts by hand, which ``check_plan`` is to look at once it is started.

    None: not said, so that what the strategy does by itself holds. Raises InvalidInput for an algorithm that there is
    none of, or an option that says nothing to the strategy.
    """
    given = {
        "min_minutes": min_minutes, "required": required, "effect": effect, "metric": metric,
        "window_minutes": window_minutes, "algorithm": algorithm, "floor": floor, "epsilon": epsilon,
        "real rewards": rewards,
    }  # fmt: skip
    _check_options(settings, strategy, [name for name, value in given.items() if value is not None])
    plan = plan_of(settings, strategy)
    changes: dict[str, object] = {
        "steps": tuple(steps) or _default_steps(settings, strategy),
        "promotes": promotes,
        "rewards": RewardPlan(_or("reward", metric), _or(60.0, window_minutes)),
        "salt": "" if strategy is Strategy.CANARY else new_id()[:16],
    }
    named = {"min_minutes": min_minutes, "max_days": max_days}
    changes |= {name: value for name, value in named.items() if value is not None}
    if required is not None:
        changes["required"] = tuple(required)
    if strategy is Strategy.AB:
        days = settings.max_days if max_days is None else max_days
        changes["experiment"] = ExperimentSettings(_or(0.0, effect), alpha=settings.alpha, max_days=days)
    if strategy is Strategy.BANDIT:
        changes["contextual"] = algorithm == "linucb"
        changes["bandit"] = _bandit(_or("thompson", algorithm), floor, epsilon, rewards)
    return replace(plan, **changes)  # type: ignore[arg-type]


def _bandit(
    algorithm: str, floor: float | None, epsilon: float | None, rewards: Literal["binary", "real"] | None
) -> BanditSettings:
    if algorithm not in ("thompson", "epsilon-greedy", "linucb"):
        raise InvalidInput(f"{algorithm!r} is no bandit", remedy="Use thompson, epsilon-greedy or linucb.")
    if epsilon is not None and algorithm != "epsilon-greedy":
        raise InvalidInput(
            f"epsilon: nothing that {algorithm} goes by",
            remedy="Leave it out, or choose the algorithm epsilon-greedy; the share that every arm keeps is the floor.",
        )
    known: Literal["thompson", "epsilon-greedy"] = "epsilon-greedy" if algorithm == "epsilon-greedy" else "thompson"
    return BanditSettings(known, _or("binary", rewards), _or(0.1, epsilon), _or(0.05, floor))


def _or(usual: Value, given: Value | None) -> Value:
    return usual if given is None else given


def _check_options(settings: RolloutSettings, strategy: Strategy, given: Sequence[str]) -> None:
    """What is left out silently would be missed only when the rollout has run."""
    goes_by = dict(_GOES_BY)
    if "reward" in settings.guards:
        goes_by["metric"] = (Strategy.CANARY, *goes_by["metric"])
    if idle := [name for name in given if strategy not in goes_by[name]]:
        what_for = "; ".join(f"{name} is for {', '.join(goes_by[name])}" for name in idle)
        guarded = ", and for canary once `guards` under [rollout] name reward" if "metric" in idle else ""
        raise InvalidInput(
            f"{', '.join(idle)}: nothing that {strategy} goes by",
            remedy=f"Leave it out, or choose the strategy that it is for: {what_for}{guarded}.",
        )


def _default_steps(settings: RolloutSettings, strategy: Strategy) -> tuple[float, ...]:
    if strategy is Strategy.CANARY:
        return tuple(settings.steps)
    return (50.0,) if strategy in (Strategy.AB, Strategy.BANDIT) else (100.0,)
