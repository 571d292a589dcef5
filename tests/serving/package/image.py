"""What a container engine does with a Dockerfile, done in folders: no engine runs where the tests do.

A stage's root is a folder; absolute paths of the Dockerfile lie below it, and `RUN` runs on this machine with the
Python of a new virtual environment in place of the base image's.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

import httpx
from dockerfile_parse import DockerfileParser

_ABSOLUTE = re.compile(r"(?<![\w.])(/opt/noria|/build)\b")


class Image:
    """The last stage of a Dockerfile: its root, environment, and what it says of running it."""

    def __init__(self, context: Path, scratch: Path) -> None:
        self._context, self._scratch = context, scratch
        self.root = scratch / "root"
        self.environment: dict[str, str] = {}
        self.said: dict[str, str] = {}
        self._stages: dict[str, Path] = {}
        self._workdir, self._stage = "/", ""
        self._base = scratch / "base"
        subprocess.run([sys.executable, "-m", "venv", self._base], check=True)
        for step in DockerfileParser(path=str(context)).structure:
            self._do(step["instruction"], step["value"])

    @property
    def command(self) -> list[str]:
        """The entry point, as its process is started."""
        program, *words = [self._placed(word) for word in json.loads(self.said["ENTRYPOINT"])]
        return [str(shutil.which(program, path=self.environment["PATH"])), *words]

    def _do(self, instruction: str, value: str) -> None:
        steps = {"FROM": self._from, "ENV": self._env, "WORKDIR": self._enter, "COPY": self._copy, "RUN": self._run}
        if instruction in steps:
            steps[instruction](value)
        else:
            self.said[instruction] = value

    def _from(self, value: str) -> None:
        """Begin a stage. The one before moves aside: what it installed names its paths, which are the next one's."""
        if self._stage:
            self._stages[self._stage] = self.root.rename(self._scratch / self._stage)
        self.root.mkdir()
        self._stage = value.partition(" AS ")[2]
        self._workdir, self.environment, self.said = "/", {"PATH": f"{self._base}/bin:/usr/bin:/bin"}, {}

    def _env(self, value: str) -> None:
        for word in shlex.split(value):
            name, _, text = word.partition("=")
            self.environment[name] = self._placed(Template(text).safe_substitute(self.environment))

    def _enter(self, value: str) -> None:
        self._workdir = value
        self._path(value).mkdir(parents=True, exist_ok=True)

    def _copy(self, value: str) -> None:
        words = value.split()
        named = next((word.partition("=")[2] for word in words if word.startswith("--from=")), "")
        *sources, target = [word for word in words if not word.startswith("--")]
        for source in sources:
            found = self._stages[named] / source.lstrip("/") if named else self._context / source
            place = self._path(target)
            if found.is_dir():
                shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True)
            else:
                place = place / found.name if target.endswith("/") else place
                shutil.copy(found, place)

    def _run(self, value: str) -> None:
        outside = {
            name: text for name, text in os.environ.items() if not name.startswith(("NORIA", "PYTHON", "VIRTUAL"))
        }
        subprocess.run(
            ["/bin/sh", "-ec", self._placed(value)],
            cwd=self._path(self._workdir),
            env=outside | self.environment,
            check=True,
        )

    def _path(self, path: str) -> Path:
        return self.root / (path if path.startswith("/") else f"{self._workdir}/{path}").lstrip("/")

    def _placed(self, text: str) -> str:
        return _ABSOLUTE.sub(lambda match: f"{self.root}{match[0]}", text)


_ALONE = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount -t tmpfs tmpfs "$ROOT/opt/noria/package/model/predictions"
exec "$@"
"""


@contextmanager
def running(image: Image) -> Iterator[httpx.Client]:
    """A client of the image's process: its environment holds what the image says and nothing else.

    Where the kernel lets it, the process has no network and a file system that is read-only but for the prediction log.
    """
    with tempfile.TemporaryDirectory() as scratch:
        address = f"{scratch}/socket"
        alone = ["unshare", "--map-root-user", "--mount", "--net"]
        command = [*image.command, "--unix-socket", address, "--announce"]
        if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode == 0:
            command = [*alone, "/bin/sh", "-c", _ALONE, "sh", *command]
        environment = image.environment | {"ROOT": str(image.root)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, cwd=scratch, **pipes) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline(), process.stderr.read()
            try:
                with httpx.Client(transport=httpx.HTTPTransport(uds=address), base_url="http://gateway") as client:
                    yield client
            finally:
                process.terminate()
                process.communicate(timeout=30)
