"""Plans that cannot work are refused before anything is done, with what would."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from noria.config import RolloutSettings
from noria.errors import InvalidInput
from noria.lifecycle.plans import planned
from noria.rollout import Strategy
from noria.rollout.plan import check_plan, read_plan

CANARY, BLUE_GREEN, SHADOW, AB, BANDIT = Strategy
NONSENSE: list[tuple[Strategy, int, dict[str, Any], str]] = [
    (CANARY, 1, {"steps": (50, 20)}, "no steps for canary"),
    (CANARY, 1, {"steps": (5, 50)}, "no steps for canary"),
    (CANARY, 1, {"steps": (nan, 100)}, "no steps for canary"),
    (CANARY, 2, {}, "one challenger, not 2"),
    (CANARY, 1, {"required": ["eror"]}, "required, but no guard that there is: eror"),
    (CANARY, 1, {"required": ["errors", "reward"]}, "required, but off: reward"),
    (CANARY, 1, {"required": ["scores"]}, "required, but off: scores"),
    (CANARY, 1, {"min_minutes": -1}, "min_minutes is -1"),
    (CANARY, 1, {"min_minutes": inf}, "min_minutes is inf"),
    (CANARY, 1, {"max_days": nan}, "max_days is nan"),
    (CANARY, 1, {"max_days": -1}, "max_days is -1"),
    (CANARY, 1, {"max_days": 0}, "max_days is 0"),
    (CANARY, 1, {"max_days": 1e300}, "longer than any rollout"),
    (BANDIT, 1, {"window_minutes": 1e308}, "longer than any rollout"),
    (CANARY, 1, {"effect": 5}, "effect: nothing that canary goes by"),
    (CANARY, 1, {"algorithm": "linucb"}, "algorithm: nothing that canary goes by"),
    (AB, 1, {"effect": 0.1, "epsilon": 0.2, "rewards": "real"}, "epsilon, real rewards: nothing that ab goes by"),
    (BANDIT, 1, {"effect": 0.1}, "effect: nothing that bandit goes by"),
    (CANARY, 1, {"floor": 0.05}, "floor: nothing that canary goes by"),
    (SHADOW, 1, {"floor": 0.2, "metric": "sales"}, "metric, floor: nothing that shadow goes by"),
    (CANARY, 1, {"metric": "sales"}, "metric: nothing that canary goes by"),
    (CANARY, 1, {"window_minutes": 5}, "window_minutes: nothing that canary goes by"),
    (AB, 1, {"effect": 0.1, "min_minutes": 5}, "min_minutes: nothing that ab goes by"),
    (BANDIT, 1, {"required": ["errors"]}, "required: nothing that bandit goes by"),
    (BLUE_GREEN, 1, {"min_minutes": 5}, "min_minutes: nothing that blue_green goes by"),
    (BANDIT, 1, {"epsilon": 0.2}, "epsilon: nothing that thompson goes by"),
    (BANDIT, 1, {"algorithm": "linucb", "epsilon": 0.2}, "epsilon: nothing that linucb goes by"),
    (AB, 1, {"effect": 0.1, "metric": " "}, "metric has no name"),
    (BLUE_GREEN, 1, {"steps": (10, 100)}, "no steps for blue_green"),
    (BLUE_GREEN, 1, {"steps": (50,)}, "no steps for blue_green"),
    (SHADOW, 1, {"steps": (10, 100)}, "no steps for shadow"),
    (SHADOW, 1, {"steps": (0,)}, "no steps for shadow"),
    (AB, 1, {"steps": (100,), "effect": 0.1}, "no steps for ab"),
    (AB, 1, {"steps": (10, 50), "effect": 0.1}, "no steps for ab"),
    (AB, 1, {}, "which difference is worth finding"),
    (AB, 1, {"effect": nan}, "which difference is worth finding"),
    (AB, 1, {"effect": inf}, "which difference is worth finding"),
    (AB, 1, {"effect": 0.1, "max_days": nan}, "max_days is nan"),
    (AB, 1, {"effect": 0.1, "max_days": 0}, "max_days is 0"),
    (AB, 1, {"effect": 0.1, "window_minutes": -5}, "window_minutes is -5"),
    (BANDIT, 1, {"steps": (100,)}, "no steps for bandit"),
    (BANDIT, 1, {"floor": 0.6}, "2 arms cannot keep a floor of 0.6"),
    (BANDIT, 2, {"floor": 0.4}, "3 arms cannot keep a floor of 0.4"),
    (BANDIT, 1, {"floor": nan}, "cannot keep a floor of nan"),
    (BANDIT, 1, {"floor": -0.1}, "cannot keep a floor of -0.1"),
    (BANDIT, 1, {"algorithm": "epsilon-greedy", "epsilon": -1}, "an epsilon of -1"),
    (BANDIT, 1, {"algorithm": "epsilon-greedy", "epsilon": nan}, "an epsilon of nan"),
    (BANDIT, 1, {"window_minutes": nan}, "window_minutes is nan"),
]


@pytest.mark.parametrize(("strategy", "challengers", "options", "words"), NONSENSE)
def test_what_cannot_work_is_refused_and_says_why(strategy, challengers, options, words):
    with pytest.raises(InvalidInput, match=words) as refused:
        check_plan(planned(RolloutSettings(), strategy, **options), challengers)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("strategy", "challengers", "options"),
    [
        (CANARY, 1, {}),
        (CANARY, 1, {"steps": (100,), "min_minutes": 0}),
        (BLUE_GREEN, 1, {}),
        (SHADOW, 1, {"steps": (20,)}),
        (AB, 3, {"effect": 0.01, "steps": (75,), "window_minutes": 0}),
        (BANDIT, 2, {"floor": 1 / 3}),
        (BANDIT, 1, {"algorithm": "epsilon-greedy", "floor": 0, "epsilon": 1}),
        (SHADOW, 1, {"min_minutes": 5, "max_days": 1}),
    ],
)
def test_what_works_is_let_through(strategy, challengers, options):
    check_plan(planned(RolloutSettings(), strategy, **options), challengers)


def test_a_guard_that_the_settings_require_but_leave_off_is_told():
    with pytest.raises(InvalidInput, match="required, but off: reward") as refused:
        check_plan(planned(RolloutSettings(required=["reward"]), CANARY), 1)
    assert "errors, latency, quality" in (refused.value.remedy or "")


def test_of_the_guards_that_are_required_without_being_asked_for_those_that_are_off_are_not():
    plan = planned(RolloutSettings(guards=["errors"]), CANARY)
    check_plan(plan, 1)
    assert plan.required == ("errors",)


def test_harm_that_is_allowed_cannot_be_seen():
    plan = planned(RolloutSettings(errors_to_see=0.001), CANARY)
    with pytest.raises(InvalidInput, match=r"0\.001 cannot be seen as harm while 0\.005 is allowed"):
        check_plan(plan, 1)


def test_harm_to_see_that_was_not_said_grows_with_what_is_allowed():
    plan = planned(RolloutSettings(max_error_increase=0.03, max_latency_factor=1.5), CANARY)
    check_plan(plan, 1)
    assert (plan.errors_to_see, plan.latency_to_see) == (0.06, 2.0)
    for usual in (RolloutSettings(), RolloutSettings(max_error_increase=0.002, max_latency_factor=1.05)):
        plan = planned(usual, CANARY)
        assert (plan.errors_to_see, plan.latency_to_see) == (0.01, 1.2)


def test_where_every_request_may_fail_no_harm_can_be_seen():
    with pytest.raises(InvalidInput, match=r"cannot be seen as harm while 1 is allowed") as refused:
        check_plan(planned(RolloutSettings(max_error_increase=1), CANARY), 1)
    assert "take errors out of `guards`" in (refused.value.remedy or "")


def test_latency_that_is_allowed_cannot_be_seen_as_harm():
    plan = planned(RolloutSettings(max_latency_factor=1.5, latency_to_see=1.3), CANARY)
    with pytest.raises(InvalidInput, match=r"1\.3 times as long cannot be seen as harm while 1\.5 times is allowed"):
        check_plan(plan, 1)


def test_the_metric_of_a_canary_says_something_where_rewards_are_guarded():
    plan = planned(RolloutSettings(guards=["errors", "reward"]), CANARY, metric="sales")
    check_plan(plan, 1)
    assert plan.rewards.metric == "sales"


def test_a_plan_is_told_without_what_its_strategy_does_not_go_by():
    canary, contextual = planned(RolloutSettings(), CANARY), planned(RolloutSettings(), BANDIT, algorithm="linucb")
    assert not canary.told().keys() & {"bandit", "contextual", "rewards", "checks", "salt"}
    assert contextual.told()["bandit"] == {"algorithm": "linucb", "floor": contextual.bandit.floor}
    assert not contextual.told().keys() & {"contextual", "checks", "required", "errors_to_see", "min_minutes"}
    assert read_plan(contextual.as_document()) == contextual


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="finite number"):
        RolloutSettings(max_quality_loss=inf)
    with pytest.raises(InvalidInput, match="name errors twice"):
        planned(RolloutSettings(guards=["errors", "errors"]), CANARY)
