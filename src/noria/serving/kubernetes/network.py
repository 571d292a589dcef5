"""How pods are reached: services, routes with weights, who may ask them and whom they may ask, who scrapes them."""

from __future__ import annotations

from collections.abc import Sequence

from noria.serving.kubernetes.plan import ClusterPlan, Tier
from noria.serving.kubernetes.pods import Manifest, labels, metadata, rpc_port

_GATEWAY_API = "gateway.networking.k8s.io"
_COMPONENT = "app.kubernetes.io/component"
_NAMESPACE = "kubernetes.io/metadata.name"
_WEIGHT_DECIMALS = 2
_SCRAPE = "15s"


def service(plan: ClusterPlan, tier: Tier | None = None) -> Manifest:
    """The pods of a deployment under one name; or those of one tier, for a route to weigh."""
    described = metadata(plan, plan.name if tier is None else tier.name, tier)
    if tier is not None:
        described["labels"][_COMPONENT] = "variant"  # scraped through the other service
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": described,
        "spec": {
            "type": "ClusterIP",
            "selector": labels(plan, tier),
            "ports": [
                {"name": "http", "port": plan.port, "targetPort": "http", "protocol": "TCP"},
                *rpc_port(plan, "port", targetPort="grpc"),
            ],
        },
    }


def service_monitor(plan: ClusterPlan) -> Manifest:
    """For the Prometheus operator: scrape every pod once."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(plan, plan.name),
        "spec": {
            "selector": {"matchLabels": labels(plan)},
            "namespaceSelector": {"matchNames": [plan.namespace]},
            "endpoints": [{"port": "http", "path": "/metrics", "interval": _SCRAPE}],
        },
    }


def network_policy(plan: ClusterPlan) -> Manifest:
    """It is asked from the askers' namespaces and the monitoring's; it asks name servers and its stores."""
    sources = [_namespace(one) for one in dict.fromkeys([*plan.askers, plan.monitoring])]
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    ports = ["http", *(["grpc"] if plan.grpc_port else [])]
    egress: list[Manifest] = [{"to": [_namespace("kube-system")], "ports": dns}]
    if plan.egress_ports:
        egress.append({"ports": [{"protocol": "TCP", "port": port} for port in sorted(set(plan.egress_ports))]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(plan, plan.name),
        "spec": {
            "podSelector": {"matchLabels": labels(plan)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": sources, "ports": [{"protocol": "TCP", "port": name} for name in ports]}],
            "egress": egress,
        },
    }


def own_gateway(plan: ClusterPlan) -> Manifest:
    """A Gateway of the class named, for this deployment alone."""
    exposure = plan.exposure
    tls = {"tls": {"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": exposure.tls_secret}]}}
    name, port, protocol = ("https", 443, "HTTPS") if exposure.tls_secret else ("http", 80, "HTTP")
    listeners: list[Manifest] = [
        {
            "name": f"{name}-{place}",
            "port": port,
            "protocol": protocol,
            **({"hostname": host} if host else {}),
            **(tls if exposure.tls_secret else {}),
            "allowedRoutes": {"namespaces": {"from": "Same"}},
        }
        for place, host in enumerate(exposure.hosts or [""])
    ]
    return {
        "apiVersion": f"{_GATEWAY_API}/v1",
        "kind": "Gateway",
        "metadata": metadata(plan, plan.name),
        "spec": {"gatewayClassName": exposure.gateway_class, "listeners": listeners},
    }


def http_route(plan: ClusterPlan) -> Manifest:
    """All requests to the deployment; where the mesh divides them, to each variant by its weight."""
    tiers = plan.tiers
    weights = route_weights([one.percent for one in plan.routes.answering]) if len(tiers) > 1 else [1]
    backends = [
        {"name": tier.name, "port": plan.port, "weight": weight} for tier, weight in zip(tiers, weights, strict=True)
    ]
    hosts = {"hostnames": list(plan.exposure.hosts)} if plan.exposure.hosts else {}
    return {
        "apiVersion": f"{_GATEWAY_API}/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(plan, plan.name),
        "spec": {"parentRefs": [_parent(plan)], **hosts, "rules": [{"backendRefs": backends}]},
    }


def route_weights(percents: Sequence[float]) -> list[int]:
    """Shares as weights: the percents themselves where they are whole, else hundredths of them."""
    if all(float(percent).is_integer() for percent in percents):
        return [int(percent) for percent in percents]
    return [round(percent * 10**_WEIGHT_DECIMALS) for percent in percents]


def _parent(plan: ClusterPlan) -> Manifest:
    """Whose requests are routed: a Gateway's, or without one those that pods of the mesh send to the service."""
    if plan.exposure.gateway_class:
        return {"name": plan.name}
    if not plan.exposure.gateway:
        return {"group": "", "kind": "Service", "name": plan.name, "port": plan.port}
    namespace, _, name = plan.exposure.gateway.rpartition("/")
    return {"name": name} | ({"namespace": namespace} if namespace else {})


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE: name}}}
