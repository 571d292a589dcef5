"""Which broker a URL names: kafka://, redis:// or nats://, with the stream behind a #."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from noria.errors import InvalidInput, MissingExtra
from noria.serving.streams.messages import Reader, Writer
from noria.store.foreign import filled_in, without_password

_EXAMPLES = "kafka://HOST:9092#TOPIC, redis://HOST:6379/0#STREAM, nats://HOST:4222#SUBJECT"


@dataclass(frozen=True, slots=True)
class StreamUrl:
    """``kind`` and ``server`` of a broker, its options, and the name of a stream there. ``shown`` has no password."""

    kind: str
    server: str
    stream: str
    options: Mapping[str, str]
    shown: str


def parse_stream(url: str) -> StreamUrl:
    """The stream that ``url`` names; ``${NAME}`` in it stands for the environment's value. Raises InvalidInput."""
    shown = without_password(url)
    parts = urlsplit(filled_in(url, shown))
    kind = {"rediss": "redis", "tls": "nats"}.get(parts.scheme, parts.scheme)
    if kind not in ("kafka", "redis", "nats") or not parts.netloc or not parts.fragment:
        raise InvalidInput(f"{shown!r} names no stream", remedy=f"Write {_EXAMPLES}.")
    server = parts._replace(query="", fragment="").geturl() if kind != "kafka" else parts.netloc
    return StreamUrl(kind, server, parts.fragment, dict(parse_qsl(parts.query)), shown)


def open_reader(url: str, group: str) -> Reader:
    """A consumer of the stream, as a member of ``group``. Raises InvalidInput, MissingExtra."""
    stream = parse_stream(url)
    try:
        if stream.kind == "kafka":
            from noria.serving.streams.kafka import KafkaReader

            return KafkaReader(stream, group)
        if stream.kind == "redis":
            from noria.serving.streams.redis_streams import RedisReader

            return RedisReader(stream, group)
        from noria.serving.streams.nats_jetstream import NatsReader

        return NatsReader(stream, group)
    except ImportError:
        raise _missing(stream) from None


def open_writer(url: str) -> Writer:
    """A producer into the stream. Raises InvalidInput, MissingExtra."""
    stream = parse_stream(url)
    try:
        if stream.kind == "kafka":
            from noria.serving.streams.kafka import KafkaWriter

            return KafkaWriter(stream)
        if stream.kind == "redis":
            from noria.serving.streams.redis_streams import RedisWriter

            return RedisWriter(stream)
        from noria.serving.streams.nats_jetstream import NatsWriter

        return NatsWriter(stream)
    except ImportError:
        raise _missing(stream) from None


def _missing(stream: StreamUrl) -> MissingExtra:
    return MissingExtra(
        f"{stream.shown} needs a package that is not installed", remedy=f"pip install 'noria[{stream.kind}]'"
    )
