"""The route files a gateway serves from: one a deployment, looked at often, swapped in when one changed."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from noria.errors import NoriaError, Unavailable
from noria.rollout.routes import WITHDRAWN, read_routes
from noria.serving import DataPlane

_RETRY_SECONDS = 2.0  # a version whose files were restored is served without a new route table
_LOADS_AT_ONCE = 4
"""Each holds one of the threads that requests need, too."""


@dataclass(slots=True)
class _Seen:
    """What a file was when it was last read, and when a refused one is tried again."""

    stamp: tuple[int, int]
    retry_at: float = math.inf


class RouteFiles:
    """Keeps a data plane at what a folder's files say. A bad one is reported, retried, and the old table goes on.

    No deployment waits for another's models. Of one, a table whose models are still loading is taken up before the
    next, unless that needs nothing loaded, as a rollback does not. ``only`` names the deployment to serve; all by
    default.
    """

    def __init__(self, folder: Path, plane: DataPlane, only: str = "") -> None:
        self._folder, self._plane, self._only = folder, plane, only
        self._seen: dict[str, _Seen] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_LOADS_AT_ONCE)
        self._has_looked = self._changed = False

    async def check(self) -> bool:
        """Look once: withdraw what is gone, begin to load what changed. Whether anything changed since the last look.

        The first look ends when all that it found is loaded or refused; later ones wait for nothing.
        """
        self._look()
        if not self._has_looked:
            self._has_looked = True
            await asyncio.gather(*self._loading.values())
        changed, self._changed = self._changed, False
        return changed

    def _look(self) -> None:
        try:
            found = self._stamps()
        except OSError:
            return  # the folder is away for now: what serves goes on serving
        for name in [name for name in self._seen if name not in found]:
            self._withdraw(name)
        for name, stamp in found.items():
            if self._is_due(name, stamp):
                self._begin(name, stamp)

    def _is_due(self, name: str, stamp: tuple[int, int]) -> bool:
        seen = self._seen.get(name)
        if seen is None:
            return True
        if name in self._loading:
            return seen.stamp != stamp and self._is_loaded(name)
        return seen.stamp != stamp or (name in self._plane.faults and time.monotonic() >= seen.retry_at)

    def _is_loaded(self, name: str) -> bool:
        """Whether all that the table in a file names serves already."""
        try:
            table, deployments = read_routes(self._folder / f"{name}.json"), self._plane.deployments
        except Exception:  # what is wrong is told when it is taken up
            return False
        return any(live.table.deployment == name and live.serves(table) for live in deployments)

    def _begin(self, name: str, stamp: tuple[int, int]) -> None:
        self._give_up(name)
        self._seen[name] = _Seen(stamp)
        self._loading[name] = task = asyncio.create_task(self._load(name))
        task.add_done_callback(partial(self._loaded, name))

    def _loaded(self, name: str, task: asyncio.Task[None]) -> None:
        if self._loading.get(name) is task:
            del self._loading[name]
            self._seen[name].retry_at = time.monotonic() + _RETRY_SECONDS
            self._changed = True

    def _withdraw(self, name: str) -> None:
        self._give_up(name)
        del self._seen[name]
        self._plane.withdraw(name)
        self._changed = True

    def _give_up(self, name: str) -> None:
        """Take up no longer what is loading for a deployment."""
        if (task := self._loading.pop(name, None)) is not None:
            task.cancel()

    async def _load(self, name: str) -> None:
        try:
            async with self._slots:
                await self._plane.swap(read_routes(self._folder / f"{name}.json"))
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
        withdrawn: set[str] = set()
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.endswith(WITHDRAWN):
                        withdrawn.add(entry.name.removesuffix(WITHDRAWN))
                    elif entry.name.endswith(".json") and self._only in ("", entry.name.removesuffix(".json")):
                        stat = entry.stat()
                        found[entry.name.removesuffix(".json")] = (stat.st_ino, stat.st_mtime_ns)
        except FileNotFoundError:
            return {}
        self._plane.withdrawn = withdrawn - found.keys()
        return found
