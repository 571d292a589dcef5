"""Which version answers which request, and how a new one earns its share."""

from typing import TYPE_CHECKING

from noria.lazy import lazily

if TYPE_CHECKING:
    from noria.rollout.plan import Plan, Strategy
    from noria.rollout.records import Decision, Rollout
    from noria.rollout.route_records import current_routes, set_routes
    from noria.rollout.routes import RouteTable, Variant, publish, read_routes

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

__getattr__ = lazily(
    __name__,
    {
        **dict.fromkeys(("Plan", "Strategy"), "plan"),
        **dict.fromkeys(("Decision", "Rollout"), "records"),
        **dict.fromkeys(("current_routes", "set_routes"), "route_records"),
        **dict.fromkeys(("RouteTable", "Variant", "publish", "read_routes"), "routes"),
    },
)
