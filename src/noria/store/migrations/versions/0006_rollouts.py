"""Deployments by name, the form versions are served in, keys, and rollouts of every strategy."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

NAME = sa.String(length=256)


def upgrade() -> None:
    _extend()
    _deployments()
    _rollouts()


def _extend() -> None:
    op.add_column("route_tables", sa.Column("salt", sa.String(length=32), nullable=False, server_default=""))
    op.add_column("route_tables", sa.Column("unit", NAME, nullable=False, server_default=""))
    op.add_column("rollouts", sa.Column("strategy", sa.String(length=16), nullable=False, server_default="canary"))
    for name in ("challengers", "plan", "reason"):
        op.add_column("rollouts", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.add_column("rollouts", sa.Column("started_by", NAME, nullable=False, server_default=""))


def _deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("deployment", NAME, nullable=False),
        sa.Column("model", NAME, nullable=False),
        sa.Column("follows", NAME, nullable=False, server_default=""),
        sa.Column("unit", NAME, nullable=False, server_default=""),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", NAME, nullable=False),
        sa.Column("withdrawn_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("deployment"),
    )
    op.create_table(
        "served_models",
        sa.Column("model", NAME, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("prepared_at", sa.BigInteger(), nullable=False),
        sa.Column("prepared_by", NAME, nullable=False),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_table(
        "gateway_keys",
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("deployment", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", NAME, nullable=False),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("key_id"),
    )
    op.create_index("ix_gateway_keys_deployment", "gateway_keys", ["deployment"])


def _rollouts() -> None:
    op.create_table(
        "rollout_steps",
        _rollout(),
        sa.Column("step", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("fixed", sa.Text(), nullable=False, server_default="{}"),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", "step"),
    )
    op.create_table(
        "rollout_looks",
        _rollout(),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("looked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id"),
    )
    op.create_table(
        "bandit_shares",
        _rollout(),
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("shares", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False, server_default=""),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", "number"),
    )


def _rollout() -> sa.Column[str]:
    return sa.Column("rollout_id", sa.String(length=32), sa.ForeignKey("rollouts.rollout_id"), nullable=False)
