"""Databases of both engines: the migrated schema is the declared one, writers take turns, faults are told."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, insert, select, text, update

from noria import audit
from noria.errors import BrokenChain, Conflict, InvalidConfig, InvalidInput, Unavailable
from noria.registry import NewVersion, Policies, register_version
from noria.rollout.deployments import all_deployments, own_name
from noria.rollout.records import list_rollouts
from noria.store import Database
from noria.store.database import _MIGRATIONS, HEAD_REVISION
from noria.store.tables import experiments, metadata, rollouts


def row(name, **changed):
    plain = {"artifact_location": "", "lifecycle_stage": "active", "created_at": 0, "updated_at": 0}
    return {"experiment_id": name[:32], "name": name, **plain, **changed}


def test_a_migrated_database_equals_the_declared_tables(empty_database):
    with empty_database.read() as tx:
        assert compare_metadata(MigrationContext.configure(tx), metadata) == []


def test_the_head_revision_named_in_the_code_is_the_newest_migration():
    assert ScriptDirectory(str(_MIGRATIONS)).get_heads() == [HEAD_REVISION]


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_processes_that_start_together_migrate_once(engine, new_database_url):
    url = new_database_url(engine)
    databases = [Database(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Database.migrate, databases))
    for database in databases:
        database.close()


def test_what_a_writer_read_still_holds_when_it_commits(empty_database):
    def add(_number):
        with empty_database.write() as tx:
            count = tx.execute(select(func.count()).select_from(experiments)).scalar_one()
            tx.execute(insert(experiments).values(row(str(count))))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    with empty_database.read() as tx:
        names = {name for (name,) in tx.execute(select(experiments.c.name))}
    assert names == {str(number) for number in range(40)}


def test_a_reader_sees_one_moment(empty_database):
    with empty_database.write() as tx:
        tx.execute(insert(experiments).values(row("before")))

    def add():
        with empty_database.write() as tx:
            tx.execute(insert(experiments).values(row("after")))

    with empty_database.read() as tx:
        first = tx.execute(select(func.count()).select_from(experiments)).scalar_one()
        writer = threading.Thread(target=add)
        writer.start()
        writer.join()
        assert tx.execute(select(func.count()).select_from(experiments)).scalar_one() == first == 1


def test_a_block_that_raises_leaves_nothing(empty_database):
    with pytest.raises(InvalidInput), empty_database.write() as tx:
        tx.execute(insert(experiments).values(row("half")))
        raise InvalidInput("no")
    with empty_database.read() as tx:
        assert tx.execute(select(experiments)).first() is None


@pytest.mark.parametrize("name", ["nul \0 inside", "x" * 600])
def test_a_value_postgresql_cannot_keep_is_bad_input(name, new_database_url):
    database = Database(new_database_url("postgresql"))
    database.migrate()
    with pytest.raises(InvalidInput), database.write() as tx:
        tx.execute(insert(experiments).values(row(name)))
    database.close()


@pytest.mark.parametrize("url", ["nonsense", "mysql://localhost/x", "oracle://x"])
def test_an_unknown_url_says_which_there_are(url):
    with pytest.raises(InvalidConfig) as refused:
        Database(url)
    assert "postgresql://" in str(refused.value)


def test_a_server_that_is_gone_is_named_without_its_password():
    database = Database("postgresql://noria:secret@127.0.0.1:1/noria")
    with pytest.raises(Unavailable) as refused:
        database.migrate()
    assert "127.0.0.1:1" in str(refused.value)
    assert "secret" not in str(refused.value)
    database.close()


def test_connections_that_postgresql_ended_are_replaced(new_database_url):
    url = new_database_url("postgresql")
    database = Database(url)
    database.migrate()
    with database.read() as tx:
        own = tx.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    with psycopg.connect(url, autocommit=True) as other:
        assert other.execute("SELECT pg_terminate_backend(%s, 5000)", [own]).fetchone() == (True,)
    with database.read() as tx:
        assert tx.exec_driver_sql("SELECT pg_backend_pid()").scalar() != own
    database.close()


def test_a_database_of_the_first_revision_is_brought_up_to_date_and_its_chain_still_holds(tmp_path):
    path = tmp_path / "noria.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript((Path(__file__).parent / "revision_0001.sql").read_text())
    database = Database(f"sqlite:///{path}")
    database.migrate()
    with database.read() as tx:
        assert compare_metadata(MigrationContext.configure(tx), metadata) == []
        assert audit.verify(tx).entries == 6
    with database.write() as tx:
        new = NewVersion(model="m", source="s")
        made = register_version(tx, new, policies=Policies(), at=datetime(2026, 2, 1, tzinfo=UTC), actor="someone")
        assert made.version == 3
        assert audit.verify(tx).entries == 7
    database.close()


def test_what_an_older_noria_serves_is_deployed_after_the_upgrade_and_its_chain_still_holds(tmp_path):
    path = tmp_path / "noria.db"
    with closing(sqlite3.connect(path)) as old:  # routes and a canary under way, before deployments were recorded
        old.executescript((Path(__file__).parent / "revision_0004.sql").read_text())
    database = Database(f"sqlite:///{path}")
    database.migrate()
    audit.settle_all(database)
    with database.read() as tx:
        assert audit.verify(tx).entries == 4
        assert own_name(tx, "m") == "shop"
        assert [(one.deployment, one.model) for one in all_deployments(tx)] == [("shop", "m")]
        assert [(one.status, one.plan.strategy, one.percent) for one in list_rollouts(tx)] == [("running", "canary", 5)]
    with database.write() as tx:
        tx.execute(update(rollouts).values(strategy="ab"))
        with pytest.raises(BrokenChain, match=r"rollouts .* was changed"):
            audit.verify(tx)
    database.close()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_database_of_a_newer_noria_is_refused_and_left_as_it_is(engine, new_database_url):
    database = Database(new_database_url(engine))
    database.migrate()
    with database.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="revision 9999 by a newer Noria; this one knows revisions up to"):
        database.migrate()
    with database.read() as tx:
        assert tx.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    database.close()
