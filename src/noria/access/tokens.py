"""API tokens: shown once when made, kept as hashes."""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy import Row, insert, select, update

from noria import audit
from noria.access.entities import Token
from noria.access.secrets import hash_secret
from noria.access.users import get_user
from noria.clock import from_millis, to_millis
from noria.errors import InvalidInput, NotFound
from noria.ids import new_id
from noria.store.database import Transaction
from noria.store.tables import api_tokens

PREFIX = "noria_"


def create_token(
    tx: Transaction, user: str, *, label: str, at: datetime, actor: str, expires_at: datetime | None = None
) -> str:
    """A new token of ``user``, the only time it can be read. Raises NotFound or InvalidInput."""
    get_user(tx, user)
    if len(label) > 200:
        raise InvalidInput(f"the label has {len(label)} characters", remedy="Use at most 200.")
    token_id, secret = new_id()[:16], secrets.token_urlsafe(32)
    tx.execute(
        insert(api_tokens).values(
            token_id=token_id,
            user_name=user,
            label=label,
            secret_hash=hash_secret(secret),
            created_at=to_millis(at),
            expires_at=None if expires_at is None else to_millis(expires_at),
        )
    )
    _record(tx, "token.create", user, token_id, at, actor)
    return f"{PREFIX}{token_id}_{secret}"


def revoke_token(tx: Transaction, token_id: str, *, at: datetime, actor: str) -> None:
    """End a token. Raises NotFound."""
    row = tx.execute(select(api_tokens).where(api_tokens.c.token_id == token_id)).first()
    if row is None:
        raise NotFound(f"token {token_id!r} does not exist", remedy="`noria tokens list` shows their ids.")
    if row.revoked_at is None:
        tx.execute(update(api_tokens).where(api_tokens.c.token_id == token_id).values(revoked_at=to_millis(at)))
        _record(tx, "token.revoke", row.user_name, token_id, at, actor)


def list_tokens(tx: Transaction, user: str | None = None) -> list[Token]:
    """The tokens of a user or of all, newest first."""
    query = select(api_tokens).order_by(api_tokens.c.created_at.desc())
    return [_token(row) for row in tx.execute(query if user is None else query.where(api_tokens.c.user_name == user))]


def find_live(tx: Transaction, token_id: str, at: datetime) -> tuple[str, str] | None:
    """(user, hash) of a token that is neither revoked nor expired; None for any other."""
    row = tx.execute(select(api_tokens).where(api_tokens.c.token_id == token_id)).first()
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= to_millis(at)):
        return None
    return row.user_name, row.secret_hash


def split(token: str) -> tuple[str, str] | None:
    """(id, secret) of what looks like a token; None for anything else."""
    token_id, separator, secret = token.removeprefix(PREFIX).partition("_")
    return (token_id, secret) if token.startswith(PREFIX) and separator and secret else None


def _record(tx: Transaction, action: str, user: str, token_id: str, at: datetime, actor: str) -> None:
    detail = {"token_id": token_id}
    key = [(api_tokens, (token_id,))]
    audit.append(tx, at=at, actor=actor, action=action, subject=f"user:{user}", detail=detail, changed=key)


def _token(row: Row[tuple[object, ...]]) -> Token:
    return Token(
        row.token_id,
        row.user_name,
        row.label,
        from_millis(row.created_at),
        None if row.expires_at is None else from_millis(row.expires_at),
        None if row.revoked_at is None else from_millis(row.revoked_at),
    )
