"""Retention at work: versions that their policy lets go are deleted, with their files, unless something serves them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from noria.errors import NotFound, Protected
from noria.registry import ModelVersion, Policies, get_version
from noria.registry.models import get_model, list_models
from noria.registry.retention import expired_versions, own_files
from noria.registry.versions import delete_version
from noria.rollout.records import serving_versions
from noria.store.database import Transaction
from noria.store.workspace import Workspace, artifact_key


@dataclass(frozen=True, slots=True)
class Removal:
    """A version that was deleted, or would be; ``files_deleted`` is None while nobody has tried."""

    version: ModelVersion
    files_deleted: bool | None


def clean_up(
    workspace: Workspace, policies: Policies, model: str | None, *, at: datetime, actor: str, dry_run: bool = False
) -> list[Removal]:
    """Delete the versions of one model, or of all, that their policy lets go; ``dry_run`` only tells which.

    Each is deleted and audited in a transaction of its own, which looks again whether it may be. Raises NotFound.
    """
    with workspace.database.read() as tx:
        names = [found.name for found in list_models(tx)] if model is None else [get_model(tx, model).name]
        expired = [version for name in names for version in _expired(tx, name, policies, at)]
    if dry_run:
        return [Removal(version, None) for version in expired]
    return [removal for version in expired if (removal := _let_go(workspace, policies, version, at, actor)) is not None]


def remove_version(workspace: Workspace, model: str, version: int, *, at: datetime, actor: str, reason: str) -> Removal:
    """Delete one version, with its files unless they are shared. Raises NotFound, or Protected when it serves."""
    with workspace.database.write() as tx:
        found = get_version(tx, model, version)
        check_unserved(tx, model, version)
        delete_version(tx, model, version, at=at, actor=actor, reason=reason)
    return Removal(found, _remove_files(workspace, found))


def check_unserved(tx: Transaction, model: str, version: int | None = None, *, what: str = "deleted") -> None:
    """Raises Protected where the version, or one of the model, takes traffic or takes part in a rollout under way."""
    serving = sorted(one for one in serving_versions(tx) if one[0] == model and version in (None, one[1]))
    if serving:
        labels = ", ".join(f"{name}@{number}" for name, number in serving)
        raise Protected(f"{labels} serves and cannot be {what}", remedy="Move the traffic elsewhere first.")


def _expired(tx: Transaction, model: str, policies: Policies, at: datetime) -> Sequence[ModelVersion]:
    serving = serving_versions(tx)
    found = expired_versions(tx, model, policies=policies, at=at)
    return [version for version in found if (version.model, version.version) not in serving]


def _let_go(
    workspace: Workspace, policies: Policies, version: ModelVersion, at: datetime, actor: str
) -> Removal | None:
    """None when the version has meanwhile got a reason to stay."""
    days = policies.of(version.model).retention_days
    with workspace.database.write() as tx:
        if version.version not in {still.version for still in _expired(tx, version.model, policies, at)}:
            return None
        reason = f"older than {days} days, in {version.stage}"
        delete_version(tx, version.model, version.version, at=at, actor=actor, reason=reason)
    return Removal(version, _remove_files(workspace, version))


def _remove_files(workspace: Workspace, deleted: ModelVersion) -> bool:
    """Whether the files went too. Nobody can register them meanwhile: the transaction holds all other writers off."""
    with workspace.database.write() as tx:
        uri = own_files(tx, deleted)
        if uri is None:
            return False
        with contextlib.suppress(NotFound):
            workspace.artifacts.delete(artifact_key(uri))
    return True
