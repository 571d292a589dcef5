"""One call of the protocol: its arguments, checked as they are taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from noria.access import Identity, Permission
from noria.clock import Clock, from_millis
from noria.errors import InvalidInput
from noria.registry import Policies
from noria.store.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Call:
    """A request to one endpoint, and what its handler works on."""

    arguments: Mapping[str, Any]
    path: Mapping[str, str]
    identity: Identity
    workspace: Workspace
    policies: Policies
    clock: Clock

    @property
    def actor(self) -> str:
        """The name the change is recorded under."""
        return self.identity.name

    def may_read(self, model: str) -> bool:
        """Whether the caller sees ``model`` in a list."""
        return self.identity.may(Permission.READ, model)

    def text(self, name: str, default: str | None = None) -> str:
        """A text argument. Raises InvalidInput when it is missing without a default, or no text."""
        value = self.arguments.get(name, self.path.get(name))
        if value is None:
            value = default
        if value is None:
            raise InvalidInput(f"Missing value for required parameter '{name}'.", remedy=f"Send {name}.")
        if not isinstance(value, str):
            raise InvalidInput(
                f"parameter {name!r} is {type(value).__name__}, not text", remedy=f"Send {name} as text."
            )
        return value

    def required(self, name: str) -> str:
        """A text argument that is not empty."""
        if text := self.text(name, ""):
            return text
        raise InvalidInput(f"Missing value for required parameter '{name}'.", remedy=f"Send {name}.")

    def flag(self, name: str) -> bool:
        """A yes or no, no when it is missing."""
        value = self.arguments.get(name, False)
        if value in (True, False, "true", "false"):
            return value in (True, "true")
        raise InvalidInput(
            f"parameter {name!r} is {value!r}, not true or false", remedy=f"Send {name} as true or false."
        )

    def folder(self, name: str) -> str:
        """A folder below another, empty when it is missing. Raises InvalidInput for a path that leads elsewhere."""
        path = self.text(name, "")
        if path.startswith("/") or ".." in path.split("/") or "%" in path or ":" in path.split("/")[0]:
            raise InvalidInput(f"Invalid path: {path[:200]!r}", remedy="Send a path below the folder that is listed.")
        return path

    def number(self, name: str, default: int | None = None) -> int:
        """An integer argument."""
        given = self.arguments.get(name)
        plain = isinstance(given, int) and not isinstance(given, bool)
        text = str(given) if plain else self.text(name, None if default is None else str(default))
        try:
            number = int(text)
        except ValueError:
            raise InvalidInput(
                f"parameter {name!r} is {text[:60]!r}, not an integer", remedy="Send a number."
            ) from None
        if not -(2**63) <= number < 2**63:
            raise InvalidInput(f"parameter {name!r} is {text[:60]}, out of range", remedy="Send at most 64 bits.")
        return number

    def instant(self, name: str) -> datetime:
        """An argument in milliseconds since 1970; now when it is missing or 0."""
        millis = self.number(name, 0)
        try:
            return from_millis(millis) if millis else self.clock.now()
        except (ValueError, OverflowError, OSError):
            raise InvalidInput(f"parameter {name!r} is {millis}, no time", remedy="Send milliseconds.") from None

    def texts(self, name: str) -> list[str]:
        """A list of texts; a single one counts as a list."""
        value = self.arguments.get(name) or []
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise InvalidInput(f"parameter {name!r} is not a list of texts", remedy="See MLflow's REST API.")
        return found

    def objects(self, name: str) -> list[Mapping[str, Any]]:
        """A list of JSON objects. Raises InvalidInput for anything else."""
        value = self.arguments.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise InvalidInput(f"parameter {name!r} is not a list of objects", remedy="See MLflow's REST API.")
        return value

    def pairs(self, name: str) -> dict[str, str]:
        """A list of ``{"key", "value"}`` objects as a mapping."""
        found = {}
        for item in self.objects(name):
            if not isinstance(item.get("key"), str):
                raise InvalidInput(f"an entry of {name!r} has no key", remedy='Send {"key": ..., "value": ...}.')
            found[item["key"]] = str(item.get("value", ""))
        return found

    def page(self, items: list[Any], *, default_size: int, largest: int) -> tuple[list[Any], dict[str, str]]:
        """The page asked for of all ``items``, and the token of the next."""
        size, start = self.page_bounds(default_size=default_size, largest=largest)
        found = items[start : start + size + 1]
        return found[:size], next_page(found, size, start)

    def page_size(self, *, default: int, largest: int) -> int:
        """How many results are asked for. Raises InvalidInput outside of 1 to ``largest``."""
        size = self.number("max_results", default)
        if not 1 <= size <= largest:
            raise InvalidInput(f"max_results {size} is out of range", remedy=f"Ask for 1 to {largest} results.")
        return size

    def page_bounds(self, *, default_size: int, largest: int) -> tuple[int, int]:
        """(size, start) of the page asked for. Raises InvalidInput for a size out of range or a token that is none."""
        size, token = self.page_size(default=default_size, largest=largest), self.text("page_token", "") or "0"
        if not token.isdecimal() or len(token) > 18:
            raise wrong_token(token)
        return size, int(token)


def wrong_token(token: str) -> InvalidInput:
    """What to raise for a page token that no answer gave."""
    return InvalidInput(f"page_token {token[:60]!r} is none", remedy="Send the token of the answer before, or none.")


def next_page(found: Sequence[object], size: int, start: int) -> dict[str, str]:
    """The token of the next page when one more than ``size`` was found."""
    return {"next_page_token": str(start + size)} if len(found) > size else {}


Handler = Callable[[Call], Mapping[str, object]]


def as_pairs(mapping: Mapping[str, str]) -> list[dict[str, str]]:
    """A mapping as MLflow's list of ``{"key", "value"}``."""
    return [{"key": key, "value": value} for key, value in mapping.items()]


def check_texts(value: object) -> None:
    """Raises InvalidInput for a NUL character or half a surrogate pair anywhere inside: not every database keeps it."""
    left = [value]  # no recursion: what is nested deep is no reason to fail
    while left:
        found = left.pop()
        if isinstance(found, str):
            if "\0" in found or (not found.isascii() and not _encodes(found)):
                raise InvalidInput(
                    "a text holds a character that cannot be kept",
                    remedy="Leave out NUL characters and halves of surrogate pairs.",
                )
        elif isinstance(found, Mapping):
            left += [*found.keys(), *found.values()]
        elif isinstance(found, list):
            left += found


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
