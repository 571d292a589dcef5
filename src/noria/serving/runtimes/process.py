"""Models in processes of their own: started with their own interpreter, asked over a socket, replaced when they die."""

from __future__ import annotations

import json
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from noria.errors import InvalidInput, NoriaError, Unavailable
from noria.serving.runtimes.base import WAITED_FOR_UNTIL, Hung, decoded

_log = structlog.get_logger()
_HEAD = struct.Struct("<II")
_START_SECONDS = 180.0
_STUCK_SECONDS = 120.0
"""For calls that have no deadline."""
_LEAST_GRACE_SECONDS = 1.0
_CHILD = Path(__file__).with_name("process_child.py")

Arrays = Mapping[str, NDArray[Any]]


class ModelProcesses:
    """As many processes as are asked at once, each with the model loaded. Threads may share it.

    One that gives no answer while anybody waits for it (``WAITED_FOR_UNTIL``) is given some grace: as long as it took
    to start, for ending it costs that. Then it hangs: it is ended, and begun anew.

    ``words`` tell the child what to load: ``pyfunc FOLDER``, or ``transformer FILE``; errors call it ``label``.
    """

    def __init__(self, interpreter: Path, words: Sequence[str], label: str) -> None:
        self._command = [str(interpreter), str(_CHILD), *words]
        self._label = label
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._all: set[_Child] = set()
        self._closed = False
        self._idle.put(self._start())

    def ask(self, verb: str, arrays: Arrays, **more: Any) -> Any:
        """What the model answers: JSON.

        Raises InvalidInput for what it refuses, Hung where it does not answer, Unavailable when its process fails.
        """
        child = self._take()
        seconds = child.patience()
        try:
            answer = child.ask({"verb": verb, **more}, arrays, seconds)
        except UnicodeEncodeError as error:
            self._give_back(child)
            raise NoriaError(
                f"{self._label} answers a text that is none: {error.reason}",
                remedy="Its texts must be Unicode, without single halves of surrogate pairs.",
            ) from None
        except TimeoutError:
            raise self._hung(child, seconds) from None
        except (OSError, EOFError, ValueError) as error:
            reason = child.end()
            self._end(child)
            _log.error("model_process_failed", loaded=self._command[-1], reason=reason, error=str(error))
            raise Unavailable(
                f"the process of {self._label} {reason}",
                remedy="The gateway's log has what it wrote; it is started again with the next request.",
            ) from None
        self._give_back(child)
        if "error" in answer:
            raise InvalidInput(f"{self._label} refuses the rows: {answer['error']}", remedy="Check them.")
        return answer["result"]

    def stop(self) -> None:
        """End all processes, those too that are asked right now: whoever asked is told that it ended."""
        self._closed = True
        for child in list(self._all):
            self._end(child)

    def _hung(self, child: _Child, seconds: float) -> Hung:
        """End a process that hangs, and begin it anew for whoever asks next."""
        self._end(child)
        reason = f"did not answer in {seconds:.3g} seconds"
        _log.error("model_process_hung", loaded=self._command[-1], reason=reason)
        if not self._closed:
            try:
                self._give_back(self._start())
            except Unavailable as error:  # tried again, and told to whoever asks next
                _log.error("model_process_not_begun_anew", loaded=self._command[-1], reason=error.message)
        return Hung(
            f"the process of {self._label} {reason}, and was begun anew",
            remedy="If it only needs longer, raise `timeout_seconds`; else see what its predict waits for.",
        )

    def _take(self) -> _Child:
        try:
            child = self._idle.get_nowait()
        except queue.Empty:
            return self._start()
        if child.alive():
            return child
        self._end(child)
        return self._start()

    def _give_back(self, child: _Child) -> None:
        if self._closed:
            self._end(child)
        else:
            self._idle.put(child)

    def _start(self) -> _Child:
        child = _Child(self._command)
        self._all.add(child)
        try:
            ready = child.ready()
        except (OSError, EOFError, ValueError) as error:
            self._end(child)
            raise Unavailable(
                f"the process of {self._label} did not start: {child.last_words() or error}",
                remedy="Check the model's requirements and code: they run when it is loaded.",
            ) from None
        if "error" in ready:
            self._end(child)
            raise Unavailable(f"the code of {self._label} raised {ready['error']}", remedy="Log the model again.")
        return child

    def _end(self, child: _Child) -> None:
        self._all.discard(child)
        child.stop()


class _Child:
    """One process and our end of the socket to it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdout=sys.stderr, stderr=subprocess.PIPE
        )
        theirs.close()
        self._errors = _Tail(self._process.stderr)
        self._grace_seconds = _LEAST_GRACE_SECONDS

    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> str:
        """How the process ended, in words, if it did."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "does not answer as it should"
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def last_words(self) -> str:
        return self._errors.text()

    def ready(self) -> Any:
        """What it says when it has loaded the model, or failed to."""
        started = time.monotonic()
        said = self._receive(started + _START_SECONDS)
        self._grace_seconds = max(_LEAST_GRACE_SECONDS, time.monotonic() - started)
        return said

    def patience(self) -> float:
        """Seconds for a call that begins now."""
        until = WAITED_FOR_UNTIL.get()
        return _STUCK_SECONDS if until is None else max(until - time.monotonic(), 0.0) + self._grace_seconds

    def ask(self, header: Mapping[str, Any], arrays: Arrays, seconds: float) -> Any:
        """Its answer. Raises TimeoutError where there is none in time."""
        end = time.monotonic() + seconds
        described = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
        buffers = [_raw(array) for array in arrays.values()]
        sizes = [len(buffer) for buffer in buffers]
        head = json.dumps({**header, "arrays": described, "sizes": sizes}).encode()
        for part in (_HEAD.pack(len(head), sum(sizes)), head, *buffers):
            self._wait_until(end)
            self._socket.sendall(part)
        return self._receive(end)

    def _receive(self, end: float) -> Any:
        length, _ = _HEAD.unpack(self._exactly(_HEAD.size, end))
        return decoded(self._exactly(length, end))

    def _wait_until(self, end: float) -> None:
        """Have what is asked of the socket next raise TimeoutError then. Raises it when that is over."""
        if (seconds := end - time.monotonic()) <= 0:
            raise TimeoutError("it said nothing in time")
        self._socket.settimeout(seconds)

    def _exactly(self, size: int, end: float) -> bytes:
        parts: list[bytes] = []
        while size:
            self._wait_until(end)
            part = self._socket.recv(min(size, 1 << 20))
            if not part:
                raise EOFError("its process ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def stop(self) -> None:
        self._process.kill()  # first: who waits for its answer in another thread sees its end
        self._process.wait()
        self._socket.close()
        self._errors.close()


class _Tail:
    """The last lines a process wrote to standard error, read beside it and passed on to ours."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=8)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        self._thread.join(1)
        return " | ".join(line.strip() for line in self._lines if line.strip())[-600:]

    def close(self) -> None:
        self._thread.join(1)
        self._stream.close()

    def _read(self) -> None:
        for line in self._stream:
            text = line.decode(errors="replace")
            self._lines.append(text)
            sys.stderr.write(text)


def _raw(array: NDArray[Any]) -> bytes:
    """An array's bytes; of texts, JSON: the child may have another numpy, so no pickles."""
    if array.dtype.kind == "O":
        return json.dumps(array.reshape(-1).tolist()).encode()
    return np.ascontiguousarray(array).tobytes()
