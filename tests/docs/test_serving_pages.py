"""The pages on serving, rollouts and batches, block by block inside a trained project."""

from __future__ import annotations

from pathlib import Path

from noria.serving.metrics import ServingMetrics
from support import run_page

HOW_TO = Path(__file__).parents[2] / "docs/how-to"
REFERENCE = Path(__file__).parents[2] / "docs/reference"


def test_every_block_of_serve_models_runs(project):
    told = run_page(HOW_TO / "serve-models.md", project, blocks=5)
    assert "requests/s" in told
    assert "\n401\n" in told
    assert "demand needs no key; 1 forgotten" in told


def test_every_request_of_the_endpoints_page_is_answered(project):
    told = run_page(REFERENCE / "gateway.md", project, blocks=7)
    assert told.count('{"accepted":1}') == 2
    assert '"correlationid":"42"' in told
    assert told.rstrip().endswith("400")


def test_every_block_of_watch_what_is_served_runs(project):
    told = run_page(HOW_TO / "watch-what-is-served.md", project, blocks=3)
    assert "model_predictions_total{" in told
    assert "prediction_id: order-17" in told


def test_every_metric_of_the_gateway_is_documented():
    text = (REFERENCE / "gateway.md").read_text()
    families = {family.name: family.type for family in ServingMetrics().collect()}
    full = [f"{name}_total" if kind == "counter" else name for name, kind in families.items()]
    assert [name for name in full if f"| `{name}" not in text] == []


def test_every_block_of_roll_out_a_version_runs(project):
    assert "rolled back" in run_page(HOW_TO / "roll-out-a-version.md", project, blocks=5).lower()


def test_every_block_of_predict_in_batch_runs(project):
    told = run_page(HOW_TO / "predict-in-batch.md", project, blocks=8)
    assert '"parts_done_before": 2' in told or '"parts_done_before": 3' in told
    assert "column 'hour' is \\\"nine\\\", not a number" in told
    assert (project / "from-a-file/part-00000.parquet").is_file()
