"""The form a version is served in: prepared once, and anew after Noria has learned to prepare it better."""

from __future__ import annotations

from sqlalchemy import update

from lifecycle.rollout_world import MODEL, RolloutWorld
from noria.lifecycle.rolling_back import roll_back
from noria.optimize.bundle import Bundle, write_bundle
from noria.registry import NewVersion, register_version
from noria.rollout import Variant, read_routes
from noria.store import tables
from noria.store.workspace import artifact_uri


def log(world: RolloutWorld, folder) -> None:
    """Register a version that is not registered as it is served, though there is nothing to convert."""
    folder.mkdir()
    write_bundle(folder, Bundle("regression", ("a",)))
    world.workspace.artifacts.put_folder(f"logged/{folder.name}", folder)
    new = NewVersion(MODEL, artifact_uri(f"logged/{folder.name}"))
    with world.workspace.database.write() as tx:
        register_version(tx, new, policies=world.policies, at=world.clock.now(), actor="ann")


def serving(world: RolloutWorld) -> Variant:
    (variant,) = read_routes(world.workspace.route_file(MODEL)).variants
    return variant


def test_a_form_that_an_older_noria_prepared_is_prepared_anew_when_deployed_and_stays_for_who_goes_back(tmp_path):
    world = RolloutWorld(tmp_path / "world")
    log(world, tmp_path / "one")
    log(world, tmp_path / "two")
    world.deploy(1)
    world.workspace.artifacts.put_folder("served/churn/1", tmp_path / "one")
    with world.workspace.database.write() as tx:
        tx.execute(update(tables.served_models).values(source="served/churn/1"))
    world.deploy(2)
    roll_back(world.workspace, world.policies, world.clock, MODEL, actor="ann", reason="")
    assert serving(world).source == "served/churn/1"  # at once: nothing is prepared on the way back
    world.deploy(1)
    assert serving(world).source != "served/churn/1"
    assert world.workspace.artifacts.fetch("served/churn/1").is_dir()
    before = serving(world)
    world.deploy(1)
    assert serving(world) == before
