"""What fails every few seconds does not fill the log."""

from __future__ import annotations

from structlog.testing import capture_logs

from noria.lifecycle.troubles import Troubles


def test_a_trouble_is_told_when_it_begins_changes_and_ends():
    troubles = Troubles("job_failed", "job")
    with capture_logs() as told:
        for reason in ("down", "down", "full", "full"):
            troubles.begin("rollouts", reason)
        troubles.begin("wheel", "down")
        for _ in range(2):
            troubles.end("rollouts")
    assert [(one["event"], one["job"], one.get("reason")) for one in told] == [
        ("job_failed", "rollouts", "down"),
        ("job_failed", "rollouts", "full"),
        ("job_failed", "wheel", "down"),
        ("job_failed_no_more", "rollouts", None),
    ]
