"""What a job is: model, inputs and options. Two runs of one job end in the same output, however often they stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from noria.errors import Conflict
from noria.ids import derived_id
from noria.serving.batch.parts import Done, Listed
from noria.structs import read_by_threads

_SHOWN = 5


@read_by_threads
class Manifest(msgspec.Struct, frozen=True):
    """``work`` says all that decides about the output but the inputs' content, which ``listing`` stands for.

    ``at`` (UTC milliseconds) is when features are looked up: as of the job's first run in all of its runs.
    """

    work: dict[str, Any]
    listing: list[Listed]
    at: int
    parts: int

    @property
    def work_id(self) -> str:
        """The same for the same work on inputs of any content."""
        return derived_id("batch", msgspec.json.encode(self.work, order="sorted").decode())

    @property
    def job_id(self) -> str:
        """The same for the same work on the same inputs."""
        return derived_id(self.work_id, msgspec.json.encode(self.listing).decode())


def check_same(before: Manifest, now: Manifest, where: str) -> None:
    """Raises Conflict when ``where`` holds what another job wrote, or this one from other inputs."""
    if before.job_id == now.job_id:
        return
    remedy = "--restart removes what that job wrote and begins anew; or choose another --output."
    if before.work_id != now.work_id:
        raise Conflict(
            f"{where} holds the output of another job",
            details=differences(before.work, now.work),
            remedy=remedy,
        )
    changes = _changes(before.listing, now.listing)
    raise Conflict(
        f"the inputs changed since the job that wrote to {where} began", details=changes[:_SHOWN], remedy=remedy
    )


def check_unchanged(manifest: Manifest, listing: Sequence[Listed]) -> None:
    """Raises Conflict when the inputs are no longer what the job began with: it may have read old rows and new ones."""
    if changes := _changes(manifest.listing, listing):
        raise Conflict(
            "the inputs changed while the job ran: its output may lack rows, or mix old ones and new",
            details=changes[:_SHOWN],
            remedy="Give the same command with --restart, once nobody writes to them.",
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two jobs are asked otherwise."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return [f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in names]


def _changes(before: Sequence[Listed], now: Sequence[Listed]) -> list[str]:
    old, new = {one.name: one for one in before}, {one.name: one for one in now}
    changed = [f"{name} changed" for name in old.keys() & new.keys() if old[name] != new[name]]
    added = [f"{name} is new" for name in new.keys() - old.keys()]
    return sorted([*changed, *added, *(f"{name} is gone" for name in old.keys() - new.keys())])


def encode_done(done: Done) -> bytes:
    """The record of a committed part."""
    return msgspec.json.encode(done)


def decode_done(record: bytes) -> Done:
    """The part that ``encode_done`` wrote."""
    return msgspec.json.decode(record, type=Done)
