"""Conformance to MLflow's protocol, endpoint by endpoint: `make conformance`.

Runs every check against MLflow and against Noria and prints a table; exits with 1 when one is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conformance.compare import AREAS, Comparison, checks, compare
from conformance.servers import both


def main() -> int:
    """Compare, print, and say by the exit code whether all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every check's outcome there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="noria-conformance-") as folder, both(Path(folder)) as servers:
        found = [compare(check, *servers) for check in checks()]
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(_by_endpoint(found), _differences(found), _by_area(found))
    wrong = [item for item in found if not item.as_said]
    for item in wrong:
        console.print(f"[red]{item.check.name}[/]", "agree now" if item.agreed else "differ", markup=True)
        console.print("  MLflow:", json.dumps(item.mlflow), "\n  Noria: ", json.dumps(item.noria), markup=False)
    if options.json:
        options.json.write_text(json.dumps(_document(found), indent=1))
    return 1 if wrong else 0


def _by_endpoint(found: Sequence[Comparison]) -> Table:
    table = Table(
        "Endpoint", "Checks", "Agree", "Differ on purpose", "Wrong", title="MLflow's protocol: MLflow and Noria"
    )
    for endpoint, items in sorted(_grouped(found).items(), key=lambda entry: entry[0].partition(" ")[::-1]):
        table.add_row(endpoint, *_counts(items))
    return table


def _by_area(found: Sequence[Comparison]) -> Table:
    table = Table("Area", "Checks", "Agree", "Differ on purpose", "Wrong")
    for area in AREAS:
        table.add_row(area.replace("_", " "), *_counts([item for item in found if item.check.area == area]))
    table.add_section()
    table.add_row("all", *_counts(found))
    return table


def _differences(found: Sequence[Comparison]) -> Table:
    table = Table("Difference", "Reason", title="Where Noria differs on purpose")
    for item in found:
        if item.reason:
            table.add_row(item.check.name, item.reason)
    return table


def _counts(items: Sequence[Comparison]) -> list[str]:
    """How many there are, agree, differ on purpose, and are neither."""
    agreed = sum(item.agreed for item in items if item.as_said)
    wrong = sum(not item.as_said for item in items)
    return [str(count) if count else "" for count in (len(items), agreed, len(items) - agreed - wrong, wrong)]


def _grouped(found: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for item in found:
        for endpoint in item.check.endpoints:
            groups[endpoint].append(item)
    return groups


def _document(found: Sequence[Comparison]) -> dict[str, object]:
    return {
        "checks": len(found),
        "agreed": sum(item.agreed for item in found),
        "outcomes": [
            {
                "check": item.check.name,
                "area": item.check.area,
                "endpoints": list(item.check.endpoints),
                "agreed": item.agreed,
                "reason": item.reason,
                "mlflow": item.mlflow,
                "noria": item.noria,
            }
            for item in found
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
