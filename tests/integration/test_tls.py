"""Handshakes over real sockets: who is let in, who is not, and what a change on disk does."""

import asyncio
import os
import socket
import ssl
import warnings
from pathlib import Path

import grpc
import pytest

from costd.errors import NotPermitted, Unauthenticated
from costd.testing import DaemonFailed, DaemonProcess
from costd.testing.certifier import DAY_NS, Certifier, replace
from costd.trust import (
    Authenticator,
    Kind,
    Peer,
    Role,
    TlsFault,
    TlsFiles,
    channel_credentials,
    expecting,
    peer_of,
    require,
    server_credentials,
)
from costd.wire.pb import admission_pb2, admission_pb2_grpc, control_pb2, control_pb2_grpc

POLICY = Path(__file__).parents[2] / "policies" / "quickstart.yaml"
METHOD = "/costd.v1.Fleet/Join"


@pytest.fixture
def certifier(tmp_path):
    return Certifier(tmp_path / "ca")


@pytest.fixture
async def serve():
    """Serve one method that tells who calls; return its address."""
    servers = []

    async def start(files, *, authenticator=None, **options):
        authenticator = authenticator or Authenticator(
            wall_ns=files.wall_ns, audiences=["here"], files=files
        )

        async def tell(raw, context):
            try:
                identity = authenticator.identify(context)
                require(identity, "costd.v1.Fleet", "Join")
            except Unauthenticated as error:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
            except NotPermitted as error:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
            return peer_of(context).uri.encode()

        server = grpc.aio.server()
        handlers = {"Join": grpc.unary_unary_rpc_method_handler(tell)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("costd.v1.Fleet", handlers),)
        )
        port = server.add_secure_port("127.0.0.1:0", server_credentials(files, **options))
        await server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    await asyncio.gather(*(server.stop(None) for server in servers))


async def call(target, files, options=()):
    async with grpc.aio.secure_channel(
        target, channel_credentials(files), options=options
    ) as channel:
        return await send(channel)


async def send(channel):
    try:
        return (await channel.unary_unary(METHOD)(b"", timeout=20)).decode()
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"


async def test_both_sides_know_each_other(certifier, serve):
    target = await serve(certifier.pair(Kind.COORDINATOR, "c").files())
    daemon = certifier.pair(Kind.DAEMON, "host-7").files()
    assert await call(target, daemon) == "costd://daemon/host-7"
    assert await call(target, daemon, expecting(Kind.COORDINATOR)) == "costd://daemon/host-7"


async def test_a_client_that_expects_a_coordinator_talks_to_no_daemon(certifier, serve):
    target = await serve(certifier.pair(Kind.DAEMON, "d").files())
    said = await call(target, certifier.pair(Kind.DAEMON, "e").files(), expecting(Kind.COORDINATOR))
    assert said.startswith("UNAVAILABLE")
    assert "Hostname Verification" in said


async def test_an_operators_certificate_cannot_be_served_with(certifier, serve):
    """Its holder could pass for a daemon otherwise."""
    target = await serve(certifier.pair(Kind.OPERATOR, "ann", Role.ADMIN).files())
    said = await call(target, certifier.pair(Kind.DAEMON, "d").files())
    assert said.startswith("UNAVAILABLE")
    assert "CERTIFICATE_VERIFY_FAILED" in said


async def test_a_certificate_of_the_wrong_kind_is_told_so(certifier, serve):
    target = await serve(certifier.pair(Kind.COORDINATOR, "c").files())
    for kind, role in ((Kind.OPERATOR, Role.ADMIN), (Kind.AGENT, None), (Kind.COORDINATOR, None)):
        said = await call(target, certifier.pair(kind, "other", role).files())
        assert said.startswith("PERMISSION_DENIED: Join needs the certificate of a daemon")


async def test_no_certificate_no_handshake(certifier, serve):
    target = await serve(certifier.pair(Kind.COORDINATOR, "c").files())
    assert (await call(target, TlsFiles(ca=certifier.ca))).startswith("UNAVAILABLE")


async def test_a_certificate_of_another_ca_is_refused_by_both_sides(certifier, serve, tmp_path):
    other = Certifier(tmp_path / "other")
    target = await serve(certifier.pair(Kind.COORDINATOR, "c").files())
    stranger = other.pair(Kind.DAEMON, "d")
    assert "CERTIFICATE_VERIFY_FAILED" in await call(target, stranger.files())
    trusting = TlsFiles(ca=certifier.ca)  # checks the server, and shows the stranger's certificate
    credentials = grpc.ssl_channel_credentials(
        trusting.current().ca_pem, stranger.key.read_bytes(), stranger.certificate.read_bytes()
    )
    async with grpc.aio.secure_channel(target, credentials) as channel:
        assert (await send(channel)).startswith("UNAVAILABLE")


@pytest.mark.parametrize("age_days", [8, -2], ids=["expired", "not yet valid"])
async def test_a_certificate_out_of_its_time_is_refused_by_both_sides(certifier, serve, age_days):
    stale = certifier.issued(Kind.DAEMON, "old", age_days=age_days)
    target = await serve(certifier.pair(Kind.COORDINATOR, "c").files())
    credentials = grpc.ssl_channel_credentials(
        certifier.ca.read_bytes(), stale.key_pem, stale.certificate_pem
    )
    async with grpc.aio.secure_channel(target, credentials) as channel:
        assert (await send(channel)).startswith("UNAVAILABLE")

    pair = certifier.pair(Kind.COORDINATOR, "old", age_days=age_days)
    then = certifier.now_ns - age_days * DAY_NS + DAY_NS
    lax = await serve(TlsFiles(**pair._asdict(), wall_ns=lambda: then))
    said = await call(lax, certifier.pair(Kind.DAEMON, "d").files())
    assert "CERTIFICATE_VERIFY_FAILED" in said


async def test_a_certificate_replaced_on_disk_is_used_by_the_next_handshake(certifier, serve):
    pair = certifier.pair(Kind.COORDINATOR, "c")
    target = await serve(pair.files())
    assert served_serial(target, certifier) == serial(pair)
    before = serial(pair)
    replace(pair, certifier.issued(Kind.COORDINATOR, "c"))
    assert served_serial(target, certifier) == serial(pair) != before
    assert await call(target, certifier.pair(Kind.DAEMON, "d").files()) == "costd://daemon/d"


async def test_half_a_replacement_leaves_the_old_certificate_in_force(certifier, serve):
    pair = certifier.pair(Kind.COORDINATOR, "c")
    told = []
    target = await serve(TlsFiles(**pair._asdict(), tell=told.append))
    before, fresh = serial(pair), certifier.issued(Kind.COORDINATOR, "c")
    pair.key.write_bytes(fresh.key_pem)
    assert served_serial(target, certifier) == before
    assert len(told) == 1
    pair.certificate.write_bytes(fresh.certificate_pem)
    assert served_serial(target, certifier) == serial(pair) != before


def serial(pair):
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())


def served_serial(target, certifier):
    """Shake hands as a daemon and return the certificate that the server shows."""
    context = ssl.create_default_context(cafile=str(certifier.ca))
    shown = certifier.pair(Kind.DAEMON, "prober")
    context.load_cert_chain(shown.certificate, shown.key)
    context.set_alpn_protocols(["h2"])
    host, _, port = target.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 20) as raw,
        context.wrap_socket(raw, server_hostname=host) as secured,
    ):
        return secured.getpeercert(binary_form=True)


async def test_a_client_uses_its_new_certificate_with_its_next_channel(certifier, serve):
    target = await serve(certifier.pair(Kind.COORDINATOR, "c").files())
    pair = certifier.pair(Kind.DAEMON, "before")
    files = pair.files()
    version = files.current().version
    assert await call(target, files) == "costd://daemon/before"
    replace(pair, certifier.issued(Kind.DAEMON, "after"))
    assert files.current().version > version
    assert await call(target, files) == "costd://daemon/after"


async def test_a_ca_taken_out_of_the_file_revokes_what_it_issued_on_open_connections_too(
    certifier, serve, tmp_path
):
    """Rotation: the new CA is trusted beside the old one, then alone."""
    fresh = Certifier(tmp_path / "fresh", "the new CA")
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes(certifier.ca.read_bytes())
    old = certifier.pair(Kind.DAEMON, "old")._replace(ca=bundle).files()
    server = certifier.pair(Kind.COORDINATOR, "c")._replace(ca=bundle)
    target = await serve(server.files())
    async with grpc.aio.secure_channel(target, channel_credentials(old)) as open_since:
        assert await send(open_since) == "costd://daemon/old"

        bundle.write_bytes(certifier.ca.read_bytes() + fresh.ca.read_bytes())
        new = fresh.pair(Kind.DAEMON, "new")._replace(ca=bundle).files()
        assert await call(target, new) == "costd://daemon/new"
        assert await call(target, old) == "costd://daemon/old"

        replace(server, fresh.issued(Kind.COORDINATOR, "c"))
        bundle.write_bytes(fresh.ca.read_bytes())
        assert await call(target, new) == "costd://daemon/new"
        said = await send(open_since)
        assert said.startswith("UNAUTHENTICATED")
        assert "not issued by the trusted CA (CN=the new CA)" in said
    untrusted = grpc.ssl_channel_credentials(
        bundle.read_bytes(), old.current().key_pem, old.current().certificate_pem
    )
    async with grpc.aio.secure_channel(target, untrusted) as channel:
        assert (await send(channel)).startswith("UNAVAILABLE")


async def test_a_certificate_that_expires_on_an_open_connection_is_refused(certifier, serve):
    now = [certifier.now_ns]
    files = certifier.pair(Kind.COORDINATOR, "c").files()
    authenticator = Authenticator(wall_ns=lambda: now[0], audiences=["here"], files=files)
    target = await serve(files, authenticator=authenticator)
    daemon = certifier.pair(Kind.DAEMON, "d").files()
    async with grpc.aio.secure_channel(target, channel_credentials(daemon)) as channel:
        assert await send(channel) == "costd://daemon/d"
        now[0] += 6 * DAY_NS
        said = await send(channel)
    assert said.startswith("UNAUTHENTICATED: the certificate of CN=d expired at")


@pytest.mark.parametrize(
    ("newest", "spoken"),
    [("TLSv1_1", None), ("TLSv1_2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3")],
)
async def test_nothing_older_than_tls_1_2_is_spoken(certifier, serve, newest, spoken):
    target = await serve(certifier.pair(Kind.COORDINATOR, "c").files())
    pair = certifier.pair(Kind.DAEMON, "d")
    context = ssl.create_default_context(cafile=str(certifier.ca))
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion[newest]

    def version():
        host, _, port = target.rpartition(":")
        try:
            with (
                socket.create_connection((host, int(port)), 20) as raw,
                context.wrap_socket(raw, server_hostname=host) as secured,
            ):
                return secured.version()
        except (ssl.SSLError, ConnectionError):
            return None

    assert await asyncio.to_thread(version) == spoken


def test_credentials_need_what_they_are_made_of(certifier):
    with pytest.raises(TlsFault, match="without a CA"):
        channel_credentials(TlsFiles())
    with pytest.raises(TlsFault, match="needs a certificate"):
        server_credentials(TlsFiles(ca=certifier.ca))
    pair = certifier.pair(Kind.DAEMON, "d")
    with pytest.raises(TlsFault, match="without a CA"):
        server_credentials(
            TlsFiles(certificate=pair.certificate, key=pair.key), client_certificates=True
        )


async def test_a_name_in_the_certificate_is_read_as_a_peer(certifier, serve):
    target = await serve(certifier.pair(Kind.COORDINATOR, "c").files())
    said = await call(target, certifier.pair(Kind.DAEMON, "a.b-c@d_9").files())
    assert said == Peer(kind=Kind.DAEMON, name="a.b-c@d_9").uri


# ---- the daemon ----


def tls(pair, *more):
    return (
        *("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)),
        *("--tls-ca", str(pair.ca), *more),
    )


def admit(target, credentials):
    request = admission_pb2.AdmitRequest(ask_id="ask-0123456789abcdef", estimated_cost_nusd=1)
    channel = (
        grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)
    )
    with channel:
        try:
            admission_pb2_grpc.AdmissionStub(channel).Admit(request, timeout=20)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


def test_agents_are_served_over_mutual_tls(certifier):
    pair = certifier.pair(Kind.DAEMON, "d")
    agent = certifier.pair(Kind.AGENT, "a").files()
    with DaemonProcess(POLICY, *tls(pair, "--listen", "127.0.0.1:0")) as daemon:
        target = daemon.listen_address
        assert admit(target, channel_credentials(agent)) == "OK"
        assert admit(target, channel_credentials(TlsFiles(ca=certifier.ca))) == "UNAVAILABLE"
        assert admit(target, None) == "UNAVAILABLE"
        assert admit(daemon.address, None) == "OK"


def test_a_running_daemon_uses_a_certificate_that_was_replaced(certifier):
    pair = certifier.pair(Kind.DAEMON, "d")
    with DaemonProcess(POLICY, *tls(pair, "--control-listen", "127.0.0.1:0")) as daemon:
        target = daemon.wait_for("serving")["control_listen"]
        before = serial(pair)
        assert served_serial(target, certifier) == before
        pair.certificate.write_text("half of a")
        assert served_serial(target, certifier) == before
        assert "no certificate" in daemon.wait_for("tls_files_refused")["problem"]
        replace(pair, certifier.issued(Kind.DAEMON, "d"))
        assert served_serial(target, certifier) == serial(pair) != before
        operator = certifier.pair(Kind.OPERATOR, "ann", Role.VIEWER).files()
        with grpc.secure_channel(target, channel_credentials(operator)) as channel:
            stub = control_pb2_grpc.ControlStub(channel)
            assert stub.GetStatus(control_pb2.GetStatusRequest(), timeout=20).name


@pytest.mark.parametrize("fault", ["expired", "early", "kind", "key", "mode", "missing", "ca"])
def test_a_daemon_with_files_it_cannot_use_does_not_start(certifier, tmp_path, fault):
    pair = certifier.pair(Kind.DAEMON, "d")
    said = ""
    if fault == "expired":
        pair, said = certifier.pair(Kind.DAEMON, "d", age_days=8), "expired at"
    elif fault == "early":
        pair, said = certifier.pair(Kind.DAEMON, "d", age_days=-2), "is not valid before"
    elif fault == "kind":
        pair, said = certifier.pair(Kind.OPERATOR, "ann", Role.ADMIN), "one for a daemon is needed"
    elif fault == "key":
        pair, said = pair._replace(key=certifier.pair(Kind.DAEMON, "e").key), "is not the key of"
    elif fault == "mode":
        pair.key.chmod(0o644)
        said = "chmod 600"
    elif fault == "missing":
        pair, said = pair._replace(certificate=tmp_path / "none"), "cannot be read"
    else:
        pair = pair._replace(ca=Certifier(tmp_path / "other").ca)
        said = "do not belong together"
    daemon = DaemonProcess(POLICY, *tls(pair, "--control-listen", "127.0.0.1:0"))
    try:
        with pytest.raises(DaemonFailed, match=said):
            daemon.start()
        assert daemon.ended() == 2
        assert not os.path.lexists(daemon.control_socket)
    finally:
        daemon.close()
