"""Identifiers: distinct types for distinct things, one source that makes them, and who this process is."""

from __future__ import annotations

import getpass
import hashlib
import secrets
from typing import NewType

ExperimentId = NewType("ExperimentId", str)
RunId = NewType("RunId", str)
DatasetVersionId = NewType("DatasetVersionId", str)
PredictionId = NewType("PredictionId", str)


def process_user() -> str:
    """The operating system's user that runs this process; "unknown" where it has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def new_id() -> str:
    """32 random lower-case hex characters, the shape MLflow clients expect of a run id."""
    return secrets.token_hex(16)


def derived_id(*parts: str) -> str:
    """32 hex characters that depend on ``parts`` alone, so that a repeated step names the same thing."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
