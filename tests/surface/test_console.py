"""The console in real Chromium: it shows what happened, without errors, for everyone."""

from __future__ import annotations

import os
import shutil

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from noria.surface.cli.processes import Child
from support import require

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
