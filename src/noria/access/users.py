"""Users and their roles. Every change is audited in its own transaction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Row, delete, insert, select, update

from noria import audit
from noria.access.entities import Grant, Role, User
from noria.access.secrets import hash_secret
from noria.clock import from_millis, to_millis
from noria.errors import AlreadyExists, InvalidInput, NotFound
from noria.store.database import Transaction
from noria.store.tables import role_grants, users

LOCAL = "local"
_NAME = re.compile(r"[\w.@+-]{1,200}")
_SHORTEST_PASSWORD = 10


def add_user(
    tx: Transaction,
    name: str,
    *,
    at: datetime,
    actor: str,
    password: str | None = None,
    grants: Sequence[Grant] = (),
    origin: str = LOCAL,
) -> User:
    """A new user. Raises AlreadyExists, or InvalidInput for a name or password that cannot be used."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name[:60]!r} is not a user name", remedy="Use letters, digits and . _ @ + -.")
    if find_user(tx, name) is not None:
        raise AlreadyExists(f"user {name!r} exists already", remedy="`noria users list` shows who there is.")
    hashed = None if password is None else _checked_hash(password)
    tx.execute(
        insert(users).values(name=name, origin=origin, password_hash=hashed, disabled=0, created_at=to_millis(at))
    )
    _record(tx, "user.add", name, at, actor, {"origin": origin})
    for item in grants:
        grant(tx, name, item, at=at, actor=actor)
    return get_user(tx, name)


def find_user(tx: Transaction, name: str) -> User | None:
    """The user of that name, or None."""
    row = tx.execute(select(users).where(users.c.name == name)).first()
    return None if row is None else _user(tx, row)


def get_user(tx: Transaction, name: str) -> User:
    """The user of that name. Raises NotFound."""
    if (user := find_user(tx, name)) is None:
        raise NotFound(f"user {name!r} does not exist", remedy="`noria users list` shows who there is.")
    return user


def list_users(tx: Transaction) -> list[User]:
    """All users by name."""
    return [_user(tx, row) for row in tx.execute(select(users).order_by(users.c.name))]


def password_hash(tx: Transaction, name: str) -> str | None:
    """The kept hash of a user's password; None without one, or for nobody."""
    return tx.execute(select(users.c.password_hash).where(users.c.name == name)).scalar()


def set_password(tx: Transaction, name: str, password: str, *, at: datetime, actor: str) -> None:
    """Replace a user's password. Raises NotFound or InvalidInput."""
    get_user(tx, name)
    tx.execute(update(users).where(users.c.name == name).values(password_hash=_checked_hash(password)))
    _record(tx, "user.password", name, at, actor, {})


def set_disabled(tx: Transaction, name: str, disabled: bool, *, at: datetime, actor: str) -> None:
    """Shut a user out, with every token, or let in again. Raises NotFound."""
    get_user(tx, name)
    tx.execute(update(users).where(users.c.name == name).values(disabled=int(disabled)))
    _record(tx, "user.disable" if disabled else "user.enable", name, at, actor, {})


def grant(tx: Transaction, name: str, item: Grant, *, at: datetime, actor: str) -> None:
    """Give a role; giving it again changes nothing. Raises NotFound."""
    if item in get_user(tx, name).grants:
        return
    row = {"user_name": name, "role": item.role.value, "pattern": item.pattern}
    tx.execute(insert(role_grants).values(**row, granted_at=to_millis(at)))
    detail = {"role": item.role.value, "pattern": item.pattern}
    key = [(role_grants, (name, item.role.value, item.pattern))]
    audit.append(tx, at=at, actor=actor, action="role.grant", subject=f"user:{name}", detail=detail, changed=key)


def revoke(tx: Transaction, name: str, item: Grant, *, at: datetime, actor: str) -> None:
    """Take a role back. Raises NotFound when the user does not hold it."""
    if item not in get_user(tx, name).grants:
        raise NotFound(
            f"user {name!r} has no role {item.role} on {item.pattern!r}", remedy="`noria users list` shows the roles."
        )
    same = (
        role_grants.c.user_name == name,
        role_grants.c.role == item.role.value,
        role_grants.c.pattern == item.pattern,
    )
    tx.execute(delete(role_grants).where(*same))
    detail = {"role": item.role.value, "pattern": item.pattern}
    key = [(role_grants, (name, item.role.value, item.pattern))]
    audit.append(tx, at=at, actor=actor, action="role.revoke", subject=f"user:{name}", detail=detail, changed=key)


def sync_grants(tx: Transaction, name: str, wanted: Sequence[Grant], *, at: datetime, actor: str) -> None:
    """Make the user's roles those ``wanted``."""
    held = get_user(tx, name).grants
    for item in held:
        if item not in wanted:
            revoke(tx, name, item, at=at, actor=actor)
    for item in wanted:
        grant(tx, name, item, at=at, actor=actor)


def _checked_hash(password: str) -> str:
    if not _SHORTEST_PASSWORD <= len(password) <= 1000:
        raise InvalidInput(
            f"the password has {len(password)} characters", remedy=f"Use {_SHORTEST_PASSWORD} to 1000 of them."
        )
    return hash_secret(password)


def _record(tx: Transaction, action: str, name: str, at: datetime, actor: str, detail: dict[str, object]) -> None:
    audit.append(
        tx, at=at, actor=actor, action=action, subject=f"user:{name}", detail=detail, changed=[(users, (name,))]
    )


def _user(tx: Transaction, row: Row[tuple[object, ...]]) -> User:
    query = select(role_grants).where(role_grants.c.user_name == row.name)
    held = tx.execute(query.order_by(role_grants.c.pattern, role_grants.c.role))
    return User(
        name=row.name,
        origin=row.origin,
        has_password=row.password_hash is not None,
        disabled=bool(row.disabled),
        grants=tuple(Grant(Role(item.role), item.pattern) for item in held),
        created_at=from_millis(row.created_at),
    )
