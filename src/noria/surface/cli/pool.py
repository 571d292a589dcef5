"""Several gateway workers on one port: started, replaced when they die, added, taken away, reloaded one by one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from noria.errors import Unavailable
from noria.processors import WORKERS_VARIABLE
from noria.surface.cli.processes import end_with_parent
from noria.surface.http.sockets import bind, remove_unix, unix_paths

_log = structlog.get_logger()
SHARED_VARIABLE = "NORIA_GATEWAY_SHARED"
_STOP_SECONDS = 25
_BACK_OFF_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, the sockets it accepts on, and our end of the pair over which it is sent more.

    ``refused`` are the deployments that it could not load when it started, as far as it has said so, and why.
    """

    process: subprocess.Popen[bytes]
    control: socket.socket
    sockets: list[socket.socket] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    refused: Mapping[str, str] = field(default_factory=dict)


class WorkerPool:
    """Runs ``command`` in several processes until it is told to end.

    Each worker has a socket of its own on the shared port, which stays open here: what connects while a worker is
    replaced waits for the next one. SIGHUP replaces all workers, SIGTTIN adds one, SIGTTOU takes one away.
    """

    def __init__(self, command: Sequence[str], new_socket: Callable[[], socket.socket], workers: int) -> None:
        self._command = list(command)
        self._new_socket = new_socket
        self._wanted = workers
        self._workers: list[_Worker] = []
        self._signals: list[int] = []

    def run(self, ready: Callable[[], None]) -> None:
        """Start the workers, call ``ready`` once all accept requests, and stay until SIGTERM or SIGINT.

        Raises Unavailable when every worker ends at its start: another one would, too.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, lambda number, _frame: self._signals.append(number))
        with tempfile.TemporaryDirectory(prefix="noria-gateway-") as shared:
            os.environ[SHARED_VARIABLE] = shared
            try:
                self._workers = [self._start([self._new_socket()]) for _ in range(self._wanted)]
                self._check_any([_wait_until_ready(worker) for worker in self._workers])
                ready()
                while not self._ended():
                    time.sleep(0.05)
                    self._replace_dead()
            finally:
                # a connection that no worker takes any more is refused, and does not wait here in vain
                listeners = [one for worker in self._workers for one in worker.sockets]
                paths = unix_paths(listeners)
                for listener in listeners:
                    listener.close()
                self._stop(self._workers)
                remove_unix(paths)

    def _check_any(self, are_ready: Sequence[bool]) -> None:
        """That some worker accepts requests, unless they were told to end meanwhile."""
        if not any(are_ready) and not self._signals:
            code = self._workers[0].process.wait(_STOP_SECONDS)
            raise Unavailable(
                f"no worker of the gateway could start: the first ended with exit code {code}",
                remedy="What it wrote says why.",
            )

    def _ended(self) -> bool:
        """Do what signals ask for; whether one asks to end."""
        while self._signals:
            number = self._signals.pop(0)
            if number in (signal.SIGTERM, signal.SIGINT):
                return True
            if number == signal.SIGHUP:
                self._reload()
            elif number == signal.SIGTTIN:
                self._add()
            elif len(self._workers) > 1:
                self._remove()
        return False

    def _start(self, sockets: list[socket.socket]) -> _Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        descriptors = [*(one.fileno() for one in sockets), theirs.fileno()]
        process = subprocess.Popen(
            [sys.executable, "-m", "noria", *self._command, "--inherit", ",".join(map(str, descriptors))],
            stdout=subprocess.PIPE,
            pass_fds=descriptors,
            env={**os.environ, WORKERS_VARIABLE: str(self._wanted)},
            preexec_fn=end_with_parent,
        )
        theirs.close()
        return _Worker(process, ours, sockets)

    def _replace_dead(self) -> None:
        for place, worker in enumerate(self._workers):
            if worker.process.poll() is None:
                continue
            _log.error("worker_died", pid=worker.process.pid, exit_code=worker.process.returncode)
            if time.monotonic() - worker.started < _BACK_OFF_SECONDS:
                time.sleep(_BACK_OFF_SECONDS)
            _close(worker)
            self._workers[place] = self._start(worker.sockets)

    def _reload(self) -> None:
        """Start a new worker beside each old one, which ends once the new one has its sockets.

        It gets them when it has loaded all that the old one may serve: else the old ones stay, who still have it.
        """
        for place, old in enumerate(self._workers):
            with _unknown_socket() as unknown:
                new = self._start([unknown])
            if reason := _reason_to_keep(old, new):
                self._stop([new])
                _log.error("reload_stopped", reason=reason)
                return
            new.sockets = []
            _send_sockets(old.sockets, new)
            self._workers[place] = new
            self._stop([old])
        _log.info("workers_reloaded", workers=len(self._workers))

    def _add(self) -> None:
        self._wanted += 1
        worker = self._start([self._new_socket()])
        _wait_until_ready(worker)
        self._workers.append(worker)
        _log.info("worker_added", workers=len(self._workers))

    def _remove(self) -> None:
        """Hand the sockets of the last worker to the first, so that nobody who connected is left waiting."""
        self._wanted -= 1
        leaving, staying = self._workers.pop(), self._workers[0]
        _send_sockets(leaving.sockets, staying)
        self._stop([leaving])
        _log.info("worker_removed", workers=len(self._workers))

    @staticmethod
    def _stop(workers: Sequence[_Worker]) -> None:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            try:
                worker.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            _close(worker)


def _wait_until_ready(worker: _Worker) -> bool:
    """Whether the worker says that it accepts requests, before it ends."""
    assert worker.process.stdout is not None
    line = worker.process.stdout.readline()
    worker.refused = json.loads(line)["refused"] if line else {}
    return bool(line)


def _reason_to_keep(old: _Worker, new: _Worker) -> str:
    """Why a worker is not to be replaced by a new one; empty when it may be."""
    if not _wait_until_ready(new):
        return "the new worker ended at its start"
    lost = sorted(new.refused.keys() - old.refused.keys())
    return "; ".join(f"the new worker cannot serve {name}: {new.refused[name]}" for name in lost)


def _unknown_socket() -> socket.socket:
    """A socket that nobody is told of: a worker needs one to start with."""
    return bind("127.0.0.1", 0)


def _send_sockets(sockets: Sequence[socket.socket], worker: _Worker) -> None:
    for one in sockets:
        socket.send_fds(worker.control, [b"listen"], [one.fileno()])
        worker.sockets.append(one)


def _close(worker: _Worker) -> None:
    worker.control.close()
    if worker.process.stdout is not None:
        worker.process.stdout.close()
