"""The one table from error codes to HTTP statuses, MLflow error codes, exit codes and gRPC statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from noria.errors import NoriaError


class Outside(NamedTuple):
    """How an error code looks from outside: HTTP status, MLflow's error code, process exit code, gRPC status."""

    status: int
    mlflow: str
    exit_code: int
    grpc: str


_INTERNAL = Outside(500, "INTERNAL_ERROR", 1, "INTERNAL")

OUTSIDE: Mapping[str, Outside] = {
    "internal": _INTERNAL,
    "invalid_input": Outside(400, "INVALID_PARAMETER_VALUE", 2, "INVALID_ARGUMENT"),
    "invalid_config": Outside(400, "INVALID_PARAMETER_VALUE", 2, "INVALID_ARGUMENT"),
    "invalid_data": Outside(422, "INVALID_PARAMETER_VALUE", 1, "INVALID_ARGUMENT"),
    "not_found": Outside(404, "RESOURCE_DOES_NOT_EXIST", 1, "NOT_FOUND"),
    "already_exists": Outside(400, "RESOURCE_ALREADY_EXISTS", 1, "ALREADY_EXISTS"),
    "conflict": Outside(400, "INVALID_PARAMETER_VALUE", 1, "FAILED_PRECONDITION"),
    "policy_refused": Outside(403, "PERMISSION_DENIED", 3, "PERMISSION_DENIED"),
    "protected": Outside(403, "PERMISSION_DENIED", 3, "PERMISSION_DENIED"),
    "unauthenticated": Outside(401, "UNAUTHENTICATED", 4, "UNAUTHENTICATED"),
    "forbidden": Outside(403, "PERMISSION_DENIED", 4, "PERMISSION_DENIED"),
    "corrupt_artifact": Outside(500, "DATA_LOSS", 1, "DATA_LOSS"),
    "broken_chain": Outside(500, "DATA_LOSS", 1, "DATA_LOSS"),
    "unavailable": Outside(503, "TEMPORARILY_UNAVAILABLE", 1, "UNAVAILABLE"),
    "overloaded": Outside(429, "REQUEST_LIMIT_EXCEEDED", 1, "RESOURCE_EXHAUSTED"),
    "deadline_exceeded": Outside(504, "TEMPORARILY_UNAVAILABLE", 1, "DEADLINE_EXCEEDED"),
    "parts_failed": Outside(500, "INTERNAL_ERROR", 1, "INTERNAL"),
    "missing_extra": Outside(501, "NOT_IMPLEMENTED", 1, "UNIMPLEMENTED"),
    "not_served": Outside(501, "NOT_IMPLEMENTED", 1, "UNIMPLEMENTED"),
    "no_endpoint": Outside(404, "ENDPOINT_NOT_FOUND", 1, "NOT_FOUND"),
    "parity_broken": Outside(422, "INVALID_PARAMETER_VALUE", 1, "INVALID_ARGUMENT"),
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
