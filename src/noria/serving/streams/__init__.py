"""Predictions on streams: messages in, answers out, at least once, through the same data plane as requests."""

from noria.serving.streams.brokers import check_apart, open_reader, open_writer
from noria.serving.streams.counts import StreamCounts
from noria.serving.streams.messages import Answer, Message, Reader, Writer
from noria.serving.streams.pump import Ends, Pump

__all__ = [
    "Answer",
    "Ends",
    "Message",
    "Pump",
    "Reader",
    "StreamCounts",
    "Writer",
    "check_apart",
    "open_reader",
    "open_writer",
]
