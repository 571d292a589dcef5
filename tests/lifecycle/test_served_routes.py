"""What is taken elsewhere is what serves: during a rollout every variant with its share."""

from __future__ import annotations

import json

import pytest

from lifecycle.rollout_world import MODEL, RolloutWorld
from noria.config import PolicySettings, ServerSettings
from noria.errors import NotFound, PolicyRefused
from noria.lifecycle.deploying import parse_address
from noria.lifecycle.served_routes import address_routes, deployment_routes
from noria.registry import Policies
from noria.rollout import Strategy
from noria.rollout.deployments import withdraw, write_routes
from noria.serving.kubernetes import ClusterPlan, Split, Target, manifests
from noria.store.workspace import Workspace


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
    with world.workspace.database.write() as tx:
        withdraw(tx, MODEL, at=world.clock.now(), actor="ann", reason="done")
    with pytest.raises(NotFound, match="is withdrawn"):
        deployment_routes(world.workspace, MODEL)
    with pytest.raises(NotFound, match="no deployment"):
        deployment_routes(world.workspace, "elsewhere")
