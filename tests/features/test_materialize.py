"""Materialization from real Parquet files: the newest known row, in bounded memory, whatever cuts it short."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.stats import END, START, VIEW
from noria.errors import InvalidData
from noria.features import OnlineFeatures, ViewSpec
from noria.features.materialize import Materialized, materialize, newest_rows
from noria.features.readers import Status
from noria.store import KeyValueStore, open_keyvalue


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def write(folder: Path, rows: list[tuple[int, float, float | None, float]]) -> None:
    """(id, hour of the event, hour it was recorded, value)."""
    times = {"event_timestamp": pl.Datetime("us", "UTC"), "created": pl.Datetime("us", "UTC")}
    pl.DataFrame(
        {
            "id": [row[0] for row in rows],
            "event_timestamp": [at(row[1]) for row in rows],
            "created": [None if row[2] is None else at(row[2]) for row in rows],
            "value": [row[3] for row in rows],
            "number": [round(row[3]) for row in rows],
        },
        schema_overrides=times,
    ).write_parquet(folder / "rows.parquet")


def values(store: KeyValueStore, *ids: int) -> list[float | None]:
    (found,) = OnlineFeatures(store).lookup((ViewSpec.of(VIEW),), {"id": ids}, round(END.timestamp() * 1000))
    return list(found["value"].values)


@pytest.fixture
def store(tmp_path: Path) -> KeyValueStore:
    return open_keyvalue("", tmp_path / "online")


def test_the_newest_event_wins_then_the_newest_recording_then_the_last_row(store, tmp_path):
    write(tmp_path, [(1, 5, 9, 1.0), (1, 6, 7, 2.0), (1, 6, 8, 3.0), (1, 6, 8, 4.0), (2, 1, 1, 5.0)])
    assert materialize(VIEW, tmp_path, store, START, END) == Materialized("stats", 5, 2)
    assert values(store, 1, 2, 3) == [4.0, 5.0, None]


def test_only_events_of_the_interval_are_taken_both_ends_included(store, tmp_path):
    write(tmp_path, [(1, 1, 1, 1.0), (2, 2, 2, 2.0), (3, 4, 4, 3.0), (4, 4.001, 4.001, 4.0)])
    assert materialize(VIEW, tmp_path, store, at(2), at(4)).read == 2
    assert values(store, 1, 2, 3, 4) == [None, 2.0, 3.0, None]


def test_what_was_not_yet_recorded_is_not_known(store, tmp_path):
    write(tmp_path, [(1, 1, 1, 1.0), (1, 2, 5, 2.0), (2, 2, None, 3.0)])
    materialize(VIEW, tmp_path, store, START, at(4))
    assert values(store, 1, 2) == [1.0, 3.0]
    materialize(VIEW, tmp_path, store, START, at(5))
    assert values(store, 1) == [2.0]


def test_a_row_recorded_late_is_not_lost_between_two_intervals(store, tmp_path):
    write(tmp_path, [(1, 1, 1, 1.0), (2, 2, 5, 2.0)])
    materialize(VIEW, tmp_path, store, START, at(4))
    materialize(VIEW, tmp_path, store, at(4), at(6))
    assert values(store, 2) == [2.0]


rows = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 20), st.integers(0, 8), st.integers(0, 99)), max_size=20)


@settings(max_examples=40)
@given(rows, st.lists(st.integers(0, 30), min_size=1, max_size=4).map(sorted))
def test_interval_by_interval_what_is_online_is_what_was_known(tmp_path_factory, history, ends):
    folder = tmp_path_factory.mktemp("online")
    write(folder, [(key, event, event + delay, value) for key, event, delay, value in history])
    store, since = open_keyvalue("", folder), START
    for end in ends:
        materialize(VIEW, folder, store, since, at(end), batch_rows=2)
        since = at(end)
        known = [(event, event + delay, n, key, float(value)) for n, (key, event, delay, value) in enumerate(history)]
        for key in (1, 2, 3):
            seen = [one for one in known if one[3] == key and one[1] <= end]
            assert values(store, key) == [max(seen)[-1] if seen else None]
    store.close()


@settings(max_examples=60)
@given(rows)
def test_the_newest_row_of_an_entity_is_its_greatest(history):
    times = {"event_timestamp": pl.Datetime("us"), "created_timestamp": pl.Datetime("us")}
    frame = pl.DataFrame(
        [
            (key, datetime(2026, 1, 1 + event), datetime(2026, 2, 1 + delay), value)
            for key, event, delay, value in history
        ],
        schema={"id": pl.Int64, **times, "value": pl.Int64},
        orient="row",
    )
    best = {key: max((*row[1:3], n) for n, row in enumerate(history) if row[0] == key) for key, *_ in history}
    expected = [(key, history[place[-1]][3]) for key, place in sorted(best.items())]
    assert newest_rows(frame, ["id"]).select("id", "value").rows() == expected


def test_progress_is_told_after_every_batch_and_ends_at_the_sums(store, tmp_path):
    write(tmp_path, [(number, 1, 1, 1.0) for number in range(25)])
    told: list[Materialized] = []
    done = materialize(VIEW, tmp_path, store, None, END, progress=told.append, batch_rows=10)
    assert [one.written for one in told] == [10, 20, 25] and done == told[-1]


def test_a_source_of_many_batches_is_taken_whole_with_few_writes(store, tmp_path, monkeypatch):
    monkeypatch.setattr("noria.features.materialize.SOURCE_ROWS", 1000)
    write(tmp_path, [(number % 700, number // 700, number // 700, float(number)) for number in range(7000)])
    assert materialize(VIEW, tmp_path, store, None, END) == Materialized("stats", 7000, 700)
    write(tmp_path, [(number, 1000, 1000, float(number)) for number in range(5000)])
    assert materialize(VIEW, tmp_path, store, None, END + timedelta(days=90)).written == 5000
    assert values(store, 0, 4999) == [0.0, 4999.0]


def test_an_empty_source_writes_nothing(store, tmp_path):
    write(tmp_path, [(1, 1, 1, 1.0)])
    assert materialize(VIEW, tmp_path, store, at(2), END) == Materialized("stats", 0, 0)


def test_a_torn_file_and_values_of_another_type_are_told(store, tmp_path):
    write(tmp_path, [(1, 1, 1, 1.0)] * 5000)
    path = tmp_path / "rows.parquet"
    pl.read_parquet(path).with_columns(number=pl.lit("many")).write_parquet(path)
    with pytest.raises(InvalidData, match=r"'number' of source 'rows\.parquet' is String"):
        materialize(VIEW, tmp_path, store, None, END)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidData, match="cannot be read"):
        materialize(VIEW, tmp_path, store, None, END)


RUN = f"""
import sys
sys.path.append({str(Path(__file__).parents[1])!r})
from pathlib import Path
from features.stats import END, VIEW
from noria.features.materialize import materialize
from noria.store import open_keyvalue
url, folder = sys.argv[1], Path(sys.argv[2])
store = open_keyvalue(url, folder)
def told(done):
    print("batch", flush=True)
    sys.stdin.readline()  # the test says when to go on
materialize(VIEW, folder, store, None, END, progress=told, batch_rows=1000)
"""


@pytest.fixture(params=["sqlite", "lmdb", "redis", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_server").url)
    if request.param == "postgresql":
        return str(request.getfixturevalue("new_database_url")("postgresql"))
    return f"{request.param}:///{tmp_path}/store"


def many(folder: Path, hour: int, shift: int) -> list[float]:
    wanted = [float(number + shift) for number in range(5000)]
    write(folder, [(number, hour, hour, value) for number, value in enumerate(wanted)])
    return wanted


def test_a_run_that_is_killed_leaves_whole_rows_and_is_finished_by_the_next(url, tmp_path):
    store = open_keyvalue(url, tmp_path)
    store.delete(b"")
    old = many(tmp_path, 1, 0)
    materialize(VIEW, tmp_path, store, None, END)
    new = many(tmp_path, 2, 7)
    with subprocess.Popen(
        [sys.executable, "-c", RUN, url, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdin is not None and run.stdout is not None
        assert run.stdout.readline() == "batch\n"
        run.stdin.write("go on\n")
        run.stdin.flush()
        run.send_signal(signal.SIGKILL)
    found = values(store, *range(5000))
    assert all(one in (before, after) for one, before, after in zip(found, old, new, strict=True))
    assert found[:1000] == new[:1000] and found[4000:] == old[4000:]
    assert materialize(VIEW, tmp_path, store, None, END).written == 5000
    assert values(store, *range(5000)) == new
    store.close()


def test_two_runs_at_once_end_with_the_newest_rows(store, tmp_path):
    (tmp_path / "old").mkdir()
    many(tmp_path / "old", 1, 0)
    new = many(tmp_path, 2, 7)
    command, pipes = [sys.executable, "-c", RUN, f"sqlite:///{store.path}"], {"stdin": -1, "stdout": -1, "text": True}
    runs = [subprocess.Popen([*command, str(folder)], **pipes) for folder in (tmp_path, tmp_path / "old")]
    for run in runs:
        run.communicate("go on\n" * 5)
        assert run.returncode == 0
    assert values(store, *range(5000)) == new


def test_events_before_1970_are_older(store, tmp_path):
    write(tmp_path, [(1, -24.0 * 365 * 60, -24.0 * 365 * 60, 1.0), (1, -24.0 * 365 * 70, 1, 2.0)])
    materialize(VIEW, tmp_path, store, None, END)
    assert values(store, 1) == [1.0]
    assert OnlineFeatures(store).lookup((ViewSpec.of(VIEW),), {"id": [1]}, 0)[0]["value"].statuses == [Status.PRESENT]
