"""Several workers on one port: no request is lost while they are replaced, added and taken away."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from noria.surface.http.sockets import bind_unix
from serving.pool import REQUEST, Pool, made_certificate
from support import noria


@pytest.fixture
def pool(trained) -> Iterator[Pool]:
    found = Pool(trained, "--workers", "2", "--port", "0")
    yield found
    found.stop()


class Clients:
    """Threads that ask over kept-alive connections, opened anew when an answer says so; they count what they get."""

    def __init__(self, port: int, number: int = 8) -> None:
        self.outcomes: Counter[str] = Counter()
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(port,)) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _ask(self, port: int) -> None:
        while not self._done.is_set():
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                while not self._done.is_set():
                    try:
                        self.outcomes[str(client.post("/predict", json=REQUEST).status_code)] += 1
                    except httpx.HTTPError as error:
                        self.outcomes[type(error).__name__] += 1

    def finish(self) -> Counter[str]:
        self._done.set()
        for thread in self._threads:
            thread.join()
        return self.outcomes


def test_workers_are_reloaded_added_and_taken_away_without_a_lost_request(pool):
    before = pool.workers()
    clients = Clients(pool.port)
    pool.tell(signal.SIGHUP, "workers_reloaded")
    assert not set(before) & set(pool.workers())
    pool.tell(signal.SIGTTIN, "worker_added")
    assert len(pool.workers()) == 3
    pool.tell(signal.SIGTTOU, "worker_removed")
    outcomes = clients.finish()
    assert len(pool.workers()) == 2
    assert set(outcomes) == {"200"}


def test_workers_that_answer_stay_when_new_ones_could_not_load_what_they_serve(trained, pool):
    (model,) = (trained / ".noria/artifacts").rglob("model.onnx")
    before, content = pool.workers(), model.read_bytes()
    clients = Clients(pool.port)
    try:
        model.write_bytes(b"garbage")
        pool.tell(signal.SIGHUP, "reload_stopped")
    finally:
        model.write_bytes(content)
    assert pool.workers() == before
    pool.tell(signal.SIGHUP, "workers_reloaded")
    assert set(clients.finish()) == {"200"}
    assert not set(before) & set(pool.workers())


def test_a_killed_worker_is_replaced_and_what_connects_meanwhile_is_answered(pool):
    victim = pool.workers()[0]
    subprocess.run(["kill", "-9", str(victim)], check=True)
    # each over a connection of its own: some come to the dead one's socket, and wait there for its successor
    answers = {httpx.post(f"http://127.0.0.1:{pool.port}/predict", json=REQUEST, timeout=30) for _ in range(20)}
    assert {answer.status_code for answer in answers} == {200}
    deadline = time.monotonic() + 20
    while victim in pool.workers():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_while_workers_end_new_connections_are_refused_and_do_not_wait_in_vain(pool):
    body = json.dumps(REQUEST).encode()
    with socket.create_connection(("127.0.0.1", pool.port), timeout=20) as held:
        held.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        httpx.get(f"http://127.0.0.1:{pool.port}/health").raise_for_status()
        pool.process.terminate()
        deadline = time.monotonic() + 8
        while _connects(pool.port):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert pool.process.poll() is None  # the request under way is waited for
        held.sendall(body)
        assert held.recv(65536).startswith(b"HTTP/1.1 200")


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_pool_whose_first_workers_cannot_start_ends_with_why(trained, tmp_path):
    certificate, settings = made_certificate(tmp_path)
    settings["NORIA_GATEWAY__TLS_KEY"] = str(certificate)
    done = noria("serve", "--workers", "2", "--port", "0", cwd=trained, check=False, **settings)
    assert done.returncode == 1 and "no worker of the gateway could start" in done.stderr
    assert "TLS" in done.stderr and "Traceback" not in done.stderr


def test_a_port_is_shared_with_no_other_gateway(trained):
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = str(taken.getsockname()[1])
        for options, named in [
            (["--port", port, "--workers", "2"], "--port"),
            (["--port", "0", "--grpc-port", port], "--grpc-port"),
        ]:
            command = [sys.executable, "-m", "noria", "serve", "--project", str(trained), *options]
            refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
            assert refused.returncode == 1 and "Traceback" not in refused.stderr
            assert "Address already in use" in refused.stderr and f"Choose another with {named}" in refused.stderr


def test_any_worker_tells_the_counts_of_all(pool):
    for _ in range(40):  # each over a connection of its own: the kernel spreads them
        httpx.post(f"http://127.0.0.1:{pool.port}/predict", json=REQUEST).raise_for_status()
    deadline = time.monotonic() + 10
    while "40.0" not in {_count(pool.port) for _ in range(8)}:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _count(port: int) -> str:
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    return next((line.split()[-1] for line in lines if line.startswith("model_predictions_total{")), "0")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o777), (0o027, 0o770), (0o077, 0o700)])
def test_whom_the_umask_lets_read_a_unix_socket_may_ask_there(tmp_path, umask, mode):
    before = os.umask(umask)
    bind_unix(tmp_path / "gateway.sock").close()
    os.umask(before)
    assert stat.S_IMODE((tmp_path / "gateway.sock").stat().st_mode) == mode


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_gateway_listens_on_a_unix_socket_takes_over_a_dead_one_and_leaves_none(trained, tmp_path, workers):
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    pool = Pool(trained, "--unix-socket", str(path), "--workers", workers)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.post("http://gateway/predict", json=REQUEST).status_code == 200
    pool.stop()
    assert not path.exists()
