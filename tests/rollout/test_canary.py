"""Routes share the traffic as told; the canary's judge tells bad from good."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import InvalidInput
from noria.rollout import CanaryPolicy, Decision, RouteTable, Variant, judge_step, set_routes
from noria.rollout.canary import compare
from noria.store import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = CanaryPolicy(steps=(5, 25, 100), min_labels=300, max_days=14, tolerance=0.05, false_alarm=0.01)


def table(share):
    variants = (Variant("champion", "m", 1, "s", "d", 100 - share), Variant("canary", "m", 2, "s", "d", share))
    return RouteTable("d", 1, variants, "", NOW)


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_canary_that_grows_keeps_the_keys_it_had(one, other):
    small, large = sorted((one, other))
    for key in map(str, range(200)):
        assert table(small).choose(key).version == 1 or table(large).choose(key).version == 2


def test_shares_are_what_the_table_says():
    chosen = [table(25).choose(str(key)).version for key in range(20_000)]
    assert abs(np.mean(np.array(chosen) == 2) - 0.25) < 0.015


def test_shares_that_do_not_sum_to_100_are_refused(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/noria.db")
    database.migrate()
    variants = [Variant("champion", "m", 1, "s", "d", 60)]
    with database.write() as tx, pytest.raises(InvalidInput, match="sum to 60"):
        set_routes(tx, "d", variants, at=NOW, actor="a", reason="")
    database.close()


def scores(generator, rows, skill):
    labels = (generator.random(rows) < 0.25).astype(float)
    return np.clip(0.25 + skill * (labels - 0.25) + generator.normal(0, 0.3, rows), 0, 1), labels


def verdict(generator, canary_skill, labels):
    quality = compare("classification", POLICY, scores(generator, 4000, 0.3), scores(generator, labels, canary_skill))
    return judge_step(POLICY, quality, 3)[0]


def test_a_useless_canary_is_rolled_back():
    generator = np.random.default_rng(0)
    decisions = [verdict(generator, 0.0, 300) for _ in range(50)]
    assert decisions.count(Decision.ROLL_BACK) == 50


def test_an_equally_good_canary_is_hardly_ever_rolled_back():
    generator = np.random.default_rng(0)
    decisions = [verdict(generator, 0.3, 300) for _ in range(200)]
    assert decisions.count(Decision.ROLL_BACK) <= 1
    assert decisions.count(Decision.ADVANCE) > 150


def test_a_canary_without_a_decision_in_time_is_rolled_back():
    assert judge_step(POLICY, None, 14)[0] is Decision.ROLL_BACK
    assert judge_step(POLICY, None, 13)[0] is Decision.WAIT


def test_looking_after_every_few_labels_rolls_no_equal_canary_back():
    generator = np.random.default_rng(3)
    policy = CanaryPolicy(steps=(5, 100), min_labels=10_000, max_days=14, tolerance=0.0, false_alarm=0.05)
    rolled_back = 0
    for _ in range(100):
        champion, canary = scores(generator, 1500, 0.3), scores(generator, 400, 0.3)
        looks = ((canary[0][:rows], canary[1][:rows]) for rows in range(60, 401, 20))
        decisions = {judge_step(policy, compare("classification", policy, champion, look), 0)[0] for look in looks}
        rolled_back += Decision.ROLL_BACK in decisions
    assert rolled_back <= 5
