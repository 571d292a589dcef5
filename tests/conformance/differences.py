"""Where Noria does not do what MLflow does, on purpose: check → reason. A check that comes to agree must leave."""

from __future__ import annotations

DIFFERENCES: dict[str, str] = {}
