"""What both ends of a move look like, in Noria's own words, so that one comparison fits every pair of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from noria.registry import ModelVersion, RegisteredModel
from noria.registry.semantic import SEMANTIC_TAG
from noria.tracking.entities import Experiment, LoggedModel, Metric, Run

IMPORTED_FROM = "noria.imported_from"
"""Tag of everything an import made: where it came from."""

IMPORTED_AT = "noria.imported_at"
"""Tag of a run or logged model that has arrived whole."""

RUN_ID, MODEL_ID, VERSION = "noria.run_id", "noria.model_id", "noria.version"
"""Tags at the target of an export: what the run, logged model or version was in Noria."""

EXPORTED = "noria.exported"
"""Tag of a run or logged model that has arrived whole at the target of an export."""

BOOKKEEPING = frozenset(
    {IMPORTED_FROM, IMPORTED_AT, RUN_ID, MODEL_ID, VERSION, EXPORTED, SEMANTIC_TAG, "noria.exported_from"}
)
"""Tags of the move itself, which a comparison passes over."""


@dataclass(frozen=True, slots=True)
class File:
    """An artifact below a root; the path is relative to it."""

    path: str
    size_bytes: int


class Side(Protocol):
    """One end of a move. Every entity bears the ids and URIs that it has at this end."""

    name: str

    def experiments(self) -> Sequence[Experiment]:
        """All experiments, deleted ones too."""
        ...

    def runs(self, experiment: Experiment) -> Iterator[Run]:
        """All runs of an experiment, deleted ones too."""
        ...

    def history(self, run: Run) -> Sequence[Metric]:
        """Every value of every metric of a run."""
        ...

    def logged_models(self, experiment: Experiment) -> Sequence[LoggedModel]:
        """The logged models of an experiment."""
        ...

    def models(self) -> Sequence[RegisteredModel]:
        """All registered models."""
        ...

    def aliases(self, model: str) -> Mapping[str, int]:
        """Alias → version of a registered model."""
        ...

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """The versions of a registered model by number; ``source`` is where their files lie, as far as known."""
        ...

    def files(self, uri: str) -> Sequence[File]:
        """The files below ``uri``. Raises Unavailable, with the reason, when they cannot be reached from here."""
        ...

    def read(self, uri: str, path: str) -> bytes:
        """One of those files."""
        ...


def own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags without those of the move itself."""
    return {key: value for key, value in tags.items() if key not in BOOKKEEPING}
