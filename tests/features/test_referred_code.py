"""A definition is as its project's code says: what a function calls, and the constants it reads, are part of it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from noria.features import FeatureStore

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
FILES = {
    "feature_store.yaml": "project: shop\n",
    "defs.py": """
from datetime import datetime
from functools import partial
import polars as pl
import rates
from noria.features import Entity, FeatureView, Field, Float64, RequestSource, on_demand_feature_view
from pricing.taxes import taxed
from pricing.scales import Scale

FACTOR = 2.0
STEPS = {"double": lambda x: x * 2.0, "again": partial(taxed, rate=0.0)}

def scaled(x, by=FACTOR):
    return rates.discounted(x) * by

def counts():
    '''Rows of the one view.'''
    value = STEPS["double"](scaled(Scale(1.0).value()))
    return pl.DataFrame({"id": [1], "event_timestamp": [datetime(2024, 1, 1)], "v": [value]})

view = FeatureView(name="view", entities=[Entity(name="id")], schema=[Field(name="v", dtype=Float64)], source=counts)

@on_demand_feature_view(
    sources=[view, RequestSource(name="r", schema=[Field(name="x", dtype=Float64)])],
    schema=[Field(name="price", dtype=Float64)], mode="python",
)
def price(given):
    return {"price": [taxed(x) + LATER for x in given["x"]]}

LATER = 100.0

def unused():
    return 1
""",
    "rates.py": "RATE = 1.0\ndef discounted(x):\n    return x * RATE\ndef other():\n    return 1\n",
    "pricing/__init__.py": "",
    "pricing/taxes.py": "from pricing import levels\ndef taxed(x, rate=0.5):\n    return x * (levels.BASE + rate)\n",
    "pricing/levels.py": "BASE = 1.0\nOTHER = 3.0\n",
    "pricing/scales.py": "class Scale:\n    def __init__(self, x):\n        self.x = x\n"
    "    def value(self):\n        return self.x * STEP\nSTEP = 1.0\n",
}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "pricing").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def edit(repo: Path, name: str, before: str, after: str) -> None:
    text = (repo / name).read_text()
    assert before in text
    (repo / name).write_text(text.replace(before, after))
    later = (repo / name).stat().st_mtime + 10
    os.utime(repo / name, (later, later))  # Python tells versions of a module apart by whole seconds


def applied(repo: Path) -> tuple[dict[str, str], float, float]:
    """What became of each definition, then the values that another process, which only has the database, sees."""
    store = FeatureStore(repo)
    changes = {one.name: one.what for one in store.apply(store.read_code())}
    store.close()
    other = FeatureStore(repo)
    asked = pl.DataFrame({"id": [1], "event_timestamp": [NOW], "x": [10.0]})
    found = other.get_historical_features(asked, ["view:v", "price:price"]).to_polars()
    other.close()
    return changes, found["v"].item(), found["price"].item()


@pytest.mark.parametrize(
    ("name", "before", "after", "changed", "values"),
    [
        ("defs.py", "FACTOR = 2.0", "FACTOR = 3.0", {"counts", "view"}, (6.0, 115.0)),
        ("defs.py", "x * 2.0", "x * 4.0", {"counts", "view"}, (8.0, 115.0)),
        ("defs.py", "LATER = 100.0", "LATER = 0.0", {"price"}, (4.0, 15.0)),
        ("rates.py", "RATE = 1.0", "RATE = 0.5", {"counts", "view"}, (2.0, 115.0)),
        ("rates.py", "return x * RATE", "return x * RATE * 2", {"counts", "view"}, (8.0, 115.0)),
        ("pricing/levels.py", "BASE = 1.0", "BASE = 2.0", {"counts", "view", "price"}, (4.0, 125.0)),
        ("pricing/scales.py", "STEP = 1.0", "STEP = 3.0", {"counts", "view"}, (12.0, 115.0)),
        ("pricing/scales.py", "self.x * STEP", "self.x + STEP", {"counts", "view"}, (8.0, 115.0)),
        ("pricing/levels.py", "OTHER = 3.0", "OTHER = 4.0", set(), (4.0, 115.0)),
        ("rates.py", "return 1", "return 2", set(), (4.0, 115.0)),
        ("defs.py", "return 1\n", "return 2\n", set(), (4.0, 115.0)),
    ],
)
def test_a_helper_that_changes_changes_what_calls_it_and_nothing_else(repo, name, before, after, changed, values):
    assert applied(repo)[1:] == (4.0, 115.0)
    edit(repo, name, before, after)
    changes, *found = applied(repo)
    assert tuple(found) == values
    assert {one for one, what in changes.items() if what == "changed"} == changed


def test_the_same_code_has_the_same_hash_in_every_process(repo):
    script = (
        "from noria.features import FeatureStore\nfrom noria.features.definitions import content_hash\n"
        "print(sorted(content_hash(one) for one in FeatureStore('.').read_code()))"
    )
    command = [sys.executable, "-c", script]
    run = [subprocess.run(command, cwd=repo, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert run[0] == run[1]


def test_a_source_that_fails_is_told_by_function_file_and_line(repo):
    applied(repo)
    edit(repo, "rates.py", "return x * RATE", "return x / 0")
    store = FeatureStore(repo)
    store.apply(store.read_code())
    asked = pl.DataFrame({"id": [1], "event_timestamp": [NOW]})
    with pytest.raises(Exception, match=r"'counts' failed at .*rates\.py:3, in discounted: ZeroDivisionError"):
        store.get_historical_features(asked, ["view:v"]).to_polars()
    store.close()
