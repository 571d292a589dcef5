"""Where the study of a sweep is kept: Optuna's tables, in a database that may be Noria's too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage at a database URL; its tables lie beside Noria's, which know nothing of them.

    Optuna would look into ``alembic_version``, which is Noria's there, for its own revision: it is told not to.
    """
    import optuna
    from sqlalchemy import event, make_url

    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    is_sqlite = parsed.drivername == "sqlite"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(
        parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}"),
        engine_kwargs={"connect_args": {"timeout": 60}} if is_sqlite else {"pool_pre_ping": True},
        skip_compatibility_check=True,
    )
    if is_sqlite:
        event.listen(storage.engine, "connect", _begin_ourselves)
        event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        storage.engine.dispose()  # the connections it made before it was told
    return storage


def _begin_ourselves(connection: Any, _entry: object) -> None:
    """The driver begins a transaction as a reader, and one of several readers that turn writers is refused."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")


@contextmanager
def used_here(storage: RDBStorage) -> Iterator[None]:
    """Gives this thread's connection back afterwards."""
    try:
        yield
    finally:
        storage.remove_session()


def sampler_of(seed: int) -> BaseSampler:
    """The sampler of sweeps that name none: it takes trials still running for poor ones, so that workers spread."""
    import warnings

    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls this experimental
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
