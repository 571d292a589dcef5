"""The feature store as people use it: definitions in a repo, joined, brought online, looked up."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from noria import audit
from noria.clock import ReplayClock
from noria.errors import InvalidConfig, InvalidInput, MissingExtra, NoriaError, NotFound
from noria.features import (
    Aggregation,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushMode,
    PushSource,
    RequestSource,
    ValueType,
    on_demand_feature_view,
)
from noria.features.types import Array, Float32, Float64, Int64, Map, String, Struct, UnixTimestamp
from support import noria

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
REPO = "project: shop\nregistry: data/registry.db\nprovider: local\nonline_store:\n  type: sqlite\n"
ROWS = pl.DataFrame(
    {
        "user_id": [1001, 1001, 1002, 1003],
        "event_timestamp": [NOW - timedelta(days=days) for days in (9, 1, 2, 40)],
        "created_timestamp": [NOW - timedelta(days=days) for days in (9, 0.5, 2, 40)],
        "total_orders": [1, 2, 3, 4],
        "average_order_value": [10.5, 20.25, None, 40.0],
        "tags": [["a"], [], None, ["x", "y"]],
        "profile": [{"tier": "gold", "age": 3}, {"tier": "iron", "age": 4}, None, {"tier": "x", "age": 0}],
    }
)

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
history = FileSource(
    path="data/user_stats.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created_timestamp",
)
stats = FeatureView(
    name="user_stats",
    entities=[user],
    ttl=timedelta(days=30),
    schema=[
        Field(name="total_orders", dtype=Int64),
        Field(name="average_order_value", dtype=Float32),
        Field(name="tags", dtype=Array(String)),
        Field(name="profile", dtype=Struct({"tier": String, "age": Int64})),
    ],
    source=PushSource(name="orders", batch_source=history),
)
discount = RequestSource(name="cart", schema=[Field(name="discount", dtype=Float64)])


@on_demand_feature_view(
    sources=[stats[["average_order_value", "total_orders"]], discount],
    schema=[Field(name="price_per_order", dtype=Float64)],
)
def per_order(given: pd.DataFrame) -> pd.DataFrame:
    price = given["average_order_value"] * given["discount"] / given["total_orders"]
    return pd.DataFrame({"price_per_order": price})


service = FeatureService(name="user_service", features=[stats[["total_orders", "average_order_value"]]])
ORDERS = ["user_stats:total_orders", "user_stats:average_order_value"]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "feature_store.yaml").write_text(REPO)
    ROWS.write_parquet(tmp_path / "data/user_stats.parquet")
    return tmp_path


@pytest.fixture
def store(repo: Path):
    opened = FeatureStore(repo, clock=ReplayClock(NOW))
    opened.apply([user, stats, service])
    yield opened
    opened.close()


def entities(**columns: object) -> pd.DataFrame:
    frame = pd.DataFrame({"user_id": [1002, 1001, 1009, 1001], **columns})
    frame["event_timestamp"] = [NOW, NOW, NOW, (NOW - timedelta(hours=13)).replace(tzinfo=None)]
    frame["event_timestamp"] = pd.to_datetime(frame["event_timestamp"], utc=True)
    return frame.set_index(pd.Index(["a", "b", "c", "d"]))


def test_a_training_frame_keeps_the_entity_frame_and_adds_what_was_known(store):
    asked = entities(label=[1.0, None, 0.0, 1.0])
    found = store.get_historical_features(entity_df=asked, features=ORDERS).to_df()
    pd.testing.assert_frame_equal(found[asked.columns], asked)
    assert found["total_orders"].tolist()[:2] == [3, 2]
    assert found["total_orders"].isna().tolist() == [False, False, True, False]
    assert found.loc["d", "total_orders"] == 1  # the second order was known an hour later
    leaky = store.get_historical_features(entity_df=asked, features=ORDERS, filter_by_created_timestamp=False)
    assert leaky.to_df().loc["d", "total_orders"] == 2


def test_the_same_frame_comes_as_pandas_polars_and_arrow(store):
    asked = entities().reset_index(drop=True)
    for given in (asked, pl.from_pandas(asked), pl.from_pandas(asked).to_arrow()):
        job = store.get_historical_features(given, service, full_feature_names=True)
        assert job.to_polars()["user_stats__total_orders"].to_list() == [3, 2, None, 1]
        assert job.to_arrow().num_rows == len(job.to_df()) == 4


def test_integers_beside_missing_ones_stay_integers_in_pandas(store, repo):
    ROWS.with_columns(total_orders=pl.Series([1, 0, 2**53 + 1, 4])).write_parquet(repo / "data" / "user_stats.parquet")
    store.materialize(NOW - timedelta(days=30), NOW)
    offline = store.get_historical_features(entities(), ORDERS).to_df(timeout=5)
    online = store.get_online_features(ORDERS, [{"user_id": one} for one in (1001, 1002, 5)]).to_df()
    for found in (offline, online):
        assert str(found["total_orders"].dtype) == "Int64"
        assert found["total_orders"].isna().any()
    assert online["total_orders"][:2].tolist() == [0, 2**53 + 1]
    with pytest.raises(InvalidInput, match="validation_reference"):
        store.get_historical_features(entities(), ORDERS).to_df(validation_reference="reference")


def test_columns_of_a_frame_may_have_any_names_but_no_two_the_same(store):
    named = entities().assign(**{"7": 1}).rename(columns={"7": 7})
    found = store.get_historical_features(named, ORDERS).to_df()
    assert (
        found["total_orders"].tolist()
        == store.get_historical_features(entities(), ORDERS).to_df()["total_orders"].tolist()
    )
    with pytest.raises(InvalidInput, match="two columns of the frame are called '7'"):
        store.get_historical_features(named.assign(**{"7": 2}), ORDERS).to_df()
    with pytest.raises(InvalidInput, match="cannot be read"):
        store.get_historical_features(entities(mixed=[1, "a", b"b", 2.5]), ORDERS).to_df()


def test_lists_and_dictionaries_come_back_as_such(store):
    features = ["user_stats:tags", "user_stats:profile"]
    found = store.get_historical_features(entities(), features).to_df()
    assert found["profile"].tolist() == [None, {"tier": "iron", "age": 4}, None, {"tier": "gold", "age": 3}]
    store.materialize(None, NOW)
    online = store.get_online_features(features, [{"user_id": 1001}, {"user_id": 1002}]).to_dict()
    assert online["profile"] == [{"tier": "iron", "age": 4}, None] and online["tags"] == [[], None]


def test_a_lookup_gives_values_their_times_and_why_one_is_missing(store):
    assert [(one.view, one.written) for one in store.materialize(None, NOW)] == [("user_stats", 3)]
    found = store.get_online_features(ORDERS, [{"user_id": key} for key in (1001, 1002, 1003, 1004)])
    assert found.to_dict() == {
        "user_id": [1001, 1002, 1003, 1004],
        "total_orders": [2, 3, None, None],
        "average_order_value": [20.25, None, None, None],
    }
    statuses = [status.name for status in found.columns["average_order_value"].statuses]
    assert statuses == ["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    times = found.to_dict(include_event_timestamps=True)["total_orders__ts"]
    assert times[0] == (NOW - timedelta(days=1)).timestamp() and times[3] == 0
    by_service = store.get_online_features(store.get_feature_service("user_service"), {"user_id": [1001]})
    assert by_service.to_df()["average_order_value"].tolist() == [20.25]


def test_an_instant_in_nanoseconds_is_the_same_online(store, repo):
    when = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    seen = ROWS.select("user_id", "event_timestamp", last_seen=pl.lit(when, pl.Datetime("ns", "UTC")))
    seen.write_parquet(repo / "seen.parquet")
    schema = [Field(name="last_seen", dtype=UnixTimestamp)]
    store.apply(FeatureView(name="seen", entities=[user], schema=schema, source=FileSource(path="seen.parquet")))
    store.materialize(None, NOW, ["seen"])
    offline = store.get_historical_features(entities(), ["seen:last_seen"]).to_polars()["last_seen"][1]
    assert store.get_online_features(["seen:last_seen"], {"user_id": [1001]}).to_dict()["last_seen"] == [offline]
    assert offline == when


def test_pushed_rows_are_online_at_once_and_in_the_history_when_asked(store, repo):
    row = {"user_id": [1002], "total_orders": [9], "average_order_value": [1.5], "tags": [["new"]]}
    fresh = pd.DataFrame({**row, "event_timestamp": [NOW], "created_timestamp": [NOW]})
    fresh["profile"] = [{"tier": "new", "age": 1}]
    store.push("orders", fresh)
    assert store.get_online_features(ORDERS, [{"user_id": 1002}]).to_dict()["total_orders"] == [9]
    assert pl.read_parquet(repo / history.path).height == 4
    store.push("orders", fresh, to=PushMode.ONLINE_AND_OFFLINE)
    assert pl.read_parquet(repo / history.path).filter(user_id=1002)["total_orders"].to_list() == [3, 9]
    with pytest.raises(NoriaError, match="lacks columns: tags"):
        store.push("orders", fresh.drop(columns=["tags"]), to=PushMode.ONLINE_AND_OFFLINE)
    assert pl.read_parquet(repo / history.path).height == 5
    late = fresh.assign(event_timestamp=NOW - timedelta(days=3), total_orders=0)
    store.write_to_online_store("user_stats", late)
    assert store.get_online_features(ORDERS, [{"user_id": 1002}]).to_dict()["total_orders"] == [9]


def test_the_next_increment_begins_where_the_last_ended(store, repo):
    assert store.materialize_incremental(NOW - timedelta(days=1, hours=1))[0].written == 2
    more = ROWS.filter(user_id=1002).with_columns(event_timestamp=pl.lit(NOW), total_orders=pl.lit(5, pl.Int64))
    pl.concat([ROWS, more.with_columns(created_timestamp=pl.lit(NOW))]).write_parquet(repo / history.path)
    (done,) = store.materialize_incremental(NOW)
    assert (done.read, done.written) == (2, 2)
    found = store.get_online_features(ORDERS, {"user_id": [1001, 1002]}).to_dict()
    assert found["total_orders"] == [2, 5]


def test_what_differs_becomes_a_version_and_the_chain_seals_it(store):
    assert {change.what for change in store.apply([user, stats, service])} == {"unchanged"}
    other = FeatureView(name="user_stats", entities=[user], ttl=timedelta(days=1), schema=stats.schema, source=history)
    changed = {change.name: change.what for change in store.apply(other)}
    assert changed == {"user": "unchanged", history.path: "unchanged", "user_stats": "changed"}
    assert store.get_feature_view("user_stats").ttl == timedelta(days=1)
    assert [one.version for one in store.versions("user_stats")] == [1, 2]
    store.apply([user], partial=False)
    assert not store.list_feature_views() and [one.name for one in store.list_entities()] == ["user"]
    with store._workspace.database.read() as tx:
        assert audit.verify(tx).entries == 3


@pytest.mark.parametrize("ttl", [timedelta.max, timedelta(days=290_000, microseconds=1), timedelta(microseconds=1)])
def test_any_ttl_is_kept_to_the_microsecond(store, repo, ttl):
    store.apply(FeatureView(name="user_stats", entities=[user], ttl=ttl, schema=stats.schema, source=history))
    other = FeatureStore(repo, clock=ReplayClock(NOW))
    assert other.get_feature_view("user_stats").ttl == ttl
    assert other.materialize_incremental(NOW) and other.health()
    assert (other.get_online_features(ORDERS, {"user_id": [1001]}).to_dict()["total_orders"] == [2]) == (ttl.days > 0)
    other.close()


def test_another_process_that_has_only_the_database_knows_all_of_it(store, repo):
    other = FeatureStore(repo, clock=ReplayClock(NOW))
    assert other.get_feature_view("user_stats").document() == stats.document()
    assert other.get_feature_service("user_service").document() == service.document()
    found = other.get_historical_features(entities(), ORDERS).to_polars()
    assert found["total_orders"].to_list() == [3, 2, None, 1]
    other.close()


def test_one_view_is_joined_twice_under_two_names(store, repo):
    store.apply(
        FeatureService(
            name="pairs",
            features=[
                stats[["total_orders"]].with_name("buyer").with_join_key_map({"user_id": "buyer_id"}),
                stats[["total_orders"]].with_name("seller").with_join_key_map({"user_id": "seller_id"}),
            ],
        )
    )
    pairs = store.get_feature_service("pairs")
    asked = pl.DataFrame({"buyer_id": [1001, 1002], "seller_id": [1002, 7], "event_timestamp": [NOW, NOW]})
    found = store.get_historical_features(asked, pairs, full_feature_names=True).to_polars()
    assert found["buyer__total_orders"].to_list() == [2, 3] and found["seller__total_orders"].to_list() == [3, None]
    store.materialize(None, NOW)
    rows = asked.drop("event_timestamp").to_dict(as_series=False)
    online = store.get_online_features(pairs, rows, full_feature_names=True).to_dict()
    assert online["buyer__total_orders"] == [2, 3] and online["seller__total_orders"] == [3, None]
    with pytest.raises(InvalidInput, match="full_feature_names"):
        store.get_online_features(pairs, rows)


@pytest.mark.parametrize(
    ("call", "now"),
    [
        (lambda s: s.get_service(name="user_service", features=ORDERS), "get_feature_service"),
        (lambda s: s.get_historical_features(entity_df=entities(), feature_refs=ORDERS), "features="),
        (lambda s: s.get_online_features(feature_refs=ORDERS, entity_rows=[{"user_id": 1}]), "features="),
        (lambda _: FeatureView(name="v", entities=["user_id"], source=history), "Entity"),
        (lambda _: FeatureView(name="v", entities=[user], features=[], source=history), "schema="),
        (lambda _: FeatureView(name="v", entities=[user], batch_source=history), "source="),
        (lambda _: Field(name="total_orders", dtype=ValueType.INT64), "dtype=Int64"),
        (lambda _: __import__("noria.features", fromlist=["Feature"]).Feature, "Field"),
    ],
)
def test_an_outdated_spelling_is_answered_with_the_current_one(store, call, now):
    with pytest.raises((NoriaError, AttributeError, ImportError), match=now):
        call(store)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.get_online_features(["user_stats:nope"], [{"user_id": 1}]), "no feature 'nope'"),
        (lambda s: s.get_online_features(["nope:total_orders"], [{"user_id": 1}]), "no feature view 'nope'"),
        (lambda s: s.get_online_features(["total_orders"], [{"user_id": 1}]), "no reference"),
        (lambda s: s.get_online_features([], [{"user_id": 1}]), "no features"),
        (lambda s: s.get_online_features(ORDERS, [{"driver": 1}]), "'user_id' is missing"),
        (lambda s: s.get_online_features(ORDERS, [{"user_id": 1}, {}]), "entity row 1"),
        (lambda s: s.get_online_features(ORDERS, []), "no entities"),
        (lambda s: s.get_online_features(ORDERS, [{"user_id": "many"}]), "user_id"),
        (lambda s: s.get_online_features(ORDERS, {"user_id": [2**70]}), "64 bits"),
        (lambda s: s.get_historical_features(None, ORDERS), "no entity frame"),
        (lambda s: s.get_historical_features(entities().drop(columns="user_id"), ORDERS).to_df(), "user_id"),
        (lambda s: s.get_historical_features(entities()[["user_id"]], ORDERS).to_df(), "event_timestamp"),
        (lambda s: s.get_historical_features(7, ORDERS).to_df(), "no frame"),
        (lambda s: s.get_historical_features(entities(total_orders=1), ORDERS).to_df(), "total_orders"),
        (lambda s: s.push("nope", entities()), "Push sources in use: orders"),
        (lambda s: s.push("orders", entities()), "lacks columns"),
        (lambda s: s.get_entity("nope"), "Applied: user"),
        (lambda s: s.materialize(None, NOW, ["nope"]), "no feature view 'nope'"),
        (lambda s: s.apply(FeatureView(name="v", source=FileSource(path="none.parquet"))), "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_to_do(store, call, message):
    with pytest.raises((InvalidConfig, NoriaError), match=message) as caught:
        call(store)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("project: [", "not valid YAML"),
        ("registry: x", "names no project"),
        ("project: shop\nonline_store: {type: dynamodb}", "dynamodb"),
        (None, "no noria.toml or feature_store.yaml"),
    ],
)
def test_a_repo_that_cannot_be_opened_is_named(text, message, tmp_path):
    if text is not None:
        (tmp_path / "feature_store.yaml").write_text(text)
    with pytest.raises(InvalidConfig, match=message):
        FeatureStore(tmp_path)


def test_a_table_becomes_definitions_that_apply(repo):
    drafted = noria("features", "generate", "data/user_stats.parquet", cwd=repo).stdout
    assert "ValueType.INT64" in drafted and 'created_timestamp_column="created_timestamp"' in drafted
    noria("features", "generate", "data/user_stats.parquet", "--output", "stats.py", "--yes", cwd=repo)
    assert (repo / "stats.py").read_text() == drafted
    again = noria("features", "generate", "data/user_stats.parquet", "--output", "stats.py", cwd=repo, check=False)
    assert again.returncode == 1 and "exists" in again.stderr
    planned = json.loads(noria("features", "diff", "--json", cwd=repo).stdout)
    applied = json.loads(noria("features", "apply", "--json", cwd=repo).stdout)
    assert [row["change"] for row in planned] == [row["change"] for row in applied] == ["created"] * 3
    noria("features", "materialize", "--until", "2026-03-10T12:00:00Z", cwd=repo)
    store = FeatureStore(repo, clock=ReplayClock(NOW))
    found = store.get_online_features(["user_stats:total_orders", "user_stats:profile"], [{"user_id": 1001}]).to_dict()
    assert found == {"user_id": [1001], "total_orders": [2], "profile": [{"tier": "iron", "age": 4}]}
    assert store.get_feature_view("user_stats").features[3].dtype == Map
    store.close()
    with pytest.raises(NotFound):
        store.get_feature_view("nope")


@pytest.fixture
def spending(repo):
    """A view of what each user spent, in windows, pushed as it happens."""
    events = pl.DataFrame(
        {
            "user_id": [1, 1, 2, 1],
            "event_timestamp": [NOW - timedelta(hours=hours) for hours in (30, 3, 2, 1)],
            "amount": [100, 7, 5, 2],
        }
    )
    events.write_parquet(repo / "data/payments.parquet")
    view = FeatureView(
        name="spending",
        entities=[user],
        schema=[Field(name="amount", dtype=Int64)],
        source=PushSource(name="payments", batch_source=FileSource(path="data/payments.parquet")),
        aggregations=[
            Aggregation(column="amount", function="sum", time_window=timedelta(hours=24), name="spent_24h"),
            Aggregation(function="count", time_window=timedelta(days=7), name="payments_7d"),
            Aggregation(column="amount", function="last_2", time_window=timedelta(days=7), name="last_amounts"),
        ],
    )
    clock = ReplayClock(NOW)
    store = FeatureStore(repo, clock=clock)
    store.apply(view)
    yield store, clock
    store.close()


WINDOWS = ["spending:spent_24h", "spending:payments_7d", "spending:last_amounts"]


def test_windows_say_the_same_offline_and_online_while_events_are_pushed(spending):
    store, clock = spending
    store.materialize(None, NOW - timedelta(minutes=90))
    for minutes, user_id, amount in [(60, 1, 2), (30, 2, 11), (0, 3, 1), (0, 2, 4)]:
        at = NOW - timedelta(minutes=minutes)
        row = pl.DataFrame({"user_id": [user_id], "event_timestamp": [at], "amount": [amount]})
        store.push("payments", row, to=PushMode.ONLINE if minutes == 60 else PushMode.ONLINE_AND_OFFLINE)
    for later in (timedelta(), timedelta(hours=21, minutes=30), timedelta(days=3)):
        clock.move_to(NOW + later)
        online = store.get_online_features(WINDOWS, {"user_id": [1, 2, 3, 4]}).to_dict()
        asked = pl.DataFrame({"user_id": [1, 2, 3, 4], "event_timestamp": [NOW + later] * 4})
        offline = store.get_historical_features(asked, WINDOWS).to_polars().drop("event_timestamp")
        assert offline.to_dict(as_series=False) == online
    clock.move_to(NOW)
    found = store.get_online_features(WINDOWS, {"user_id": [1, 2, 3, 4]}).to_dict()
    assert found["spent_24h"] == [9, 20, 1, None] and found["payments_7d"] == [3, 3, 1, 0]
    assert found["last_amounts"] == [[7, 2], [11, 4], [1], None]
    store.materialize(None, NOW)
    assert store.get_online_features(WINDOWS, {"user_id": [1, 2, 3, 4]}).to_dict() == found


def test_a_feature_is_computed_on_demand_the_same_way_for_a_frame_and_a_request(store):
    store.apply([per_order, FeatureService(name="priced", features=[stats[["total_orders"]], per_order])])
    other = FeatureStore(store._repo.folder, clock=ReplayClock(NOW))
    asked = entities(discount=[0.5, 0.25, 0.0, 1.0])
    offline = other.get_historical_features(asked, other.get_feature_service("priced")).to_df()
    assert offline["price_per_order"].tolist()[1] == 20.25 * 0.25 / 2
    store.materialize(None, NOW)
    rows = [{"user_id": 1001, "discount": 0.25}, {"user_id": 1002, "discount": 0.5}]
    online = other.get_online_features(["per_order:price_per_order"], rows).to_dict()
    assert online == {"user_id": [1001, 1002], "price_per_order": [20.25 * 0.25 / 2, None]}
    with pytest.raises(InvalidInput, match="discount"):
        other.get_online_features(["per_order:price_per_order"], [{"user_id": 1001}])
    with pytest.raises(InvalidInput, match="discount"):
        other.get_historical_features(entities(), ["per_order:price_per_order"]).to_df()
    other.close()


def test_a_stale_view_and_one_of_many_nulls_break_their_limits(tmp_path):
    noria("init", str(tmp_path / "shop"), cwd=tmp_path)
    folder = tmp_path / "shop"
    ROWS.drop("tags", "profile").write_parquet(folder / "user_stats.parquet")
    noria("features", "generate", "user_stats.parquet", "--output", "stats.py", "--yes", cwd=folder)
    noria("features", "apply", cwd=folder)
    fine = json.loads(noria("features", "health", "--json", cwd=folder).stdout)
    assert {row["view"]: row["broken"] for row in fine} == {"user_stats": "", "last_day": ""}
    with (folder / "noria.toml").open("a") as config:
        config.write('[features.limits."user_*"]\nmax_age_hours = 1\nmax_null_rate = 0.2\n')
    done = noria("features", "health", "--json", cwd=folder, check=False)
    broken = {row["view"]: row["broken"] for row in json.loads(done.stdout)}
    assert done.returncode == 1 and broken["last_day"] == ""
    assert "newest row is" in broken["user_stats"] and "25.0% of 'average_order_value' is null" in broken["user_stats"]


def test_without_ray_its_engine_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    (tmp_path / "feature_store.yaml").write_text(REPO)
    (tmp_path / "data").mkdir()
    ROWS.write_parquet(tmp_path / "data/user_stats.parquet")
    store = FeatureStore(tmp_path)
    store.apply([stats])
    asked = pl.DataFrame({"user_id": [1001], "event_timestamp": [NOW]})
    job = store.get_historical_features(asked, ["user_stats:total_orders"], engine="ray")
    with pytest.raises(MissingExtra) as refused:
        job.to_polars()
    assert refused.value.remedy == "pip install 'noria[ray]'"
    with pytest.raises(InvalidInput, match="there is no engine 'spark'"):
        store.get_historical_features(asked, ["user_stats:total_orders"], engine="spark")
    store.close()
