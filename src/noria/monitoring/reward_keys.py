"""What names a reward, so that one that is sent again counts once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from noria.ids import derived_id
from noria.monitoring.log import RewardRecord

_DIGITS = 16


def key_by_content(records: Sequence[RewardRecord]) -> list[RewardRecord]:
    """The records, named by all that they say: those whose sender said when the reward was observed.

    What is alike within ``records`` are rewards of their own, such as two equal purchases, told apart by their order.
    """
    alike: Counter[RewardRecord] = Counter()
    found = []
    for record in records:
        alike[record] += 1
        found.append(replace(record, key=_name("content", *_content(record), record.observed_at, alike[record])))
    return found


def key_by_place(records: Sequence[RewardRecord], sending: str) -> list[RewardRecord]:
    """The records, named by their places in what was sent, which ``sending`` names."""
    return [
        replace(record, key=_name("place", sending, place, *_content(record))) for place, record in enumerate(records)
    ]


def name_of_table(records: Iterable[RewardRecord]) -> str:
    """What names a table by its rows, where these do not say when they were observed."""
    return derived_id(*(str(part) for record in records for part in _content(record)))


def _content(record: RewardRecord) -> tuple[object, ...]:
    return record.prediction_id, record.unit, record.metric, record.deployment, record.value


def _name(*parts: object) -> str:
    return derived_id(*map(str, parts))[:_DIGITS]
