"""Group commit: batches of one group neither wait for nor harm each other."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from noria.errors import Conflict, InvalidInput, NotFound, Unavailable
from noria.tracking import experiments, runs
from noria.tracking.entities import Metric
from noria.tracking.writer import Batch, GroupWriter

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(empty_database):
    database = empty_database
    with database.write() as tx:
        experiment = experiments.create(tx, "e", artifact_root="", at=NOW).experiment_id
        for run_id in ("a", "b", "deleted"):
            runs.create(tx, experiment, run_id=run_id, name=run_id, user="", artifact_uri="", at=NOW, tags={})
        runs.change(tx, "deleted", lifecycle_stage="deleted")
    return database


def write(database, *batches):
    async def together():
        writer = GroupWriter(database)
        return await asyncio.gather(*(writer.write(batch) for batch in batches), return_exceptions=True)

    return asyncio.run(together())


def of(database, run_id):
    with database.read() as tx:
        return runs.get(tx, run_id)


def test_a_refused_batch_leaves_nothing_and_harms_no_other(database):
    good = Metric("loss", 0.5, 1, 1)
    outcomes = write(
        database,
        Batch("a", [good], {"depth": "3"}),
        Batch("nothing", [good]),
        Batch("deleted", [good]),
        Batch("a", [good], {"width": "2", "depth": "4"}, {"t": "1"}),
        Batch("b", [Metric("../up", 1.0, 1, 1)], {"depth": "5"}),
        Batch("b", [good, Metric("loss", 0.4, 1, 2)]),
    )
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        NotFound,
        Conflict,
        Conflict,
        InvalidInput,
        type(None),
    ]
    assert (of(database, "a").params, of(database, "b").params) == ({"depth": "3"}, {})
    assert "t" not in of(database, "a").tags
    assert of(database, "b").metrics["loss"].value == 0.4


def test_many_writers_at_once_lose_nothing(database):
    write(database, *(Batch("ab"[i % 2], [Metric(f"m{i % 5}", float(i), i, i)]) for i in range(500)))
    from noria.tracking import metrics

    with database.read() as tx:
        kept = [metrics.history(tx, run_id, f"m{k}", limit=1000) for run_id in "ab" for k in range(5)]
    assert sum(len(history) for history in kept) == 500


def test_a_database_that_cannot_be_written_is_told_to_every_writer(database):
    with database.write() as tx:
        tx.execute(text("DROP TABLE run_metrics"))
    outcomes = write(database, *(Batch("a", [Metric("m", 1.0, 1, step)]) for step in range(3)))
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
