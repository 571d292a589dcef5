"""A model on stored, windowed and on-demand features: trained, served, replayed; and what a changed definition does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import numpy as np
import polars as pl
import pytest

from noria.features.training_frame import joined
from noria.monitoring.log import PredictionLog, read_batches
from noria.optimize.bundle import read_bundle
from noria.pipelines import load_project
from noria.store.workspace import Workspace
from noria.surface.cli.processes import Child
from serving.package.image import Image, running
from support import noria

MODEL = "hourly-demand"
MORE = """

def sold() -> pl.DataFrame:
    return orders().select("shop", "demand", event_timestamp="known_at")


def hours_of_shops() -> pl.DataFrame:
    opened = datetime(2025, 12, 1, tzinfo=UTC)
    return pl.DataFrame(
        {"shop": ["north", "south"], "opens": [8, 10], "kind": ["big", "small"], "event_timestamp": [opened] * 2}
    )


recent = FeatureView(
    name="recent",
    entities=[shop],
    schema=[Field(name="demand", dtype=Float64)],
    source=sold,
    aggregations=[
        Aggregation(column="demand", function="sum", time_window=timedelta(hours=6), name="sum_6h"),
        Aggregation(function="count", time_window=timedelta(hours=6), name="count_6h"),
    ],
)
shops = FeatureView(
    name="shops",
    entities=[shop],
    schema=[Field(name="opens", dtype=Int64), Field(name="kind", dtype=String)],
    source=hours_of_shops,
)
asked = RequestSource(name="asked", schema=[Field(name="hour", dtype=Float64), Field(name="promo", dtype=String)])


@on_demand_feature_view(
    sources=[views[0][["mean"]], shops, asked],
    schema=[Field(name="since_open", dtype=Float64), Field(name="promoted", dtype=Float64)],
    mode="python",
)
def against(given):
    rows = zip(given["hour"], given["opens"], given["kind"], given["promo"], given["mean"], strict=True)
    found = {"since_open": [], "promoted": []}
    for hour, opens, kind, promo, mean in rows:
        found["since_open"].append(hour - opens)
        found["promoted"].append((mean or 0.0) * (2.0 if promo == "yes" and kind == "big" else 1.0))
    return found


views += [recent, against]
"""


def features_file(folder: Path) -> Path:
    return folder / "features.py"


@pytest.fixture(scope="module")
def computed(tmp_path_factory) -> Path:
    """A project with all kinds of features, version 1 in Production."""
    folder = tmp_path_factory.mktemp("computed") / "shop"
    noria("init", str(folder), cwd=folder.parent)
    text = features_file(folder).read_text()
    names = "Aggregation, Field, RequestSource, on_demand_feature_view"
    head = f"from noria.features import {names}\nfrom noria.features.types import Float64, Int64, String"
    text = text.replace("from noria.features.types import Float64", head).replace("FeatureView, Field,", "FeatureView,")
    text = text.replace("observations = Obs", MORE + "\nobservations = Obs")
    promo = 'known_at=pl.col("at").dt.offset_by("1h"),\n        promo=pl.when(pl.col("at").dt.hour() > 15)'
    text = text.replace(
        'known_at=pl.col("at").dt.offset_by("1h"),', promo + '.then(pl.lit("yes")).otherwise(pl.lit("no")),'
    )
    text = text.replace('Column("shop", "text"),', 'Column("shop", "text"),\n        Column("promo", "text"),')
    features_file(folder).write_text(text)
    noria("run", cwd=folder)
    # what windows of the last hours hold is asked for as of the end of the table, long ago
    noria("features", "materialize", "recent", "--until", "2026-02-28T01:30:00Z", cwd=folder)
    return folder


@pytest.fixture
def project(computed, tmp_path) -> Path:
    return Path(shutil.copytree(computed, tmp_path / "shop"))


def request(number: int, **changes: object) -> dict[str, object]:
    features = {"hour": float(number % 24), "weekday": 5.0, "promo": "yes" if number % 2 else "no"}
    shop = "north" if number % 3 else "south"
    return {
        "prediction_id": f"p{number}",
        "event_time": "2026-02-28T01:30:00Z",
        "entities": {"shop": shop},
        "features": features | changes,
    }


@contextmanager
def gateway(folder: Path) -> Iterator[httpx.Client]:
    child = Child("serve", folder, 0)
    try:
        with httpx.Client(base_url=child.url, timeout=30) as client:
            yield client
    finally:
        child.stop()


def parity(folder: Path) -> dict[str, object]:
    return json.loads(noria("features", "parity", MODEL, "1", "--json", cwd=folder).stdout)


def test_the_gateway_computes_what_training_computed_and_parity_replays_it(project):
    loaded = load_project(project)
    inputs = ["hour", "weekday", "last_day__mean", "recent__sum_6h", "recent__count_6h"]
    assert list(loaded.inputs) == [*inputs, "against__since_open", "against__promoted"]
    with gateway(project) as client:
        info = client.get("/model/info").json()
        assert info["request_features"] == ["hour", "weekday", "promo"] and info["kinds"]["promo"] == "string"
        single = client.post("/predict", json=request(1)).json()
        assert "prediction" in single, single
        many = client.post("/predict", json={"instances": [request(number) for number in range(2, 8)]})
        assert len(many.json()["predictions"]) == 6
        in_order = client.post("/predict", json=request(8) | {"features": [8.0, 5.0, "yes"]})
        assert in_order.status_code == 200
        for changes, words in (({"promo": 5}, "not a text"), ({"hour": "x"}, "not a number")):
            refused = client.post("/predict", json=request(1, **changes))
            assert refused.status_code == 400 and words in refused.text
        lacking = request(1)
        lacking["features"] = {"hour": 1.0, "weekday": 5.0}
        assert "'promo' is missing" in client.post("/predict", json=lacking).text
        bad = request(9, hour=None)
        mixed = client.post("/predict", json={"instances": [request(10), bad]})
        assert mixed.status_code == 400 and "instances[1]: on-demand feature view 'against' failed at" in mixed.text
    found = parity(project)
    assert found["parity"]["predictions"] == 8 and found["mismatches"] == []
    assert found["parity"]["values"] == 8 * (1 + 2 + 2 + 2)
    traced = json.loads(noria("trace", "p1", "--json", cwd=project).stdout)
    assert traced["features"]["against__since_open"] == 1.0 - 8
    assert {one["view"] for one in traced["feature_definitions"]} == {"last_day", "recent", "shops", "against"}


def test_a_transform_that_gives_something_else_is_told_from_a_stale_window(project):
    workspace, loaded = Workspace(project, load_project(project).settings), load_project(project)
    with gateway(project) as client:
        assert client.post("/predict", json=request(1)).status_code == 200
    (batch,) = read_batches(workspace.prediction_log)
    shutil.rmtree(workspace.prediction_log)
    numbers = np.frombuffer(batch.numbers, np.float64).copy()
    by_name = dict(zip(loaded.inputs, range(len(numbers)), strict=True))
    log = PredictionLog(workspace.prediction_log)
    for number, (name, value) in enumerate(
        [("against__promoted", -1.0), ("recent__count_6h", 5.0), ("recent__count_6h", 7.0), ("recent__sum_6h", None)]
    ):
        spoiled = numbers.copy()
        spoiled[by_name[name]] = np.nan if value is None else value
        changed = msgspec.structs.replace(batch, prediction_ids=[f"s{number}"], numbers=spoiled.tobytes())
        log.predictions(changed, [20512])
    log.close()
    workspace.database.close()
    reasons = {one["prediction"]: one["reason"] for one in parity(project)["mismatches"]}
    assert reasons == {"s0": "transform", "s1": "stale_materialize", "s2": "unknown", "s3": "stale_materialize"}


def test_what_a_version_learned_from_is_in_the_catalog_its_card_and_its_lineage(project):
    listed = json.loads(noria("features", "list", "--json", cwd=project).stdout)
    assert {"last_day", "recent", "shops", "against", "shop", "asked"} <= {row["name"] for row in listed}
    lineage = json.loads(noria("models", "lineage", MODEL, "1", "--json", cwd=project).stdout)
    hashes = {one["view"]: (one["definition"], one["version"], one["in_use"]) for one in lineage["features"]}
    loaded = load_project(project)
    assert hashes == {name: (digest, 1, True) for name, digest in loaded.definition_hashes().items()}
    card = noria("models", "card", MODEL, "1", cwd=project).stdout
    assert all(f"{name} {digest[:12]}" in card for name, digest in loaded.definition_hashes().items())
    health = json.loads(noria("features", "health", "--json", cwd=project).stdout)
    assert all(row["online_until"] for row in health)


def test_a_changed_definition_warns_or_refuses_and_old_predictions_stay_right(project, monkeypatch):
    with gateway(project) as client:
        assert client.post("/predict", json=request(1)).status_code == 200
        assert client.get("/health").json()["status"] == "healthy"
    text = features_file(project).read_text()
    changed = text.replace('pl.col("demand").mean().alias("mean")', '(pl.col("demand").mean() * 3).alias("mean")')
    features_file(project).write_text(changed)
    noria("features", "apply", cwd=project)
    lineage = json.loads(noria("models", "lineage", MODEL, "1", "--json", cwd=project).stdout)
    assert {one["view"]: one["in_use"] for one in lineage["features"]}["last_day"] is False
    noria("features", "materialize", cwd=project)
    trained = load_project(project)
    bundle = read_bundle(next((project / ".noria").rglob("bundle.json")).parent)
    hashes = bundle.views[0].definition[:12], trained.definition_hashes()["last_day"][:12]
    with gateway(project) as client:
        assert client.post("/predict", json=request(2)).status_code == 200
        health = client.get("/health").json()
        assert health["status"] == "degraded" and all(digest in health["fault"]["detail"] for digest in hashes)
        assert 'noria_feature_definition_mismatches_total{view="last_day"} 1.0' in client.get("/metrics").text
    monkeypatch.setenv("NORIA_FEATURES__ON_CHANGED_DEFINITION", "refuse")
    with gateway(project) as client:
        refused = client.post("/predict", json=request(3))
        assert refused.status_code == 503 and all(digest in refused.text for digest in ("last_day", *hashes))
        assert "Train and promote a version" in refused.json()["remedy"]
    found = parity(project)
    assert found["parity"]["predictions"] == 2
    (changed_one,) = found["mismatches"]
    told = [changed_one[name] for name in ("prediction", "feature", "reason")]
    assert told == ["p2", "last_day:mean", "definition"]
    assert changed_one["online"] == pytest.approx(3 * changed_one["offline"])


def batch(folder: Path, table: pl.DataFrame, name: str, *options: str) -> pl.DataFrame:
    source, output = folder / f"{name}-rows.parquet", folder / f"{name}.parquet"
    table.write_parquet(source)
    words = ("--input", str(source), "--output", str(output), "--keep", "all", *options)
    noria("predict", "batch", "--model", f"models:/{MODEL}/1", *words, cwd=folder)
    return pl.read_parquet(output)


@pytest.mark.parametrize("text_format", ["parquet", "csv"])
def test_a_batch_job_computes_what_the_gateway_computes(project, tmp_path, text_format):
    asked = [request(number) for number in range(12)]
    with gateway(project) as client:
        answers = [client.post("/predict", json=one | {"event_time": ""}).json() for one in asked]
    rows = [{**one["features"], **one["entities"]} for one in asked]
    table = pl.DataFrame(rows).rename({"promo": "offer"})
    source, scores = tmp_path / f"rows.{text_format}", tmp_path / "scores.parquet"
    table.write_parquet(source) if text_format == "parquet" else table.write_csv(source)
    words = ("--input", str(source), "--output", str(scores), "--columns", "promo=offer", "--parallelism", "2")
    noria("predict", "batch", "--model", f"models:/{MODEL}/1", *words, "--part-rows", "5", cwd=project)
    found = pl.read_parquet(scores)
    assert found["prediction"].to_list() == pytest.approx([one["prediction"] for one in answers])
    assert found.columns[:2] == ["offer", "shop"]


def test_a_batch_job_computes_as_of_each_rows_time_what_training_computed(project):
    loaded = load_project(project)
    rows = loaded.observations.load().filter(pl.col("at").dt.day() == 20)
    trained = joined(rows, loaded.plan, event_time="at", folder=project)
    given = batch(project, trained, "given")
    made = batch(project, rows, "made", "--as-of", "at")
    assert made.height == given.height > 40
    assert made["prediction"].to_list() == given["prediction"].to_list()


def test_rows_that_cannot_be_computed_are_refused_and_what_lacks_is_named(project, tmp_path):
    source, scores = tmp_path / "rows.csv", tmp_path / "scores.csv"
    source.write_text("hour,weekday,promo,shop\n1,5,yes,north\n,5,yes,north\n2,5,no,nowhere\n3,5,no,south\n")
    words = ("predict", "batch", "--model", f"models:/{MODEL}/1", "--output", str(scores))
    noria(*words, "--input", str(source), "--on-error", "skip", cwd=project)
    assert len(pl.read_csv(scores)) == 2
    (refused,) = (tmp_path / "scores.csv.noria/refused").glob("*.jsonl")
    reasons = {one["row"]: one["reason"] for one in map(json.loads, refused.read_text().splitlines())}
    assert "on-demand feature view 'against' failed" in reasons[1] and "no features of view" in reasons[2]
    source.write_text("hour,weekday,shop\n1,5,north\n")
    lacking = noria(*words, "--restart", "--input", str(source), cwd=project, check=False)
    assert lacking.returncode == 2 and "promo (a text)" in lacking.stderr and "Traceback" not in lacking.stderr


def test_a_package_brings_what_its_features_are_computed_with(project, tmp_path):
    noria("package", "--deployment", "demand", "--output", str(tmp_path / "context"), cwd=project)
    with gateway(project) as client:
        expected = client.post("/predict", json=request(1)).json()["prediction"]
    with running(Image(tmp_path / "context", tmp_path)) as client:
        assert client.post("/predict", json=request(1)).json()["prediction"] == pytest.approx(expected)


TRANSFORMER = """
def preprocess(columns):
    assert "against__promoted" in columns
    return {"hour": [float(text.removesuffix("h")) for text in columns["clock"]]}


def postprocess(answers, columns):
    return [{"orders": one["prediction"]} for one in answers]


columns = {"clock": "string", "weekday": "double"}
"""


def test_compositions_look_up_and_compute_what_their_members_take(project, tmp_path):
    model, transformer = f"models:/{MODEL}/1", tmp_path / "transformer.py"
    transformer.write_text(TRANSFORMER)
    settings = project / "noria.toml"
    settings.write_text(settings.read_text().replace('["mae"]', "[]"))  # which nobody measured of a composition
    noria("compose", "ensemble", "both", model, model, "--combine", "mean", cwd=project)
    noria("compose", "chain", "clock", model, "--transformer", str(transformer), cwd=project)
    for name in ("both", "clock"):
        noria("deploy", f"models:/{name}/1", cwd=project)
    asked = [request(number) for number in range(6)]
    with gateway(project) as client:
        alone, both, chained = [], [], []
        for one in asked:
            features = one["features"]
            clock = features | {"clock": f"{features['hour']:g}h"}
            anew = one | {"prediction_id": f"clock-{one['prediction_id']}"}
            alone.append(client.post("/models/demand/predict", json=one).json()["prediction"])
            both.append(
                client.post(
                    "/models/both/predict", json=one | {"prediction_id": f"both-{one['prediction_id']}"}
                ).json()["prediction"]
            )
            chained.append(
                client.post("/models/clock/predict", json=anew | {"features": clock}).json()["prediction"]["orders"]
            )
        assert both == pytest.approx(alone) and chained == pytest.approx(alone) and len(set(alone)) > 2
        info = client.get("/models/clock/model/info").json()
        assert info["request_features"] == ["clock", "weekday", "hour", "promo"]
        lacking = {name: value for name, value in asked[0]["features"].items() if name != "promo"}
        refused = client.post("/models/both/predict", json=asked[0] | {"features": lacking})
        assert refused.status_code == 400 and "'promo' is missing" in refused.text
    replayed = json.loads(noria("features", "parity", "both", "1", "--json", cwd=project).stdout)
    assert replayed["parity"]["predictions"] == 6 and replayed["mismatches"] == []


def test_members_that_were_trained_on_different_definitions_are_not_composed(project):
    text = features_file(project).read_text()
    features_file(project).write_text(text.replace("(2.0 if promo", "(3.0 if promo"))
    noria("features", "apply", cwd=project)
    noria("features", "materialize", cwd=project)
    noria("run", cwd=project)
    members = [f"models:/{MODEL}/{number}" for number in (1, 2)]
    refused = noria("compose", "ensemble", "both", *members, cwd=project, check=False)
    assert refused.returncode != 0 and "different definitions of 'against'" in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr
