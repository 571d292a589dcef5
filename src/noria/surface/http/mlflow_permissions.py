"""Which permission each endpoint of MLflow's protocol takes, and on which model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noria.access import Identity, Permission

_READS = ("/search", "/get-latest-versions", "/batchGet", "/batchGetInfos", "/get-history-bulk-interval")
_ADDS = ("/registered-models/create", "/model-versions/create")
_REGISTRY = ("/registered-models/", "/model-versions/")


def permit(identity: Identity, method: str, path: str, arguments: Mapping[str, Any]) -> None:
    """Raises Forbidden unless ``identity`` may call the endpoint with these arguments.

    Reading takes a viewer, logging and registering a contributor; whatever else changes a model takes a maintainer of
    it, so that the tags and stages a policy looks at are not set by whoever wants to pass it. Webhooks are an admin's.
    """
    permission = _needed(method, path)
    named = [str(arguments[key]) for key in ("name", "new_name") if key in arguments] if _of_registry(path) else []
    if not named:
        identity.require(permission)
    for model in named:
        identity.require(permission, model)


def _needed(method: str, path: str) -> Permission:
    if "/mlflow/webhooks" in path:  # reading too: the address of a receiver is often its key
        return Permission.ADMINISTER
    if method == "GET" or path.endswith(_READS):
        return Permission.READ
    if _of_registry(path) and not path.endswith(_ADDS):
        return Permission.MAINTAIN
    return Permission.WRITE


def _of_registry(path: str) -> bool:
    return any(part in path for part in _REGISTRY)
