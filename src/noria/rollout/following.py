"""Keeping the route files of a gateway at what the database says, from beside the data plane."""

from __future__ import annotations

import threading

import structlog
from sqlalchemy import func, select

from noria.errors import NoriaError
from noria.rollout.deployments import write_all_routes
from noria.store import tables
from noria.store.workspace import Workspace

_log = structlog.get_logger()
_SECONDS = 1.0


class RouteFollower:
    """A thread that writes the route files anew when something changed. While the database is away, they stay."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._stamp: object = ()
        self._reason, self._migrated = "", False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="routes", daemon=True)

    def start(self) -> None:
        """Look once, then every second in the thread."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def look(self) -> None:
        """Write the files if anything changed since the last look."""
        try:
            if not self._migrated:
                self._workspace.database.migrate()
                self._migrated = True
            stamp = self._last_change()
            if stamp != self._stamp:
                write_all_routes(self._workspace)
                self._stamp = stamp
            self._said("")
        except (NoriaError, OSError) as error:
            self._said(str(error))
        except Exception as error:  # of a row that a newer program wrote; a thread that ended would follow nothing
            self._said(f"{type(error).__name__}: {error}")

    def _last_change(self) -> object:
        """What grows with every change of routes: each is audited."""
        with self._workspace.database.read() as tx:
            return tx.execute(select(func.max(tables.audit_entries.c.sequence))).scalar()

    def _run(self) -> None:
        while not self._ended.wait(_SECONDS):
            self.look()

    def _said(self, reason: str) -> None:
        """Tell a trouble once, and its end."""
        if reason and not self._reason:
            _log.warning("routes_not_followed", reason=reason)
        elif self._reason and not reason:
            _log.info("routes_followed_again")
        self._reason = reason
