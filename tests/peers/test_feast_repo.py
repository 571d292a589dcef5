"""Feast's own example repo, moved by changing its imports; Feast's own client with Noria as its feature server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from noria.features import FeatureStore, PushMode
from noria.surface.cli.processes import Child
from support import feast_environment, noria

pytestmark = pytest.mark.peer

HERE = Path(__file__).parent
FEATURES = [
    "driver_hourly_stats:acc_rate",
    "driver_hourly_stats:driver_profile",
    "driver_hourly_stats:driver_config",
    "transformed_conv_rate:conv_rate_plus_val1",
]
ROWS = [{"driver_id": key, "val_to_add": 1000, "val_to_add_2": 2000} for key in (1001, 1002, 9)]


@pytest.fixture(scope="module")
def feast(tmp_path_factory) -> tuple[Path, dict[str, object]]:
    """The repo `feast init` makes, and what Feast answers once it is applied and materialized there."""
    folder = tmp_path_factory.mktemp("feast")
    command = [feast_environment(), HERE / "feast_script.py", folder, json.dumps([FEATURES, ROWS])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "drivers/feature_repo", json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def moved(feast, tmp_path_factory) -> Path:
    """The same repo, with the how-to's one change."""
    page = (HERE.parents[1] / "docs/how-to/move-from-feast.md").read_text()
    (command,) = re.findall(r"^(sed -i .*)$", page, re.MULTILINE)
    folder = tmp_path_factory.mktemp("moved") / "repo"
    shutil.copytree(feast[0], folder, ignore=shutil.ignore_patterns("*.db", "__pycache__"))
    subprocess.run(command, shell=True, cwd=folder, check=True)
    applied = json.loads(noria("features", "apply", "--json", cwd=folder).stdout)
    assert {row["kind"] for row in applied} >= {"entity", "source", "view", "service"}
    noria("features", "materialize", cwd=folder)
    return folder


def test_the_moved_repo_answers_as_feast_does(feast, moved):
    expected, store = feast[1], FeatureStore(moved)
    found = store.get_online_features(FEATURES, ROWS)
    assert found.to_dict() == expected["online"]
    assert [s.name for s in found.columns["acc_rate"].statuses] == expected["statuses"]
    asked = pd.DataFrame(expected["entities"]).assign(event_timestamp=lambda f: pd.to_datetime(f["event_timestamp"]))
    joined = store.get_historical_features(asked, FEATURES, filter_by_created_timestamp=False).to_df()
    theirs = pd.DataFrame(expected["historical"])[["acc_rate", "conv_rate_plus_val1"]]
    pd.testing.assert_frame_equal(joined[theirs.columns], theirs, check_dtype=False)
    by_service = store.get_online_features(store.get_feature_service("driver_activity_v2"), ROWS).to_dict()
    assert by_service["conv_rate_plus_val2"] == expected["service"]["conv_rate_plus_val2"]
    store.close()


def test_pushed_rows_reach_the_views_of_the_push_source(moved):
    store, now = FeatureStore(moved), datetime.now(UTC)
    row = {"driver_id": [1001], "event_timestamp": [now], "created": [now], "conv_rate": [1.0], "acc_rate": [0.5]}
    frame = pd.DataFrame({**row, "avg_daily_trips": [1000], "driver_metadata": [{"a": "b"}], "driver_config": ["{}"]})
    frame["driver_profile"] = [{"name": "driver_1001_updated", "age": "30"}]
    store.push("driver_stats_push_source", frame, to=PushMode.ONLINE_AND_OFFLINE)
    service = store.get_feature_service("driver_activity_v3")
    found = store.get_online_features(service, ROWS[:1]).to_dict()
    assert found["avg_daily_trips"] == [1000] and found["conv_rate_plus_val1"] == [1001.0]
    assert found["driver_profile"] == [{"name": "driver_1001_updated", "age": "30"}]
    store.close()


def test_feasts_client_looks_up_at_our_server(feast, moved):
    child = Child("server", moved, 0)
    try:
        command = [feast_environment(), HERE / "feast_script.py", feast[0], child.url, json.dumps([FEATURES, ROWS])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    finally:
        child.stop()
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["acc_rate"] == feast[1]["online"]["acc_rate"]
