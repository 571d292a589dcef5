"""Sending one letter: signed, to an address that was looked at first, within a time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
from datetime import datetime
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from noria.errors import Forbidden, Unavailable
from noria.events.entities import Letter

SECONDS = 10.0
"""How long connecting, sending and the answer may take together."""

_MOST_BODY_BYTES = 4096
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Answer(NamedTuple):
    """What the receiver said: the status, and the beginning of the body."""

    status: int
    body: str


def sign(secret: str, delivery_id: str, timestamp: str, body: str) -> str:
    """The signature header: HMAC-SHA256 over id, time and body, joined by dots."""
    digest = hmac.new(secret.encode(), f"{delivery_id}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def post(letter: Letter, *, at: datetime, allow_private: bool) -> Answer:
    """Send ``letter`` once; redirects are not followed.

    Raises Forbidden for a target in a private network, Unavailable when there is no answer in time.
    """
    parts = urlsplit(letter.url)
    try:
        return _exchange(parts, letter, _headers(letter, at), allow_private=allow_private)
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = str(error) or type(error).__name__
        raise Unavailable(f"{parts.hostname} did not answer: {cause}", remedy="Check that it listens.") from error


def _exchange(parts: SplitResult, letter: Letter, headers: dict[str, str], *, allow_private: bool) -> Answer:
    opened = _connect(parts, allow_private=allow_private)
    connection = http.client.HTTPConnection(parts.netloc, timeout=SECONDS)
    connection.sock = opened
    watchdog = threading.Timer(SECONDS, _cut, [opened])  # a timeout of the socket starts anew with every byte
    watchdog.daemon = True
    watchdog.start()
    try:
        if isinstance(opened, ssl.SSLSocket):
            opened.do_handshake()
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, letter.body.encode(), headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(_MOST_BODY_BYTES).decode(errors="replace"))
    finally:
        watchdog.cancel()
        connection.close()


def _connect(parts: SplitResult, *, allow_private: bool) -> socket.socket:
    """A connection to an address that was checked: the name is looked up once, so that it cannot change between.

    A handshake is left to whoever watches the time.
    """
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = [(str(info[4][0]), int(info[4][1])) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not allow_private:
        for address in found:
            _require_public(host, ipaddress.ip_address(address[0].partition("%")[0]))
    opened = _open(found)
    if parts.scheme == "http":
        return opened
    try:
        context = ssl.create_default_context()
        return context.wrap_socket(opened, server_hostname=host, do_handshake_on_connect=False)
    except BaseException:
        opened.close()
        raise


def _open(addresses: list[tuple[str, int]]) -> socket.socket:
    """A connection to the first address that takes one."""
    refused: OSError = OSError("the name has no address")
    for host, port in addresses:
        try:
            opened = socket.create_connection((host, port), timeout=SECONDS / len(addresses))
            opened.settimeout(SECONDS)
            return opened
        except OSError as error:
            refused = error
    raise refused


def _require_public(host: str, address: _Address) -> None:
    meant = _embedded(address)
    if not meant.is_global or meant.is_multicast:
        raise Forbidden(
            f"{host} is at {address}, which is not a public address",
            remedy="Set webhooks.allow_private = true when webhooks may reach private networks.",
        )


def _embedded(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 one stands for, so that none hides behind it."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _headers(letter: Letter, at: datetime) -> dict[str, str]:
    timestamp = str(int(at.timestamp()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "noria",
        "X-MLflow-Delivery-Id": letter.delivery_id,
        "X-MLflow-Timestamp": timestamp,
        "Connection": "close",
    }
    if letter.secret:
        headers["X-MLflow-Signature"] = sign(letter.secret, letter.delivery_id, timestamp, letter.body)
    return headers


def _cut(opened: socket.socket) -> None:
    try:
        opened.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is over already
