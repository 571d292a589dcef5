"""Where a gateway is to be found, and connections to it."""

from __future__ import annotations

import http.client
import socket
import ssl
from contextlib import suppress
from urllib.parse import quote, unquote, urlsplit

import msgspec

from noria.errors import InvalidInput


class Address(msgspec.Struct, frozen=True):
    """Where a gateway listens: a host and port, or the path of a Unix socket; ``prefix`` is that of a proxy before it.

    The prefix is part of a path: empty, or /ml without a slash behind it.
    """

    scheme: str
    host: str
    port: int
    socket_path: str = ""
    prefix: str = ""

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises InvalidInput for what names no gateway."""
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path:
            return cls("http", "localhost", 80, unquote(parts.path))
        with suppress(ValueError):  # a port that is none
            nothing_else = not (parts.query or parts.fragment or "@" in parts.netloc)
            if parts.scheme in ("http", "https") and parts.hostname and nothing_else:
                port, prefix = parts.port or (443 if parts.scheme == "https" else 80), quote(parts.path, safe="/%")
                return cls(parts.scheme, parts.hostname, port, prefix=prefix.rstrip("/"))
        raise InvalidInput(f"{url!r} names no gateway", remedy="Write http://host:port, https:// or unix:///path.")

    def __str__(self) -> str:
        """As it is written."""
        return f"unix://{self.socket_path}" if self.socket_path else f"{self.scheme}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        """HOST:PORT, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connection(self, timeout_seconds: float) -> http.client.HTTPConnection:
        """A connection, not yet made."""
        if self.socket_path:
            return _UnixConnection(self.socket_path, timeout_seconds)
        if self.scheme == "http":
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout_seconds)
        return http.client.HTTPSConnection(
            self.host, self.port, timeout=timeout_seconds, context=ssl.create_default_context()
        )


def reach_remedy(error: Exception) -> str:
    """What to do where no connection can be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "Ask by a name that its certificate has; SSL_CERT_FILE names a file with an authority of your own."
    return "Check the address, and that the gateway runs."


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
