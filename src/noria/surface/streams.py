"""Messages answered as POST /predict answers: the same JSON, the same data plane, CloudEvents too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from noria.errors import NotFound, Unavailable
from noria.ids import derived_id
from noria.serving import DataPlane, PredictionRequest
from noria.serving.live import Live
from noria.serving.streams import Message
from noria.surface.http import cloudevents, native
from noria.surface.http.gateway_bodies import PredictBody, decode_predict


@dataclass(frozen=True, slots=True)
class StreamFront:
    """Answers the messages of one deployment."""

    plane: DataPlane
    deployment: str

    async def __call__(self, message: Message) -> bytes:
        """The answer to a message. Raises Unavailable while the deployment is not served, InvalidInput and the like.

        A row without a prediction_id gets one made of the message's position: given again it is routed, answered and
        logged under the same one.
        """
        live = self.live()
        body, event = _data(message)
        asked = _with_ids(decode_predict(body), derived_id("stream", message.position))
        answer = await native.answer(self.plane, live, asked)
        if event is None:
            return answer
        source = f"/noria/streams/{message.position}"
        return cloudevents.structured_answer(answer, b"application/json", event, source)

    def live(self) -> Live:
        """The deployment. Raises Unavailable while it is not served."""
        try:
            return self.plane.find(self.deployment)
        except (NotFound, Unavailable):
            if self.deployment in self.plane.faults:
                raise
            raise Unavailable(
                f"there is no deployment {self.deployment!r} yet",
                remedy="`noria deploy list` shows which there are; messages wait until it serves.",
            ) from None


def _data(message: Message) -> tuple[bytes, Mapping[str, str] | None]:
    """The request in a message, and the attributes of the event it came as, None when it came as it is."""
    kind = next((value for name, value in message.headers.items() if name.lower() == "content-type"), "")
    if not kind.startswith(cloudevents.STRUCTURED) and b'"specversion"' not in message.body:
        return message.body, None
    return cloudevents.opened(message.body)


def _with_ids(body: PredictBody, identity: str) -> PredictBody:
    if body.instances is None:
        return body if body.prediction_id else msgspec.structs.replace(body, prediction_id=identity)
    rows: list[PredictionRequest] = [
        row if row.prediction_id else msgspec.structs.replace(row, prediction_id=f"{identity}-{place}")
        for place, row in enumerate(body.instances)
    ]
    return msgspec.structs.replace(body, instances=rows)
