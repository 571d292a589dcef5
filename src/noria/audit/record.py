"""Appending to the chain: what is governed is recorded in the transaction that changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from noria.audit import seals
from noria.audit.caller import caller
from noria.audit.chain import Draft, link
from noria.audit.pending import settle
from noria.audit.seals import RowKey
from noria.clock import to_millis
from noria.store.database import Transaction


def append(
    tx: Transaction,
    *,
    at: datetime,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, object],
    changed: Sequence[RowKey] = (),
) -> None:
    """Add an entry inside the transaction of the change it records, after it: both commit, or neither.

    ``changed`` names the rows it inserted, updated or deleted; their content is sealed with the entry. It takes a
    transaction of ``Database.write``, and what was noted before comes before it.
    """
    settle(tx)
    if request_id := caller().request_id:
        detail = {**detail, "request_id": request_id}
    link(tx, [Draft(to_millis(at), actor, action, subject, detail, seals.take(tx, changed))])
