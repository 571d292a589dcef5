"""Route tables: the immutable answer to "which version serves this request?"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from dataclasses import field as with_default
from datetime import datetime
from pathlib import Path

from noria.clock import iso
from noria.errors import CorruptArtifact
from noria.store.blobs import write_atomically

WITHDRAWN = ".withdrawn"
"""How the file is named that says of a deployment that it serves no longer; that with its routes ends in .json."""
_BUCKETS = 10_000


Identity = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Variant:
    """One version taking a share of the traffic.

    ``name`` is its role (``champion``, ``canary``); ``source`` is the model folder's key below the artifact root and
    ``digest`` the hash that folder must have; ``percent`` is its share of the requests. A ``shadow`` answers nobody:
    it gets copies of that share.
    """

    name: str
    model: str
    version: int
    source: str
    digest: str
    percent: float
    shadow: bool = False

    @property
    def identity(self) -> Identity:
        """What is loaded for it: model, version, and the hash of its files."""
        return self.model, self.version, self.digest


@dataclass(frozen=True, slots=True)
class RouteTable:
    """The variants of a deployment at one revision; the shares of those that answer sum to 100.

    ``salt`` makes assignments of one experiment independent of those of another; ``unit`` is the entity key that
    requests are assigned by, where they name no unit themselves. ``addresses`` maps aliases and stages to versions,
    ``key_hashes`` are those of the keys that requests must come with, if there are any. ``contextual`` holds the
    parameters of a bandit that chooses by features.
    """

    deployment: str
    revision: int
    variants: Sequence[Variant]
    reason: str
    created_at: datetime
    salt: str = ""
    unit: str = ""
    addresses: Mapping[str, int] = with_default(default_factory=dict)
    key_hashes: Sequence[str] = ()
    contextual: Mapping[str, object] = with_default(default_factory=dict)

    @property
    def answering(self) -> Sequence[Variant]:
        """The variants that answer requests."""
        return [variant for variant in self.variants if not variant.shadow]

    @property
    def shadows(self) -> Sequence[Variant]:
        """The variants that get copies."""
        return [variant for variant in self.variants if variant.shadow]

    def choose(self, key: str) -> Variant:
        """The variant for ``key``: the same key gets the same variant for as long as the shares stay."""
        variants = self.answering
        return variants[place(self.salt + key, [variant.percent for variant in variants])]


def place(key: str, percents: Sequence[float]) -> int:
    """Which of the shares ``key`` falls into. A share that grows keeps the keys it had, all but the first may grow.

    Shares are laid out along a ring of hashes, the last first; a stable hash, so that every gateway decides alike.
    """
    point = uniform(key) * _BUCKETS
    reached = 0.0
    for index in range(len(percents) - 1, 0, -1):
        reached += percents[index] * _BUCKETS / 100
        if point < reached:
            return index
    return 0


def uniform(key: str) -> float:
    """A number in [0, 1) that depends on ``key`` alone, in every process alike."""
    hashed = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(hashed) >> 11) / (1 << 53)


def publish(table: RouteTable, path: Path) -> None:
    """Put the table where gateways read it: a file, swapped whole; one that says the same is left alone."""
    content = json.dumps(route_document(table), indent=1).encode()
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)
    path.with_suffix(WITHDRAWN).unlink(missing_ok=True)


def unpublish(path: Path, *, is_withdrawn: bool) -> None:
    """Take a deployment's table away.

    Of one that ``is_withdrawn`` a file stays that says so: else its name, where it is its model's, led to another.
    """
    if is_withdrawn:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(WITHDRAWN).touch()
    path.unlink(missing_ok=True)


def route_document(table: RouteTable) -> dict[str, object]:
    """What a route file says, as ``read_routes`` reads it."""
    document = {field.name: getattr(table, field.name) for field in fields(table)}
    variants = [variant_document(variant) for variant in table.variants]
    return document | {"variants": variants, "created_at": iso(table.created_at)}


def read_routes(path: Path) -> RouteTable:
    """The table ``publish`` wrote. Raises CorruptArtifact when the file is none."""
    try:
        document = json.loads(path.read_bytes())
        variants = tuple(Variant(**variant) for variant in document.pop("variants"))
        created_at = datetime.fromisoformat(document.pop("created_at"))
        hashes = tuple(document.pop("key_hashes", ()))
        return RouteTable(variants=variants, created_at=created_at, key_hashes=hashes, **document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifact(
            f"route file {path.name!r} cannot be read: {error}", remedy="`noria up` writes it again from the database."
        ) from error


def variant_document(variant: Variant) -> dict[str, object]:
    """What a route file, or a row, says of a variant."""
    return {name: value for name, value in asdict(variant).items() if name != "shadow" or value}
