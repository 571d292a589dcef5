"""A user's project: noria.toml, features.py and train.py, loaded and checked."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from noria.config import Settings, load_settings
from noria.data.observations import Observations
from noria.errors import InvalidConfig, NoriaError
from noria.features import FeatureService, FeatureView, Field, FrameSource, OnDemandFeatureView
from noria.features.catalog import Definitions
from noria.features.completion import completed_view
from noria.features.definitions import content_hash
from noria.features.project_code import importing_from
from noria.features.selection import Plan, plan
from noria.features.types import FeatureType
from noria.project_files import CONFIG_FILE
from noria.registry import Policies
from noria.tracking.source import git_commit

FEATURES_FILE = "features.py"
TRAIN_FILE = "train.py"
_SENT_AS_TEXTS = ("String", "UnixTimestamp", "Json")

Estimator = Callable[[Mapping[str, Any], int], Any]
SearchSpace = Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True)
class Project:
    """What a user wrote, ready to run.

    ``taken`` are the views whose features the model takes, ``sources`` the stored ones by name, also those that
    on-demand ones are computed from.
    ``estimator(params, seed)`` gives an unfitted estimator with scikit-learn's interface; ``search_space(trial)``
    draws params from an Optuna trial.
    """

    folder: Path
    settings: Settings
    observations: Observations
    taken: Sequence[FeatureView | OnDemandFeatureView]
    sources: Mapping[str, FeatureView]
    estimator: Estimator
    search_space: SearchSpace
    policies: Policies

    @property
    def inputs(self) -> tuple[str, ...]:
        """The model's input columns in order: the request's, the stored features, those computed from both."""
        stored = [name for view in self.taken if isinstance(view, FeatureView) for name in view.feature_names]
        computed = [f"{view.name}__{field}" for view in self.computed for field in view.fields]
        return (*self.request_columns, *stored, *computed)

    @property
    def computed(self) -> tuple[OnDemandFeatureView, ...]:
        """The on-demand views the model takes."""
        return tuple(view for view in self.taken if isinstance(view, OnDemandFeatureView))

    @property
    def request_columns(self) -> tuple[str, ...]:
        """The columns that are sent with a request and that the model takes."""
        asked = (one.name for one in self._requested if one.dtype.is_numeric)
        return tuple(dict.fromkeys([*self.observations.request_columns, *asked]))

    @property
    def sent_beside(self) -> Mapping[str, FeatureType]:
        """The columns that are sent with a request only for features to be computed from."""
        return {one.name: one.dtype for one in self._requested if not one.dtype.is_numeric}

    @property
    def _requested(self) -> Sequence[Field]:
        return [one for view in self.computed for one in view.requested]

    @cached_property
    def definitions(self) -> Definitions:
        """All views, made whole: what nobody declared is read off their sources. Raises InvalidData."""
        views = {name: completed_view(view, self.folder) for name, view in self.sources.items()}
        return Definitions(views=views, on_demand={view.name: view for view in self.computed})

    @property
    def views(self) -> tuple[FeatureView, ...]:
        """All stored views: those the model takes, then those that on-demand ones take."""
        return tuple(self.definitions.views.values())

    def definition_hashes(self) -> dict[str, str]:
        """View → the hash of its definition, of all that the model stands on."""
        stored = {view.name: view.definition for view in self.views}
        return stored | {view.name: content_hash(view) for view in self.computed}

    @cached_property
    def plan(self) -> Plan:
        """What is looked up and what is computed for the model."""
        taken = FeatureService(name=self.settings.model.name, features=self.taken)
        return plan(taken, self.definitions, full_feature_names=True)

    @property
    def deployment(self) -> str:
        """The name of the project's deployment."""
        return self.settings.project.name

    def code_tags(self) -> dict[str, str]:
        """Which code this is: hash of the three files, and the Git commit when there is one."""
        digest = hashlib.sha256()
        for name in (CONFIG_FILE, FEATURES_FILE, TRAIN_FILE):
            digest.update((self.folder / name).read_bytes())
        tags = {"noria.code_digest": digest.hexdigest()}
        commit = git_commit(self.folder)
        return tags if commit is None else tags | {"mlflow.source.git.commit": commit}


def load_project(folder: Path) -> Project:
    """Read the three files of ``folder``. Raises InvalidConfig naming file and line of what is wrong."""
    folder = folder.resolve()
    settings = load_settings(folder)
    with importing_from(folder):
        features = _import(folder / FEATURES_FILE, "noria_project_features")
        train = _import(folder / TRAIN_FILE, "noria_project_train")
    observations = _get(features, FEATURES_FILE, "observations", Observations)
    taken = _get(features, FEATURES_FILE, "views", (list, tuple))
    for view in taken:
        _check_taken(view)
    _check_requested(taken, observations)
    return Project(
        folder=folder,
        settings=settings,
        observations=replace(observations, source=_remembered(observations.source, folder)),
        taken=tuple(taken),
        sources={view.name: _prepared(view, folder) for view in _stored(taken)},
        estimator=_telling(_get(train, TRAIN_FILE, "estimator", Callable), folder),
        search_space=_telling(getattr(train, "search_space", lambda _trial: {}), folder),
        policies=Policies.from_settings(settings.policies, accounts=settings.access.enabled),
    )


def _stored(taken: Sequence[FeatureView | OnDemandFeatureView]) -> Iterator[FeatureView]:
    """The stored views, those that the model takes first; on-demand ones bring those they are computed from."""
    yield from (view for view in taken if isinstance(view, FeatureView))
    given = {view.name for view in taken if isinstance(view, FeatureView)}
    for view in taken:
        if isinstance(view, OnDemandFeatureView):
            yield from (one.view for one in view.projections if one.view.name not in given)


def _check_taken(view: object) -> None:
    """Raises InvalidConfig for what is no view, and for features that are no numbers."""
    if not isinstance(view, FeatureView | OnDemandFeatureView):
        raise InvalidConfig(
            f"`views` in {FEATURES_FILE} holds {view!r}", remedy="List FeatureView objects, and on-demand ones."
        )
    if not view.features or not all(one.dtype.is_numeric for one in view.features):
        given = ", ".join(f"{one.name} ({one.dtype})" for one in view.features) or "none"
        raise InvalidConfig(
            f"a model takes numbers, and the features of view {view.name!r} are: {given}",
            remedy="List them in its schema as Field(name=..., dtype=Float64).",
        )


def _check_requested(taken: Sequence[FeatureView | OnDemandFeatureView], observations: Observations) -> None:
    """Raises InvalidConfig for a value of a request that the table to learn from does not have."""
    known = {column.name for column in observations.columns}
    for view in taken:
        for one in view.requested if isinstance(view, OnDemandFeatureView) else ():
            if one.name not in known:
                raise InvalidConfig(
                    f"on-demand feature view {view.name!r} takes {one.name!r} from the request, and observations "
                    f"{observations.name!r} have no such column",
                    remedy=f"Add Column({one.name!r}, ...) to them: what a request brings is learned from, too.",
                )
            if not one.dtype.is_numeric and one.dtype.name not in _SENT_AS_TEXTS:
                raise InvalidConfig(
                    f"on-demand feature view {view.name!r} takes {one.name!r} as {one.dtype} from the request",
                    remedy=f"A request brings numbers, and texts as {', '.join(_SENT_AS_TEXTS)}.",
                )


def _prepared(view: FeatureView, folder: Path) -> FeatureView:
    if not isinstance(view.source, FrameSource):
        return view
    return replace(view, source=replace(view.source, function=_remembered(view.source.function, folder)))


def _remembered(source: Callable[[], Any], folder: Path) -> Callable[[], Any]:
    """The same source, called once and user mistakes in it told by file and line."""

    @functools.cache
    @functools.wraps(source)
    def remembered() -> Any:
        try:
            return source()
        except NoriaError:
            raise
        except Exception as error:
            raise _user_error(error, folder / FEATURES_FILE) from error

    return remembered


def _telling(function: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """The same function of train.py, a mistake in it told by file and line; Optuna's TrialPruned is none."""

    @functools.wraps(function)
    def telling(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except NoriaError:
            raise
        except Exception as error:
            from optuna import TrialPruned

            if isinstance(error, TrialPruned):
                raise
            raise _user_error(error, folder / TRAIN_FILE) from error

    return telling


def _import(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise InvalidConfig(f"{path.name} is missing in {path.parent}", remedy="`noria init` writes one to start from.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except NoriaError:
        raise
    except Exception as error:
        raise _user_error(error, path) from error
    return module


def _user_error(error: Exception, path: Path) -> InvalidConfig:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)
    where = path.name if line is None else f"{path.name}, line {line}"
    return InvalidConfig(f"{where}: {type(error).__name__}: {error}", remedy=f"Mend {path}.")


def _get(module: ModuleType, file: str, name: str, kind: Any) -> Any:
    value = getattr(module, name, None)
    if not isinstance(value, kind):
        expected = "a function" if kind is Callable else getattr(kind, "__name__", "a list")
        raise InvalidConfig(
            f"{file} must define `{name}`, {expected}",
            remedy=f"Write it at the top level of {file}; `noria init` makes a project that has it.",
        )
    return value
