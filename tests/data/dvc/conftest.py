"""DVC's configuration of this machine's user stays out of the tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_user_configuration(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC and we find no settings but those of the project."""
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path_factory.getbasetemp() / "no-settings"))
