"""Run a check against both servers: what each was seen to do, and whether they agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from conformance import (
    checks_artifacts,
    checks_logged_models,
    checks_registry,
    checks_search,
    checks_traces,
    checks_tracking,
)
from conformance.api import CHECKS, Api, Check
from conformance.differences import DIFFERENCES

AREAS = [
    module.__name__.rpartition("checks_")[2]
    for module in (
        checks_tracking,
        checks_search,
        checks_artifacts,
        checks_registry,
        checks_logged_models,
        checks_traces,
    )
]


@dataclass(frozen=True)
class Comparison:
    """What MLflow and Noria did when asked the same."""

    check: Check
    mlflow: Any
    noria: Any

    @property
    def agreed(self) -> bool:
        """Whether both were seen to do the same."""
        return bool(self.mlflow == self.noria)

    @property
    def reason(self) -> str:
        """Why Noria differs on purpose; empty for the checks that must agree."""
        return DIFFERENCES.get(self.check.name, "")

    @property
    def as_said(self) -> bool:
        """Whether they agree, or differ where a difference is on record."""
        return self.agreed != bool(self.reason)


def compare(check: Check, reference: httpx.Client, own: httpx.Client) -> Comparison:
    """Do the check against both."""
    return Comparison(check, *(_observe(check, client) for client in (reference, own)))


def checks() -> list[Check]:
    """Every check."""
    return list(CHECKS.values())


def _observe(check: Check, client: httpx.Client) -> Any:
    api = Api(client, check.name)
    return api.observe(check.do(api))
