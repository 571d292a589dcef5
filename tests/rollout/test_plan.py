"""Plans that cannot work are refused before anything is done, with what would."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from noria.config import RolloutSettings
from noria.errors import InvalidInput
from noria.lifecycle.plans import planned
from noria.rollout import Strategy
from noria.rollout.plan import check_plan

CANARY, BLUE_GREEN, SHADOW, AB, BANDIT = Strategy
NONSENSE: list[tuple[Strategy, int, dict[str, Any], str]] = [
    (CANARY, 1, {"steps": (50, 20)}, "no steps for canary"),
    (CANARY, 1, {"steps": (5, 50)}, "no steps for canary"),
    (CANARY, 1, {"steps": (nan, 100)}, "no steps for canary"),
    (CANARY, 2, {}, "one challenger, not 2"),
    (CANARY, 1, {"required": ["eror"]}, "no guard eror"),
    (CANARY, 1, {"min_minutes": -1}, "min_minutes is -1"),
    (CANARY, 1, {"min_minutes": inf}, "min_minutes is inf"),
    (CANARY, 1, {"max_days": nan}, "max_days is nan"),
    (CANARY, 1, {"max_days": -1}, "max_days is -1"),
    (CANARY, 1, {"max_days": 0}, "max_days is 0"),
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
    plan = planned(RolloutSettings(), strategy, **options)
    with pytest.raises(InvalidInput, match=words) as refused:
        check_plan(plan, challengers)
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
        (BANDIT, 1, {"floor": 0, "epsilon": 1}),
    ],
)
def test_what_works_is_let_through(strategy, challengers, options):
    check_plan(planned(RolloutSettings(), strategy, **options), challengers)
