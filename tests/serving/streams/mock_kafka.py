"""librdkafka's mock cluster, as its own library offers it: brokers that go down and come up, and say no."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka

_BROKERS, _PARTITIONS, _PRODUCER = (1, 2, 3), 4, 0
_REBALANCE_MILLIS = 100
"""How long a new group waits for more members; the mock's own three seconds are most of a test."""


class MockKafka:
    """A cluster in this process: real connections, no broker's disk. ``address`` names all of its brokers."""

    def __init__(self) -> None:
        self._library = _library()
        self._client = ctypes.c_void_p(self._library.rd_kafka_new(_PRODUCER, None, None, ctypes.c_size_t(0)))
        self._cluster = ctypes.c_void_p(self._library.rd_kafka_mock_cluster_new(self._client, len(_BROKERS)))
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, _REBALANCE_MILLIS)
        self.address: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def make(self, topic: str) -> None:
        """Make a topic."""
        self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), _PARTITIONS, 1)

    def stop(self) -> None:
        """Take all brokers down; what they hold stays."""
        for broker in _BROKERS:
            self._library.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def start(self) -> None:
        """Bring all brokers up, where they were."""
        for broker in _BROKERS:
            self._library.rd_kafka_mock_broker_set_up(self._cluster, broker)


def _library() -> ctypes.CDLL:
    """The one that the client uses, which comes beside it in its wheel."""
    (path,) = Path(confluent_kafka.__file__).parent.with_suffix(".libs").glob("librdkafka*")
    library = ctypes.CDLL(str(path))
    library.rd_kafka_new.restype = library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library
