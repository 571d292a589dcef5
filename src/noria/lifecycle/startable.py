"""Whether a rollout may begin in a deployment, and against which version."""

from __future__ import annotations

from noria.errors import Conflict
from noria.registry import Stage
from noria.rollout import Rollout, Variant, current_routes
from noria.rollout.deployments import all_deployments, check_served, find_deployment, serves_production
from noria.rollout.moves import check_none_open
from noria.rollout.records import open_rollout
from noria.store.database import Transaction


def champion_of(tx: Transaction, deployment: str) -> Variant:
    """The version that serves. Raises Conflict where none does."""
    check_served(tx, deployment)
    routes = current_routes(tx, deployment)
    if routes is None:
        raise Conflict(f"nothing is deployed as {deployment!r}", remedy="Deploy a first version with `noria deploy`.")
    return routes.variants[0]


def check_startable(tx: Transaction, deployment: str, model: str) -> None:
    """Raises Conflict while another rollout decides about the same, and where a promotion would change nothing."""
    check_none_open(tx, deployment)
    if (beside := rollout_beside(tx, deployment, model)) is not None:
        other = beside.deployment
        raise Conflict(
            f"rollout {beside.rollout_id[:8]} of {other!r} is under way, which serves the version of {model!r} in "
            f"Production, as {deployment!r} does",
            remedy=f"Promote or abort that one first, with `noria rollout promote {other}` or `noria rollout abort "
            f"{other}`: one at a time decides what is in Production.",
        )
    record = find_deployment(tx, deployment)
    if record is not None and record.follows and not record.follows.startswith(("@", Stage.PRODUCTION)):
        raise Conflict(
            f"deployment {deployment!r} serves what is in {record.follows}, and a version that is promoted enters "
            "Production",
            remedy="Roll out to a deployment that follows Production, an alias, or nothing.",
        )


def rollout_beside(tx: Transaction, deployment: str, model: str) -> Rollout | None:
    """The rollout under way in another deployment that decides what is in Production, where this one serves that too.

    Of two, the one that is promoted would archive the champion that the other goes back to.
    """
    if not serves_production(tx, deployment, model):
        return None
    for other in all_deployments(tx):
        is_other = other.model == model and other.deployment != deployment
        rollout = open_rollout(tx, other.deployment) if is_other else None
        if rollout is not None and serves_production(tx, other.deployment, model):
            return rollout
    return None
