"""Who may do what at a coordinator, over real mutual TLS; daemons that join, and that may not."""

import signal
import time
import uuid

import grpc
import pytest
from desk import Desk, poll
from google.protobuf.message_factory import GetMessageClass

from costd import grants
from costd.daemon.fleet.member import JOIN
from costd.testing import DaemonProcess
from costd.testing.certifier import Certifier, replace
from costd.testing.fleet import CoordinatorProcess, FleetProcesses
from costd.trust import ROLE_OF, Kind, Role
from costd.trust.tokens import RoleClaims, issue_token
from costd.wire.pb import control_pb2, fleet_control_pb2
from costd.wire.pb import fleet_pb2 as pb

POLICY = """\
version: 1
unmatched: deny
tiers: {premium: {models: [openai/gpt-4o]}}
task_classes: {draft: {tier: premium, max_output_tokens: 1000}}
budgets: [{id: shared, window: total, limit: $1000}]
"""
SERVICES = {
    service.full_name: service
    for module in (control_pb2, fleet_control_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}
ROUTES = [(name, each.name) for name, service in SERVICES.items() for each in service.methods]
OPS = grants.keygen()
OF_EACH_DAEMON = "UNIMPLEMENTED"
"""What a coordinator says of calls that concern one daemon, whoever asks."""


def tls(pair):
    return (
        *("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)),
        *("--tls-ca", str(pair.ca)),
    )


@pytest.fixture(scope="module")
def certifier(tmp_path_factory):
    return Certifier(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def coordinator(certifier, shared_database, tmp_path_factory):
    """A coordinator to which everybody shows a certificate."""
    policy = tmp_path_factory.mktemp("trust") / "policy.yaml"
    policy.write_text(POLICY)
    flags = (
        *("--name", "c1", "--tenure-s", "3", "--control-keys", f"ops={OPS.public_key}"),
        *tls(certifier.pair(Kind.COORDINATOR, "c1")),
    )
    running = CoordinatorProcess(*flags, database_url=shared_database, policy=policy)
    try:
        yield running.start()
    finally:
        running.close()


@pytest.fixture
def joins(coordinator):
    """Start daemons that join over TLS."""
    made = []

    def join(name, pair, at=coordinator):
        daemon = DaemonProcess(None, "--name", name, "--coordinator", at.listen, *tls(pair))
        made.append(daemon)
        daemon.launch()
        return daemon

    yield join
    for daemon in made:
        daemon.close()


def shown(pair):
    ca, key, certificate = (path.read_bytes() for path in (pair.ca, pair.key, pair.certificate))
    return grpc.ssl_channel_credentials(ca, key, certificate)


def bearer(role):
    now_s = int(time.time())
    claims = RoleClaims(
        sub="tess", role=role.label, aud=("c1",), jti="t", iat=now_s, exp=now_s + 600
    )
    token = issue_token(grants.load_private_key(OPS.private_pem), "ops", claims)
    return (("authorization", f"Bearer {token}"),)


def call(target, route, credentials=None, metadata=()):
    """Call a method with an empty request; return the status and what it says."""
    service, method = route
    output = GetMessageClass(SERVICES[service].methods_by_name[method].output_type)
    channel = (
        grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)
    )
    with channel:
        try:
            reply = channel.unary_unary(f"/{service}/{method}")(b"", metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return error.code().name, error.details()
    output.FromString(reply)
    return "OK", ""


def check(answer, route, role):
    """Hold an answer against the table; an empty request may be refused for what it lacks."""
    status, said = answer
    if status == OF_EACH_DAEMON:
        assert route[0] == "costd.v1.Control"
    elif role >= ROLE_OF[route]:
        assert status not in {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNAVAILABLE"}, said
    else:
        assert status == "PERMISSION_DENIED"
        assert f"needs the role {ROLE_OF[route].label}" in said


@pytest.mark.parametrize("role", Role)
def test_a_certificate_lets_its_role_pass_at_every_route_and_no_more(coordinator, certifier, role):
    ann = shown(certifier.pair(Kind.OPERATOR, f"ann-{role.label}", role))
    for route in ROUTES:
        check(call(coordinator.listen, route, ann), route, role)


@pytest.mark.parametrize("role", Role)
def test_a_token_lets_its_role_pass_whatever_certificate_it_comes_with(
    coordinator, certifier, role
):
    agent = shown(certifier.pair(Kind.AGENT, f"agent-{role.label}"))
    for route in ROUTES:
        check(call(coordinator.listen, route, agent, bearer(role)), route, role)


def test_whoever_may_open_the_socket_may_do_everything(coordinator):
    assert coordinator.control_socket.stat().st_mode & 0o777 == 0o600
    for route in ROUTES:
        check(call(f"unix:{coordinator.control_socket}", route), route, Role.ADMIN)


@pytest.mark.parametrize("kind", [Kind.DAEMON, Kind.COORDINATOR, Kind.AGENT])
def test_certificates_of_machines_have_no_role(coordinator, certifier, kind):
    machine = shown(certifier.pair(kind, "machine"))
    for route in ROUTES:
        status, said = call(coordinator.listen, route, machine)
        assert status in {"PERMISSION_DENIED", OF_EACH_DAEMON}
        assert status == OF_EACH_DAEMON or f"{kind}/machine has none" in said


def test_most_routes_are_served_at_a_coordinator(coordinator):
    """Else the tests above would prove little."""
    address = f"unix:{coordinator.control_socket}"
    unserved = {method for route in ROUTES for _, method in [route]
                if call(address, route)[0] == OF_EACH_DAEMON}  # fmt: skip
    assert unserved == {
        "ListReservations",
        "Drill",
        "ListAllowances",
        "RevokeAllowance",
        "ReloadPolicy",
    }


# ---- joining ------------------------------------------------------------------------------------


def joined(target, credentials, daemon_id, metadata=()):
    """Enrol by hand; "OK", or the status that the stream ends with."""
    enrol = pb.Enrol(daemon_id=daemon_id, name="by hand", now_ns=time.time_ns())
    with grpc.secure_channel(target, credentials) as channel:
        call = channel.stream_stream(
            JOIN,
            request_serializer=pb.ToCoordinator.SerializeToString,
            response_deserializer=pb.ToDaemon.FromString,
        )(iter([pb.ToCoordinator(enrol=enrol)]), metadata=metadata, timeout=20)
        try:
            next(each for each in call if each.HasField("welcome"))
        except grpc.RpcError as error:
            return error.code().name, error.details()
        call.cancel()
    return "OK", ""


def daemon_id():
    return f"daemon-{uuid.uuid4().hex}"


@pytest.mark.parametrize("kind", [Kind.OPERATOR, Kind.COORDINATOR, Kind.AGENT])
def test_only_the_certificate_of_a_daemon_joins(coordinator, certifier, kind):
    role = Role.ADMIN if kind is Kind.OPERATOR else None
    stranger = shown(certifier.pair(kind, "stranger", role))
    for metadata in ((), bearer(Role.ADMIN)):
        code, said = joined(coordinator.listen, stranger, daemon_id(), metadata)
        assert code == "PERMISSION_DENIED"
        assert "needs the certificate of a daemon" in said
    daemon = shown(certifier.pair(Kind.DAEMON, "no-stranger"))
    assert joined(coordinator.listen, daemon, daemon_id())[0] == "OK"


@pytest.mark.parametrize("fault", ["wrong CA", "expired", "not yet valid", "none"])
def test_a_certificate_that_does_not_hold_ends_the_handshake(
    coordinator, certifier, tmp_path, fault
):
    if fault == "wrong CA":
        other = Certifier(tmp_path / "other").pair(Kind.DAEMON, "d")
        credentials = shown(other._replace(ca=certifier.ca))
    elif fault == "none":
        credentials = grpc.ssl_channel_credentials(certifier.ca.read_bytes())
    else:
        age_days = {"expired": 8, "not yet valid": -2}[fault]
        credentials = shown(certifier.pair(Kind.DAEMON, "d", age_days=age_days))
    assert joined(coordinator.listen, credentials, daemon_id())[0] == "UNAVAILABLE"


def test_the_books_of_one_daemon_do_not_join_under_another_name(coordinator, certifier):
    books = daemon_id()
    first, second = (shown(certifier.pair(Kind.DAEMON, name)) for name in ("host-1", "host-2"))
    assert joined(coordinator.listen, first, books)[0] == "OK"
    code, said = joined(coordinator.listen, second, books)
    assert code == "PERMISSION_DENIED", said
    assert "is 'host-1', and this certificate says 'host-2'" in said


def test_a_daemon_is_called_what_its_certificate_says(coordinator, certifier, joins):
    daemon = joins("what-it-claims", certifier.pair(Kind.DAEMON, "host-9"))
    daemon.wait_for("serving")
    Desk(daemon).hold(1)
    found = coordinator.daemons()
    assert "host-9" in found
    assert "what-it-claims" not in found


def test_a_coordinator_of_another_ca_is_not_believed(coordinator, tmp_path, joins):
    daemon = joins("d", Certifier(tmp_path / "other").pair(Kind.DAEMON, "d"))
    assert "CERTIFICATE_VERIFY_FAILED" in daemon.wait_for("coordinator_lost")["problem"]
    assert not any(line.get("event") == "serving" for line in daemon.lines)


def test_a_certificate_authority_is_replaced_without_restarting_anybody(
    make_database, tmp_path, joins
):
    """Both read their files again: neither would be let in with what it started with."""
    old, new = Certifier(tmp_path / "old", "the old CA"), Certifier(tmp_path / "new", "the new CA")
    bundle, policy = tmp_path / "bundle.crt", tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    bundle.write_bytes(old.ca.read_bytes())
    ours = old.pair(Kind.COORDINATOR, "c")._replace(ca=bundle)
    theirs = old.pair(Kind.DAEMON, "d")._replace(ca=bundle)
    running = CoordinatorProcess(
        *tls(ours), "--tenure-s", "3", database_url=make_database(), policy=policy
    )
    try:
        running.start()
        daemon = joins("d", theirs, running)
        daemon.wait_for("serving")
        desk = Desk(daemon)
        desk.settle(desk.hold(1), 1)
        started_ns = desk.status().started_ns
        for pair, kind, name in ((ours, Kind.COORDINATOR, "c"), (theirs, Kind.DAEMON, "d")):
            replace(pair, new.issued(kind, name))
        bundle.write_bytes(new.ca.read_bytes())
        other = shown(new.pair(Kind.DAEMON, "other"))
        assert joined(running.listen, other, daemon_id())[0] == "OK"
        late = shown(old.pair(Kind.DAEMON, "late")._replace(ca=new.ca))
        assert joined(running.listen, late, daemon_id())[0] == "UNAVAILABLE"
        # The daemon's stream ends; the next one needs what is on its disk now.
        running.signal(signal.SIGSTOP)
        daemon.wait_for("coordinator_lost")
        running.signal(signal.SIGCONT)
        daemon.wait_for("coordinator_joined", at_least=2)
        poll(lambda: desk.admit(500).reservation_id)
        assert desk.status().started_ns == started_ns
    finally:
        running.close()


# ---- trying it out ------------------------------------------------------------------------------


def test_what_nothing_encrypts_is_told_of_at_both_ends(shared_database, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    fleet = FleetProcesses(database_url=shared_database, policy=policy)
    try:
        fleet.start(daemons=1)
        for process, event in (
            (fleet.coordinators[0], "listening_insecure"),
            (fleet.daemons[0], "coordinator_insecure"),
        ):
            line = process.wait_for(event)
            assert line["level"] == "warning"
            assert "nothing encrypts or authenticates" in line["problem"]
    finally:
        fleet.close()
