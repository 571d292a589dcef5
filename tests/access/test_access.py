"""Accounts: who is let in, what each role may do, and whose name a change is recorded under."""

from __future__ import annotations

import base64
import json
import time

import httpx
import pytest

from access_world import PASSWORD, Guarded, add_user
from noria.surface.cli.processes import Child
from support import noria

USERS = {
    "viv": ("viewer", "*"),
    "carl": ("contributor", "*"),
    "mia": ("maintainer", "churn*"),
    "ada": ("admin", "*"),
    "abe": ("approver", "*"),
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A live server with accounts, one user a role."""
    folder = tmp_path_factory.mktemp("guarded")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NORIA_STORE__DATABASE", f"sqlite:///{folder}/noria.db")
        environment.setenv("NORIA_ACCESS__ENABLED", "true")
        (folder / "noria.toml").write_text(
            '[project]\nname = "g"\n[model]\nname = "churn"\ntask = "regression"\n'
            '[policies."churn".stages.Production]\nrequired_tags = ["reviewed"]\n'
        )
        for name, (role, models) in USERS.items():
            add_user(folder, name, role, models)
        child = Child("server", folder, 0)
        try:
            yield Guarded(child.url, folder)
        finally:
            child.stop()


@pytest.fixture(scope="module", autouse=True)
def models(guarded):
    """Two models, made by a contributor."""
    for name in ("churn", "other"):
        answer = guarded.call("carl", "POST", "/registered-models/create", {"name": name})
        assert answer.status_code == 200, answer.text


def test_nobody_gets_no_further_than_the_door(guarded):
    for path in ("/api/2.0/mlflow/experiments/search", "/api/2.0/mlflow-artifacts/artifacts", "/api/noria/v1/models"):
        answer = httpx.get(guarded.url + path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="Noria"')
    assert httpx.get(f"{guarded.url}/health").text == "OK"
    page = httpx.get(guarded.url, headers={"accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login")


@pytest.mark.parametrize(
    "header",
    [
        "Basic " + base64.b64encode(b"ada:wrong password").decode(),
        "Basic " + base64.b64encode(b"nobody:" + PASSWORD.encode()).decode(),
        "Basic " + base64.b64encode(b"ada:").decode(),
        "Basic \xff\xfe",
        "Basic %%%",
        "Bearer noria_0000000000000000_secret",
        "Bearer noria_",
        "Bearer",
        "Digest x",
        "",
    ],
)
def test_a_wrong_credential_is_refused_in_mlflows_shape(guarded, header):
    answer = httpx.get(
        f"{guarded.url}/api/2.0/mlflow/experiments/search", headers={"authorization": header.encode("latin-1")}
    )
    assert answer.status_code == 401, answer.text
    assert answer.json()["error_code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("GET", "/experiments/get-by-name", {"experiment_name": "Default"}, {"viv", "carl", "mia", "ada", "abe"}),
        ("POST", "/runs/search", {"experiment_ids": ["0"]}, {"viv", "carl", "mia", "ada", "abe"}),
        ("POST", "/runs/create", {"experiment_id": "0"}, {"carl", "mia", "ada"}),
        ("POST", "/model-versions/create", {"name": "churn", "source": "s"}, {"carl", "mia", "ada"}),
        ("POST", "/model-versions/create", {"name": "other", "source": "s"}, {"carl", "ada"}),
        ("POST", "/registered-models/set-tag", {"name": "churn", "key": "k", "value": "v"}, {"mia", "ada"}),
        ("POST", "/registered-models/set-tag", {"name": "other", "key": "k", "value": "v"}, {"ada"}),
        ("PATCH", "/registered-models/update", {"name": "churn", "description": "d"}, {"mia", "ada"}),
        ("POST", "/registered-models/rename", {"name": "churn", "new_name": "churn"}, {"mia", "ada"}),
        ("GET", "/webhooks", {}, {"ada"}),
        ("POST", "/webhooks/nothing/test", {}, {"ada"}),
    ],
)
def test_a_role_may_do_what_it_says_and_nothing_else(guarded, method, path, body, allowed):
    answers = {name: guarded.call(name, method, path, body).status_code for name in USERS}
    assert {name for name, status in answers.items() if status != 403} == allowed, answers
    assert not {401, 500} & set(answers.values())


def test_whoever_may_not_set_a_tag_that_the_policy_asks_for_does_not_bring_it_along(guarded):
    run = guarded.call("carl", "POST", "/runs/create", {"experiment_id": "0"}).json()["run"]["info"]
    body = {"name": "churn", "source": f"{run['artifact_uri']}/m", "run_id": run["run_id"]}
    tags = [{"key": "team", "value": "growth"}, {"key": "reviewed", "value": "yes"}]
    refused = guarded.call("carl", "POST", "/model-versions/create", {**body, "tags": tags})
    assert (refused.status_code, refused.json()["error_code"]) == (403, "PERMISSION_DENIED")
    assert "what its policy asks for: reviewed" in refused.json()["message"]
    assert guarded.call("carl", "POST", "/model-versions/create", {**body, "tags": tags[:1]}).status_code == 200
    assert guarded.call("mia", "POST", "/model-versions/create", {**body, "tags": tags}).status_code == 200


def test_a_rename_needs_both_names(guarded):
    assert (
        guarded.call("mia", "POST", "/registered-models/rename", {"name": "churn", "new_name": "x"}).status_code == 403
    )


def test_logging_and_artifacts_ask_too(guarded):
    claimed = {"experiment_id": "0", "user_id": "somebody else"}
    info = guarded.call("carl", "POST", "/runs/create", claimed).json()["run"]["info"]
    assert info["user_id"] == "carl"
    run = info["run_id"]
    metric = {"run_id": run, "key": "k", "value": 1.0, "timestamp": 1}
    answers = {name: guarded.call(name, "POST", "/runs/log-metric", metric).status_code for name in ("viv", "carl")}
    assert answers == {"viv": 403, "carl": 200}
    for name, status in (("viv", 403), ("carl", 200)):
        with guarded.as_user(name) as client:
            assert client.put(f"/api/2.0/mlflow-artifacts/artifacts/{name}.txt", content=b"x").status_code == status


def test_every_change_names_who_made_it_and_the_request(guarded):
    with guarded.as_user("ada") as client:
        body = {"name": "churn", "key": "seen", "value": "by ada"}
        answer = client.post(
            "/api/2.0/mlflow/registered-models/set-tag", json=body, headers={"x-request-id": "request-7"}
        )
    assert answer.headers["x-request-id"] == "request-7"
    newest = json.loads(noria("audit", "show", "--json", cwd=guarded.folder).stdout)[0]
    assert (newest["actor"], newest["detail"]["request_id"]) == ("ada", "request-7")


def test_a_token_is_basic_or_bearer_and_ends_when_revoked(guarded):
    token = noria("tokens", "create", "carl", "--label", "ci", cwd=guarded.folder).stdout.strip()
    url = f"{guarded.url}/api/2.0/mlflow/experiments/search"
    bearer = {"authorization": f"Bearer {token}"}
    assert httpx.get(url, headers=bearer).status_code == 200
    assert httpx.get(url, auth=("carl", token)).status_code == 200
    rows = json.loads(noria("tokens", "list", "--user", "carl", "--json", cwd=guarded.folder).stdout)
    assert rows[0]["label"] == "ci"
    assert token not in json.dumps(rows)
    noria("tokens", "revoke", rows[0]["token"], cwd=guarded.folder)
    deadline = time.monotonic() + 15
    while httpx.get(url, headers=bearer).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert httpx.get(url, headers=bearer).status_code == 401


def test_a_disabled_user_is_out(guarded):
    add_user(guarded.folder, "gone", "viewer")
    assert guarded.call("gone", "POST", "/runs/search").status_code == 200
    noria("users", "disable", "gone", cwd=guarded.folder)
    time.sleep(5.5)
    assert guarded.call("gone", "POST", "/runs/search").status_code == 401


def test_secrets_are_kept_as_argon2_hashes_only(guarded):
    content = (guarded.folder / "noria.db").read_bytes() + (guarded.folder / "noria.db-wal").read_bytes()
    assert b"$argon2id$" in content
    assert PASSWORD.encode() not in content
    noria("audit", "verify", cwd=guarded.folder)


def test_a_session_signs_in_and_out_and_no_other_page_uses_it(guarded):
    with httpx.Client(base_url=guarded.url, headers={"accept": "text/html"}) as browser:
        wrong = browser.post("/login", data={"name": "ada", "password": "wrong password"})
        assert (wrong.status_code, "not valid" in wrong.text) == (401, True)
        elsewhere = {"origin": "https://elsewhere.example"}
        form = {"name": "ada", "password": PASSWORD}
        assert browser.post("/login", data=form, headers=elsewhere).status_code == 403
        assert browser.post("/login", data=form).status_code == 303
        assert "Sign out" in browser.get("/").text
        change = {"name": "churn", "key": "k", "value": "v"}
        tag = "/api/2.0/mlflow/registered-models/set-tag"
        assert browser.post(tag, json=change, headers=elsewhere).status_code == 403
        assert browser.post(tag, json=change).status_code == 403
        assert browser.post(tag, json=change, headers={"origin": guarded.url}).status_code == 200
        assert browser.post("/logout", headers={"origin": guarded.url}).status_code == 303
        assert browser.get("/").status_code == 303


def test_signing_in_leads_back_to_the_page_that_was_asked_for_and_nowhere_else(guarded):
    with httpx.Client(base_url=guarded.url, headers={"accept": "text/html"}) as browser:
        asked = browser.get("/rollouts/abc")
        assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=/rollouts/abc")
        form = browser.get(asked.headers["location"]).text
        assert '<input type="hidden" name="next" value="/rollouts/abc">' in form
        wrong = browser.post("/login", data={"name": "a<b", "password": "x", "next": "/rollouts/abc"}).text
        assert 'value="a&lt;b"' in wrong and 'value="/rollouts/abc"' in wrong
        for wanted, led in [("/rollouts/abc", "/rollouts/abc"), ("//elsewhere.example", "/"), ("https://a.b", "/")]:
            answer = browser.post("/login", data={"name": "ada", "password": PASSWORD, "next": wanted})
            assert (answer.status_code, answer.headers["location"]) == (303, led)


def test_a_button_of_a_session_that_has_ended_leads_to_the_sign_in(guarded):
    headers = {"accept": "text/html", "origin": guarded.url, "cookie": "noria_session=ended"}
    pressed = httpx.post(f"{guarded.url}/rollouts/abc/pause", headers=headers)
    assert (pressed.status_code, pressed.headers["location"]) == (303, "/login")
    assert httpx.post(f"{guarded.url}/api/2.0/mlflow/runs/search", headers=headers).status_code == 401


def test_without_accounts_no_other_machine_is_let_near(guarded, monkeypatch, tmp_path):
    monkeypatch.delenv("NORIA_ACCESS__ENABLED", raising=False)
    url = f"sqlite:///{tmp_path}/noria.db"
    done = noria("server", "--store", url, "--host", "0.0.0.0", "--port", "0", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "noria users add" in done.stderr
