"""Blobs in an object store (S3, Google Cloud Storage, Azure), through obstore.

Credentials and endpoint come from the environment as their clients read it: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL`` (or MLflow's ``MLFLOW_S3_ENDPOINT_URL``).
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import AsyncIterable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from noria.errors import MissingExtra, Unavailable
from noria.store.blobs import CHUNK_BYTES, Entry, StoredFile, checked, clean_key, no_blob

_STREAMED_PART_BYTES = 8 * 1024 * 1024
_READ_AHEAD_BYTES = 4 * 1024 * 1024


class ObjectBlobs:
    """Blobs below a prefix of a bucket; what is fetched is kept in a folder, by the content's own tags."""

    signs = True

    def __init__(self, url: str, cache: Path) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError:
            raise MissingExtra(
                f"{url!r} needs a package that is not installed", remedy="pip install 'noria[s3]'"
            ) from None
        self._obstore: Any = obstore
        self._url, self._cache = url, cache
        with _clear(url):
            self._store: Any = from_url(url, **_options(url))

    def write(self, key: str, content: bytes) -> None:
        """See BlobStore."""
        with _clear(self._url, key):
            self._obstore.put(self._store, clean_key(key), content)

    async def receive(self, key: str, chunks: AsyncIterable[bytes]) -> None:
        """See BlobStore. Large content goes up in parts, and appears when the last one is there."""
        with _clear(self._url, key):
            await self._obstore.put_async(self._store, clean_key(key), chunks, chunk_size=_STREAMED_PART_BYTES)

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        """See BlobStore."""
        with _clear(self._url, key):
            content = bytes(self._obstore.get(self._store, clean_key(key)).bytes())
        return checked(key, content, sha256)

    def stream(self, key: str) -> tuple[int, Iterable[bytes]]:
        """See BlobStore."""
        with _clear(self._url, key):
            found = self._obstore.get(self._store, clean_key(key))
        return found.meta["size"], (bytes(piece) for piece in found.stream(min_chunk_size=CHUNK_BYTES))

    def entries(self, key: str) -> list[Entry]:
        """See BlobStore."""
        prefix = clean_key(key)
        with _clear(self._url, key):
            found = self._obstore.list_with_delimiter(self._store, prefix or None)
        files = [Entry(item["path"], item["size"]) for item in found["objects"] if item["path"] != prefix]
        folders = [Entry(path.rstrip("/"), None) for path in found["common_prefixes"]]
        return sorted([*files, *folders], key=lambda entry: entry.key)

    def files(self, key: str) -> list[StoredFile]:
        """See BlobStore. The tag is the store's own."""
        found = [StoredFile(item["path"], item["size"], str(item["e_tag"])) for item in self._below(key)]
        return sorted(found, key=lambda file: file.key)

    def open(self, key: str) -> IO[bytes]:
        """See BlobStore. What is read is fetched as it is read."""
        with _clear(self._url, key):
            reader = self._obstore.open_reader(self._store, clean_key(key), buffer_size=_READ_AHEAD_BYTES)
        return io.BufferedReader(_Ranged(reader, self._url, key), _READ_AHEAD_BYTES)

    def take(self, key: str, source: Path) -> None:
        """See BlobStore. Large files go up in parts, and appear when the last one is there."""
        with _clear(self._url, key):
            self._obstore.put(self._store, clean_key(key), source)
        source.unlink()

    def delete(self, key: str) -> None:
        """See BlobStore."""
        paths = [item["path"] for item in self._below(key)]
        if not paths:
            raise no_blob(key)
        with _clear(self._url, key):
            self._obstore.delete(self._store, paths)

    def put_folder(self, key: str, source: Path) -> None:
        """See BlobStore."""
        for item in self._below(key):
            with _clear(self._url, key):
                self._obstore.delete(self._store, item["path"])
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            with _clear(self._url, key):
                self._obstore.put(self._store, f"{clean_key(key)}/{file.relative_to(source).as_posix()}", file)

    def fetch(self, key: str) -> Path:
        """See BlobStore."""
        clean, found = clean_key(key), self._below(key)
        if not found:
            raise no_blob(key)
        tags = "\n".join(sorted(f"{item['path']} {item['e_tag']} {item['size']}" for item in found))
        target = self._cache / hashlib.sha256(f"{self._url}\n{tags}".encode()).hexdigest()[:32]
        if not target.exists():
            self._download(clean, [item["path"] for item in found], target)
        inside = target / clean.rsplit("/", 1)[-1]
        return inside if [item["path"] for item in found] == [clean] else target

    def sign(self, key: str, method: str, *, valid: timedelta) -> str:
        """See BlobStore."""
        with _clear(self._url, key):
            return str(self._obstore.sign(self._store, method, clean_key(key), valid))

    def _below(self, key: str) -> list[dict[str, Any]]:
        """The objects of the folder ``key``, or the one at ``key``; nothing when there is neither."""
        clean = clean_key(key)
        with _clear(self._url, key):
            found = [item for page in self._obstore.list(self._store, prefix=clean or None) for item in page]
            try:
                return found or [self._obstore.head(self._store, clean)]
            except FileNotFoundError:
                return []

    def _download(self, clean: str, paths: list[str], target: Path) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=self._cache, prefix=".staging-"))
        try:
            for path in paths:
                file = staging / (path.removeprefix(f"{clean}/") if path != clean else clean.rsplit("/", 1)[-1])
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("wb") as out:
                    for piece in self.stream(path)[1]:
                        out.write(piece)
            staging.replace(target)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            if not target.exists():  # another process may have been faster
                raise
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


class _Ranged(io.RawIOBase):
    """obstore's reader as Python's own kind of file."""

    def __init__(self, reader: Any, url: str, key: str) -> None:
        self._reader, self._url, self._key = reader, url, key

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def readinto(self, buffer: Any) -> int:
        with _clear(self._url, self._key):
            piece = memoryview(self._reader.read(len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)


def _options(url: str) -> dict[str, Any]:
    if urlsplit(url).scheme != "s3":
        return {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("MLFLOW_S3_ENDPOINT_URL") or ""
    retries = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
    options: dict[str, Any] = {"retry_config": retries}
    if endpoint:
        options["config"] = {"endpoint": endpoint}
    if endpoint.startswith("http://"):
        options["client_options"] = {"allow_http": True}
    return options


@contextmanager
def _clear(url: str, key: str = "") -> Iterator[None]:
    """Tell obstore's errors in our words."""
    from obstore.exceptions import BaseError, GenericError, NotFoundError

    try:
        yield
    except (NotFoundError, FileNotFoundError):
        raise no_blob(key) from None
    except (BaseError, GenericError, ValueError) as error:
        cause = " ".join(str(error).split("\n", 1)[0].split())
        raise Unavailable(
            f"{url.rstrip('/')}/{key} cannot be used: {cause}",
            remedy="Check that address (for artifacts store.artifacts), the credentials and AWS_ENDPOINT_URL.",
        ) from error
