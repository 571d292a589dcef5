"""What is claimed of joins by Ray, checked in a process that has it: ``ray_join_script.py CLAIM FOLDER``."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import ray
from polars.testing import assert_frame_equal

from features.oracle import newest
from noria.errors import InvalidData, InvalidInput, Unavailable
from noria.features import (
    Aggregation,
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    join_as_of,
)
from noria.features.ray_join import by_ray
from noria.features.types import Array, Float64, Int64, String
from peers.ray_sources import Dying, Held

START, ROWS, KEYS, SEEN = datetime(2026, 1, 1, tzinfo=UTC), 25_000, 150, 150
TTL, WINDOW = timedelta(hours=60), timedelta(hours=72)
BUYER, ITEM, SHOP = Entity(name="buyer"), Entity(name="item"), Entity(name="shop")
random = np.random.default_rng(7)


def times(count: int, unit: str = "us") -> pl.Series:
    """Whole hours, so that ties and rows on the very edge of a TTL come up."""
    hours = random.integers(0, 240, count).tolist()
    return pl.Series([START + timedelta(hours=hour) for hour in hours], dtype=pl.Datetime(unit, "UTC"))


def some(values: list[object], share: float = 0.05) -> list[object]:
    """The values, a few of them null."""
    return [None if random.random() < share else value for value in values]


def history(path: Path, keys: dict[str, list[object]]) -> pl.DataFrame:
    """A table of values by keys, some late, some null; written to a file."""
    height = len(next(iter(keys.values())))
    event = times(height)
    late = pl.Series(random.integers(0, 20, height)).cast(pl.Duration("us")) * 3_600_000_000
    frame = pl.DataFrame(
        {
            **keys,
            "event_timestamp": event,
            "created_timestamp": (event + late).zip_with(pl.Series(random.random(height) < 0.8), event.clear(height)),
            "value": pl.Series(some(random.normal(size=height).tolist()), dtype=pl.Float64),
            "count": pl.Series(some(random.integers(0, 2**62, height).tolist()), dtype=pl.Int64),
        }
    )
    frame.write_parquet(path, row_group_size=500)
    return frame


def texts(count: int, keys: int = KEYS) -> list[object]:
    return [f"käufer-{number}" for number in random.integers(0, keys, count).tolist()]


def asked() -> pl.DataFrame:
    """Rows of known, unknown and null keys, in no order, with a column that nobody looks at."""
    return pl.DataFrame(
        {
            "at": times(ROWS),
            "buyer": some(texts(ROWS, KEYS + 10)),
            "item": some(random.integers(0, 20, ROWS).tolist()),
            "shop": random.integers(0, 9, ROWS),
            "label": random.random(ROWS),
        }
    )


def join(events: pl.DataFrame, views: list[FeatureView], folder: Path) -> pl.DataFrame:
    return join_as_of(events, views, event_time="at", folder=folder, engine=by_ray)


def same_as_here_and_as_the_definition(folder: Path) -> None:
    buyers = history(folder / "buyers.parquet", {"buyer": texts(3000)})
    pairs = history(
        folder / "pairs.parquet", {"buyer": texts(3000, 30), "item": some(random.integers(0, 20, 3000).tolist())}
    )
    shops = history(folder / "shops.parquet", {"shop": random.integers(0, 8, 400).tolist()})
    value, counted = Field(name="value", dtype=Float64), Field(name="count", dtype=Int64)
    views = [
        FeatureView(
            name="buyers", entities=[BUYER], schema=[value, counted], ttl=TTL, source=FileSource(path="buyers.parquet")
        ),
        FeatureView(name="pairs", entities=[BUYER, ITEM], schema=[value], source=FileSource(path="pairs.parquet")),
        FeatureView(name="shops", entities=[SHOP], schema=[value], source=lambda: shops),
        FeatureView(
            name="lately",
            entities=[BUYER],
            schema=[value, counted],
            source=PushSource(name="pushed", batch_source=FileSource(path="buyers.parquet")),
            aggregations=[
                Aggregation(column="value", function="sum", time_window=WINDOW, name="sum"),
                Aggregation(column="count", function="max", time_window=WINDOW, name="most"),
                Aggregation(column="value", function="last_3", time_window=WINDOW, name="last"),
                Aggregation(function="count", time_window=WINDOW, name="times"),
            ],
        ),
        FeatureView(name="all", schema=[value], source=lambda: shops.lazy()),
    ]
    events = asked()
    found = join(events, views, folder)
    expected, summed = join_as_of(events, views, event_time="at", folder=folder), ["lately__sum"]
    assert_frame_equal(found.drop(summed), expected.drop(summed), check_exact=True)
    # Sums of floats depend in their last bit on what else is summed, also between two joins here.
    assert_frame_equal(found.select(summed), expected.select(summed), rel_tol=1e-11, abs_tol=1e-11)
    assert found.select(events.columns).equals(events, null_equal=True)
    assert found["lately__last"].dtype == pl.List(pl.Float64) == Array(Float64).polars()
    plain = {"buyers": buyers.to_dicts(), "pairs": pairs.to_dicts(), "shops": shops.to_dicts()}
    for row in found[random.choice(ROWS, SEEN, replace=False).tolist()].iter_rows(named=True):
        looked_up = [
            newest(plain["buyers"], {"buyer": row["buyer"]}, row["at"], ttl=TTL),
            newest(plain["pairs"], {"buyer": row["buyer"], "item": row["item"]}, row["at"]),
            newest(plain["shops"], {"shop": row["shop"]}, row["at"]),
            newest(plain["shops"], {}, row["at"]),
        ]
        for name, best in zip(("buyers", "pairs", "shops", "all"), looked_up, strict=True):
            assert row[f"{name}__value"] == (best and best["value"]), (name, row)
        assert row["buyers__count"] == (looked_up[0] and looked_up[0]["count"])
        assert row["lately__times"] == in_window(plain["buyers"], row)
    assert all(found[f"{view.name}__{one}"].null_count() < ROWS for view in views for one in view.fields)


def in_window(rows: list[dict[str, object]], asked: dict[str, object]) -> int:
    """How many events of a buyer happened, and were known, in the window before a time."""
    at: datetime = asked["at"]
    return sum(
        row["buyer"] == asked["buyer"] and at - WINDOW < row["event_timestamp"] and known(row) <= at for row in rows
    )


def known(row: dict[str, object]) -> datetime:
    event: datetime = row["event_timestamp"]
    return max(event, row["created_timestamp"] or event)


def by_the_store_and_by_its_setting(folder: Path) -> None:
    (folder / "noria.toml").write_text('[project]\nname = "shop"\n[model]\nname = "m"\ntask = "regression"\n')
    history(folder / "buyers.parquet", {"buyer": texts(500)})
    view = FeatureView(
        name="buyers",
        entities=[BUYER],
        schema=[Field(name="buyer", dtype=String), Field(name="value", dtype=Float64)],
        source=FileSource(path="buyers.parquet"),
    )
    events = asked().rename({"at": "event_timestamp"}).head(1000)
    store = FeatureStore(folder)
    store.apply([view])
    here = store.get_historical_features(events, ["buyers:value"]).to_polars()
    assert not ray.is_initialized()
    by_name = store.get_historical_features(events, ["buyers:value"], engine="ray").to_polars()
    assert not ray.is_initialized()  # what was started for the join is gone
    store.close()
    os.environ["NORIA_FEATURES__ENGINE"] = "ray"
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)  # what runs already is used, and stays
    store = FeatureStore(folder)
    set_so = store.get_historical_features(events, ["buyers:value"]).to_polars()
    assert ray.is_initialized()
    store.close()
    assert here.equals(by_name, null_equal=True) and here.equals(set_so, null_equal=True)
    with pytest.raises(InvalidInput, match="there is no engine 'spark'"):
        store.get_historical_features(events, ["buyers:value"], engine="spark")


def killed_workers_are_replaced_or_told(folder: Path) -> None:
    history(folder / "buyers.parquet", {"buyer": texts(500)})

    def dying(kills: int) -> FeatureView:
        source = Dying(path="buyers.parquet", kills=kills)
        return FeatureView(name="buyers", entities=[BUYER], schema=[Field(name="value", dtype=Float64)], source=source)

    events = asked()
    found = join(events, [dying(1)], folder)
    assert len(list(folder.glob("killed-*"))) == 1
    assert found.equals(join_as_of(events, [dying(0)], event_time="at", folder=folder), null_equal=True)
    with pytest.raises(Unavailable, match=r"^part \d of 3 \(\d+ rows\) of feature view 'buyers' was not joined: ") as e:
        join(events, [dying(1000)], folder)
    assert "ask again" in e.value.remedy


def a_part_that_fails_is_named(folder: Path) -> None:
    history(folder / "buyers.parquet", {"buyer": texts(500)})
    events, numbers = asked(), [Field(name="value", dtype=Int64)]
    halves = pl.read_parquet(folder / "buyers.parquet").with_columns(value=pl.lit(2**60).cast(pl.UInt64) * 15)
    halves.write_parquet(folder / "large.parquet")
    bad = FeatureView(name="bad", entities=[BUYER], schema=numbers, source=FileSource(path="large.parquet"))
    with pytest.raises(InvalidData, match=r"^part \d of 3 \(\d+ rows\) of feature view 'bad': column 'value'") as e:
        join(events, [bad], folder)
    assert e.value.remedy.startswith("Mend the rows")
    held = FeatureView(name="held", entities=[BUYER], schema=numbers, source=Held(path="buyers.parquet"))
    with pytest.raises(InvalidInput, match="of feature view 'held' cannot be sent to a worker: ") as e:
        join(events, [held], folder)
    assert "FileSource or SqlSource" in e.value.remedy

    def broken() -> pl.DataFrame:
        raise ValueError("no such table")

    told_here = FeatureView(name="told", entities=[BUYER], schema=numbers, source=broken)
    with pytest.raises(InvalidData, match=r"broken' failed at .*ray_join_script.py:.*no such table"):
        join(events, [told_here], folder)


if __name__ == "__main__":
    if sys.argv[1] != "by_the_store_and_by_its_setting":
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)  # once for all joins of the claim
    globals()[sys.argv[1]](Path(sys.argv[2]))
