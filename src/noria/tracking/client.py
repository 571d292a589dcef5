"""The fluent verbs of runs, as in ``mlflow``: log params, metrics, tags, datasets and artifacts; search and read back.

Every verb that logs takes the active run, or the one ``run_id`` names; without either it starts a run, which ends with
the process.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, SupportsFloat, TypeVar

from noria.errors import InvalidInput, MissingExtra, NotFound
from noria.tracking import frames, signature
from noria.tracking.backend import Backend, Dataset, FileEntry
from noria.tracking.session import backend, current_experiment, target

if TYPE_CHECKING:
    import polars as pl

    from noria.tracking.entities import Metric, Run

V = TypeVar("V")


class Runs(list["Run"]):
    """Runs found by a search, in its order."""

    def to_polars(self) -> pl.DataFrame:
        """One row a run: its fields, ``params.*``, ``metrics.*`` (newest value) and ``tags.*``, null where missing."""
        import polars as pl

        fields = ("run_id", "experiment_id", "name", "status", "started_at", "ended_at")
        table: dict[str, list[object]] = {name: [getattr(run, name) for run in self] for name in fields}
        for kind in ("params", "metrics", "tags"):
            for key in sorted({key for run in self for key in getattr(run, kind)}):
                table[f"{kind}.{key}"] = [_plain(getattr(run, kind).get(key)) for run in self]
        return pl.DataFrame(table)


def log_param(key: str, value: object, *, run_id: str | None = None) -> None:
    """Log a param as text. Raises Conflict (InvalidInput over HTTP) when the run has another value of that key."""
    log_params({key: value}, run_id=run_id)


def log_params(params: Mapping[str, object], *, run_id: str | None = None) -> None:
    """Log params as texts, all or none."""
    texts = _texts(params)
    used, run = target(run_id)
    used.log(run, params=texts)


def log_metric(
    key: str, value: SupportsFloat, step: int | None = None, *, timestamp: int | None = None, run_id: str | None = None
) -> None:
    """Log a value of a metric at a step (default 0) and a time, in milliseconds since 1970 (default now)."""
    log_metrics({key: value}, step, timestamp=timestamp, run_id=run_id)


def log_metrics(
    metrics: Mapping[str, SupportsFloat],
    step: int | None = None,
    *,
    timestamp: int | None = None,
    run_id: str | None = None,
) -> None:
    """Log values of several metrics at one step in one batch. Raises InvalidInput for what is none."""
    numbers = {key: _number(key, value) for key, value in _named(metrics).items()}
    used, run = target(run_id)
    at = round(time.time() * 1000) if timestamp is None else timestamp
    used.log(run, metrics=numbers, step=step or 0, at_millis=at)


def set_tag(key: str, value: object, *, run_id: str | None = None) -> None:
    """Add or replace a tag, as text."""
    set_tags({key: value}, run_id=run_id)


def set_tags(tags: Mapping[str, object], *, run_id: str | None = None) -> None:
    """Add or replace tags, as texts. Raises InvalidInput for what names none."""
    texts = _texts(tags)
    used, run = target(run_id)
    used.log(run, tags=texts)


def log_input(
    data: object, context: str = "", *, name: str = "dataset", source: str = "", run_id: str | None = None
) -> Dataset:
    """Record which table the run reads: a polars or pandas frame, told by a digest of its rows; the rows stay here.

    ``context`` says what for ("training"), ``source`` where it came from. Raises InvalidInput for anything but a frame.
    """
    frame = frames.as_frame(data, "data")
    dataset = Dataset(name, frames.digest(frame), context, source, list(signature.columns(frame)), frame.height)
    used, run = target(run_id)
    used.log_dataset(run, dataset)
    return dataset


def log_artifact(local_path: str | Path, artifact_path: str | None = None, *, run_id: str | None = None) -> None:
    """Store a file, or a folder with all it holds, in the folder ``artifact_path`` of the run. Raises NotFound."""
    path = Path(local_path)
    if path.is_dir():
        log_artifacts(path, str(PurePosixPath(artifact_path or "") / path.name), run_id=run_id)
        return
    if not path.is_file():
        raise NotFound(f"there is no file {str(path)!r}", remedy="Check the path.")
    used, root = _root(run_id)
    used.put_file(join(root, artifact_path, path.name), path)


def log_artifacts(local_dir: str | Path, artifact_path: str | None = None, *, run_id: str | None = None) -> None:
    """Store what a folder holds in the folder ``artifact_path`` of the run. Raises NotFound."""
    if not Path(local_dir).is_dir():
        raise NotFound(f"there is no folder {str(local_dir)!r}", remedy="Check the path.")
    used, root = _root(run_id)
    upload_folder(used, Path(local_dir), join(root, artifact_path))


def log_text(text: str, artifact_file: str, *, run_id: str | None = None) -> None:
    """Store a text under that path of the run, in UTF-8."""
    used, root = _root(run_id)
    used.put_file(join(root, artifact_file), text.encode())


def log_dict(
    dictionary: Mapping[str, object] | Sequence[object], artifact_file: str, *, run_id: str | None = None
) -> None:
    """Store a mapping or list as YAML when the path ends in .yml or .yaml, else as JSON. Raises InvalidInput."""
    try:
        text = _yaml(dictionary) if artifact_file.endswith((".yml", ".yaml")) else json.dumps(dictionary, indent=2)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{artifact_file!r} cannot be written: {error}", remedy="Give plain JSON values.") from error
    log_text(text, artifact_file, run_id=run_id)


def log_figure(figure: object, artifact_file: str, *, run_id: str | None = None) -> None:
    """Store a matplotlib figure in the format of the path's ending, or a plotly one as HTML. Raises InvalidInput."""
    used, root = _root(run_id)
    if (save := getattr(figure, "savefig", None)) is not None:
        image = io.BytesIO()
        save(image, format=PurePosixPath(artifact_file).suffix[1:] or "png")
        used.put_file(join(root, artifact_file), image.getvalue())
    elif (to_html := getattr(figure, "to_html", None)) is not None:
        used.put_file(join(root, artifact_file), str(to_html()).encode())
    else:
        raise InvalidInput(f"{type(figure).__name__} is no figure", remedy="Give one of matplotlib or plotly.")


def search_runs(
    experiment_ids: Sequence[str] | None = None,
    filter_string: str = "",
    *,
    order_by: Sequence[str] = (),
    max_results: int = 1000,
    experiment_names: Sequence[str] | None = None,
) -> Runs:
    """Active runs that meet the filter, such as ``metrics.auc > 0.8 AND tags.team = 'x'``, newest first by default.

    Searches the current experiment when none is named. Raises InvalidInput for what is no filter or order.
    """
    used = backend()
    ids = list(experiment_ids or [])
    ids += [used.experiment_id(name) for name in experiment_names or ()]
    ids = ids or [current_experiment()]
    return Runs(used.search_runs(ids, filter_text=filter_string, order_by=list(order_by), limit=max_results))


def get_run(run_id: str) -> Run:
    """A run with its params, tags, datasets and the newest value of each metric. Raises NotFound."""
    return backend().get_run(run_id)


def get_metric_history(run_id: str, key: str) -> list[Metric]:
    """Every value of one metric, by step and time. Raises NotFound for an unknown run."""
    return backend().metric_history(run_id, key)


def list_artifacts(run_id: str | None = None, artifact_path: str | None = None) -> list[FileEntry]:
    """The files and folders directly below a path of the run, as paths from its root."""
    used, root = _root(run_id)
    base = PurePosixPath(artifact_path or "")
    found = used.list_files(join(root, artifact_path))
    return [FileEntry(str(base / entry.path), entry.is_dir, entry.size_bytes) for entry in found]


# shared with the verbs of models


def upload_folder(used: Backend, folder: Path, uri: str) -> None:
    """Store every file below ``folder`` under ``uri``."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            used.put_file(join(uri, path.relative_to(folder).as_posix()), path)


def download(used: Backend, uri: str, target_folder: Path) -> Path:
    """Fetch a file, or a folder with all it holds, into ``target_folder``; gives where it is. Raises NotFound."""
    entries = used.list_files(uri)
    if entries:
        target_folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        if entry.path in ("", ".", "..") or "/" in entry.path:
            raise InvalidInput(f"the server names a file {entry.path!r}", remedy="Do not use this server.")
        if entry.is_dir:
            download(used, join(uri, entry.path), target_folder / entry.path)
        else:
            used.get_file(join(uri, entry.path), target_folder / entry.path)
    if entries:
        return target_folder
    target_folder.mkdir(parents=True, exist_ok=True)
    file = target_folder / PurePosixPath(uri).name
    used.get_file(uri, file)
    return file


def scratch_folder() -> Path:
    """A new folder for what is downloaded without saying where; it stays until the system clears it."""
    return Path(tempfile.mkdtemp(prefix="noria-"))


def join(uri: str, *parts: str | None) -> str:
    """An artifact address with path parts added. Raises InvalidInput for a part that leads out of it."""
    for part in filter(None, parts):
        if ".." in PurePosixPath(part).parts or part.startswith("/"):
            raise InvalidInput(f"artifact path {part!r} leaves its folder", remedy="Use a relative path without '..'.")
        uri = f"{uri.rstrip('/')}/{PurePosixPath(part)}"
    return uri


def _root(run_id: str | None) -> tuple[Backend, str]:
    """The backend and artifact address of a run."""
    used, run = target(run_id)
    return used, used.get_run(run).artifact_uri


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {key: str(value) for key, value in _named(values).items()}


def _named(values: Mapping[str, V]) -> Mapping[str, V]:
    if not isinstance(values, Mapping):
        raise InvalidInput(
            f"{values!r:.80} names nothing to log",
            remedy="Give a dictionary of names and values, such as {'team': 'a'}.",
        )
    return values


def _number(key: str, value: SupportsFloat) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"metric {key!r} is {value!r}, not a number", remedy="Log texts as params or tags."
        ) from error


def _plain(value: Metric | str | None) -> float | str | None:
    return value if value is None or isinstance(value, str) else value.value


def _yaml(value: Mapping[str, object] | Sequence[object]) -> str:
    try:
        import yaml
    except ModuleNotFoundError:
        raise MissingExtra("writing YAML needs PyYAML", remedy="Install pyyaml, or name a .json file.") from None
    return str(yaml.safe_dump(value, sort_keys=False))
