"""Models and versions that were registered elsewhere, written with the numbers and stages they had there.

No policy is asked: what happened elsewhere has happened. Every row is audited, with where it came from.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import insert, update

from noria import audit
from noria.clock import to_millis
from noria.registry.entities import ModelVersion, NewVersion, RegisteredModel, Stage
from noria.registry.models import check_name, get_model
from noria.registry.semantic import next_semantic_version
from noria.registry.stages import record_move
from noria.registry.versions import get_version, list_versions, row_of
from noria.store.database import Transaction, to_json
from noria.store.tables import model_versions, registered_models
from noria.tracking import runs


def import_model(tx: Transaction, model: RegisteredModel, *, origin: str, at: datetime, actor: str) -> RegisteredModel:
    """Insert a model with its description, tags and times. Raises AlreadyExists or InvalidInput for its name."""
    check_name(tx, model.name)
    tx.execute(
        insert(registered_models).values(
            name=model.name,
            description=model.description,
            created_at=to_millis(model.created_at),
            updated_at=to_millis(model.updated_at),
            tags=to_json(dict(model.tags)),
        )
    )
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="model.import",
        subject=f"model:{model.name}",
        detail={"origin": origin},
        changed=[(registered_models, (model.name,))],
    )
    return get_model(tx, model.name)


def import_version(tx: Transaction, version: ModelVersion, *, origin: str, at: datetime, actor: str) -> ModelVersion:
    """Insert a version with its number, stage, tags and times; the metrics of its run are frozen once that ended.

    Its semantic version follows from the newest version there is. A version that was in a stage gets a move on record,
    so that a rollback knows where it stood.
    """
    semantic = next_semantic_version(reversed(list_versions(tx, version.model)), _as_new(version))
    tx.execute(insert(model_versions).values(row_of(replace(version, semantic_version=semantic))))
    _count(tx, version)
    changed: list[audit.RowKey] = [
        (model_versions, (version.model, version.version)),
        (registered_models, (version.model,)),
    ]
    if version.stage is not Stage.NONE:
        reason = f"imported from {origin}"
        changed.append(record_move(tx, version, Stage.NONE, version.stage, at=at, actor=actor, reason=reason))
    if version.run_id is not None:
        runs.set_registered(tx, version.run_id, version.label)
        changed.append(runs.row_key(version.run_id))
    detail = {
        "origin": origin,
        "stage": version.stage.value,
        "semantic_version": semantic,
        "digest": version.digest,
        "run_id": version.run_id,
        "registered_by": version.created_by,
        "registered_at": to_millis(version.created_at),
        "metrics": dict(version.metrics),
        "tags": dict(version.tags),
    }
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="version.import",
        subject=f"version:{version.label}",
        detail=detail,
        changed=changed,
    )
    return get_version(tx, version.model, version.version)


def _count(tx: Transaction, version: ModelVersion) -> None:
    """Make the next number given one that was not given there."""
    table = registered_models.c
    behind = (table.name == version.model, table.last_version < version.version)
    tx.execute(update(registered_models).where(*behind).values(last_version=version.version))


def _as_new(version: ModelVersion) -> NewVersion:
    return NewVersion(
        model=version.model, source=version.source, signature=version.signature, algorithm=version.algorithm
    )
