"""Noria against MLflow, check by check: they agree, or the difference is on record with its reason."""

from __future__ import annotations

import json

import pytest

from conformance.compare import checks, compare
from conformance.differences import DIFFERENCES


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.name)
def test_noria_does_what_mlflow_does(check, servers):
    seen = compare(check, *servers)
    assert not {status for status in statuses(seen.noria) if status >= 500}, "Noria must not fail"
    if seen.reason:
        assert not seen.agreed, f"they agree now: take the difference off the record ({seen.reason})"
    else:
        assert pretty(seen.noria) == pretty(seen.mlflow)


def test_every_difference_on_record_belongs_to_a_check():
    assert set(DIFFERENCES) <= {check.name for check in checks()}


def statuses(seen):
    """The HTTP statuses anywhere in an observation."""
    if isinstance(seen, dict):
        own = [seen["status"]] if isinstance(seen.get("status"), int) else []
        return own + [status for value in seen.values() for status in statuses(value)]
    return [status for item in seen for status in statuses(item)] if isinstance(seen, list) else []


def pretty(seen):
    return json.dumps(seen, indent=1, sort_keys=True, ensure_ascii=False)
