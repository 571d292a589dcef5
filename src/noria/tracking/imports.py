"""What was tracked elsewhere, written as it was: ids, times, statuses and lifecycle stages are kept.

Each of these may be repeated: the second time changes nothing, or brings what is there up to date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, insert, select, update

from noria import audit
from noria.audit import tallies
from noria.audit.tallies import METRICS, PARAMS, Counted
from noria.clock import to_millis
from noria.errors import Protected
from noria.ids import RunId
from noria.store.database import Transaction, to_json
from noria.store.tables import logged_models, run_inputs, run_outputs, run_params, run_tags, runs
from noria.tracking import experiments, metrics
from noria.tracking.entities import FAILED, Experiment, LoggedModel, Metric, Run
from noria.tracking.runs import row_key

_OF_RUN = (run_params, run_tags, run_inputs, run_outputs)


def put_experiment(tx: Transaction, experiment: Experiment, *, artifact_root: str) -> Experiment:
    """The experiment of that name, made with the given tags, times and lifecycle stage when it is new.

    One that is there keeps its id, its stage and its tags; tags that it lacks are added.
    """
    there = experiments.find(tx, experiment.name)
    if there is not None:
        tags = {**experiment.tags, **there.tags}
        if tags == there.tags or there.lifecycle_stage == experiments.DELETED:
            return there
        return experiments.change(tx, there.experiment_id, at=experiment.updated_at, tags=tags)
    made = experiments.create(
        tx, experiment.name, artifact_root=artifact_root, at=experiment.created_at, tags=experiment.tags
    )
    if experiment.lifecycle_stage == experiments.DELETED:
        experiments.move(tx, made.experiment_id, experiments.DELETED, at=experiment.updated_at)
    return experiments.get(tx, made.experiment_id)


def put_run(tx: Transaction, run: Run) -> None:
    """The run with its params, tags, datasets and outputs, replacing what an earlier call wrote; no metrics."""
    row = {
        "experiment_id": run.experiment_id,
        "name": run.name,
        "user_id": run.user,
        "status": run.status,
        "lifecycle_stage": run.lifecycle_stage,
        "started_at": to_millis(run.started_at),
        "ended_at": None if run.ended_at is None else to_millis(run.ended_at),
        "artifact_uri": run.artifact_uri,
        **({"failed_as": run.status} if run.status in FAILED else {}),
    }
    if tx.execute(update(runs).where(runs.c.run_id == run.run_id).values(**row)).rowcount == 0:
        tx.execute(insert(runs).values(run_id=run.run_id, **row))
    before = tx.execute(select(run_params.c.key, run_params.c.value).where(run_params.c.run_id == run.run_id)).all()
    for table in _OF_RUN:
        tx.execute(delete(table).where(table.c.run_id == run.run_id))
    for table, pairs in ((run_params, run.params), (run_tags, run.tags)):
        if pairs:
            tx.execute(insert(table), [{"run_id": run.run_id, "key": k, "value": v} for k, v in pairs.items()])
    for entry in run.datasets:
        document = {"tags": entry["tags"], "dataset": entry["dataset"]}
        tx.execute(
            insert(run_inputs).values(
                run_id=run.run_id,
                dataset_name=entry["name"],
                dataset_digest=entry["digest"],
                context=_context(entry),
                document=to_json(document),
            )
        )
    for model_id, step in dict(run.model_outputs).items():
        tx.execute(insert(run_outputs).values(run_id=run.run_id, model_id=model_id, step=step))
    _note_replaced(tx, run, tallies.of_params((row.key, row.value) for row in before))


def _note_replaced(tx: Transaction, run: Run, before: Counted) -> None:
    """What was there is taken back, what is there now is added: the sum is that of the params there are."""
    tally: dict[str, dict[str, Counted]] = {}
    subject = f"run:{run.run_id}"
    tallies.add(tally, {subject: {PARAMS: tallies.less(before)}})
    tallies.add(tally, {subject: {PARAMS: tallies.of_params(run.params.items())}})
    audit.note(tx, "run.import", subject, changed=[row_key(run.run_id)], tally=tally)


def put_metrics(tx: Transaction, run_id: str, values: Sequence[Metric]) -> None:
    """Add to the run's history what it lacks. Raises Protected when that adds to frozen metrics."""
    frozen, label = tx.execute(select(runs.c.frozen, runs.c.registered_as).where(runs.c.run_id == run_id)).one()
    new = metrics.append(tx, metrics.as_rows(run_id, values))
    if frozen and new:
        raise Protected(
            f"the metrics of run {run_id} are frozen: it ended and is registered as {label}",
            remedy="Import the later metrics under another run.",
        )
    if new:
        audit.note(tx, "run.import", f"run:{run_id}", tally={f"run:{run_id}": {METRICS: metrics.tally(new)}})


def put_logged_model(tx: Transaction, model: LoggedModel) -> None:
    """The logged model, replacing what an earlier call wrote."""
    tx.execute(delete(logged_models).where(logged_models.c.model_id == model.model_id))
    tx.execute(
        insert(logged_models).values(
            model_id=model.model_id,
            experiment_id=model.experiment_id,
            name=model.name,
            source_run_id=model.source_run_id,
            artifact_uri=model.artifact_uri,
            status=model.status,
            model_type=model.model_type,
            created_at=to_millis(model.created_at),
            updated_at=to_millis(model.updated_at),
            params=to_json(dict(model.params)),
            tags=to_json(dict(model.tags)),
        )
    )
    audit.note(
        tx, "logged_model.import", f"logged_model:{model.model_id}", changed=[(logged_models, (model.model_id,))]
    )


def tags_and_status(tx: Transaction, run_id: RunId) -> tuple[dict[str, str], str] | None:
    """The tags and status of a run without reading the rest of it; None when there is none."""
    status = tx.execute(select(runs.c.status).where(runs.c.run_id == run_id)).scalar()
    if status is None:
        return None
    return {row.key: row.value for row in tx.execute(select(run_tags).where(run_tags.c.run_id == run_id))}, status


def _context(entry: Mapping[str, object]) -> str:
    tags = entry["tags"]
    assert isinstance(tags, list)
    return next((str(tag.get("value", "")) for tag in tags if tag.get("key") == "mlflow.data.context"), "")
