"""Deployments and rollouts over Noria's own API and on the console's pages, at a live server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe

from lifecycle.rollout_world import MODEL, RolloutWorld
from noria import audit
from noria.rollout import Strategy, current_routes
from noria.surface.cli.processes import Child
from noria.surface.console.pages import to_the_minute
from surface.test_console import browser  # noqa: F401  a fixture

API = "/api/noria/v1"
WHY = {"reason": "a test"}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> RolloutWorld:
    """Three versions of a model, the first of which serves."""
    made = RolloutWorld(tmp_path_factory.mktemp("rollouts"))
    for _ in range(3):
        made.add_version()
    made.deploy(1)
    settings = f'[project]\nname = "rollouts"\n[model]\nname = "{MODEL}"\ntask = "classification"\n'
    (made.workspace.folder.parent / "noria.toml").write_text(settings)
    return made


@pytest.fixture(scope="module")
def client(world) -> Iterator[httpx.Client]:
    server = Child("server", world.workspace.folder.parent, 0)
    with httpx.Client(base_url=server.url, timeout=60) as made:
        yield made
    server.stop()


def shares(world: RolloutWorld) -> dict[int, float]:
    with world.workspace.database.read() as tx:
        return {variant.version: variant.percent for variant in current_routes(tx, MODEL).variants}


def post(client: httpx.Client, path: str, body: dict[str, Any], status: int = 200) -> Any:
    answer = client.post(API + path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_rollout_goes_all_its_ways(client, world):
    started = post(client, "/rollouts", {"versions": [f"models:/{MODEL}/2"], "steps": [20, 100]}, 201)
    path = f"/rollouts/{started['rollout_id']}"
    assert (started["status"], shares(world)) == ("running", {1: 80, 2: 20})
    assert post(client, f"{path}/pause", WHY)["status"] == "paused"
    assert post(client, f"{path}/resume", WHY)["status"] == "running"
    assert client.get(f"{API}/rollouts", params={"deployment": MODEL}).json()[0]["rollout_id"] == started["rollout_id"]
    story = client.get(API + path).json()
    assert [one["decision"] for one in story["decisions"]] == ["pause", "resume"]
    assert post(client, f"{path}/promote", WHY)["status"] == "promoted"
    assert shares(world) == {2: 100}
    assert post(client, f"{path}/abort", WHY, 400)["title"] == "conflict"
    back = WHY | {"revision": client.get(f"{API}/deployments/{MODEL}").json()["routes"]["revision"]}
    assert post(client, f"/deployments/{MODEL}/rollback", back)["version"] == 1
    again = post(client, f"/deployments/{MODEL}/rollback", back, 400)  # of a client that lost the answer
    assert "has changed meanwhile" in again["detail"]
    post(client, f"/deployments/{MODEL}/rollback", WHY | {"revision": 99}, 404)
    assert shares(world) == {1: 100}


def test_a_version_is_deployed_and_withdrawn_under_another_name(client, world):
    answer = client.put(f"{API}/deployments/beside", json={"model": f"models:/{MODEL}/3", "reason": "a try"})
    assert answer.status_code == 200 and answer.json()["version"]["stage"] == "None", answer.text
    assert {one["deployment"]["deployment"] for one in client.get(f"{API}/deployments").json()} == {MODEL, "beside"}
    key = post(client, "/deployments/beside/keys", {"name": "ann"}, 201)
    assert key["key"].startswith("nk_")
    (kept,) = client.get(f"{API}/deployments/beside/keys").json()
    assert "key" not in kept and kept["revoked_at"] is None
    assert client.delete(f"{API}/deployments/{MODEL}/keys/{kept['key_id']}").status_code == 404
    route_file = world.workspace.route_file("beside")
    assert client.delete(f"{API}/deployments/beside/keys/{kept['key_id']}").status_code == 204
    assert json.loads(route_file.read_text())["key_hashes"] == ["none"]  # the last key's end lets nobody in
    assert client.delete(f"{API}/deployments/beside/keys").status_code == 204
    assert not json.loads(route_file.read_text()).get("key_hashes")
    assert client.delete(f"{API}/deployments/beside").status_code == 204
    assert client.get(f"{API}/deployments/beside").json()["routes"] is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/rollouts/nothing", None, 404),
        ("GET", "/deployments/nothing", None, 404),
        ("POST", "/rollouts", {"versions": []}, 422),
        ("POST", "/rollouts", {"versions": [f"models:/{MODEL}/99"]}, 404),
        ("POST", "/rollouts", {"versions": [f"models:/{MODEL}/1"]}, 400),
        ("POST", "/rollouts", {"versions": [f"models:/{MODEL}/2", "models:/other/1"]}, 400),
        ("POST", "/rollouts", {"versions": [f"models:/{MODEL}/2"], "steps": [50, 20]}, 400),
        ("POST", "/rollouts", {"versions": [f"models:/{MODEL}/2"], "strategy": "ab"}, 400),
        ("POST", "/rollouts", {"versions": [f"models:/{MODEL}/2"], "strategy": "ab", "effect": -1}, 400),
        ("POST", "/rollouts", {"versions": [f"models:/{MODEL}/2"], "strategy": "bandit", "floor": 0.6}, 400),
        ("POST", "/rollouts", {"versions": [f"models:/{MODEL}/2"], "strategy": "bandit", "epsilon": -1}, 400),
        ("POST", "/rollouts", {"versions": [f"models:/{MODEL}/2"], "max_days": -1}, 400),
        ("POST", "/rollouts", {"versions": [f"models:/{MODEL}/2"], "strategy": "shadow", "steps": [5, 50]}, 400),
        ("POST", "/rollouts", {"versions": [f"models:/{MODEL}/2"], "strategy": "roulette"}, 422),
        ("POST", "/deployments/nothing/rollback", WHY, 404),
        ("PUT", "/deployments/a%2Fb", {"model": f"models:/{MODEL}/1"}, 404),
        ("PUT", "/deployments/odd", {"model": "models:/nothing/1"}, 404),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_problem_document(client, method, path, body, status):
    answer = client.request(method, API + path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json().get("title") or answer.json().get("detail")


def test_the_pages_show_the_shares_that_a_bandit_came_to(client, world):
    world.clock.move_to(datetime.now(UTC))
    rollout = world.start(Strategy.BANDIT, 3, window_minutes=0, floor=0.0516)
    world.send(1000, reward=lambda answer, _row: float(answer.model_version == "3"))
    world.rollouts.look(rollout.rollout_id)
    overview, page = client.get("/").text, client.get(f"/rollouts/{rollout.rollout_id}").text
    routes = client.get(f"{API}/deployments/{MODEL}").json()["routes"]
    world.rollouts.abort(rollout.rollout_id, actor="ann", reason="seen")
    assert [variant["percent"] for variant in routes["variants"]] == pytest.approx([5.2, 94.8], abs=0.1)
    assert not routes["key_hashes"]
    assert "At 94.8 %, gathering evidence" in overview and "<strong>5.2 %</strong>" in overview
    assert "None yet: at 94.8 %" in page


def test_an_experiment_is_called_by_its_name(client, world):
    world.clock.move_to(datetime.now(UTC))
    rollout = world.start(Strategy.AB, 3, effect=0.1)
    page = client.get(f"/rollouts/{rollout.rollout_id}").text
    world.rollouts.abort(rollout.rollout_id, actor="ann", reason="seen")
    assert "A/B test of churn 3 against 1" in page


def test_the_cause_of_a_training_is_told_to_the_minute():
    assert to_the_minute("noria run at 2026-03-01T12:30:05.123456Z") == "noria run at 2026-03-01 12:30 UTC"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 420), ("dark", 420)])
def test_a_rollouts_page_shows_its_evidence_and_its_buttons_work(browser, client, world, scheme, width):  # noqa: F811
    world.clock.move_to(datetime.now(UTC))
    rollout = world.start(Strategy.CANARY, 2)
    with ThreadPoolExecutor(1) as beside:  # Playwright's loop runs in this thread
        beside.submit(world.send, 400).result()
    world.pass_minutes(0.1)
    world.rollouts.look(rollout.rollout_id)
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("response", lambda response: faults.append(response.url) if response.status >= 400 else None)
    page.goto(str(client.base_url))
    page.get_by_role("link", name="Canary of version 2 against 1").first.click()
    page.get_by_role("rowheader", name="errors").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("paused", exact=True).wait_for()
    page.get_by_role("button", name="Roll back").click()
    page.get_by_text("rolled back", exact=True).first.wait_for()
    assert (shares(world), faults) == ({1: 100}, [])
    context.close()


def test_the_overviews_button_rolls_back_what_serves(browser, client, world):  # noqa: F811
    world.deploy(3)
    page = browser.new_page()
    page.goto(str(client.base_url))
    page.get_by_role("button", name="Roll back").click()
    page.get_by_text("rolled back: in the console").first.wait_for()
    assert shares(world) == {1: 100}
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("alert").get_by_text("no earlier version").wait_for()
    page.goto(page.url)  # as who reloads by its address, which is the button's
    assert page.url == f"{client.base_url}/"
    page.close()


def test_a_button_takes_back_what_its_page_showed_and_nothing_else(client, world):
    for version in (3, 2):
        world.deploy(version)
    button = re.search(rf'formaction="(/deployments/{MODEL}/rollback[^"]*)"', client.get("/").text)[1].replace(
        "&amp;", "&"
    )
    clicks = [client.post(button, data=WHY) for _ in range(2)]
    assert [click.status_code for click in clicks] == [303, 400]
    assert "has changed meanwhile: version 3 serves now" in clicks[1].text
    assert shares(world) == {3: 100}
    rollout = world.start(Strategy.CANARY, 2)
    of_the_canary = f"/deployments/{MODEL}/rollback?champion=3&rollout={rollout.rollout_id}"
    world.rollouts.abort(rollout.rollout_id, actor="noria/lifecycle", reason="harm")  # before the click arrives
    assert client.post(of_the_canary, data=WHY).status_code == 400
    assert shares(world) == {3: 100}
    post(client, f"/deployments/{MODEL}/rollback", WHY)


def actors(world: RolloutWorld) -> dict[str, str]:
    """The newest actor of each action in the audit trail."""
    with world.workspace.database.read() as tx:
        return {entry.action: entry.actor for entry in audit.entries(tx, newest_first=False, limit=10_000)}


def test_the_audit_trail_names_who_asked_and_by_which_way(client, world):
    started = post(client, "/rollouts", {"versions": [f"models:/{MODEL}/3"], "strategy": "shadow"}, 201)
    assert actors(world)["rollout.start"] == "api:anonymous"
    answer = client.post(f"{API}/rollouts/{started['rollout_id']}/pause", json=WHY, auth=("ada", ""))
    assert answer.status_code == 200 and actors(world)["rollout.pause"] == "api:ada"
    assert client.post(f"/rollouts/{started['rollout_id']}/abort", data=WHY).status_code == 303
    assert actors(world)["rollout.roll_back"] == "console:anonymous"


def test_one_of_several_challengers_is_promoted_by_its_own_button(client, world, browser):  # noqa: F811
    serving = min(shares(world))
    others = [number for number in (1, 2, 3) if number != serving]
    wanted = {"versions": [f"models:/{MODEL}/{one}" for one in others], "strategy": "ab", "effect": 0.1}
    started = post(client, "/rollouts", wanted, 201)
    page = browser.new_page()
    page.goto(f"{client.base_url}/rollouts/{started['rollout_id']}")
    page.get_by_role("button", name=f"Promote {others[1]}").click()
    page.get_by_text("promoted", exact=True).wait_for()
    assert shares(world) == {others[1]: 100}
    page.get_by_role("button", name="Roll back").click()
    page.wait_for_url(f"{client.base_url}/")
    assert shares(world) == {serving: 100}
    page.goto(f"{client.base_url}/rollouts/{started['rollout_id']}")
    assert not page.get_by_role("button").count()
    page.close()
    path = f"/rollouts/{started['rollout_id']}/promote?version=x"
    assert client.post(path, data=WHY).status_code == 404


def test_what_takes_part_in_a_rollout_is_not_deleted_over_mlflows_protocol_either(client, world):
    challenger = next(number for number in (1, 2, 3) if number != min(shares(world)))
    started = post(client, "/rollouts", {"versions": [f"models:/{MODEL}/{challenger}"], "strategy": "shadow"}, 201)
    asked = {"name": MODEL, "version": str(challenger)}
    refused = client.request("DELETE", "/api/2.0/mlflow/model-versions/delete", json=asked)
    assert (refused.status_code, refused.json()["error_code"]) == (403, "PERMISSION_DENIED"), refused.text
    assert f"{MODEL}@{challenger} serves and cannot be deleted" in refused.json()["message"]
    post(client, f"/rollouts/{started['rollout_id']}/abort", WHY)


def test_what_is_withdrawn_serves_no_longer_and_may_be_deleted(client, world):
    version = world.add_version()
    put = client.put(f"{API}/deployments/passing", json={"model": f"models:/{MODEL}/{version}"})
    assert put.status_code == 200, put.text
    asked = {"name": MODEL, "version": str(version)}
    assert client.request("DELETE", "/api/2.0/mlflow/model-versions/delete", json=asked).status_code == 403
    assert client.delete(f"{API}/deployments/passing").status_code == 204
    assert client.request("DELETE", "/api/2.0/mlflow/model-versions/delete", json=asked).status_code == 200
