"""Trace: from a prediction back to everything that made it what it was."""

from __future__ import annotations

from noria.clock import from_millis, iso
from noria.data import get_dataset
from noria.errors import NotFound
from noria.ids import DatasetVersionId
from noria.lifecycle.lineage import features_of
from noria.monitoring.log import PredictionRecord, find_prediction, labels_of
from noria.optimize.bundle import read_bundle
from noria.registry import ModelVersion, get_version
from noria.registry.approvals import approvals
from noria.registry.stages import history
from noria.rollout import RouteTable
from noria.rollout.route_records import route_revision
from noria.store.database import Transaction
from noria.store.workspace import Workspace, artifact_key
from noria.tracking import runs
from noria.tracking.entities import Run


def trace(workspace: Workspace, prediction_id: str) -> dict[str, object]:
    """Route decision, version, approvals, run, data, feature values and definitions, commit of a prediction.

    Raises NotFound when no prediction of that id was logged.
    """
    record = find_prediction(workspace.prediction_log, prediction_id)
    if record is None:
        raise NotFound(
            f"no prediction {prediction_id!r} in the log",
            remedy="Ids come with every answer of /predict; where one id is for several rows, they are ID-0, ID-1, ….",
        )
    with workspace.database.read() as tx:
        version = get_version(tx, record.model, record.version)
        routes = route_revision(tx, record.deployment, record.revision)
        run = None if version.run_id is None else runs.get(tx, version.run_id)
        bundle = read_bundle(workspace.artifacts.fetch(_served_source(version, routes)))
        return {
            "prediction": _answered(workspace, record),
            "route": _routed(record, routes),
            "version": _version(tx, version),
            "approvals": [
                f"{a.stage} by {a.actor} at {iso(a.approved_at)}: {a.reason}"
                for a in approvals(tx, version.model, version.version)
            ],
            "run": None if run is None else {"run_id": run.run_id, "name": run.name, "params": dict(run.params)},
            "data": _data(tx, version),
            "entities": dict(record.entities),
            "features": dict(zip(bundle.inputs, record.features, strict=True)),
            "feature_definitions": features_of(tx, workspace, version),
            "code": None if run is None else _code(run),
        }


def _answered(workspace: Workspace, record: PredictionRecord) -> dict[str, object]:
    event = from_millis(record.event_time)
    label = labels_of(workspace.prediction_log, [record.prediction_id], event.date()).get(record.prediction_id)
    return {
        "prediction_id": record.prediction_id,
        "event_time": iso(event),
        "received_at": iso(from_millis(record.received_at)),
        "prediction": _known(record.prediction),
        "score": record.score,
        "label": None if label is None else label.label,
    }


def _routed(record: PredictionRecord, routes: RouteTable | None) -> dict[str, object]:
    return {
        "deployment": record.deployment,
        "revision": record.revision,
        "variant": record.variant,
        "shares": {} if routes is None else {v.name: v.percent for v in routes.variants},
        "reason": None if routes is None else routes.reason,
    }


def _version(tx: Transaction, version: ModelVersion) -> dict[str, object]:
    return {
        "version": version.label,
        "semantic_version": version.semantic_version,
        "stage_now": version.stage.value,
        "digest": version.digest,
        "history": [
            f"{iso(m.moved_at)} {m.from_stage} → {m.to_stage} by {m.actor}: {m.reason}"
            for m in history(tx, version.model, version.version)
        ],
    }


def _data(tx: Transaction, version: ModelVersion) -> dict[str, object] | None:
    if version.dataset_version_id is None:
        return None
    dataset = get_dataset(tx, DatasetVersionId(version.dataset_version_id))
    return {
        "dataset_version": dataset.dataset_version_id,
        "name": dataset.name,
        "rows": dataset.rows,
        "events": f"{iso(dataset.since)} to {iso(dataset.until)}",
    }


def _code(run: Run) -> dict[str, object]:
    return {"commit": run.tags.get("mlflow.source.git.commit"), "digest": run.tags.get("noria.code_digest")}


def _known(prediction: object) -> object:
    """What was predicted; None of tensors and objects, for which the log has no place and JSON no number."""
    return None if prediction != prediction else prediction


def _served_source(version: ModelVersion, routes: RouteTable | None) -> str:
    """Where the files lie that answered: what another library logged was served by what was prepared of it."""
    variants = () if routes is None else routes.variants
    of_version = (v.source for v in variants if (v.model, v.version) == (version.model, version.version))
    return next(of_version, artifact_key(version.source))
