"""Experiments: create, find, list, tag, delete and restore."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import cast

from sqlalchemy import Integer, Row, func, insert, select, update
from sqlalchemy import cast as sql_cast

from noria import audit
from noria.clock import from_millis, to_millis
from noria.errors import AlreadyExists, Conflict, InvalidInput, NotFound, Protected
from noria.ids import ExperimentId
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import experiments, runs
from noria.tracking.entities import Experiment

ACTIVE, DELETED = "active", "deleted"
DEFAULT_ID = ExperimentId("0")
_LONGEST_NAME, _LONGEST_TAG_KEY, _LONGEST_TAG = 500, 250, 20_000


def create(
    tx: Transaction, name: str, *, artifact_root: str, at: datetime, tags: Mapping[str, str] | None = None
) -> Experiment:
    """A new experiment with the next number as id. Raises AlreadyExists or InvalidInput."""
    _check_name(tx, name)
    for key, value in (tags or {}).items():
        check_tag(key, value)
    highest = tx.execute(select(func.max(sql_cast(experiments.c.experiment_id, Integer)))).scalar() or 0
    return _insert(tx, ExperimentId(str(highest + 1)), name, artifact_root, at, tags or {})


def get_or_create(tx: Transaction, name: str, *, artifact_root: str, at: datetime) -> Experiment:
    """The experiment of that name, made when it is new."""
    return find(tx, name) or create(tx, name, artifact_root=artifact_root, at=at)


def ensure_default(tx: Transaction, *, artifact_root: str, at: datetime) -> None:
    """Make the experiment "Default" with id 0, which MLflow clients take for granted."""
    if not exists(tx, DEFAULT_ID):
        _insert(tx, DEFAULT_ID, "Default", artifact_root, at, {})


def find(tx: Transaction, name: str) -> Experiment | None:
    """The experiment of that name, or None."""
    row = tx.execute(select(experiments).where(experiments.c.name == name)).first()
    return None if row is None else _experiment(row)


def get(tx: Transaction, experiment_id: str) -> Experiment:
    """The experiment of that id. Raises NotFound, or InvalidInput for what is no id."""
    if not experiment_id.isdecimal():
        raise InvalidInput(f"{experiment_id[:60]!r} is not an experiment id", remedy="Send the number of one.")
    row = tx.execute(select(experiments).where(experiments.c.experiment_id == experiment_id)).first()
    if row is None:
        raise NotFound(f"No Experiment with id={experiment_id} exists", remedy="Search experiments for the ids.")
    return _experiment(row)


def exists(tx: Transaction, experiment_id: str) -> bool:
    """Whether there is an experiment of that id, deleted or not."""
    return tx.execute(select(experiments).where(experiments.c.experiment_id == experiment_id)).first() is not None


def list_all(tx: Transaction) -> list[Experiment]:
    """Every experiment, newest first."""
    return [_experiment(row) for row in tx.execute(select(experiments).order_by(experiments.c.created_at.desc()))]


def change(
    tx: Transaction,
    experiment_id: str,
    *,
    at: datetime,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Experiment:
    """Rename, or replace the tags. Raises AlreadyExists, or Conflict for a deleted experiment."""
    before = require(tx, experiment_id)
    if name is not None and name != before.name:
        _check_name(tx, name)
    tx.execute(
        update(experiments)
        .where(experiments.c.experiment_id == experiment_id)
        .values(
            name=name or before.name,
            tags=to_json(dict(before.tags if tags is None else tags)),
            updated_at=to_millis(at),
        )
    )
    after = get(tx, experiment_id)
    told = [{"name": item.name, "tags": dict(item.tags)} for item in (before, after)]
    detail = {"before": told[0], "after": told[1]}
    audit.note(
        tx, "experiment.update", _subject(experiment_id), changed=[_row_key(experiment_id)], detail=detail, at=at
    )
    return after


def move(tx: Transaction, experiment_id: str, lifecycle_stage: str, *, at: datetime) -> None:
    """Delete an experiment with its runs, or restore both. Raises NotFound when none is there to be moved."""
    if get(tx, experiment_id).lifecycle_stage == lifecycle_stage:
        raise NotFound(f"No other than {lifecycle_stage} experiment {experiment_id} exists", remedy="It is so already.")
    stage = {"lifecycle_stage": lifecycle_stage}
    registered = select(runs.c.registered_as).where(
        runs.c.experiment_id == experiment_id, runs.c.registered_as.is_not(None)
    )
    if lifecycle_stage == DELETED and (label := tx.execute(registered.limit(1)).scalar()) is not None:
        raise Protected(
            f"a run of experiment {experiment_id} is registered as {label}", remedy="Delete that version first."
        )
    of_it = experiments.c.experiment_id == experiment_id
    tx.execute(update(experiments).where(of_it).values(**stage, updated_at=to_millis(at)))
    tx.execute(update(runs).where(runs.c.experiment_id == experiment_id).values(**stage))
    action = "experiment.delete" if lifecycle_stage == DELETED else "experiment.restore"
    moved = tx.execute(select(runs.c.run_id).where(runs.c.experiment_id == experiment_id)).scalars()
    changed = [_row_key(experiment_id), *((runs, (run_id,)) for run_id in moved)]
    detail = {"runs": len(changed) - 1}
    audit.note(tx, action, _subject(experiment_id), changed=changed, detail=detail, at=at)


def require(tx: Transaction, experiment_id: str) -> Experiment:
    """The experiment, when runs can be added to it. Raises NotFound, or Conflict for a deleted one."""
    found = get(tx, experiment_id)
    if found.lifecycle_stage != ACTIVE:
        raise Conflict(f"The experiment {experiment_id} is deleted", remedy="Restore it first.")
    return found


def check_tag(key: str, value: str) -> None:
    """Raises InvalidInput for a tag whose key or value is too long."""
    if not key or len(key) > _LONGEST_TAG_KEY or len(value) > _LONGEST_TAG:
        raise InvalidInput(
            f"tag {key[:60]!r} with {len(value)} characters is too long, or has no key",
            remedy=f"Use 1 to {_LONGEST_TAG_KEY} characters as key and at most {_LONGEST_TAG} as value.",
        )


def _check_name(tx: Transaction, name: str) -> None:
    if not name.strip() or len(name) > _LONGEST_NAME:
        raise InvalidInput(f"{name[:60]!r} is not an experiment name", remedy=f"Use 1 to {_LONGEST_NAME} characters.")
    if find(tx, name) is not None:
        raise AlreadyExists(f"experiment {name!r} exists already", remedy="Choose another name, or use this one.")


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
    audit.note(
        tx,
        "experiment.create",
        _subject(experiment_id),
        changed=[_row_key(experiment_id)],
        detail={"name": name, "tags": dict(tags)},
        at=at,
    )
    return get(tx, experiment_id)


def _subject(experiment_id: str) -> str:
    return f"experiment:{experiment_id}"


def _row_key(experiment_id: str) -> audit.RowKey:
    return experiments, (experiment_id,)


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
