"""Runs: created, logged to, finished, read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Table, case, delete, insert, select, update

from noria import audit
from noria.audit import tallies
from noria.audit.tallies import METRICS, PARAMS, Counted, Tally
from noria.clock import from_millis, to_millis
from noria.errors import Conflict, InvalidInput, NoriaError, NotFound, Protected
from noria.ids import ExperimentId, RunId, new_id
from noria.store.database import Transaction, conflict_insert, fetch_among, from_json, to_json
from noria.store.tables import run_inputs, run_model_inputs, run_outputs, run_params, run_tags, runs
from noria.tracking import experiments, metrics
from noria.tracking.entities import ENDED, FAILED, Metric, Run, RunState
from noria.tracking.run_keys import check_metrics, check_params, check_tags

TAGS = "tags"
STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")


def create(
    tx: Transaction,
    experiment_id: str,
    *,
    run_id: str,
    name: str,
    user: str,
    artifact_uri: str,
    at: datetime,
    tags: Mapping[str, str],
) -> Run:
    """A new run; one of that id that exists already is returned as it is."""
    if tx.execute(select(runs.c.run_id).where(runs.c.run_id == run_id)).first() is not None:
        return get(tx, run_id)
    experiments.require(tx, experiment_id)
    return _insert(tx, experiment_id, run_id, name, user, artifact_uri, at, tags)


def start(
    tx: Transaction, experiment_id: str, *, name: str, user: str, at: datetime, tags: Mapping[str, str] | None = None
) -> Run:
    """A new run under an id and artifact folder of its own; without a name, one is made of the id. Raises NotFound."""
    run_id, tags = new_id(), tags or {}
    experiment = experiments.require(tx, experiment_id)
    name = name or tags.get("mlflow.runName", "") or f"run-{run_id[:8]}"
    artifact_uri = f"{experiment.artifact_location}/{run_id}/artifacts"
    return _insert(tx, experiment_id, run_id, name, user, artifact_uri, at, tags)


def _insert(
    tx: Transaction,
    experiment_id: str,
    run_id: str,
    name: str,
    user: str,
    artifact_uri: str,
    at: datetime,
    tags: Mapping[str, str],
) -> Run:
    """A run nobody has heard of yet: what was written is what there is, so nothing is read back."""
    tags = {"mlflow.runName": name, **tags}
    run = Run(
        run_id=RunId(run_id),
        experiment_id=ExperimentId(experiment_id),
        name=tags["mlflow.runName"],
        user=user,
        status="RUNNING",
        lifecycle_stage=experiments.ACTIVE,
        started_at=from_millis(to_millis(at)),
        ended_at=None,
        artifact_uri=artifact_uri,
        params={},
        tags=tags,
        metrics={},
        datasets=(),
        model_outputs=(),
    )
    tx.execute(
        insert(runs).values(
            run_id=run_id,
            experiment_id=experiment_id,
            name=run.name,
            user_id=user,
            status=run.status,
            lifecycle_stage=run.lifecycle_stage,
            started_at=to_millis(at),
            artifact_uri=artifact_uri,
        )
    )
    check_tags(tags)
    tx.execute(insert(run_tags), [{"run_id": run_id, "key": key, "value": value} for key, value in tags.items()])
    audit.note(tx, "run.create", f"run:{run_id}", changed=[row_key(run_id)])
    return run


def require(tx: Transaction, run_id: str) -> None:
    """Check that the run can be written to. Raises NotFound, or Conflict for a deleted one."""
    for fault in unwritable(tx, [(run_id, False)]).values():
        raise fault


def unwritable(tx: Transaction, asked: Collection[tuple[str, bool]]) -> dict[tuple[str, bool], NoriaError]:
    """Those of the (run, whether metrics are to be written) that cannot be, with the reason."""
    columns = runs.c.run_id, runs.c.lifecycle_stage, runs.c.frozen, runs.c.registered_as
    run_ids = sorted({run_id for run_id, _ in asked})
    there = {row.run_id: row for row in tx.execute(select(*columns).where(runs.c.run_id.in_(run_ids)))}
    faults = {(run_id, metrics): _write_fault(run_id, there.get(run_id), metrics) for run_id, metrics in asked}
    return {one: fault for one, fault in faults.items() if fault is not None}


def _write_fault(run_id: str, row: Any, metrics: bool) -> NoriaError | None:
    if row is None:
        return _unknown(run_id)
    if row.lifecycle_stage != experiments.ACTIVE:
        text = f"The run {run_id} must be in the 'active' state, it is {row.lifecycle_stage}"
        return Conflict(text, remedy="Restore it first.")
    if row.frozen and metrics:
        text = f"the metrics of run {run_id} are frozen: it ended and is registered as {row.registered_as}"
        return Protected(text, remedy="Log them to another run, and register that.")
    return None


def row_key(run_id: str) -> audit.RowKey:
    """The run, as the audit trail names its row: with its tags, its datasets and its models."""
    return runs, (run_id,)


def set_registered(tx: Transaction, run_id: str, label: str | None) -> None:
    """Say which version came of the run: its metrics are frozen once it has ended. None takes that back.

    The audit entry of what caused it names the run's ``row_key``.
    """
    ended = runs.c.status.in_(ENDED)
    frozen = case((ended, 1), else_=0) if label is not None else 0
    tx.execute(update(runs).where(runs.c.run_id == run_id).values(registered_as=label, frozen=frozen))


def log_params(tx: Transaction, run_id: str, params: Mapping[str, str]) -> None:
    """Add params. The same value again changes nothing; another value is refused with Conflict."""
    _note_logged(tx, run_id, {PARAMS: add_params(tx, run_id, params)})


def add_params(tx: Transaction, run_id: str, params: Mapping[str, str]) -> Counted:
    """``log_params`` without a note of it: what the audit trail counts of the new ones."""
    check_params(params)
    if not params:
        return 0, 0
    rows = [{"run_id": run_id, "key": key, "value": value} for key, value in sorted(params.items())]
    statement = conflict_insert(tx.dialect.name, run_params).on_conflict_do_nothing().returning(run_params.c.key)
    new = set(tx.execute(statement, rows).scalars())
    known = _pairs(tx, run_params, run_id) if len(new) < len(rows) else params
    for key, value in params.items():
        if known[key] != value:
            raise Conflict(
                f"Changing param values is not allowed: {key!r} of run {run_id} is {known[key]!r}, not {value!r}",
                remedy="Start another run, or log under another key.",
            )
    return tallies.of_params((key, params[key]) for key in new)


def log_metrics(tx: Transaction, run_id: str, values: Sequence[Metric]) -> None:
    """Append metric values; one that is there already, to the step and time, is kept once."""
    check_metrics(values)
    for fault in unwritable(tx, [(run_id, True)] if values else []).values():
        raise fault
    new = metrics.append(tx, metrics.as_rows(run_id, values))
    _note_logged(tx, run_id, {METRICS: metrics.tally(new)})


def set_tags(tx: Transaction, run_id: str, tags: Mapping[str, str]) -> None:
    """Add or replace tags."""
    _note_logged(tx, run_id, {TAGS: put_tags(tx, run_id, tags)})


def put_tags(tx: Transaction, run_id: str, tags: Mapping[str, str]) -> Counted:
    """``set_tags`` without a note of it: how many."""
    if not tags:
        return 0, 0
    check_tags(tags)
    statement = conflict_insert(tx.dialect.name, run_tags)
    replace = statement.on_conflict_do_update(
        index_elements=["run_id", "key"], set_={"value": statement.excluded.value}
    )
    tx.execute(replace, [{"run_id": run_id, "key": key, "value": value} for key, value in sorted(tags.items())])
    if (name := tags.get("mlflow.runName")) is not None:
        tx.execute(update(runs).where(runs.c.run_id == run_id).values(name=name))
    return len(tags), 0


def logged(run_id: str, added: Mapping[str, Counted]) -> tuple[Sequence[audit.RowKey], Tally]:
    """What a note of logging to a run says: its row when that changed, and what was added."""
    some = {kind: counted for kind, counted in added.items() if counted[0]}
    return [row_key(run_id)] if some.keys() - {METRICS, PARAMS} else [], {f"run:{run_id}": some} if some else {}


def _note_logged(tx: Transaction, run_id: str, added: Mapping[str, Counted]) -> None:
    changed, tally = logged(run_id, added)
    if tally:
        audit.note(tx, "run.log", f"run:{run_id}", changed=changed, tally=tally)


def delete_tag(tx: Transaction, run_id: str, key: str) -> None:
    """Remove a tag. Raises NotFound when the run has none of that key."""
    done = tx.execute(delete(run_tags).where(run_tags.c.run_id == run_id, run_tags.c.key == key))
    if done.rowcount == 0:
        raise NotFound(f"run {run_id} has no tag {key!r}", remedy="Get the run to see its tags.")
    audit.note(tx, "run.delete_tag", f"run:{run_id}", changed=[row_key(run_id)], detail={"key": key})


def log_dataset(
    tx: Transaction, run_id: str, name: str, digest: str, document: Mapping[str, object], *, context: str = ""
) -> None:
    """Record a dataset that the run read; saying it twice changes nothing."""
    table = run_inputs
    same = (table.c.run_id == run_id, table.c.dataset_digest == digest, table.c.dataset_name == name)
    if tx.execute(select(table).where(*same)).first() is None:
        row = {"run_id": run_id, "dataset_name": name, "dataset_digest": digest, "context": context}
        tx.execute(insert(table).values(**row, document=to_json(document)))
        _note_logged(tx, run_id, {"datasets": (1, 0)})


def log_model_input(tx: Transaction, run_id: str, model_id: str) -> None:
    """Record a logged model that the run read; saying it twice changes nothing."""
    statement = conflict_insert(tx.dialect.name, run_model_inputs).on_conflict_do_nothing()
    tx.execute(statement, [{"run_id": run_id, "model_id": model_id}])
    _note_logged(tx, run_id, {"model_inputs": (1, 0)})


def log_output(tx: Transaction, run_id: str, model_id: str, step: int) -> None:
    """Record a logged model that the run made."""
    same = (run_outputs.c.run_id == run_id, run_outputs.c.model_id == model_id)
    if tx.execute(select(run_outputs).where(*same)).first() is None:
        tx.execute(insert(run_outputs).values(run_id=run_id, model_id=model_id, step=step))
        _note_logged(tx, run_id, {"model_outputs": (1, 0)})


def finish(tx: Transaction, run_id: str, status: str, *, at: datetime) -> Run:
    """Set the status; a terminal one ends the run."""
    return change(tx, run_id, status=status, ended_at=at)


def change(
    tx: Transaction,
    run_id: str,
    *,
    status: str | None = None,
    ended_at: datetime | None = None,
    name: str | None = None,
    lifecycle_stage: str | None = None,
) -> Run:
    """Update what is given. Raises InvalidInput for an unknown status, Protected when a registered run is deleted."""
    if status is not None and status not in STATUSES:
        raise InvalidInput(f"{status!r} is not a run status", remedy=f"Use one of {', '.join(STATUSES)}.")
    before = get(tx, run_id)
    if lifecycle_stage is None:
        require(tx, run_id)
    registered_as = tx.execute(select(runs.c.registered_as).where(runs.c.run_id == run_id)).scalar()
    if lifecycle_stage == experiments.DELETED and registered_as is not None:
        raise Protected(f"run {run_id} is registered as {registered_as}", remedy="Delete that version first.")
    status = status or before.status
    ended = (ended_at or before.ended_at) if status in ENDED else None
    tx.execute(
        update(runs)
        .where(runs.c.run_id == run_id)
        .values(
            status=status,
            ended_at=None if ended is None else to_millis(ended),
            lifecycle_stage=lifecycle_stage or before.lifecycle_stage,
            **({"frozen": 1} if registered_as is not None and status in ENDED else {}),
            **({"failed_as": status} if status in FAILED else {}),  # kept when it is called FINISHED later
        )
    )
    if name:
        put_tags(tx, run_id, {"mlflow.runName": name})
    after = get(tx, run_id)
    action = {None: "run.update", experiments.DELETED: "run.delete"}.get(lifecycle_stage, "run.restore")
    detail = {"before": _told(before), "after": _told(after)}
    audit.note(tx, action, f"run:{run_id}", changed=[row_key(run_id)], detail=detail)
    return after


def _told(run: Run) -> dict[str, object]:
    return {"status": run.status, "name": run.name, "lifecycle_stage": run.lifecycle_stage}


def get(tx: Transaction, run_id: str) -> Run:
    """The run of that id. Raises NotFound."""
    found = load(tx, [run_id])
    if not found:
        raise _unknown(run_id)
    return found[0]


def state(tx: Transaction, run_id: str) -> RunState:
    """How the run stands, and whether it ever failed. Raises NotFound."""
    row = tx.execute(select(runs.c.status, runs.c.failed_as).where(runs.c.run_id == run_id)).first()
    if row is None:
        raise _unknown(run_id)
    return RunState(row.status, row.failed_as)


def require_known(tx: Transaction, run_id: str) -> None:
    """Raises NotFound when there is no such run."""
    if tx.execute(select(runs.c.run_id).where(runs.c.run_id == run_id)).first() is None:
        raise _unknown(run_id)


def load(tx: Transaction, run_ids: Sequence[str]) -> list[Run]:
    """The runs of those ids that exist, in that order, in a fixed number of queries."""
    rows = {row[0]: row for row in fetch_among(tx, runs.c.run_id, run_ids)}
    params, tags = _grouped(tx, run_params, run_ids), _grouped(tx, run_tags, run_ids)
    latest = metrics.latest(tx, run_ids)
    inputs: dict[str, list[Mapping[str, object]]] = {}
    for run_id, digest, name, _, document in fetch_among(tx, run_inputs.c.run_id, run_ids):
        inputs.setdefault(run_id, []).append({"name": name, "digest": digest, **from_json(document)})
    outputs: dict[str, list[tuple[str, int]]] = {}
    for run_id, model_id, step in fetch_among(tx, run_outputs.c.run_id, run_ids):
        outputs.setdefault(run_id, []).append((model_id, step))
    models: dict[str, list[str]] = {}
    for run_id, model_id in fetch_among(tx, run_model_inputs.c.run_id, run_ids):
        models.setdefault(run_id, []).append(model_id)
    return [
        Run(
            RunId(run_id),
            ExperimentId(experiment_id),
            name,
            user,
            status,
            lifecycle_stage,
            from_millis(started_at),
            None if ended_at is None else from_millis(ended_at),
            artifact_uri,
            params.get(run_id, {}),
            tags.get(run_id, {}),
            latest.get(run_id, {}),
            inputs.get(run_id, []),
            outputs.get(run_id, []),
            models.get(run_id, []),
        )
        for run_id, experiment_id, name, user, status, lifecycle_stage, started_at, ended_at, artifact_uri, *_ in (
            rows[run_id] for run_id in run_ids if run_id in rows
        )
    ]


def _unknown(run_id: str) -> NotFound:
    return NotFound(f"Run with id={run_id} not found", remedy="Search runs for the ids.")


def _pairs(tx: Transaction, table: Table, run_id: str) -> dict[str, str]:
    return {row.key: row.value for row in tx.execute(select(table).where(table.c.run_id == run_id))}


def _grouped(tx: Transaction, table: Table, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for run_id, key, value in fetch_among(tx, table.c.run_id, run_ids):
        found.setdefault(run_id, {})[key] = value
    return found
