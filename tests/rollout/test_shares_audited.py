"""A bandit's shares cannot be changed behind the audit trail's back, also in a store from before they were sealed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, update

from noria import audit
from noria.errors import BrokenChain
from noria.rollout import Plan, Strategy
from noria.rollout.moves import record_shares, start_rollout
from noria.store.tables import bandit_shares

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_shares_are_as_their_audit_entries_say_but_for_those_from_before_that(empty_database):
    def add(number: int) -> None:
        row = {"rollout_id": rollout.rollout_id, "number": number, "shares": "{}", "evidence": "{}", "decided_at": 0}
        with empty_database.write() as tx:
            tx.execute(insert(bandit_shares).values(row))

    def faults() -> list[str]:
        with empty_database.read() as tx, pytest.raises(BrokenChain) as broken:
            audit.verify(tx)
        return [detail.partition("/")[2] for detail in sorted(broken.value.details)]

    with empty_database.write() as tx:
        plan = Plan(Strategy.BANDIT, (50,))
        rollout = start_rollout(tx, "demand", "m", champion=1, challengers=[2], plan=plan, at=AT, actor="ann")
    add(1)
    with empty_database.write() as tx:
        record_shares(tx, rollout, {"champion": 0.5, "v2": 0.5}, "", {}, at=AT, actor="ann")
        audit.verify(tx)
    add(3)
    assert faults() == ["3 is in the records, but in no audit entry"]
    with empty_database.write() as tx:
        tx.execute(update(bandit_shares).where(bandit_shares.c.number == 2).values(shares="{}"))
    assert faults() == ["2 was changed without an audit entry", "3 is in the records, but in no audit entry"]
