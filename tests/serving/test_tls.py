"""TLS: with the certificate given, which may be renewed, and refused by name where that cannot be used."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time

import grpc
import httpx
import pytest
import structlog

from noria.client import PredictionClient
from noria.errors import InvalidConfig, Unavailable
from noria.surface.grpc import open_inference_pb2 as messages
from noria.surface.http.tls import Renewal, Tls
from servers import free_port
from serving.pool import REQUEST, Pool, made_certificate
from serving.test_gateway_process import eventually
from support import noria


def test_tls_is_spoken_with_the_certificate_given_and_the_one_that_renews_it(trained, tmp_path):
    certificate, settings = made_certificate(tmp_path)
    pool = Pool(trained, "--port", "0", grpc_port=free_port(), **settings)
    trust = ssl.create_default_context(cafile=str(certificate))
    with httpx.Client(base_url=f"https://localhost:{pool.port}", verify=trust) as client:
        assert client.post("/predict", json=REQUEST).status_code == 200
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"http://localhost:{pool.port}/predict", json=REQUEST)
    with (
        PredictionClient(f"https://localhost:{pool.port}") as strange,
        pytest.raises(Unavailable, match="SSL_CERT_FILE"),
    ):
        strange.info()
    address = f"localhost:{pool.grpc_port}"
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(certificate.read_bytes())) as channel:
        assert _is_live(channel)
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
        _is_live(channel)
    renewed, _ = made_certificate(tmp_path)
    eventually(lambda: ssl.get_server_certificate(("localhost", pool.port)).strip() == renewed.read_text().strip())
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(renewed.read_bytes())) as channel:
        assert _is_live(channel)
    with httpx.Client(base_url=f"https://localhost:{pool.port}", verify=False) as idle:
        assert idle.get("/health").status_code == 200
        started = time.monotonic()
        pool.stop()
        assert time.monotonic() - started < 8  # it is not waited for
    settings["NORIA_GATEWAY__TLS_KEY"] = str(certificate)
    done = noria("serve", "--port", "0", cwd=trained, check=False, **settings)
    assert done.returncode == 2 and "TLS" in done.stderr and "Traceback" not in done.stderr


def _is_live(channel: grpc.Channel) -> bool:
    ask = channel.unary_unary(
        "/inference.GRPCInferenceService/ServerLive",
        request_serializer=messages.ServerLiveRequest.SerializeToString,
        response_deserializer=messages.ServerLiveResponse.FromString,
    )
    return bool(ask(messages.ServerLiveRequest(), timeout=10).live)


def test_files_that_cannot_be_used_are_named_and_a_passphrase_is_not_asked_for(tmp_path):
    certificate, _ = made_certificate(tmp_path)
    key, locked = tmp_path / "tls.key", tmp_path / "locked.key"
    lock = ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", key, "-out", locked]
    subprocess.run(lock, check=True, capture_output=True)
    for one, other, named in [
        (certificate, tmp_path / "none.key", "none.key cannot be read: No such file"),
        (tmp_path / "none.pem", key, "none.pem cannot be read: No such file"),
        (certificate, certificate, "tls.pem cannot be used"),
        (certificate, locked, "locked.key cannot be used"),
    ]:
        with pytest.raises(InvalidConfig, match=named):
            Tls(one, other).check()


def test_a_renewal_that_is_half_there_or_broken_is_passed_over_and_told_once(tmp_path):
    certificate, _ = made_certificate(tmp_path)
    renewal = Renewal(Tls(certificate, tmp_path / "tls.key"))
    whole = shutil.copy(certificate, tmp_path / "whole.pem")
    certificate.write_text("half")
    with structlog.testing.capture_logs() as told:
        assert not renewal.is_due() and not renewal.is_due()
    assert [one["event"] for one in told] == ["tls_certificate_refused"]
    certificate.unlink()
    assert not renewal.is_due()
    shutil.copy(whole, certificate)
    assert renewal.is_due() and not renewal.is_due()
