"""What was served against the offline join: every mismatch with its reason, and a policy that asks for the figure."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from sqlalchemy import update

from noria.clock import to_millis
from noria.config import load_settings
from noria.errors import PolicyRefused
from noria.features import join_as_of
from noria.lifecycle.parity import measure_parity
from noria.monitoring.log import PredictionLog
from noria.pipelines import load_project
from noria.registry import Policies, Stage
from noria.registry.stages import transition
from noria.store.tables import feature_definitions
from noria.store.workspace import Workspace
from prediction_logs import batch_of
from support import noria

MODEL = "hourly-demand"
LAST = datetime(2026, 2, 28, tzinfo=UTC)


@pytest.fixture
def world(project):
    """The trained project, its workspace, and a log that is written by hand."""
    loaded = load_project(project)
    workspace = Workspace(project, loaded.settings)
    shutil.rmtree(workspace.prediction_log, ignore_errors=True)  # what other tests had it predict
    log = PredictionLog(workspace.prediction_log)

    def serve(number: int, at: datetime, value: float | None, shop: str = "north") -> None:
        row, arm, now = [12.0, 3.0, value], ("champion", MODEL, 1), to_millis(datetime.now(UTC))
        asked = {"entities": [{"shop": shop}], "arm": arm, "received_at": now}
        batch = batch_of([f"p{number}"], [to_millis(at)], [row], [1.0], **asked)
        log.predictions(*batch)

    yield loaded, workspace, serve
    log.close()
    workspace.database.close()


def known(project, at: datetime, shop: str = "north") -> float | None:
    asked = pl.DataFrame({"shop": [shop], "at": [at]})
    return join_as_of(asked, project.views, event_time="at", folder=project.folder)["last_day__mean"].item()


def test_every_mismatch_has_its_reason(world):
    project, workspace, serve = world
    noon = datetime(2026, 2, 10, 12, 30, tzinfo=UTC)
    served = [
        ("", noon, known(project, noon)),
        ("", noon, known(project, noon, "south")),
        ("", datetime(2020, 1, 1, tzinfo=UTC), None),
        ("stale_materialize", noon, known(project, noon - timedelta(hours=5))),
        ("stale_materialize", noon, None),
        ("late_row", noon, known(project, noon + timedelta(hours=5))),
        ("ttl", LAST + timedelta(days=30), known(project, LAST)),
        ("unknown", noon, -1.5),
    ]
    for number, (_, at, value) in enumerate(served):
        serve(number, at, value, "south" if number == 1 else "north")
    found = measure_parity(project, workspace, MODEL, 1)
    assert (found.predictions, found.values, found.share) == (8, 8, 3 / 8)
    reasons = {one.prediction_id: one.reason for one in found.mismatches}
    assert reasons == {f"p{number}": reason for number, (reason, _, _) in enumerate(served) if reason}
    (stale,) = (one for one in found.mismatches if one.prediction_id == "p3")
    assert (stale.feature, stale.entity, stale.offline) == ("mean", {"shop": "north"}, known(project, noon))
    narrow = measure_parity(project, workspace, MODEL, 1, since=LAST)
    assert (narrow.predictions, narrow.reasons) == (1, {"ttl": 1})


def test_another_definition_is_the_reason_only_of_what_was_predicted_under_it(world):
    """What was predicted before is replayed as the version was trained, whatever the code says now."""
    project, workspace, serve = world
    noon = datetime(2026, 2, 10, 12, 30, tzinfo=UTC)
    right = known(project, noon)
    for number, value in enumerate([right, -1.0]):
        serve(number, noon, value)
    code = project.folder / "features.py"
    changed = code.read_text().replace("ttl=timedelta(days=7)", "ttl=timedelta(days=8)")
    code.write_text(changed.replace('pl.col("demand").mean()', '(pl.col("demand").mean() + 1)'))
    reasons = {"p1": "unknown"}
    found = measure_parity(load_project(project.folder), workspace, MODEL, 1)
    assert {one.prediction_id: one.reason for one in found.mismatches} == reasons
    noria("features", "apply", cwd=project.folder)
    for number, value in enumerate([right, right + 1], start=2):
        serve(number, noon, value)
    found = measure_parity(load_project(project.folder), workspace, MODEL, 1)
    assert {one.prediction_id: one.reason for one in found.mismatches} == reasons | {"p3": "definition"}
    with workspace.database.write() as tx:
        tx.execute(update(feature_definitions).values(code=""))
    gone = measure_parity(load_project(project.folder), workspace, MODEL, 1)
    assert gone.reasons == {"not_replayed": 2, "definition": 2}


def test_a_policy_asks_for_what_was_measured_not_for_what_was_logged(world):
    project, workspace, serve = world
    noon = datetime(2026, 2, 10, 12, 30, tzinfo=UTC)
    for number in range(10):
        serve(number, noon, -1.0 if number == 0 else known(project, noon))
    printed = noria("features", "parity", MODEL, "1", "--json", "--at-least", "0.95", cwd=project.folder, check=False)
    assert printed.returncode == 1
    assert json.loads(printed.stdout)["parity"]["parity"] == 0.9
    for wanted, allowed in ((0.95, False), (0.9, True)):
        settings = load_settings(project.folder, {"NORIA_POLICIES": json.dumps(_policy(wanted))})
        with workspace.database.write() as tx:
            move = {"policies": Policies.from_settings(settings.policies), "at": LAST, "actor": "a", "reason": "r"}
            if allowed:
                assert transition(tx, MODEL, 1, Stage.STAGING, **move).stage is Stage.STAGING
            else:
                with pytest.raises(PolicyRefused) as refused:
                    transition(tx, MODEL, 1, Stage.STAGING, **move)
                assert "feature_parity = 0.9, required >= 0.95" in refused.value.details[0]
    assert "entries verified" in noria("audit", "verify", cwd=project.folder).stdout


def _policy(wanted: float) -> dict[str, object]:
    return {MODEL: {"stages": {"Staging": {"required_metrics": [f"feature_parity >= {wanted}"]}}}}
