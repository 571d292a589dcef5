"""Experiments and their runs: params, metrics over steps, tags, datasets, logged models.

The names here are the client's verbs, which are MLflow's: ``with noria.tracking.start_run(): ...`` works in a project's
folder with nothing else running, and over HTTP with a Noria or MLflow server. Importing them needs the standard library
alone.
"""

from noria.tracking.backend import Dataset, FileEntry, RegisteredVersion
from noria.tracking.client import (
    Runs,
    get_metric_history,
    get_run,
    list_artifacts,
    log_artifact,
    log_artifacts,
    log_dict,
    log_figure,
    log_input,
    log_metric,
    log_metrics,
    log_param,
    log_params,
    log_text,
    search_runs,
    set_tag,
    set_tags,
)
from noria.tracking.models import (
    LoggedModelInfo,
    download_artifacts,
    get_model_version,
    load_model,
    log_model,
    register_model,
    set_alias,
    set_version_tag,
    transition_stage,
)
from noria.tracking.session import (
    ActiveRun,
    active_run,
    end_run,
    get_tracking_uri,
    set_experiment,
    set_tracking_uri,
    start_run,
)
from noria.tracking.sweeps import SweepResult, sweep

__all__ = [
    "ActiveRun",
    "Dataset",
    "FileEntry",
    "LoggedModelInfo",
    "RegisteredVersion",
    "Runs",
    "SweepResult",
    "active_run",
    "download_artifacts",
    "end_run",
    "get_metric_history",
    "get_model_version",
    "get_run",
    "get_tracking_uri",
    "list_artifacts",
    "load_model",
    "log_artifact",
    "log_artifacts",
    "log_dict",
    "log_figure",
    "log_input",
    "log_metric",
    "log_metrics",
    "log_model",
    "log_param",
    "log_params",
    "log_text",
    "register_model",
    "search_runs",
    "set_alias",
    "set_experiment",
    "set_tag",
    "set_tags",
    "set_tracking_uri",
    "set_version_tag",
    "start_run",
    "sweep",
    "transition_stage",
]
