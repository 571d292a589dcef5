"""Search of models and versions: what a walk along the list would find, by a fixed number of statements."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from sqlalchemy import Engine, event

from noria.access import Grant, Identity, Role
from noria.clock import SystemClock, to_millis
from noria.config import load_settings
from noria.errors import InvalidInput
from noria.events import PROMPT_TAG
from noria.registry import NewVersion, Policies, list_versions, register_version
from noria.registry.models import create_model, list_models, set_alias
from noria.registry.search import search_models, search_versions
from noria.store.workspace import Workspace
from noria.surface.http.mlflow_call import Call
from noria.surface.http.mlflow_registry import HANDLERS
from noria.tracking.search import Searchable, select_matching
from support import noria

AT = datetime(2026, 5, 1, tzinfo=UTC)
TAGS = {
    "alpha": {"team": "growth", "7": "x"},
    "Beta": {"team": "ops", "a.b": 'q"uo'},
    "beta": {"a b": "OPS"},
    "Ümlaut": {PROMPT_TAG: "true"},
    "zebra": {PROMPT_TAG: "True", "team": "ops"},
    "a_b": {PROMPT_TAG: "false"},
    "acb": {},
}
FILTERS = [
    "",
    "name = 'beta'",
    "name LIKE 'b%' AND name != 'x'",
    "name LIKE 'a_b'",
    "name ILIKE 'B%'",
    "name NOT LIKE 'a%'",
    "name IN ('beta', 'zebra', 'Ümlaut')",
    "name NOT IN ('beta')",
    "tags.team = 'ops'",
    "tags.team != 'ops'",
    "tags.`7` = 'x'",
    "tags.`a.b` LIKE '%\"%'",
    "tags.`a b` ILIKE 'ops'",
    "tags.`$x` = 'a'",
    'tags."it is" = "a"',
    f"tags.`{PROMPT_TAG}` = 'true'",
    f"tags.`{PROMPT_TAG}` != 'true'",
    f"tags.`{PROMPT_TAG}` = 'false'",
    f"tags.`{PROMPT_TAG}` != 'false' AND tags.team = 'ops'",
]
ORDERS = [[], ["name DESC"], ["last_updated_timestamp", "name"], ["last_updated_timestamp DESC"]]
ANY = Searchable(texts=("name",), orders=("name", "last_updated_timestamp"))


@pytest.fixture
def database(empty_database):
    with empty_database.write() as tx:
        for number, (name, tags) in enumerate(TAGS.items()):
            at = AT + timedelta(seconds=number % 3)
            create_model(tx, name, policies=Policies(), at=at, actor="ann", tags=tags)
            for _ in range(number % 3):
                version = NewVersion(model=name, source=f"mlflow-artifacts:/{name}", tags=tags)
                register_version(tx, version, policies=Policies(), at=at, actor="ann")
    return empty_database


def walked(items, filter_text, order_by):
    """What is found by looking at each; prompts only where they are asked for."""
    asked = filter_text.startswith((f"tags.`{PROMPT_TAG}` = 'true'", f"tags.`{PROMPT_TAG}` != 'false'"))
    shown = [item for item in items if asked or item.tags.get(PROMPT_TAG, "").lower() != "true"]

    def fields(item):
        tags = {PROMPT_TAG: "false", **item.tags}
        own = {"name": name(item), "last_updated_timestamp": float(to_millis(item.updated_at))}
        return lambda kind, key: (tags if kind == "tags" else own).get(key)

    return select_matching(shown, fields, filter_text, order_by, ANY)


def name(item):
    return getattr(item, "model", None) or item.name


def test_the_database_finds_what_a_walk_along_the_list_finds(database):
    with database.read() as tx:
        models = sorted(list_models(tx), key=name)
        versions = sorted(list_versions(tx), key=lambda item: (item.model, item.version), reverse=True)
        for text, order in product(FILTERS, ORDERS):
            asked = {"filter_text": text, "order_by": order, "limit": 100}
            assert search_models(tx, **asked) == walked(models, text, order), asked
            assert search_versions(tx, **asked) == walked(versions, text, order), asked


def test_pages_hold_what_the_whole_answer_holds(database):
    with database.read() as tx:
        whole = search_versions(tx, limit=100)
        pages = [search_versions(tx, limit=2, offset=start) for start in range(0, len(whole), 2)]
    assert [version for page in pages for version in page] == whole


@pytest.mark.parametrize("text", ["colour = 'red'", "name > 'a'", "name = 7", "tags.a IS NULL", "name RLIKE 'a'"])
def test_a_filter_that_makes_no_sense_is_refused(database, text):
    with database.read() as tx, pytest.raises(InvalidInput):
        search_models(tx, filter_text=text, limit=1)


@pytest.fixture
def workspace(tmp_path):
    noria("init", str(tmp_path / "shop"), cwd=tmp_path)
    found = Workspace(tmp_path / "shop", load_settings(tmp_path / "shop"))
    yield found
    found.database.close()


def search(workspace, what, pattern="*", **arguments):
    """The answer to a user who sees the models of that pattern, and how many statements it took."""
    identity, statements = Identity("ann", [Grant(Role.VIEWER, pattern)]), []
    count = lambda *args: statements.append(args[2])  # noqa: E731 - the event wants something callable
    event.listen(Engine, "before_cursor_execute", count)
    try:
        call = Call(arguments, {}, identity, workspace, Policies(), SystemClock())
        return HANDLERS["GET", f"/{what}/search"](call), len(statements)
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def test_a_search_takes_as_many_statements_for_thirty_models_as_for_one(workspace):
    def make(numbers):
        with workspace.database.write() as tx:
            for number in numbers:
                model = f"{'shop' if number % 2 else 'bank'}-{number}"
                for _ in range(2):
                    version = NewVersion(model=model, source=f"mlflow-artifacts:/{model}")
                    register_version(tx, version, policies=Policies(), at=AT, actor="ann")
                set_alias(tx, model, "champion", 2, at=AT, actor="ann")

    make([1])
    before = [search(workspace, what)[1] for what in ("registered-models", "model-versions")]
    make(range(2, 31))
    (models, of_models), (versions, of_versions) = (
        search(workspace, what) for what in ("registered-models", "model-versions")
    )
    assert [of_models, of_versions] == before
    assert (len(models["registered_models"]), len(versions["model_versions"])) == (30, 60)
    assert models["registered_models"][0]["latest_versions"][0]["aliases"] == ["champion"]


def test_a_page_is_full_of_the_models_that_a_user_may_see(workspace):
    with workspace.database.write() as tx:
        for model in ("bank-1", "bank-2", "shop-1", "shop-2", "shop-3"):
            create_model(tx, model, policies=Policies(), at=AT, actor="ann")
    found, _ = search(workspace, "registered-models", "shop-*", max_results=2)
    assert [model["name"] for model in found["registered_models"]] == ["shop-1", "shop-2"]
    rest, _ = search(workspace, "registered-models", "shop-*", max_results=2, page_token=found["next_page_token"])
    assert [model["name"] for model in rest["registered_models"]] == ["shop-3"]
    assert "next_page_token" not in rest
