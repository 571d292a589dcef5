"""The registry half of MLflow's protocol: registered models, versions, aliases, stages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypedDict

from noria.access import Permission
from noria.clock import to_millis
from noria.errors import Forbidden, InvalidInput
from noria.events import is_prompt
from noria.lifecycle.retention import check_unserved
from noria.registry import (
    ModelVersion,
    RegisteredModel,
    Stage,
    get_version,
)
from noria.registry import models as registry_models
from noria.registry.registration import Saved, register_saved
from noria.registry.search import search_models, search_versions
from noria.registry.semantic import SEMANTIC_TAG
from noria.registry.stages import parse_stage, request_transition
from noria.registry.versions import (
    delete_version,
    latest_version,
    newest_in_stages,
    update_version,
    version_in_stage,
)
from noria.store.database import Transaction
from noria.surface.http.mlflow_call import Call, Handler, as_pairs, next_page

Json = Mapping[str, object]


class _Search(TypedDict):
    filter_text: str
    order_by: Sequence[str]
    among: Collection[str] | None


def _create_model(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        made = registry_models.create_model(
            tx,
            call.text("name"),
            policies=call.policies,
            at=call.clock.now(),
            actor=call.actor,
            description=call.text("description", ""),
            tags=call.pairs("tags"),
        )
        return {"registered_model": _model(tx, made)}


def _get_model(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        return {"registered_model": _model(tx, registry_models.get_model(tx, call.text("name")))}


def _update_model(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        changed = registry_models.update_model(
            tx, call.text("name"), at=call.clock.now(), actor=call.actor, description=call.text("description", "")
        )
        return {"registered_model": _model(tx, changed)}


def _rename_model(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        check_unserved(tx, call.text("name"), what="renamed")
        renamed = registry_models.rename_model(
            tx,
            call.text("name"),
            call.text("new_name"),
            policies=call.policies,
            at=call.clock.now(),
            actor=call.actor,
        )
        return {"registered_model": _model(tx, renamed)}


def _delete_model(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        check_unserved(tx, call.text("name"))
        registry_models.delete_model(tx, call.text("name"), at=call.clock.now(), actor=call.actor)
    return {}


def _search_models(call: Call) -> Json:
    size, start = call.page_bounds(default_size=100, largest=1000)
    with call.workspace.database.read() as tx:
        found = search_models(tx, **_search(call, tx), limit=size + 1, offset=start)
        return {"registered_models": _models(tx, found[:size]), **next_page(found, size, start)}


def _latest_versions(call: Call) -> Json:
    stages = [parse_stage(text) for text in call.texts("stages")] or list(Stage)
    with call.workspace.database.read() as tx:
        registry_models.get_model(tx, call.text("name"))
        found = [version_in_stage(tx, call.text("name"), stage) for stage in stages]
        return {"model_versions": [_version(tx, version) for version in found if version is not None]}


def _set_model_tag(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        before = registry_models.get_model(tx, call.text("name"))
        tags = {call.text("key"): call.text("value", "")}
        registry_models.check_tags(tags)
        tags = {**before.tags, **tags}
        registry_models.update_model(tx, before.name, at=call.clock.now(), actor=call.actor, tags=tags)
    return {}


def _delete_model_tag(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        before = registry_models.get_model(tx, call.text("name"))
        left_out = call.required("key")
        tags = {key: value for key, value in before.tags.items() if key != left_out}
        registry_models.update_model(tx, before.name, at=call.clock.now(), actor=call.actor, tags=tags)
    return {}


def _set_alias(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        registry_models.set_alias(
            tx,
            call.text("name"),
            call.text("alias"),
            call.number("version"),
            at=call.clock.now(),
            actor=call.actor,
        )
    return {}


def _get_by_alias(call: Call) -> Json:
    name, alias = call.text("name"), call.text("alias")
    with call.workspace.database.read() as tx:
        registry_models.get_model(tx, name)
        version = registry_models.aliases(tx, name).get(alias)
        if version is None and alias.lower() == "latest" and (newest := latest_version(tx, name)) is not None:
            version = newest.version  # clients ask so for a prompt's newest
        if version is None:
            raise InvalidInput(f"Registered model alias {alias} not found.", remedy="Set it first.")
        return {"model_version": _version(tx, get_version(tx, name, version))}


def _delete_alias(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        registry_models.delete_alias(tx, call.text("name"), call.text("alias"), at=call.clock.now(), actor=call.actor)
    return {}


def _create_version(call: Call) -> Json:
    name, source, tags = call.text("name"), call.required("source"), call.pairs("tags")
    with call.workspace.database.read() as tx:
        registry_models.get_model(tx, name)
    _check_governed_tags(call, name, tags)
    made = register_saved(
        call.workspace,
        name,
        Saved(
            source,
            call.text("run_id", "") or None,
            call.text("model_id", "") or None,
            tags,
            call.text("description", ""),
            call.text("run_link", ""),
        ),
        policies=call.policies,
        at=call.clock.now(),
        actor=call.actor,
    )
    with call.workspace.database.read() as tx:
        return {"model_version": _version(tx, made)}


def _check_governed_tags(call: Call, model: str, tags: Mapping[str, str]) -> None:
    """Raises Forbidden for tags that the policy asks for, unless the caller may set them later, too."""
    governed = sorted(call.policies.of(model).required_tags & tags.keys())
    if governed and not call.identity.may(Permission.MAINTAIN, model):
        raise Forbidden(
            f"{call.actor} may not give a version of {model!r} what its policy asks for: {', '.join(governed)}",
            remedy="Register it without them; a maintainer or admin sets them.",
        )


def _get_version(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        return {"model_version": _version(tx, get_version(tx, call.text("name"), call.number("version")))}


def _update_version(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        changed = update_version(
            tx,
            call.text("name"),
            call.number("version"),
            at=call.clock.now(),
            actor=call.actor,
            description=call.text("description", ""),
        )
        return {"model_version": _version(tx, changed)}


def _delete_version(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        name, version = call.text("name"), call.number("version")
        check_unserved(tx, name, version)
        delete_version(tx, name, version, at=call.clock.now(), actor=call.actor)
    return {}


def _search_versions(call: Call) -> Json:
    size, start = call.page_bounds(default_size=10_000, largest=200_000)
    with call.workspace.database.read() as tx:
        found = search_versions(tx, **_search(call, tx), limit=size + 1, offset=start)
        return {"model_versions": _versions(tx, found[:size]), **next_page(found, size, start)}


def _search(call: Call, tx: Transaction) -> _Search:
    """What is searched for, among the models that the caller may see."""
    sees_all = any(grant.pattern == "*" for grant in call.identity.grants)
    return {
        "filter_text": call.text("filter", ""),
        "order_by": call.texts("order_by"),
        "among": None if sees_all else [name for name in registry_models.list_names(tx) if call.may_read(name)],
    }


def _download_uri(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        return {"artifact_uri": get_version(tx, call.text("name"), call.number("version")).source}


def _transition(call: Call) -> Json:
    moved = request_transition(
        call.workspace.database,
        call.text("name"),
        call.number("version"),
        parse_stage(call.text("stage")),
        policies=call.policies,
        at=call.clock.now(),
        actor=call.actor,
        archive_existing=call.flag("archive_existing_versions"),
        reason=call.text("reason", ""),
    )
    with call.workspace.database.read() as tx:
        return {"model_version": _version(tx, moved)}


def _set_version_tag(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        before = get_version(tx, call.text("name"), call.number("version"))
        tags = {call.text("key"): call.text("value", "")}
        registry_models.check_tags(tags)
        tags = {**before.tags, **tags}
        update_version(tx, before.model, before.version, at=call.clock.now(), actor=call.actor, tags=tags)
    return {}


def _delete_version_tag(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        before = get_version(tx, call.text("name"), call.number("version"))
        left_out = call.required("key")
        tags = {key: value for key, value in before.tags.items() if key != left_out}
        update_version(tx, before.model, before.version, at=call.clock.now(), actor=call.actor, tags=tags)
    return {}


HANDLERS: Mapping[tuple[str, str], Handler] = {
    ("POST", "/registered-models/create"): _create_model,
    ("GET", "/registered-models/get"): _get_model,
    ("PATCH", "/registered-models/update"): _update_model,
    ("POST", "/registered-models/rename"): _rename_model,
    ("DELETE", "/registered-models/delete"): _delete_model,
    ("GET", "/registered-models/search"): _search_models,
    ("POST", "/registered-models/get-latest-versions"): _latest_versions,
    ("GET", "/registered-models/get-latest-versions"): _latest_versions,
    ("POST", "/registered-models/set-tag"): _set_model_tag,
    ("DELETE", "/registered-models/delete-tag"): _delete_model_tag,
    ("POST", "/registered-models/alias"): _set_alias,
    ("GET", "/registered-models/alias"): _get_by_alias,
    ("DELETE", "/registered-models/alias"): _delete_alias,
    ("POST", "/model-versions/create"): _create_version,
    ("GET", "/model-versions/get"): _get_version,
    ("PATCH", "/model-versions/update"): _update_version,
    ("DELETE", "/model-versions/delete"): _delete_version,
    ("GET", "/model-versions/search"): _search_versions,
    ("GET", "/model-versions/get-download-uri"): _download_uri,
    ("POST", "/model-versions/transition-stage"): _transition,
    ("POST", "/model-versions/set-tag"): _set_version_tag,
    ("DELETE", "/model-versions/delete-tag"): _delete_version_tag,
}


# wire shapes


def _model(tx: Transaction, model: RegisteredModel) -> Json:
    return _models(tx, [model])[0]


def _models(tx: Transaction, models: Sequence[RegisteredModel]) -> list[Json]:
    names = [model.name for model in models]
    pointers, staged = registry_models.aliases_of(tx, names), newest_in_stages(tx, names)
    return [
        {
            "name": model.name,
            "description": model.description,
            "creation_timestamp": to_millis(model.created_at),
            "last_updated_timestamp": to_millis(model.updated_at),
            "latest_versions": [
                _document(staged[model.name][stage], pointers.get(model.name, {}))
                for stage in Stage
                if stage in staged.get(model.name, {})
            ],
            "tags": as_pairs(model.tags),
            "aliases": [
                {"alias": alias, "version": str(version)} for alias, version in pointers.get(model.name, {}).items()
            ],
        }
        for model in models
    ]


def _version(tx: Transaction, version: ModelVersion) -> Json:
    return _versions(tx, [version])[0]


def _versions(tx: Transaction, versions: Sequence[ModelVersion]) -> list[Json]:
    pointers = registry_models.aliases_of(tx, {version.model for version in versions})
    return [_document(version, pointers.get(version.model, {})) for version in versions]


def _document(version: ModelVersion, aliases: Mapping[str, int]) -> Json:
    own = {} if is_prompt(version.tags) else {SEMANTIC_TAG: version.semantic_version}
    tags = {**version.tags, **own}
    return {
        "name": version.model,
        "version": str(version.version),
        "creation_timestamp": to_millis(version.created_at),
        "last_updated_timestamp": to_millis(version.updated_at),
        "user_id": version.created_by,
        "current_stage": version.stage.value,
        "description": version.description,
        "source": version.named_source or version.source,
        "run_id": version.run_id or "",
        "run_link": version.run_link,
        "model_id": version.logged_model_id or "",
        "status": version.status,
        "tags": as_pairs(tags),
        "aliases": [alias for alias, number in aliases.items() if number == version.version],
    }
