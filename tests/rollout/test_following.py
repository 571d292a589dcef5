"""A gateway beside the database goes on following it, whatever it finds there."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select, update

from noria.config import ServerSettings
from noria.rollout import Variant, read_routes, set_routes
from noria.rollout.following import RouteFollower
from noria.store.tables import route_tables
from noria.store.workspace import Workspace

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_what_it_cannot_read_does_not_end_it(tmp_path):
    workspace = Workspace(tmp_path, ServerSettings())
    follower = RouteFollower(workspace)
    follower.look()
    with workspace.database.write() as tx:
        variant = Variant("champion", "m", 1, "models/1", "digest", 100.0)
        set_routes(tx, "demand", [variant], at=AT, actor="ann", reason="first")
        kept = tx.execute(select(route_tables.c.variants)).scalar_one()
        tx.execute(update(route_tables).values(variants='[{"of a newer program": 1}]'))
    follower.look()
    assert not workspace.route_file("demand").exists()
    with workspace.database.write() as tx:
        tx.execute(update(route_tables).values(variants=kept))
    follower.look()
    assert read_routes(workspace.route_file("demand")).variants[0].version == 1
