"""The append-only, hash-chained record of who changed what, when and why."""

from noria.audit.caller import caller, request
from noria.audit.chain import AuditEntry, Verification, entries
from noria.audit.pending import note, settle_all
from noria.audit.record import append
from noria.audit.seals import RowKey
from noria.audit.verification import verify

__all__ = [
    "AuditEntry",
    "RowKey",
    "Verification",
    "append",
    "caller",
    "entries",
    "note",
    "request",
    "settle_all",
    "verify",
]
