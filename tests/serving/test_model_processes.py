"""Models in processes of their own: why one gives no answer is told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from noria.errors import NoriaError, Unavailable
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
    if how == "hang":
        threading.Event().wait()
    return {"text": ["\\ud800" if how == "half" else "\\U0001f600"]}
"""


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Callable[[str], object]]:
    (tmp_path / "code.py").write_text(CODE)
    processes = ModelProcesses(Path(sys.executable), ["transformer", str(tmp_path / "code.py")], "the model")
    yield lambda how: processes.ask("preprocess", {"how": np.array([how], dtype=object)})
    processes.stop()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("exit", "the process of the model ended with exit code 3"),
        ("kill", "the process of the model was ended by signal 9"),
        ("hang", "the process of the model did not answer in 0.2 seconds"),
    ],
)
def test_that_a_process_ended_and_that_it_does_not_answer_are_told_apart(ask, how, reason, monkeypatch):
    monkeypatch.setattr(process, "_STUCK_SECONDS", 0.2)
    with pytest.raises(NoriaError) as caught:
        ask(how)
    assert caught.value.message == reason
    monkeypatch.undo()
    assert ask("well") == {"text": ["\U0001f600"]}


def test_half_a_character_is_no_answer_and_harms_no_other(ask):
    with pytest.raises(NoriaError, match="the model answers a text that is none: surrogates not allowed"):
        ask("half")
    assert ask("well") == {"text": ["\U0001f600"]}


def test_what_its_code_raises_when_it_is_loaded_is_told(tmp_path):
    (tmp_path / "code.py").write_text("raise RuntimeError('no weights')")
    with pytest.raises(Unavailable) as caught:
        ModelProcesses(Path(sys.executable), ["transformer", str(tmp_path / "code.py")], "the model")
    assert caught.value.message == "the code of the model raised RuntimeError: no weights"
