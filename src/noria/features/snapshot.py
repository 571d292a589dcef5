"""Snapshots: the online rows of some views, copied into a file of their own that travels with a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from noria.errors import InvalidConfig
from noria.features.entity_keys import view_prefix
from noria.features.packing import LAYOUTS
from noria.store.sqlite_keyvalue import SqliteKeyValues

_SCHEME = "sqlite:///"


def write_snapshot(online_url: str, views: Iterable[str], target: Path) -> None:
    """Copy what an embedded online store holds of ``views``; the same rows always make the same file.

    Raises InvalidConfig for a store that is no SQLite file: others are reached where they are.
    """
    if not online_url.startswith(_SCHEME):
        raise InvalidConfig(
            f"the online store {online_url.partition('://')[0]}://… cannot be copied into a file",
            remedy="Name one that the gateway will reach: --online redis://HOST:PORT/0 or postgresql://USER@HOST/NAME.",
        )
    store = SqliteKeyValues(Path(online_url.removeprefix(_SCHEME)))
    try:
        store.copy([LAYOUTS, *(view_prefix(view) for view in sorted(set(views)))], target)
    finally:
        store.close()
