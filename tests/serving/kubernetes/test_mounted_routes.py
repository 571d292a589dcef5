"""Routes as a cluster mounts them: a gateway takes over what a ConfigMap says, and serves what KServe fetched."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import httpx

from noria.rollout import RouteTable, Variant, read_routes
from noria.serving import DataPlane
from noria.serving.kubernetes import ClusterPlan, Split, Target, manifests
from noria.serving.kubernetes.kserve import KServeOptions
from noria.store.blobs import FolderBlobs
from serving.gateway_world import LAST_SEEN, REQUEST, World, new_world


def plan(revision: int, *variants: Variant, split: Split = Split.GATEWAY) -> ClusterPlan:
    return ClusterPlan(RouteTable("flights", revision, variants, "test", LAST_SEEN), "flights:1", split=split)


def mount(world: World, found: list[dict], number: int) -> None:
    """What the kubelet does: the files in a folder of their own, swapped in by a link."""
    folder = world.root / "routes"
    (config_map,) = [one for one in found if one["kind"] == "ConfigMap"]
    (deployment,) = [one for one in found if one["kind"] == "Deployment"]
    (volume, *_) = deployment["spec"]["template"]["spec"]["volumes"]
    (item,) = volume["configMap"]["items"]
    (folder / f"..{number}").mkdir(parents=True)
    (folder / f"..{number}" / item["path"]).write_text(config_map["data"][item["key"]])
    (folder / "..new").symlink_to(f"..{number}")
    (folder / "..new").replace(folder / "..data")
    if not (link := folder / item["path"]).is_symlink():
        link.symlink_to(Path("..data") / item["path"])


def test_a_gateway_takes_over_what_a_config_map_says(tmp_path):
    world = new_world(tmp_path)
    champion, canary = world.add_model(1), world.add_model(2)
    mount(world, manifests(plan(1, champion), Target.DEPLOYMENT), 1)
    with world.gateway() as url, httpx.Client(base_url=url) as client:
        assert client.get("/v2/health/live").status_code == client.get("/v2/health/ready").status_code == 200
        assert client.get("/health").json()["route_revision"] == 1
        divided = plan(2, replace(champion, percent=90.0), replace(canary, name="canary", percent=10.0))
        mount(world, manifests(divided, Target.DEPLOYMENT), 2)
        deadline = time.monotonic() + 15
        while client.get("/health").json().get("route_revision") != 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        rows = [REQUEST | {"prediction_id": str(number)} for number in range(300)]
        answers = client.post("/predict", json={"instances": rows}).json()["predictions"]
        assert {one["variant"] for one in answers} == {"champion", "canary"}


def test_what_kserve_fetched_is_served_by_the_runtimes_route(tmp_path):
    world = new_world(tmp_path)
    champion = world.add_model(1)
    found = manifests(plan(1, champion), Target.KSERVE, KServeOptions(storage="s3://models"))
    (config_map,) = [one for one in found if one["kind"] == "ConfigMap"]
    (service,) = [one for one in found if one["kind"] == "InferenceService"]
    assert service["spec"]["predictor"]["model"]["storageUri"] == f"s3://models/{champion.source}"
    (tmp_path / "flights.json").write_text(config_map["data"]["routes.json"])

    async def serve() -> None:
        fetched = FolderBlobs(world.root / "artifacts" / champion.source)  # what lies in /mnt/models
        plane = DataPlane(fetched, world.settings.online_store, tmp_path / "log")
        await plane.swap(read_routes(tmp_path / "flights.json"))
        assert plane.faults == {} and plane.find().champion.version == "1"
        plane.close()

    asyncio.run(serve())
