"""Definitions of features, what of them was brought online, and whether both sides of them agree."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "feature_definitions",
        sa.Column("project", sa.String(length=256), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False, server_default=""),
        sa.Column("active", sa.Integer(), nullable=False),
        sa.Column("applied_at", sa.BigInteger(), nullable=False),
        sa.Column("applied_by", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("project", "kind", "name", "version"),
    )
    op.create_table(
        "materializations",
        sa.Column("materialization_id", sa.String(length=32), nullable=False),
        sa.Column("project", sa.String(length=256), nullable=False),
        sa.Column("view", sa.String(length=256), nullable=False),
        sa.Column("since", sa.BigInteger()),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("materialization_id"),
    )
    op.create_index("materializations_by_view", "materializations", ["project", "view", "until"])
    op.create_table(
        "parity_checks",
        sa.Column("check_id", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.Column("values", sa.BigInteger(), nullable=False),
        sa.Column("equal", sa.BigInteger(), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("checked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("check_id"),
    )
    op.create_index("parity_checks_by_version", "parity_checks", ["model", "version", "checked_at"])
