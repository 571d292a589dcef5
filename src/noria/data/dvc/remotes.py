"""Where objects are shared: a folder, or a bucket of S3. Both in the layout of DVC's remotes."""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from noria.data.dvc.config import RemoteConfig
from noria.data.dvc.hashes import CHUNK_BYTES, HashIndex, new_md5
from noria.data.dvc.objects import LAYOUT, Objects, corrupt, in_parallel, key_of
from noria.data.dvc.staging import Staging
from noria.errors import MissingExtra, NotFound, NotServed, Unavailable
from noria.processors import processors

_WORKERS = 16
_WHOLE_BYTES = 8 * 1024 * 1024
_FEW = 3
_BOTO = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region")


class Remote(Protocol):
    """Objects by MD5, elsewhere. Every method raises Unavailable when the place cannot be used."""

    name: str
    workers: int
    """How many transfers at once do it good."""

    def present(self, md5s: Iterable[str]) -> set[str]:
        """Those that are there."""

    def send(self, md5: str, source: Path) -> None:
        """Store a file as that object, whole or not at all. Raises CorruptArtifact when it has another hash."""

    def receive(self, md5: str, into: Objects) -> None:
        """Fetch an object into a cache. Raises NotFound, or CorruptArtifact when what came has another hash."""


class FolderRemote:
    """A folder of this machine or of a mounted share."""

    def __init__(self, name: str, folder: Path, index: HashIndex) -> None:
        self.name = name
        self.workers = processors()
        self._objects = Objects(folder, index, Staging(folder / "noria-staging"))

    def present(self, md5s: Iterable[str]) -> set[str]:
        """See Remote."""
        return set(self._objects.present(md5s))

    def send(self, md5: str, source: Path) -> None:
        """See Remote."""
        with source.open("rb", buffering=0) as file:
            self._objects.put(md5, iter(lambda: file.read(CHUNK_BYTES), b""))

    def receive(self, md5: str, into: Objects) -> None:
        """See Remote."""
        try:
            with Path(self._objects.path(md5)).open("rb", buffering=0) as file:
                into.put(md5, iter(lambda: file.read(CHUNK_BYTES), b""))
        except FileNotFoundError:
            raise _absent(md5, self.name) from None


class BucketRemote:
    """A prefix of a bucket of S3, or of what speaks its protocol."""

    workers = _WORKERS

    def __init__(self, config: RemoteConfig) -> None:
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError:
            raise MissingExtra(
                f"remote {config.name!r} needs a package that is not installed", remedy="pip install 'noria[s3]'"
            ) from None
        parts = urlsplit(config.url)
        self.name, self._url = config.name, config.url
        self._prefix = f"{parts.path.strip('/')}/".removeprefix("/")
        self._obstore: Any = obstore
        with self._clear():
            self._store: Any = S3Store(parts.netloc, **_s3_options(config))

    def present(self, md5s: Iterable[str]) -> set[str]:
        """See Remote. Many objects of a folder are looked up by listing it, few one by one."""
        folders: dict[str, list[str]] = {}
        for md5 in md5s:
            folders.setdefault(md5[:2], []).append(md5)
        found = in_parallel(lambda item: self._present_in(*item), list(folders.items()), workers=_WORKERS)
        return set().union(*found)

    def send(self, md5: str, source: Path) -> None:
        """See Remote. The last piece goes only after the hash is right, and nothing shows before it."""
        with self._clear():
            if source.stat().st_size <= _WHOLE_BYTES:
                self._obstore.put(self._store, self._key(md5), b"".join(_verified(md5, source)))
            else:
                self._obstore.put(self._store, self._key(md5), _verified(md5, source), chunk_size=_WHOLE_BYTES)

    def receive(self, md5: str, into: Objects) -> None:
        """See Remote."""
        try:
            with self._clear():
                found = self._obstore.get(self._store, self._key(md5))
                into.put(md5, (bytes(piece) for piece in found.stream(min_chunk_size=CHUNK_BYTES)))
        except FileNotFoundError:
            raise _absent(md5, self.name) from None

    def _present_in(self, folder: str, md5s: Sequence[str]) -> set[str]:
        if len(md5s) > _FEW:
            with self._clear():
                pages = self._obstore.list(self._store, prefix=f"{self._prefix}{LAYOUT}/{folder}/")
                names = {folder + item["path"].rpartition("/")[2] for page in pages for item in page}
            return names.intersection(md5s)
        return {md5 for md5 in md5s if self._exists(md5)}

    def _exists(self, md5: str) -> bool:
        try:
            with self._clear():
                self._obstore.head(self._store, self._key(md5))
        except FileNotFoundError:
            return False
        return True

    def _key(self, md5: str) -> str:
        return self._prefix + key_of(md5)

    @contextmanager
    def _clear(self) -> Iterator[None]:
        """Tell obstore's errors in our words; what is not there stays a FileNotFoundError."""
        from obstore.exceptions import BaseError, GenericError

        try:
            yield
        except FileNotFoundError:
            raise
        except (BaseError, GenericError, ValueError) as error:
            cause = " ".join(str(error).split("\n", 1)[0].split())
            raise Unavailable(
                f"remote {self.name!r} at {self._url} cannot be used: {cause}",
                remedy="Check its url, endpointurl and credentials, then run the command again: it goes on.",
            ) from error


def open_remote(config: RemoteConfig, index: HashIndex) -> Remote:
    """The remote configured. Raises NotServed for a kind that only DVC reaches, MissingExtra."""
    scheme, separator, rest = config.url.partition("://")
    if not separator or scheme == "file":
        folder = Path(rest if separator else config.url).expanduser()
        return FolderRemote(config.name, Path(os.path.normpath(config.base / folder)), index)
    if scheme == "s3":
        return BucketRemote(config)
    raise NotServed(
        f"remote {config.name!r} is at {scheme}://, which Noria does not reach",
        remedy="Use a folder or s3://, or `dvc push` and `dvc pull` for this one: the cache is the same.",
    )


def _verified(md5: str, source: Path) -> Iterator[bytes]:
    """The file's content; raises instead of ending when its hash is another."""
    digest = new_md5()
    with source.open("rb", buffering=0) as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
            yield piece
    if digest.hexdigest() != md5.removesuffix(".dir"):
        raise corrupt([str(source)])


def _s3_options(config: RemoteConfig) -> dict[str, Any]:
    """What DVC's keys, else the environment, else the profile in the files of AWS say."""
    given, shared = config.options, _shared_credentials(config.options)
    endpoint = given.get("endpointurl") or os.environ.get("AWS_ENDPOINT_URL") or ""
    settings = {
        "endpoint": endpoint,
        "region": given.get("region") or os.environ.get("AWS_REGION") or shared.get("region", "us-east-1"),
        "access_key_id": given.get("access_key_id") or shared.get("aws_access_key_id", ""),
        "secret_access_key": given.get("secret_access_key") or shared.get("aws_secret_access_key", ""),
        "session_token": given.get("session_token") or shared.get("aws_session_token", ""),
        "skip_signature": "true" if given.get("allow_anonymous_login", "").lower() == "true" else "",
    }
    options: dict[str, Any] = {
        "config": {name: value for name, value in settings.items() if value},
        "retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    }
    if endpoint.startswith("http://"):
        options["client_options"] = {"allow_http": True}
    elif given.get("ssl_verify", "").lower() == "false":
        options["client_options"] = {"allow_invalid_certificates": True}
    return options


def _shared_credentials(given: Mapping[str, str]) -> dict[str, str]:
    """The profile of AWS's own files; the environment's keys come before those of a profile nobody named."""
    profile = given.get("profile") or os.environ.get("AWS_PROFILE") or ""
    if not profile and "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    files = (
        (given.get("configpath") or os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"), "profile "),
        (given.get("credentialpath") or named, ""),
    )
    found: dict[str, str] = {}
    for path, prefix in files:
        parser = configparser.RawConfigParser(default_section="\0")
        parser.read(Path(path).expanduser())
        section = profile or "default"
        for title in (section, prefix + section):
            if parser.has_section(title):
                found |= {key: value for key, value in parser.items(title) if key in _BOTO}
    return found


def _absent(md5: str, name: str) -> NotFound:
    return NotFound(f"remote {name!r} does not have {md5}", remedy="Push it from where the data was added.")
