"""Outcomes out of tables: every row is somebody's and a number, or none is brought in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from noria.config import ServerSettings
from noria.errors import InvalidData
from noria.lifecycle.outcomes import bring_in, read_table
from noria.monitoring.log import REWARDS, RewardRecord, read_records
from noria.store.workspace import Workspace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, ServerSettings())


def rewards(workspace: Workspace) -> list[RewardRecord]:
    return list(read_records(workspace.prediction_log, REWARDS, RewardRecord))


def bring(workspace: Workspace, kind: str = "rewards", **columns: Any) -> int:
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


def test_a_number_is_a_name_too(workspace):
    assert bring(workspace, unit_id=[0, 1], value=[1.0, 2.0]) == 2
    assert [one.unit for one in rewards(workspace)] == ["0", "1"]
