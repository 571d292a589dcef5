"""One pair of servers for the suite."""

from __future__ import annotations

import pytest

from conformance.servers import both


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Clients of (MLflow, Noria), each on an empty store."""
    with both(tmp_path_factory.mktemp("conformance")) as clients:
        yield clients
