"""That a job does not read what it writes: begun anew, it would remove its input, and run again, find a new one."""

from __future__ import annotations

import os

from noria.errors import InvalidInput
from noria.serving.batch.csv_rows import CsvRows
from noria.serving.batch.files import InputFiles
from noria.serving.batch.json_rows import JsonRows
from noria.serving.batch.parts import Source
from noria.serving.batch.table_target import TableTarget
from noria.serving.batch.tables import TableRows
from noria.serving.batch.targets import FileTarget, Target
from noria.serving.batch.typed_rows import TypedRows


def check_apart(source: Source, target: Target) -> None:
    """Raises InvalidInput when an input is, or lies in, the output, or the output where inputs are looked for."""
    match source, target:
        case TableRows(), TableTarget():
            overlap, where = (source.url, source.table) == (target.url, target.table), f"table {target.table}"
        case ((CsvRows() | JsonRows() | TypedRows()), FileTarget()):
            is_same_place, where = source.files.root == target.root, target.address
            overlap = is_same_place and (_is_written(source.files, target) or _is_read(source.files, target))
        case _:
            return
    if overlap:
        raise InvalidInput(
            f"the job would read what it writes: input and output overlap in {where}",
            remedy="Choose an --output that is no input and lies outside the input's folder or pattern.",
        )


def _is_written(files: InputFiles, target: FileTarget) -> bool:
    """Whether a file to read, links followed, is one that the job writes or removes."""
    keys = [file.name for file in files.files]
    if files.root == "/":
        keys += [os.path.realpath(f"/{key}").lstrip("/") for key in keys]
    return any(key == taken or key.startswith(f"{taken}/") for key in keys for taken in target.keys)


def _is_read(files: InputFiles, target: FileTarget) -> bool:
    """Whether what the job writes would be among the files of its next run."""
    output = target.keys[0]
    written = [output, f"{output}/{target.name(0)}", f"{output}.noria/refused/part-00000.jsonl"]
    return any(files.asked.fullmatch(key) for key in written)
