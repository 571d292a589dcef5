"""Model cards: the generated page that travels with every version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CARD_FILE = "card.md"


def write_card(folder: Path, facts: Mapping[str, object], metrics: Mapping[str, float]) -> None:
    """Write ``card.md``: the facts, the metrics on held-out rows, and the quality by slice."""
    overall = {name: value for name, value in metrics.items() if "." not in name}
    slices = {name: value for name, value in metrics.items() if "." in name}
    parts = [
        f"# Model card: {facts.get('Model', 'model')}",
        _table("What it is", {name: _text(value) for name, value in facts.items()}),
        _table("Quality on held-out rows (the newest)", {name: f"{value:.4f}" for name, value in overall.items()}),
    ]
    if slices:
        parts.append(_table("Quality by slice", {name: f"{value:.4f}" for name, value in slices.items()}))
    (folder / CARD_FILE).write_text("\n\n".join(parts) + "\n")


def _table(title: str, rows: Mapping[str, str]) -> str:
    lines = [f"## {title}", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items())])


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {item}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)
