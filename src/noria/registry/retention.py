"""Retention: which versions their policy lets go, and whether files are a version's alone."""

from __future__ import annotations

from datetime import datetime, timedelta

from noria.registry.entities import ModelVersion, Stage
from noria.registry.models import aliases
from noria.registry.policy import Policies
from noria.registry.sources import is_within
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
    shared = any(is_within(source, other.source) or is_within(other.source, source) for other in list_versions(tx))
    return None if shared else source


def _is_whole_run(source: str, run_id: str | None) -> bool:
    return run_id is not None and source.endswith(f"/{run_id}/artifacts")
