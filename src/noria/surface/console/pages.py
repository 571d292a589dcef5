"""What every page of the console shares: its templates, its files, its headers."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from noria.clock import iso

if TYPE_CHECKING:
    from jinja2 import Template

STATIC = Path(__file__).parent / "static"
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):[\d.]+Z")
HEADERS = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


def to_the_minute(text: str) -> str:
    """The text with its RFC 3339 instants as people read them: `2026-03-01T12:30:05.123Z` is 2026-03-01 12:30 UTC."""
    return _INSTANT.sub(r"\1 \2 UTC", text)


@functools.cache
def template(name: str) -> Template:
    """A template by its file's name."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["iso"] = iso
    environment.filters["to_the_minute"] = to_the_minute
    return environment.get_template(name)
