"""What the gateway reads in its own format: decoded, with the field at fault named."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

import msgspec

from noria.errors import InvalidInput
from noria.monitoring.log import MOST_AHEAD_MILLIS, LabelRecord, RewardRecord
from noria.monitoring.reward_keys import key_by_content, key_by_place
from noria.serving.inputs import PredictionRequest, Value, ill_typed, parse_instant

Decoded = TypeVar("Decoded")
_Named = Annotated[str, msgspec.Meta(min_length=1)]


class PredictBody(PredictionRequest, frozen=True, forbid_unknown_fields=True):
    """The body of POST /predict: one row, or many as ``instances``."""

    instances: list[PredictionRequest] | None = None


class BatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /predict/batch: ``instances``, or rows of ``features`` in the model's order."""

    instances: list[PredictionRequest] | None = None
    features: list[list[Value]] | None = None
    prediction_id: str = ""
    event_time: str = ""
    unit_id: str = ""


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One outcome; ``event_time`` is that of its prediction, ``observed_at`` now when left out."""

    prediction_id: _Named
    event_time: str
    label: float
    observed_at: str = ""


class LabelsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /labels."""

    labels: list[Label]


class Reward(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one prediction, or one unit, was worth; ``observed_at`` is now when left out."""

    value: float
    prediction_id: str = ""
    unit_id: str = ""
    metric: str = "reward"
    observed_at: str = ""


class RewardsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /rewards."""

    rewards: list[Reward]


_predict = msgspec.json.Decoder(PredictBody).decode
_batch = msgspec.json.Decoder(BatchBody).decode
_labels = msgspec.json.Decoder(LabelsBody).decode
_rewards = msgspec.json.Decoder(RewardsBody).decode


def decode_predict(body: bytes) -> PredictBody:
    """The body of POST /predict. Raises InvalidInput that names the field at fault."""
    decoded = decode(_predict, body, 'Send JSON such as {"entities": {...}, "features": {...}}')
    if decoded.instances is not None and (
        decoded.features or decoded.entities or decoded.prediction_id or decoded.event_time
    ):
        raise InvalidInput('"instances" stands beside fields of a single row', remedy="Put the row into instances.")
    return decoded


def decode_batch(body: bytes) -> BatchBody:
    """The body of POST /predict/batch. Raises InvalidInput that names the field at fault."""
    decoded = decode(_batch, body, 'Send JSON such as {"features": [[...], [...]]} or {"instances": [{...}, {...}]}')
    if (decoded.instances is None) == (decoded.features is None):
        raise InvalidInput(
            'the request body needs either "instances" or "features"', remedy="Send one of them, a list of rows."
        )
    return decoded


def decode_labels(body: bytes) -> list[LabelRecord]:
    """The records of POST /labels. Raises InvalidInput that names the label at fault."""
    remedy = 'Send {"labels": [{"prediction_id": "...", "event_time": "...", "label": 1}]}'
    labels = decode(_labels, body, remedy).labels
    now = round(time.time() * 1000)
    return [_numbered("labels", index, _label_record, label, now) for index, label in enumerate(labels)]


def decode_rewards(body: bytes, named: str, only: str = "", sending: str = "") -> list[RewardRecord]:
    """The records of POST /rewards, which count in the deployment that is ``named``, or in all.

    Of what names none, rewards of units count in the ``only`` deployment that is served; those of predictions count
    wherever these were made. What says when it was observed, or came with a key for the ``sending``, counts once
    however often it is sent. Raises InvalidInput that names the reward.
    """
    rewards = decode(_rewards, body, 'Send {"rewards": [{"prediction_id": "...", "value": 1}]}').rewards
    now = round(time.time() * 1000)
    record = partial(_reward_record, named=named, only=only)
    records = [_numbered("rewards", index, record, reward, now) for index, reward in enumerate(rewards)]
    if sending:
        return key_by_place(records, sending)
    keyed = key_by_content(records)
    return [one if reward.observed_at else other for reward, one, other in zip(rewards, keyed, records, strict=True)]


def decode(decoder: Callable[[bytes], Decoded], body: bytes, remedy: str) -> Decoded:
    """What ``decoder`` makes of ``body``. Raises InvalidInput that names the field at fault."""
    try:
        return decoder(body)
    except msgspec.ValidationError as error:
        message = f"the request body cannot be read: {_named(error, body)}"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"the request body cannot be read: {error}"
    raise InvalidInput(message, remedy=f"{remedy}; /model/info names the fields.")


def _named(error: msgspec.ValidationError, body: bytes) -> str:
    """The error; msgspec tells a mapping's entry only as [...], so its name is looked for, now that it matters."""
    if "[...]" not in str(error):
        return str(error)
    try:
        return ill_typed(msgspec.json.decode(body)) or str(error)
    except (msgspec.DecodeError, UnicodeDecodeError) as malformed:  # further on than what was found first
        return str(malformed)


_Sent = TypeVar("_Sent")
_Record = TypeVar("_Record")


def _numbered(part: str, index: int, convert: Callable[[_Sent, int], _Record], sent: _Sent, now: int) -> _Record:
    try:
        return convert(sent, now)
    except InvalidInput as error:
        raise InvalidInput(f"{part}[{index}]: {error.message}", remedy=error.remedy) from None


def _label_record(label: Label, now: int) -> LabelRecord:
    observed_at = parse_instant(label.observed_at) if label.observed_at else now
    return LabelRecord(label.prediction_id, parse_instant(label.event_time), observed_at, label.label)


def _reward_record(reward: Reward, now: int, named: str, only: str) -> RewardRecord:
    if not (reward.prediction_id or reward.unit_id):
        raise InvalidInput("neither prediction_id nor unit_id is given", remedy="Say what the reward is for.")
    if not reward.metric.strip():
        raise InvalidInput("metric is empty", remedy="Name the reward, or leave the metric out: it is 'reward' then.")
    observed_at = parse_instant(reward.observed_at) if reward.observed_at else now
    if observed_at > now + MOST_AHEAD_MILLIS:
        raise InvalidInput(
            f"observed_at is {reward.observed_at}, which is in the future",
            remedy="Give when the reward became known, or nothing for now.",
        )
    deployment = named or ("" if reward.prediction_id else only)
    return RewardRecord(observed_at, reward.value, reward.prediction_id, reward.unit_id, reward.metric, deployment)
