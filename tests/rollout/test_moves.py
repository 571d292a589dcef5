"""Who may meet whom in a rollout."""

from __future__ import annotations

import pytest

from noria.errors import Conflict
from noria.rollout.moves import check_versions


def test_a_version_meets_others_and_each_of_them_once():
    check_versions(1, [2, 3])
    with pytest.raises(Conflict, match="version 1 is the champion: it serves already"):
        check_versions(1, [2, 1])
    with pytest.raises(Conflict, match="version 2 is named more than once"):
        check_versions(1, [2, 3, 2])
