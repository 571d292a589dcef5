"""Pushed rows: each is counted once, online and in the history, whatever runs beside or fails on the way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from noria.clock import ReplayClock
from noria.errors import InvalidData, InvalidInput, Unavailable
from noria.features import Aggregation, Entity, FeatureStore, FeatureView, Field, FileSource, PushMode, PushSource
from noria.features.parquet_files import data_files, pinned
from noria.features.types import Int64
from servers import RedisServer

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
REPO = "project: shop\nprovider: local\n"
KEY, COUNT = Entity(name="id"), Aggregation(function="count", time_window=timedelta(hours=1), name="events")
SUM = Aggregation(column="v", function="sum", time_window=timedelta(hours=1), name="total")


def rows(*values: int, key: int = 1, minutes: int = 5) -> pl.DataFrame:
    at = NOW - timedelta(minutes=minutes)
    return pl.DataFrame({"id": [key] * len(values), "event_timestamp": [at] * len(values), "v": values})


def opened(folder: Path, path: str, *, windows: bool = False, repo: str = REPO) -> FeatureStore:
    (folder / "feature_store.yaml").write_text(repo)
    store = FeatureStore(folder, clock=ReplayClock(NOW))
    source = PushSource(name="pushed", batch_source=FileSource(path=path))
    schema = [Field(name="v", dtype=Int64)]
    aggregations = [COUNT, SUM] if windows else []
    store.apply(FeatureView(name="view", entities=[KEY], schema=schema, source=source, aggregations=aggregations))
    return store


def joined(store: FeatureStore, *features: str, key: int = 1) -> tuple[object, ...]:
    asked = pl.DataFrame({"id": [key], "event_timestamp": [NOW]})
    return store.get_historical_features(asked, features).to_polars().row(0)[2:]


def online(store: FeatureStore, *features: str, key: int = 1) -> list[object]:
    found = store.get_online_features(features, {"id": [key]}).to_dict()
    return [values[0] for name, values in found.items() if name != "id"]


WINDOWS = ("view:events", "view:total")


@pytest.mark.parametrize("place", ["rows.parquet", "rows"])
def test_what_is_pushed_while_a_view_is_materialized_counts_once(place, tmp_path):
    history = pl.concat([rows(1, key=key) for key in range(12_000)])
    (tmp_path / "rows").mkdir()
    history.write_parquet(tmp_path / (place if place.endswith("parquet") else f"{place}/first.parquet"))
    store, other = opened(tmp_path, place, windows=True), FeatureStore(tmp_path, clock=ReplayClock(NOW))
    pushed: list[object] = []

    def push(_done: object) -> None:
        if not pushed:  # its events are read by now, and not yet online
            other.push("pushed", rows(100, key=11_999, minutes=1), to=PushMode.ONLINE_AND_OFFLINE)
            pushed.append(online(other, *WINDOWS, key=11_999))

    store.materialize(None, NOW, progress=push)
    assert pushed == [[1, 100]]
    assert joined(store, *WINDOWS, key=11_999) == (2, 101)
    assert online(store, *WINDOWS, key=11_999) == [2, 101]
    store.materialize(None, NOW)
    assert online(store, *WINDOWS, key=11_999) == [2, 101]
    for one in (store, other):
        one.close()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


@pytest.mark.parametrize("place", ["rows.parquet", "rows"])
def test_a_push_that_finds_no_online_store_leaves_nothing_and_is_repeated(redis, place, tmp_path):
    (tmp_path / "rows").mkdir()
    rows(1).write_parquet(tmp_path / (place if place.endswith("parquet") else f"{place}/first.parquet"))
    address = redis.url.removeprefix("redis://").removesuffix("/0")
    repo = f"{REPO}online_store:\n  type: redis\n  connection_string: {address}\n"
    store = opened(tmp_path, place, windows=True, repo=repo)
    store.materialize(None, NOW)
    redis.stop()
    with pytest.raises(Unavailable):
        store.push("pushed", rows(10), to=PushMode.ONLINE_AND_OFFLINE)
    assert joined(store, *WINDOWS) == (1, 1)
    redis.start()
    store.materialize(None, NOW)  # this Redis keeps nothing
    store.push("pushed", rows(10), to=PushMode.ONLINE_AND_OFFLINE)
    assert joined(store, *WINDOWS) == (2, 11) and online(store, *WINDOWS) == [2, 11]
    assert not [path for path in tmp_path.rglob(".rows*") if path.suffix != ".lock"]
    store.close()


def test_markers_checksums_and_what_a_killed_push_left_are_no_rows(tmp_path):
    (tmp_path / "rows/_temporary").mkdir(parents=True)
    rows(1).write_parquet(tmp_path / "rows/a.parquet")
    for name in ("_SUCCESS", ".a.parquet.crc", ".pushed-1.parquet.2", "_temporary/b.parquet", "README.md"):
        (tmp_path / "rows" / name).write_bytes(b"PAR1 no rows")
    store = opened(tmp_path, "rows")
    store.push("pushed", rows(2, minutes=1), to=PushMode.ONLINE_AND_OFFLINE)
    assert joined(store, "view:v") == (2,) and len(data_files(tmp_path / "rows")) == 2
    (tmp_path / "rows/b.parquet").write_bytes(b"PAR1 no rows")
    with pytest.raises(InvalidData, match=r"rows/b\.parquet is damaged"):
        joined(store, "view:v")
    store.close()


def test_a_file_that_a_push_replaces_stays_the_one_a_reader_began_with(tmp_path):
    rows(*range(100)).write_parquet(tmp_path / "rows.parquet")
    store = opened(tmp_path, "rows.parquet")
    source = store.get_feature_view("view").source
    with pinned():
        frame = source.scan(tmp_path)
        store.push("pushed", rows(*range(5000)), to=PushMode.OFFLINE)
        assert frame.collect().height == 100
    assert source.scan(tmp_path).collect().height == 5100
    store.close()


def test_a_damaged_file_takes_no_push_and_is_named_and_kept(tmp_path):
    rows(1).write_parquet(tmp_path / "rows.parquet")
    store = opened(tmp_path, "rows.parquet")
    cut = (tmp_path / "rows.parquet").read_bytes()[:-20]
    (tmp_path / "rows.parquet").write_bytes(cut)
    for mode in (PushMode.OFFLINE, PushMode.ONLINE_AND_OFFLINE):
        with pytest.raises(InvalidData, match=r"rows\.parquet is damaged"):
            store.push("pushed", rows(2), to=mode)
    with pytest.raises(InvalidData, match=r"rows\.parquet is damaged"):
        store.health()
    assert (tmp_path / "rows.parquet").read_bytes() == cut and online(store, "view:v") == [None]
    store.close()


def test_where_to_push_is_told_by_the_mode_or_its_name(tmp_path):
    rows(1).write_parquet(tmp_path / "rows.parquet")
    store = opened(tmp_path, "rows.parquet")
    store.push("pushed", rows(2), to="online")
    assert online(store, "view:v") == [2] and joined(store, "view:v") == (1,)
    store.push("pushed", rows(3), to="Offline")
    assert online(store, "view:v") == [2] and joined(store, "view:v") == (3,)
    for wrong in ("mars", 1, None):
        with pytest.raises(InvalidInput, match="ONLINE_AND_OFFLINE"):
            store.push("pushed", rows(4), to=wrong)
    assert online(store, "view:v") == [2] and joined(store, "view:v") == (3,)
    store.close()
