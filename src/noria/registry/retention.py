"""Retention: which versions their policy lets go, and whether files are a version's alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from noria.registry.entities import ModelVersion, Stage
from noria.registry.models import aliases
from noria.registry.policy import Policies
from noria.registry.stages import rollback_target
from noria.registry.versions import list_versions
from noria.store.database import Transaction
from noria.store.workspace import ARTIFACT_SCHEME


def expired_versions(tx: Transaction, model: str, *, policies: Policies, at: datetime) -> list[ModelVersion]:
    """The versions older than the policy's ``retention_days`` in one of its ``archive_stages``, oldest first.

    Never one in Production, one with an alias, or the one a rollback would go to.
    """
    policy = policies.of(model)
    if not policy.retention_days:
        return []
    until = at - timedelta(days=policy.retention_days)
    kept = {*aliases(tx, model).values(), rollback_target(tx, model)}
    return [
        version
        for version in list_versions(tx, model)
        if version.stage in policy.archive_stages
        and version.stage is not Stage.PRODUCTION
        and version.created_at < until
        and version.version not in kept
    ]


def own_files(tx: Transaction, deleted: ModelVersion) -> str | None:
    """The address of the files that went with a deleted version; None when something that is still there needs them.

    That is another version with the same files, or with some above or below them; and the run, when they are all its
    artifacts.
    """
    source = deleted.source.rstrip("/")
    if not source.startswith(ARTIFACT_SCHEME) or _is_whole_run(source, deleted.run_id):
        return None
    there = list_versions(tx)
    places = {(version.model, version.version): version.source.rstrip("/") for version in there}
    models = {version.logged_model_id: version.source for version in (*there, deleted)}
    shared = any(_overlap(source, _resolved(place, places, models)) for place in places.values())
    pointing = f"models:/{deleted.model}/{deleted.version}"
    return None if shared or pointing in places.values() else source


def _is_whole_run(source: str, run_id: str | None) -> bool:
    return run_id is not None and source.endswith(f"/{run_id}/artifacts")


def _resolved(source: str, places: Mapping[tuple[str, int], str], models: Mapping[str | None, str]) -> str:
    """Where the files of a version lie whose source names another version or a logged model."""
    name, _, number = source.removeprefix("models:/").rpartition("/")
    if not source.startswith("models:/"):
        return source
    if not name:
        return models.get(number, source)
    return places.get((name, int(number)), source) if number.isdecimal() else source


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
