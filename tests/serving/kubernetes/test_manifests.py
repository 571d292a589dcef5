"""Manifests: valid to the last key, and saying what the deployment is."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from noria.errors import Conflict, InvalidInput
from noria.rollout import read_routes
from noria.serving.kubernetes import Autoscaler, Exposure, Resources, Scaling, Split, Target, manifests, write_manifests
from noria.serving.kubernetes.chart import chart_files
from noria.serving.kubernetes.jobs import BatchOptions, batch_job
from noria.serving.kubernetes.kserve import KServeOptions
from noria.serving.kubernetes.network import route_weights
from noria.serving.kubernetes.plan import whole_shares
from noria.serving.kubernetes.pods import DRAIN_SECONDS
from noria.serving.kubernetes.quantities import cpu, memory
from noria.surface.cli import pool
from noria.surface.cli.deploy import app as cli
from noria.surface.cli.kubernetes import _scaling
from serving.kubernetes.plans import plan

CORE = ("", "apps", "batch", "policy", "autoscaling", "networking.k8s.io")
PUBLIC = Exposure(("churn.example.com",), gateway="infra/public")
SCALED = Scaling(Autoscaler.HPA, maximum=8)
BY_RATE = Scaling(Autoscaler.KEDA, prometheus="http://prometheus.monitoring:9090")
PLANS = {
    "plain": plan(),
    "everything": plan(90, 10, shadow=True, exposure=PUBLIC, scaling=SCALED, secret="stores", pull_secret="registry",
                       log_claim="log", allow_from=("web",), egress_ports=(6379,),
                       resources=Resources("1", "1Gi", "2", "2Gi")),
    "mesh": plan(90, 9.5, 0.5, split=Split.MESH, exposure=PUBLIC, scaling=BY_RATE),
    "own gateway": plan(grpc_port=8001,
                        exposure=Exposure(("a.example.com",), gateway_class="envoy", tls_secret="cert")),
    "odd names": plan(70, 30, deployment="Ümläut, very long: " + "x" * 80, split=Split.MESH),
}  # fmt: skip
JOBS = {
    "once": BatchOptions("s3://data/in/*.parquet", "s3://data/out/"),
    "nightly": BatchOptions("in.csv", "out.csv", 4, 5, "0 3 * * MON-FRI", "Europe/Vienna"),
}


def of_kind(found, kind):
    return [one for one in found if one["kind"] == kind]


def check_core(found) -> None:
    """Every object that is Kubernetes' own, against its schema, unknown keys being errors."""
    for one in found:
        if one["apiVersion"].rpartition("/")[0] in CORE:
            kubernetes_validate.validate(one, "1.33", strict=True)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("target", [Target.DEPLOYMENT, Target.KSERVE, Target.SELDON])
def test_what_is_kubernetes_own_is_valid_to_the_last_key(name, target):
    try:
        found = manifests(PLANS[name], target)
    except InvalidInput:
        assert target is not Target.DEPLOYMENT  # operators do not take every plan
        return
    check_core(found)
    names = Counter((one["kind"], one["metadata"]["name"]) for one in found)
    assert target is Target.KSERVE or max(names.values()) == 1


@pytest.mark.parametrize("name", JOBS)
def test_a_batch_job_runs_the_command_line(name):
    found = batch_job(plan(), JOBS[name])
    check_core(found)
    spec = found[-1]["spec"]["jobTemplate"]["spec"] if name == "nightly" else found[-1]["spec"]
    command = spec["template"]["spec"]["containers"][0]["command"]
    options = JOBS[name]
    assert command[:3] == ["noria", "predict", "batch"]
    assert command[5:11] == ["--deployment", "churn", "--input", options.input, "--output", options.output]
    assert command[11:] == ["--parallelism", str(options.parallelism), "--max-retries", str(options.max_retries)]
    assert found[-1]["kind"] == ("CronJob" if name == "nightly" else "Job")


def test_a_pod_is_probed_where_the_gateway_answers_and_ends_after_it_is_drained():
    (one,) = of_kind(manifests(plan(), Target.DEPLOYMENT), "Deployment")
    spec = one["spec"]["template"]["spec"]
    (gateway,) = spec["containers"]
    probed = {name: gateway[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert list(probed.values()) == ["/health", "/v2/health/ready", "/v2/health/live"]
    sleeps = int(gateway["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pool._STOP_SECONDS < DRAIN_SECONDS
    assert spec["terminationGracePeriodSeconds"] >= sleeps + DRAIN_SECONDS


def test_a_pod_has_no_rights_and_writes_only_where_it_must():
    (one,) = of_kind(manifests(plan(), Target.DEPLOYMENT), "Deployment")
    spec = one["spec"]["template"]["spec"]
    (gateway,) = spec["containers"]
    rights = gateway["securityContext"]
    assert rights["runAsNonRoot"] and rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
    assert rights["capabilities"] == {"drop": ["ALL"]} and rights["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    writable = [mount["mountPath"] for mount in gateway["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/opt/noria/package/model/predictions", "/tmp"]


def test_the_gateway_gets_the_whole_split_by_default():
    found = manifests(plan(90, 10), Target.DEPLOYMENT)
    assert len(of_kind(found, "Deployment")) == 1
    (route_map,) = of_kind(found, "ConfigMap")
    document = json.loads(route_map["data"]["routes.json"])
    assert [one["percent"] for one in document["variants"]] == [90, 10]
    assert of_kind(found, "HTTPRoute") == []


def test_a_mesh_gets_weights_and_pods_of_each_variant(tmp_path):
    found = manifests(PLANS["mesh"], Target.DEPLOYMENT)
    (route,) = of_kind(found, "HTTPRoute")
    backends = route["spec"]["rules"][0]["backendRefs"]
    assert [(one["name"], one["weight"]) for one in backends] == [
        ("churn--champion", 9000), ("churn--challenger-1", 950), ("churn--challenger-2", 50)]  # fmt: skip
    services = {one["metadata"]["name"]: one["spec"]["selector"] for one in of_kind(found, "Service")}
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in of_kind(found, "Deployment")
    }
    for name, labels in pods.items():
        selected = [service for service, selector in services.items() if selector.items() <= labels.items()]
        assert sorted(selected) == sorted([name, "churn"])
    for one in of_kind(found, "ConfigMap"):
        (tmp_path / "routes.json").write_text(one["data"]["routes.json"])
        table = read_routes(tmp_path / "routes.json")
        assert [share.percent for share in table.answering] == [100]
        assert table.revision == 4  # what is logged stays with its step of the rollout


def test_shadows_get_the_champions_requests():
    found = manifests(plan(90, 10, shadow=True, split=Split.MESH), Target.DEPLOYMENT)
    tables = [json.loads(one["data"]["routes.json"])["variants"] for one in of_kind(found, "ConfigMap")]
    assert [[one["name"] for one in table] for table in tables] == [["champion", "shadow"], ["challenger-1"]]


def test_pods_are_scraped_once_and_asked_only_from_where_they_may_be():
    found = manifests(PLANS["everything"], Target.DEPLOYMENT)
    (monitor,), (policy,) = of_kind(found, "ServiceMonitor"), of_kind(found, "NetworkPolicy")
    chosen = [
        one for one in of_kind(manifests(PLANS["mesh"], Target.DEPLOYMENT), "Service")
        if monitor["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]  # fmt: skip
    assert [one["metadata"]["name"] for one in chosen] == ["churn"]
    (ingress,) = policy["spec"]["ingress"]
    spaces = [one["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for one in ingress["from"]]
    assert spaces == ["web", "infra", "monitoring"] and ingress["ports"] == [{"protocol": "TCP", "port": "http"}]
    assert [rule["ports"] for rule in policy["spec"]["egress"]][1:] == [[{"protocol": "TCP", "port": 6379}]]


@pytest.mark.parametrize(
    ("options", "askers"),
    [
        ({}, ["ml"]),
        ({"allow_from": ("web",)}, ["web"]),
        ({"exposure": PUBLIC}, ["ml", "infra"]),
        ({"exposure": PUBLIC, "allow_from": ("infra", "web")}, ["infra", "web"]),
        ({"exposure": Exposure(("a.example.com",), gateway="public"), "allow_from": ("web",)}, ["web", "ml"]),
        ({"exposure": Exposure(gateway_class="envoy"), "allow_from": ("web",)}, ["web", "ml"]),
    ],
)
def test_a_gateway_is_let_in_wherever_it_is(options, askers):
    (policy,) = of_kind(manifests(plan(**options), Target.DEPLOYMENT), "NetworkPolicy")
    (ingress,) = policy["spec"]["ingress"]
    spaces = [one["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for one in ingress["from"]]
    assert spaces == [*askers, "monitoring"]


def test_keda_asks_for_this_deployments_predictions():
    champion, *_ = of_kind(manifests(PLANS["mesh"], Target.DEPLOYMENT), "ScaledObject")
    query = champion["spec"]["triggers"][0]["metadata"]["query"]
    pods = 'namespace="ml",service="churn",model_name=~"churn",variant="champion"'
    assert query == f"sum(rate(model_predictions_total{{{pods}}}[1m]))"
    assert "replicas" not in of_kind(manifests(PLANS["mesh"], Target.DEPLOYMENT), "Deployment")[0]["spec"]


def test_kserve_gives_the_newest_revision_the_challengers_share():
    first, second = of_kind(manifests(plan(90, 10, split=Split.MESH), Target.KSERVE), "InferenceService")
    assert "canaryTrafficPercent" not in first["spec"]["predictor"]
    assert second["spec"]["predictor"]["canaryTrafficPercent"] == 10
    assert first["metadata"]["name"] == second["metadata"]["name"] == "churn"
    (port,) = first["spec"]["predictor"]["containers"][0]["ports"]
    assert port["name"] == "http1"
    with pytest.raises(InvalidInput, match="between two revisions"):
        manifests(plan(80, 10, 10, split=Split.MESH), Target.KSERVE)


def test_kserve_fetches_a_model_from_the_store_and_the_route_says_where_it_lies(tmp_path):
    found = manifests(plan(90, 10, split=Split.MESH), Target.KSERVE, KServeOptions(storage="s3://models/noria"))
    uris = [one["spec"]["predictor"]["model"]["storageUri"] for one in of_kind(found, "InferenceService")]
    assert uris == ["s3://models/noria/served/churn/1", "s3://models/noria/served/churn/2"]
    runtime, _ = of_kind(found, "ServingRuntime")
    environment = {one["name"]: one["value"] for one in runtime["spec"]["containers"][0]["env"]}
    assert environment["NORIA_STORE__ARTIFACTS"] == "/mnt/models"
    (table, _) = [json.loads(one["data"]["routes.json"]) for one in of_kind(found, "ConfigMap")]
    assert table["variants"][0]["source"] == ""
    with pytest.raises(InvalidInput, match="fetches no model from 'az'"):
        manifests(plan(), Target.KSERVE, KServeOptions(storage="az://models"))


def test_seldon_divides_by_whole_percents_and_asks_by_the_graphs_name():
    (one,) = of_kind(manifests(plan(90, 9.5, 0.5, split=Split.MESH), Target.SELDON), "SeldonDeployment")
    predictors = one["spec"]["predictors"]
    assert [predictor["traffic"] for predictor in predictors] == [90, 10, 0]
    for predictor in predictors:
        (component,) = predictor["componentSpecs"]
        assert predictor["graph"]["name"] == component["spec"]["containers"][0]["name"] == "churn"
        assert predictor["graph"]["type"] == "MODEL"
    assert one["spec"]["protocol"] == "v2"
    with pytest.raises(InvalidInput, match="name of its graph"):
        manifests(plan(deployment="Churn"), Target.SELDON)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=6).filter(any))
def test_shares_stay_whole_and_sum_to_a_hundred(parts):
    percents = [100 * part / sum(parts) for part in parts]
    shares = whole_shares(percents)
    assert sum(shares) == 100
    assert all(abs(share - percent) <= 1 for share, percent in zip(shares, percents, strict=True))
    weights = route_weights(percents)
    assert all(
        abs(weight / sum(weights) - percent / 100) < 0.02 for weight, percent in zip(weights, percents, strict=True)
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resources": Resources(cpu="two")}, "'two' is no quantity"),
        ({"resources": Resources(cpu="512Mi")}, "536870912 processors|5.36871e"),
        ({"resources": Resources(cpu="0.0001")}, "'0.0001' is 0.0001 processors"),
        ({"resources": Resources(memory="512m")}, "is 0.512 bytes"),
        ({"resources": Resources(memory="2Gi", memory_limit="1Gi")}, "above its limit"),
        ({"resources": Resources(cpu="2", cpu_limit="1500m")}, "above its limit"),
        ({"scaling": Scaling(Autoscaler.HPA, minimum=5, maximum=2)}, "5 to 2 are no bounds"),
        ({"scaling": Scaling(Autoscaler.KEDA)}, "no Prometheus is named"),
        ({"scaling": Scaling(Autoscaler.KEDA, prometheus="prometheus:9090")}, "no URL of a Prometheus"),
        ({"exposure": Exposure(("m.example.com",), gateway="g", tls_secret="tls")}, "a Gateway that is made"),
        ({"exposure": Exposure(("Models.example.com",), gateway="g")}, "no host name"),
        ({"exposure": Exposure(("m.example.com",))}, "nothing listens for m.example.com"),
        ({"exposure": Exposure(gateway="g", gateway_class="c")}, "two Gateways"),
        ({"exposure": Exposure(gateway="infra/public/more")}, "no Gateway"),
        ({"exposure": Exposure(gateway="infra/")}, "no Gateway"),
        ({"exposure": Exposure(gateway="-/public")}, "no namespace"),
        ({"namespace": "My_Space"}, "no namespace"),
        ({"egress_ports": (6379, 99_999)}, "99999 is no TCP port"),
        ({"egress_ports": (-5,)}, "-5 is no TCP port"),
        ({"port": 0}, "0 is no TCP port"),
        ({"grpc_port": 70_000}, "70000 is no TCP port"),
        ({"grpc_port": 8000}, "cannot both have port 8000"),
        ({"image": "a b"}, "no image"),
        ({"image": "R.io/X:tag"}, "no image"),
        ({"image": "r.io/x:tag:tag"}, "no image"),
        ({"image": "r.io/x:1 --privileged"}, "no image"),
        ({"secret": "Bad Name"}, "--secret 'Bad Name' is a name that no cluster takes"),
        ({"pull_secret": "-a"}, "--pull-secret"),
        ({"service_account": "Foo_"}, "--service-account"),
        ({"log_claim": "a..b"}, "--log-claim"),
        ({"exposure": Exposure(("m.example.com",), gateway_class="Envoy")}, "--gateway-class"),
        ({"exposure": Exposure(("m.example.com",), gateway_class="c", tls_secret="a/b")}, "--tls-secret"),
        ({"exposure": Exposure(("10.0.0.1",), gateway="g")}, "is an IP address"),
    ],
)  # fmt: skip
def test_what_no_cluster_would_take_is_told_before(options, words):
    for written in (
        lambda: manifests(plan(**options), Target.DEPLOYMENT),
        lambda: chart_files(plan(**options)),
        lambda: batch_job(plan(**options), JOBS["once"]),
    ):
        with pytest.raises(InvalidInput, match=words):
            written()


@pytest.mark.parametrize("image", ["churn", "localhost:5000/a/b_c:1.2", f"R.io/x@sha256:{'a' * 64}", "r.io/x--y:V_1"])
def test_images_are_named_as_registries_do(image):
    (one,) = of_kind(manifests(plan(image=image), Target.DEPLOYMENT), "Deployment")
    assert one["spec"]["template"]["spec"]["containers"][0]["image"] == image


def test_a_transformer_is_an_image():
    with pytest.raises(InvalidInput, match="'bad image' is no image"):
        manifests(plan(), Target.KSERVE, KServeOptions("bad image"))


def test_bounds_of_pods_that_nothing_scales_are_told():
    assert _scaling(None, None, None).autoscaler is Autoscaler.NONE
    assert _scaling(None, 12, 20) == Scaling(Autoscaler.HPA, minimum=12, maximum=20)
    assert _scaling(Autoscaler.HPA, 12, None) == Scaling(Autoscaler.HPA, minimum=12, maximum=12)
    for asked in ((None, 3, None), (Autoscaler.NONE, None, 5), (Autoscaler.NONE, 2, None)):
        with pytest.raises(InvalidInput, match="bounds nothing"):
            _scaling(*asked)


def test_a_gateway_without_a_namespace_is_one_of_the_deployments():
    found = plan(exposure=Exposure(("m.example.com",), gateway="public"))
    (route,) = of_kind(manifests(found, Target.DEPLOYMENT), "HTTPRoute")
    assert route["spec"]["parentRefs"] == [{"name": "public"}] and found.askers == ["ml"]


def test_a_charts_objects_are_named_by_their_release():
    files = chart_files(PLANS["mesh"])
    templates = {name: text for name, text in files.items() if name.endswith(".yaml") and "/" in name}
    for name, text in templates.items():
        assert """name: '{{ include "noria.fullname" . }}""" in text, name
        assert "%" not in name and "%name%" not in text
    assert 'define "noria.fullname"' in files["templates/_helpers.tpl"]
    assert set(yaml.safe_load(files["values.yaml"])["weights"]) == {
        "churn--champion", "churn--challenger-1", "churn--challenger-2"}  # fmt: skip


def test_a_job_without_its_ends_names_the_options_that_the_command_has():
    with pytest.raises(InvalidInput) as refused:
        batch_job(plan(), BatchOptions("in.csv", ""))
    named = re.findall(r"--[a-z-]+", refused.value.remedy)
    known = {option for parameter in get_command(cli).commands["k8s"].params for option in parameter.opts}
    assert len(named) == 2 and known.issuperset(named)


def test_a_choice_by_features_stays_in_the_gateway():
    table = replace(plan(50, 50).routes, contextual={"arms": []})
    with pytest.raises(InvalidInput, match="which a mesh does not see"):
        manifests(replace(plan(), routes=table, split=Split.MESH), Target.DEPLOYMENT)


_NO_SCHEDULES = ["every night", "0 3 * *", "60 * * * * *", "@reboot", "99 * * * *", "0 24 * * *", "0 0 0 * *"]
_NO_SCHEDULES += ["0 0 * * 7", "0 0 * 13 *", "0 0 * foo *", "9-5 * * * *", "*/0 * * * *", "1,,2 * * * *", "-1 * * * *"]


@pytest.mark.parametrize("schedule", _NO_SCHEDULES)
def test_what_is_no_schedule_is_told(schedule):
    with pytest.raises(InvalidInput, match="no schedule"):
        batch_job(plan(), BatchOptions("a", "b", schedule=schedule))


@pytest.mark.parametrize(
    "schedule", ["@daily", "*/5 00-09,17 ? jan-MAR,12 Mon-fri", "0  3 1-31/2 * 0", "59 23 31 12 6"]
)
def test_schedules_are_those_of_kubernetes(schedule):
    *_, job = batch_job(plan(), BatchOptions("a", "b", schedule=schedule))
    assert job["spec"]["schedule"] == schedule


def test_quantities_are_read_as_kubernetes_does():
    assert [cpu(text) for text in ("500m", "0.5", ".5", "5e-1")] == [cpu("500m")] * 4
    assert memory("1Gi") == 1024 * memory("1Mi") == 1024**3
    assert memory("1e9") == memory("1G") == 10**9


def test_files_are_written_in_order_and_others_are_left_alone(tmp_path):
    folder = tmp_path / "k8s"
    names = write_manifests(manifests(PLANS["mesh"], Target.DEPLOYMENT), folder)
    assert sorted(names) == names
    kinds = [yaml.safe_load((folder / name).read_text())["kind"] for name in names]
    assert kinds[0] == "ServiceAccount" and kinds[-1] == "HTTPRoute"
    again = write_manifests(manifests(plan(), Target.DEPLOYMENT), folder)
    assert sorted(path.name for path in folder.glob("*.yaml")) == again
    (folder / "mine.yaml").write_text("a: 1\n")
    with pytest.raises(Conflict, match=r"mine\.yaml"):
        write_manifests(manifests(plan(), Target.DEPLOYMENT), folder)


@pytest.mark.parametrize(
    ("schedule", "zone", "words"),
    [("", "Europe/Vienna", "without a schedule"), ("@daily", "Mars/Olympus", "no time zone")],
)
def test_a_time_zone_that_says_nothing_is_refused(schedule, zone, words):
    with pytest.raises(InvalidInput, match=words):
        batch_job(plan(), BatchOptions("a", "b", schedule=schedule, time_zone=zone))
