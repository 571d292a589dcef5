"""How many pods: by the processors they use, or by the predictions that Prometheus counts."""

from __future__ import annotations

import re

from noria.serving.kubernetes.plan import Autoscaler, ClusterPlan, Tier
from noria.serving.kubernetes.pods import Manifest, metadata

_CALM_SECONDS = 300
"""How long a lower load must last before pods are taken away."""


def autoscaler(plan: ClusterPlan, tier: Tier) -> Manifest:
    """What changes the number of a tier's pods."""
    return _scaled_object(plan, tier) if plan.scaling.autoscaler is Autoscaler.KEDA else _horizontal(plan, tier)


def cpu_metric(plan: ClusterPlan) -> Manifest:
    """The average share of the requested processors that is aimed at."""
    target = {"type": "Utilization", "averageUtilization": plan.scaling.cpu_percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def _horizontal(plan: ClusterPlan, tier: Tier) -> Manifest:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(plan, tier.name, tier),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": tier.name},
            "minReplicas": plan.scaling.minimum,
            "maxReplicas": plan.scaling.maximum,
            "metrics": [cpu_metric(plan)],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": _CALM_SECONDS}},
        },
    }


def _scaled_object(plan: ClusterPlan, tier: Tier) -> Manifest:
    trigger = {
        "type": "prometheus",
        "metadata": {
            "serverAddress": plan.scaling.prometheus,
            "query": predictions_query(plan, tier),
            "threshold": str(plan.scaling.predictions_per_second),
        },
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(plan, tier.name, tier),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": tier.name},
            "minReplicaCount": plan.scaling.minimum,
            "maxReplicaCount": plan.scaling.maximum,
            "cooldownPeriod": _CALM_SECONDS,
            "triggers": [trigger],
        },
    }


def predictions_query(plan: ClusterPlan, tier: Tier) -> str:
    """PromQL: the predictions a second that the pods of a tier answer together; the monitor scrapes one service."""
    models = "|".join(sorted({re.escape(one.model) for one in tier.routes.variants}))
    pods = {"namespace": plan.namespace, "service": plan.name}
    matchers = [f"{name}={_quoted(value)}" for name, value in pods.items()] + [f"model_name=~{_quoted(models)}"]
    if tier.variant:
        matchers.append(f"variant={_quoted(tier.variant)}")
    return f"sum(rate(model_predictions_total{{{','.join(matchers)}}}[1m]))"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'
