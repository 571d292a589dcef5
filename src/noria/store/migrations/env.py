"""Alembic's entry: runs the series on the connection the database hands over."""

from alembic import context

from noria.store.tables import metadata


def _is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Whether a comparison looks at it: studies of sweeps lie in tables of Optuna's, which are not in the series."""
    return kind != "table" or name in metadata.tables


context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, include_name=_is_ours)
context.run_migrations()
