"""Logged models: what a client saved, before anyone registers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast

from sqlalchemy import Row, insert, select, update
from sqlalchemy import delete as sql_delete

from noria import audit
from noria.clock import from_millis, to_millis
from noria.errors import Conflict, NotFound
from noria.ids import ExperimentId, RunId, new_id
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import logged_model_metrics, logged_models
from noria.tracking import experiments, metrics
from noria.tracking.entities import LoggedModel, ModelMetric

PENDING, READY = "LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY"


def create(
    tx: Transaction,
    experiment_id: str,
    *,
    name: str,
    source_run_id: str | None,
    model_type: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    at: datetime,
) -> LoggedModel:
    """A new logged model, pending until it is finalized; its files go below the experiment's artifacts."""
    experiment = experiments.require(tx, experiment_id)
    model_id = f"m-{new_id()}"
    tx.execute(
        insert(logged_models).values(
            model_id=model_id,
            experiment_id=experiment_id,
            name=name or model_id,
            source_run_id=source_run_id or None,
            artifact_uri=f"{experiment.artifact_location}/models/{model_id}/artifacts",
            status=PENDING,
            model_type=model_type,
            created_at=to_millis(at),
            updated_at=to_millis(at),
            params=to_json(dict(params)),
            tags=to_json(dict(tags)),
        )
    )
    _note(tx, "create", model_id, at)
    return get(tx, model_id)


def get(tx: Transaction, model_id: str) -> LoggedModel:
    """The logged model of that id. Raises NotFound."""
    row = tx.execute(select(logged_models).where(logged_models.c.model_id == model_id)).first()
    if row is None:
        raise NotFound(f"Logged model with ID {model_id!r} not found.", remedy="Search logged models for the ids.")
    return _logged_model(row, metrics.of_models(tx, [model_id]).get(model_id, []))


def of_run(tx: Transaction, run_id: str, name: str) -> LoggedModel | None:
    """The model that the run logged last under a name, or None."""
    return next((logged for logged in all_of_run(tx, run_id) if logged.name == name), None)


def all_of_run(tx: Transaction, run_id: str) -> list[LoggedModel]:
    """The models that the run logged, newest first."""
    query = select(logged_models).where(logged_models.c.source_run_id == run_id)
    return [_logged_model(row, []) for row in tx.execute(query.order_by(logged_models.c.created_at.desc()))]


def change(
    tx: Transaction,
    model_id: str,
    *,
    at: datetime,
    status: str | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> LoggedModel:
    """Set the status; add params and tags to those there. Raises Conflict for a param that is there already."""
    before = get(tx, model_id)
    if again := before.params.keys() & (params or {}):
        raise Conflict(f"Changing params of a logged model is not allowed: {sorted(again)}", remedy="Log others.")
    tx.execute(
        update(logged_models)
        .where(logged_models.c.model_id == model_id)
        .values(
            status=status or before.status,
            params=to_json({**before.params, **(params or {})}),
            tags=to_json({**before.tags, **(tags or {})}),
            updated_at=to_millis(at),
        )
    )
    detail = {
        "before": {"status": before.status},
        "status": status,
        "params": dict(params or {}),
        "tags": dict(tags or {}),
    }
    _note(tx, "update", model_id, at, detail)
    return get(tx, model_id)


def delete_tag(tx: Transaction, model_id: str, key: str, *, at: datetime) -> None:
    """Remove a tag. Raises NotFound when the model has none of that key."""
    before = get(tx, model_id)
    if key not in before.tags:
        raise NotFound(f"logged model {model_id} has no tag {key!r}", remedy="Get the model to see its tags.")
    left = {name: value for name, value in before.tags.items() if name != key}
    where = logged_models.c.model_id == model_id
    tx.execute(update(logged_models).where(where).values(tags=to_json(left), updated_at=to_millis(at)))
    _note(tx, "delete_tag", model_id, at, {"key": key})


def delete(tx: Transaction, model_id: str, *, at: datetime) -> None:
    """Remove a logged model; its files stay, for versions that were registered of it. Raises NotFound."""
    before = get(tx, model_id)
    tx.execute(sql_delete(logged_model_metrics).where(logged_model_metrics.c.model_id == model_id))
    tx.execute(sql_delete(logged_models).where(logged_models.c.model_id == model_id))
    told = {"name": before.name, "source_run_id": before.source_run_id, "artifact_uri": before.artifact_uri}
    _note(tx, "delete", model_id, at, {"before": {**told, "status": before.status}})


def _note(tx: Transaction, done: str, model_id: str, at: datetime, detail: Mapping[str, object] | None = None) -> None:
    changed: list[audit.RowKey] = [(logged_models, (model_id,))]
    audit.note(tx, f"logged_model.{done}", f"logged_model:{model_id}", changed=changed, detail=detail, at=at)


def search(tx: Transaction, experiment_ids: Sequence[str]) -> list[LoggedModel]:
    """The logged models of these experiments, newest first."""
    query = select(logged_models).where(logged_models.c.experiment_id.in_(experiment_ids))
    rows = tx.execute(query.order_by(logged_models.c.created_at.desc())).all()
    measured = metrics.of_models(tx, [row.model_id for row in rows])
    return [_logged_model(row, measured.get(row.model_id, [])) for row in rows]


def _logged_model(row: Row[tuple[object, ...]], measured: Sequence[ModelMetric]) -> LoggedModel:
    return LoggedModel(
        row.model_id,
        ExperimentId(row.experiment_id),
        row.name,
        None if row.source_run_id is None else RunId(row.source_run_id),
        row.artifact_uri,
        row.status,
        row.model_type,
        cast(dict[str, str], from_json(row.params)),
        cast(dict[str, str], from_json(row.tags)),
        from_millis(row.created_at),
        from_millis(row.updated_at),
        measured,
    )
