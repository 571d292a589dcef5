"""`noria data push` and `pull`: objects between the cache and a remote; what is there already is not sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from noria.data.dvc.checkout import CheckedOut, checkout, manifest_of, select
from noria.data.dvc.dvc_files import Output
from noria.data.dvc.objects import in_parallel
from noria.data.dvc.remotes import Remote, open_remote
from noria.data.dvc.repository import Repository
from noria.data.dvc.workspace import Progress, silent


@dataclass(frozen=True, slots=True)
class Transfer:
    """Objects that went to or came from a remote, their bytes, and how many were there already."""

    remote: str
    objects: int
    size_bytes: int
    present: int


def push(
    repository: Repository, targets: Sequence[Path | str] = (), *, remote: str = "", progress: Progress = silent
) -> list[Transfer]:
    """Send what the remote lacks; a folder's manifest goes last, so that who sees it finds all its files.

    Each object is held against its hash on the way. Raises NotFound for objects that neither side has, CorruptArtifact
    for damaged ones, Unavailable. A push that was stopped goes on where it was.
    """
    with repository.locked():
        return [
            _push(repository, place, outputs, progress)
            for place, outputs in _by_remote(repository, targets, remote, pushing=True)
        ]


def _push(repository: Repository, remote: Remote, outputs: Sequence[Output], progress: Progress) -> Transfer:
    files: set[str] = set()
    for output in outputs:
        files.update(manifest_of(repository, output).files.values())
    manifests = {output.md5 for output in outputs if output.is_folder}
    there = remote.present(files | manifests)
    repository.cache.require((files | manifests) - there)

    def send(md5: str) -> int:
        source = Path(repository.cache.path(md5))
        remote.send(md5, source)
        return source.stat().st_size

    sent = _transfer(send, (files - there, manifests - there), remote, f"pushing to {remote.name}", progress)
    return Transfer(remote.name, len(sent), sum(sent), len(there))


def pull(
    repository: Repository,
    targets: Sequence[Path | str] = (),
    *,
    remote: str = "",
    force: bool = False,
    progress: Progress = silent,
) -> tuple[list[Transfer], list[CheckedOut]]:
    """Fetch what the cache lacks, then check it out; raises as ``fetch`` and ``checkout``."""
    transfers = fetch(repository, targets, remote=remote, progress=progress)
    return transfers, checkout(repository, targets, force=force, progress=progress)


def fetch(
    repository: Repository, targets: Sequence[Path | str] = (), *, remote: str = "", progress: Progress = silent
) -> list[Transfer]:
    """Fetch what the cache lacks or holds damaged.

    Raises NotFound for what the remote does not have, CorruptArtifact for what has another hash there, Unavailable.
    """
    with repository.locked():
        if not _lacking(repository, [output for _, output, _ in select(repository, targets)]):
            return []
        return [
            _fetch(repository, place, outputs, progress)
            for place, outputs in _by_remote(repository, targets, remote, pushing=False)
        ]


def _lacking(repository: Repository, outputs: Iterable[Output]) -> bool:
    outputs = list(outputs)
    named = {output.md5 for output in outputs}
    if repository.cache.intact(named)[0] != named:
        return True
    files = {md5 for output in outputs for md5 in manifest_of(repository, output).files.values()}
    return repository.cache.intact(files)[0] != files


def _fetch(repository: Repository, remote: Remote, outputs: Sequence[Output], progress: Progress) -> Transfer:
    cache = repository.cache

    def receive(md5: str) -> int:
        remote.receive(md5, cache)
        return Path(cache.path(md5)).stat().st_size

    named = {output.md5 for output in outputs}
    sound, _ = cache.intact(named)
    what = f"pulling from {remote.name}"
    received = _transfer(receive, (named - sound,), remote, what, progress)
    files = {md5 for output in outputs for md5 in manifest_of(repository, output).files.values()}
    known, _ = cache.intact(files)
    received += _transfer(receive, (files - known,), remote, what, progress)
    cache.vouch((named - sound) | (files - known))
    return Transfer(remote.name, len(received), sum(received), len(named | files) - len(received))


def _transfer(
    work: Callable[[str], int], stages: Iterable[set[str]], remote: Remote, what: str, progress: Progress
) -> list[int]:
    """The sizes of what was transferred, one stage after the other."""
    ordered = [sorted(stage) for stage in stages]
    total = sum(len(stage) for stage in ordered)
    done = iter(range(1, total + 1))

    def counted(md5: str) -> int:
        size = work(md5)
        progress(what, next(done), total)
        return size

    return [size for stage in ordered for size in in_parallel(counted, stage, workers=remote.workers)]


def _by_remote(
    repository: Repository, targets: Sequence[Path | str], name: str, *, pushing: bool
) -> list[tuple[Remote, list[Output]]]:
    """The outputs, by the remote each one goes to: its own, else the one asked for, else the default."""
    groups: dict[str, list[Output]] = {}
    for _, output, _ in select(repository, targets):
        if output.push or not pushing:
            groups.setdefault((output.remote or name).lower(), []).append(output)
    config = repository.config
    return [(open_remote(config.remote(key), repository.index), outputs) for key, outputs in groups.items()]
