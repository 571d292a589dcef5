"""What versions rest on, their files and logged models: nobody changes or deletes them while the version is there."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, or_, select

from noria import audit
from noria.errors import Protected
from noria.store.database import Transaction
from noria.store.tables import model_versions
from noria.tracking import runs
from noria.tracking.entities import LoggedModel

_REMEDY = "Log another one and register that; these stay until the version is deleted."


def require_open(tx: Transaction, uri: str) -> None:
    """Raises Protected when what lies at ``uri`` is part of a registered version's files, or holds some of them."""
    uri, parts = uri.rstrip("/"), uri.rstrip("/").split("/")
    above = ["/".join(parts[:count]) for count in range(2, len(parts) + 1)]
    source, below = model_versions.c.source, f"{uri}/"
    inside = func.substr(source, 1, len(below)) == below  # not LIKE: a name may hold its wildcards
    row = tx.execute(select(model_versions).where(or_(source.in_(above), inside)).limit(1)).first()
    if row is not None:
        raise Protected(
            f"the files of {row.model}@{row.version} cannot be changed: it is registered",
            remedy="Log them elsewhere and register a new version.",
        )


def require_unregistered(tx: Transaction, logged: LoggedModel) -> None:
    """Raises Protected when a version was registered of the logged model."""
    of_it = or_(model_versions.c.logged_model_id == logged.model_id, model_versions.c.source == logged.artifact_uri)
    row = tx.execute(select(model_versions).where(of_it).limit(1)).first()
    if row is not None:
        raise Protected(f"logged model {logged.model_id} is registered as {row.model}@{row.version}", remedy=_REMEDY)


def release_runs(tx: Transaction, run_ids: Iterable[str]) -> list[audit.RowKey]:
    """After versions of these runs were deleted: another one holds each of them still, or none does."""
    released = []
    for run_id in run_ids:
        row = tx.execute(select(model_versions).where(model_versions.c.run_id == run_id).limit(1)).first()
        runs.set_registered(tx, run_id, None if row is None else f"{row.model}@{row.version}")
        released.append(runs.row_key(run_id))
    return released
