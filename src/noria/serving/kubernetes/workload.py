"""Plain Kubernetes: pods, their service, their number, who may reach them and who watches them."""

from __future__ import annotations

import json

from noria.rollout.routes import route_document
from noria.serving.kubernetes.network import http_route, network_policy, own_gateway, service, service_monitor
from noria.serving.kubernetes.plan import Autoscaler, ClusterPlan, Exposure, Split, Tier
from noria.serving.kubernetes.pods import Manifest, labels, metadata, pod_template, routes_name
from noria.serving.kubernetes.scaling import autoscaler


def workload(plan: ClusterPlan) -> list[Manifest]:
    """Every object of a deployment, in the order in which a cluster wants them."""
    found = [] if plan.service_account else [service_account(plan)]
    for tier in plan.tiers:
        found += _of_tier(plan, tier)
    found += [service(plan), network_policy(plan), service_monitor(plan)]
    if plan.exposure.gateway_class:
        found.append(own_gateway(plan))
    if plan.split is Split.MESH or plan.exposure != Exposure():
        found.append(http_route(plan))
    return found


def _of_tier(plan: ClusterPlan, tier: Tier) -> list[Manifest]:
    found = [routes_map(plan, tier), deployment(plan, tier), disruption_budget(plan, tier)]
    if plan.scaling.autoscaler is not Autoscaler.NONE:
        found.append(autoscaler(plan, tier))
    return found + ([service(plan, tier)] if tier.variant else [])


def service_account(plan: ClusterPlan) -> Manifest:
    """An account without any right."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(plan, plan.name),
        "automountServiceAccountToken": False,
    }


def routes_map(plan: ClusterPlan, tier: Tier) -> Manifest:
    """The routes of a tier: applied anew, they are swapped in without a restart."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(plan, routes_name(tier), tier),
        "data": {"routes.json": json.dumps(route_document(tier.routes), indent=1)},
    }


def deployment(plan: ClusterPlan, tier: Tier) -> Manifest:
    """The pods of a tier; a new image takes over without a moment in which fewer answer."""
    replicas = {} if plan.scaling.autoscaler is not Autoscaler.NONE else {"replicas": plan.scaling.replicas}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(plan, tier.name, tier),
        "spec": {
            **replicas,
            "revisionHistoryLimit": 5,
            "minReadySeconds": 5,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": labels(plan, tier)},
            "template": pod_template(plan, tier),
        },
    }


def disruption_budget(plan: ClusterPlan, tier: Tier) -> Manifest:
    """Nodes are drained one pod at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(plan, tier.name, tier),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels(plan, tier)}},
    }
