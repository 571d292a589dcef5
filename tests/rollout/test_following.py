"""A gateway beside the database goes on following it, whatever it finds there."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, update

from noria.config import ServerSettings
from noria.errors import CorruptArtifact
from noria.rollout import Variant, read_routes, set_routes
from noria.rollout.deployments import write_all_routes
from noria.rollout.following import RouteFollower
from noria.store.tables import route_tables
from noria.store.workspace import Workspace

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_what_it_cannot_read_does_not_end_it(tmp_path):
    workspace = Workspace(tmp_path, ServerSettings())
    follower = RouteFollower(workspace)
    follower.look()
    workspace.route_folder.mkdir(parents=True, exist_ok=True)
    of_the_killed, of_now = (workspace.route_folder / f".staging-{name}" for name in ("killed", "now"))
    for staged in (of_the_killed, of_now):
        staged.touch()
    os.utime(of_the_killed, (0, 0))
    with workspace.database.write() as tx:
        variant = Variant("champion", "m", 1, "models/1", "digest", 100.0)
        for name in ("demand", "returns"):
            set_routes(tx, name, [variant], at=AT, actor="ann", reason="first")
        mine = update(route_tables).where(route_tables.c.deployment == "demand")
        kept = tx.execute(select(route_tables.c.variants).limit(1)).scalar_one()
        tx.execute(mine.values(variants='[{"of a newer program": 1}]'))
    with pytest.raises(CorruptArtifact, match="routes of 1 of 2 deployments") as told:
        write_all_routes(workspace)
    assert "demand: TypeError" in told.value.details[0]
    assert (of_the_killed.exists(), of_now.exists()) == (False, True)
    follower.look()
    assert (workspace.route_file("demand").exists(), workspace.route_file("returns").exists()) == (False, True)
    with workspace.database.write() as tx:
        tx.execute(mine.values(variants=kept))
    follower.look()
    assert read_routes(workspace.route_file("demand")).variants[0].version == 1
