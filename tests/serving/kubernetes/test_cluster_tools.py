"""Manifests and charts before the tools that clusters are run with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from noria.errors import InvalidInput
from noria.serving.kubernetes import Split, Target, manifests, write_manifests
from noria.serving.kubernetes.chart import chart_files
from noria.serving.kubernetes.kserve import KServeOptions
from noria.serving.kubernetes.writing import write_files
from serving.kubernetes.plans import plan
from serving.kubernetes.test_manifests import PLANS, check_core, of_kind
from serving.kubernetes.tools import helm, kubectl, validate_by_kserve, validate_by_models

pytestmark = pytest.mark.peer


def by_name(found: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


@pytest.fixture(params=PLANS)
def chart(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A plan's chart, and its plain manifests."""
    write_files(chart_files(PLANS[request.param]), tmp_path / "chart")
    return tmp_path / "chart", manifests(PLANS[request.param], Target.DEPLOYMENT)


def rendered(folder: Path, *words: str, release: str = "churn", namespace: str = "ml") -> list[dict[str, Any]]:
    text = helm("template", release, str(folder), "--namespace", namespace, *words)
    return [one for one in yaml.safe_load_all(text) if one]


def test_every_object_is_valid_by_its_model_to_the_last_key():
    found = [one for plan_ in PLANS.values() for one in manifests(plan_, Target.DEPLOYMENT)]
    assert f"{len(found)} manifests, 0 faults" in validate_by_models(found)


def test_a_key_that_no_model_has_is_found():
    found = manifests(PLANS["mesh"], Target.DEPLOYMENT)
    of_kind(found, "HTTPRoute")[0]["spec"]["hostname"] = "x"
    with pytest.raises(AssertionError, match="hostname"):
        validate_by_models(found)


def test_the_chart_is_rendered_to_the_plain_manifests(chart):
    folder, plain = chart
    assert "0 chart(s) failed" in helm("lint", "--strict", str(folder))
    found = rendered(folder, release=yaml.safe_load((folder / "Chart.yaml").read_text())["name"])
    check_core(found)
    assert by_name(found) == by_name(plain)


def test_the_chart_follows_its_values(tmp_path):
    write_files(chart_files(PLANS["mesh"]), tmp_path / "chart")
    set_ = (
        "--set",
        "image=other:9,weights.churn--challenger-1=2500,serviceMonitor.enabled=false,autoscaling.maxReplicas=30",
    )
    found = rendered(tmp_path / "chart", *set_, namespace="blue")
    assert {one["metadata"]["namespace"] for one in found} == {"blue"}
    assert of_kind(found, "ServiceMonitor") == []
    images = {one["spec"]["template"]["spec"]["containers"][0]["image"] for one in of_kind(found, "Deployment")}
    assert images == {"other:9"}
    (route,) = of_kind(found, "HTTPRoute")
    assert [one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]] == [9000, 2500, 50]
    (scaled, *_) = of_kind(found, "ScaledObject")
    assert scaled["spec"]["maxReplicaCount"] == 30
    assert 'namespace="blue"' in scaled["spec"]["triggers"][0]["metadata"]["query"]


@pytest.mark.parametrize(("given", "rendered_as"), [("50", "50"), ("0.5", "0.5")])
def test_what_a_pod_carries_is_given_as_a_number(tmp_path, given, rendered_as):
    write_files(chart_files(PLANS["mesh"]), tmp_path / "chart")
    for option in ("--set", "--set-string"):
        found = rendered(tmp_path / "chart", option, f"autoscaling.predictionsPerSecond={given}")
        (scaled, *_) = of_kind(found, "ScaledObject")
        assert scaled["spec"]["triggers"][0]["metadata"]["threshold"] == rendered_as


def test_pods_are_placed_and_marked_by_the_values_of_a_release_whose_name_no_service_may_have(tmp_path):
    write_files(chart_files(PLANS["mesh"]), tmp_path / "chart")
    place = "nodeSelector.disk=ssd,tolerations[0].key=gpu,tolerations[0].operator=Exists,podAnnotations.team=pricing"
    found = rendered(tmp_path / "chart", "--set", place, release="1.st")
    check_core(found)
    assert all(re.fullmatch("n-1-st-[a-z0-9-]*", one["metadata"]["name"]) for one in found)
    for one in of_kind(found, "Deployment"):
        pod = one["spec"]["template"]
        assert pod["spec"]["nodeSelector"] == {"disk": "ssd"} and pod["metadata"]["annotations"]["team"] == "pricing"
        assert pod["spec"]["tolerations"] == [{"key": "gpu", "operator": "Exists"}]


def test_another_chart_can_depend_on_it(tmp_path):
    write_files(chart_files(PLANS["mesh"]), tmp_path / "outer/charts/churn")
    (tmp_path / "outer/Chart.yaml").write_text("apiVersion: v2\nname: outer\nversion: 0.1.0\n")
    (tmp_path / "outer/values.yaml").write_text("global: {region: eu}\nchurn: {image: other:9}\n")
    deployments = of_kind(rendered(tmp_path / "outer", release="r"), "Deployment")
    assert {one["spec"]["template"]["spec"]["containers"][0]["image"] for one in deployments} == {"other:9"}


@pytest.mark.parametrize("wrong", [
    "imagee=x", "env[0].name=A,env[0].value=1", "autoscaling.maxReplicas=many", "networkPolicy.enabled=perhaps",
    "resources.requests.memory=10x", "env[0].value=a", "resources.request.memory=1Gi", "image=R.io/X:1:2",
])  # fmt: skip
def test_a_value_that_is_none_is_refused_by_the_schema(tmp_path, wrong):
    write_files(chart_files(PLANS["everything"]), tmp_path / "chart")
    refused = helm("template", "any", str(tmp_path / "chart"), "--set", wrong, check=False)
    assert "values don't meet the specifications of the schema" in refused


def test_the_least_pods_are_no_more_than_the_most(tmp_path):
    for name in ("everything", "mesh"):
        write_files(chart_files(PLANS[name]), tmp_path / name)
        wrong = "autoscaling.maxReplicas=1,autoscaling.minReplicas=4"
        refused = helm("template", "any", str(tmp_path / name), "--set", wrong, check=False)
        assert "autoscaling.minReplicas is above autoscaling.maxReplicas" in refused


def test_two_releases_of_a_chart_share_a_namespace(tmp_path):
    write_files(chart_files(PLANS["mesh"]), tmp_path / "chart")
    releases = ["blue", "green", "x" * 53, "x" * 52 + "y"]
    found = [by_name(rendered(tmp_path / "chart", release=release)) for release in releases]
    assert len({name for one in found for name in one}) == sum(map(len, found))
    for one in found:
        check_core(list(one.values()))
        deployments = of_kind(list(one.values()), "Deployment")
        selected = [of["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] for of in deployments]
        (policy,) = of_kind(list(one.values()), "NetworkPolicy")
        assert set(selected) == {policy["metadata"]["name"]} and len(selected[0]) <= 40
        (service, *_) = [of for of in of_kind(list(one.values()), "Service") if of["metadata"]["name"] in selected]
        for scaled in of_kind(list(one.values()), "ScaledObject"):
            query = scaled["spec"]["triggers"][0]["metadata"]["query"]
            assert f'service="{service["metadata"]["name"]}"' in query
    (deployment, *_) = of_kind(list(found[0].values()), "Deployment")
    assert deployment["metadata"]["name"] == "blue-churn--champion"


def test_a_pod_of_a_chart_can_ask_for_a_gpu(tmp_path):
    write_files(chart_files(PLANS["plain"]), tmp_path / "chart")
    found = rendered(tmp_path / "chart", "--set", r"resources.limits.nvidia\.com/gpu=1")
    check_core(found)
    (deployment,) = of_kind(found, "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("options", [KServeOptions(), KServeOptions("t:1"), KServeOptions(storage="s3://models")])
def test_kserves_own_models_know_every_key(name, options):
    try:
        found = manifests(PLANS[name], Target.KSERVE, options)
    except InvalidInput:
        return  # KServe does not take every plan
    validate_by_kserve([one for one in found if one["apiVersion"].startswith("serving.kserve.io")])


def test_a_key_that_kserve_does_not_have_is_found():
    found = of_kind(manifests(plan(90, 10, split=Split.MESH), Target.KSERVE), "InferenceService")
    found[1]["spec"]["predictor"]["canaryPercent"] = 10
    with pytest.raises(AssertionError, match="canaryPercent is no field of V1beta1PredictorSpec"):
        validate_by_kserve(found)


def test_kubectl_reads_them_without_a_cluster(tmp_path):
    names = write_manifests(manifests(PLANS["everything"], Target.DEPLOYMENT), tmp_path / "k8s")
    (tmp_path / "k8s/kustomization.yaml").write_text(yaml.safe_dump({"resources": names}))
    built = [one for one in yaml.safe_load_all(kubectl("kustomize", str(tmp_path / "k8s"))) if one]
    assert by_name(built) == by_name(manifests(PLANS["everything"], Target.DEPLOYMENT))
    (deployment,) = (tmp_path / "k8s").glob("*-deployment-*.yaml")
    changed = kubectl("set", "image", "--local", "-f", str(deployment), "gateway=other:2", "-o", "json")
    assert json.loads(changed)["spec"]["template"]["spec"]["containers"][0]["image"] == "other:2"
