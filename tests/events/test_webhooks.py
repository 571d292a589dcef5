"""Webhooks: told of every change that was committed and of no other, in order, signed, whoever makes it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from events.receiver import Receiver
from noria import audit
from noria.clock import ReplayClock, SystemClock
from noria.config import PolicySettings
from noria.errors import BrokenChain, Forbidden, InvalidInput, PolicyRefused, Unavailable
from noria.events import MLFLOW_EVENTS, OWN_EVENTS, outbox
from noria.events import post as post_module
from noria.events.delivery import CLAIM, MOST_ATTEMPTS, Sender
from noria.events.entities import Letter
from noria.events.post import _embedded, _require_public
from noria.events.samples import SAMPLES
from noria.events.webhooks import create_webhook, delete_webhook, update_webhook
from noria.registry import NewVersion, Policies, Stage, register_version
from noria.registry.models import create_model, delete_model, set_alias
from noria.registry.stages import request_transition
from noria.registry.versions import delete_version
from noria.store import Database
from noria.store.tables import webhooks
from noria.surface.cli.processes import Child
from support import noria, process_of

AT = datetime(2026, 5, 1, tzinfo=UTC)
EVERYTHING = [*MLFLOW_EVENTS, *OWN_EVENTS]
FROM_THE_CLIENT = [
    "registered_model.created",
    "model_version_alias.created",
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
    "prompt.created",
    "prompt_version.created",
    "prompt_tag.set",
    "prompt_tag.deleted",
    "prompt_version_tag.set",
    "prompt_version_tag.deleted",
    "prompt_alias.created",
    "prompt_alias.deleted",
]


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.down()


@pytest.fixture
def sender(empty_database):
    made = Sender(empty_database, SystemClock(), allow_private=True)
    yield made
    made.stop()


@pytest.fixture
def shop(governed_project, tmp_path, monkeypatch):
    """A project whose server may send to this machine."""
    monkeypatch.setenv("NORIA_WEBHOOKS__ALLOW_PRIVATE", "true")
    return Path(shutil.copytree(governed_project, tmp_path / "shop"))


@contextmanager
def running(folder):
    child = Child("server", folder, 0)
    try:
        yield child
    finally:
        child.stop()


def call(child, method, path, **body):
    request = urllib.request.Request(
        f"{child.url}/api/2.0/mlflow/{path}",
        json.dumps(body).encode() if method != "GET" else None,
        {"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def subscribe(child, url, *, secret=""):
    events = [dict(zip(("entity", "action"), event.upper().split("."), strict=True)) for event in MLFLOW_EVENTS]
    made = call(child, "POST", "webhooks", name="all", url=url, events=events, secret=secret, noria_events=OWN_EVENTS)
    return made["webhook"]


def webhook(database, url, events=EVERYTHING, **more):
    with database.write() as tx:
        return create_webhook(tx, name="all", url=url, events=events, at=AT, actor="ann", **more)


def model(database, name, at=AT):
    with database.write() as tx:
        create_model(tx, name, policies=Policies(), at=at, actor="ann")


def deliveries(database):
    with database.read() as tx:
        return outbox.list_deliveries(tx)[::-1]


def names(received):
    return [item.name for item in received]


def test_the_stock_client_is_told_of_everything_once_in_order_and_signed(shop, receiver, mlflow_python):
    script = Path(__file__).parent / "webhook_script.py"
    with running(shop) as child:
        done = subprocess.run(
            [mlflow_python, script, child.url, receiver.url], capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr[-4000:]
        sent = receiver.wait_for(len(FROM_THE_CLIENT) + 1)
    received = [item for item in sent if item.data.get("key") != "_mlflow_experiment_ids"]  # the client's own, in time
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    assert seen["made"] == ["first", "http://example.invalid/x", ["registered_model.created"], "words", "ACTIVE"]
    assert seen["updated"] == [14, "other words", True, None]
    assert (seen["listed"], seen["got"], seen["left"]) == (["first"], "first", ["first"])
    assert seen["tested"] == [True, 200, "thanks", None]
    assert (seen["tested_another"], seen["disabled"]) == (True, "DISABLED")
    assert seen["url"] == seen["name"] == "INVALID_PARAMETER_VALUE"
    assert seen["unknown"] == "RESOURCE_DOES_NOT_EXIST"
    assert names(received) == FROM_THE_CLIENT
    assert len({item.headers["x-mlflow-delivery-id"] for item in received}) == len(received)
    for item in received:
        verify(item, "rain")
    told = {item.name: item.data for item in received[2:]}
    assert told["registered_model.created"] == {
        "name": "churn",
        "tags": {"team": "growth"},
        "description": "who leaves",
    }
    assert told["model_version.created"] == {
        "name": "churn",
        "version": "1",
        "source": "s3://bucket/model",
        "run_id": None,
        "tags": {"a": "1"},
        "description": "first",
    }
    assert told["model_version_tag.set"] == {"name": "churn", "version": "1", "key": "b", "value": "2"}
    assert told["prompt_version.created"]["template"] == "Hello {{name}}!"
    assert told["prompt_alias.created"] == {"name": "greeting", "alias": "live", "version": "1"}
    listed = json.loads(noria("webhooks", "list", "--json", cwd=shop).stdout)
    assert [(item["name"], item["signed"]) for item in listed] == [("first", "yes")]
    assert "rain" not in json.dumps(listed)
    kept = json.loads(noria("webhooks", "deliveries", "--json", cwd=shop).stdout)
    assert [item["status"] for item in kept] == ["delivered"] * (len(sent) - 2)
    noria("audit", "verify", cwd=shop)


def verify(item, secret):
    """As MLflow's documentation tells receivers to."""
    version, _, signature = item.headers["x-mlflow-signature"].partition(",")
    signed = f"{item.headers['x-mlflow-delivery-id']}.{item.headers['x-mlflow-timestamp']}.{item.body}"
    expected = base64.b64encode(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()).decode()
    assert (version, signature) == ("v1", expected)
    assert abs(int(item.headers["x-mlflow-timestamp"]) - datetime.now(UTC).timestamp()) < 300


def test_a_refused_change_tells_only_of_its_refusal(shop, receiver):
    with running(shop) as child:
        shown = subscribe(child, receiver.url)
        assert shown["noria_events"] == list(OWN_EVENTS)
        assert "secret" not in shown
        call(child, "POST", "registered-models/create", name="governed")
        call(child, "POST", "model-versions/create", name="governed", source="s3://b/m")
        with pytest.raises(urllib.error.HTTPError) as refused:
            call(child, "POST", "model-versions/transition-stage", name="governed", version="1", stage="Production")
        assert refused.value.code == 403
        refused.value.close()
        received = receiver.wait_for(3)
        assert names(received)[2:] == ["model_version.transition_refused"]
        assert received[2].data["to_stage"] == "Production"
        assert any("reviewed" in unmet for unmet in received[2].data["unmet"])
        noria("models", "approve", "governed", "1", "--stage", "Staging", "--reason", "fine", cwd=shop)
        noria("models", "move", "governed", "1", "Staging", cwd=shop)
        assert names(receiver.wait_for(5))[3:] == ["model_version.approved", "model_version.stage_transitioned"]


def test_a_server_killed_between_change_and_delivery_delivers_after_its_restart(shop, receiver):
    receiver.down()
    with running(shop) as child:
        subscribe(child, receiver.url)
        for name in ("one", "two", "three"):
            call(child, "POST", "registered-models/create", name=name)
        os.kill(process_of("server", shop), signal.SIGKILL)
    before = json.loads(noria("webhooks", "deliveries", "--json", cwd=shop).stdout)
    assert [item["status"] for item in before] == ["pending"] * 3
    receiver.up()
    with running(shop):
        received = receiver.wait_for(3)
    assert [item.data["name"] for item in received] == ["one", "two", "three"]
    assert [item.headers["x-mlflow-delivery-id"] for item in received] == [item["delivery"] for item in before[::-1]]


def test_what_waits_for_a_receiver_that_is_down_arrives_in_order_once_it_is_up(empty_database, receiver, sender):
    webhook(empty_database, receiver.url)
    receiver.status = 503
    for number in range(5):
        model(empty_database, f"m{number}")
    sender.start()
    receiver.wait_for(1)
    receiver.status = 200
    received = receiver.wait_for(6)
    assert [item.data["name"] for item in received] == ["m0", "m0", "m1", "m2", "m3", "m4"]
    assert received[0].headers["x-mlflow-delivery-id"] == received[1].headers["x-mlflow-delivery-id"]
    sender.stop()
    assert {(item.status, item.reason) for item in deliveries(empty_database)} == {("delivered", "")}


def test_two_servers_never_send_the_same_delivery(empty_database, receiver, sender):
    for _ in range(4):
        webhook(empty_database, receiver.url)
    other = Sender(empty_database, SystemClock(), allow_private=True)
    sender.start()
    other.start()
    writers = [threading.Thread(target=model, args=(empty_database, f"m{number}")) for number in range(10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    received = receiver.wait_for(40)
    other.stop()
    sender.stop()
    assert len(receiver.received) == 40
    assert len({item.headers["x-mlflow-delivery-id"] for item in received}) == 40
    assert {item.status for item in deliveries(empty_database)} == {"delivered"}


def test_a_change_that_is_rolled_back_tells_nobody(empty_database, receiver):
    webhook(empty_database, receiver.url)
    with pytest.raises(InvalidInput), empty_database.write() as tx:
        create_model(tx, "half", policies=Policies(), at=AT, actor="ann")
        assert len(outbox.list_deliveries(tx)) == 1
        raise InvalidInput("no")
    assert deliveries(empty_database) == []


def test_a_claim_holds_until_it_runs_out_and_only_its_holder_settles(empty_database):
    webhook(empty_database, "http://example.invalid/")
    model(empty_database, "one")
    model(empty_database, "two")
    later = AT + CLAIM
    with empty_database.write() as tx:
        [(first, letter)] = outbox.claim(tx, at=AT, until=later, limit=8)
        assert outbox.claim(tx, at=AT + timedelta(seconds=1), until=later, limit=8) == []
        [(second, again)] = outbox.claim(tx, at=later, until=later + CLAIM, limit=8)
        assert letter.delivery_id == again.delivery_id
        outbox.settle(tx, first, outbox.DeliveryStatus.FAILED, at=later, reason="late")
        assert outbox.attempts_of(tx, second) == 2
        outbox.settle(tx, second, outbox.DeliveryStatus.DELIVERED, at=later)
    assert [item.status for item in deliveries(empty_database)] == ["delivered", "pending"]


def test_a_delivery_that_keeps_failing_gives_up_with_its_reason_and_lets_the_next_go(empty_database, receiver):
    clock = ReplayClock(AT)
    patient = Sender(empty_database, clock, allow_private=True)
    webhook(empty_database, receiver.url)
    receiver.status = 500
    model(empty_database, "one")
    model(empty_database, "two")
    for attempt in range(MOST_ATTEMPTS):
        assert patient.send_due() == 1
        receiver.wait_for(attempt + 1)
        for thread in list(patient._sending):
            thread.join()
        assert attempt + 1 == MOST_ATTEMPTS or patient.send_due() == 0, "it waits before it tries again"
        clock.move_to(clock.now() + timedelta(hours=1))
    failed, waiting = deliveries(empty_database)
    assert (failed.status, failed.attempts, failed.reason) == ("failed", MOST_ATTEMPTS, "HTTP 500: thanks")
    assert (waiting.status, waiting.attempts) == ("pending", 0)
    patient.stop()


def test_a_private_address_is_refused_and_said(empty_database, receiver):
    careful = Sender(empty_database, ReplayClock(AT), allow_private=False)
    webhook(empty_database, receiver.url)
    model(empty_database, "one")
    assert careful.send_due() == 1
    for thread in list(careful._sending):
        thread.join()
    [refused] = deliveries(empty_database)
    assert (refused.status, refused.attempts, receiver.received) == ("failed", 1, [])
    assert "127.0.0.1" in refused.reason
    careful.stop()


LOCAL = ("127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.1.1", "::1", "fe80::1", "fd00::1")
DISGUISED = ("::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::")


@pytest.mark.parametrize("address", [*LOCAL, *DISGUISED])
def test_no_private_address_passes_in_any_disguise(address):
    with pytest.raises(Forbidden):
        _require_public("there", ipaddress.ip_address(address))


@contextmanager
def dripping():
    """A receiver that answers one byte at a time and never ends; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            with suppress(OSError), listener.accept()[0] as taken:
                while True:
                    taken.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_never_ends_is_left_in_time(scheme, monkeypatch):
    monkeypatch.setattr(post_module, "SECONDS", 0.5)
    with dripping() as port, pytest.raises(Unavailable):
        letter = Letter("id", f"{scheme}://127.0.0.1:{port}/", "", "{}")
        post_module.post(letter, at=AT, allow_private=True)


def test_public_addresses_pass():
    for address in ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"):
        _require_public("there", ipaddress.ip_address(address))
        assert _embedded(ipaddress.ip_address(address)).is_global


@pytest.mark.parametrize(
    "given",
    [
        {"url": "ftp://example.org"},
        {"url": "file:///etc/passwd"},
        {"url": "http://"},
        {"url": "http://a b/"},
        {"url": "http://user:secret@example.org/"},
        {"url": "http://example.org/\r\nX: y"},
        {"name": "with spaces"},
        {"name": "x" * 64},
        {"events": ["model_version.vanished"]},
        {"events": ["model_version.approved"]},
    ],
)
def test_a_webhook_that_could_not_work_is_refused(empty_database, given):
    plain = {"name": "all", "url": "https://example.org/x", "events": EVERYTHING, "at": AT, "actor": "ann"}
    with pytest.raises(InvalidInput), empty_database.write() as tx:
        create_webhook(tx, **{**plain, **given})


def test_every_change_of_a_webhook_is_audited_without_its_secret(empty_database):
    made = webhook(empty_database, "https://example.org/key", secret="rain")
    with empty_database.write() as tx:
        update_webhook(tx, made.webhook_id, secret="snow", at=AT, actor="bob")
        audit.verify(tx)
    with empty_database.write() as tx:
        tx.execute(webhooks.update().values(url="https://elsewhere.example/"))
    with empty_database.read() as tx, pytest.raises(BrokenChain):
        audit.verify(tx)
    with empty_database.write() as tx:
        tx.execute(webhooks.update().values(url="https://example.org/key"))
        delete_webhook(tx, made.webhook_id, at=AT, actor="ann")
        audit.verify(tx)
        entries = audit.entries(tx, newest_first=False)
    assert [entry.action for entry in entries] == ["webhook.create", "webhook.update", "webhook.delete"]
    said = json.dumps([dict(entry.detail) for entry in entries])
    assert not any(word in said for word in ("rain", "snow", "/key"))


def test_a_disabled_webhook_is_told_nothing(empty_database):
    made = webhook(empty_database, "https://example.org/x")
    with empty_database.write() as tx:
        update_webhook(tx, made.webhook_id, status=outbox.WebhookStatus.DISABLED, at=AT, actor="ann")
    model(empty_database, "quiet")
    assert deliveries(empty_database) == []


def test_deleting_a_version_tells_of_the_aliases_that_go_with_it(empty_database):
    webhook(empty_database, "https://example.org/x")
    with empty_database.write() as tx:
        for _ in range(2):
            new = NewVersion(model="m", source="s")
            register_version(tx, new, policies=Policies(), at=AT, actor="ann")
        set_alias(tx, "m", "a", 1, at=AT, actor="ann")
        set_alias(tx, "m", "b", 2, at=AT, actor="ann")
        set_alias(tx, "m", "b", 2, at=AT, actor="ann")
        delete_version(tx, "m", 1, at=AT, actor="ann")
        delete_model(tx, "m", at=AT, actor="ann")
    assert [item.event for item in deliveries(empty_database)] == [
        "registered_model.created",
        "model_version.created",
        "model_version.created",
        "model_version_alias.created",
        "model_version_alias.created",
        "model_version_alias.deleted",
        "model_version_alias.deleted",
    ]


def test_a_refusal_in_its_own_transaction_is_told(empty_database):
    webhook(empty_database, "https://example.org/x")
    with empty_database.write() as tx:
        register_version(tx, NewVersion(model="m", source="s"), policies=Policies(), at=AT, actor="ann")
    strict = Policies.from_settings({"*": PolicySettings(transitions=["None -> Archived"])})
    with pytest.raises(PolicyRefused):
        request_transition(empty_database, "m", 1, Stage.PRODUCTION, policies=strict, at=AT, actor="ann")
    assert deliveries(empty_database)[-1].event == "model_version.transition_refused"


def test_there_is_an_example_of_every_event_that_happens():
    assert set(SAMPLES) == {*EVERYTHING} - {"budget_policy.exceeded"}


def test_no_thread_looks_while_there_is_no_webhook(empty_database, sender):
    sender.start()
    assert sender._looking is None
    made = webhook(empty_database, "https://example.org/x")
    sender.start()
    looking = sender._looking
    with empty_database.write() as tx:
        delete_webhook(tx, made.webhook_id, at=AT, actor="ann")
    looking.join(timeout=10)
    assert sender._looking is None


def test_a_failed_delivery_is_sent_again_from_the_command_line(shop, receiver):
    created = ["create", "ci", receiver.url, "--event", "registered_model.created", "--secret-stdin"]
    webhook_id = noria("webhooks", *created, cwd=shop, stdin="a secret\n").stdout.strip()
    assert "HTTP 200" in noria("webhooks", "test", webhook_id, cwd=shop).stdout
    (sent,) = receiver.wait_for(1)
    assert sent.name == "registered_model.created" and sent.headers["x-mlflow-signature"].startswith("v1,")
    database = Database(f"sqlite:///{shop}/.noria/noria.db")
    model(database, "first")
    with database.write() as tx:
        ((token, _),) = outbox.claim(tx, at=AT, until=AT + CLAIM, limit=1)
        outbox.settle(tx, token, outbox.DeliveryStatus.FAILED, at=AT, reason="HTTP 500: no")
    (failed,) = deliveries(database)
    assert "once more" in noria("webhooks", "resend", failed.delivery_id, cwd=shop).stdout
    with running(shop):
        assert receiver.wait_for(2)[1].headers["x-mlflow-delivery-id"] == failed.delivery_id
    again = noria("webhooks", "resend", failed.delivery_id, cwd=shop, check=False)
    assert (again.returncode, "has not failed" in again.stderr) == (1, True)
    done = [entry["action"] for entry in json.loads(noria("audit", "show", "--json", cwd=shop).stdout)]
    assert {"webhook.create", "webhook.resend"} <= set(done)
    noria("audit", "verify", cwd=shop)
    database.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "ci", "ftp://x", "--event", "registered_model.created"], "is no URL of a webhook"),
        (["create", "ci", "https://example.org", "--event", "cake.baked"], "cake.baked is no event"),
        (["create", "", "https://example.org", "--event", "registered_model.created"], "name '' is invalid"),
        (["test", "none"], "Webhook with ID none not found"),
        (["resend", "none"], "delivery 'none' is not on record"),
    ],
)
def test_commands_about_webhooks_say_what_is_wrong(governed_project, arguments, said):
    done = noria("webhooks", *arguments, cwd=governed_project, check=False)
    assert done.returncode and said in done.stderr and "Traceback" not in done.stderr
