"""The console in real Chromium: it shows what happened, without errors, for everyone."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from noria.access import Grant, Identity, Role
from noria.audit.watch import ChainWatch
from noria.clock import SystemClock
from noria.registry import NewVersion, Policies, register_version
from noria.rollout import Variant, set_routes
from noria.store.database import Database
from noria.surface.cli.processes import Child
from noria.surface.console.overview import gather
from noria.surface.console.pages import STATIC, template
from support import require

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def chromium():
    named = os.environ.get("NORIA_CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def console(trained):
    child = Child("server", trained, 0)
    yield child.url
    child.stop()


@pytest.fixture(scope="module")
def browser():
    require(chromium(), "Chromium", "apt-get install chromium, or name one in NORIA_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 420), ("dark", 420)])
def test_the_overview_is_readable_without_errors_or_violations(browser, console, scheme, width):
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    page = context.new_page()
    faults = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("requestfailed", lambda request: faults.append(request.url))
    page.on("response", lambda response: faults.append(response.url) if response.status >= 400 else None)
    page.goto(console)
    assert page.get_by_text("hourly-demand@1").first.is_visible()
    assert page.get_by_text("Audit chain verified").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert faults == []
    context.close()


@pytest.mark.parametrize("path", ["/nothing", "/rollouts/nothing"])
def test_an_address_that_leads_nowhere_is_a_page_of_the_console_to_people(browser, console, path):
    page = browser.new_context(bypass_csp=True).new_page()
    answer = page.goto(console + path)
    assert (answer.status, page.get_by_role("heading").inner_text()) == (404, "There is no such page")
    assert Axe().run(page).violations_count == 0
    page.get_by_text("Back to the overview").click()
    assert page.get_by_text("hourly-demand@1").first.is_visible()
    page.context.close()
    assert "html" not in httpx.get(console + path).headers["content-type"]


def test_many_deployments_and_versions_of_long_names_have_an_index_and_fit(browser, tmp_path):
    database, name = Database(f"sqlite:///{tmp_path / 'noria.db'}"), "d" * 120
    database.migrate()
    with database.write() as tx:
        for number in range(1, 33):
            new = NewVersion(model="m" * 120, source=f"mlflow-artifacts:/{number}")
            register_version(tx, new, policies=Policies(), at=NOW + timedelta(hours=number), actor="trainer")
        for number in range(1, 5):
            routes = [Variant("champion", "m" * 120, number, "s", "", 100)]
            set_routes(tx, f"{name}{number}", routes, at=NOW, actor="someone", reason="r" * 300)
    overview = gather(database, ChainWatch(database, SystemClock()), Identity("someone", [Grant(Role.ADMIN)]))
    shown = template("overview.html").render(overview=overview, width=900, height=240, signed_in="", fault=None)
    page = browser.new_page(viewport={"width": 420, "height": 900})
    page.set_content(shown)
    page.add_style_tag(path=STATIC / "console.css")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert page.locator("tbody th").nth(4).inner_text().endswith("@32")
    page.get_by_role("link", name=f"{name}3").click()
    assert page.locator("#deployment-3 h2").inner_text() == f"Live traffic of {name}3"
    page.get_by_text("2 earlier").click()
    assert page.get_by_role("rowheader").filter(has_text="@1").last.is_visible()
    page.close()
    database.close()
