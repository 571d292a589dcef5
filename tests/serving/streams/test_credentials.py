"""Brokers that refuse whoever asks: told at once, by name, while one that is away is waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import nats
import pytest
import redis

from lifecycle.rollout_world import MODEL
from noria.errors import Forbidden, NoriaError, Unauthenticated, Unavailable
from noria.serving.streams import Ends, Message, Pump, StreamCounts, open_reader, open_writer
from servers import NatsServer, RedisServer
from serving.pool import made_certificate
from serving.streams.refusing_kafka import RefusingKafka
from support import noria

NATS_USERS = """
authorization { users = [
  {user: me, password: right}
  {user: reader, password: right, permissions: {publish: {deny: "out"}}}
] }
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[dict[str, str]]:
    """A Redis and a NATS with streams in, out and dead, for the users me, who may do all, and reader, who may not
    write to out; their addresses, with USER in place of both words."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "nats.conf").write_text(NATS_USERS)
    redis_server, nats_server = RedisServer(), NatsServer(folder, "-c", str(folder / "nats.conf"))
    with redis.Redis.from_url(redis_server.url) as client:
        client.execute_command("ACL SETUSER me on >right ~* +@all")
        client.execute_command("ACL SETUSER reader on >right %R~* %RW~in %RW~dead +@all")
        client.execute_command("ACL SETUSER default off")
    found = {one.url.partition(":")[0]: one.url.replace("//", "//USER@") for one in (redis_server, nats_server)}
    asyncio.run(make_streams(found["nats"].replace("USER", "me:right")))
    yield found
    redis_server.stop()
    nats_server.stop()


async def make_streams(server: str) -> None:
    client = await nats.connect(server)
    for stream in ("in", "out", "dead"):
        await client.jetstream().add_stream(name=stream.upper(), subjects=[stream])
    await client.close()


def publish(source: str) -> None:
    """Something to answer."""

    async def send() -> None:
        client = await nats.connect(source)
        await client.jetstream().publish("in", b"1")
        await client.close()

    if source.startswith("nats"):
        asyncio.run(send())
        return
    with redis.Redis.from_url(source) as client:
        client.xadd("in", {"data": b"1"})


async def answered(message: Message) -> bytes:
    return message.body


def fault_of(source: str, sink: str, dead_letters: str) -> NoriaError:
    """What ends the pump, which must do so by itself."""

    async def run() -> None:
        ends = Ends(open_reader(source, "group"), open_writer(sink), open_writer(dead_letters))
        await asyncio.wait_for(Pump(ends, answered, StreamCounts(), 8).run(), 45)

    with pytest.raises(NoriaError) as found:
        asyncio.run(run())
    return found.value


@pytest.mark.parametrize("user", ["me:wrong", "nobody:right", ""])
@pytest.mark.parametrize("end", ["in", "out", "dead"])
@pytest.mark.parametrize("kind", ["redis", "nats"])
def test_wrong_credentials_of_any_end_are_told_before_the_first_message(guarded, kind, end, user):
    urls = {one: f"{guarded[kind].replace('USER', 'me:right')}#{one}" for one in ("in", "out", "dead")}
    urls[end] = f"{guarded[kind].replace('USER@', user + '@' if user else '')}#{end}"
    fault = fault_of(*urls.values())
    assert isinstance(fault, Unauthenticated)
    assert f"#{end} does not take the credentials" in fault.message and "wrong" not in fault.message


@pytest.mark.parametrize("kind", ["redis", "nats"])
def test_what_a_user_may_not_write_to_is_told(guarded, kind):
    publish(guarded[kind].replace("USER", "me:right"))
    server = guarded[kind].replace("USER", "reader:right")
    began = time.monotonic()
    fault = fault_of(f"{server}#in", f"{server}#out", f"{server}#dead")
    assert isinstance(fault, Forbidden) and "#out cannot be used by this user" in fault.message
    assert time.monotonic() - began < 15  # and not once the time for an answer is over
    assert "permission" in fault.message.lower()


@pytest.fixture(scope="module")
def refusing_kafka() -> Iterator[str]:
    broker = RefusingKafka()
    yield broker.address
    broker.stop()


@pytest.mark.parametrize("end", ["in", "dead"])
def test_credentials_that_kafka_does_not_take_are_told(guarded, refusing_kafka, end):
    urls = {one: f"{guarded['redis'].replace('USER', 'me:right')}#{one}" for one in ("in", "out", "dead")}
    login = "security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN&sasl.username=me&sasl.password=wrong"
    urls[end] = f"kafka://{refusing_kafka}?{login}#{end}"
    fault = fault_of(*urls.values())
    assert isinstance(fault, Unauthenticated) and f"#{end} does not take the credentials" in fault.message
    assert "Invalid username or password" in fault.message and "wrong" not in fault.message


def test_a_topic_that_kafka_lets_this_user_not_write_to_is_told(guarded, refusing_kafka):
    server = guarded["redis"].replace("USER", "me:right")
    fault = fault_of(f"{server}#in", f"kafka://{refusing_kafka}#out", f"{server}#dead")
    assert isinstance(fault, Forbidden) and "#out cannot be used by this user" in fault.message


def test_credentials_that_are_taken_away_end_the_pump(tmp_path):
    server = RedisServer()

    async def run() -> None:
        url = server.url.replace("//", "//:right@")
        pump = Pump(Ends(open_reader(f"{url}#in", "g"), open_writer(f"{url}#out")), answered, StreamCounts(), 8)
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", "right")
            task = asyncio.create_task(pump.run())
            await asyncio.sleep(0.5)
            assert not task.done()
            client.config_set("requirepass", "other")
            client.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(Unauthenticated):
            await asyncio.wait_for(task, 30)

    asyncio.run(run())
    server.stop()


def test_a_nats_server_whose_certificate_nobody_vouches_for_is_told(tmp_path, monkeypatch):
    certificate, _ = made_certificate(tmp_path)
    server = NatsServer(tmp_path, "--tls", "--tlscert", str(certificate), "--tlskey", str(tmp_path / "tls.key"))
    url = server.url.replace("nats://127.0.0.1", "tls://localhost")

    async def looked() -> None:
        writer = open_writer(f"{url}#out")
        try:
            await asyncio.wait_for(writer.send([]), 60)
        finally:
            await writer.close()

    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(looked())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    asyncio.run(looked())
    server.stop()


def test_the_command_says_whose_credentials_are_wrong(world, guarded):
    project = world.workspace.folder.parent
    url = guarded["nats"].replace("USER", "me:wrong")
    words = ["predict", "stream", "--deployment", MODEL, "--project", str(project)]
    done = noria(*words, "--source", f"{url}#in", "--sink", f"{url}#out", cwd=project, check=False)
    assert done.returncode == 4
    said = " ".join(done.stderr.split())
    assert "does not take the credentials" in said and "Traceback" not in said and "wrong" not in said
