"""What all tests share: a project made by `noria init`, trained once, and the processes it runs in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from noria.ids import new_id
from noria.store import Database
from noria.surface.cli.processes import Child
from servers import RedisServer, object_store, postgresql
from support import mlflow2_environment, mlflow_environment, noria

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # tests start many processes: each would compile all it imports
settings.register_profile("noria", deadline=None)  # no test asserts a time
settings.load_profile("noria")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does for itself


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template project with version 1 in Production."""
    folder = tmp_path_factory.mktemp("trained") / "shop"
    noria("init", str(folder), cwd=folder.parent)
    noria("run", cwd=folder)
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained project that the test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "shop"))


@pytest.fixture(scope="session")
def mlflow_python() -> Path:
    """MLflow's interpreter, installed when it is missing."""
    return mlflow_environment()


@pytest.fixture(scope="session")
def mlflow2_python() -> Path:
    """The interpreter of the last MLflow 2, installed when it is missing."""
    return mlflow2_environment()


@pytest.fixture(scope="module")
def governed_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained project with a policy for models called governed."""
    folder = tmp_path_factory.mktemp("server") / "shop"
    noria("init", str(folder), cwd=folder.parent)
    config = folder / "noria.toml"
    governed = (
        '[policies."governed*".stages.Production]\nrequired_tags = ["reviewed"]\nrequired_metrics = ["auc >= 0.9"]\n'
    )
    config.write_text(config.read_text().replace('[policies."*"', governed + '\n[policies."hourly*"'))
    return folder


@pytest.fixture(scope="module")
def server(governed_project: Path) -> Iterator[str]:
    """A live `noria server` over the governed project; its URL."""
    child = Child("server", governed_project, 0)
    yield child.url
    child.stop()


@pytest.fixture(scope="module")
def production_server(
    governed_project: Path,
    tmp_path_factory: pytest.TempPathFactory,
    new_database_url: Callable[[str], str],
    s3_environment: dict[str, str],
) -> Iterator[str]:
    """A live `noria server` over the governed project's policies, on PostgreSQL and S3."""
    folder = tmp_path_factory.mktemp("production")
    shutil.copy(governed_project / "noria.toml", folder)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in s3_environment.items():
            environment.setenv(name, value)
        environment.setenv("NORIA_STORE__DATABASE", new_database_url("postgresql"))
        environment.setenv("NORIA_STORE__ARTIFACTS", f"s3://noria/{folder.name}")
        child = Child("server", folder, 0)
    yield child.url
    child.stop()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a private PostgreSQL server, started once a session and only when asked for."""
    with postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A private Redis server, started once a session and only when asked for."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What clients of a private S3 server with a bucket "noria" need in their environment."""
    with object_store(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture(scope="session")
def new_database_url(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes an empty database of the engine named, "sqlite" or "postgresql", and gives its URL."""

    def make(engine: str) -> str:
        if engine == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('database')}/noria.db"
        import psycopg

        server, name = request.getfixturevalue("postgresql_server"), f"noria_{new_id()}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{server}/{name}"

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, new_database_url: Callable[[str], str]) -> Iterator[Database]:
    """A new database of each engine, migrated."""
    database = Database(new_database_url(request.param))
    database.migrate()
    yield database
    database.close()
