"""A workspace without records: that of a gateway that serves its route files."""

from __future__ import annotations

import pytest

from noria.config import ServerSettings
from noria.errors import InvalidConfig
from noria.store.workspace import Workspace


def test_without_a_database_the_rest_is_there_and_the_records_say_why_not(tmp_path):
    workspace = Workspace(tmp_path, ServerSettings.model_validate({"store": {"database": "", "folder": "model"}}))
    assert not workspace.has_database
    assert workspace.route_file("churn") == tmp_path / "model/routes/churn.json"
    with pytest.raises(InvalidConfig, match="only serves predictions"):
        _ = workspace.database
    assert list(tmp_path.iterdir()) == []
