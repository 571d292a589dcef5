"""Registering versions: by Noria's own pipelines, and of what a client saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, insert, select, update

from noria import audit, events
from noria.errors import InvalidInput, PolicyRefused
from noria.registry.described import Description, describe
from noria.registry.entities import ModelVersion, NewVersion, Stage
from noria.registry.models import create_model, find_model, get_model
from noria.registry.policy import Policies
from noria.registry.semantic import SEMANTIC_TAG, next_semantic_version
from noria.registry.sources import Origin, find_origin
from noria.registry.versions import get_version, list_versions, row_of, version_of
from noria.store.database import Transaction
from noria.store.tables import approvals, model_versions, registered_models, transitions
from noria.store.workspace import Workspace
from noria.tracking import metrics, runs

_PROMPT_TEXT = "mlflow.prompt.text"


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
    semantic = next_semantic_version(reversed(list_versions(tx, new.model)), new)
    made = _made_of(new, number, semantic, at, actor)
    tx.execute(insert(model_versions).values(row_of(made, idempotency_key=new.idempotency_key)))
    if new.run_id is not None:
        runs.set_registered(tx, new.run_id, made.label)
    _record(tx, made, at, actor)
    _emit_created(tx, new, number, at)
    return get_version(tx, new.model, number)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a client saved and wants registered: where it lies, what it says of it, and what made it."""

    source: str
    run_id: str | None = None
    logged_model_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    run_link: str = ""


def register_saved(
    workspace: Workspace, model: str, saved: Saved, *, policies: Policies, at: datetime, actor: str
) -> ModelVersion:
    """``register_source`` in a transaction of its own, with what the model's files say of it, read before."""
    with workspace.database.read() as tx:
        origin = _origin(tx, model, saved)
    described = describe(workspace.artifacts, origin.place)
    with workspace.database.write() as tx:
        return register_source(tx, model, saved, policies=policies, at=at, actor=actor, described=described)


def register_source(
    tx: Transaction,
    model: str,
    saved: Saved,
    *,
    policies: Policies,
    at: datetime,
    actor: str,
    described: Description | None = None,
) -> ModelVersion:
    """Register what a client saved, at a place or as a logged model: the files and run of that count, for good.

    Raises InvalidInput for what is no place of a model, or another run's, NotFound or PolicyRefused.
    """
    origin, told = _origin(tx, model, saved), described or Description()
    new = NewVersion(
        model=model,
        source=origin.place,
        named_source=origin.named,
        run_id=origin.run_id,
        logged_model_id=origin.logged_model_id,
        external=origin.external,
        signature=told.signature,
        algorithm=told.algorithm,
        metrics=_measured(tx, origin),
        tags={key: value for key, value in saved.tags.items() if key != SEMANTIC_TAG},  # copies bring it along
        description=saved.description,
        run_link=saved.run_link,
    )
    return register_version(tx, new, policies=policies, at=at, actor=actor)


def _origin(tx: Transaction, model: str, saved: Saved) -> Origin:
    if _is_prompt(tx, model, saved.source, saved.tags):
        return Origin(saved.source)
    return find_origin(tx, saved.source, run_id=saved.run_id, logged_model_id=saved.logged_model_id)


def _is_prompt(tx: Transaction, model: str, source: str, tags: Mapping[str, str]) -> bool:
    """A prompt is a version without files: its text is a tag, and what it names as source leads nowhere.

    Raises InvalidInput for a prompt's version of a model, and for a model's version of a prompt.
    """
    known = find_model(tx, model)
    of_prompt = events.is_prompt({} if known is None else known.tags)
    if of_prompt != events.is_prompt(tags) or (of_prompt and {"/", "\\", ":", "."} & set(source)):
        what = "a prompt, and this is none" if of_prompt else "no prompt, and this is one"
        raise InvalidInput(f"{model!r} is {what}", remedy="Register it under another name.")
    return of_prompt


def _measured(tx: Transaction, origin: Origin) -> Mapping[str, float]:
    """What is recorded of the run as it now is: finite numbers; without a run, what the copied version has."""
    if origin.run_id is None:
        return {} if origin.original is None else origin.original.metrics
    newest = metrics.newest_numbers(tx, [origin.run_id]).get(origin.run_id, {})
    return {name: value for name, value in newest.items() if math.isfinite(value)}


def _check_policy(tx: Transaction, new: NewVersion, policies: Policies) -> None:
    count = select(func.count()).select_from(model_versions).where(model_versions.c.model == new.model)
    run = None if new.run_id is None else runs.state(tx, new.run_id)
    unmet = policies.of(new.model).unmet_by_registration(new, versions=tx.execute(count).scalar_one(), run=run)
    if unmet:
        raise PolicyRefused(
            f"policy refuses a version of {new.model!r}", details=unmet, remedy="Meet every condition listed."
        )


def _take_number(tx: Transaction, model: str) -> int:
    """The next version number: never one that had been given before, to a version or a model since deleted.

    Approvals and moves are kept by number, and must not be inherited.
    """
    given = [select(registered_models.c.last_version).where(registered_models.c.name == model)]
    given += [select(func.max(t.c.version)).where(t.c.model == model) for t in (model_versions, approvals, transitions)]
    number = max(tx.execute(query).scalar() or 0 for query in given) + 1
    tx.execute(update(registered_models).where(registered_models.c.name == model).values(last_version=number))
    return number


def _record(tx: Transaction, made: ModelVersion, at: datetime, actor: str) -> None:
    detail = {
        "semantic_version": made.semantic_version,
        "digest": made.digest,
        "source": made.source,
        "run_id": made.run_id,
        "dataset_version_id": made.dataset_version_id,
        "metrics": dict(made.metrics),
        "tags": dict(made.tags),
    }
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="version.register",
        subject=f"version:{made.label}",
        detail=detail,
        changed=[
            (model_versions, (made.model, made.version)),
            (registered_models, (made.model,)),
            *([] if made.run_id is None else [runs.row_key(made.run_id)]),
        ],
    )


def _emit_created(tx: Transaction, new: NewVersion, number: int, at: datetime) -> None:
    data: dict[str, object] = {"name": new.model, "version": str(number), "description": new.description or None}
    tags = dict(new.tags)
    if events.is_prompt(get_model(tx, new.model).tags):
        template = tags.pop(_PROMPT_TEXT, None)
        events.emit(
            tx, "prompt_version.created", {**data, "template": template, "tags": events.plain_tags(tags)}, at=at
        )
    else:
        origin = {"source": new.named_source or new.source, "run_id": new.run_id, "tags": tags}
        events.emit(tx, "model_version.created", {**data, **origin}, at=at)


def _made_of(new: NewVersion, number: int, semantic: str, at: datetime, actor: str) -> ModelVersion:
    return ModelVersion(
        model=new.model,
        version=number,
        semantic_version=semantic,
        stage=Stage.NONE,
        status="READY",
        source=new.source,
        named_source=new.named_source,
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
