"""What a Feast repo imports besides the definitions: so that only the imports' first word has to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from noria.errors import InvalidConfig
from noria.features.definitions import FeatureView
from noria.features.sources import Source


class ConflictPolicy(Enum):
    """Which of several labelers' labels counts. Here it is always the last one written."""

    LAST_WRITE_WINS = "last_write_wins"
    LABELER_PRIORITY = "labeler_priority"
    MAJORITY_VOTE = "majority_vote"


def LabelView(
    *,
    name: str,
    source: Source,
    labeler_field: str = "labeler",
    conflict_policy: ConflictPolicy = ConflictPolicy.LAST_WRITE_WINS,
    reference_feature_view: str = "",
    **view: Any,
) -> FeatureView:
    """A feature view whose values people change: of each entity the last label written counts.

    Raises InvalidConfig for another way to settle conflicts.
    """
    if conflict_policy is not ConflictPolicy.LAST_WRITE_WINS:
        raise InvalidConfig(
            f"label view {name!r} settles conflicts by {conflict_policy.value}",
            remedy="Use ConflictPolicy.LAST_WRITE_WINS, or a view whose source has settled them.",
        )
    del labeler_field, reference_feature_view  # they say who wrote a label and what of; the rows say that themselves
    return FeatureView(name=name, source=source, **view)


@dataclass(frozen=True, slots=True)
class FileLoggingDestination:
    """Where Feast's server would log served features."""

    path: str
    s3_endpoint_override: str = ""
    partition_by: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """How Feast's server would log served features. Noria's gateway logs every vector it predicts from, by itself."""

    destination: FileLoggingDestination
    sample_rate: float = 1.0
