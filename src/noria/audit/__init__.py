"""The append-only, hash-chained record of who changed what, when and why."""

from noria.audit.chain import AuditEntry, Verification, append, entries, request, verify
from noria.audit.seals import RowKey

__all__ = ["AuditEntry", "RowKey", "Verification", "append", "entries", "request", "verify"]
