"""Search spaces as people write them, and the distributions that Optuna draws from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noria.errors import InvalidInput


def distributions_of(space: Mapping[str, Any]) -> dict[str, Any]:
    """The Optuna distribution of each parameter. Raises InvalidInput for what means none."""
    return {name: _distribution(name, given) for name, given in space.items()}


def _distribution(name: str, given: Any) -> Any:
    from optuna import distributions

    if isinstance(given, distributions.BaseDistribution):
        return given
    if isinstance(given, list) and given:
        return distributions.CategoricalDistribution(given)
    if isinstance(given, tuple) and len(given) in (2, 3) and (len(given) == 2 or given[2] == "log"):
        low, high, log = given[0], given[1], len(given) == 3
        if isinstance(low, int) and isinstance(high, int) and low <= high:
            return distributions.IntDistribution(low, high, log=log)
        if isinstance(low, int | float) and isinstance(high, int | float) and low <= high and (low > 0 or not log):
            return distributions.FloatDistribution(low, high, log=log)
    raise InvalidInput(
        f"search_space[{name!r}] is {given!r}",
        remedy='Write (low, high), (low, high, "log") with low > 0, or a list of choices.',
    )
