"""Feast's feature server over HTTP: what its clients send is taken, what makes no sense is told, nothing is a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl
import pytest

from noria.surface.cli.processes import Child
from support import noria

NOW = datetime.now(UTC)
THEN = NOW - timedelta(hours=1)
DEFINITIONS = """

from noria.features import Entity, FeatureView, Field, FileSource, Int64, Json, Map, PushSource, String, UnixTimestamp

view = FeatureView(
    name="v",
    entities=[Entity(name="id")],
    schema=[
        Field(name="n", dtype=Int64),
        Field(name="seen", dtype=UnixTimestamp),
        Field(name="config", dtype=Json),
        Field(name="profile", dtype=Map),
    ],
    source=PushSource(
        name="pushed",
        batch_source=FileSource(path="rows.parquet", timestamp_field="ts", created_timestamp_column="known"),
    ),
)
"""
ROW = {
    "id": [1],
    "ts": [NOW.isoformat()],
    "known": [NOW.isoformat()],
    "n": [7],
    "seen": [1_700_000_000],
    "config": ['{"a": [1, {"b": 2}]}'],
    "profile": ['{"name": "x"}'],
}


@pytest.fixture(scope="module")
def repo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("routes")
    (folder / "feature_store.yaml").write_text("project: shop\n")
    (folder / "defs.py").write_text(DEFINITIONS.replace("from noria.features import *\n", "", 1))
    seen = datetime(2024, 5, 6, 7, 8, 9, 500_000, tzinfo=UTC)
    rows = {"id": [1, 2], "ts": [THEN] * 2, "known": [THEN] * 2, "n": [1, 2], "seen": [seen, None]}
    texts = {"config": ["[1, 2]", None], "profile": ['{"name": "a"}', None]}
    pl.DataFrame(rows | texts).write_parquet(folder / "rows.parquet")
    noria("features", "apply", cwd=folder)
    noria("features", "materialize", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def client(repo) -> Iterator[httpx.Client]:
    child = Child("server", repo, 0)
    with httpx.Client(base_url=child.url, timeout=30) as opened:
        yield opened
    child.stop()


def values(client: httpx.Client, key: int, *names: str) -> list[object]:
    body = {"features": [f"v:{name}" for name in names], "entities": {"id": [key]}}
    answer = client.post("/get-online-features", json=body).json()
    return [result["values"][0] for result in answer["results"][1:]]


def test_values_are_written_as_feasts_server_writes_them(client):
    found = values(client, 1, "seen", "config", "profile")
    assert found == [int(datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC).timestamp()), "[1, 2]", {"name": "a"}]
    assert values(client, 2, "seen", "config", "profile") == [None, None, None]


def test_rows_are_taken_as_feasts_client_sends_them(client):
    sent = {key: value for key, value in ROW.items() if key not in ("ts", "known")} | {"id": [3]}
    times = {"event_timestamp": [NOW.replace(tzinfo=None).isoformat()], "created": [None]}
    body = {"feature_view_name": "v", "df": sent | times, "allow_registry_cache": False}
    assert client.post("/write-to-online-store", json=body).status_code == 200
    expected = [7, 1_700_000_000, '{"a": [1, {"b": 2}]}', {"name": "x"}]
    assert values(client, 3, "n", "seen", "config", "profile") == expected
    push = {"push_source_name": "pushed", "df": ROW | {"id": [4]}, "to": "online", "transform_on_write": True}
    assert client.post("/push", json=push).status_code == 200
    assert values(client, 4, "n", "seen", "config", "profile") == expected


def test_everything_known_is_materialized_without_times(client):
    done = client.post("/materialize", json={"disable_event_timestamp": True, "feature_views": ["v"]})
    assert done.status_code == 200 and done.json()["v"]["read"] == 2
    body = {"start_ts": NOW.isoformat(), "end_ts": THEN.isoformat()}
    assert client.post("/materialize", json=body).status_code == 400
    assert client.post("/materialize", json={}).status_code == 400


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": ["x"]}, "'id'"),
        ({"id": [[1]]}, "'id'"),
        ({"id": [None]}, "no 'id'"),
        ({"id": [2**70]}, "'id'"),
        ({"id": [{"a": 1}]}, "'id'"),
        ({"n": [2**70]}, "'n'"),
        ({"n": [2**63]}, "'n'"),
        ({"n": [1.5]}, "'n'"),
        ({"n": ["7"]}, "'n'"),
        ({"n": [[7]]}, "'n'"),
        ({"ts": [None]}, "no 'ts'"),
        ({"ts": ["2026-13-45"]}, "2026-13-45"),
        ({"ts": [5]}, "'ts'"),
        ({"config": ["{bad json"]}, "{bad json"),
        ({"profile": ["[1"]}, "[1"),
        ({"seen": ["yesterday"]}, "yesterday"),
        ({"seen": [1e300]}, "'seen'"),
        ({"n": [1, 2]}, "2 of 'n'"),
        ({"unheard_of": [1]}, ""),
    ],
)
@pytest.mark.parametrize("where", ["/push", "/write-to-online-store"])
def test_rows_that_make_no_sense_are_refused_with_a_reason(client, repo, where, changes, words):
    before = pl.read_parquet(repo / "rows.parquet").height
    name = {"push_source_name": "pushed", "to": "online_and_offline"}
    body = {"df": ROW | {"id": [9]} | changes, **(name if where == "/push" else {"feature_view_name": "v"})}
    answer = client.post(where, content=json.dumps(body))
    if not words:  # a column that nobody knows has no place in the history
        assert answer.status_code == (400 if where == "/push" else 200)
        return
    assert answer.status_code == 400 and words in answer.json()["detail"], answer.text
    assert pl.read_parquet(repo / "rows.parquet").height == before


def test_values_of_several_kinds_in_one_column_are_refused(client):
    both = {name: column * 2 for name, column in ROW.items()} | {"id": [8, "8"]}
    answer = client.post("/push", json={"push_source_name": "pushed", "df": both})
    assert answer.status_code == 400 and "'8' in row 1" in answer.json()["detail"]
    mixed = {name: column * 2 for name, column in ROW.items()} | {"id": [8, 9], "n": [1, True]}
    assert client.post("/push", json={"push_source_name": "pushed", "df": mixed}).status_code == 400


def test_lookups_that_make_no_sense_are_refused(client):
    for entities in ({"id": [2**70]}, {"id": ["x"]}, {"id": [[1]]}, {"id": [{}]}, {}, {"other": [1]}, {"id": [1.5]}):
        answer = client.post("/get-online-features", json={"features": ["v:n"], "entities": entities})
        assert answer.status_code == 400, (entities, answer.text)
