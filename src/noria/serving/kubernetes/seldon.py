"""Seldon Core 1: a SeldonDeployment with a predictor a variant, around the gateway."""

from __future__ import annotations

from noria.errors import InvalidInput
from noria.serving.kubernetes.plan import Autoscaler, ClusterPlan, Tier, whole_shares
from noria.serving.kubernetes.pods import Manifest, container, metadata, pod_spec
from noria.serving.kubernetes.scaling import cpu_metric
from noria.serving.kubernetes.workload import routes_map, service_account


def seldon(plan: ClusterPlan) -> list[Manifest]:
    """Every object of a deployment. Raises InvalidInput for a name that Seldon would ask for another by."""
    if plan.name != plan.routes.deployment:
        raise InvalidInput(
            f"Seldon asks a model by the name of its graph, which {plan.routes.deployment!r} cannot be",
            remedy="Deploy it under another name, of lower-case letters, digits and -: `noria deploy ... --name`.",
        )
    if plan.scaling.autoscaler is Autoscaler.KEDA:
        raise InvalidInput("KEDA is not told of Seldon's pods", remedy="Use --autoscale hpa, or none.")
    tiers = plan.tiers
    shares = whole_shares([one.percent for one in plan.routes.answering]) if len(tiers) > 1 else [100]
    found = [] if plan.service_account else [service_account(plan)]
    found += [routes_map(plan, tier) for tier in tiers]
    predictors = [_predictor(plan, tier, share) for tier, share in zip(tiers, shares, strict=True)]
    return [
        *found,
        {
            "apiVersion": "machinelearning.seldon.io/v1",
            "kind": "SeldonDeployment",
            "metadata": metadata(plan, plan.name),
            "spec": {"name": plan.name, "protocol": "v2", "predictors": predictors},
        },
    ]


def _predictor(plan: ClusterPlan, tier: Tier, share: int) -> Manifest:
    scaling = plan.scaling
    component: Manifest = {"spec": pod_spec(plan, tier, container(plan, plan.name))}
    replicas: Manifest = {"replicas": scaling.replicas}
    if scaling.autoscaler is Autoscaler.HPA:
        bounds = {"minReplicas": scaling.minimum, "maxReplicas": scaling.maximum}
        component["hpaSpec"] = {**bounds, "metricsv2": [cpu_metric(plan)]}
        replicas = {}
    return {
        "name": tier.variant or "gateway",
        "traffic": share,
        **replicas,
        "componentSpecs": [component],
        "graph": {"name": plan.name, "type": "MODEL", "endpoint": {"type": "REST", "httpPort": plan.port}},
    }
