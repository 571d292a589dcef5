"""Policies: what must hold before a version may enter a stage."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from noria.config import PolicySettings, StageRuleSettings
from noria.errors import InvalidConfig
from noria.registry.conditions import MetricCondition
from noria.registry.entities import Approval, ModelVersion, NewVersion, Stage
from noria.tracking.entities import RunState


@dataclass(frozen=True, slots=True)
class StageRule:
    """What a version needs to enter one stage, or for one move."""

    required_tags: Sequence[str] = ()
    required_metrics: Sequence[MetricCondition] = ()
    approvals: int = 0
    approver_roles: Sequence[str] = ()
    reason_required: bool = False

    @classmethod
    def from_settings(cls, settings: StageRuleSettings) -> StageRule:
        """A rule as noria.toml has it. Raises InvalidConfig for what is no metric condition."""
        return cls(
            required_tags=tuple(settings.required_tags),
            required_metrics=tuple(MetricCondition.parse(text) for text in settings.required_metrics),
            approvals=settings.approvals,
            approver_roles=tuple(settings.approver_roles),
            reason_required=settings.reason_required,
        )


CANARY = "canary"
"""The role in which a passed canary approves."""

Move = tuple[Stage | None, Stage]
"""From one stage to another; from None: from any."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of the models whose name matches ``pattern`` (a shell pattern).

    Every rule whose move is the one asked for must hold. Versions in one of ``archive_stages`` are deleted once they
    are ``retention_days`` old (0: never), when someone cleans up.
    """

    pattern: str
    rules: Mapping[Move, StageRule] = field(default_factory=dict)
    transitions: Sequence[tuple[Stage, Stage]] = ()
    name_pattern: str = ""
    name_max_length: int = 0
    max_versions: int = 0
    failed_runs: bool = False
    external_sources: bool = False
    own_approval: bool = True
    production_versions: int = 1
    previews: bool = True
    retention_days: int = 0
    archive_stages: Sequence[Stage] = ()

    @classmethod
    def from_settings(cls, pattern: str, settings: PolicySettings, *, accounts: bool) -> Policy:
        """One policy of noria.toml. Raises InvalidConfig for what is no condition, move or regular expression.

        Unless it says so, authors approve themselves only without accounts, where names are not proven anyhow.
        """
        try:
            return cls._read(pattern, settings, accounts)
        except InvalidConfig as fault:
            raise InvalidConfig(f'{fault.message}, in policies."{pattern}"', remedy=fault.remedy) from None

    @classmethod
    def _read(cls, pattern: str, settings: PolicySettings, accounts: bool) -> Policy:
        try:
            re.compile(settings.name_pattern)
        except re.error as error:
            raise InvalidConfig(
                f"{settings.name_pattern!r} is not a regular expression: {error}",
                remedy="Mend name_pattern (naming_convention.pattern of a policy file).",
            ) from None
        rules: dict[Move, StageRuleSettings] = {(None, Stage(stage)): rule for stage, rule in settings.stages.items()}
        rules |= {_move(text): rule for text, rule in settings.moves.items()}
        return cls(
            pattern,
            rules={move: StageRule.from_settings(rule) for move, rule in rules.items()},
            transitions=tuple(_move(text) for text in settings.transitions),
            name_pattern=settings.name_pattern,
            name_max_length=settings.name_max_length,
            max_versions=settings.max_versions,
            failed_runs=settings.failed_runs,
            external_sources=settings.external_sources,
            own_approval=not accounts if settings.own_approval is None else settings.own_approval,
            production_versions=settings.production_versions,
            previews=settings.previews,
            retention_days=settings.retention_days,
            archive_stages=tuple(Stage(stage) for stage in settings.archive_stages),
        )

    def unmet(
        self,
        version: ModelVersion,
        stage: Stage,
        approvals: Sequence[Approval],
        reason: str,
        production: ModelVersion | None = None,
        run: RunState | None = None,
    ) -> list[str]:
        """Every condition of a move that does not hold, one sentence each; ``production`` is what it is compared to."""
        found = list(self._forbidden(version, stage))
        if stage in (Stage.STAGING, Stage.PRODUCTION):
            found += self._failed(run)
        rules = self._rules(version, stage)
        if run is not None and not run.ended and any(rule.required_metrics for rule in rules):
            found.append(f"its run is still {run.status}: its metrics are not the last")
        for rule in rules:
            found += self._missing(rule, version, stage, approvals, reason, production)
        return list(dict.fromkeys(found))  # two rules may miss the same

    def passed_over(self, version: ModelVersion, stage: Stage, production: ModelVersion | None) -> list[str]:
        """Every comparison with Production that a move does without, and why."""
        measured = None if production is None else production.metrics
        conditions = [condition for rule in self._rules(version, stage) for condition in rule.required_metrics]
        return [text for condition in conditions if (text := condition.passed_over(measured)) is not None]

    def unmet_by_name(self, model: str) -> list[str]:
        """Why a model may not be called so."""
        found = []
        if self.name_pattern and not re.fullmatch(self.name_pattern, model):
            found.append(f"the name {model!r} does not match {self.name_pattern!r}")
        if self.name_max_length and len(model) > self.name_max_length:
            found.append(f"the name {model!r} has {len(model)} characters, at most {self.name_max_length} are allowed")
        return found

    def unmet_by_registration(self, new: NewVersion, *, versions: int, run: RunState | None) -> list[str]:
        """Every condition of one more version that does not hold."""
        found = []
        if self.max_versions and versions >= self.max_versions:
            found.append(f"{new.model!r} has {versions} versions, at most {self.max_versions} are allowed")
        if new.external and not self.external_sources and any(rule.required_metrics for rule in self.rules.values()):
            found.append(f"its files lie at {new.source}, outside of run {new.run_id}, whose metrics would count")
        return found + list(self._failed(run))

    @property
    def required_tags(self) -> frozenset[str]:
        """Every tag that some move asks for."""
        return frozenset(tag for rule in self.rules.values() for tag in rule.required_tags)

    def _rules(self, version: ModelVersion, stage: Stage) -> list[StageRule]:
        """The rules of a move: the stage's, then the move's own."""
        return [self.rules[move] for move in ((None, stage), (version.stage, stage)) if move in self.rules]

    def _failed(self, run: RunState | None) -> Iterator[str]:
        if run is not None and run.failed_as and not self.failed_runs:
            since = "" if run.status == run.failed_as else f", though it is {run.status} now"
            yield f"its run ended as {run.failed_as}{since}"

    def _forbidden(self, version: ModelVersion, stage: Stage) -> Iterator[str]:
        if self.transitions and (version.stage, stage) not in self.transitions:
            allowed = ", ".join(f"{before} → {after}" for before, after in self.transitions)
            yield f"the move {version.stage} → {stage} is not allowed; allowed are {allowed}"

    def _missing(
        self,
        rule: StageRule,
        version: ModelVersion,
        stage: Stage,
        approvals: Sequence[Approval],
        reason: str,
        production: ModelVersion | None,
    ) -> Iterator[str]:
        for tag in rule.required_tags:
            if tag not in version.tags:
                yield f"tag {tag!r} is missing"
        for condition in rule.required_metrics:
            finding = condition.unmet(version.metrics, None if production is None else production.metrics)
            if finding is not None:
                yield finding
        given = [approval for approval in approvals if approval.stage == stage and approval.spent_at is None]
        others = [approval for approval in given if self.own_approval or not _is_own(approval, version)]
        wanted = set(rule.approver_roles)
        counted = [approval for approval in others if not wanted or wanted & set(approval.roles)]
        if len(counted) < rule.approvals:
            by = f" by {' or '.join(rule.approver_roles)}" if wanted else ""
            own = "; its author's does not count" if len(others) < len(given) else ""
            yield f"{len(counted)} of {rule.approvals} approvals for {stage}{by} given{own}"
        if rule.reason_required and not reason.strip():
            yield "a reason is required"


def _is_own(approval: Approval, version: ModelVersion) -> bool:
    """Whether the author gave it; what a canary measured is nobody's own, whoever trains and watches it."""
    return approval.actor == version.created_by and CANARY not in approval.roles


def _move(text: str) -> tuple[Stage, Stage]:
    names = {stage.value for stage in Stage}
    before, _, after = (part.strip() for part in text.partition("->"))
    if before not in names or after not in names:
        raise InvalidConfig(
            f"{text!r} is not a move", remedy=f"Write 'Staging -> Production', of {', '.join(sorted(names))}."
        )
    return Stage(before), Stage(after)


@dataclass(frozen=True, slots=True)
class Policies:
    """All policies of a project; the first whose pattern matches a model applies."""

    policies: Sequence[Policy] = ()

    @classmethod
    def from_settings(cls, settings: Mapping[str, PolicySettings], *, accounts: bool = False) -> Policies:
        """The policies of noria.toml: name pattern → policy. Raises InvalidConfig for what is no metric condition.

        ``accounts``: whether who acts is proven, so that an author is told from a reviewer.
        """
        policies = (Policy.from_settings(pattern, policy, accounts=accounts) for pattern, policy in settings.items())
        return cls(tuple(policies))

    def of(self, model: str) -> Policy:
        """The policy of ``model``; one without conditions when none matches."""
        return self._named(model) or Policy(model)

    def differ(self, model: str, other: str) -> bool:
        """Whether the two names are ruled by different policies."""
        return self._named(model) is not self._named(other)

    def _named(self, model: str) -> Policy | None:
        return next((policy for policy in self.policies if fnmatchcase(model, policy.pattern)), None)
