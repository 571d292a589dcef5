"""Parts done by processes of this machine: each a fresh interpreter with the model loaded once.

When one dies, only its part is tried again, by a new one. When the leader dies, its end of the link is gone, and a
worker leaves with the next thing it has to say.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Protocol

from noria.serving.batch.parts import Done, Part
from noria.serving.batch.worker import Failure, PartWorker, Task, failure_of, share_machine
from noria.serving.served import Served


@dataclass(frozen=True, slots=True)
class Advanced:
    """Some more rows of a part are scored."""

    number: int
    rows: int


Event = Advanced | Done | Failure


class Engine(Protocol):
    """What does parts, ``free`` of them more at this moment."""

    @property
    def free(self) -> int:
        """How many parts may be started now."""

    def start(self, part: Part) -> None:
        """Begin a part."""

    def events(self, seconds: float) -> list[Event]:
        """What happened, within so many seconds."""

    def close(self) -> None:
        """End what runs."""


class Here:
    """Parts done by a thread of this process, one at a time."""

    def __init__(self, task: Task, served: Served) -> None:
        self._worker = PartWorker(task, served)
        self._heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.free = 1

    def start(self, part: Part) -> None:
        """See Engine."""
        self.free = 0
        threading.Thread(target=self._do, args=[part], daemon=True).start()

    def events(self, seconds: float) -> list[Event]:
        """See Engine."""
        try:
            event = self._heard.get(timeout=seconds)
        except queue.Empty:
            return []
        self.free = int(not isinstance(event, Advanced))
        return [event]

    def close(self) -> None:
        """See Engine."""

    def _do(self, part: Part) -> None:
        try:
            self._heard.put(self._worker.do(part, lambda rows: self._heard.put(Advanced(part.number, rows))))
        except BaseException as error:  # nobody else hears what ends this thread
            self._heard.put(failure_of(part.number, error))


class Processes:
    """Up to ``count`` processes, started when there is something to do."""

    def __init__(self, task: Task, count: int) -> None:
        self._task = pickle.dumps(task)
        self._workers: list[_Worker] = []
        self._count = count

    @property
    def free(self) -> int:
        """See Engine."""
        return self._count - sum(worker.part is not None for worker in self._workers)

    def start(self, part: Part) -> None:
        """See Engine."""
        idle = next((worker for worker in self._workers if worker.part is None), None)
        if idle is None:
            idle = _Worker(self._task)
            self._workers.append(idle)
        idle.begin(part)

    def events(self, seconds: float) -> list[Event]:
        """See Engine."""
        by_link = {worker.link: worker for worker in self._workers if worker.part is not None}
        found: list[Event] = []
        for link in wait(list(by_link), seconds):
            assert isinstance(link, Connection)
            found.append(self._heard(by_link[link]))
        return found

    def close(self) -> None:
        """See Engine."""
        for worker in self._workers:
            worker.stop()

    def _heard(self, worker: _Worker) -> Event:
        assert worker.part is not None
        try:
            event: Event = worker.link.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            return Failure(worker.part.number, f"its process {worker.ending()}", "", final=False)
        if not isinstance(event, Advanced):
            worker.part = None
        return event


class _Worker:
    """The leader's handle on one process."""

    def __init__(self, task: bytes) -> None:
        self.link, theirs = Pipe()
        with _deaf_to_interrupts():
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from noria.serving.batch.processes import main; main()", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        theirs.close()
        self.part: Part | None = None
        self._send(task)

    def begin(self, part: Part) -> None:
        """Have a part done; that the process is gone is heard when its answer is waited for."""
        self.part = part
        self._send(pickle.dumps(part))

    def ending(self) -> str:
        """How it ended, in words."""
        self.link.close()
        code = self._process.wait(30)
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def stop(self) -> None:
        """End it at once: nothing of a part that is not committed stays."""
        self.link.close()
        self._process.terminate()
        self._process.wait(30)

    def _send(self, content: bytes) -> None:
        with contextlib.suppress(OSError):
            self.link.send_bytes(content)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started meanwhile hears no Ctrl-C, which goes to all processes of a terminal: its leader ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main() -> None:
    """A worker process: a task, then parts, until the leader is gone."""
    link = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _work(link, pickle.loads(link.recv_bytes()))


def _work(link: Connection, task: Task) -> None:
    share_machine(task.workers)
    worker: PartWorker | None = None
    while True:
        part: Part = pickle.loads(link.recv_bytes())
        try:
            worker = worker or PartWorker(task)
            answer: Event = worker.do(part, lambda rows, number=part.number: link.send(Advanced(number, rows)))  # type: ignore[misc]
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            answer = failure_of(part.number, error)
        link.send(answer)
