"""The audit chain sees every change made behind its back."""

from __future__ import annotations

import contextlib
from contextlib import closing
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from sqlalchemy import delete

from noria import audit
from noria.audit.anchors import anchor, read_anchors
from noria.audit.watch import ChainWatch, Watched
from noria.clock import ReplayClock
from noria.errors import AlreadyExists, BrokenChain, InvalidInput, NoriaError, Protected, Unavailable
from noria.registry import NewVersion, Policies, Stage, approve, register_version, transition
from noria.registry.models import aliases, create_model, delete_model, rename_model, set_alias, update_model
from noria.registry.stages import history
from noria.registry.versions import delete_version, update_version
from noria.store import Database
from noria.store.blobs import open_blobs
from noria.store.tables import audit_entries

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(empty_database):
    database = empty_database
    with database.write() as tx:
        for number in range(10):
            detail = {"number": number}
            audit.append(tx, at=NOW, actor="someone", action="model.create", subject="model:m", detail=detail)
    return database


@pytest.fixture
def governed(database):
    """A model with a version that was approved and moved."""
    with database.write() as tx:
        register_version(
            tx, NewVersion(model="m", source="mlflow-artifacts:/m"), policies=Policies(), at=NOW, actor="someone"
        )
        approve(tx, "m", 1, Stage.PRODUCTION, at=NOW, actor="someone", reason="read")
        transition(tx, "m", 1, Stage.STAGING, policies=Policies(), at=NOW, actor="someone")
        audit.verify(tx)
    return database


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


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("UPDATE model_versions SET stage = 'Production'", "model_versions m/1 was changed without an audit entry"),
        ("UPDATE transitions SET reason = 'another'", "transitions 1 was changed"),
        ("DELETE FROM approvals", "approvals m/1/Production/someone was removed"),
        (
            "INSERT INTO model_aliases VALUES ('m', 'champion', 1)",
            "model_aliases m/champion is in the records",
        ),
    ],
)
def test_a_record_changed_behind_the_chain_is_found(governed, change, finding):
    with governed.write() as tx:
        tx.exec_driver_sql(change)
    with governed.read() as tx, pytest.raises(BrokenChain) as caught:
        audit.verify(tx)
    assert finding in str(caught.value)


def test_a_tail_cut_off_with_its_changes_is_found_by_an_anchor(governed):
    with governed.read() as tx:
        before = audit.verify(tx)
    with governed.write() as tx:
        set_alias(tx, "m", "champion", 1, at=NOW, actor="someone")
        after = audit.verify(tx, [before])
        tx.exec_driver_sql("DELETE FROM model_aliases")
        tx.exec_driver_sql("DELETE FROM audit_entries WHERE sequence = (SELECT max(sequence) FROM audit_entries)")
        assert audit.verify(tx, [before]) == before
        with pytest.raises(BrokenChain, match=f"does not continue the anchor of entry {after.entries}"):
            audit.verify(tx, [before, after])


def test_anchors_are_kept_elsewhere_and_tell_of_a_chain_that_was_cut(governed, tmp_path):
    place = open_blobs("", folder=tmp_path / "elsewhere", cache=tmp_path)
    first = anchor(governed, place)
    with governed.write() as tx:
        set_alias(tx, "m", "champion", 1, at=NOW, actor="someone")
    second = anchor(governed, place)
    assert anchor(governed, place) == second
    assert read_anchors(place) == [first, second]
    with governed.write() as tx:
        tx.exec_driver_sql("DELETE FROM model_aliases")
        tx.exec_driver_sql("DELETE FROM audit_entries WHERE sequence = (SELECT max(sequence) FROM audit_entries)")
        audit.verify(tx)
    with pytest.raises(BrokenChain, match="does not continue the anchor"):
        anchor(governed, place)
    place.write("0.json", b"{}")
    with pytest.raises(InvalidInput, match="no anchor"):
        read_anchors(place)


def test_every_governed_change_is_sealed_and_a_deletion_leaves_nothing_open(governed):
    with governed.write() as tx:
        set_alias(tx, "m", "champion", 1, at=NOW, actor="someone")
        update_model(tx, "m", at=NOW, actor="someone", description="of something")
        update_version(tx, "m", 1, at=NOW, actor="someone", tags={"a": "b"})
        audit.verify(tx)
        delete_version(tx, "m", 1, at=NOW, actor="someone")
        delete_model(tx, "m", at=NOW, actor="someone")
        audit.verify(tx)


def test_a_damaged_file_is_a_finding_and_no_traceback(governed, tmp_path):
    if not governed.is_sqlite:
        with pytest.raises(Unavailable, match="only a SQLite"):
            governed.copy_to(tmp_path / "copy.db")
        return
    copy = tmp_path / "copy.db"
    governed.copy_to(copy)
    whole = copy.read_bytes()
    random = Random(7)
    for place in [*range(0, 100, 3), *(random.randrange(len(whole)) for _ in range(60))]:
        copy.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(NoriaError), closing(Database(f"sqlite:///{copy}")) as database, database.read() as tx:
            audit.verify(tx)


def test_a_renamed_model_takes_its_history_along(governed):
    with governed.write() as tx:
        set_alias(tx, "m", "champion", 1, at=NOW, actor="someone")
        rename_model(tx, "m", "n", policies=Policies(), at=NOW, actor="someone")
        audit.verify(tx)
        assert (aliases(tx, "n"), [move.to_stage for move in history(tx, "n")]) == ({"champion": 1}, [Stage.STAGING])
        create_model(tx, "taken", policies=Policies(), at=NOW, actor="someone")
        with pytest.raises(AlreadyExists):
            rename_model(tx, "n", "taken", policies=Policies(), at=NOW, actor="someone")
        transition(tx, "n", 1, Stage.PRODUCTION, policies=Policies(), at=NOW, actor="someone")
        with pytest.raises(Protected, match="version 1 is in Production"):
            rename_model(tx, "n", "o", policies=Policies(), at=NOW, actor="someone")


def test_a_watch_verifies_everything_once_and_then_what_is_new(governed):
    clock = ReplayClock(NOW)
    watch = ChainWatch(governed, clock)
    first = watch.look()
    clock.move_to(NOW + timedelta(hours=1))
    with governed.write() as tx:
        create_model(tx, "another", policies=Policies(), at=NOW, actor="someone")
    then = watch.look()
    assert (first.entries, first.whole_at) == (first.whole_entries, NOW)
    assert then == Watched(first.entries + 1, first.entries, NOW)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_entries SET actor = 'another' WHERE sequence = 12",
        "DELETE FROM audit_entries WHERE sequence = 11",
        "DELETE FROM audit_entries WHERE sequence >= 10",
        "UPDATE audit_entries SET entry_hash = 'x' WHERE sequence = 10",
    ],
)
def test_a_watch_finds_what_is_wrong_with_new_entries_and_a_chain_cut_short(database, change):
    watch = ChainWatch(database, ReplayClock(NOW))
    watch.look()
    with database.write() as tx:
        for number in (11, 12):
            detail = {"number": number}
            audit.append(tx, at=NOW, actor="someone", action="model.create", subject="model:m", detail=detail)
        tx.exec_driver_sql(change)
    for _ in range(2):
        with pytest.raises(BrokenChain):
            watch.look()
