"""Model versions: registering, reading, tagging, deleting."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import cast

from sqlalchemy import Row, delete, func, insert, select, tuple_, update

from noria import audit, events
from noria.clock import from_millis, to_millis
from noria.errors import Conflict, InvalidInput, NotFound, PolicyRefused
from noria.registry.entities import ModelVersion, NewVersion, Signature, Stage
from noria.registry.models import create_model, emit_alias_deleted, find_model, get_model
from noria.registry.policy import Policies
from noria.registry.semantic import next_semantic_version
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import approvals, model_aliases, model_versions, registered_models, transitions
from noria.tracking import logged_models, runs

_PROMPT_TEXT = "mlflow.prompt.text"
_OF_RUN = re.compile(r"mlflow-artifacts:/+\d+/([0-9a-f]{32})/artifacts")


def register_version(tx: Transaction, new: NewVersion, *, policies: Policies, at: datetime, actor: str) -> ModelVersion:
    """Add a version to its model, making the model when it is new; the metrics of its run are frozen once that ended.

    With an ``idempotency_key`` seen before, the version made then is returned and nothing is written. Raises
    PolicyRefused with every unmet condition.
    """
    if new.idempotency_key is not None:
        known = select(model_versions).where(model_versions.c.idempotency_key == new.idempotency_key)
        if (row := tx.execute(known).first()) is not None:
            return version_of(row)
    _check_policy(tx, new, policies)
    if find_model(tx, new.model) is None:
        create_model(tx, new.model, policies=policies, at=at, actor=actor)
    number = _take_number(tx, new.model)
    semantic = next_semantic_version(latest_version(tx, new.model), new)
    made = _made_of(new, number, semantic, at, actor)
    tx.execute(insert(model_versions).values(row_of(made, idempotency_key=new.idempotency_key)))
    if new.run_id is not None:
        runs.set_registered(tx, new.run_id, f"{new.model}@{number}")
    detail = {
        "semantic_version": semantic,
        "digest": new.digest,
        "run_id": new.run_id,
        "dataset_version_id": new.dataset_version_id,
        "metrics": dict(new.metrics),
        "tags": dict(new.tags),
    }
    subject = f"version:{new.model}@{number}"
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="version.register",
        subject=subject,
        detail=detail,
        changed=[(model_versions, (new.model, number)), (registered_models, (new.model,))],
    )
    _emit_created(tx, new, number, at)
    return get_version(tx, new.model, number)


def register_source(
    tx: Transaction,
    model: str,
    source: str,
    *,
    policies: Policies,
    at: datetime,
    actor: str,
    run_id: str | None = None,
    logged_model_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    description: str = "",
    run_link: str = "",
) -> ModelVersion:
    """Register what a client saved at ``source``, or as a logged model, whose files and run then count.

    The newest metrics of the run are what policies look at; NaN is none. Raises InvalidInput for what is no place of
    a model, or another run's, NotFound or PolicyRefused.
    """
    if logged_model_id is not None:
        logged = logged_models.get(tx, logged_model_id)
        source, run_id = logged.artifact_uri, run_id or logged.source_run_id
    if not _is_placeholder(source, tags or {}):
        _check_source(tx, source, run_id)
    measured = {} if run_id is None else runs.get(tx, run_id).metrics
    new = NewVersion(
        model=model,
        source=source,
        run_id=run_id,
        logged_model_id=logged_model_id,
        metrics={key: metric.value for key, metric in measured.items() if not math.isnan(metric.value)},
        tags=tags or {},
        description=description,
        run_link=run_link,
    )
    return register_version(tx, new, policies=policies, at=at, actor=actor)


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
    return version_of(row)


def list_versions(tx: Transaction, model: str | None = None) -> list[ModelVersion]:
    """All versions, of one model or of all, oldest first."""
    query = select(model_versions).order_by(model_versions.c.model, model_versions.c.version)
    if model is not None:
        query = query.where(model_versions.c.model == model)
    return [version_of(row) for row in tx.execute(query)]


def latest_version(tx: Transaction, model: str) -> ModelVersion | None:
    """The version registered last, or None."""
    query = select(model_versions).where(model_versions.c.model == model)
    row = tx.execute(query.order_by(model_versions.c.version.desc()).limit(1)).first()
    return None if row is None else version_of(row)


def version_in_stage(tx: Transaction, model: str, stage: Stage) -> ModelVersion | None:
    """The newest version of ``model`` in ``stage``, or None."""
    query = select(model_versions).where(model_versions.c.model == model, model_versions.c.stage == stage)
    row = tx.execute(query.order_by(model_versions.c.version.desc()).limit(1)).first()
    return None if row is None else version_of(row)


def newest_in_stages(tx: Transaction, models: Collection[str]) -> dict[str, dict[Stage, ModelVersion]]:
    """Model → stage → the newest version there."""
    table = model_versions.c
    newest = select(table.model, func.max(table.version)).where(table.model.in_(models))
    newest = newest.group_by(table.model, table.stage)
    found: dict[str, dict[Stage, ModelVersion]] = {}
    for row in tx.execute(select(model_versions).where(tuple_(table.model, table.version).in_(newest))):
        found.setdefault(row.model, {})[Stage(row.stage)] = version_of(row)
    return found


def require_open(tx: Transaction, uri: str) -> None:
    """Raises PolicyRefused when the artifact at ``uri`` is a registered version's, whose files never change."""
    parts = uri.split("/")
    above = ["/".join(parts[:count]) for count in range(2, len(parts) + 1)]
    row = tx.execute(select(model_versions).where(model_versions.c.source.in_(above)).limit(1)).first()
    if row is not None:
        raise PolicyRefused(
            f"the files of {row.model}@{row.version} cannot be changed: it is registered",
            remedy="Log them elsewhere and register a new version.",
        )


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
    """Remove a version and the aliases on it. Raises Conflict while it is in Production."""
    found = get_version(tx, model, version)
    if found.stage is Stage.PRODUCTION:
        raise Conflict(f"{found.label} is in Production and cannot be deleted", remedy="Archive it first.")
    pointing = select(model_aliases.c.alias).where(model_aliases.c.model == model, model_aliases.c.version == version)
    pointers = tx.execute(pointing).scalars().all()
    changed: list[audit.RowKey] = [(model_aliases, (model, alias)) for alias in pointers]
    changed += [(model_versions, (model, version))]
    tx.execute(delete(model_aliases).where(model_aliases.c.model == model, model_aliases.c.version == version))
    tx.execute(delete(model_versions).where(model_versions.c.model == model, model_versions.c.version == version))
    if found.run_id is not None:
        _release_run(tx, found.run_id)
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


def _emit_created(tx: Transaction, new: NewVersion, number: int, at: datetime) -> None:
    data: dict[str, object] = {"name": new.model, "version": str(number), "description": new.description or None}
    tags = dict(new.tags)
    if events.is_prompt(tags) or events.is_prompt(get_model(tx, new.model).tags):
        template = tags.pop(_PROMPT_TEXT, None)
        events.emit(
            tx, "prompt_version.created", {**data, "template": template, "tags": events.plain_tags(tags)}, at=at
        )
    else:
        origin = {"source": new.source, "run_id": new.run_id, "tags": tags}
        events.emit(tx, "model_version.created", {**data, **origin}, at=at)


def _is_placeholder(source: str, tags: Mapping[str, str]) -> bool:
    """A prompt is a version without files: its text is a tag, and what it names as source leads nowhere."""
    return events.is_prompt(tags) and not {"/", "\\", ":", "."} & set(source)


def _check_source(tx: Transaction, source: str, run_id: str | None) -> None:
    of_run = _OF_RUN.match(source)
    climbs = ".." in source.split("/") or source.startswith(("/", "file:", "runs:")) or ":" not in source
    if climbs or (of_run and run_id and of_run[1] != run_id):
        raise InvalidInput(f"{source[:200]!r} is no place of this model", remedy="Send the URI of the run's artifacts.")
    if source.startswith("models:/"):
        name, _, version = source.removeprefix("models:/").rpartition("/")
        if not name:
            logged_models.get(tx, version)
        elif version.isdecimal():
            get_version(tx, name, int(version))


def _check_policy(tx: Transaction, new: NewVersion, policies: Policies) -> None:
    count = select(func.count()).select_from(model_versions).where(model_versions.c.model == new.model)
    status = None if new.run_id is None else runs.get(tx, new.run_id).status
    unmet = policies.of(new.model).unmet_by_registration(
        new.model,
        versions=tx.execute(count).scalar_one(),
        run_status=status,
    )
    if unmet:
        raise PolicyRefused(
            f"policy refuses a version of {new.model!r}", details=unmet, remedy="Meet every condition listed."
        )


def _release_run(tx: Transaction, run_id: str) -> None:
    """After a version of the run was deleted: another one of it still holds it, or none does."""
    row = tx.execute(select(model_versions).where(model_versions.c.run_id == run_id).limit(1)).first()
    runs.set_registered(tx, run_id, None if row is None else f"{row.model}@{row.version}")


def _take_number(tx: Transaction, model: str) -> int:
    """The next version number: never one that had been given before, to a version or a model since deleted.

    Approvals and moves are kept by number, and must not be inherited.
    """
    given = [select(registered_models.c.last_version).where(registered_models.c.name == model)]
    given += [select(func.max(t.c.version)).where(t.c.model == model) for t in (model_versions, approvals, transitions)]
    number = max(tx.execute(query).scalar() or 0 for query in given) + 1
    tx.execute(update(registered_models).where(registered_models.c.name == model).values(last_version=number))
    return number


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
        "created_by": version.created_by,
        "created_at": to_millis(version.created_at),
        "updated_at": to_millis(version.updated_at),
        "idempotency_key": idempotency_key,
    }


def _made_of(new: NewVersion, number: int, semantic: str, at: datetime, actor: str) -> ModelVersion:
    return ModelVersion(
        model=new.model,
        version=number,
        semantic_version=semantic,
        stage=Stage.NONE,
        status="READY",
        source=new.source,
        run_id=new.run_id,
        logged_model_id=new.logged_model_id,
        dataset_version_id=new.dataset_version_id,
        digest=new.digest,
        signature=new.signature,
        algorithm=new.algorithm,
        metrics=new.metrics,
        tags=new.tags,
        description=new.description,
        run_link=new.run_link,
        created_by=actor,
        created_at=at,
        updated_at=at,
    )


def version_of(row: Row[tuple[object, ...]]) -> ModelVersion:
    """The version that a row of its table is."""
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
        created_by=row.created_by,
        created_at=from_millis(row.created_at),
        updated_at=from_millis(row.updated_at),
    )
