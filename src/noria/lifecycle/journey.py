"""The whole journey of a project: first version, governed promotion, live traffic, the wheel, the audit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import cast

from noria import audit
from noria.clock import ReplayClock, as_utc
from noria.data.validation import validate
from noria.errors import BrokenChain, Conflict, InvalidConfig, InvalidData, PolicyRefused
from noria.lifecycle.drill import TRIGGER, push_bad_version
from noria.lifecycle.replay import Replay
from noria.lifecycle.traffic import Outcome
from noria.lifecycle.wheel import Wheel
from noria.pipelines import Journal, Project, TrainingRequest, train_version
from noria.registry import ModelVersion, Stage, approve, list_versions
from noria.registry.stages import request_transition
from noria.rollout.records import PROMOTED, Rollout, list_rollouts, open_rollout
from noria.store.database import Database
from noria.store.workspace import Workspace

_DRILL_AFTER = timedelta(days=7)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the journey tells its caller while it runs, and what it asks for.

    ``gateway()`` starts a gateway and gives its URL; ``route_ready(revision)`` returns once it serves that revision.
    """

    say: Say
    on_day: Callable[[date, Outcome, int], None]
    gateway: Callable[[], str]
    route_ready: Callable[[int], None]


class Journey:
    """Plays a project's history from its first training to its last row. Goes on where an earlier one stopped."""

    def __init__(self, project: Project, workspace: Workspace, *, actor: str, callbacks: Callbacks) -> None:
        if not project.settings.model.train_until:
            raise InvalidConfig(
                "model.train_until is not set", remedy="Name the day from which rows are played as traffic."
            )
        self._project, self._workspace, self._actor = project, workspace, actor
        self._callbacks = callbacks
        self._start = _day(project.settings.model.train_until)
        self._clock = ReplayClock(self._start)
        self._journal = Journal(workspace.database, "journey", self._clock)
        self._wheel = Wheel(project, workspace, self._clock, callbacks.say)

    def run(self) -> Mapping[str, Mapping[str, object]]:
        """Every stage in order; returns the journal: step name → result."""
        self._callbacks.say("reading and validating the rows")
        self._journal.step("data", self._check_data)
        self._callbacks.say("training the first version")
        self._journal.step("training", self._train_first)
        self._callbacks.say("asking the policy")
        self._journal.step("registry", self._promote_first)
        self._replay()
        self._callbacks.say("verifying the audit chain")
        self._journal.step("audit", self._check_audit)
        return self._journal.results()

    def seconds(self) -> dict[str, float]:
        """Stage → seconds; the days' traffic and turns are summed."""
        total: dict[str, float] = {}
        for name, seconds in self._journal.seconds().items():
            stage = name.split(":")[0]
            stage = {"traffic": "serving", "turn": "monitoring_and_lifecycle"}.get(stage, stage)
            total[stage] = round(total.get(stage, 0.0) + seconds, 2)
        return total

    def _check_data(self) -> Mapping[str, object]:
        """The rows keep their contract, and a copy with broken rows is refused."""
        rows = self._project.observations.load()
        return {"rows": rows.height, "refused_copy": self._refused_copy()}

    def _refused_copy(self) -> list[str]:
        import polars as pl

        table = self._project.observations
        broken = table.source().head(1000)
        column = next(c.name for c in table.columns if not c.nullable and c.name != table.key)
        spoiled = pl.when(pl.int_range(pl.len()) % 400 == 0).then(None).otherwise(pl.col(column)).alias(column)
        try:
            validate(broken.with_columns(spoiled), table.columns, name=f"{table.name} (broken copy)", key=table.key)
        except InvalidData as refusal:
            return list(refusal.details)
        raise Conflict(f"a copy of {table.name!r} with nulls in {column!r} passed validation", remedy="Report this.")

    def _train_first(self) -> Mapping[str, object]:
        since = self._project.settings.model.train_since
        version = train_version(
            self._project,
            self._workspace,
            TrainingRequest(
                since=_day(since) if since else None,
                until=self._start,
                trigger="first training",
                at=self._start,
                actor=self._actor,
            ),
            self._callbacks.say,
        )
        return {"version": version.version}

    def _promote_first(self) -> Mapping[str, object]:
        """Ask for Production before approval; where the policy refuses, approve and ask again; deploy."""
        version = cast(int, self._journal.results()["training"]["version"])
        self._move(version, Stage.STAGING, "evaluated")
        refused = self._try_production(version)
        if refused:
            with self._workspace.database.write() as tx:
                approve(
                    tx,
                    self._project.settings.model.name,
                    version,
                    Stage.PRODUCTION,
                    at=self._start,
                    actor=self._actor,
                    reason="evaluation and model card read",
                    roles=["approver"],
                )
        promoted = self._move(version, Stage.PRODUCTION, "first version")
        self._wheel.deploy(promoted, reason="first deployment", actor=self._actor)
        return {"refused_before_approval": refused}

    def _try_production(self, version: int) -> list[str]:
        try:
            self._move(version, Stage.PRODUCTION, "first version")
        except PolicyRefused as refusal:
            return list(refusal.details)
        return []

    def _move(self, version: int, stage: Stage, reason: str) -> ModelVersion:
        return request_transition(
            self._workspace.database,
            self._project.settings.model.name,
            version,
            stage,
            policies=self._project.policies,
            at=self._start,
            actor=self._actor,
            reason=reason,
        )

    def _replay(self) -> None:
        rows = self._project.observations.load()
        last = cast(datetime, rows[self._project.observations.event_time].max())
        until = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
        if f"turn:{last.date()}" in self._journal.results():
            return
        replay = Replay(self._wheel, self._clock, self._journal, since=self._start, until=until)
        days = (until - self._start).days
        url = self._callbacks.gateway()
        replay.play(
            url,
            route_ready=self._callbacks.route_ready,
            end_of_day=self._drill_when_due,
            on_day=lambda day, outcome: self._callbacks.on_day(day, outcome, days),
        )

    def _drill_when_due(self, day: date) -> None:
        """A week after the first promoted canary, push a bad version, once."""
        with self._workspace.database.read() as tx:
            rollouts = list_rollouts(tx, self._project.deployment)
            running = open_rollout(tx, self._project.deployment)
            drilled = [v for v in list_versions(tx, self._project.settings.model.name) if _is_drill(v)]
        if running is not None or any(self._is_of(rollout, drilled) for rollout in rollouts):
            return
        promoted = [r.ended_at for r in rollouts if r.status == PROMOTED and r.ended_at is not None]
        if promoted and self._clock.now() - promoted[0] >= _DRILL_AFTER:
            self._callbacks.say(f"{day:%d %b}: drill: pushing a version trained on shuffled labels")
            push_bad_version(self._wheel)

    @staticmethod
    def _is_of(rollout: Rollout, versions: list[ModelVersion]) -> bool:
        return rollout.challenger in {version.version for version in versions}

    def _check_audit(self) -> Mapping[str, object]:
        with self._workspace.database.read() as tx:
            found = audit.verify(tx)
        return {
            "entries": found.entries,
            "head": found.head,
            "verified": True,
            "edited_copy": edited_copy_verdict(self._workspace),
        }


def edited_copy_verdict(workspace: Workspace) -> str:
    """What verification says of a copy of the database with one byte changed: the fault it finds.

    Raises Conflict when the change goes unseen.
    """
    with workspace.database.read() as tx:
        entries = audit.entries(tx, limit=1_000_000)
    victim = entries[len(entries) // 2].entry_hash.encode()
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy.db"
        workspace.database.copy_to(copy)
        content = copy.read_bytes()
        flipped = bytes([victim[0] ^ 1]) + victim[1:]
        copy.write_bytes(content.replace(victim, flipped, 1))
        try:
            with Database(f"sqlite:///{copy}").read() as tx:
                audit.verify(tx)
        except BrokenChain as fault:
            return fault.message
    raise Conflict("a changed byte in the audit chain went unseen", remedy="Report this.")


def _is_drill(version: ModelVersion) -> bool:
    return version.tags.get("trigger") == TRIGGER


def _day(text: str) -> datetime:
    try:
        return as_utc(datetime.fromisoformat(text))
    except ValueError:
        raise InvalidConfig(f"{text!r} is not a day", remedy="Write YYYY-MM-DD in noria.toml.") from None
