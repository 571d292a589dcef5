"""Every write in the audit chain, moves of aliases, spent approvals, failures that stay on record, named sources."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "audit_pending",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=512), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False, server_default=""),
        sa.Column("detail", sa.Text(), nullable=False, server_default="{}"),
        sa.Column("changed", sa.Text(), nullable=False, server_default="[]"),
        sa.Column("tally", sa.Text(), nullable=False, server_default="{}"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "alias_moves",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("alias", sa.String(length=256), nullable=False),
        sa.Column("from_version", sa.Integer()),
        sa.Column("to_version", sa.Integer()),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("alias_moves_by_model", "alias_moves", ["model", "id"])
    op.add_column("approvals", sa.Column("spent_at", sa.BigInteger()))
    op.add_column("model_versions", sa.Column("named_source", sa.Text(), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("failed_as", sa.String(length=16), nullable=False, server_default=""))
    op.execute("UPDATE runs SET failed_as = status WHERE status IN ('FAILED', 'KILLED')")
    if op.get_bind().dialect.name != "sqlite":  # which minds no length
        op.alter_column("experiments", "name", type_=sa.String(length=500), existing_nullable=False)
