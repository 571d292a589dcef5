"""Outcomes out of tables: every row is somebody's and a number, or none is brought in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lifecycle.rollout_world import MODEL, world_of_three
from noria.config import ServerSettings
from noria.errors import InvalidData, InvalidInput, NotFound
from noria.lifecycle.outcomes import BroughtIn, bring_in, read_table
from noria.monitoring.log import REWARDS, RewardRecord, read_records
from noria.store.workspace import Workspace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = {"unit_id": ["u"], "value": [1.0]}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, ServerSettings())


def rewards(workspace: Workspace) -> list[RewardRecord]:
    return list(read_records(workspace.prediction_log, REWARDS, RewardRecord))


def bring(workspace: Workspace, kind: str = "rewards", **columns: Any) -> BroughtIn:
    return bring_in(workspace, pl.DataFrame(columns), kind=kind, metric="reward", at=NOW)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"unit_id": ["a", "b"], "value": [1.0, float("inf")]}, "row 1: value is inf"),
        ({"unit_id": ["a", "b"], "value": [1.0, float("-inf")]}, "row 1: value is -inf"),
        ({"unit_id": ["a", "b"], "value": ["1", "infinity"]}, "row 1: value is 'infinity'"),
        ({"unit_id": ["a", "b"], "value": [1.0, None]}, "row 1: value is None"),
        ({"unit_id": ["a", None], "value": [1.0, 2.0]}, "row 1 names neither a prediction_id nor a unit_id"),
        ({"unit_id": ["a", ""], "prediction_id": ["p", None], "value": [1.0, 2.0]}, "row 1 names neither"),
    ],
)
def test_a_row_that_is_no_reward_of_anybody_keeps_all_out(workspace, columns, words):
    with pytest.raises(InvalidData, match=words):
        bring(workspace, **columns)
    assert rewards(workspace) == []


@pytest.mark.parametrize(
    ("name", "label", "words"), [(None, 1.0, "row 0 has no prediction_id"), ("p", float("inf"), "row 0: label is inf")]
)
def test_labels_are_held_to_the_same(workspace, name, label, words):
    with pytest.raises(InvalidData, match=words):
        bring(workspace, "labels", prediction_id=[name], event_time=[NOW], label=[label])


def test_a_csv_with_infinity_is_refused(workspace, tmp_path):
    (tmp_path / "rewards.csv").write_text("unit_id,value\nu1,1\nu2,inf\n")
    frame = read_table("rewards.csv", "", tmp_path)
    with pytest.raises(InvalidData, match="row 1: value is inf"):
        bring_in(workspace, frame, kind="rewards", metric="reward", at=NOW)


def test_names_in_a_csv_keep_their_zeros(workspace, tmp_path):
    (tmp_path / "rewards.csv").write_text("unit_id,metric,value\n007,01,1\n7,1,2\n")
    frame = read_table("rewards.csv", "", tmp_path)
    bring_in(workspace, frame, kind="rewards", metric="reward", at=NOW)
    assert [(one.unit, one.metric, one.value) for one in rewards(workspace)] == [("007", "01", 1.0), ("7", "1", 2.0)]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("observed_at", "2999-01-01T00:00:00Z", "row 0: observed_at is 2999.* in the future"),
        ("metric", " ", "no metric"),
    ],
)
def test_what_could_never_count_is_kept_out(workspace, column, value, words):
    with pytest.raises(InvalidData, match=words):
        bring(workspace, unit_id=["a"], value=[1.0], **{column: [value]})
    assert rewards(workspace) == []


def test_a_number_is_a_name_too(workspace):
    assert bring(workspace, unit_id=[0, 1], value=[1.0, 2.0]).rows == 2
    assert [one.unit for one in rewards(workspace)] == ["0", "1"]


def test_of_a_column_with_gaps_that_became_one_of_floats_the_names_are_whole(workspace):
    bring(workspace, unit_id=[7.0, float("nan"), 1e16], prediction_id=[None, "p", None], value=[1.0, 2.0, 3.0])
    assert [(one.unit, one.prediction_id) for one in rewards(workspace)] == [
        ("7", ""),
        ("", "p"),
        ("10000000000000000", ""),
    ]


def test_rewards_of_a_deployment_that_never_was_are_kept_out(workspace):
    with pytest.raises(NotFound, match="nothing was ever deployed as 'secnd'"):
        bring_in(workspace, pl.DataFrame(ROW), kind="rewards", metric="reward", at=NOW, deployment="secnd")
    assert rewards(workspace) == []


def test_a_row_names_its_deployment_or_has_the_one_that_was_asked_for(tmp_path):
    world = world_of_three(tmp_path)
    frame = pl.DataFrame({"unit_id": ["a", "b"], "value": [1.0, 2.0], "deployment": [MODEL, None]})
    bring_in(world.workspace, frame, kind="rewards", metric="reward", at=NOW)
    bring_in(world.workspace, pl.DataFrame(ROW), kind="rewards", metric="reward", at=NOW, deployment=MODEL)
    assert [one.deployment for one in rewards(world.workspace)] == [MODEL, "", MODEL]


@pytest.mark.parametrize(
    "observed", [{}, {"observed_at": ["2026-03-01T11:00:00Z", "2026-03-01T11:00:00Z", NOW.isoformat()]}]
)
def test_rewards_brought_in_again_count_once_and_are_told(workspace, observed):
    table = {"unit_id": ["a", "a", "b"], "value": [5.0, 5.0, 1.0]} | observed  # a bought twice for as much
    assert bring(workspace, **table) == BroughtIn(3)
    assert bring(workspace, **table) == BroughtIn(3, known=3)
    assert [(one.unit, one.value) for one in rewards(workspace)] == [("a", 5.0), ("a", 5.0), ("b", 1.0)]


def test_of_a_query_that_overlaps_the_one_before_the_new_rows_are_brought_in(workspace):
    days = ["2026-02-27", "2026-02-28", "2026-03-01"]
    bring(workspace, unit_id=["a", "a"], value=[1.0, 1.0], observed_at=days[:2])
    assert bring(workspace, unit_id=["a", "a"], value=[1.0, 1.0], observed_at=days[1:]) == BroughtIn(2, known=1)
    assert len(rewards(workspace)) == 3


def test_colons_in_a_query_are_the_query_s_own(tmp_path):
    (tmp_path / "t.db").touch()
    frame = read_table("sqlite:///t.db", "SELECT 1 AS value, ':nope' AS unit_id", tmp_path)
    assert frame.rows() == [(1, ":nope")]


def test_a_query_that_finds_nothing_new_brings_nothing_in(workspace, tmp_path):
    (tmp_path / "t.db").touch()
    frame = read_table("sqlite:///t.db", "SELECT 'u' AS unit_id, 1 AS value WHERE 0", tmp_path)
    assert bring_in(workspace, frame, kind="rewards", metric="reward", at=NOW).rows == 0


def test_a_mistyped_database_is_told_and_not_made(tmp_path):
    with pytest.raises(InvalidData, match=r"there is no database .*mistyped\.db"):
        read_table("sqlite:///mistyped.db", "SELECT 1 AS value", tmp_path)
    assert not (tmp_path / "mistyped.db").exists()


def test_a_query_of_a_file_is_told_what_it_wants(tmp_path):
    with pytest.raises(InvalidInput, match=r"'rewards\.csv' is no database URL"):
        read_table("rewards.csv", "SELECT 1 AS value", tmp_path)


def test_the_password_of_a_database_may_stay_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTCOMES", str(tmp_path / "t.db"))
    (tmp_path / "t.db").touch()
    assert read_table("sqlite:///${OUTCOMES}", "SELECT 1 AS value", tmp_path).rows() == [(1,)]
