"""What tracking keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from noria.ids import ExperimentId, RunId


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named group of runs."""

    experiment_id: ExperimentId
    name: str
    artifact_location: str
    lifecycle_stage: str
    tags: Mapping[str, str]
    created_at: datetime
    updated_at: datetime


class Metric(msgspec.Struct, frozen=True, gc=False):
    """One measured value of a run at a step. There may be millions: a light struct, its time as UTC milliseconds."""

    key: str
    value: float
    timestamp_millis: int
    step: int


class ModelMetric(msgspec.Struct, frozen=True, gc=False):
    """One measured value of a logged model, by a run and, where it said so, on a dataset."""

    model_id: str
    run_id: str
    metric: Metric
    dataset_name: str = ""
    dataset_digest: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution: ``metrics`` holds the newest value of each key."""

    run_id: RunId
    experiment_id: ExperimentId
    name: str
    user: str
    status: str
    lifecycle_stage: str
    started_at: datetime
    ended_at: datetime | None
    artifact_uri: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, Metric]
    datasets: Sequence[Mapping[str, object]]
    model_outputs: Sequence[tuple[str, int]]
    model_inputs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model saved by a client, before it is registered."""

    model_id: str
    experiment_id: ExperimentId
    name: str
    source_run_id: RunId | None
    artifact_uri: str
    status: str
    model_type: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    metrics: Sequence[ModelMetric] = ()
