"""Search by the database finds what the grammar's plain reading finds."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidInput
from noria.store import Database
from noria.tracking import experiments, metrics, runs
from noria.tracking.entities import Metric, Run
from noria.tracking.run_search import search_runs
from noria.tracking.search import parse_filter, parse_order

START = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS = st.sampled_from([-1.0, 0.0, 0.5, 1.0, math.inf, math.nan])
WORDS = st.sampled_from(["a", "A", "ab", "a_b", "a*b", "Ünïcode", "50%"])
described = st.lists(
    st.tuples(
        WORDS,
        st.dictionaries(st.sampled_from(["auc", "x y"]), NUMBERS, max_size=2),
        st.dictionaries(st.sampled_from(["p", "q.r"]), WORDS, max_size=2),
    ),
    min_size=1,
    max_size=8,
)
number_clauses = st.builds(
    "{}.`{}` {} {}".format,
    st.just("metrics"),
    st.sampled_from(["auc", "x y", "none"]),
    st.sampled_from(["=", "!=", ">", ">=", "<", "<="]),
    st.sampled_from(["0", "0.5", "-1"]),
)
text_clauses = st.builds(
    "{} {}".format,
    st.sampled_from(["params.p", "tags.`q.r`", "attributes.run_name"]),
    st.one_of(
        st.builds(
            "{} '{}'".format,
            st.sampled_from(["=", "!=", "LIKE"]),
            st.sampled_from(["a", "A%", "a_b", "%b", "a*b", "50%"]),
        ),
        st.sampled_from(["IN ('a', 'ab')", "NOT IN ('a')", "ILIKE 'A%'"]),
    ),
)
filters = st.lists(st.one_of(number_clauses, text_clauses), max_size=3).map(" AND ".join)
orders = st.lists(
    st.sampled_from(["metrics.auc DESC", "metrics.auc", "params.p DESC", "tags.`q.r`", "run_name DESC"]), max_size=2
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request, new_database_url):
    database = Database(new_database_url(request.param))
    database.migrate()
    yield database
    database.close()


def plain(found: list[Run], filter_text: str, order_by: list[str]) -> list[str]:
    """The ids that the definition gives: loops over runs in memory."""
    clauses = parse_filter(filter_text)
    chosen = [run for run in found if all(clause.holds(fields(run)) for clause in clauses)]
    for kind, key, descending in reversed([parse_order(text) for text in order_by]):
        known = [run for run in chosen if not is_missing(fields(run)(kind, key))]
        missing = [run for run in chosen if run not in known]
        known.sort(key=lambda run: fields(run)(kind, key), reverse=descending)
        chosen = known + missing
    return [run.run_id for run in chosen]


def is_missing(value: object) -> bool:
    """Whether an order puts it last: what is not there, and NaN, which is neither more nor less than anything."""
    return value is None or value != value


def fields(run: Run):
    def value(kind: str, key: str):
        if kind == "metrics":
            return run.metrics[key].value if key in run.metrics else None
        return {"params": run.params, "tags": run.tags, "attributes": {"run_name": run.name}}[kind].get(key)

    return value


@settings(max_examples=150)
@given(described, filters, orders)
def test_a_filter_and_an_order_mean_what_they_say(database, rows, filter_text, order_by):
    with database.write() as tx:
        experiment = experiments.create(tx, f"e{datetime.now().timestamp()}", artifact_root="", at=START, tags={})
        ids = []
        for number, (name, measured, pairs) in enumerate(rows):
            run_id = f"{experiment.experiment_id}-{number:03d}"
            created = START + timedelta(seconds=-number)
            runs.create(
                tx, experiment.experiment_id, run_id=run_id, name=name, user="", artifact_uri="", at=created, tags=pairs
            )
            runs.log_params(tx, run_id, pairs)
            runs.log_metrics(tx, run_id, [Metric(key, value, 0, 0) for key, value in measured.items()])
            ids.append(run_id)
        expected = plain(runs.load(tx, ids), filter_text, order_by)
        found = search_runs(tx, [experiment.experiment_id], filter_text=filter_text, order_by=order_by)
        assert [run.run_id for run in found] == expected
        tail = search_runs(
            tx, [experiment.experiment_id], filter_text=filter_text, order_by=order_by, limit=2, offset=1
        )
        assert [run.run_id for run in tail] == expected[1:3]


VALUES = st.one_of(st.integers(0, 30).map(float), st.sampled_from([math.inf, -math.inf, math.nan]))


@settings(max_examples=15)
@given(st.lists(st.tuples(VALUES, st.booleans(), st.sampled_from("ab")), min_size=12, max_size=40), st.booleans())
def test_the_first_pages_by_a_metric_are_those_of_the_whole_order(database, rows, descending):
    """Some of them lie within the first values that an index has, also of other experiments, and some do not."""
    with database.write() as tx:
        mine, other = (
            experiments.create(
                tx, f"{kind}{datetime.now().timestamp()}", artifact_root="", at=START, tags={}
            ).experiment_id
            for kind in ("mine", "other")
        )
        key, ids = f"m{mine}", []
        for number, (value, is_mine, kind) in enumerate(rows):
            run = runs.start(tx, mine if is_mine else other, name="", user="", at=START - timedelta(seconds=number))
            runs.log_metrics(tx, run.run_id, [Metric(key, value, 0, 0)])
            runs.log_params(tx, run.run_id, {"p": kind})
            ids += [run.run_id] if is_mine else []
        chosen, order = "params.p = 'a'", [f"metrics.{key} {'DESC' if descending else 'ASC'}"]
        expected = plain(runs.load(tx, ids), chosen, order)
        for offset in range(4):
            page = search_runs(tx, [mine], filter_text=chosen, order_by=order, limit=1, offset=offset)
            assert [run.run_id for run in page] == expected[offset : offset + 1]


def test_more_runs_are_loaded_than_a_statement_has_placeholders(database):
    with database.write() as tx:
        experiment = experiments.create(tx, "one", artifact_root="", at=START, tags={})
        run = runs.start(tx, experiment.experiment_id, name="", user="", at=START)
        wanted = [*(f"nobody{number}" for number in range(70_000)), run.run_id]
        assert [found.run_id for found in runs.load(tx, wanted)] == [run.run_id]


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([-1.5, 0.0, 1 / 3, math.nan, math.inf])),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 4),
)
def test_the_pages_of_a_history_are_the_whole_history(database, logged, limit):
    with database.write() as tx:
        experiment = experiments.create(tx, f"h{datetime.now().timestamp()}", artifact_root="", at=START, tags={})
        run = runs.start(tx, experiment.experiment_id, name="", user="", at=START)
        runs.log_metrics(tx, run.run_id, [Metric("m", value, timestamp, step) for step, timestamp, value in logged])
        whole = metrics.history(tx, run.run_id, "m", limit=100)
        pages, last = [], None
        while page := metrics.history(tx, run.run_id, "m", limit=limit, after=last):
            pages += page
            last = page[-1]
    assert repr(pages) == repr(whole)
    kept = {(step, at, min(value, metrics.LARGEST) if value == value else "NaN") for step, at, value in logged}
    assert {(m.step, m.timestamp_millis, m.value if m.value == m.value else "NaN") for m in whole} == kept
    assert len(whole) == len(kept)


@pytest.mark.parametrize(
    "text",
    [
        "metrics.auc = 'high'",
        "params.p > 3",
        "nothing.x = 1",
        "attributes.colour = 'red'",
        "auc >",
        "a = 1 OR b = 2",
        "'",
    ],
)
def test_what_is_no_filter_is_refused(database, text):
    with database.read() as tx, pytest.raises(InvalidInput):
        search_runs(tx, ["1"], filter_text=text)


def test_a_filter_is_a_value_and_never_sql(database):
    with database.read() as tx:
        assert search_runs(tx, ["1"], filter_text="tags.x = '; DROP TABLE runs --'") == []
        assert search_runs(tx, ["1"], filter_text="params.`x\") OR 1=1 --` = 'y'") == []


def test_the_newest_value_is_the_one_of_the_highest_step_then_time(database):
    with database.write() as tx:
        experiment = experiments.create(tx, "steps", artifact_root="", at=START, tags={})
        runs.create(tx, experiment.experiment_id, run_id="steps", name="", user="", artifact_uri="", at=START, tags={})
        first, late = 0, 3_600_000
        for batch in ([("m", 3.0, first, 5), ("m", 4.0, late, 5)], [("m", 9.0, late, 1)], [("m", 4.0, late, 5)]):
            runs.log_metrics(tx, "steps", [Metric(*values) for values in batch])
        assert runs.get(tx, "steps").metrics["m"].value == 4.0
        history = metrics.history(tx, "steps", "m", limit=10)
        assert [(metric.step, metric.value) for metric in history] == [(1, 9.0), (5, 3.0), (5, 4.0)]
