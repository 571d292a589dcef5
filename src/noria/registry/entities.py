"""What the registry keeps: models, versions, stages, signatures, approvals and moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Stage(StrEnum):
    """The governed state of a version."""

    NONE = "None"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives: inputs in order with their kinds, the ones that must be given, and its output."""

    inputs: Sequence[tuple[str, str]] = ()
    output: str = ""
    required: Sequence[str] = ()

    @property
    def is_known(self) -> bool:
        """Whether it says anything."""
        return bool(self.inputs or self.output)

    def as_document(self) -> dict[str, object]:
        """The JSON shape stored with the version."""
        document: dict[str, object] = {"inputs": [list(column) for column in self.inputs], "output": self.output}
        return {**document, "required": list(self.required)} if self.required else document

    @classmethod
    def from_document(cls, document: Mapping[str, object]) -> Signature:
        """The signature ``as_document`` wrote."""
        inputs, required = document.get("inputs", []), document.get("required", [])
        assert isinstance(inputs, list) and isinstance(required, list)
        columns = tuple((str(name), str(kind)) for name, kind in inputs)
        return cls(columns, str(document.get("output", "")), tuple(map(str, required)))


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A named line of versions."""

    name: str
    description: str
    tags: Mapping[str, str]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewVersion:
    """All that must be known to register a version.

    ``source`` is the address of the folder, ``named_source`` what a client called it when that was another, ``digest``
    the hash of that folder; ``external`` says that it lies outside of the run's artifacts. ``run_link`` is the page of
    a run on another server; ``idempotency_key`` makes a repeated registration return the version made the first time.
    """

    model: str
    source: str
    run_id: str | None = None
    logged_model_id: str | None = None
    dataset_version_id: str | None = None
    digest: str = ""
    signature: Signature = field(default_factory=Signature)
    algorithm: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    run_link: str = ""
    named_source: str = ""
    external: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One registered version of a model."""

    model: str
    version: int
    semantic_version: str
    stage: Stage
    status: str
    source: str
    run_id: str | None
    logged_model_id: str | None
    dataset_version_id: str | None
    digest: str
    signature: Signature
    algorithm: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    description: str
    created_by: str
    created_at: datetime
    updated_at: datetime
    run_link: str = ""
    named_source: str = ""

    @property
    def label(self) -> str:
        """``name@version``, as people write it."""
        return f"{self.model}@{self.version}"

    @property
    def named(self) -> dict[str, object]:
        """The version, as events name it."""
        return {"name": self.model, "version": str(self.version)}


@dataclass(frozen=True, slots=True)
class Approval:
    """One actor's consent that a version may enter a stage once, and the roles it held on the model when it gave it.

    ``spent_at`` is when the version entered: from then on it counts no more.
    """

    actor: str
    stage: Stage
    reason: str
    approved_at: datetime
    roles: Sequence[str] = ()
    spent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """One move of a version between stages."""

    model: str
    version: int
    from_stage: Stage
    to_stage: Stage
    actor: str
    reason: str
    moved_at: datetime
