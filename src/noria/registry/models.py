"""Registered models and their aliases."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TypedDict, cast

from sqlalchemy import Row, delete, insert, select, update

from noria import audit, events
from noria.clock import from_millis, to_millis
from noria.errors import AlreadyExists, InvalidInput, NotFound, PolicyRefused, Protected
from noria.registry.entities import RegisteredModel, Stage
from noria.registry.policy import Policies
from noria.registry.protection import release_runs
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import approvals, model_aliases, model_versions, registered_models, transitions

_ALIAS = re.compile(r"[\w\-]{1,255}")
_TAG_KEY = re.compile(r"[\w.\-/ :]{1,250}")
_LONGEST_TAG = 100_000
_FORBIDDEN = re.compile(r"[/:@%\"'\x00-\x1f]")


def create_model(
    tx: Transaction,
    name: str,
    *,
    policies: Policies,
    at: datetime,
    actor: str,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> RegisteredModel:
    """Register a new name.

    Raises AlreadyExists, InvalidInput for a name that URLs and paths cannot carry, PolicyRefused for one the policy
    does not allow.
    """
    check_name(tx, name)
    _ask_policy(name, policies)
    check_tags(tags or {})
    moment = to_millis(at)
    tx.execute(
        insert(registered_models).values(
            name=name, description=description, created_at=moment, updated_at=moment, tags=to_json(tags or {})
        )
    )
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="model.create",
        subject=f"model:{name}",
        detail={},
        changed=[(registered_models, (name,))],
    )
    made = {"name": name, "description": description}
    if events.is_prompt(tags or {}):
        events.emit(tx, "prompt.created", {**made, "tags": events.plain_tags(tags or {})}, at=at)
    else:
        events.emit(tx, "registered_model.created", {**made, "tags": dict(tags or {})}, at=at)
    return get_model(tx, name)


def find_model(tx: Transaction, name: str) -> RegisteredModel | None:
    """The model of that name, or None."""
    row = tx.execute(select(registered_models).where(registered_models.c.name == name)).first()
    return None if row is None else model_of(row)


def get_model(tx: Transaction, name: str) -> RegisteredModel:
    """The model of that name. Raises NotFound."""
    model = find_model(tx, name)
    if model is None:
        raise NotFound(
            f"registered model {name!r} does not exist", remedy="`noria models list` shows the names there are."
        )
    return model


def list_names(tx: Transaction) -> list[str]:
    """The names of all models."""
    return list(tx.execute(select(registered_models.c.name)).scalars())


def list_models(tx: Transaction) -> list[RegisteredModel]:
    """All models by name."""
    return [model_of(row) for row in tx.execute(select(registered_models).order_by(registered_models.c.name))]


def update_model(
    tx: Transaction,
    name: str,
    *,
    at: datetime,
    actor: str,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> RegisteredModel:
    """Replace the description or the whole set of tags."""
    before = get_model(tx, name)
    check_prompt_tag(repr(name), before.tags, before.tags if tags is None else tags)
    after = {
        "description": before.description if description is None else description,
        "tags": dict(before.tags if tags is None else tags),
    }
    tx.execute(
        update(registered_models)
        .where(registered_models.c.name == name)
        .values(description=after["description"], tags=to_json(after["tags"]), updated_at=to_millis(at))  # type: ignore[arg-type]
    )
    detail = {"before": {"description": before.description, "tags": dict(before.tags)}, "after": after}
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="model.update",
        subject=f"model:{name}",
        detail=detail,
        changed=[(registered_models, (name,))],
    )
    if tags is not None and events.is_prompt(before.tags):  # MLflow has no event for the tags of a plain model
        events.emit_tags(tx, "prompt_tag", {"name": name}, before.tags, tags, at=at)
    return get_model(tx, name)


def rename_model(
    tx: Transaction, name: str, new_name: str, *, policies: Policies, at: datetime, actor: str
) -> RegisteredModel:
    """Give a model, with its versions, aliases, approvals and moves, another name.

    Raises AlreadyExists, InvalidInput, Protected while a version is in Production: routes know it by its name; or
    PolicyRefused for a name that another policy rules while a version is in a stage that it did not let it into.
    """
    there = get_model(tx, name)
    if new_name == name:
        return there
    check_name(tx, new_name)
    _ask_policy(new_name, policies)
    _refuse_in_production(tx, name, "renamed")
    if policies.differ(name, new_name):
        _refuse_in_staging(tx, name, new_name)
    before = _rows_of(tx, name)
    tx.execute(
        update(registered_models)
        .where(registered_models.c.name == name)
        .values(name=new_name, updated_at=to_millis(at))
    )
    for table in (approvals, transitions):  # the versions and aliases follow by their foreign keys
        tx.execute(update(table).where(table.c.model == name).values(model=new_name))
    changed = [*before, *_rows_of(tx, new_name)]
    detail = {"before": name, "after": new_name}
    audit.append(
        tx, at=at, actor=actor, action="model.rename", subject=f"model:{new_name}", detail=detail, changed=changed
    )
    return get_model(tx, new_name)


def delete_model(tx: Transaction, name: str, *, at: datetime, actor: str) -> None:
    """Remove a model and its versions; their moves and approvals stay on record.

    Raises Protected while one of them is in Production.
    """
    before = _told(tx, get_model(tx, name))
    _refuse_in_production(tx, name, "deleted")
    changed = _rows_of(tx, name)
    for alias in aliases(tx, name):
        emit_alias_deleted(tx, name, alias, at=at)
    tx.execute(delete(model_aliases).where(model_aliases.c.model == name))
    tx.execute(delete(model_versions).where(model_versions.c.model == name))
    tx.execute(delete(registered_models).where(registered_models.c.name == name))
    changed += release_runs(tx, sorted({str(item["run_id"]) for item in before["versions"] if item["run_id"]}))
    detail = {"before": before}
    audit.append(tx, at=at, actor=actor, action="model.delete", subject=f"model:{name}", detail=detail, changed=changed)


class _Told(TypedDict):
    description: str
    tags: dict[str, str]
    aliases: dict[str, int]
    versions: list[dict[str, object]]


def _told(tx: Transaction, model: RegisteredModel) -> _Told:
    """What the audit trail keeps of a model that goes, with its versions."""
    columns = [model_versions.c[name] for name in ("version", "stage", "source", "run_id", "digest")]
    rows = tx.execute(select(*columns).where(model_versions.c.model == model.name).order_by(model_versions.c.version))
    return {
        "description": model.description,
        "tags": dict(model.tags),
        "aliases": aliases(tx, model.name),
        "versions": [dict(row._mapping) for row in rows],
    }


def set_alias(tx: Transaction, name: str, alias: str, version: int, *, at: datetime, actor: str) -> None:
    """Point ``alias`` at ``version``, moving it when it points elsewhere. Raises InvalidInput for what is no alias."""
    _check_alias(alias)
    known = select(model_versions.c.version).where(model_versions.c.model == name, model_versions.c.version == version)
    if tx.execute(known).first() is None:
        raise NotFound(
            f"version {version} of model {name!r} does not exist", remedy=f"`noria models versions {name}` lists them."
        )
    before = aliases(tx, name).get(alias)
    tx.execute(delete(model_aliases).where(model_aliases.c.model == name, model_aliases.c.alias == alias))
    tx.execute(insert(model_aliases).values(model=name, alias=alias, version=version))
    detail = {"alias": alias, "before": before, "after": version}
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="alias.set",
        subject=f"model:{name}",
        detail=detail,
        changed=[(model_aliases, (name, alias))],
    )
    if before != version:
        data = {"name": name, "alias": alias, "version": str(version)}
        events.emit(tx, f"{_alias_entity(tx, name)}.created", data, at=at)


def delete_alias(tx: Transaction, name: str, alias: str, *, at: datetime, actor: str) -> None:
    """Remove ``alias``; removing one that is not there changes nothing."""
    get_model(tx, name)
    before = aliases(tx, name).get(alias)
    if before is None:
        return
    tx.execute(delete(model_aliases).where(model_aliases.c.model == name, model_aliases.c.alias == alias))
    detail = {"alias": alias, "before": before, "after": None}
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="alias.delete",
        subject=f"model:{name}",
        detail=detail,
        changed=[(model_aliases, (name, alias))],
    )
    emit_alias_deleted(tx, name, alias, at=at)


def emit_alias_deleted(tx: Transaction, name: str, alias: str, *, at: datetime) -> None:
    """Tell that an alias is gone, by itself or with what it pointed at."""
    events.emit(tx, f"{_alias_entity(tx, name)}.deleted", {"name": name, "alias": alias}, at=at)


def aliases(tx: Transaction, name: str) -> dict[str, int]:
    """Alias → version of one model."""
    return aliases_of(tx, [name]).get(name, {})


def aliases_of(tx: Transaction, names: Collection[str]) -> dict[str, dict[str, int]]:
    """Model → alias → version, of those models that have any."""
    query = select(model_aliases).where(model_aliases.c.model.in_(names)).order_by(model_aliases.c.alias)
    found: dict[str, dict[str, int]] = {}
    for row in tx.execute(query):
        found.setdefault(row.model, {})[row.alias] = row.version
    return found


def check_tags(tags: Mapping[str, str]) -> None:
    """Raises InvalidInput for a tag of a model or version that is too long or has no key."""
    for key, value in tags.items():
        if not _TAG_KEY.fullmatch(key) or posixpath.normpath(key) != key or key[0] in "./" or len(value) > _LONGEST_TAG:
            raise InvalidInput(
                f"tag {key[:60]!r} with {len(value)} characters cannot be kept",
                remedy=f"Use 1 to 250 letters, digits, _-./, spaces and colons, and a value up to {_LONGEST_TAG}.",
            )


def check_prompt_tag(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Raises InvalidInput for a model or version that would become a prompt, or a prompt that would be none any more.

    Prompts are left out of searches, so that a model could be hidden by a tag.
    """
    if events.is_prompt(before) != events.is_prompt(after):
        raise InvalidInput(
            f"whether {what} is a prompt is settled since it was created", remedy="Register it under another name."
        )


def _check_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias) or alias.lower() == "latest" or re.fullmatch(r"v\d+", alias, re.IGNORECASE):
        raise InvalidInput(
            f"{alias[:60]!r} is not an alias",
            remedy="Use 1 to 255 letters, digits, _ or -, not 'latest' and not like 'v1'.",
        )


def check_name(tx: Transaction, name: str) -> None:
    """Raises InvalidInput for a name that URLs and paths cannot carry, AlreadyExists for one that is taken."""
    if not name.strip() or len(name) > 250 or name in (".", "..") or _FORBIDDEN.search(name):
        raise InvalidInput(
            f"{name!r} is not a model name",
            remedy="Use 1 to 250 characters without slash, colon, @, %, quotes or control characters.",
        )
    if find_model(tx, name) is not None:
        raise AlreadyExists(f"registered model {name!r} exists already", remedy="Add a version to it instead.")


def _alias_entity(tx: Transaction, name: str) -> str:
    return "prompt_alias" if events.is_prompt(get_model(tx, name).tags) else "model_version_alias"


def _ask_policy(name: str, policies: Policies) -> None:
    if unmet := policies.of(name).unmet_by_name(name):
        raise PolicyRefused(f"policy refuses the model {name!r}", details=unmet, remedy="Choose another name.")


def _refuse_in_production(tx: Transaction, name: str, what: str) -> None:
    in_production = select(model_versions.c.version).where(
        model_versions.c.model == name, model_versions.c.stage == Stage.PRODUCTION
    )
    if (version := tx.execute(in_production).scalar()) is not None:
        raise Protected(
            f"model {name!r} cannot be {what}: version {version} is in Production",
            remedy="Archive that version first.",
        )


def _refuse_in_staging(tx: Transaction, name: str, new_name: str) -> None:
    staged = select(model_versions.c.version).where(
        model_versions.c.model == name, model_versions.c.stage == Stage.STAGING
    )
    if (version := tx.execute(staged).scalar()) is not None:
        raise PolicyRefused(
            f"model {name!r} cannot be renamed to {new_name!r}",
            details=[f"version {version} is in Staging under another policy than that of {new_name!r}"],
            remedy="Move that version to None or Archived first; it passes the new policy then.",
        )


def _rows_of(tx: Transaction, name: str) -> list[audit.RowKey]:
    """Every governed row that bears the model's name."""
    found: list[audit.RowKey] = [(registered_models, (name,))]
    for table in (model_versions, model_aliases, approvals, transitions):
        keys = select(*table.primary_key.columns).where(table.c.model == name)
        found += [(table, tuple(row)) for row in tx.execute(keys)]
    return found


def model_of(row: Row[tuple[object, ...]]) -> RegisteredModel:
    """The model that a row of its table is."""
    return RegisteredModel(
        name=row.name,
        description=row.description,
        tags=cast(dict[str, str], from_json(row.tags)),
        created_at=from_millis(row.created_at),
        updated_at=from_millis(row.updated_at),
    )
