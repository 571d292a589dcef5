"""What manifests can be written for."""

from __future__ import annotations

from enum import StrEnum

from noria.serving.kubernetes.kserve import KServeOptions, kserve
from noria.serving.kubernetes.plan import ClusterPlan
from noria.serving.kubernetes.pods import Manifest
from noria.serving.kubernetes.seldon import seldon
from noria.serving.kubernetes.workload import workload


class Target(StrEnum):
    """Plain Kubernetes, operators that serve models, or a chart."""

    DEPLOYMENT = "deployment"
    KSERVE = "kserve"
    SELDON = "seldon"
    HELM = "helm"


def manifests(plan: ClusterPlan, target: Target, options: KServeOptions | None = None) -> list[Manifest]:
    """Every object a target takes, in order; those of a chart are its rendering. Raises InvalidInput."""
    plan.check()
    if target is Target.KSERVE:
        return kserve(plan, options or KServeOptions())
    if target is Target.SELDON:
        return seldon(plan)
    return workload(plan)
