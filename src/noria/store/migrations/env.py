"""Alembic's entry: runs the series on the connection the database hands over."""

from alembic import context

from noria.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
