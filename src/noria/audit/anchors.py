"""Anchors: the chain's length and head, kept where whoever can change the database cannot change them.

A place is a folder, best on another machine, or a bucket, best one whose objects are locked. Each anchor is a file of
its own that is never written again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from noria.audit.chain import Verification
from noria.audit.pending import settle_all
from noria.audit.verification import verify
from noria.errors import InvalidInput
from noria.store.blobs import BlobStore
from noria.store.database import Database


def anchor(database: Database, place: BlobStore) -> Verification:
    """Verify the chain, against the anchors that are there too, and keep another. Raises BrokenChain.

    The records of single runs are left to ``verify``: there may be very many.
    """
    settle_all(database)
    with database.read() as tx:
        found = verify(tx, read_anchors(place), tracking=False)
    name = f"{found.entries:012d}-{found.head[:16]}.json"
    if name not in {entry.key for entry in place.entries("")}:
        place.write(name, json.dumps({"entries": found.entries, "head": found.head}).encode())
    return found


def read_anchors(place: BlobStore) -> Sequence[Verification]:
    """The anchors kept at a place, oldest first. Raises InvalidInput for a file that is none."""
    kept = [entry.key for entry in place.entries("") if not entry.is_folder and entry.key.endswith(".json")]
    return [_read(key, place.read) for key in kept]


def _read(key: str, read: Callable[[str], bytes]) -> Verification:
    try:
        return Verification(**json.loads(read(key)))
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{key} is no anchor: {error}", remedy="Name a place of anchors only.") from None
