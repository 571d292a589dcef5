"""Manifests: what a cluster is told to run a deployment as it serves now."""

from noria.serving.kubernetes.plan import Autoscaler, ClusterPlan, Exposure, Resources, Scaling, Split
from noria.serving.kubernetes.targets import Target, manifests
from noria.serving.kubernetes.writing import write_manifests

__all__ = [
    "Autoscaler",
    "ClusterPlan",
    "Exposure",
    "Resources",
    "Scaling",
    "Split",
    "Target",
    "manifests",
    "write_manifests",
]
