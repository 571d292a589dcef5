"""The prediction log of an older Noria, one record a row: what it holds is still found and read."""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec

from noria.lifecycle.evidence import Evidence
from noria.lifecycle.latencies import latencies_lately
from noria.monitoring.log import find_prediction, read_predictions
from noria.monitoring.segments import SegmentWriter

RECEIVED = 1_767_225_600_000


def record(number, version=1):
    routed = (RECEIVED, "shop", 3, "champion", "m", version)
    return (f"p{number}", RECEIVED + number, *routed, {"shop": "north"}, [1.5, None], 20.0 + number, 0.5)


def older_log(folder):
    writer = SegmentWriter(folder / "predictions")
    writer.append(RECEIVED // 86_400_000, msgspec.msgpack.encode([record(1), record(2), record(3, version=2)]))
    writer.close()
    return folder


def test_predictions_of_an_older_log_are_found_with_all_that_they_hold(tmp_path):
    log = older_log(tmp_path)
    assert [(row.prediction_id, row.version) for row in read_predictions(log, date(2026, 1, 1))] == [
        ("p1", 1),
        ("p2", 1),
        ("p3", 2),
    ]
    found = find_prediction(log, "p2")
    assert found is not None
    assert (found.event_time, found.entities, found.features) == (RECEIVED + 2, {"shop": "north"}, [1.5, None])
    assert (found.prediction, found.score, found.deployment, found.revision) == (22.0, 0.5, "shop", 3)


def test_answers_whose_latency_was_not_logged_are_no_fast_ones(tmp_path):
    log, since = older_log(tmp_path), datetime(2026, 1, 1, tzinfo=UTC)
    assert latencies_lately(log, "shop", 3, "champion", since).size == 0
    evidence = Evidence(log, "shop", since)
    evidence.refresh({3: 1})
    assert evidence.rows().height == 0
