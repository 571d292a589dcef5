"""Lineage: what a version was made from, and what became of it."""

from __future__ import annotations

from noria.clock import iso
from noria.data import get_dataset
from noria.errors import NoriaError, NotFound
from noria.features import catalog
from noria.ids import DatasetVersionId
from noria.optimize.bundle import read_bundle
from noria.registry import ModelVersion, get_version
from noria.registry.approvals import approvals
from noria.registry.models import aliases
from noria.registry.stages import history
from noria.rollout.route_records import routes_with
from noria.store.database import Transaction
from noria.store.workspace import Workspace, artifact_key
from noria.tracking import experiments, runs
from noria.tracking.entities import Run

_CODE_TAGS = ("mlflow.source.git.commit", "noria.code_digest", "mlflow.source.name")


def lineage(workspace: Workspace, model: str, version: int) -> dict[str, object]:
    """Version, run, data, features and code it came from; aliases, moves, approvals and deployments it went to.

    Raises NotFound for an unknown version. What is not known, such as a run since removed, is None.
    """
    with workspace.database.read() as tx:
        found = get_version(tx, model, version)
        run = _run(tx, found)
        return {
            "version": {
                "version": found.label,
                "semantic_version": found.semantic_version,
                "stage": found.stage.value,
                "algorithm": found.algorithm,
                "created_by": found.created_by,
                "created_at": iso(found.created_at),
                "source": found.source,
                "digest": found.digest,
                "tags": dict(found.tags),
            },
            "run": None if run is None else _told(tx, run),
            "data": _data(tx, found, run),
            "features": features_of(tx, workspace, found),
            "code": None if run is None else {tag: run.tags[tag] for tag in _CODE_TAGS if tag in run.tags},
            "aliases": [alias for alias, number in aliases(tx, model).items() if number == version],
            "moves": [
                f"{iso(m.moved_at)} {m.from_stage} → {m.to_stage} by {m.actor}: {m.reason}"
                for m in history(tx, model, version)
            ],
            "approvals": [
                f"{a.stage} by {a.actor} at {iso(a.approved_at)}: {a.reason}" for a in approvals(tx, model, version)
            ],
            "deployments": _deployments(tx, model, version),
        }


def features_of(tx: Transaction, workspace: Workspace, version: ModelVersion) -> list[dict[str, object]]:
    """The feature views a version was trained on: the hash of each definition, and its version in the catalog."""
    try:
        bundle = read_bundle(workspace.artifacts.fetch(artifact_key(version.source)))
    except NoriaError:  # other tools log models of their own, and files may be gone
        return []
    hashes = {view.name: view.definition for view in bundle.looked_up}
    hashes |= {view.name: view.definition for view in bundle.computed}
    applied = catalog.by_hash(tx, list(hashes.values()))
    return [
        {
            "view": name,
            "definition": digest,
            "version": applied[digest].version if digest in applied else None,
            "in_use": digest in applied and applied[digest].active,
        }
        for name, digest in hashes.items()
    ]


def _run(tx: Transaction, version: ModelVersion) -> Run | None:
    if version.run_id is None:
        return None
    try:
        return runs.get(tx, version.run_id)
    except NotFound:
        return None


def _told(tx: Transaction, run: Run) -> dict[str, object]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "experiment": experiments.get(tx, run.experiment_id).name,
        "status": run.status,
        "user": run.user,
        "started_at": iso(run.started_at),
        "params": dict(run.params),
        "metrics": {key: metric.value for key, metric in run.metrics.items()},
        "tags": {key: value for key, value in run.tags.items() if not key.startswith("mlflow.")},
    }


def _data(tx: Transaction, version: ModelVersion, run: Run | None) -> list[dict[str, object]]:
    """The version's dataset, then what else its run recorded as input."""
    found: list[dict[str, object]] = []
    if version.dataset_version_id is not None:
        dataset = get_dataset(tx, DatasetVersionId(version.dataset_version_id))
        found.append(
            {
                "name": dataset.name,
                "digest": dataset.dataset_version_id,
                "rows": dataset.rows,
                "events": f"{iso(dataset.since)} to {iso(dataset.until)}",
            }
        )
    known = {str(item["digest"]) for item in found}
    inputs = [] if run is None else run.datasets
    return found + [
        {"name": item["name"], "digest": item["digest"]} for item in inputs if str(item["digest"]) not in known
    ]


def _deployments(tx: Transaction, model: str, version: int) -> list[dict[str, object]]:
    return [
        {
            "deployment": table.deployment,
            "revision": table.revision,
            "percent": sum(v.percent for v in table.variants if (v.model, v.version) == (model, version)),
            "since": iso(table.created_at),
            "reason": table.reason,
        }
        for table in routes_with(tx, model, version)
    ]
