"""Webhooks and the outbox of their deliveries."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text

from noria.store.tables.schema import metadata, name_column

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_id", String(36), primary_key=True),
    Column("name", name_column(), nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("events", Text, nullable=False),
    Column("secret", Text, nullable=False, server_default=""),  # as it is: it has to sign
    Column("status", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

# The outbox. The sequence is the order of the changes; claimed_by is the sender that has the row until claimed_until.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("delivery_id", String(36), nullable=False, unique=True),
    Column("webhook_id", ForeignKey("webhooks.webhook_id"), nullable=False),
    Column("event", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("claimed_by", String(32), nullable=False, server_default=""),
    Column("claimed_until", BigInteger, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    Column("reason", Text, nullable=False, server_default=""),
    Index("webhook_deliveries_by_status", "status", "webhook_id", "sequence"),
)
