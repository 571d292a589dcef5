"""Databases that are not Noria's own, by the URL a user gives."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sqlalchemy import URL, TextClause, make_url, text

from noria.errors import InvalidConfig


def filled_in(url: str, who: str) -> str:
    """``url`` with the environment's values in place of every ``${NAME}``, so that no password need be written down.

    Raises InvalidConfig, naming ``who``, when one is not there.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise InvalidConfig(f"{who} needs the environment variable {match[1]}", remedy=f"export {match[1]}=...")
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", value, url)


def driver_url(url: str, folder: Path) -> URL:
    """The URL as SQLAlchemy takes it, with the drivers Noria installs; SQLite files start at ``folder``.

    Raises SQLAlchemy's ArgumentError for what is none.
    """
    made = make_url(url)
    if made.drivername in ("postgresql", "postgres"):
        return made.set(drivername="postgresql+psycopg")
    if made.drivername == "sqlite" and made.database:
        return made.set(database=str(folder / made.database))
    return made


def without_password(url: str) -> str:
    """A URL as it may be shown: without its user's password, and without those among its options."""
    shown = re.sub(r"://([^:/@?#]*):[^?#]*@", r"://\1:***@", url)
    return re.sub(r"([?&][\w.]*(?:password|secret|token)=)[^&#]*", r"\1***", shown, flags=re.IGNORECASE)


def verbatim(query: str) -> TextClause:
    """A query as its user wrote it: what follows a colon is no parameter, be it in a text or a cast."""
    return text(query.replace(":", r"\:"))
