"""The files a batch job reads: found by name, folder or pattern, on this machine or in an object store."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast
from urllib.parse import unquote

from noria.errors import InvalidInput, NotFound
from noria.serving.batch.local_files import local_files
from noria.serving.batch.packed import is_packed, packing_named, unpacked, without_packing
from noria.serving.batch.parts import Listed
from noria.store.blobs import BlobStore, StoredFile, open_blobs
from noria.store.foreign import without_password

if TYPE_CHECKING:
    import polars as pl

Format = Literal["parquet", "arrow", "orc", "avro", "csv", "jsonl"]
ENDINGS: Mapping[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".orc": "orc",
    ".avro": "avro",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
WRITTEN: Sequence[Format] = ("parquet", "csv", "jsonl")
READ: Sequence[Format] = (*WRITTEN, "arrow", "orc", "avro")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_WILD = re.compile(r"[*?\[]")
_UNREAD_PACKINGS = {
    ".zip": "Unzip it.",
    ".7z": "Unpack it.",
    ".br": "Compress it as .zst or .gz.",
    ".snappy": "Compress it as .zst or .gz.",
}
_REMEDIES = {
    **_UNREAD_PACKINGS,
    ".xlsx": "Save its sheet as CSV.",
    ".xls": "Save its sheet as CSV.",
    ".ods": "Save its sheet as CSV.",
    ".duckdb": "Write a table of it with DuckDB: COPY name TO 'name.parquet'.",
    ".db": "Name a table of it: sqlite:///PATH#TABLE.",
    ".sqlite": "Name a table of it: sqlite:///PATH#TABLE.",
    ".sqlite3": "Name a table of it: sqlite:///PATH#TABLE.",
}
"""What holds tables and is not read as a file, and what to do with it."""
_UNREAD_PACKED = re.compile("|".join(re.escape(ending + packing) for ending in ENDINGS for packing in _UNREAD_PACKINGS))
"""Tables that are compressed in ways that are not read."""
_PLACES = ("s3", "gs", "az")


@dataclass(frozen=True, slots=True)
class InputFiles:
    """Files below ``root``, by key. ``hive`` holds the columns that their folders' names give, the same for all.

    ``asked`` fits the keys of all that the address names, whether it is there or not.
    """

    root: str
    files: Sequence[Listed]
    asked: re.Pattern[str]
    hive: Mapping[str, Mapping[str, int | str | None]] = field(default_factory=dict)

    @contextmanager
    def open(self, key: str, *, by_name: bool = False) -> Iterator[IO[bytes]]:
        """A file's content, decompressed. ``by_name`` says that only one whose name says so is looked at for that.

        Raises InvalidData where it is damaged.
        """
        with open_place(self.root).open(key) as file:
            if by_name and not packing_named(key):
                yield file
                return
            with unpacked(file, self.shown(key)) as content:
                yield content

    def is_packed(self, key: str) -> bool:
        """Whether a file is compressed as a whole: it can only be read from its beginning."""
        with open_place(self.root).open(key) as file:
            return is_packed(file)

    def shown(self, key: str) -> str:
        """A file's whole address."""
        return f"/{key}" if self.root == "/" else f"{self.root}/{key}"

    def is_empty(self, key: str) -> bool:
        """Whether nothing is in a file, decompressed."""
        with self.open(key) as content:
            return not content.read(1)

    def first_filled(self) -> str:
        """The first file that holds anything, or the first of all: what it holds says what all do."""
        filled = (file.name for file in self.files if file.size and not self.is_empty(file.name))
        return next(filled, self.files[0].name)

    @property
    def hive_types(self) -> Mapping[str, pl.DataType]:
        """The types of the columns from folders' names: whole numbers where all are, else texts."""
        import polars as pl

        found: dict[str, Any] = {}
        for values in self.hive.values():
            for name, value in values.items():
                is_text = isinstance(value, str) or found.get(name) == pl.String()
                found[name] = pl.String() if is_text else pl.Int64()
        return found


def find_files(address: str, wanted: str = "") -> tuple[InputFiles, Format]:
    """The files an address names, and their format: ``wanted``, or what the first one's name ends in.

    Files in a folder whose name begins with a dot or an underscore are none of its rows. Raises NotFound, InvalidInput.
    """
    root, rest = split_place(address)
    found = _files(root, rest)
    wild = None if found else _WILD.search(rest)  # a name may hold such signs, too
    below = rest[: wild.start()].rpartition("/")[0] if wild else rest
    asked = _pattern(rest) if wild else re.compile(f"{re.escape(rest)}(/.*)?" if rest else ".*")
    if wild:
        found = [file for file in _files(root, below) if asked.fullmatch(file.key)]
    if [file.key for file in found] != [below]:
        found = [file for file in found if not _is_hidden(file.key.removeprefix(below))]
    if not found:
        raise NotFound(f"there is nothing to read at {address}", remedy="Name a file, a folder of files or a pattern.")
    kinds = {file.key: format_of(file.key) for file in found}
    format_ = _format(wanted, [kind for kind in kinds.values() if kind is not None], address)
    if not (wanted or wild):
        _check_one_format(kinds, address)
        found = [file for file in found if kinds[file.key] == format_]
    if root == "/" and (gone := [file.key for file in found if not file.tag]):
        raise NotFound(f"/{gone[0]} is a link to nothing", remedy="Remove it, or mend where it leads to.")
    listed = tuple(Listed(file.key, file.size, file.tag) for file in found)
    return InputFiles(root, listed, asked, _hive([file.key for file in found], below)), format_


@functools.lru_cache(maxsize=16)
def open_place(root: str) -> BlobStore:
    """The folder or bucket a job reads from or writes to, opened once; nothing that lies there is cached.

    Raises InvalidInput for no such place.
    """
    scheme, separator, _ = root.partition("://")
    if separator and scheme not in _PLACES:
        raise InvalidInput(
            f"{without_password(root)}: a job neither reads from nor writes to {scheme}://",
            remedy="Use a path, s3://, gs://, az://, sqlite:///PATH#TABLE or postgresql://USER@HOST/NAME#TABLE.",
        )
    return open_blobs(root, folder=Path(), cache=Path())


def is_tab_separated(name: str) -> bool:
    """Whether tabs stand between a file's values, by its name."""
    return without_packing(name).endswith(".tsv")


def split_place(address: str) -> tuple[str, str]:
    """Root and key: bucket and rest of an object's URL, or the root of this machine's files and the absolute path."""
    scheme, separator, rest = address.partition("://")
    if not separator or scheme == "file":
        path = Path(rest if separator else address).expanduser().resolve()
        return "/", path.as_posix().lstrip("/")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key.rstrip("/")


def _files(root: str, key: str) -> Sequence[StoredFile]:
    """The file at ``key``, or all below that folder; none at all where there is neither."""
    if root == "/":
        return local_files(key, lambda name: not _is_hidden(name))
    return open_place(root).files(key)


def _format(wanted: str, found: Sequence[Format], address: str) -> Format:
    named = named_format(wanted)
    if named in READ:
        return cast(Format, named)
    if wanted or not found:
        what = f"format {wanted!r}" if wanted else f"the format of {address}"
        remedy = next((remedy for ending, remedy in _REMEDIES.items() if address.lower().endswith(ending)), "")
        raise InvalidInput(
            f"{what} is not {'known' if wanted or not remedy else 'read'}",
            remedy=(not wanted and remedy) or f"Use --input-format {', '.join(READ)} or json.",
        )
    return found[0]


def named_format(word: str) -> str:
    """The name of a format by any of its names."""
    return "jsonl" if word in ("json", "ndjson") else word


def format_of(name: str) -> Format | None:
    """The format a file's name ends in, before .gz and the like, in letters of any case; None for any other."""
    plain = without_packing(name)
    return next((kind for ending, kind in ENDINGS.items() if plain.endswith(ending)), None)


def _check_one_format(kinds: Mapping[str, Format | None], address: str) -> None:
    """Raises InvalidInput where a folder holds tables of several formats, or such as cannot be read: rows would be
    missing."""
    first = {
        kind: key
        for key, kind in reversed(list(kinds.items()))
        if kind is not None or _UNREAD_PACKED.search(key.lower())
    }
    if len(first) > 1:
        raise InvalidInput(
            f"{address} holds tables of several formats: {', '.join(Path(key).name for key in sorted(first.values()))}",
            remedy=f"Name a pattern of those to be read, such as {address.rstrip('/')}/*.csv.",
        )


def _is_hidden(key: str) -> bool:
    return any(part.startswith((".", "_")) and "=" not in part for part in key.split("/"))


def _pattern(text: str) -> re.Pattern[str]:
    """A glob over keys: ``*`` and ``?`` stay within a name, ``**`` goes through any number of folders."""
    out, place = "", 0
    for match in re.finditer(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]", text):
        out += re.escape(text[place : match.start()])
        sign = match[0]
        out += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(sign, sign.replace("[!", "[^"))
        place = match.end()
    return re.compile(out + re.escape(text[place:]))


def _hive(keys: Sequence[str], below: str) -> dict[str, dict[str, int | str | None]]:
    """What ``name=value`` folders say of each file. Raises InvalidInput where they are not the same names for all."""
    found: dict[str, dict[str, str | None]] = {}
    for key in keys:
        folders = [part.partition("=") for part in key.removeprefix(below).split("/")[:-1] if "=" in part]
        found[key] = {name: None if value == _HIVE_NULL else unquote(value) for name, _, value in folders}
    names = {tuple(sorted(values)): key for key, values in found.items()}
    if len(names) > 1:
        one, other = (key.removeprefix(below).lstrip("/") for key in list(names.values())[:2])
        raise InvalidInput(
            f"the folders of {other} name other columns than those of {one}",
            remedy="Name a pattern of files whose name=value folders are alike.",
        )
    (columns,) = names
    if not columns:
        return {}
    whole = {name for name in columns if all(_is_whole(values[name]) for values in found.values())}
    return {
        key: {name: int(v) if name in whole and v is not None else v for name, v in values.items()}
        for key, values in found.items()
    }


def _is_whole(value: str | None) -> bool:
    return value is None or re.fullmatch(r"-?(0|[1-9]\d{0,17})", value) is not None
