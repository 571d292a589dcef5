"""The audit chain sees every change made behind its back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import delete

from noria import audit
from noria.errors import BrokenChain
from noria.store import Database
from noria.store.tables import audit_entries

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/noria.db")
    database.migrate()
    with database.write() as tx:
        for number in range(10):
            detail = {"number": number}
            audit.append(tx, at=NOW, actor="someone", action="model.create", subject="model:m", detail=detail)
    yield database
    database.close()


def test_an_untouched_chain_verifies(database):
    with database.read() as tx:
        assert audit.verify(tx).entries == 10


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_entries SET detail = '{\"number\":99}' WHERE sequence = 4",
        "UPDATE audit_entries SET actor = 'another' WHERE sequence = 10",
        "UPDATE audit_entries SET recorded_at = recorded_at + 1 WHERE sequence = 1",
        "DELETE FROM audit_entries WHERE sequence = 5",
        "UPDATE audit_entries SET sequence = CASE sequence WHEN 3 THEN 103 ELSE sequence END",
    ],
)
def test_an_edit_a_deletion_or_a_move_is_found(database, change):
    with database.write() as tx:
        tx.exec_driver_sql(change)
    with database.read() as tx, pytest.raises(BrokenChain):
        audit.verify(tx)


def test_a_change_that_fails_leaves_no_entry(database):
    with pytest.raises(RuntimeError), database.write() as tx:
        audit.append(tx, at=NOW, actor="someone", action="model.create", subject="model:n", detail={})
        raise RuntimeError
    with database.read() as tx:
        assert audit.verify(tx).entries == 10


def test_an_emptied_chain_verifies_as_empty(database):
    with database.write() as tx:
        tx.execute(delete(audit_entries))
    with database.read() as tx:
        assert audit.verify(tx).entries == 0
