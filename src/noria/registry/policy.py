"""Policies: what must hold before a version may enter a stage."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from noria.config import PolicySettings, StageRuleSettings
from noria.errors import InvalidConfig
from noria.registry.entities import Approval, ModelVersion, NewVersion, Stage

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_NUMBER = r"\d+(?:\.\d+)?(?:[eE]-?\d+)?"
_CONDITION = re.compile(
    rf"""^\s*(?P<metric>[\w.\-/ ]+?)\s*
        (?:(?P<comparison>>=|<=|>|<)\s*
           (?:(?P<threshold>-?{_NUMBER})|(?P<production>production)\s*(?P<margin>[+-]\s*{_NUMBER})?))?\s*$""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class MetricCondition:
    """``auc >= 0.6``; ``auc >= production - 0.01``, against the version in Production; or ``auc``: it was logged.

    ``threshold`` is the bound, or what is added to Production's value when ``relative``.
    """

    metric: str
    comparison: str | None = None
    threshold: float = 0.0
    relative: bool = False

    @classmethod
    def parse(cls, text: str) -> MetricCondition:
        """Read a condition as people write it. Raises InvalidConfig when it is none."""
        match = _CONDITION.match(text)
        if match is None:
            raise InvalidConfig(
                f"{text!r} is not a metric condition",
                remedy="Write a metric name, or a comparison such as 'auc >= 0.65' or 'auc >= production - 0.01'.",
            )
        relative = match["production"] is not None
        number = (match["margin"] or "0").replace(" ", "") if relative else match["threshold"] or "0"
        return cls(match["metric"], match["comparison"], float(number), relative)

    def unmet(self, metrics: Mapping[str, float], production: Mapping[str, float] | None) -> str | None:
        """Why the condition does not hold, or None. Without a version in Production a relative one holds."""
        value = metrics.get(self.metric)
        if value is None:
            return f"metric {self.metric!r} was not logged"
        if self.comparison is None or (self.relative and (production is None or self.metric not in production)):
            return None
        bound = self.threshold + (production[self.metric] if self.relative and production is not None else 0.0)
        if _COMPARISONS[self.comparison](value, bound):
            return None
        source = " (Production's, with the margin)" if self.relative else ""
        return f"metric {self.metric} = {value:.4g}, required {self.comparison} {bound:.4g}{source}"


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
    retention_days: int = 0
    archive_stages: Sequence[Stage] = ()

    @classmethod
    def from_settings(cls, pattern: str, settings: PolicySettings) -> Policy:
        """One policy of noria.toml. Raises InvalidConfig for what is no condition, move or regular expression."""
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
            own_approval=settings.own_approval,
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
    ) -> list[str]:
        """Every condition of a move that does not hold, one sentence each; ``production`` is what it is compared to."""
        found = list(self._forbidden(version, stage))
        for move in ((None, stage), (version.stage, stage)):
            if (rule := self.rules.get(move)) is not None:
                found += self._missing(rule, version, stage, approvals, reason, production)
        return list(dict.fromkeys(found))  # two rules may miss the same

    def unmet_by_name(self, model: str) -> list[str]:
        """Why a model may not be called so."""
        found = []
        if self.name_pattern and not re.fullmatch(self.name_pattern, model):
            found.append(f"the name {model!r} does not match {self.name_pattern!r}")
        if self.name_max_length and len(model) > self.name_max_length:
            found.append(f"the name {model!r} has {len(model)} characters, at most {self.name_max_length} are allowed")
        return found

    def unmet_by_registration(self, new: NewVersion, *, versions: int, run_status: str | None) -> list[str]:
        """Every condition of one more version that does not hold."""
        found = []
        if self.max_versions and versions >= self.max_versions:
            found.append(f"{new.model!r} has {versions} versions, at most {self.max_versions} are allowed")
        if new.external and not self.external_sources and any(rule.required_metrics for rule in self.rules.values()):
            found.append(f"its files lie at {new.source}, outside of run {new.run_id}, whose metrics would count")
        if run_status in ("FAILED", "KILLED") and not self.failed_runs:
            found.append(f"its run ended as {run_status}")
        return found

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
        given = [approval for approval in approvals if approval.stage == stage]
        others = [approval for approval in given if self.own_approval or approval.actor != version.created_by]
        wanted = set(rule.approver_roles)
        counted = [approval for approval in others if not wanted or wanted & set(approval.roles)]
        if len(counted) < rule.approvals:
            by = f" by {' or '.join(rule.approver_roles)}" if wanted else ""
            own = "; its author's does not count" if len(others) < len(given) else ""
            yield f"{len(counted)} of {rule.approvals} approvals for {stage}{by} given{own}"
        if rule.reason_required and not reason.strip():
            yield "a reason is required"


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
    def from_settings(cls, settings: Mapping[str, PolicySettings]) -> Policies:
        """The policies of noria.toml: name pattern → policy. Raises InvalidConfig for what is no metric condition."""
        return cls(tuple(Policy.from_settings(pattern, policy) for pattern, policy in settings.items()))

    def of(self, model: str) -> Policy:
        """The policy of ``model``; one without conditions when none matches."""
        return next((p for p in self.policies if fnmatchcase(model, p.pattern)), Policy(model))
