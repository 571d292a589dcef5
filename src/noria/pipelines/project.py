"""A user's project: noria.toml, features.py and train.py, loaded and checked."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from noria.config import CONFIG_FILE, Settings, load_settings
from noria.data.observations import Observations
from noria.errors import InvalidConfig, NoriaError
from noria.features import FeatureView, FrameSource
from noria.registry import Policies
from noria.tracking.source import git_commit

FEATURES_FILE = "features.py"
TRAIN_FILE = "train.py"

Estimator = Callable[[Mapping[str, Any], int], Any]
SearchSpace = Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True)
class Project:
    """What a user wrote, ready to run.

    ``estimator(params, seed)`` gives an unfitted estimator with scikit-learn's interface; ``search_space(trial)``
    draws params from an Optuna trial.
    """

    folder: Path
    settings: Settings
    observations: Observations
    views: Sequence[FeatureView]
    estimator: Estimator
    search_space: SearchSpace
    policies: Policies

    @property
    def inputs(self) -> tuple[str, ...]:
        """The model's input columns in order: the request's, then the views'."""
        looked_up = (name for view in self.views for name in view.feature_names)
        return (*self.observations.request_columns, *looked_up)

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
    features = _import(folder / FEATURES_FILE, "noria_project_features")
    train = _import(folder / TRAIN_FILE, "noria_project_train")
    observations = _get(features, FEATURES_FILE, "observations", Observations)
    views = _get(features, FEATURES_FILE, "views", (list, tuple))
    if bad := [view for view in views if not isinstance(view, FeatureView)]:
        raise InvalidConfig(f"`views` in {FEATURES_FILE} holds {bad[0]!r}", remedy="List FeatureView objects only.")
    return Project(
        folder=folder,
        settings=settings,
        observations=replace(observations, source=_remembered(observations.source, folder)),
        views=tuple(_prepared(view, folder) for view in views),
        estimator=_get(train, TRAIN_FILE, "estimator", Callable),
        search_space=getattr(train, "search_space", lambda _trial: {}),
        policies=Policies.from_settings(settings.policies, accounts=settings.access.enabled),
    )


def _prepared(view: FeatureView, folder: Path) -> FeatureView:
    """The view as a model can take it. Raises InvalidConfig for features that are no numbers."""
    if not view.features or not all(one.dtype.is_numeric for one in view.features):
        given = ", ".join(f"{one.name} ({one.dtype})" for one in view.features) or "none"
        raise InvalidConfig(
            f"a model takes numbers, and the features of view {view.name!r} are: {given}",
            remedy="List them in its schema as Field(name=..., dtype=Float64).",
        )
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
        raise InvalidConfig(f"{file} must define `{name}`, {expected}", remedy="See docs/how-to/your-own-table.md.")
    return value
