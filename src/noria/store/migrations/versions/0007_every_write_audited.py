"""Every write in the audit chain, moves of aliases, spent approvals, failures that stay on record, named sources."""

import hashlib
import json
import struct
from itertools import groupby

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
_AT_ONCE = 500
_DEPLOYMENT = ("deployment", "model", "created_at", "created_by")
_NOTE = ("recorded_at", "actor", "action", "subject", "changed", "tally")


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
    _take_stock()
    _adopt_deployments()


def _take_stock() -> None:
    """Note what is there already, so that from now on nothing of it changes without an entry."""
    bind = op.get_bind()
    pending = sa.table("audit_pending", *(sa.column(name) for name in _NOTE))
    latest = sa.text("SELECT max(updated_at) FROM experiments")
    at = bind.execute(latest).scalar() or 0
    note = {"recorded_at": at, "actor": "noria/migration", "action": "tracking.adopt"}
    for table, key in (("experiments", "experiment_id"), ("logged_models", "model_id"), ("runs", "run_id")):
        ids = [row[0] for row in bind.execute(sa.text(f"SELECT {key} FROM {table} ORDER BY {key}"))]
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            changed = json.dumps([[table, one] for one in some])
            tally = json.dumps(_tally(bind, some) if table == "runs" else {})
            subject = f"{table}:{len(some)} of before revision {revision}"
            bind.execute(sa.insert(pending).values(**note, subject=subject, changed=changed, tally=tally))


def _adopt_deployments() -> None:
    """Record what is served by routes that are older than the records of deployments, which revision 0006 made."""
    bind = op.get_bind()
    unknown = sa.text(
        "SELECT deployment, variants, actor, created_at FROM route_tables "
        "WHERE deployment NOT IN (SELECT deployment FROM deployments) ORDER BY deployment, revision"
    )
    deployments = sa.table("deployments", *(sa.column(name) for name in _DEPLOYMENT))
    pending = sa.table("audit_pending", *(sa.column(name) for name in _NOTE))
    for name, of_one in groupby(bind.execute(unknown).all(), key=lambda row: str(row.deployment)):
        first = next(of_one)
        served = {"deployment": name, "model": json.loads(first.variants)[0]["model"]}
        made = {"created_at": first.created_at, "created_by": first.actor}
        bind.execute(sa.insert(deployments).values(**served, **made))
        note = {"recorded_at": first.created_at, "actor": "noria/migration", "action": "deployment.adopt"}
        changed = json.dumps([["deployments", name]])
        bind.execute(sa.insert(pending).values(**note, subject=f"deployment:{name}", changed=changed, tally="{}"))


def _tally(bind: sa.Connection, runs: list[str]) -> dict[str, dict[str, list[object]]]:
    """What ``noria.audit.tallies`` made of metrics and params at this revision."""
    found: dict[str, dict[str, list[object]]] = {}
    for kind, columns, encode in (
        ("metrics", "run_id, key, step, timestamp, value, is_nan", _metric),
        ("params", "run_id, key, value", _param),
    ):
        wanted = sa.text(f"SELECT {columns} FROM run_{kind} WHERE run_id IN :runs ORDER BY run_id")
        rows = bind.execute(wanted.bindparams(sa.bindparam("runs", runs, expanding=True)))
        for run_id, of_run in groupby(rows, key=lambda row: row[0]):
            digests = [hashlib.sha256(encode(*row[1:])).digest() for row in of_run]
            total = sum(int.from_bytes(digest, "little") for digest in digests) % (1 << 256)
            found.setdefault(f"run:{run_id}", {})[kind] = [len(digests), f"{total:064x}"]
    return found


def _metric(key: str, step: int, timestamp: int, value: float, is_nan: int) -> bytes:
    return key.encode() + struct.pack("<qqdB", step, timestamp, value + 0.0, is_nan)


def _param(key: str, value: str) -> bytes:
    return f"{key}\0{value}".encode()
