"""`.dvc` files: which content a path has, as DVC 3 writes it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from noria.data.dvc.staging import Staging
from noria.data.dvc.yaml_text import scalar
from noria.errors import InvalidInput, NotServed

SUFFIX = ".dvc"
FOLDER_SUFFIX = ".dir"
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Output:
    """A file or folder kept by its content.

    ``path`` is relative to the `.dvc` file's folder; ``md5`` is of the file, or of the folder's manifest with the
    suffix ``.dir``; ``size`` is in bytes, of all files; ``nfiles`` counts those of a folder. ``remote`` names where it
    is pushed instead of the default, ``push`` whether it is pushed at all.
    """

    path: str
    md5: str
    size: int | None = None
    nfiles: int | None = None
    is_exec: bool = False
    remote: str = ""
    push: bool = True

    @property
    def is_folder(self) -> bool:
        """Whether ``md5`` names a manifest."""
        return self.md5.endswith(FOLDER_SUFFIX)

    @property
    def fields(self) -> dict[str, str]:
        """What DVC records, in its order, each value as it stands in the file."""
        recorded = {"md5": scalar(self.md5, column=7)}
        if self.size is not None:
            recorded["size"] = str(self.size)
        if self.nfiles is not None:
            recorded["nfiles"] = str(self.nfiles)
        if self.is_exec:
            recorded["isexec"] = "true"
        return recorded | {"hash": "md5", "path": scalar(self.path, column=8)}


@dataclass(frozen=True, slots=True)
class DvcFile:
    """A `.dvc` file as it was read. ``folder`` is what the outputs' paths start from."""

    path: Path
    folder: Path
    outputs: tuple[Output, ...]
    text: str

    @property
    def targets(self) -> list[Path]:
        """The absolute path of each output."""
        return [Path(os.path.normpath(self.folder / output.path)) for output in self.outputs]


def check_name(name: str) -> None:
    """Raises InvalidInput for a name that neither a line of .gitignore nor the YAML of DVC can hold."""
    wrong = [c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "\ufeff\ufffe\uffff"]
    if wrong or name.endswith(" ") or _reread(name) != name:
        raise InvalidInput(
            f"{name!r} cannot be tracked: its name holds a control character, a line break, undecodable bytes,"
            " spaces at its end, or several where a long line is folded",
            remedy="Rename it, or track the folder it lies in: names inside a folder may be anything.",
        )


def _reread(name: str) -> str:
    """The name as it comes back from a `.dvc` file: DVC's way to fold long lines loses some runs of spaces."""
    found: str = yaml.load(f"path: {scalar(name, column=8)}", Loader=yaml.BaseLoader)["path"]
    return found


def read_dvc_file(path: Path) -> DvcFile:
    """The file at ``path``. Raises InvalidInput for a damaged one, NotServed for what only DVC can handle."""
    try:
        return parse_dvc_file(path, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise _damaged(path, f"it is not UTF-8 text: {error.reason} at byte {error.start}") from None


def parse_dvc_file(path: Path, text: str) -> DvcFile:
    """``text`` as the content of ``path``; raises as ``read_dvc_file``.

    Every value is read as text: which words are numbers or booleans differs between YAML 1.1 and DVC's 1.2.
    """
    try:
        document = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise _damaged(path, " ".join(str(error).split())) from None
    entries = document.get("outs") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise _damaged(path, "it has no list `outs`")
    working = document.get("wdir", ".")
    if not isinstance(working, str):
        raise _damaged(path, "`wdir` is no path")
    return DvcFile(path, path.parent / working, tuple(_output(path, entry) for entry in entries), text)


def write_dvc_file(path: Path, output: Output, staging: Staging) -> None:
    """Record ``output`` at ``path``; comments and further fields of a file that is there stay."""
    text = updated(read_dvc_file(path), output) if path.exists() else _document(output)
    with staging.file() as staged:
        Path(staged).write_text(text, encoding="utf-8")
        staging.settle(staged, str(path))


def updated(file: DvcFile, output: Output) -> str:
    """The text of ``file`` with what it records of its one output replaced, and nothing else touched."""
    root = yaml.compose(file.text, Loader=yaml.BaseLoader)
    outs = next(value for key, value in root.value if key.value == "outs")
    if len(outs.value) != 1 or outs.flow_style or outs.value[0].flow_style:
        raise InvalidInput(
            f"{file.path} cannot be updated: its `outs` is not a block list of one output",
            remedy="Delete the file and add the path again.",
        )
    (entry,) = outs.value
    return _spliced(file.text, entry, output.fields)


def _spliced(text: str, entry: yaml.MappingNode, fields: dict[str, str]) -> str:
    """Values replaced where they stand, fields that are new after the last one, fields that are gone cut out."""
    known = {key.value: (key, value) for key, value in entry.value}
    edits = []
    for name in ("md5", "size", "nfiles", "isexec", "hash"):
        if name in known and name in fields:
            edits.append((known[name][1].start_mark.index, known[name][1].end_mark.index, fields[name]))
        elif name in known:
            start = text.rindex("\n", 0, known[name][0].start_mark.index)
            stop = text.find("\n", known[name][1].end_mark.index)
            edits.append((start, stop if stop >= 0 else len(text), ""))
    last = max(value.end_mark.index for _, value in entry.value)
    line_end = text.find("\n", last - 1)
    at = line_end if line_end >= 0 else len(text)
    margin = " " * entry.value[0][0].start_mark.column
    new = "".join(f"\n{margin}{name}: {value}" for name, value in fields.items() if name not in known)
    for start, stop, value in sorted([*edits, (at, at, new)], reverse=True):
        text = text[:start] + value + text[stop:]
    return text


def _document(output: Output) -> str:
    lines = [f"  {name}: {value}\n" for name, value in output.fields.items()]
    return "outs:\n- " + "".join(lines)[2:]


def _output(file: Path, entry: object) -> Output:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str) or not entry["path"]:
        raise _damaged(file, "an output has no path")
    if "files" in entry or "version_id" in entry or "etag" in entry:
        raise NotServed(f"{file} is versioned by its cloud, not by hashes", remedy="Use `dvc` for it.")
    md5 = entry.get("md5", "")
    if not isinstance(md5, str) or not is_md5(md5):
        raise _damaged(file, f"{md5!r} is no MD5 of {entry['path']!r}")
    if entry.get("hash") != "md5":
        raise NotServed(
            f"{file} was written by DVC 2, which hashed text in another way",
            remedy="Run `dvc cache migrate --dvc-files`, or delete the file and add the path again.",
        )
    return Output(
        entry["path"],
        md5,
        _count(file, entry, "size"),
        _count(file, entry, "nfiles"),
        entry.get("isexec") == "true",
        str(entry.get("remote", "")),
        entry.get("push") != "false",
    )


def is_md5(text: str) -> bool:
    """Whether ``text`` names an object: 32 hexadecimal digits, with ``.dir`` for a folder."""
    digits = text.removesuffix(FOLDER_SUFFIX)
    return len(digits) == 32 and _HEX.issuperset(digits)


def _count(file: Path, entry: dict[str, object], name: str) -> int | None:
    value = entry.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.isdecimal():
        raise _damaged(file, f"{name} is {value!r}, not a number")
    return int(value)


def _damaged(file: Path, why: str) -> InvalidInput:
    return InvalidInput(f"{file} is no usable .dvc file: {why}", remedy="Restore it, or add its path again.")


def overlapping(files: Sequence[DvcFile], target: Path) -> tuple[DvcFile, Path] | None:
    """The file that tracks something inside ``target``, or that has it inside its own output, and that output."""
    for file in files:
        for tracked in file.targets:
            if target != tracked and (target.is_relative_to(tracked) or tracked.is_relative_to(target)):
                return file, tracked
    return None
