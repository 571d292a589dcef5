"""What all tables share."""

from __future__ import annotations

from sqlalchemy import MetaData, String

metadata = MetaData()

ADDED = {"added": True}
"""Marks a column that a governed table got after its first revision: while empty it is not part of the row's seal."""


def name_column(length: int = 256) -> String:
    """The type of what people or clients call something."""
    return String(length)
