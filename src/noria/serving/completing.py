"""Rows made complete: what was looked up is added to what was sent, and what is computed from both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from noria.errors import NoriaError
from noria.serving.bare import bare
from noria.serving.computing import Computing
from noria.serving.items import Item

if TYPE_CHECKING:
    from noria.serving.live import Arm


def complete(
    arm: Arm, items: Sequence[Item], vectors: Sequence[Sequence[Any] | NoriaError]
) -> Sequence[tuple[Item, NoriaError]]:
    """Add to the rows of ``items`` the values looked up for each; those for which that failed, with the reason."""
    if arm.served.computing is not None:
        vectors = _computed(arm, arm.served.computing, items, vectors)
    faults: list[tuple[Item, NoriaError]] = []
    for item, vector in zip(items, vectors, strict=True):
        if isinstance(vector, NoriaError):
            faults.append((item, bare(vector)))
            continue
        numbers, texts = arm.columns.looked_up(vector)
        item.numbers = [*item.numbers, *numbers]
        item.texts = None if item.texts is None else [*item.texts, *texts]
        item.complete = True
    return faults


def _computed(
    arm: Arm, computing: Computing, items: Sequence[Item], vectors: Sequence[Sequence[Any] | NoriaError]
) -> Sequence[Sequence[Any] | NoriaError]:
    """What the model takes besides the columns sent; what it does not take is kept with the item, for the log."""
    named = [arm.columns.named(item.request.features) for item in items if item.request is not None]
    found: list[Sequence[Any] | NoriaError] = []
    for item, result in zip(items, computing.completed(named, vectors), strict=True):
        if isinstance(result, NoriaError):
            found.append(result)
        else:
            taken, item.beside = result
            found.append(taken)
    return found
