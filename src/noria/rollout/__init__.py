"""Which version answers which request, and how a new one earns its share."""

from noria.rollout.plan import Plan, Strategy
from noria.rollout.records import Decision, Rollout
from noria.rollout.routes import RouteTable, Variant, current_routes, publish, read_routes, set_routes

__all__ = [
    "Decision",
    "Plan",
    "Rollout",
    "RouteTable",
    "Strategy",
    "Variant",
    "current_routes",
    "publish",
    "read_routes",
    "set_routes",
]
