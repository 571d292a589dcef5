"""Which version answers which request, and how a new one earns its share."""

from noria.rollout.canary import CanaryPolicy, Decision, judge_step
from noria.rollout.routes import RouteTable, Variant, current_routes, publish, read_routes, set_routes

__all__ = [
    "CanaryPolicy",
    "Decision",
    "RouteTable",
    "Variant",
    "current_routes",
    "judge_step",
    "publish",
    "read_routes",
    "set_routes",
]
