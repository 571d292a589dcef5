"""Starting the gateway and the server as processes of their own, and waiting until they answer."""

from __future__ import annotations

import contextlib
import ctypes
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from noria.errors import Unavailable

_SWAP_SECONDS = 20
_PR_SET_PDEATHSIG = 1


class Child:
    """A Noria process that ends with this one, even when this one is killed; it logs to ``log``, else to stderr."""

    def __init__(self, command: str, project: Path, port: int | None = None, *, log: Path | None = None) -> None:
        self._command = command
        self._log = log
        words = [command, "--project", str(project), "--announce"]
        words += [] if port is None else ["--port", str(port)]
        with contextlib.nullcontext() if log is None else log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "noria", *words],
                stdout=subprocess.PIPE,
                stderr=sink,
                preexec_fn=end_with_parent,
            )
        self.url = f"http://127.0.0.1:{self._announced_port()}"

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ending(self) -> str:
        """Which command has ended, and how."""
        code = self._process.poll() or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"`noria {self._command}` {how}"

    def stop(self) -> None:
        """End it and wait."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def wait_for_revision(self, revision: int) -> None:
        """Return once the gateway serves that route revision. Raises Unavailable when it does not get there."""
        deadline = time.monotonic() + _SWAP_SECONDS
        last = ""
        while time.monotonic() < deadline:
            last = self._health()
            document = json.loads(last) if last.startswith("{") else {}
            if document.get("route_revision") == revision:
                return
            if not self.alive():
                break
            time.sleep(0.02)
        raise Unavailable(
            f"the gateway does not serve route revision {revision}: {last}",
            remedy=self._where(),
        )

    def _where(self) -> str:
        """Where to read what the process said, and its last line if it went to a file."""
        if self._log is None:
            return "Its messages above say why."
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"{self._log} says why: {lines[-1] if lines else 'nothing'}"

    def _health(self) -> str:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()
        except OSError as error:
            return str(error)

    def _announced_port(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._process.stdout.close()
            raise Unavailable(f"`noria {self._command}` ended at its start", remedy=self._where())
        return int(json.loads(line).get("port", 0))


def watch(children: Sequence[Child]) -> NoReturn:
    """Wait until one of the processes has ended by itself. Raises Unavailable that names it."""
    while not (ended := [child for child in children if not child.alive()]):
        time.sleep(0.2)
    raise Unavailable(
        f"{' and '.join(child.ending() for child in ended)}; the others end with it",
        remedy="Start again: all goes on where it was. Under a supervisor run server, serve and worker each alone.",
    )


def end_with_parent() -> None:
    """Called in a new process: have it told to end when the one that started it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
