"""Users, what they may do, and their tokens."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String, Table, Text

from noria.store.tables.schema import metadata, name_column

users = Table(
    "users",
    metadata,
    Column("name", name_column(), primary_key=True),
    Column("origin", name_column(512), nullable=False),
    Column("password_hash", Text),
    Column("disabled", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

role_grants = Table(
    "role_grants",
    metadata,
    Column("user_name", ForeignKey("users.name"), primary_key=True),
    Column("role", String(16), primary_key=True),
    Column("pattern", name_column(), primary_key=True),
    Column("granted_at", BigInteger, nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("token_id", String(16), primary_key=True),
    Column("user_name", ForeignKey("users.name"), nullable=False, index=True),
    Column("label", name_column(), nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)
