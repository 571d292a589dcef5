"""Manifests and charts before the tools that clusters are run with."""

from __future__ import annotations

import json
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


def rendered(folder: Path, *words: str, namespace: str = "ml") -> list[dict[str, Any]]:
    text = helm("template", "any", str(folder), "--namespace", namespace, *words)
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
    found = rendered(folder)
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


@pytest.mark.parametrize("wrong", ["imagee=x", "autoscaling.maxReplicas=many", "networkPolicy.enabled=perhaps"])
def test_a_value_that_is_none_is_refused_by_the_schema(tmp_path, wrong):
    write_files(chart_files(PLANS["everything"]), tmp_path / "chart")
    refused = helm("template", "any", str(tmp_path / "chart"), "--set", wrong, check=False)
    assert "values don't meet the specifications of the schema" in refused


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
