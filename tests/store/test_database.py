"""The migrated schema is the declared one."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from noria.store import Database
from noria.store.database import _MIGRATIONS, HEAD_REVISION
from noria.store.tables import metadata


def test_a_migrated_database_equals_the_declared_tables(tmp_path):
    url = f"sqlite:///{tmp_path}/noria.db"
    Database(url).migrate()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_head_revision_named_in_the_code_is_the_newest_migration():
    assert ScriptDirectory(str(_MIGRATIONS)).get_heads() == [HEAD_REVISION]
