"""POST /predict with one row, the request most gateways get most: answered without a task of its own."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from noria.serving import DataPlane
from noria.serving.items import Item, Result
from noria.surface.http import cloudevents
from noria.surface.http.cross_origin import names_a_page
from noria.surface.http.exchange import Exchange, Headers, head_of
from noria.surface.http.gateway_bodies import decode_predict
from noria.surface.http.gateway_requests import LARGE_BYTES, WORTH_COMPRESSING_BYTES, Request, admitted, compress

Refusal = Callable[[Exception, str], tuple[int, Headers, bytes]]
"""What is answered to an error at a path: status, headers, body."""

_encode = msgspec.json.Encoder().encode
_HEAD = head_of([(b"content-type", b"application/json")])
_PREFIX, _PATH = "/models/", "/predict"


def take(plane: DataPlane, exchange: Exchange, refusal: Refusal) -> bool:
    """Whether the request is one row to predict, and will be answered; what is anything else is left alone."""
    path = exchange.path
    model = None
    if path != _PATH:
        model = path[len(_PREFIX) : -len(_PATH)]
        if path != f"{_PREFIX}{model}{_PATH}" or "/" in model:
            return False
    headers = dict(exchange.headers)
    request = Request("POST", path, model, headers, exchange.body)
    if len(request.body) >= LARGE_BYTES or b"content-encoding" in headers or cloudevents.is_event(request):
        return False
    if names_a_page(headers):
        return False
    try:
        live, asked = admitted(plane, request), decode_predict(request.body)
        if asked.instances is not None:
            return False
        answer = _Row(exchange, headers.get(b"accept-encoding", b""), refusal)
        answer.item = plane.ask(live, asked, request.timeout, answer)
    except Exception:  # the longer way says what is wrong
        return False
    return True


class _Row:
    """Waits for what becomes of the row, and sends it; see ``items.Answer``."""

    __slots__ = ("_accepted", "_exchange", "_refusal", "item")

    def __init__(self, exchange: Exchange, accepted: bytes, refusal: Refusal) -> None:
        self.item: Item
        self._exchange, self._accepted, self._refusal = exchange, accepted, refusal

    def done(self) -> bool:
        return self._exchange.response_complete

    def cancelled(self) -> bool:
        return False

    def set_result(self, result: Result) -> None:
        item = self.item
        del self.item  # they hold each other, and would wait for the garbage collector
        try:
            head, body = _HEAD, _encode(item.prediction(*result))
            if self._accepted and len(body) > WORTH_COMPRESSING_BYTES:
                body, more = compress(body, self._accepted)
                head += head_of(more)
        except Exception as error:
            self.set_exception(error)
        else:
            self._exchange.answer(200, head, body)

    def set_exception(self, error: Exception) -> None:
        status, headers, body = self._refusal(error, self._exchange.path)
        self._exchange.answer(status, head_of(headers), body)
