"""`noria serve` in processes of its own, over a trained project."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

REQUEST = {"entities": {"shop": "north"}, "features": {"hour": 12, "weekday": 5}, "event_time": "2026-02-27T12:00:00Z"}


def made_certificate(folder: Path) -> tuple[Path, dict[str, str]]:
    """A certificate for localhost, and the settings of a gateway that shows it."""
    certificate, key = folder / "tls.pem", folder / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, {"NORIA_GATEWAY__TLS_CERTIFICATE": str(certificate), "NORIA_GATEWAY__TLS_KEY": str(key)}


def _heed_hangups() -> None:
    """Also where the tests themselves run under nohup, whose children ignore them."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Pool:
    """A gateway of several workers in processes of their own."""

    def __init__(self, project: Path, *options: str, grpc_port: int = 0, **environment: str) -> None:
        self.grpc_port = grpc_port
        options = (*options, "--grpc-port", str(grpc_port)) if grpc_port else options
        command = [sys.executable, "-m", "noria", "serve", "--project", str(project), "--announce", *options]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            preexec_fn=_heed_hangups,
        )
        assert self.process.stdout is not None
        self.port = json.loads(self.process.stdout.readline())["port"]
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(json.loads(line)["event"] for line in self.process.stderr if line.startswith("{"))

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def tell(self, number: int, expected: str) -> None:
        """Send a signal, and wait until the pool says that it is done."""
        before = self.said.count(expected)
        self.process.send_signal(number)
        deadline = time.monotonic() + 40
        while self.said.count(expected) == before:
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(40)
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
