"""Sign-in through a real OpenID Connect issuer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from noria.surface.cli.processes import Child
from servers import free_port
from support import noria, require

FOLDER = Path(__file__).parents[2] / ".bench/oidc"
SETTINGS = """
[project]
name = "g"
[model]
name = "churn"
task = "regression"
[access]
enabled = true
[access.oidc]
issuer = "http://127.0.0.1:{issuer}"
client_id = "noria"
roles = {{ admins = "admin", readers = "viewer" }}
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that takes the word of an issuer, and its folder."""
    require(shutil.which("node") and shutil.which("npm"), "Node.js", "apt-get install nodejs npm")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{FOLDER}.lock"):
        if not (FOLDER / "node_modules/oidc-provider").exists():
            subprocess.run(["npm", "install", "--silent", "--prefix", FOLDER, "oidc-provider@8"], check=True)
    folder, issuer_port, port = tmp_path_factory.mktemp("oidc"), free_port(), free_port()
    (folder / "noria.toml").write_text(SETTINGS.format(issuer=issuer_port))
    callback = f"http://127.0.0.1:{port}/login/oidc/callback"
    script = (Path(__file__).parent / "issuer.mjs").read_text()
    command = ["node", "--input-type=module", "--eval", script, "--", str(issuer_port), callback]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NORIA_ACCESS__OIDC__CLIENT_SECRET", "issuer-secret")
        server = Child("server", folder, port)
    with subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as issuer:
        try:
            assert issuer.stdout is not None
            assert issuer.stdout.readline() == "ready\n"
            yield server.url, folder
        finally:
            server.stop()
            issuer.kill()


def sign_in(url: str, name: str, wanted: str = "") -> tuple[httpx.Client, httpx.Response]:
    """What a browser does: through the issuer's two forms and back."""
    browser = httpx.Client(base_url=url, follow_redirects=True, headers={"accept": "text/html"}, timeout=30)
    page = browser.get("/login/oidc", params={"next": wanted})
    for prompt in ("login", "consent"):
        action = re.findall(r'action="([^"]+)"', page.text)
        if not action:
            break
        page = browser.post(
            httpx.URL(page.url).join(action[0]), data={"prompt": prompt, "login": name, "password": "any"}
        )
    return browser, page


def test_the_issuers_groups_are_roles(guarded):
    url, folder = guarded
    for name, role, status in (("admins-ada", "admin", 200), ("readers-viv", "viewer", 403)):
        browser, page = sign_in(url, name)
        assert (page.status_code, page.url.path, f"{name}@example.org" in page.text) == (200, "/", True)
        assert browser.get("/api/noria/v1/whoami").json()["grants"] == [{"role": role, "pattern": "*"}]
        assert browser.get("/api/noria/v1/users").status_code == status
        browser.close()
    rows = json.loads(noria("users", "list", "--json", cwd=folder).stdout)
    assert {row["user"]: row["roles"] for row in rows} == {
        "admins-ada@example.org": "admin of *",
        "readers-viv@example.org": "viewer of *",
    }
    noria("audit", "verify", cwd=folder)


def test_a_token_made_in_a_session_serves_a_client(guarded):
    browser, page = sign_in(guarded[0], "admins-ada", "/rollouts/a.1")
    assert page.url.path == "/rollouts/a.1"  # where it was asked for, though there is none
    made = browser.post("/api/noria/v1/tokens", json={"label": "ci", "days": 1}, headers={"origin": guarded[0]})
    assert made.status_code == 201, made.text
    bearer = {"authorization": f"Bearer {made.json()['token']}"}
    assert httpx.get(f"{guarded[0]}/api/2.0/mlflow/experiments/search", headers=bearer).status_code == 200
    browser.close()


def test_a_user_in_no_group_may_do_nothing(guarded):
    browser, page = sign_in(guarded[0], "strangers-sam")
    assert page.status_code == 403
    assert browser.get("/api/2.0/mlflow/experiments/search").status_code == 403
    browser.close()


def test_an_address_the_issuer_has_not_verified_is_not_let_in(guarded):
    browser, page = sign_in(guarded[0], "unverified-una")
    assert (page.status_code, "not verified" in page.text) == (401, True)
    browser.close()


@pytest.mark.parametrize("query", ["", "?code=x", "?code=x&state=forged", "?error=access_denied&state=x"])
def test_a_callback_that_was_not_asked_for_is_refused(guarded, query):
    answer = httpx.get(f"{guarded[0]}/login/oidc/callback{query}", cookies={"noria_sign_in": "a.b.c"})
    assert (answer.status_code, "not begun here" in answer.text) == (401, True)
