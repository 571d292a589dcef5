"""The one table from error codes to HTTP statuses, MLflow error codes and exit codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from noria.errors import NoriaError


class Outside(NamedTuple):
    """How an error code looks from outside: HTTP status, MLflow's error code, process exit code."""

    status: int
    mlflow: str
    exit_code: int


_INTERNAL = Outside(500, "INTERNAL_ERROR", 1)

OUTSIDE: Mapping[str, Outside] = {
    "internal": _INTERNAL,
    "invalid_input": Outside(400, "INVALID_PARAMETER_VALUE", 2),
    "invalid_config": Outside(400, "INVALID_PARAMETER_VALUE", 2),
    "invalid_data": Outside(422, "INVALID_PARAMETER_VALUE", 1),
    "not_found": Outside(404, "RESOURCE_DOES_NOT_EXIST", 1),
    "already_exists": Outside(400, "RESOURCE_ALREADY_EXISTS", 1),
    "conflict": Outside(400, "INVALID_PARAMETER_VALUE", 1),
    "policy_refused": Outside(403, "PERMISSION_DENIED", 3),
    "protected": Outside(403, "PERMISSION_DENIED", 3),
    "unauthenticated": Outside(401, "UNAUTHENTICATED", 4),
    "forbidden": Outside(403, "PERMISSION_DENIED", 4),
    "corrupt_artifact": Outside(500, "DATA_LOSS", 1),
    "broken_chain": Outside(500, "DATA_LOSS", 1),
    "unavailable": Outside(503, "TEMPORARILY_UNAVAILABLE", 1),
    "overloaded": Outside(429, "REQUEST_LIMIT_EXCEEDED", 1),
    "deadline_exceeded": Outside(504, "TEMPORARILY_UNAVAILABLE", 1),
    "missing_extra": Outside(501, "NOT_IMPLEMENTED", 1),
    "not_served": Outside(501, "NOT_IMPLEMENTED", 1),
    "no_endpoint": Outside(404, "ENDPOINT_NOT_FOUND", 1),
    "parity_broken": Outside(422, "INVALID_PARAMETER_VALUE", 1),
}


def outside(error: NoriaError) -> Outside:
    """How ``error`` looks from outside."""
    return OUTSIDE.get(error.code, _INTERNAL)


def problem(error: NoriaError, status: int | None = None) -> dict[str, object]:
    """The RFC 9457 problem document of ``error``."""
    document: dict[str, object] = {
        "type": f"urn:noria:error:{error.code}",
        "title": error.code.replace("_", " "),
        "status": status or outside(error).status,
        "detail": error.message,
    }
    if error.remedy:
        document["remedy"] = error.remedy
    if error.details:
        document["errors"] = list(error.details)
    return document
