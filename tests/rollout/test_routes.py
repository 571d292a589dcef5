"""Routes share the traffic as told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import InvalidInput
from noria.rollout import RouteTable, Variant, publish, read_routes, set_routes
from noria.store import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)


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


def test_an_experiment_with_a_salt_of_its_own_assigns_anew():
    first, second = (replace(table(50), salt=salt) for salt in ("one", "two"))
    same = [first.choose(str(key)).version == second.choose(str(key)).version for key in range(4000)]
    assert abs(np.mean(same) - 0.5) < 0.05


def test_a_shadow_answers_nobody_and_takes_no_share(tmp_path):
    shadow = Variant("shadow", "m", 2, "s", "d", 100, shadow=True)
    routes = RouteTable("d", 1, (Variant("champion", "m", 1, "s", "d", 100), shadow), "", NOW)
    assert {routes.choose(str(key)).version for key in range(100)} == {1}
    publish(routes, tmp_path / "d.json")
    assert read_routes(tmp_path / "d.json") == routes
