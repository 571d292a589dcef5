"""Which keys and values params, metrics and tags of runs may have."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Mapping, Sequence

from noria.errors import InvalidInput
from noria.tracking.entities import Metric

_LONGEST_KEY = 250
_LONGEST_PARAM = 6000
_LONGEST_TAG = 8000
_KEY = re.compile(r"[\w.\-/ :]+")


def check_params(params: Mapping[str, str]) -> None:
    """Raises InvalidInput for a key that is none or a value that is too long."""
    for key, value in params.items():
        _check_key(key, "param")
        _check_length(key, value, "param", _LONGEST_PARAM)


def check_metrics(values: Sequence[Metric]) -> None:
    """Raises InvalidInput for a key that is none."""
    for metric in values:
        _check_key(metric.key, "metric")


def check_tags(tags: Mapping[str, str]) -> None:
    """Raises InvalidInput for a key that is none or a value that is too long."""
    for key, value in tags.items():
        _check_key(key, "tag")
        if not key.startswith("mlflow."):  # these are written by clients, which do not count
            _check_length(key, value, "tag", _LONGEST_TAG)


@functools.lru_cache(maxsize=10_000)  # the same few are logged again and again
def _is_key(key: str) -> bool:
    readable = _KEY.fullmatch(key) and key == posixpath.normpath(key) and key[0] not in "/" and key != "."
    return bool(readable) and len(key) <= _LONGEST_KEY and key.split("/")[0] != ".."


def _check_key(key: str, kind: str) -> None:
    if not _is_key(key):
        raise InvalidInput(
            f"{key[:60]!r} is not a {kind} key",
            remedy=f"Use 1 to {_LONGEST_KEY} letters, digits, or _-./ and spaces and colons, that read as a path.",
        )


def _check_length(key: str, value: str, kind: str, longest: int) -> None:
    if len(value) > longest:
        raise InvalidInput(f"{kind} {key!r} has {len(value)} characters", remedy=f"At most {longest}.")
