"""Plans of rollouts, from the settings of the project and what is asked for beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from noria.config import RolloutSettings
from noria.errors import InvalidInput
from noria.ids import new_id
from noria.rollout import Plan, Strategy
from noria.rollout.bandits import BanditSettings
from noria.rollout.evidence import GuardSettings
from noria.rollout.experiments import ExperimentSettings
from noria.rollout.plan import RewardPlan


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
        settings.errors_to_see,
        settings.latency_to_see,
        settings.approves,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]


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
    effect: float = 0.0,
    metric: str = "reward",
    window_minutes: float = 60.0,
    algorithm: str = "thompson",
    floor: float = 0.05,
    epsilon: float = 0.1,
    rewards: Literal["binary", "real"] = "binary",
) -> Plan:
    """The plan of a rollout that somebody starts by hand, which ``check_plan`` is to look at once it is started.

    Raises InvalidInput for an algorithm that there is none of, or an option that says nothing to the strategy.
    """
    _check_options(strategy, effect, algorithm, epsilon, rewards)
    plan = plan_of(settings, strategy)
    changes: dict[str, object] = {
        "steps": tuple(steps) or _default_steps(settings, strategy),
        "promotes": promotes,
        "rewards": RewardPlan(metric, window_minutes),
        "salt": "" if strategy is Strategy.CANARY else new_id()[:16],
    }
    named = {"min_minutes": min_minutes, "max_days": max_days}
    changes |= {name: value for name, value in named.items() if value is not None}
    if required is not None:
        changes["required"] = tuple(required)
    if strategy is Strategy.AB:
        days = settings.max_days if max_days is None else max_days
        changes["experiment"] = ExperimentSettings(effect, alpha=settings.alpha, max_days=days)
    if strategy is Strategy.BANDIT:
        if algorithm not in ("thompson", "epsilon-greedy", "linucb"):
            raise InvalidInput(f"{algorithm!r} is no bandit", remedy="Use thompson, epsilon-greedy or linucb.")
        changes["contextual"] = algorithm == "linucb"
        known: Literal["thompson", "epsilon-greedy"] = "epsilon-greedy" if algorithm == "epsilon-greedy" else "thompson"
        changes["bandit"] = BanditSettings(known, rewards, epsilon, floor)
    return replace(plan, **changes)  # type: ignore[arg-type]


def _check_options(strategy: Strategy, effect: float, algorithm: str, epsilon: float, rewards: str) -> None:
    """What is left out silently would be missed only when the rollout has run."""
    of_bandits = {"algorithm": algorithm != "thompson", "epsilon": epsilon != 0.1, "real rewards": rewards != "binary"}
    idle = [name for name, given in of_bandits.items() if given and strategy is not Strategy.BANDIT]
    if effect != 0 and strategy is not Strategy.AB:
        idle.insert(0, "effect")
    if idle:
        raise InvalidInput(
            f"{', '.join(idle)}: nothing that {strategy} goes by",
            remedy="Leave it out, or choose the strategy that it is for: ab has an effect, bandit the others.",
        )


def _default_steps(settings: RolloutSettings, strategy: Strategy) -> tuple[float, ...]:
    if strategy is Strategy.CANARY:
        return tuple(settings.steps)
    return (50.0,) if strategy in (Strategy.AB, Strategy.BANDIT) else (100.0,)
