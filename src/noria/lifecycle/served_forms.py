"""The form a version is served in: its own folder where that is a bundle, else one that is prepared and kept."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from noria import audit
from noria.clock import to_millis
from noria.errors import InvalidInput, PolicyRefused
from noria.optimize.prepare import REVISION, prepare
from noria.registry import ModelVersion, Policies, Stage
from noria.rollout import Variant
from noria.store import tables
from noria.store.blobs import folder_digest
from noria.store.database import Transaction, conflict_insert
from noria.store.workspace import ARTIFACT_SCHEME, Workspace, artifact_key

_FOLDER = "served"
_PREPARE_ACTION = "version.prepare"


def make_servable(
    workspace: Workspace,
    version: ModelVersion,
    *,
    at: datetime,
    actor: str,
    progress: Callable[[str], None] = lambda _: None,
    older_does: bool = False,
) -> Sequence[str]:
    """Prepare the form a version is served in, unless there is one; returns what there is to say about it.

    One that an older Noria prepared, in another way, is prepared anew unless ``older_does``. Its files stay, for what
    is served from them.

    Runs the model's own code, in a process of its own. Raises what ``prepare`` raises, and InvalidInput for files that
    are not among Noria's artifacts.
    """
    if _is_bundle(version):
        return []
    with workspace.database.read() as tx:
        known = _known(tx, version)
    key = _key(version)
    if known is not None and (older_does or known.source == key):
        notes: list[str] = json.loads(known.notes)
        return notes
    if not version.source.startswith(ARTIFACT_SCHEME):
        raise InvalidInput(
            f"the files of {version.label} lie at {version.source}, not among Noria's artifacts",
            remedy="Log the model to this server, or import it with `noria import mlflow`.",
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        found = prepare(workspace.artifacts.fetch(artifact_key(version.source)), folder, progress)
        digest = folder_digest(folder)
        workspace.artifacts.put_folder(key, folder)
    with workspace.database.write() as tx:
        _record(tx, version, key, digest, found.notes, at=at, actor=actor)
    return found.notes


def variant_of(tx: Transaction, version: ModelVersion, name: str, percent: float, *, shadow: bool = False) -> Variant:
    """The variant that serves a version. Raises InvalidInput for one that was not made servable."""
    if _is_bundle(version):
        source, digest = artifact_key(version.source), version.digest
    elif (known := _known(tx, version)) is not None:
        source, digest = known.source, known.digest
    else:
        raise InvalidInput(f"{version.label} is not prepared for serving", remedy="Deploy it with `noria deploy`.")
    return Variant(name, version.model, version.version, source, digest, percent, shadow)


def _is_bundle(version: ModelVersion) -> bool:
    """Whether a version was registered as it is served: what Noria trains, it registers with a digest."""
    return bool(version.digest)


def _key(version: ModelVersion) -> str:
    """Where a version's form lies that is prepared as it is now: each way of preparing has a folder of its own."""
    return f"{_FOLDER}/{version.model}/{version.version}-{REVISION}"


def _known(tx: Transaction, version: ModelVersion) -> Row[Any] | None:
    table = tables.served_models
    query = select(table).where(table.c.model == version.model, table.c.version == version.version)
    return tx.execute(query).first()


def _record(
    tx: Transaction, version: ModelVersion, key: str, digest: str, notes: Sequence[str], *, at: datetime, actor: str
) -> None:
    row = {"source": key, "digest": digest, "notes": json.dumps(list(notes)), "prepared_at": to_millis(at)}
    statement = conflict_insert(tx.dialect.name, tables.served_models).values(
        model=version.model, version=version.version, prepared_by=actor, **row
    )
    tx.execute(statement.on_conflict_do_update(index_elements=["model", "version"], set_=row | {"prepared_by": actor}))
    audit.append(
        tx,
        at=at,
        actor=actor,
        action=_PREPARE_ACTION,
        subject=f"version:{version.label}",
        detail={"digest": digest, "notes": list(notes)},
        changed=[(tables.served_models, (version.model, version.version))],
    )


def check_preview(policies: Policies, version: ModelVersion) -> None:
    """Raises PolicyRefused for a version outside Production, where its policy wants none to be served."""
    if version.stage is not Stage.PRODUCTION and not policies.of(version.model).previews:
        raise PolicyRefused(
            f"policy refuses to serve {version.label} from stage {version.stage}",
            details=["previews = false: only versions in Production are deployed"],
            remedy="Move it to Production first.",
        )
