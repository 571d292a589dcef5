"""Batch prediction with what is registered or deployed, and with features as of each row's time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from noria.clock import Clock
from noria.config import ServerSettings
from noria.errors import InvalidInput, NotFound
from noria.features import FeatureStore, FeatureView, ViewSpec, join_as_of
from noria.features.repo import is_feast_repo
from noria.lifecycle.deploying import parse_address, version_of
from noria.lifecycle.looks import CHAMPION
from noria.lifecycle.served_forms import make_servable, variant_of
from noria.pipelines import load_project
from noria.pipelines.project import FEATURES_FILE
from noria.rollout import RouteTable, Variant, read_routes
from noria.rollout.deployments import published_routes
from noria.serving.batch import ModelFiles, Options, Progress, Summary, run_job
from noria.store.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class JoinAsOf:
    """Joins features of the project in ``folder`` to rows; travels to the processes that score them."""

    folder: Path

    def __call__(self, frame: pl.DataFrame, when: str, specs: Sequence[ViewSpec]) -> pl.DataFrame:
        """The rows with the specs' fields as they were known at the time in column ``when``. Raises InvalidData."""
        views = _views(self.folder, tuple(spec.name for spec in specs))
        wanted = [view[list(spec.fields)] for view, spec in zip(views, specs, strict=True)]
        return join_as_of(frame, wanted, event_time=when, folder=self.folder)


def predict_batch(
    folder: Path,
    settings: ServerSettings,
    workspace: Workspace,
    clock: Clock,
    options: Options,
    *,
    model: str = "",
    deployment: str = "",
    actor: str,
    progress: Callable[[str], None] = lambda _: None,
    told: Callable[[Progress], None] = lambda _: None,
) -> Summary:
    """Score with the version that ``model`` names, or the champion that ``deployment`` serves, as of now.

    Raises what ``run_job`` does, NotFound for what is not there, and what preparing a version raises.
    """
    if bool(model) == bool(deployment):
        raise InvalidInput("either a model or a deployment scores", remedy="Give --model or --deployment.")
    variant = variant_named(workspace, clock, model, actor, progress) if model else champion_of(workspace, deployment)
    store = settings.store
    files = ModelFiles(variant, store.artifacts, workspace.folder / "artifacts", workspace.folder / "cache/artifacts")
    join = JoinAsOf(folder) if options.wishes.as_of else None
    return run_job(files, options, workspace.online_url, join, told)


def champion_of(workspace: Workspace, deployment: str) -> Variant:
    """The version that stands first in a deployment. Raises NotFound."""
    table = _routes_of(workspace, deployment)
    if table is None:
        remedy = "`noria deploy list` shows what is." if workspace.has_database else "model/routes holds what is."
        raise NotFound(f"nothing is deployed as {deployment!r}", remedy=remedy)
    return table.answering[0]


def model_or_deployment(workspace: Workspace, name: str) -> dict[str, str]:
    """What a name means that may be a deployment's, a model's or a model's address."""
    return {"deployment": name} if _routes_of(workspace, name) is not None else {"model": name}


def _routes_of(workspace: Workspace, deployment: str) -> RouteTable | None:
    """What serves under that name: as the records say or, in a package, which has none, its route file."""
    if not workspace.has_database:
        path = workspace.route_file(deployment)
        return read_routes(path) if path.is_file() else None
    with workspace.database.read() as tx:
        return published_routes(tx, deployment)


def variant_named(
    workspace: Workspace, clock: Clock, model: str, actor: str, progress: Callable[[str], None]
) -> Variant:
    """The version that an address names now, prepared for serving. Raises NotFound and what preparing raises."""
    address = parse_address(model)
    with workspace.database.read() as tx:
        version = version_of(tx, address)
    make_servable(workspace, version, at=clock.now(), actor=actor, progress=progress)
    with workspace.database.read() as tx:
        return variant_of(tx, version, CHAMPION, 100)


@functools.lru_cache(maxsize=4)
def _views(folder: Path, names: tuple[str, ...]) -> Sequence[FeatureView]:
    """The views of those names: of the project's file, else of those applied to its feature store.

    Raises NotFound, and InvalidConfig for a folder that is no project.
    """
    known: dict[str, FeatureView] = {}
    if (folder / FEATURES_FILE).is_file() and not is_feast_repo(folder):
        known = {view.name: view for view in load_project(folder).views}
    if all(name in known for name in names):
        return [known[name] for name in names]
    store = FeatureStore(folder)
    return [known.get(name) or store.get_feature_view(name) for name in names]
