"""URLs as they may be shown."""

from __future__ import annotations

import pytest

from noria.store.foreign import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:p@ss/word@h:5432/db", "postgresql://me:***@h:5432/db"),
        ("redis://:secret@h:6379/0#a@b", "redis://:***@h:6379/0#a@b"),
        ("nats://h:4222#a@b", "nats://h:4222#a@b"),
        ("kafka://h:9092?sasl.username=me&sasl.password=secret&acks=1#t",
         "kafka://h:9092?sasl.username=me&sasl.password=***&acks=1#t"),
        ("postgresql://h/db?user=me&password=secret", "postgresql://h/db?user=me&password=***"),
        ("s3://bucket/a:b@c.csv", "s3://bucket/a:b@c.csv"),
    ],
)  # fmt: skip
def test_no_password_is_shown(url, shown):
    assert without_password(url) == shown
