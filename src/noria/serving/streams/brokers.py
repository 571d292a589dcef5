"""Which broker a URL names: kafka://, redis:// or nats://, with the stream behind a #."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlsplit

from noria.errors import InvalidInput, MissingExtra
from noria.serving.streams.messages import Reader, Writer
from noria.store.foreign import filled_in, without_password

_EXAMPLES = "kafka://HOST:9092#TOPIC, redis://HOST:6379/0#STREAM, nats://HOST:4222#SUBJECT"
_PORTS = {"kafka": 9092, "redis": 6379, "nats": 4222}
_LAST_PORT = 65_535
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+)(?::(?P<port>[0-9]{1,5}))?")
_TOKEN = re.compile(r"^((?:nats|tls)://)[^:@/?#]+@")
"""A name without a password is a secret to NATS."""
_DAY_SECONDS = 86_400
_WHOLE, _NUMBER = r"[0-9]+", r"[0-9]+(\.[0-9]+)?"
_OPTIONS = {
    "redis": {"maxlen": (_WHOLE, 1, 10**15), "claim_ms": (_WHOLE, 1000, 1000 * _DAY_SECONDS)},
    "nats": {"ack_seconds": (_NUMBER, 1, _DAY_SECONDS)},
}
"""What may stand behind the ?: how it is written, the least and the most. Kafka's are librdkafka's affair."""
_WRITTEN = {"kafka": r"[A-Za-z0-9._-]{1,249}", "redis": r"(?s:.+)", "nats": r"[^\s.*>]+(\.[^\s.*>]+)*"}
_READ = {**_WRITTEN, "kafka": r"\^.+|[A-Za-z0-9._-]{1,249}", "nats": r"(\*|[^\s.*>]+)(\.(\*|[^\s.*>]+))*(\.>)?|>"}
"""Names of streams that are written to; more than one can be read: by a regular expression, or by wildcards."""


@dataclass(frozen=True, slots=True)
class StreamUrl:
    """``kind`` and ``server`` of a broker (of Kafka and NATS several, between commas), its options, and the name of a
    stream there. ``shown`` has no password.

    ``places`` are the broker's addresses as HOST:PORT/DATABASE, however they were written.
    """

    kind: str
    server: str
    stream: str
    options: Mapping[str, str]
    shown: str
    places: frozenset[str]


def parse_stream(url: str, *, written: bool = False) -> StreamUrl:
    """The stream that ``url`` names, to read or to be ``written``; ``${NAME}`` stands for the environment's value.

    Raises InvalidInput for what names no stream, and for options and names that its broker does not have.
    """
    shown = _TOKEN.sub(r"\1***@", without_password(url))
    try:
        parts = urlsplit(filled_in(url, shown))
    except ValueError:  # of an address in brackets that is none
        raise _no_stream(shown) from None
    kind = {"rediss": "redis", "tls": "nats"}.get(parts.scheme, parts.scheme)
    if kind not in _PORTS or not parts.netloc or not parts.fragment:
        raise _no_stream(shown)
    if not re.fullmatch((_WRITTEN if written else _READ)[kind], parts.fragment):
        raise InvalidInput(
            f"{shown}: {parts.fragment!r} is no name of a stream {'to write' if written else 'to read'}",
            remedy=f"Write {_EXAMPLES}.",
        )
    server = parts._replace(query="", fragment="").geturl() if kind != "kafka" else parts.netloc
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    _check_options(kind, options, shown)
    return StreamUrl(kind, server, parts.fragment, options, shown, _places(kind, parts, shown))


def check_apart(source: str, sink: str, dead_letters: str = "") -> None:
    """Raises InvalidInput where what is produced would be consumed again, and where answers and messages without one
    would lie in one stream; and for what names no stream."""
    read, answers = parse_stream(source), parse_stream(sink, written=True)
    refused = [parse_stream(dead_letters, written=True)] if dead_letters else []
    for target, what in [(answers, "--sink"), *((one, "--dead-letter") for one in refused)]:
        if read.places & target.places and _reads(read, target.stream):
            raise InvalidInput(
                f"{what} {target.shown} is what --source {read.shown} reads: it would be answered without end",
                remedy="Name another stream.",
            )
    for one in refused:
        if one.places & answers.places and one.stream == answers.stream:
            raise InvalidInput(
                f"--sink and --dead-letter are both {one.shown}", remedy="Name a stream for each, or leave one out."
            )


def _reads(source: StreamUrl, stream: str) -> bool:
    """Whether a stream at the same broker is the source, or one of those that its pattern takes in."""
    if source.kind == "nats":
        tokens = [{"*": r"[^.]+", ">": ".+"}.get(token, re.escape(token)) for token in source.stream.split(".")]
        return re.fullmatch(r"\.".join(tokens), stream) is not None
    if source.kind == "kafka" and source.stream.startswith("^"):
        with suppress(re.error):  # librdkafka has the last word on its expressions
            return re.match(source.stream, stream) is not None
    return source.stream == stream


def _check_options(kind: str, options: Mapping[str, str], shown: str) -> None:
    if kind not in _OPTIONS:
        return
    known = _OPTIONS[kind]
    for name, value in options.items():
        if name not in known:
            raise InvalidInput(f"{shown}: {kind} has no option {name!r}", remedy=f"Use {' or '.join(known)}.")
        pattern, least, most = known[name]
        if not re.fullmatch(pattern, value) or not least <= float(value) <= most:
            kind_of = "whole number" if pattern == _WHOLE else "number"
            raise InvalidInput(
                f"{shown}: {name} {value!r} is out of bounds", remedy=f"Give a {kind_of} from {least:,} to {most:,}."
            )


def _places(kind: str, parts: SplitResult, shown: str) -> frozenset[str]:
    """Where a broker is. Raises InvalidInput for hosts, ports and databases that are none."""
    hosts = parts.netloc.rpartition("@")[2].split(",")
    database = parts.path.strip("/")
    if (kind == "redis" and len(hosts) > 1) or not re.fullmatch(r"[0-9]*" if kind == "redis" else "", database):
        raise _no_stream(shown)
    found = []
    for host in hosts:
        match = _HOST.fullmatch(host)
        port = int((match and match["port"]) or _PORTS[kind])
        if match is None or not 1 <= port <= _LAST_PORT:
            raise _no_stream(shown)
        name = "127.0.0.1" if match["host"].lower() in ("localhost", "[::1]") else match["host"].lower()
        found.append(f"{name}:{port}/{int(database or 0)}")
    return frozenset(found)


def _no_stream(shown: str) -> InvalidInput:
    return InvalidInput(f"{shown!r} names no stream", remedy=f"Write {_EXAMPLES}.")


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
    stream = parse_stream(url, written=True)
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
