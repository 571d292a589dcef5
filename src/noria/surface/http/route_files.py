"""The route files a gateway serves from: one a deployment, looked at often, swapped in when one changed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from noria.errors import NoriaError, Unavailable
from noria.rollout.routes import read_routes
from noria.serving import DataPlane

_RETRY_SECONDS = 2.0  # a version whose files were restored is served without a new route table


@dataclass(slots=True)
class _Seen:
    """What a file was when it was last read, and when a refused one is tried again."""

    stamp: tuple[int, int]
    retry_at: float


class RouteFiles:
    """Keeps a data plane at what a folder's files say. A bad one is reported, retried, and the old table goes on.

    ``only`` names the deployment to serve; all by default.
    """

    def __init__(self, folder: Path, plane: DataPlane, only: str = "") -> None:
        self._folder, self._plane, self._only = folder, plane, only
        self._seen: dict[str, _Seen] = {}

    async def check(self) -> bool:
        """Look once: swap in what changed, withdraw what is gone. Whether there was anything."""
        try:
            found = self._stamps()
        except OSError:
            return False  # the folder is away for now: what serves goes on serving
        changed = False
        for name in [name for name in self._seen if name not in found]:
            del self._seen[name]
            self._plane.withdraw(name)
            changed = True
        for name, stamp in found.items():
            seen = self._seen.get(name)
            retry = name in self._plane.faults and seen is not None and time.monotonic() >= seen.retry_at
            if seen is None or seen.stamp != stamp or retry:
                self._seen[name] = _Seen(stamp, time.monotonic() + _RETRY_SECONDS)
                await self._load(name)
                changed = True
        return changed

    async def _load(self, name: str) -> None:
        path = self._folder / f"{name}.json"
        try:
            await self._plane.swap(read_routes(path))
        except FileNotFoundError:
            return
        except NoriaError as error:
            self._plane.refuse(name, error)
        except Exception as error:
            # The watcher must outlive whatever is wrong with the file: the next one may be right.
            remedy = "`noria up` writes the route file again from the database."
            self._plane.refuse(name, Unavailable(f"the route file cannot be read: {error}", remedy=remedy))

    def _stamps(self) -> Mapping[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".json") and self._only in ("", entry.name.removesuffix(".json")):
                        stat = entry.stat()
                        found[entry.name.removesuffix(".json")] = (stat.st_ino, stat.st_mtime_ns)
        except FileNotFoundError:
            return {}
        return found
