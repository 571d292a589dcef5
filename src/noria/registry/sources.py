"""Where the files of a version lie, and whose they are: read from what a client names as its source."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from noria.errors import InvalidInput, NotFound
from noria.registry.entities import ModelVersion
from noria.registry.versions import get_version
from noria.store.blobs import clean_key
from noria.store.database import Transaction
from noria.store.workspace import ARTIFACT_SCHEME, artifact_key, artifact_uri
from noria.tracking import experiments, logged_models, runs
from noria.tracking.entities import LoggedModel

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_NEVER = ("http", "https", "file", "data")
"""Whoever answers there decides anew what the model is at each request, or it is a file of somebody's disk."""
_OF_RUN = re.compile(r"[^/]+/([0-9a-f]{32})/artifacts(?:/|$)")
_OF_LOGGED_MODEL = re.compile(r"[^/]+/models/(m-[0-9a-f]{32})/artifacts(?:/|$)")
_REMEDY = "Send models:/m-ID, models:/NAME/VERSION, runs:/RUN/PATH, or the address of the run's artifacts."


@dataclass(frozen=True, slots=True)
class Origin:
    """The ``place`` of the files, and what the client ``named`` it when that was another address.

    The run and the logged model are those that made the files. ``external``: the files lie where the run does not keep
    its artifacts, so that only the client's word ties them to it. ``original`` is the version that this is a copy of.
    """

    place: str
    named: str = ""
    run_id: str | None = None
    logged_model_id: str | None = None
    external: bool = False
    original: ModelVersion | None = None


def find_origin(tx: Transaction, source: str, *, run_id: str | None, logged_model_id: str | None) -> Origin:
    """The origin of a version that a client wants to register.

    Raises NotFound, or InvalidInput for what is no place of a model, or the place of another run's.
    """
    if logged_model_id is not None:
        return _of_logged_model(logged_models.get(tx, logged_model_id), source, run_id)
    name, _, version = source.removeprefix("models:/").rpartition("/")
    if source.startswith("models:/") and not name:
        return _of_logged_model(logged_models.get(tx, version), source, run_id)
    if source.startswith("models:/"):
        return _of_version(tx, name, version, source, run_id)
    if source.startswith("runs:/"):
        return _of_run(tx, source, run_id)
    return _of_files(tx, _plain(source), run_id)


def _of_logged_model(logged: LoggedModel, source: str, run_id: str | None) -> Origin:
    named = (f"models:/{logged.model_id}", f"runs:/{logged.source_run_id}/{logged.name}")
    place = logged.artifact_uri if source in named else _plain(source)
    if not is_within(place, logged.artifact_uri):
        raise InvalidInput(f"{source[:200]!r} is no place of logged model {logged.model_id}", remedy=_REMEDY)
    own = _own_run(f"logged model {logged.model_id}", logged.source_run_id, run_id)
    return Origin(place, source if source in named else "", own, logged.model_id)


def _of_version(tx: Transaction, model: str, version: str, source: str, run_id: str | None) -> Origin:
    if not version.isdecimal():
        raise InvalidInput(f"{source[:200]!r} names no version by its number", remedy=_REMEDY)
    found = get_version(tx, model, int(version))
    own = _own_run(found.label, found.run_id, run_id)
    return Origin(found.source, source, own, found.logged_model_id, original=found)


def _of_run(tx: Transaction, source: str, given: str | None) -> Origin:
    """A model that the run logged under that name, else the files at that path of the run."""
    run_id, _, path = source.removeprefix("runs:/").strip("/").partition("/")
    own = _own_run(repr(source[:200]), run_id, given)
    run, logged = runs.get(tx, run_id), logged_models.of_run(tx, run_id, path)
    if logged is not None:
        return Origin(logged.artifact_uri, source, own, logged.model_id)
    return Origin(_plain(f"{run.artifact_uri}/{path}"), source, own)


def _of_files(tx: Transaction, place: str, run_id: str | None) -> Origin:
    if not place.startswith(ARTIFACT_SCHEME):
        return Origin(place, run_id=run_id, external=run_id is not None and not _is_of_run(tx, place, run_id))
    key = artifact_key(place)
    if (match := _OF_LOGGED_MODEL.match(key)) and (logged := _known_model(tx, match[1])) is not None:
        return _of_logged_model(logged, place, run_id)
    if (match := _OF_RUN.match(key)) and _is_of_run(tx, place, match[1]):
        return Origin(place, run_id=_own_run(repr(place), match[1], run_id))
    if run_id is not None:
        runs.require_known(tx, run_id)
    if run_id is not None or _holds_others(tx, key):
        raise InvalidInput(
            f"{place[:200]!r} is no place of {f'run {run_id}' if run_id else 'one model'}", remedy=_REMEDY
        )
    return Origin(place)


def _holds_others(tx: Transaction, key: str) -> bool:
    """Whether it is a folder of many runs, which nobody else could write to once it is a version's."""
    parts = key.split("/")
    return len(parts) <= 2 and (parts[0] == "" or experiments.exists(tx, parts[0]))


def _is_of_run(tx: Transaction, place: str, run_id: str) -> bool:
    """Whether the run, or a model that it logged, keeps its files there."""
    roots = [run.artifact_uri for run in runs.load(tx, [run_id])]
    roots += [logged.artifact_uri for logged in logged_models.all_of_run(tx, run_id)]
    return any(is_within(place, root) for root in roots)


def _known_model(tx: Transaction, model_id: str) -> LoggedModel | None:
    try:
        return logged_models.get(tx, model_id)
    except NotFound:
        return None


def _own_run(what: str, own: str | None, given: str | None) -> str | None:
    """The run that made it. Raises InvalidInput when the client names another."""
    if given is not None and given != own:
        raise InvalidInput(
            f"{what} was made by {f'run {own}' if own else 'no run'}, not by run {given}",
            remedy="Leave out run_id, or send that of the run that made the model.",
        )
    return own


def _plain(source: str) -> str:
    """The address written in the one way that protects it. Raises InvalidInput for what is none."""
    scheme = _SCHEME.match(source)
    odd = ".." in source.split("/") or "\\" in source or scheme is None or scheme[1].lower() in _NEVER
    if odd or (source.startswith(ARTIFACT_SCHEME) and (set("?#") & set(source) or unquote(source) != source)):
        raise InvalidInput(f"{source[:200]!r} is no place of a model", remedy=_REMEDY)
    return artifact_uri(clean_key(artifact_key(source))) if source.startswith(ARTIFACT_SCHEME) else source


def is_within(place: str, root: str) -> bool:
    """Whether an address is ``root`` or below it."""
    return f"{place.rstrip('/')}/".startswith(f"{root.rstrip('/')}/")
