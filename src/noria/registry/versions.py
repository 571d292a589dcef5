"""Model versions: reading, tagging, deleting."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Row, delete, func, select, tuple_, update

from noria import audit, events
from noria.clock import from_millis, to_millis
from noria.errors import InvalidInput, NotFound, Protected
from noria.registry.entities import ModelVersion, Signature, Stage
from noria.registry.models import check_prompt_tag, emit_alias_deleted, get_model
from noria.registry.protection import release_runs
from noria.registry.semantic import SEMANTIC_TAG
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import model_aliases, model_versions
from noria.tracking import metrics


def get_version(tx: Transaction, model: str, version: int) -> ModelVersion:
    """One version. Raises NotFound."""
    row = tx.execute(
        select(model_versions).where(model_versions.c.model == model, model_versions.c.version == version)
    ).first()
    if row is None:
        raise NotFound(
            f"version {version} of model {model!r} does not exist",
            remedy=f"`noria models versions {model}` lists them.",
        )
    return _measured(tx, [row])[0]


def list_versions(tx: Transaction, model: str | None = None) -> list[ModelVersion]:
    """All versions, of one model or of all, oldest first."""
    query = select(model_versions).order_by(model_versions.c.model, model_versions.c.version)
    if model is not None:
        query = query.where(model_versions.c.model == model)
    return _measured(tx, tx.execute(query).all())


def latest_version(tx: Transaction, model: str) -> ModelVersion | None:
    """The version registered last, or None."""
    query = select(model_versions).where(model_versions.c.model == model)
    row = tx.execute(query.order_by(model_versions.c.version.desc()).limit(1)).first()
    return None if row is None else _measured(tx, [row])[0]


def version_in_stage(tx: Transaction, model: str, stage: Stage) -> ModelVersion | None:
    """The newest version of ``model`` in ``stage``, or None."""
    query = select(model_versions).where(model_versions.c.model == model, model_versions.c.stage == stage)
    row = tx.execute(query.order_by(model_versions.c.version.desc()).limit(1)).first()
    return None if row is None else _measured(tx, [row])[0]


def newest_in_stages(tx: Transaction, models: Collection[str]) -> dict[str, dict[Stage, ModelVersion]]:
    """Model → stage → the newest version there."""
    table = model_versions.c
    newest = select(table.model, func.max(table.version)).where(table.model.in_(models))
    newest = newest.group_by(table.model, table.stage)
    found: dict[str, dict[Stage, ModelVersion]] = {}
    for row in tx.execute(select(model_versions).where(tuple_(table.model, table.version).in_(newest))):
        found.setdefault(row.model, {})[Stage(row.stage)] = version_of(row)
    return found


def update_version(
    tx: Transaction,
    model: str,
    version: int,
    *,
    at: datetime,
    actor: str,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> ModelVersion:
    """Replace the description or the whole set of tags."""
    before = get_version(tx, model, version)
    description = before.description if description is None else description
    tags = before.tags if tags is None else tags
    check_prompt_tag(before.label, before.tags, tags)
    if before.tags.get(SEMANTIC_TAG) != tags.get(SEMANTIC_TAG):
        raise InvalidInput(f"{SEMANTIC_TAG} of {before.label} is computed", remedy="Use a tag of your own.")
    tx.execute(
        update(model_versions)
        .where(model_versions.c.model == model, model_versions.c.version == version)
        .values(description=description, tags=to_json(dict(tags)), updated_at=to_millis(at))
    )
    detail = {
        "before": {"description": before.description, "tags": dict(before.tags)},
        "after": {"description": description, "tags": dict(tags)},
    }
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="version.update",
        subject=f"version:{before.label}",
        detail=detail,
        changed=[(model_versions, (model, version))],
    )
    entity = "prompt_version_tag" if events.is_prompt(get_model(tx, model).tags) else "model_version_tag"
    events.emit_tags(tx, entity, {"name": model, "version": str(version)}, before.tags, tags, at=at)
    return get_version(tx, model, version)


def delete_version(tx: Transaction, model: str, version: int, *, at: datetime, actor: str, reason: str = "") -> None:
    """Remove a version and the aliases on it. Raises Protected while it is in Production."""
    found = get_version(tx, model, version)
    if found.stage is Stage.PRODUCTION:
        raise Protected(f"{found.label} is in Production and cannot be deleted", remedy="Archive it first.")
    pointing = select(model_aliases.c.alias).where(model_aliases.c.model == model, model_aliases.c.version == version)
    pointers = tx.execute(pointing).scalars().all()
    changed: list[audit.RowKey] = [(model_aliases, (model, alias)) for alias in pointers]
    changed += [(model_versions, (model, version))]
    tx.execute(delete(model_aliases).where(model_aliases.c.model == model, model_aliases.c.version == version))
    tx.execute(delete(model_versions).where(model_versions.c.model == model, model_versions.c.version == version))
    if found.run_id is not None:
        changed += release_runs(tx, [found.run_id])
    detail = {"stage": found.stage.value, "source": found.source, "digest": found.digest, "reason": reason}
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="version.delete",
        subject=f"version:{found.label}",
        detail=detail,
        changed=changed,
    )
    for alias in pointers:
        emit_alias_deleted(tx, model, alias, at=at)


def row_of(version: ModelVersion, *, idempotency_key: str | None = None) -> dict[str, object]:
    """A version as its table keeps it: the way back from ``version_of``."""
    return {
        "model": version.model,
        "version": version.version,
        "semantic_version": version.semantic_version,
        "stage": version.stage.value,
        "status": version.status,
        "source": version.source,
        "run_id": version.run_id,
        "logged_model_id": version.logged_model_id,
        "dataset_version_id": version.dataset_version_id,
        "digest": version.digest,
        "signature": to_json(version.signature.as_document()),
        "algorithm": version.algorithm,
        "metrics": to_json(dict(version.metrics)),
        "tags": to_json(dict(version.tags)),
        "description": version.description,
        "run_link": version.run_link,
        "named_source": version.named_source,
        "created_by": version.created_by,
        "created_at": to_millis(version.created_at),
        "updated_at": to_millis(version.updated_at),
        "idempotency_key": idempotency_key,
    }


def _measured(tx: Transaction, rows: Sequence[Row[Any]]) -> list[ModelVersion]:
    """The versions, each with the newest metrics of its run: what was recorded counts only where the run has none."""
    newest = metrics.newest_numbers(tx, sorted({row.run_id for row in rows if row.run_id is not None}))
    found = ((version_of(row), newest.get(row.run_id, {})) for row in rows)
    return [replace(version, metrics={**version.metrics, **of_run}) for version, of_run in found]


def version_of(row: Row[Any]) -> ModelVersion:
    """The version that a row of its table is, with the metrics that were recorded when it was registered."""
    return ModelVersion(
        model=row.model,
        version=row.version,
        semantic_version=row.semantic_version,
        stage=Stage(row.stage),
        status=row.status,
        source=row.source,
        run_id=row.run_id,
        logged_model_id=row.logged_model_id,
        dataset_version_id=row.dataset_version_id,
        digest=row.digest,
        signature=Signature.from_document(from_json(row.signature)),
        algorithm=row.algorithm,
        metrics=cast(dict[str, float], from_json(row.metrics)),
        tags=cast(dict[str, str], from_json(row.tags)),
        description=row.description,
        run_link=row.run_link,
        named_source=row.named_source,
        created_by=row.created_by,
        created_at=from_millis(row.created_at),
        updated_at=from_millis(row.updated_at),
    )
