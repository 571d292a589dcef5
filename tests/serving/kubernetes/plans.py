"""Deployments to write manifests of, without a registry behind them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from noria.rollout import RouteTable, Variant
from noria.serving.kubernetes import ClusterPlan

AT = datetime(2026, 3, 1, tzinfo=UTC)


def variant(name: str, version: int, percent: float, *, shadow: bool = False) -> Variant:
    return Variant(name, "churn", version, f"served/churn/{version}", f"{version:064x}", percent, shadow)


def routes(*percents: float, deployment: str = "churn", shadow: bool = False) -> RouteTable:
    """A champion, and a challenger for every further share."""
    names = ["champion", *(f"challenger-{number}" for number in range(1, len(percents)))]
    variants = [
        variant(name, place + 1, share) for place, (name, share) in enumerate(zip(names, percents, strict=True))
    ]
    shadows = [variant("shadow", 9, 100, shadow=True)] if shadow else []
    return RouteTable(deployment, 4, (*variants, *shadows), "a {{canary}} <step>", AT, salt="s", addresses={"live": 1})


def plan(*percents: float, deployment: str = "churn", shadow: bool = False, **options: Any) -> ClusterPlan:
    table = routes(*(percents or (100,)), deployment=deployment, shadow=shadow)
    return ClusterPlan(**{"routes": table, "image": "registry.example.com/churn:3", "namespace": "ml"} | options)
