"""The append-only, hash-chained record of who changed what, when and why."""

from noria.audit.chain import AuditEntry, Verification, append, entries, verify

__all__ = ["AuditEntry", "Verification", "append", "entries", "verify"]
