"""A browser that shows somebody else's page reaches nothing, with accounts and without."""

from __future__ import annotations

import httpx
import pytest

from noria.surface.cli.processes import Child
from support import noria

SEARCH = "/api/2.0/mlflow/experiments/search"


def status(url, method="POST", path=SEARCH, **headers):
    answer = httpx.request(method, url + path, json={"max_results": 1} if method == "POST" else None, headers=headers)
    if answer.status_code == 403:
        assert answer.json()["error_code"] == "PERMISSION_DENIED"
    return answer.status_code


def port_of(url):
    return url.rpartition(":")[2]


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.1:99", "127.8.8.8", "[::1]:5000"])
def test_this_machine_is_asked_by_its_own_names(server, host):
    assert status(server, host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example",
        "127.0.0.1.example:5000",
        "localhost.example",
        "0.0.0.0",
        "10.0.0.1",
        "a@localhost",
        "[::1",
        "",
    ],
)
def test_any_other_name_leads_nowhere(server, host):
    assert status(server, host=host) == 403
    assert status(server, "GET", "/", host=host) == 403
    assert status(server, "GET", "/health", host=host) == 200


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://localhost:1", "http://[", ""])
@pytest.mark.parametrize("path", [SEARCH, "/api/noria/v1/models/m/rollback", "/api/2.0/mlflow-artifacts/mpu/create/x"])
def test_a_page_of_another_origin_is_refused(server, origin, path):
    answer = httpx.post(server + path, json={}, headers={"origin": origin})
    assert (answer.status_code, "Cross-origin" in answer.text) == (403, True)


def test_the_servers_own_pages_are_not(server):
    assert status(server, origin=server) == 200
    assert status(server, host=f"localhost:{port_of(server)}", origin=f"http://localhost:{port_of(server)}") == 200


@pytest.fixture
def named(tmp_path, monkeypatch):
    """A server with accounts under names of its own; its URL and credentials."""
    monkeypatch.setenv("NORIA_STORE__DATABASE", f"sqlite:///{tmp_path}/noria.db")
    noria("users", "add", "ada", "--role", "admin", "--password-stdin", cwd=tmp_path, stdin="correct horse battery")
    monkeypatch.setenv("NORIA_ACCESS__ENABLED", "true")
    monkeypatch.setenv("NORIA_SERVER__ALLOWED_HOSTS", '["models.example.com", "*.team.example"]')
    (tmp_path / "noria.toml").write_text('[project]\nname = "g"\n[model]\nname = "m"\ntask = "regression"\n')
    child = Child("server", tmp_path, 0)
    yield child.url, ("ada", "correct horse battery")
    child.stop()


def test_names_that_are_allowed_are_answered_and_accounts_do_not_open_the_door_to_other_pages(named):
    url, credentials = named
    hosts = {"models.example.com": 200, "a.team.example:443": 200, "127.0.0.1": 200, "x.example": 403}
    for host, expected in hosts.items():
        answer = httpx.post(url + SEARCH, json={"max_results": 1}, auth=credentials, headers={"host": host})
        assert answer.status_code == expected, host
    elsewhere = {"origin": "https://elsewhere.example"}
    assert httpx.post(url + SEARCH, json={"max_results": 1}, auth=credentials, headers=elsewhere).status_code == 403
