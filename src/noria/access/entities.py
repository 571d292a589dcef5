"""Roles, what they permit, and the identity every request acts under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase

from noria.errors import Forbidden


class Role(StrEnum):
    """What a user is to the models of a pattern."""

    VIEWER = "viewer"
    CONTRIBUTOR = "contributor"
    MAINTAINER = "maintainer"
    APPROVER = "approver"
    ADMIN = "admin"


class Permission(StrEnum):
    """What a request needs."""

    READ = "read"
    WRITE = "write"
    MAINTAIN = "maintain"
    APPROVE = "approve"
    ADMINISTER = "administer"


_PERMITS: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.READ}),
    Role.CONTRIBUTOR: frozenset({Permission.READ, Permission.WRITE}),
    Role.MAINTAINER: frozenset({Permission.READ, Permission.WRITE, Permission.MAINTAIN}),
    Role.APPROVER: frozenset({Permission.READ, Permission.APPROVE}),
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Grant:
    """A role on every model whose name matches ``pattern``, a shell pattern; ``*`` is the whole workspace."""

    role: Role
    pattern: str = "*"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who acts: the name every change is recorded under, what it may do, and whether the name was proven or claimed."""

    name: str
    grants: Sequence[Grant] = ()
    proven: bool = True

    def may(self, permission: Permission, model: str | None = None) -> bool:
        """Whether a grant permits it on ``model``; without a model, on the workspace.

        Runs and experiments belong to no model, so any grant reads and writes them; to administer takes the whole.
        """
        whole = permission is Permission.ADMINISTER
        return any(
            permission in _PERMITS[grant.role]
            and (fnmatchcase(model, grant.pattern) if model is not None else grant.pattern == "*" or not whole)
            for grant in self.grants
        )

    def require(self, permission: Permission, model: str | None = None) -> None:
        """Raises Forbidden unless a grant permits it."""
        if not self.may(permission, model):
            where = "this workspace" if model is None else f"model {model!r}"
            needed = ", ".join(role for role, permits in _PERMITS.items() if permission in permits)
            raise Forbidden(
                f"{self.name} may not {permission} {where}",
                remedy=f"Ask an admin for one of these roles on it: {needed}.",
            )

    def roles(self, model: str) -> list[Role]:
        """The roles held on ``model``."""
        return sorted({grant.role for grant in self.grants if fnmatchcase(model, grant.pattern)})


@dataclass(frozen=True, slots=True)
class User:
    """Someone who may sign in. ``origin`` is ``local``, or the issuer whose word is taken."""

    name: str
    origin: str
    has_password: bool
    disabled: bool
    grants: Sequence[Grant]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Token:
    """An API token as it is kept: all but its secret."""

    token_id: str
    user: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
