"""Rows online that were written under another definition of their view than the one a model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Literal

import structlog

from noria.errors import Unavailable

if TYPE_CHECKING:
    from noria.features.readers import ViewSpec

OnChanged = Literal["warn", "refuse"]

_log = structlog.get_logger()
_SHOWN = 12
_REMEMBERED_SECONDS = 600
"""How long after such a row was met a model counts as served from changed features."""


def differs(trained: str, stored: str) -> bool:
    """Whether two definitions differ, as far as is known: the empty one is not, and a stored one may be shortened."""
    return bool(trained and stored) and not trained.startswith(stored)


class DefinitionWatch:
    """What to do about such rows: say it once a view, and count them; ``policy`` "refuse" also refuses to use them.

    ``counted`` is called with the view of each row. Threads may share it.
    """

    def __init__(self, policy: OnChanged = "warn", counted: Callable[[str], None] = lambda _view: None) -> None:
        self._policy, self._counted = policy, counted
        self._met: dict[tuple[str, str], tuple[str, float]] = {}

    def meet(self, spec: ViewSpec, stored: str) -> None:
        """A row of a view is of the definition ``stored``. Raises Unavailable when it may not be used."""
        self._counted(spec.name)
        known = self._met.get((spec.name, spec.definition))
        self._met[spec.name, spec.definition] = stored, monotonic()
        if known is None or known[0] != stored:
            words = {"view": spec.name, "trained_on": spec.definition[:_SHOWN], "stored": stored[:_SHOWN]}
            _log.warning("feature_definition_changed", **words, policy=self._policy)
        if self._policy == "refuse":
            raise _changed(spec.name, spec.definition, stored)

    def fault(self, specs: Iterable[ViewSpec]) -> Unavailable | None:
        """Why models that take these views are not served as they were trained, when lately they were not."""
        for spec in specs:
            stored, at = self._met.get((spec.name, spec.definition), ("", 0.0))
            if stored and monotonic() - at < _REMEMBERED_SECONDS:
                return _changed(spec.name, spec.definition, stored)
        return None


def _changed(view: str, trained: str, stored: str) -> Unavailable:
    return Unavailable(
        f"feature view {view!r} is online as definition {stored[:_SHOWN]}, and the model was trained on "
        f"{trained[:_SHOWN]}",
        remedy="Train and promote a version on the new definition, or apply the old one again and materialize. "
        'features.on_changed_definition = "warn" answers all the same.',
    )
