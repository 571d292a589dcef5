"""Pods of a gateway: one container, no rights, a file system that is read-only but for what it must write."""

from __future__ import annotations

from typing import Any

from noria.serving.kubernetes.plan import ClusterPlan, Tier
from noria.serving.names import dns_label
from noria.serving.package.manifest import PREDICTIONS_FOLDER, STATE_FOLDER
from noria.serving.package.recipe import IMAGE_PACKAGE, IMAGE_USER

Manifest = dict[str, Any]

DRAIN_SECONDS = 30
"""At least what `noria serve` takes to end: it answers what it took on, and closes its connections."""
_UNROUTE_SECONDS = 5
"""How long the cluster may go on sending to a pod that is told to end."""
_PART_OF = "app.kubernetes.io/part-of"
_NAME, _COMPONENT, _VARIANT = "app.kubernetes.io/name", "app.kubernetes.io/component", "noria/variant"
_GATEWAY = "gateway"


def labels(plan: ClusterPlan, tier: Tier | None = None) -> dict[str, str]:
    """What selects the pods of a deployment, or of one of its tiers."""
    found = {_NAME: plan.name, _COMPONENT: _GATEWAY}
    return found | ({_VARIANT: dns_label(tier.variant)} if tier is not None and tier.variant else {})


def metadata(plan: ClusterPlan, name: str, tier: Tier | None = None) -> Manifest:
    """Name, namespace, and whose it is."""
    routes = plan.routes if tier is None else tier.routes
    champion = routes.variants[0]
    return {
        "name": name,
        "namespace": plan.namespace,
        "labels": {
            **labels(plan, tier),
            "app.kubernetes.io/version": str(champion.version),
            "app.kubernetes.io/managed-by": "noria",
            _PART_OF: "noria",
        },
        "annotations": {
            "noria/deployment": routes.deployment,
            "noria/model": champion.model,
            "noria/route-revision": str(routes.revision),
        },
    }


def pod_template(plan: ClusterPlan, tier: Tier) -> Manifest:
    """The pods of a tier; their labels change with nothing that a running gateway takes over by itself."""
    return {
        "metadata": {
            "labels": {**labels(plan, tier), _PART_OF: "noria"},
            "annotations": {"kubectl.kubernetes.io/default-container": _GATEWAY},
        },
        "spec": {
            **pod_spec(plan, tier, container(plan)),
            "nodeSelector": {},
            "tolerations": [],
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": key,
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": labels(plan, tier)},
                }
                for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
            ],
        },
    }


def pod_spec(plan: ClusterPlan, tier: Tier, main: Manifest) -> Manifest:
    """What any kind of pod around the container has."""
    spec: Manifest = {
        "serviceAccountName": plan.account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _UNROUTE_SECONDS + DRAIN_SECONDS,
        "securityContext": {"fsGroup": IMAGE_USER},
        "containers": [main],
        "volumes": volumes(plan, tier),
    }
    return spec | ({"imagePullSecrets": [{"name": plan.pull_secret}]} if plan.pull_secret else {})


def container(plan: ClusterPlan, name: str = _GATEWAY, port_name: str = "http") -> Manifest:
    """The gateway itself."""
    return {
        "name": name,
        "image": plan.image,
        "ports": [{"name": port_name, "containerPort": plan.port, "protocol": "TCP"}, *rpc_port(plan, "containerPort")],
        "env": environment(plan),
        **credentials(plan),
        "startupProbe": _probe(plan, "/health", periodSeconds=2, timeoutSeconds=2, failureThreshold=120),
        "readinessProbe": _probe(plan, "/v2/health/ready", periodSeconds=5, timeoutSeconds=2, failureThreshold=2),
        "livenessProbe": _probe(plan, "/v2/health/live", periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_UNROUTE_SECONDS)]}}},
        "resources": resources(plan),
        "securityContext": security(),
        "volumeMounts": mounts(),
    }


def environment(plan: ClusterPlan) -> list[Manifest]:
    """Settings that differ from the image's own."""
    named = {
        "NORIA_GATEWAY__HOST": "0.0.0.0",
        "NORIA_GATEWAY__PORT": str(plan.port),
        "NORIA_GATEWAY__WORKERS": str(plan.workers),
    }
    if plan.grpc_port:
        named["NORIA_GATEWAY__GRPC_PORT"] = str(plan.grpc_port)
    return [{"name": name, "value": value} for name, value in named.items()]


def rpc_port(plan: ClusterPlan, field: str, **more: str) -> list[Manifest]:
    """The port of gRPC, where there is one; ``field`` is what its number is called."""
    return [{"name": "grpc", field: plan.grpc_port, **more, "protocol": "TCP"}] if plan.grpc_port else []


def credentials(plan: ClusterPlan) -> Manifest:
    """The Secret whose keys become environment variables."""
    return {"envFrom": [{"secretRef": {"name": plan.secret}}]} if plan.secret else {}


def resources(plan: ClusterPlan) -> Manifest:
    """Requests and limits; memory is always limited, so that one pod takes no other's."""
    asked = plan.resources
    limits = {"memory": asked.memory_limit or asked.memory} | ({"cpu": asked.cpu_limit} if asked.cpu_limit else {})
    return {"requests": {"cpu": asked.cpu, "memory": asked.memory}, "limits": limits}


def security() -> Manifest:
    """What the Pod Security Standard `restricted` asks of a container, and no writing to its image."""
    return {
        "runAsNonRoot": True,
        "runAsUser": IMAGE_USER,
        "runAsGroup": IMAGE_USER,
        "seccompProfile": {"type": "RuntimeDefault"},
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def mounts() -> list[Manifest]:
    """Where the volumes go."""
    return [
        {"name": "routes", "mountPath": f"{IMAGE_PACKAGE}/{STATE_FOLDER}/routes", "readOnly": True},
        {"name": "predictions", "mountPath": f"{IMAGE_PACKAGE}/{PREDICTIONS_FOLDER}"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]


def volumes(plan: ClusterPlan, tier: Tier) -> list[Manifest]:
    """The routes, which a gateway takes over while it runs; the prediction log; room for temporary files."""
    listed = {"key": "routes.json", "path": f"{plan.routes.deployment}.json"}
    routes: Manifest = {"configMap": {"name": routes_name(tier), "items": [listed]}}
    log: Manifest = {"persistentVolumeClaim": {"claimName": plan.log_claim}} if plan.log_claim else {"emptyDir": {}}
    return [
        {"name": "routes"} | routes,
        {"name": "predictions"} | log,
        {"name": "tmp", "emptyDir": {}},
    ]


def routes_name(tier: Tier) -> str:
    """The ConfigMap with a tier's routes."""
    return f"{tier.name}-routes"


def _probe(plan: ClusterPlan, path: str, **numbers: int) -> Manifest:
    return {"httpGet": {"path": path, "port": plan.port}, **numbers}
