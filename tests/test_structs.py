"""msgspec crashes where two threads are the first to decode a struct: all that are decoded are known beforehand."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import noria

SOURCES = Path(noria.__file__).parent
DECODING = ("decode", "_decode", "decoded", "Decoder", "convert")
PROBE = """
import dataclasses, importlib, json, sys, msgspec

found = [getattr(importlib.import_module(module), name, None) for module, name in json.loads(sys.argv[1])]
classes = {one for one in found if isinstance(one, type)}
kinds = [one for one in classes if issubclass(one, msgspec.Struct) or dataclasses.is_dataclass(one)]
looked_at = set()

def note(frame, event, _):
    if event == "call" and frame.f_code.co_name in ("get_class_annotations", "get_dataclass_info"):
        looked_at.add(kind.__qualname__)

sys.setprofile(note)
for kind in kinds:
    msgspec.json.Decoder(kind)
sys.setprofile(None)
print(json.dumps([len(kinds), sorted(looked_at)]))
"""


def decoded_names(source: str) -> Iterator[str]:
    """Names in the arguments of calls that decode."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            arguments = [*node.args, *(one.value for one in node.keywords)] if called in DECODING else []
            yield from (part.id for one in arguments for part in ast.walk(one) if isinstance(part, ast.Name))


def test_every_struct_that_is_decoded_is_known_before_threads_begin():
    names = {
        (".".join(("noria", *path.relative_to(SOURCES).with_suffix("").parts)), name)
        for path in SOURCES.rglob("*.py")
        for name in decoded_names(path.read_text())
        if name.strip("_")[:1].isupper()
    }
    command = [sys.executable, "-c", PROBE, json.dumps(sorted(names))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, looked_at = json.loads(done.stdout)
    assert (count > 20, looked_at) == (True, [])
