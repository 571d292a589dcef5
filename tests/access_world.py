"""A live server with accounts, and the users the tests act as."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx

from support import noria

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Guarded:
    """The server's URL, its project and its database's environment."""

    url: str
    folder: Path

    def as_user(self, name: str, secret: str = PASSWORD) -> httpx.Client:
        """A client that sends Basic credentials, as MLflow's does."""
        return httpx.Client(base_url=self.url, auth=(name, secret), timeout=30)

    def call(self, name: str, method: str, path: str, body: dict[str, object] | None = None) -> httpx.Response:
        """One request to MLflow's protocol."""
        content = {"params": body} if method == "GET" else {"json": body}
        with self.as_user(name) as client:
            return client.request(method, f"/api/2.0/mlflow{path}", **content)


def add_user(folder: Path, name: str, role: str, models: str = "*") -> None:
    """`noria users add`, as an administrator does it."""
    noria("users", "add", name, "--role", role, "--models", models, "--password-stdin", cwd=folder, stdin=PASSWORD)
