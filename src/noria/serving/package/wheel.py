"""Noria as a wheel: put together from what runs here, so that a package ships that and needs no index to have it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import noria
from noria.errors import InvalidConfig

_EPOCH = (1980, 1, 1, 0, 0, 0)
_NOT_SHIPPED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")


def write_wheel(folder: Path) -> Path:
    """Write ``noria-VERSION-py3-none-any.whl``; the same code makes the same bytes.

    Raises InvalidConfig where Noria is not installed, only found on the path.
    """
    try:
        found = metadata.distribution("noria")
    except metadata.PackageNotFoundError:
        raise InvalidConfig("Noria is not installed here", remedy="pip install noria") from None
    info = f"noria-{found.version}.dist-info"
    path = folder / f"noria-{found.version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in [*_code(), *_described(found, info)]:
            _add(wheel, name, content)
            record.append(f"{name},sha256={_digest(content)},{len(content)}")
        _add(wheel, f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]).encode())
    return path


def _code() -> Iterator[tuple[str, bytes]]:
    root = Path(noria.__file__).parent
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            yield f"noria/{path.relative_to(root).as_posix()}", path.read_bytes()


def _described(found: metadata.Distribution, info: str) -> Iterator[tuple[str, bytes]]:
    """What the installed distribution says of itself, less what says how it was installed."""
    for file in sorted(found.files or [], key=str):
        if file.parts[0] == info and file.name not in _NOT_SHIPPED:
            yield file.as_posix(), Path(str(file.locate())).read_bytes()


def _add(wheel: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    wheel.writestr(entry, content)


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
