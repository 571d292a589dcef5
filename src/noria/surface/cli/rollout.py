"""`noria rollout`: send new versions out, see how they do, promote them or take them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from noria.clock import SystemClock
from noria.errors import InvalidInput, NotFound
from noria.registry import Policies
from noria.rollout import Rollout, Strategy
from noria.rollout.deployments import get_deployment, own_name
from noria.rollout.records import (
    RolloutDecision,
    RolloutStep,
    get_rollout,
    latest_shares,
    list_decisions,
    list_rollouts,
    list_steps,
    open_rollout,
    percent_now,
    seen_last,
    share_history,
)
from noria.store.database import Transaction
from noria.surface.cli.context import (
    JsonOption,
    ProjectOption,
    actor,
    clear_errors,
    open_governed,
    open_records,
    out,
    show,
    show_sections,
    talk,
)
from noria.surface.cli.rollout_words import flat, in_words, narrow, readable, rollout_row, shares_told

app = typer.Typer(no_args_is_help=True, add_completion=False, help="How new versions earn their traffic.")
WhichArgument = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name of the deployment, or a rollout's id.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.")]


@app.command()
@clear_errors
def start(
    addresses: Annotated[list[str], typer.Argument(metavar="MODEL...", help="models:/NAME/4; several for ab, bandit.")],
    strategy: Annotated[Strategy, typer.Option(help="How it meets the traffic.")] = Strategy.CANARY,
    deployment: Annotated[str, typer.Option(help="Name of the deployment; the model's own by default.")] = "",
    steps: Annotated[str, typer.Option(help="Percents, such as 5,10,25,50,100; of ab the challengers' share.")] = "",
    min_minutes: Annotated[float | None, typer.Option(help="canary, shadow: least duration of a step.")] = None,
    max_days: Annotated[float | None, typer.Option(help="Days after which the champion stays.")] = None,
    require: Annotated[
        list[str] | None, typer.Option(help="canary: guard without which no step ends; may be repeated.")
    ] = None,
    effect: Annotated[
        float | None, typer.Option(help="ab: difference in mean reward per unit that is worth finding.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="ab, bandit, the guard reward: which rewards count.", show_default="reward")
    ] = None,
    window_minutes: Annotated[
        float | None, typer.Option(help="ab, bandit: minutes until a unit's reward is final.", show_default="60")
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option(help="bandit: thompson, epsilon-greedy or linucb.", show_default="thompson")
    ] = None,
    floor: Annotated[float | None, typer.Option(help="bandit: share that each arm keeps.", show_default="0.05")] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="epsilon-greedy: share that it explores with.", show_default="0.1")
    ] = None,
    real_rewards: Annotated[bool, typer.Option("--real-rewards", help="bandit: any numbers, not 0 or 1.")] = False,
    by_hand: Annotated[bool, typer.Option("--by-hand", help="Wait for `noria rollout promote` in the end.")] = False,
    reason: ReasonOption = "",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send versions out beside the one that serves: canary, blue_green, shadow, ab or bandit.

    `noria worker` (part of `noria up`) judges it; this command prepares, checks the gate, and sets the routes.
    """
    from noria.lifecycle.deploying import challengers_of
    from noria.lifecycle.plans import planned
    from noria.lifecycle.rollouts import Rollouts

    settings, workspace = open_governed(project)
    model, numbers = challengers_of(addresses)
    plan = planned(
        settings.rollout,
        strategy,
        steps=_percents(steps),
        min_minutes=min_minutes,
        max_days=max_days,
        required=require,
        promotes=not by_hand,
        effect=effect,
        metric=metric,
        window_minutes=window_minutes,
        algorithm=algorithm,
        floor=floor,
        epsilon=epsilon,
        rewards="real" if real_rewards else None,
    )
    with talk.status("looking") as status:
        rollouts = Rollouts(
            workspace, Policies.from_settings(settings.policies), SystemClock(), lambda step: status.update(step)
        )
        with workspace.database.read() as tx:
            name = deployment or own_name(tx, model)
        rollout = rollouts.start(name, numbers, plan, actor=actor(), reason=reason)
    row = rollout_row(rollout, rollout.percent)
    if as_json:
        show([row], as_json=True, title="Started")
    else:
        show_sections({"started": in_words(row)}, as_json=False)


@app.command(name="list")
@clear_errors
def list_(
    deployment: Annotated[str | None, typer.Argument(help="Of one deployment; of all by default.")] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the rollouts, newest first."""
    with open_records(project).database.read() as tx:
        rows = [rollout_row(rollout, percent_now(tx, rollout)) for rollout in reversed(list_rollouts(tx, deployment))]
        if deployment is not None and not rows:
            get_deployment(tx, deployment)  # tells of a name that is none
    show(rows if as_json else [narrow(row) for row in rows], as_json=as_json, title="Rollouts")


@app.command()
@clear_errors
def status(which: WhichArgument, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show how a rollout stands: its step, what the newest look saw, what it waits for."""
    with open_records(project).database.read() as tx:
        rollout = _find(tx, which)
        look, row = seen_last(tx, rollout), rollout_row(rollout, percent_now(tx, rollout))
        shares = latest_shares(tx, rollout.rollout_id)
    document: dict[str, object] = {"rollout": row if as_json else in_words(row)}
    if shares is not None and rollout.is_open:
        document["traffic"] = shares[0] if as_json else shares_told(shares[0])
    if look is not None:
        if as_json or look[1] is not None:
            document["looked_at"] = look[1]
        reason = "waits_because" if rollout.is_open else "ended_because"
        document |= _renamed(look[0], reason) if as_json else readable(look[0], reason)
    show_sections(document, as_json=as_json)


@app.command()
@clear_errors
def explain(which: WhichArgument, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Tell a rollout's story: its plan, each step, each decision with the evidence it rests on."""
    with open_records(project).database.read() as tx:
        rollout = _find(tx, which)
        decisions = list_decisions(tx, rollout.rollout_id)
        steps = list_steps(tx, rollout.rollout_id)
        look, row = seen_last(tx, rollout), rollout_row(rollout, percent_now(tx, rollout))
        shares = share_history(tx, rollout.rollout_id)
    if as_json:
        show_sections({"rollout": row} | _story(rollout, steps, decisions, shares, look), as_json=True)
        return
    document: dict[str, object] = {
        "rollout": in_words(row),
        "plan": flat(rollout.plan.told()),
        "steps": [
            f"{one.started_at:%Y-%m-%d %H:%M:%S} UTC  step {one.step + 1}: {rollout.steps[one.step]:g}%, "
            f"route revision {one.revision}"
            for one in steps
        ],
        "decisions": [
            f"{one.decided_at:%Y-%m-%d %H:%M:%S} UTC  {one.decision.value.replace('_', ' ')} at {one.percent:g}%: "
            f"{one.evidence.get('reason')}"
            for one in decisions
        ],
    }
    if shares:
        document["shares"] = [f"{at:%Y-%m-%d %H:%M:%S} UTC  {shares_told(each)}" for at, each in shares[-20:]]
    if look is not None and rollout.is_open:
        document["now"] = readable(look[0], "waits_because")
    show_sections(document, as_json=False)


def _story(
    rollout: Rollout,
    steps: Sequence[RolloutStep],
    decisions: Sequence[RolloutDecision],
    shares: Sequence[tuple[datetime, Mapping[str, float]]],
    look: tuple[Mapping[str, object], datetime | None] | None,
) -> dict[str, object]:
    """What ``explain`` tells, as numbers and names for programs."""
    story: dict[str, object] = {
        "plan": rollout.plan.as_document(),
        "steps": [
            {
                "step": one.step + 1,
                "percent": rollout.steps[one.step],
                "revision": one.revision,
                "started_at": one.started_at,
            }
            for one in steps
        ],
        "decisions": [
            {"decision": one.decision.value, "percent": one.percent, "at": one.decided_at, "evidence": one.evidence}
            for one in decisions
        ],
    }
    if shares:
        story["shares"] = [{"at": at, "shares": each} for at, each in shares]
    if look is not None and rollout.is_open:
        story["now"] = _renamed(look[0], "waits_because")
    return story


def _renamed(look: Mapping[str, object], reason: str) -> dict[str, object]:
    """What a look saw, as it is kept; ``reason`` names what its reason is one for."""
    return {reason: look.get("reason")} | {name: value for name, value in look.items() if name != "reason"}


@app.command()
@clear_errors
def pause(which: WhichArgument, reason: ReasonOption = "", project: ProjectOption = None) -> None:
    """Leave the shares as they are and decide nothing until `noria rollout resume`."""
    _change(project, which, lambda rollouts, found: rollouts.pause(found, actor=actor(), reason=reason))


@app.command()
@clear_errors
def resume(which: WhichArgument, reason: ReasonOption = "", project: ProjectOption = None) -> None:
    """Go on with a paused rollout."""
    _change(project, which, lambda rollouts, found: rollouts.resume(found, actor=actor(), reason=reason))


@app.command()
@clear_errors
def promote(
    which: WhichArgument,
    version: Annotated[int | None, typer.Option(help="Which challenger, where there are several.")] = None,
    reason: ReasonOption = "promoted by hand",
    project: ProjectOption = None,
) -> None:
    """Give a challenger all the traffic at once, and Production under policy."""
    _change(
        project, which, lambda rollouts, found: rollouts.promote(found, actor=actor(), reason=reason, version=version)
    )


@app.command()
@clear_errors
def abort(which: WhichArgument, reason: ReasonOption = "aborted by hand", project: ProjectOption = None) -> None:
    """Give the champion all the traffic again, at once, whatever the rollout's state."""
    _change(project, which, lambda rollouts, found: rollouts.abort(found, actor=actor(), reason=reason))


@app.command()
@clear_errors
def outcomes(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A CSV, Parquet or JSON-lines file, or a database URL with --query.")
    ],
    query: Annotated[str, typer.Option(help="SQL that gives the columns.")] = "",
    kind: Annotated[str, typer.Option(help="rewards or labels.")] = "rewards",
    metric: Annotated[str, typer.Option(help="Name of the reward.")] = "reward",
    deployment: Annotated[str, typer.Option(help="In which rewards count; in every one by default.")] = "",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring in rewards or labels from a file or by SQL.

    Rewards have the columns value, and prediction_id or unit_id. One that was brought in before is left out.

    Labels have the columns prediction_id, label, and event_time: that of the prediction.
    """
    from noria.lifecycle.outcomes import bring_in, read_table

    workspace = open_records(project)
    frame = read_table(source, query, Path.cwd())
    done = bring_in(workspace, frame, kind=kind, metric=metric, at=SystemClock().now(), deployment=deployment)
    row: dict[str, object] = {"kind": kind, "rows": done.rows}
    if kind == "rewards":
        row["known_before"] = done.known
    show([row], as_json=as_json, title="Brought in")


def _change(project: Path | None, which: str, change: Any) -> None:
    from noria.lifecycle.rollouts import Rollouts

    settings, workspace = open_governed(project)
    with workspace.database.read() as tx:
        found = _find(tx, which).rollout_id
    rollouts = Rollouts(workspace, Policies.from_settings(settings.policies), SystemClock())
    rollout = change(rollouts, found)
    out.print(f"{rollout.rollout_id[:8]} of {rollout.deployment} is {rollout.status}", highlight=False)


def _find(tx: Transaction, which: str) -> Rollout:
    """The rollout under way in a deployment, else its last one; or the one of that id. Raises NotFound."""
    if (found := open_rollout(tx, which)) is not None:
        return found
    if known := list_rollouts(tx, which):
        return known[-1]
    try:
        return get_rollout(tx, which)
    except NotFound:
        raise NotFound(
            f"there is no rollout of {which!r}, nor one of that id", remedy="`noria rollout list` shows all."
        ) from None


def _percents(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InvalidInput(f"{text!r} are no percents", remedy="Write them as 5,10,25,50,100.") from None
