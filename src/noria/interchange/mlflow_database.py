"""The database of an MLflow server, read as it lies there: nothing is written, the server may be down or gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, MetaData, Row, Table, create_engine, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from noria.clock import from_millis
from noria.errors import InvalidInput, MissingExtra, NotFound, Unavailable
from noria.ids import ExperimentId, RunId
from noria.interchange.artifacts import MlflowArtifacts
from noria.interchange.side import File
from noria.registry import ModelVersion, RegisteredModel, Signature
from noria.registry.stages import parse_stage
from noria.tracking.entities import Experiment, LoggedModel, Metric, Run

_PAGE = 500
_TABLES = frozenset(
    """
    experiments experiment_tags runs params tags metrics latest_metrics datasets inputs input_tags
    logged_models logged_model_params logged_model_tags
    registered_models registered_model_tags registered_model_aliases model_versions model_version_tags
    """.split()  # noqa: SIM905 - a list of names reads better one row per subject
)
_STATUSES = {1: "LOGGED_MODEL_PENDING", 2: "LOGGED_MODEL_READY", 3: "LOGGED_MODEL_UPLOAD_FAILED"}
_DATASET_FIELDS = {
    "name": "name",
    "digest": "digest",
    "source_type": "dataset_source_type",
    "source": "dataset_source",
    "schema": "dataset_schema",
    "profile": "dataset_profile",
}

Rows = Sequence[Row[Any]]


class MlflowDatabase:
    """One end of a move. Tables that an older MLflow does not have count as empty."""

    def __init__(self, url: str, *, artifacts: Path | None = None) -> None:
        address = _parse(url)
        self.name = address.render_as_string(hide_password=True)
        self.artifacts = MlflowArtifacts(folder=artifacts)
        self._engine = _open(address)
        self._tables = self._reflect()

    def experiments(self) -> Sequence[Experiment]:
        """All experiments, oldest first."""
        tags = self._tags("experiment_tags", "experiment_id")
        return [
            Experiment(
                ExperimentId(str(row.experiment_id)),
                row.name,
                row.artifact_location or "",
                row.lifecycle_stage,
                tags.get(row.experiment_id, {}),
                from_millis(getattr(row, "creation_time", None) or 0),
                from_millis(getattr(row, "last_update_time", None) or 0),
            )
            for row in sorted(self._of_workspace("experiments"), key=lambda row: int(row.experiment_id))
        ]

    def runs(self, experiment: Experiment) -> Iterator[Run]:
        """All runs of the experiment, oldest first."""
        table = self._tables["runs"]
        query = select(table).where(table.c.experiment_id == int(experiment.experiment_id))
        rows = self._all(query.order_by(table.c.start_time, table.c.run_uuid))
        for start in range(0, len(rows), _PAGE):
            yield from self._load(rows[start : start + _PAGE])

    def history(self, run: Run) -> Sequence[Metric]:
        """Every value of every metric, key by key."""
        table = self._tables["metrics"].c
        query = select(table.key, table.value, table.timestamp, table.step, table.is_nan).where(
            table.run_uuid == run.run_id
        )
        rows = self._all(query.order_by(table.key, table.step, table.timestamp))
        return [_metric(row) for row in rows]

    def logged_models(self, experiment: Experiment) -> Sequence[LoggedModel]:
        """The logged models of the experiment that were not deleted."""
        rows = self._rows("logged_models", experiment_id=int(experiment.experiment_id), lifecycle_stage="active")
        params = self._grouped("logged_model_params", "model_id", [row.model_id for row in rows], key="param")
        tags = self._grouped("logged_model_tags", "model_id", [row.model_id for row in rows], key="tag")
        return [
            LoggedModel(
                row.model_id,
                experiment.experiment_id,
                row.name,
                RunId(row.source_run_id) if row.source_run_id else None,
                row.artifact_location,
                _STATUSES.get(row.status, "LOGGED_MODEL_READY"),
                row.model_type or "",
                params.get(row.model_id, {}),
                tags.get(row.model_id, {}),
                from_millis(row.creation_timestamp_ms),
                from_millis(row.last_updated_timestamp_ms),
            )
            for row in rows
        ]

    def models(self) -> Sequence[RegisteredModel]:
        """All registered models and prompts by name."""
        tags = self._tags("registered_model_tags", "name")
        return [
            RegisteredModel(
                row.name,
                row.description or "",
                tags.get(row.name, {}),
                from_millis(row.creation_time or 0),
                from_millis(row.last_updated_time or row.creation_time or 0),
            )
            for row in sorted(self._of_workspace("registered_models"), key=lambda row: str(row.name))
        ]

    def aliases(self, model: str) -> Mapping[str, int]:
        """Alias → version."""
        return {row.alias: int(row.version) for row in self._of_workspace("registered_model_aliases", name=model)}

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """The versions by number."""
        tags: dict[int, dict[str, str]] = {}
        for row in self._of_workspace("model_version_tags", name=model):
            tags.setdefault(row.version, {})[row.key] = row.value or ""
        rows = [r for r in self._of_workspace("model_versions", name=model) if r.current_stage != "Deleted_Internal"]
        return sorted((self._version(row, tags.get(row.version, {})) for row in rows), key=lambda found: found.version)

    def files(self, uri: str) -> Sequence[File]:
        """The files below ``uri``. Raises Unavailable when they cannot be reached from here."""
        return self.artifacts.files(uri)

    def read(self, uri: str, path: str) -> bytes:
        """One file below ``uri``."""
        return self.artifacts.read(uri, path)

    def _load(self, rows: Rows) -> Iterator[Run]:
        ids = [row.run_uuid for row in rows]
        params, tags = self._grouped("params", "run_uuid", ids), self._grouped("tags", "run_uuid", ids)
        latest = self._latest(ids)
        datasets, outputs = self._datasets(ids), self._outputs(ids)
        for row in rows:
            own = tags.get(row.run_uuid, {})
            yield Run(
                RunId(row.run_uuid),
                ExperimentId(str(row.experiment_id)),
                row.name or own.get("mlflow.runName", ""),
                row.user_id or "",
                row.status,
                row.lifecycle_stage,
                from_millis(row.start_time or 0),
                from_millis(row.end_time) if row.end_time else None,
                row.artifact_uri or "",
                params.get(row.run_uuid, {}),
                own,
                latest.get(row.run_uuid, {}),
                datasets.get(row.run_uuid, []),
                outputs.get(row.run_uuid, []),
            )

    def _latest(self, ids: Sequence[str]) -> dict[str, dict[str, Metric]]:
        found: dict[str, dict[str, Metric]] = {}
        for row in self._rows("latest_metrics", run_uuid=ids):
            found.setdefault(row.run_uuid, {})[row.key] = _metric(row)
        return found

    def _datasets(self, ids: Sequence[str]) -> dict[str, list[Mapping[str, object]]]:
        links = self._rows("inputs", destination_type="RUN", source_type="DATASET", destination_id=ids)
        datasets = {row.dataset_uuid: row for row in self._rows("datasets", dataset_uuid=[i.source_id for i in links])}
        tags: dict[str, list[Mapping[str, str]]] = {}
        for row in self._rows("input_tags", input_uuid=[link.input_uuid for link in links]):
            tags.setdefault(row.input_uuid, []).append({"key": row.name, "value": row.value})
        found: dict[str, list[Mapping[str, object]]] = {}
        for link in links:
            row = datasets[link.source_id]
            dataset = {field: getattr(row, column) for field, column in _DATASET_FIELDS.items()}
            entry = {"name": row.name, "digest": row.digest, "tags": tags.get(link.input_uuid, [])}
            kept = {field: value for field, value in dataset.items() if value is not None}
            found.setdefault(link.destination_id, []).append({**entry, "dataset": kept})
        return found

    def _outputs(self, ids: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
        found: dict[str, list[tuple[str, int]]] = {}
        for row in self._rows("inputs", source_type="RUN_OUTPUT", destination_type="MODEL_OUTPUT", source_id=ids):
            found.setdefault(row.source_id, []).append((row.destination_id, row.step or 0))
        return found

    def _version(self, row: Row[Any], tags: Mapping[str, str]) -> ModelVersion:
        version = ModelVersion(
            model=row.name,
            version=int(row.version),
            semantic_version="",
            stage=parse_stage(row.current_stage or "None"),
            status=row.status or "READY",
            source=getattr(row, "storage_location", None) or row.source or "",
            run_id=row.run_id or None,
            logged_model_id=None,
            dataset_version_id=None,
            digest="",
            signature=Signature(),
            algorithm="",
            metrics={},
            tags=tags,
            description=row.description or "",
            created_by=row.user_id or "",
            created_at=from_millis(row.creation_time or 0),
            updated_at=from_millis(row.last_updated_time or row.creation_time or 0),
        )
        place = self._place(version.source)
        named = row.source or ""
        return version if place == named else replace(version, source=place, named_source=named)

    def _place(self, source: str) -> str:
        """Where the files lie when the source names a logged model or a run."""
        if source.startswith("models:/m-"):
            known = self._rows("logged_models", model_id=[source.removeprefix("models:/")])
            return str(known[0].artifact_location) if known else source
        if source.startswith("runs:/"):
            run_id, _, path = source.removeprefix("runs:/").partition("/")
            known = self._rows("runs", run_uuid=[run_id])
            return f"{known[0].artifact_uri}/{path}" if known else source
        return source

    def _tags(self, table: str, owner: str) -> dict[Any, dict[str, str]]:
        found: dict[Any, dict[str, str]] = {}
        for row in self._of_workspace(table):
            found.setdefault(getattr(row, owner), {})[row.key] = row.value or ""
        return found

    def _grouped(self, table: str, owner: str, ids: Sequence[str], *, key: str = "") -> dict[str, dict[str, str]]:
        name, value = (f"{key}_key", f"{key}_value") if key else ("key", "value")
        found: dict[str, dict[str, str]] = {}
        for row in self._rows(table, **{owner: ids}):
            found.setdefault(getattr(row, owner), {})[getattr(row, name)] = getattr(row, value) or ""
        return found

    def _of_workspace(self, table: str, **conditions: object) -> Rows:
        """The rows of MLflow's default workspace; before 3.10 there was but one."""
        known = self._tables.get(table)
        if known is not None and "workspace" in known.c:
            conditions["workspace"] = "default"
        return self._rows(table, **conditions)

    def _rows(self, table: str, **conditions: object) -> Rows:
        """The rows whose columns have the given values, or one of them where a list is given."""
        known = self._tables.get(table)
        if known is None:
            return []
        several = {column: value for column, value in conditions.items() if isinstance(value, list)}
        where = [known.c[column] == value for column, value in conditions.items() if column not in several]
        query = select(known).where(*where)
        for column, values in several.items():
            parts = (values[start : start + _PAGE] for start in range(0, len(values), _PAGE))
            return [row for part in parts for row in self._all(query.where(known.c[column].in_(part)))]
        return self._all(query)

    def _all(self, query: Any) -> Rows:
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).all()
        except SQLAlchemyError as error:
            raise _unreadable(self.name, error) from None

    def _reflect(self) -> Mapping[str, Table]:
        metadata = MetaData()
        try:
            there = set(inspect(self._engine).get_table_names())
            if not {"experiments", "runs", "metrics"} <= there:
                raise InvalidInput(
                    f"{self.name} is no database of MLflow: it has no tables experiments, runs and metrics",
                    remedy="Name the server's --backend-store-uri.",
                )
            metadata.reflect(self._engine, only=sorted(_TABLES & there), resolve_fks=False)
        except SQLAlchemyError as error:
            raise _unreadable(self.name, error) from None
        return metadata.tables


def _metric(row: Row[Any]) -> Metric:
    return Metric(row.key, float("nan") if row.is_nan else row.value, row.timestamp, row.step)


def _parse(url: str) -> URL:
    """The address without the driver that MLflow's server uses: here it is read by another. Raises InvalidInput."""
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidInput(
            f"an address that begins with {url.partition('://')[0]}:// is no address of a database",
            remedy="Write it like postgresql://user:password@host:5432/name, with special characters percent-encoded.",
        ) from None
    return address.set(drivername=address.get_backend_name())


def _open(address: URL) -> Engine:
    """An engine that cannot write."""
    if address.get_backend_name() == "sqlite":
        file = Path(address.database or "")
        if not file.is_file():
            raise NotFound(f"there is no database {file}", remedy="Write it like sqlite:////folder/mlflow.db.")
        return create_engine(f"sqlite:///file:{file.resolve()}?mode=ro&uri=true")
    try:
        return create_engine(
            address.set(drivername="postgresql+psycopg"), execution_options={"postgresql_readonly": True}
        )
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"reading PostgreSQL needs the package {error.name}", remedy="Install it: pip install 'noria[postgres]'."
        ) from None


def _unreadable(name: str, error: SQLAlchemyError) -> Unavailable:
    cause = getattr(error, "orig", None) or error
    return Unavailable(f"{name} cannot be read: {cause}", remedy="Check the address, the credentials and the file.")
