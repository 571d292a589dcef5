"""A server's process: started, awaited until it predicts, weighed with all its children, ended with all of them."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from serving_wire import Request

_START_SECONDS = 120
_REFUSED_SECONDS = 20
"""A server that has answered for so long, and with nothing but errors, will not come round."""
_POLL_SECONDS = 0.02
_STOP_SECONDS = 15


class NotServing(Exception):
    """A server did not start, or does not answer as it should."""


@dataclass(frozen=True)
class Running:
    """A server that answers at ``url``; ``ready_seconds`` from its start to its first prediction."""

    port: int
    pids: Sequence[int]
    ready_seconds: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, request: Request) -> tuple[bytes, Mapping[str, str]]:
        """The body and headers of its answer. Raises NotServing for anything but a 200."""
        return post(self.port, request)

    def megabytes(self, kind: str = "Pss") -> float:
        """Memory of all its processes: what is shared counted by its share (Pss), or whole in each (Rss)."""
        return sum(_bytes(pid, kind) for pid in family(self.pids)) / 2**20

    def cpu_seconds(self) -> float:
        """Processor time that its processes have used so far."""
        total = 0
        for pid in family(self.pids):
            with suppress(OSError):
                total += sum(map(int, _stat(pid)[11:13]))
        return total / os.sysconf("SC_CLK_TCK")


def post(port: int, request: Request, timeout: float = 60) -> tuple[bytes, Mapping[str, str]]:
    """One request on a connection of its own. Raises NotServing, or OSError while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", request.path, request.body, dict(request.headers))
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise NotServing(f"{request.path} answers {answer.status}: {body[:300]!r}")
    return body, {name.lower(): value for name, value in answer.getheaders()}


@contextmanager
def serving(
    commands: Sequence[Sequence[str | Path]],
    port: int,
    probe: Request,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Processes of one server, once it answers ``probe``; all they started is ended in the end.

    Raises NotServing with the end of their log when they do not get there.
    """
    log, began = folder / "server.log", time.perf_counter()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with log.open("wb") as output:
            for command in commands:
                processes.append(
                    subprocess.Popen(
                        command,
                        cwd=folder,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                        env={**os.environ, **(environment or {})},
                    )
                )
        _wait(processes, port, probe, log, began + _START_SECONDS)
        yield Running(port, [process.pid for process in processes], time.perf_counter() - began)
    finally:
        _end(processes)


def _wait(processes: Sequence[subprocess.Popen[bytes]], port: int, probe: Request, log: Path, deadline: float) -> None:
    said = ""
    while time.perf_counter() < deadline:
        if any(process.poll() is not None for process in processes):
            said = "it ended"
            break
        try:
            post(port, probe)
            return
        except (OSError, http.client.HTTPException) as error:
            said = str(error)
        except NotServing as error:
            said = str(error)
            deadline = min(deadline, time.perf_counter() + _REFUSED_SECONDS)
        time.sleep(_POLL_SECONDS)
    raise NotServing(f"does not predict: {said}\n{log.read_text(errors='replace')[-1500:]}")


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask the processes to end, then end by its id whatever they have left."""
    leaders = [process.pid for process in processes]
    everyone = family(leaders)
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline and any([process.poll() is None for process in processes]):  # noqa: C419
        time.sleep(0.05)
    everyone |= family(leaders)
    for pid, began in everyone.items():
        with suppress(OSError):
            if _Seen.of(pid).began == began:  # else the id is another's by now
                os.kill(pid, signal.SIGKILL)
    for process in processes:
        process.wait()


@dataclass(frozen=True)
class _Seen:
    """A process as /proc shows it; ``began`` tells it from a later one of the same id."""

    parent: int
    session: int
    began: int

    @classmethod
    def of(cls, pid: int) -> _Seen:
        """Raises OSError when there is none."""
        fields = _stat(pid)
        return cls(int(fields[1]), int(fields[3]), int(fields[19]))


def _stat(pid: int) -> Sequence[str]:
    """The fields of /proc/PID/stat behind the name, from the state on. Raises OSError when there is no such process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def family(pids: Sequence[int]) -> dict[int, int]:
    """The processes, their descendants, and whoever is in a session that one of them began: when each began, by id."""
    seen: dict[int, _Seen] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                seen[int(entry.name)] = _Seen.of(int(entry.name))
    found = {pid for pid, one in seen.items() if pid in pids or one.session in pids}
    while more := {pid for pid, one in seen.items() if one.parent in found} - found:
        found |= more
    return {pid: seen[pid].began for pid in found}


def _bytes(pid: int, kind: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) * 1024
    return 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
