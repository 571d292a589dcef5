"""Ray, as every engine called ``ray`` takes it."""

from __future__ import annotations

import os
import re
import socket
from typing import Any

from noria.errors import MissingExtra, Unavailable

_REACHED_SECONDS = 10.0


class RayCluster:
    """The Ray that this process has started already, else the one RAY_ADDRESS names, else one on this machine.

    ``api`` is the package. One on this machine has ``cpus`` processors and ends with ``close``. Raises MissingExtra,
    and Unavailable where there is no cluster, or one that does not take this process.
    """

    def __init__(self, cpus: int) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtra(
                "the engine ray needs a package that is not installed", remedy="pip install 'noria[ray]'"
            ) from None
        self.api: Any = ray
        self._mine = not ray.is_initialized()
        if self._mine:
            self._join(cpus)

    def _join(self, cpus: int) -> None:
        address = os.environ.get("RAY_ADDRESS", "")
        local: dict[str, Any] = {} if address else {"num_cpus": cpus, "include_dashboard": False}
        try:
            _check_reached(address)
            self.api.init(log_to_driver=False, configure_logging=False, **local)
        except Exception as error:  # Ray's own are of many kinds: no connection, another version, no token
            raise Unavailable(
                f"Ray at {address or 'this machine'} cannot be used: {error}",
                remedy="Check RAY_ADDRESS, the cluster's versions of Ray and Python, and its token if it has one.",
            ) from error

    def close(self) -> None:
        """Let go of it, unless it was there before."""
        if self._mine:
            self.api.shutdown()


def _check_reached(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT: Ray itself would look for minutes."""
    if found := re.fullmatch(r"(?:ray://)?([^:/]+|\[[0-9A-Fa-f:]+\]):(\d{1,5})", address):
        socket.create_connection((found[1].strip("[]"), int(found[2])), _REACHED_SECONDS).close()
