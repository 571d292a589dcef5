"""Conditions on metrics, as policies and people write them."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from noria.errors import InvalidConfig

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

    ``threshold`` is the bound, or what is added to Production's value when ``relative``. NaN and infinities meet none.
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
        """Why the condition does not hold, or None. Without a number in Production a relative one holds."""
        value = metrics.get(self.metric)
        if value is None:
            return f"metric {self.metric!r} was not logged"
        if not math.isfinite(value):
            return f"metric {self.metric} = {value}, which meets no condition: it is no finite number"
        bound = self._bound(production)
        if self.comparison is None or bound is None or _COMPARISONS[self.comparison](value, bound):
            return None
        source = " (Production's, with the margin)" if self.relative else ""
        return f"metric {self.metric} = {value:.4g}, required {self.comparison} {bound:.4g}{source}"

    def passed_over(self, production: Mapping[str, float] | None) -> str | None:
        """Why the condition asks for nothing although there is a version in Production, or None."""
        if not self.relative or production is None or self._bound(production) is not None:
            return None
        value = production.get(self.metric)
        why = "has none" if value is None else f"has {value}, no finite number"
        return f"{self.metric} was not compared with Production, which {why}"

    def _bound(self, production: Mapping[str, float] | None) -> float | None:
        """What the value is held against; None when Production has no number to compare with."""
        if not self.relative:
            return self.threshold
        value = math.nan if production is None else production.get(self.metric, math.nan)
        return value + self.threshold if math.isfinite(value) else None
