"""What tracking keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from noria.ids import ExperimentId, RunId

ENDED = ("FINISHED", "FAILED", "KILLED")
"""The statuses of a run that has ended."""

FAILED = ("FAILED", "KILLED")
"""Those of one that ended badly."""


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


class Metric(msgspec.Struct, frozen=True, gc=False, rename={"timestamp_millis": "timestamp"}):
    """One measured value of a run at a step. There may be millions: a light struct, its time as UTC milliseconds.

    Encoded as it is, it is MLflow's document of a metric; only NaN, which JSON has no word for, is written otherwise.
    """

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
class RunState:
    """What of a run decides whether a version of it may pass: ``failed_as`` is how it ever ended badly, or empty."""

    status: str
    failed_as: str

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come of it."""
        return self.status in ENDED


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


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a person, a judge or a program says of a trace: ``kind`` is feedback, expectation or issue.

    ``content`` is what MLflow's protocol has under that kind: a value, an error, a serialized value.
    """

    assessment_id: str
    trace_id: str
    name: str
    kind: str
    content: Mapping[str, object]
    source: Mapping[str, object]
    span_id: str | None
    rationale: str | None
    metadata: Mapping[str, str]
    overrides: str | None
    valid: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Trace:
    """One request through an application, without its spans; ``duration_ms`` is missing while it goes on."""

    trace_id: str
    experiment_id: ExperimentId
    started_at: datetime
    duration_ms: int | None
    state: str
    client_request_id: str | None
    request_preview: str | None
    response_preview: str | None
    tags: Mapping[str, str]
    metadata: Mapping[str, str]
    assessments: Sequence[Assessment] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """One step of a trace; times in nanoseconds since 1970, ``document`` its JSON as OpenTelemetry's protobuf has it.

    ``resource`` holds what the sender says of itself.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    status: str
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, object]
    resource: Mapping[str, object]
    document: str
