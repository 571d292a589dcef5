"""Ray, as every engine called ``ray`` takes it."""

from __future__ import annotations

import os
from typing import Any

from noria.errors import MissingExtra


class RayCluster:
    """The Ray that this process has started already, else the one RAY_ADDRESS names, else one on this machine.

    ``api`` is the package. One on this machine has ``cpus`` processors and ends with ``close``. Raises MissingExtra.
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
            local: dict[str, Any] = (
                {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": cpus, "include_dashboard": False}
            )
            self.api.init(log_to_driver=False, configure_logging=False, **local)

    def close(self) -> None:
        """Let go of it, unless it was there before."""
        if self._mine:
            self.api.shutdown()
