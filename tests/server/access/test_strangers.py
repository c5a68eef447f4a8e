"""Servers that ask who calls: over real encrypted connections, with real tokens and certificates."""

from __future__ import annotations

import copy
import os
import pickle
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
import typer.testing
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import gradwire as gw
from gradwire_server.access.tokens import TokenSet, new_token, read_tokens, write_tokens
from gradwire_server.cli.app import app
from gradwire_server.process import embedded
from gradwire_wire.v1 import function_pb2, graph_pb2, tensor_pb2
from tests.server.calls import HEADER, stub

SQUARE = HEADER + "g (double[n] x) => (double[n] y) { y = Mul(x, x) }"


@dataclass(frozen=True)
class Guarded:
    """A server with a certificate that asks for tokens."""

    address: str
    ca: Path
    certificate: Path
    key: Path
    tokens: Path
    alice: str
    bob: str
    process_id: int


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def guarded(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    ca, certificate, key, tokens = (
        folder / name for name in ("ca.pem", "cert.pem", "key.pem", "tokens.json")
    )
    authority.cert_pem.write_to_path(ca)
    _write_certificate(authority, certificate, key)
    (alice, alice_text), (bob, bob_text) = new_token("alice"), new_token("bob")
    write_tokens(tokens, TokenSet((alice, bob)))
    server = embedded.start(
        workers=1, cache_dir=None, log_level="error", tls_cert=certificate, tls_key=key, token_file=tokens
    )
    try:
        yield Guarded(server.address, ca, certificate, key, tokens, alice_text, bob_text, server.process_id)
    finally:
        server.stop()


def _write_certificate(authority: trustme.CA, certificate: Path, key: Path) -> None:
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.private_key_pem.write_to_path(key)
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


def _channel(guarded: Guarded, token: str = "") -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(guarded.ca.read_bytes())
    if token:
        credentials = grpc.composite_channel_credentials(
            credentials, grpc.access_token_call_credentials(token)
        )
    return grpc.secure_channel(guarded.address, credentials)


def _code(error: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    code = error.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def test_a_client_with_token_and_root_is_served(guarded: Guarded) -> None:
    with gw.connect(guarded.address, token=guarded.alice, ca=guarded.ca) as client:
        f = client.function(lambda x: x**2, gw.spec(3))
        np.testing.assert_allclose(f.jacobian(np.arange(3.0)), np.diag([0.0, 2.0, 4.0]))


def test_a_stream_and_a_copy_of_a_function_show_the_token_too(guarded: Guarded) -> None:
    with gw.connect(guarded.address, token=guarded.alice, ca=guarded.ca) as client:
        f = client.function(lambda x: x**2, gw.spec(3))
        with f.stream() as stream:
            np.testing.assert_allclose(stream(np.arange(3.0)).result(), [0.0, 1.0, 4.0])
        np.testing.assert_allclose(copy.deepcopy(f)(np.arange(3.0)), [0.0, 1.0, 4.0])


def test_a_pickle_holds_no_token(guarded: Guarded) -> None:
    with gw.connect(guarded.address, token=guarded.alice, ca=guarded.ca) as client:
        f = client.function(lambda x: x**2, gw.spec(3))
        assert guarded.alice.encode() not in pickle.dumps(f)
        assert guarded.alice not in repr(client) + repr(vars(client._client._connection))


def test_the_variable_gives_the_token(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWIRE_TOKEN", guarded.bob)
    with gw.connect(guarded.address, ca=guarded.ca) as client:
        assert client.function(lambda x: x + 1, gw.spec())(1.0) == 2.0


def test_the_command_line_shows_the_token_of_the_environment(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tmp_path / "square.onnxtxt"
    model.write_text(SQUARE)
    command = ["--ca", str(guarded.ca), "jacobian", str(model), "--input", "x=[1,2]"]
    command += ["--address", guarded.address]
    run = typer.testing.CliRunner().invoke
    refused = run(app, command)
    assert refused.exit_code == 1 and "GRADWIRE_TOKEN" in refused.stderr
    monkeypatch.setenv("GRADWIRE_TOKEN", guarded.alice)
    done = run(app, command)
    assert done.exit_code == 0, done.output
    printed = done.stdout.partition(":")[2] or done.stdout
    assert [float(number) for number in re.findall(r"\d+(?:\.\d*)?", printed)][-4:] == [2, 0, 0, 4]


@pytest.mark.parametrize("token", ["", "gw_00000000_" + "A" * 43, "nonsense"])
def test_a_client_without_a_valid_token_is_refused_by_every_call(guarded: Guarded, token: str) -> None:
    with gw.connect(guarded.address, token=token, ca=guarded.ca) as client:
        with pytest.raises(gw.UnauthenticatedError, match="token"):
            client.function(lambda x: x, gw.spec())(1.0)
        with pytest.raises(gw.UnauthenticatedError):
            client.function("0" * 64)


def test_a_client_that_trusts_another_root_does_not_send_its_token(guarded: Guarded, tmp_path: Path) -> None:
    other = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with (
        gw.connect(guarded.address, token=guarded.alice, ca=other, retry=gw.Retry(attempts=1)) as client,
        pytest.raises(gw.UnavailableError),
    ):
        client.function(lambda x: x, gw.spec())(1.0)


def test_a_client_in_plain_text_gets_no_answer(guarded: Guarded) -> None:
    with (
        gw.connect(guarded.address, tls=False, retry=gw.Retry(attempts=1)) as client,
        pytest.raises(gw.UnavailableError),
    ):
        client.function(lambda x: x, gw.spec())(1.0)


def test_health_needs_no_token_and_reflection_does(guarded: Guarded) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with _channel(guarded) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        with pytest.raises(grpc.RpcError) as error:
            list(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request])))
        assert _code(error) == grpc.StatusCode.UNAUTHENTICATED
    with _channel(guarded, guarded.alice) as channel:
        answers = list(
            reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        )
        assert "gradwire.v1.GradientService" in str(answers)


def test_an_id_is_good_within_its_tenant_only(guarded: Guarded) -> None:
    array = np.arange(3.0)
    upload = tensor_pb2.PutTensorRequest(dtype=tensor_pb2.DATA_TYPE_FLOAT64, shape=[3], data=array.tobytes())
    with _channel(guarded, guarded.alice) as alice, _channel(guarded, guarded.bob) as bob:
        graph = stub(alice).RegisterGraph(iter([graph_pb2.RegisterGraphRequest(text=SQUARE)])).graph
        held = stub(alice).PutTensor(iter([upload])).tensor
        request = graph_pb2.GetGraphRequest(graph_id=graph.graph_id)
        assert stub(alice).GetGraph(request).graph == graph
        with pytest.raises(grpc.RpcError) as error:
            stub(bob).GetGraph(request)
        assert _code(error) == grpc.StatusCode.NOT_FOUND

        own = stub(bob).RegisterGraph(iter([graph_pb2.RegisterGraphRequest(text=SQUARE)])).graph
        assert own.graph_id == graph.graph_id
        by_id = tensor_pb2.Tensor(dtype=held.dtype, shape=held.shape, tensor_id=held.tensor_id)
        evaluate = function_pb2.EvaluateRequest(
            function=function_pb2.Function(graph_id=graph.graph_id), inputs={"x": by_id}
        )
        for _ in range(3):  # the kernel is compiled, loaded, and then kept for requests of this form
            answer = stub(alice).Evaluate(evaluate)
        assert answer.outputs[0].tensor.data == (array**2).tobytes()
        with pytest.raises(grpc.RpcError) as error:
            stub(bob).Evaluate(evaluate)
        assert _code(error) == grpc.StatusCode.NOT_FOUND


def test_a_revoked_token_is_refused_within_seconds_and_others_are_not(guarded: Guarded) -> None:
    gone, text = new_token("gone")
    held = read_tokens(guarded.tokens)
    write_tokens(guarded.tokens, held.added(gone))
    os.kill(guarded.process_id, signal.SIGHUP)
    request = graph_pb2.GetGraphRequest(graph_id="0" * 64)

    def code(token: str) -> grpc.StatusCode:
        with _channel(guarded, token) as channel, pytest.raises(grpc.RpcError) as error:
            stub(channel).GetGraph(request)
        return _code(error)

    _eventually(lambda: code(text) == grpc.StatusCode.NOT_FOUND)
    write_tokens(guarded.tokens, held)
    _eventually(lambda: code(text) == grpc.StatusCode.UNAUTHENTICATED)
    assert code(guarded.alice) == grpc.StatusCode.NOT_FOUND


def test_a_new_certificate_serves_at_once_and_a_damaged_one_never(
    guarded: Guarded, authority: trustme.CA
) -> None:
    before = _serial(guarded)
    key = guarded.key.read_bytes()
    guarded.key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
    assert _serial(guarded) == before
    guarded.key.write_bytes(key)
    _write_certificate(authority, guarded.certificate, guarded.key)
    assert _serial(guarded) != before
    with gw.connect(guarded.address, token=guarded.alice, ca=guarded.ca) as client:
        assert client.function(lambda x: x + 1, gw.spec())(1.0) == 2.0


def _serial(guarded: Guarded) -> str:
    host, _, port = guarded.address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), ca_certs=str(guarded.ca))


def _eventually(holds: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_server_that_asks_for_certificates_takes_their_name_for_the_tenant(
    authority: trustme.CA, tmp_path: Path
) -> None:
    ca, certificate, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    _write_certificate(authority, certificate, key)
    pairs = {}
    for name in ("alice", "bob"):
        issued = authority.issue_cert(f"{name}@example.org", common_name=name)
        pairs[name] = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        pairs[name][0].write_bytes(issued.cert_chain_pems[0].bytes())
        issued.private_key_pem.write_to_path(pairs[name][1])
    server = embedded.start(
        workers=1, cache_dir=None, log_level="error", tls_cert=certificate, tls_key=key, tls_client_ca=ca
    )
    try:
        with gw.connect(server.address, ca=ca, cert=pairs["alice"]) as client:
            f = client.function(lambda x: x**3, gw.spec())
            assert f(2.0) == 8.0
            graph_id = f.describe().graph_id
            assert client.function(graph_id)(2.0) == 8.0
        with (
            gw.connect(server.address, ca=ca, cert=pairs["bob"]) as client,
            pytest.raises(gw.NotFoundError),
        ):
            client.function(graph_id)
        with (
            gw.connect(server.address, ca=ca, retry=gw.Retry(attempts=1)) as client,
            pytest.raises(gw.UnavailableError),
        ):
            client.function(graph_id)
    finally:
        server.stop()


class TestAServerThatMayNotStart:
    def start(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gradwire_server", "--port=0", "--workers=1", *flags],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_would_send_tokens_in_plain_text(self, tmp_path: Path) -> None:
        tokens = tmp_path / "tokens.json"
        write_tokens(tokens, TokenSet((new_token("laptop")[0],)))
        ended = self.start("--host=0.0.0.0", f"--token-file={tokens}")
        assert ended.returncode == 1 and "plain text" in ended.stdout + ended.stderr

    def test_would_send_administrators_tokens_in_plain_text(self, tmp_path: Path) -> None:
        tokens = tmp_path / "tokens.json"
        write_tokens(tokens, TokenSet((new_token("laptop")[0],)))
        ended = self.start("--admin-host=0.0.0.0", "--admin-port=0", f"--token-file={tokens}")
        assert ended.returncode == 1 and "plain text" in ended.stdout + ended.stderr

    def test_has_a_certificate_without_its_key(self, tmp_path: Path) -> None:
        ended = self.start(f"--tls-cert={tmp_path / 'cert.pem'}")
        assert ended.returncode == 2 and "set tls-cert and tls-key" in ended.stderr

    def test_has_the_key_of_another_certificate(self, authority: trustme.CA, tmp_path: Path) -> None:
        certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        _write_certificate(authority, certificate, key)
        _write_certificate(authority, tmp_path / "other.pem", key)
        ended = self.start(f"--tls-cert={certificate}", f"--tls-key={key}")
        assert ended.returncode == 1 and "do not go together" in ended.stdout + ended.stderr

    def test_has_no_file_of_tokens(self, tmp_path: Path) -> None:
        ended = self.start(f"--token-file={tmp_path / 'absent.json'}")
        assert ended.returncode == 1 and "absent.json cannot be read" in ended.stdout + ended.stderr
