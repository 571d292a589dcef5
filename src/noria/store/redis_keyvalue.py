"""Online rows in Redis: shared by gateways on several machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from noria.errors import InvalidConfig, MissingExtra, Unavailable

_OURS = b"noria:"
"""What our keys begin with in a database that others may use too."""

# Stamps are compared as four numbers: Lua compares texts by the server's locale, and its numbers hold 53 bits.
_PUT_NEWER = """
local function older(a, b)
  local a1, a2, a3, a4 = struct.unpack('>I4I4I4I4', a)
  local b1, b2, b3, b4 = struct.unpack('>I4I4I4I4', b)
  if a1 ~= b1 then return a1 < b1 end
  if a2 ~= b2 then return a2 < b2 end
  if a3 ~= b3 then return a3 < b3 end
  return a4 < b4
end
local written = 0
for i, key in ipairs(KEYS) do
  local stored = redis.call('GETRANGE', key, 0, 15)
  if stored == '' or not older(ARGV[i], stored) then
    redis.call('SET', key, ARGV[i])
    written = written + 1
  end
end
return written
"""
_WAIT_SECONDS = 5
_DELETED_AT_ONCE = 1000


class RedisKeyValues:
    """Plain keys, ``noria:`` before each. A batch is one Lua script, so nothing is seen of it until it is whole."""

    path: Path | None = None

    def __init__(self, url: str) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise MissingExtra(
                "a Redis online store needs a package that is not installed", remedy="pip install 'noria[redis]'"
            ) from None
        parts = urlsplit(url)
        self._name = f"{parts.scheme}://{parts.hostname}{parts.path}"  # no password
        self._fault: type[Exception] = redis.RedisError
        once_more = Retry(NoBackoff(), 1)  # a connection kept from before the server went away fails once
        waits = {"socket_timeout": _WAIT_SECONDS, "socket_connect_timeout": _WAIT_SECONDS}
        try:
            self._redis: Any = redis.Redis.from_url(url, retry=once_more, **waits)
        except ValueError as error:
            raise InvalidConfig(f"{self._name} is no Redis URL: {error}", remedy="Use redis://HOST:PORT/0.") from None
        self._put_newer = self._redis.register_script(_PUT_NEWER)

    def put_newer(self, entries: Iterable[tuple[bytes, bytes]]) -> int:
        rows = list(entries)
        if not rows:
            return 0
        with self._telling("written"):
            return int(self._put_newer([_OURS + key for key, _ in rows], [value for _, value in rows]))

    def update(self, keys: Sequence[bytes], change: Callable[[list[bytes | None]], list[bytes]]) -> None:
        if not keys:
            return
        ours = [_OURS + key for key in keys]

        def work(pipeline: Any) -> None:
            values = change(list(pipeline.mget(ours)))
            pipeline.multi()
            pipeline.mset(dict(zip(ours, values, strict=True)))

        with self._telling("written"):
            self._redis.transaction(work, *ours)  # again from the start when somebody wrote one of them meanwhile

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        with self._telling("read"):
            return list(self._redis.mget([_OURS + key for key in keys]))

    def delete(self, prefix: bytes) -> int:
        pattern = b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^-\\" else bytes([byte]) for byte in _OURS + prefix)
        deleted, some = 0, []
        with self._telling("written"):
            for key in self._redis.scan_iter(match=pattern + b"*", count=_DELETED_AT_ONCE):
                some.append(key)
                if len(some) == _DELETED_AT_ONCE:
                    deleted += self._redis.delete(*some)
                    some = []
            return deleted + (self._redis.delete(*some) if some else 0)

    def close(self) -> None:
        self._redis.close()

    @contextmanager
    def _telling(self, done: str) -> Iterator[None]:
        try:
            yield
        except self._fault as error:
            raise Unavailable(
                f"the online store {self._name} cannot be {done}: {error}",
                remedy="Check that Redis runs there, takes writes and has memory left; nothing else needs a restart.",
            ) from error
