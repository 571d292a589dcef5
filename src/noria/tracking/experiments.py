"""Experiments: create, find, list, tag, delete and restore."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import cast

from sqlalchemy import Integer, Row, func, insert, select, update
from sqlalchemy import cast as sql_cast

from noria.clock import from_millis, to_millis
from noria.errors import AlreadyExists, InvalidInput, NotFound
from noria.ids import ExperimentId
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import experiments
from noria.tracking.entities import Experiment

ACTIVE, DELETED = "active", "deleted"
DEFAULT_ID = ExperimentId("0")


def create(
    tx: Transaction, name: str, *, artifact_root: str, at: datetime, tags: Mapping[str, str] | None = None
) -> Experiment:
    """A new experiment with the next number as id. Raises AlreadyExists or InvalidInput."""
    if not name.strip() or len(name) > 250:
        raise InvalidInput(f"{name[:60]!r} is not an experiment name", remedy="Use 1 to 250 characters.")
    if find(tx, name) is not None:
        raise AlreadyExists(f"experiment {name!r} exists already", remedy="Choose another name, or use this one.")
    highest = tx.execute(select(func.max(sql_cast(experiments.c.experiment_id, Integer)))).scalar() or 0
    return _insert(tx, ExperimentId(str(highest + 1)), name, artifact_root, at, tags or {})


def get_or_create(tx: Transaction, name: str, *, artifact_root: str, at: datetime) -> Experiment:
    """The experiment of that name, made when it is new."""
    return find(tx, name) or create(tx, name, artifact_root=artifact_root, at=at)


def ensure_default(tx: Transaction, *, artifact_root: str, at: datetime) -> None:
    """Make the experiment "Default" with id 0, which MLflow clients take for granted."""
    if tx.execute(select(experiments).where(experiments.c.experiment_id == DEFAULT_ID)).first() is None:
        _insert(tx, DEFAULT_ID, "Default", artifact_root, at, {})


def find(tx: Transaction, name: str) -> Experiment | None:
    """The experiment of that name, or None."""
    row = tx.execute(select(experiments).where(experiments.c.name == name)).first()
    return None if row is None else _experiment(row)


def get(tx: Transaction, experiment_id: str) -> Experiment:
    """The experiment of that id. Raises NotFound."""
    row = tx.execute(select(experiments).where(experiments.c.experiment_id == experiment_id)).first()
    if row is None:
        raise NotFound(f"No Experiment with id={experiment_id} exists", remedy="Search experiments for the ids.")
    return _experiment(row)


def list_all(tx: Transaction) -> list[Experiment]:
    """Every experiment, newest first."""
    return [_experiment(row) for row in tx.execute(select(experiments).order_by(experiments.c.created_at.desc()))]


def change(
    tx: Transaction,
    experiment_id: str,
    *,
    at: datetime,
    name: str | None = None,
    lifecycle_stage: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Experiment:
    """Rename, delete, restore, or replace the tags."""
    before = get(tx, experiment_id)
    tx.execute(
        update(experiments)
        .where(experiments.c.experiment_id == experiment_id)
        .values(
            name=name or before.name,
            lifecycle_stage=lifecycle_stage or before.lifecycle_stage,
            tags=to_json(dict(before.tags if tags is None else tags)),
            updated_at=to_millis(at),
        )
    )
    return get(tx, experiment_id)


def _insert(
    tx: Transaction, experiment_id: ExperimentId, name: str, root: str, at: datetime, tags: Mapping[str, str]
) -> Experiment:
    moment = to_millis(at)
    tx.execute(
        insert(experiments).values(
            experiment_id=experiment_id,
            name=name,
            artifact_location=f"{root.rstrip('/')}/{experiment_id}",
            lifecycle_stage=ACTIVE,
            created_at=moment,
            updated_at=moment,
            tags=to_json(dict(tags)),
        )
    )
    return get(tx, experiment_id)


def _experiment(row: Row[tuple[object, ...]]) -> Experiment:
    return Experiment(
        ExperimentId(row.experiment_id),
        row.name,
        row.artifact_location,
        row.lifecycle_stage,
        cast(dict[str, str], from_json(row.tags)),
        from_millis(row.created_at),
        from_millis(row.updated_at),
    )
