"""Identifiers: distinct types for distinct things, and one source that makes them."""

from __future__ import annotations

import hashlib
import secrets
from typing import NewType

ExperimentId = NewType("ExperimentId", str)
RunId = NewType("RunId", str)
DatasetVersionId = NewType("DatasetVersionId", str)
PredictionId = NewType("PredictionId", str)


def new_id() -> str:
    """32 random lower-case hex characters, the shape MLflow clients expect of a run id."""
    return secrets.token_hex(16)


def derived_id(*parts: str) -> str:
    """32 hex characters that depend on ``parts`` alone, so that a repeated step names the same thing."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
