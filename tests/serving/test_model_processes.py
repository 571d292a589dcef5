"""Models in processes of their own: why one gives no answer is told."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from noria.errors import InvalidInput, NoriaError, Unavailable
from noria.serving.runtimes import process
from noria.serving.runtimes.process import ModelProcesses

CODE = """
import os, signal, threading

def preprocess(columns):
    (how,) = columns["how"]
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "leave":
        raise SystemExit(3)
    if how == "hang":
        threading.Event().wait()
    if how.startswith("hang in "):
        open(how.removeprefix("hang in "), "w").write(str(os.getpid()))
        threading.Event().wait()
    if how == "pid":
        return {"pid": [os.getpid()]}
    return {"text": ["\\ud800" if how == "half" else "\\U0001f600"]}
"""

GATEWAY = """
import sys
from pathlib import Path
import numpy as np
from noria.serving.runtimes.process import ModelProcesses

processes = ModelProcesses(Path(sys.executable), ["transformer", sys.argv[1]], "the model")
processes.ask("preprocess", {"how": np.array([f"hang in {sys.argv[2]}"], dtype=object)})
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ModelProcesses]:
    (tmp_path / "code.py").write_text(CODE)
    processes = ModelProcesses(Path(sys.executable), ["transformer", str(tmp_path / "code.py")], "the model")
    yield processes
    processes.stop()


@pytest.fixture
def ask(processes: ModelProcesses) -> Callable[[str], object]:
    return lambda how: processes.ask("preprocess", {"how": np.array([how], dtype=object)})


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("exit", "the process of the model ended with exit code 3"),
        ("kill", "the process of the model was ended by signal 9"),
        ("hang", "the process of the model did not answer in 0.2 seconds, and was begun anew"),
    ],
)
def test_that_a_process_ended_and_that_it_does_not_answer_are_told_apart(ask, how, reason, monkeypatch):
    ask("well")  # it has imported what it needs
    if how == "hang":  # the others take what time they need
        monkeypatch.setattr(process, "_STUCK_SECONDS", 0.2)
    with pytest.raises(NoriaError) as caught:
        ask(how)
    assert (caught.value.message, caught.value.code) == (
        reason,
        "deadline_exceeded" if how == "hang" else "unavailable",
    )
    monkeypatch.undo()
    assert ask("well") == {"text": ["\U0001f600"]}


def test_code_that_would_end_its_process_refuses_the_rows_and_the_process_goes_on(ask):
    before = ask("pid")
    with pytest.raises(InvalidInput, match="the model refuses the rows: SystemExit: 3"):
        ask("leave")
    assert ask("well") == {"text": ["\U0001f600"]}
    assert ask("pid") == before


def test_half_a_character_is_no_answer_and_harms_no_other(ask):
    with pytest.raises(NoriaError, match="the model answers a text that is none: surrogates not allowed"):
        ask("half")
    assert ask("well") == {"text": ["\U0001f600"]}


def test_what_its_code_raises_when_it_is_loaded_is_told(tmp_path):
    (tmp_path / "code.py").write_text("raise RuntimeError('no weights')")
    with pytest.raises(Unavailable) as caught:
        ModelProcesses(Path(sys.executable), ["transformer", str(tmp_path / "code.py")], "the model")
    assert caught.value.message == "the code of the model raised RuntimeError: no weights"


def test_a_process_that_hangs_is_ended_with_the_others(processes, ask, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(ask, f"hang in {tmp_path / 'pid'}")
        pid = _written(tmp_path / "pid")
        processes.stop()
        with pytest.raises(NoriaError, match="was ended by signal 9"):
            hanging.result(10)
    assert not _is_alive(pid)


def test_a_process_that_hangs_ends_with_who_started_it(processes, tmp_path):
    (tmp_path / "gateway.py").write_text(GATEWAY)
    command = [sys.executable, str(tmp_path / "gateway.py"), str(tmp_path / "code.py"), str(tmp_path / "pid")]
    with subprocess.Popen(command) as gateway:
        pid = _written(tmp_path / "pid")
        gateway.kill()
    deadline = time.monotonic() + 10
    while _is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _written(file: Path) -> int:
    """The number that comes to stand in a file."""
    deadline = time.monotonic() + 30
    while not (file.is_file() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(file.read_text())


def _is_alive(pid: int) -> bool:
    """Whether it runs; one that ended, and that nobody has asked for yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
