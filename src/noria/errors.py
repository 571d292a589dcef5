"""Noria's one family of errors: each says what failed, why, and what to do next.

The core knows no HTTP. ``surface`` maps ``code`` to a status, an exit code or a wire shape in one table.
"""

from __future__ import annotations

from collections.abc import Sequence


class NoriaError(Exception):
    """Root of every error a user can cause or act on.

    ``code`` is stable and documented; ``remedy`` says what to do next; ``details`` lists every single finding
    (failing rows, unmet conditions), one sentence each.
    """

    code = "internal"

    def __init__(self, message: str, *, remedy: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.details = tuple(details)

    def __str__(self) -> str:
        lines = [self.message, *(f"  - {detail}" for detail in self.details)]
        if self.remedy:
            lines.append(self.remedy)
        return "\n".join(lines)


class InvalidInput(NoriaError):
    """A value given by the caller breaks a stated rule."""

    code = "invalid_input"


class InvalidConfig(NoriaError):
    """noria.toml, an environment override or a project file cannot be used as written."""

    code = "invalid_config"


class InvalidData(NoriaError):
    """Rows break the contract of their table; the failing rows are named."""

    code = "invalid_data"


class NotFound(NoriaError):
    """The thing asked for by name or id does not exist."""

    code = "not_found"


class AlreadyExists(NoriaError):
    """A name that must be unique is taken."""

    code = "already_exists"


class Conflict(NoriaError):
    """The state changed, or is not one from which this step is legal."""

    code = "conflict"


class PolicyRefused(NoriaError):
    """A policy forbids the change; every unmet condition is in ``details``."""

    code = "policy_refused"


class Protected(PolicyRefused):
    """What is in Production, or evidence of a registered version, is not changed or deleted."""

    code = "protected"


class Unauthenticated(NoriaError):
    """Nobody, or not who it says it is."""

    code = "unauthenticated"


class Forbidden(NoriaError):
    """Whoever acts holds no role that permits it."""

    code = "forbidden"


class CorruptArtifact(NoriaError):
    """Stored bytes do not match the hash recorded for them."""

    code = "corrupt_artifact"


class BrokenChain(NoriaError):
    """The audit chain does not verify: an entry was edited, removed or reordered."""

    code = "broken_chain"


class Unavailable(NoriaError):
    """A resource outside the process cannot be used now: a port, a disk, a server."""

    code = "unavailable"


class Overloaded(NoriaError):
    """More is asked for than is taken on; the same may succeed after ``retry_after`` seconds."""

    code = "overloaded"

    def __init__(self, message: str, *, remedy: str = "", retry_after: int = 1) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class DeadlineExceeded(NoriaError):
    """The answer was not ready by the time the caller stopped waiting for it."""

    code = "deadline_exceeded"


class MissingExtra(NoriaError):
    """An optional package is needed; the message names the extra that installs it."""

    code = "missing_extra"


class NotServed(NoriaError):
    """Something a protocol has and this installation, or Noria, leaves out."""

    code = "not_served"
