"""Which web pages may ask a gateway, and what their browsers are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from noria.errors import Forbidden, InvalidConfig

PREFLIGHT_KEPT = (b"access-control-max-age", b"600")
"""Else a browser asks before nearly every request: it keeps what it was told for five seconds."""
_SITE = b"sec-fetch-site"
_OWN = (b"same-origin", b"none")
_UNASKED = (b"", b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data")
"""Kinds of bodies that a browser sends anywhere, without asking first if its page may."""
_ANY = "*"
_PORTS: Mapping[str, int] = {"http": 80, "https": 443}


def origins_of(pages: Sequence[str]) -> frozenset[str]:
    """The origins of web pages, as browsers write them. Raises InvalidConfig for one that can have none."""
    return frozenset(_origin(page) for page in pages)


def is_preflight(method: str, sent: Mapping[bytes, bytes]) -> bool:
    """Whether a browser asks if it may send the request that its page wants."""
    return method == "OPTIONS" and b"access-control-request-method" in sent


def names_a_page(sent: Mapping[bytes, bytes]) -> bool:
    """Whether a browser says where the request comes from."""
    return _SITE in sent or b"origin" in sent


def check_page(origins: frozenset[str], method: str, sent: Mapping[bytes, bytes]) -> None:
    """Raises Forbidden for a POST that a page which may not call has its reader's browser send.

    It cannot read the answer, but rewards and labels would be taken, from whoever's machine reaches the gateway.
    """
    if method != "POST" or _is_own(sent):
        return
    origin = sent.get(b"origin", b"").decode("latin-1")
    if origins.intersection((origin, _ANY)):
        return
    raise Forbidden(
        f"a web page of {origin[:200] or 'another site'} asks, and it is none that may",
        remedy="Name its origin in gateway.cors_origins, if it is yours.",
    )


def answer_headers(origins: frozenset[str], sent: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """What an answer says to the browser that sent these headers, where pages of ``origins`` may call."""
    origin = sent.get(b"origin", b"").decode("latin-1")
    if not origin or not origins.intersection((origin, _ANY)):
        return [(b"vary", b"origin")]  # or a cache would give this to a page that is allowed
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-methods", b"GET, POST"),
        # a star would not stand for Authorization
        (b"access-control-allow-headers", sent.get(b"access-control-request-headers", b"*")),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    ]


def _is_own(sent: Mapping[bytes, bytes]) -> bool:
    """Whether no page of another site sends this, as far as the browser tells: over plain HTTP only the page's origin.

    A proxy may have changed the host since then, so that alone makes no page another's.
    """
    if (site := sent.get(_SITE)) is not None:
        return site in _OWN
    kind, host = sent.get(b"content-type", b"").partition(b";")[0].strip().lower(), sent.get(b"host")
    return kind not in _UNASKED or b"origin" not in sent or sent[b"origin"].partition(b"://")[2] == host


def _origin(page: str) -> str:
    if page in (_ANY, "null"):  # any page; one that was opened as a file
        return page
    try:
        parts = urlsplit(page.lower())
        port, host = parts.port, parts.hostname
    except ValueError:
        port = host = None
    if not host or not parts.scheme or _ANY in host:
        raise InvalidConfig(
            f"gateway.cors_origins has {page!r}, which is no origin of a web page",
            remedy="Write its scheme and host, such as https://shop.example.com; or '*' for any.",
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port and port != _PORTS.get(parts.scheme) else "")
