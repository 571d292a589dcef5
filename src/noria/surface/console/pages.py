"""What every page of the console shares: its templates, its files, its headers."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from noria.clock import iso

if TYPE_CHECKING:
    from jinja2 import Template

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


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
    return environment.get_template(name)
