"""What is taken elsewhere is what serves: during a rollout every variant with its share."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lifecycle.rollout_world import MODEL, START, RolloutWorld
from noria.config import PolicySettings, ServerSettings
from noria.errors import NotFound, PolicyRefused
from noria.lifecycle.deploying import parse_address
from noria.lifecycle.rolling_back import roll_back
from noria.lifecycle.served_routes import address_routes, asked_ports, deployment_routes
from noria.optimize.bundle import Bundle, write_bundle
from noria.registry import Policies
from noria.rollout import RouteTable, Strategy
from noria.rollout.deployments import withdraw, write_routes
from noria.serving.kubernetes import ClusterPlan, Split, Target, manifests
from noria.store.blobs import folder_digest
from noria.store.workspace import Workspace
from serving.gateway_world import new_world


@pytest.fixture
def world(tmp_path) -> RolloutWorld:
    world = RolloutWorld(tmp_path)
    world.deploy(world.add_version())
    world.start(Strategy.CANARY, world.add_version())
    return world


def test_a_canary_has_the_share_of_its_step_in_every_manifest(world):
    routes = deployment_routes(world.workspace, MODEL)
    assert [(one.version, one.percent) for one in routes.variants] == [(1, 95), (2, 5)]
    plain = manifests(ClusterPlan(routes, "churn:1", split=Split.MESH), Target.DEPLOYMENT)
    (route,) = [one for one in plain if one["kind"] == "HTTPRoute"]
    assert [one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]] == [95, 5]
    _, canary = (
        one for one in manifests(ClusterPlan(routes, "churn:1", split=Split.MESH), Target.KSERVE)
        if one["kind"] == "InferenceService"
    )  # fmt: skip
    assert canary["spec"]["predictor"]["canaryTrafficPercent"] == 5
    whole = manifests(ClusterPlan(routes, "churn:1"), Target.DEPLOYMENT)
    (config_map,) = [one for one in whole if one["kind"] == "ConfigMap"]
    assert [one["percent"] for one in json.loads(config_map["data"]["routes.json"])["variants"]] == [95, 5]


def test_without_records_the_route_file_says_what_serves(world, tmp_path):
    write_routes(world.workspace, MODEL)
    alone = ServerSettings.model_validate({"store": {"database": "", "folder": str(world.workspace.folder)}})
    packaged = Workspace(tmp_path, alone)
    assert deployment_routes(packaged, MODEL) == deployment_routes(world.workspace, MODEL)
    with pytest.raises(NotFound, match=f"There is: {MODEL}"):
        deployment_routes(packaged, "elsewhere")


def test_an_address_is_one_version_and_deploys_nothing(world):
    before = deployment_routes(world.workspace, MODEL)
    address = parse_address(f"models:/{MODEL}/2")
    routes = address_routes(world.workspace, world.policies, world.clock, address, actor="ann")
    assert [(one.version, one.percent) for one in routes.variants] == [(2, 100)]
    assert deployment_routes(world.workspace, MODEL) == before


def test_what_a_policy_keeps_from_being_served_is_not_taken_elsewhere(world):
    policies = Policies.from_settings({"*": PolicySettings(previews=False)})
    with pytest.raises(PolicyRefused, match="from stage Staging"):
        address_routes(world.workspace, policies, world.clock, parse_address(f"models:/{MODEL}/2"), actor="ann")


def test_what_is_withdrawn_or_unknown_has_no_routes(world):
    roll_back(world.workspace, world.policies, world.clock, MODEL, actor="ann", reason="done")
    with world.workspace.database.write() as tx:
        withdraw(tx, MODEL, at=world.clock.now(), actor="ann", reason="done")
    with pytest.raises(NotFound, match="is withdrawn"):
        deployment_routes(world.workspace, MODEL)
    with pytest.raises(NotFound, match="no deployment"):
        deployment_routes(world.workspace, "elsewhere")


def test_the_ports_of_what_is_asked_over_a_network_are_known(tmp_path):
    features = {"online": "redis://features.internal:6380/0"}
    world = new_world(tmp_path)
    settings = ServerSettings.model_validate({"store": {"database": "", "folder": str(tmp_path)}, "features": features})
    workspace = Workspace(tmp_path, settings)
    looked_up, alone = world.add_model(1), world.add_model(2, views=False)
    assert asked_ports(workspace, RouteTable("flights", 1, (looked_up,), "", START)) == {6380}
    assert asked_ports(workspace, RouteTable("flights", 1, (alone,), "", START)) == set()
    folder = workspace.artifacts.fetch(alone.source)
    options = {"url": "https://upstream.internal", "model": "m", "seconds": 1, "key_variable": ""}
    write_bundle(folder, Bundle("generic", ("prompt",), runtime="remote", options=options))
    remote = replace(alone, digest=folder_digest(folder))
    assert asked_ports(workspace, RouteTable("flights", 1, (remote,), "", START)) == {443}
