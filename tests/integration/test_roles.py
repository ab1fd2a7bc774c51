"""Who may make which call, over real sockets with real TLS, each method with each role."""

import base64
import importlib
import json
import pkgutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from costd import grants
from costd.testing import DaemonProcess
from costd.testing.certifier import Certifier
from costd.trust import KIND_OF, ROLE_OF, Kind, Role
from costd.trust.tokens import RoleClaims, issue_token
from costd.wire import pb as wire_pb
from costd.wire.pb import control_pb2, control_pb2_grpc

POLICY = Path(__file__).parents[2] / "policies" / "quickstart.yaml"
CONTROL = control_pb2.DESCRIPTOR.services_by_name["Control"]
METHODS = [method.name for method in CONTROL.methods]
PAIRS = {"ops": grants.keygen(), "stranger": grants.keygen()}
PRIVATE = {name: grants.load_private_key(pair.private_pem) for name, pair in PAIRS.items()}
NOBODY = object()


@pytest.fixture(scope="module")
def certifier(tmp_path_factory):
    return Certifier(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(certifier):
    return certifier.pair(Kind.DAEMON, "host-7")


@pytest.fixture(scope="module")
def mutual(pair):
    """A daemon whose operators show certificates, tokens, or both."""
    with DaemonProcess(POLICY, *flags(pair), "--tls-ca", str(pair.ca)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def tokens_only(pair):
    """A daemon that asks for no certificates."""
    with DaemonProcess(POLICY, *flags(pair)) as daemon:
        yield daemon


def flags(pair):
    return (
        *("--name", "host-7", "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)),
        *("--control-listen", "127.0.0.1:0", "--control-keys", f"ops={PAIRS['ops'].public_key}"),
    )


@pytest.fixture(scope="module")
def shown(certifier):
    """Make channel credentials that show a certificate, or none."""
    ca = certifier.ca.read_bytes()
    made = {}

    def credentials(kind=None, name="ann", role=None):
        if kind is None:
            return grpc.ssl_channel_credentials(ca)
        key = kind, name, role
        if key not in made:
            pair = certifier.pair(kind, f"{name}-{role.label}" if role else name, role)
            made[key] = grpc.ssl_channel_credentials(
                ca, pair.key.read_bytes(), pair.certificate.read_bytes()
            )
        return made[key]

    return credentials


def token(role=Role.ADMIN, *, key="ops", key_id="ops", age_s=0, **changed):
    now_s = int(time.time()) - age_s
    claims = {"sub": "tess", "role": role.label, "aud": ("host-7",), "jti": "t"}
    claims |= {"iat": now_s, "exp": now_s + 600} | changed
    return issue_token(PRIVATE[key], key_id, RoleClaims(**claims))


def bearer(text):
    return (("authorization", f"Bearer {text}"),)


def call(target, method, credentials=None, metadata=(), request=None):
    """Call a method with an empty request; return the status and what it says, or the answer."""
    output = GetMessageClass(CONTROL.methods_by_name[method].output_type)
    raw = request.SerializeToString() if request is not None else b""
    channel = (
        grpc.insecure_channel(target)
        if credentials is None
        else grpc.secure_channel(target, credentials)
    )
    with channel:
        try:
            send = channel.unary_unary(f"/{CONTROL.full_name}/{method}")
            reply = send(raw, metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return error.code().name, error.details()
    return "OK", output.FromString(reply)


REFUSALS = {"UNAUTHENTICATED", "PERMISSION_DENIED"}


def remote(daemon):
    return daemon.wait_for("serving")["control_listen"]


def expected(method, role):
    return role is not None and role >= ROLE_OF[CONTROL.full_name, method]


def check(status, said, method, role):
    """Hold an answer against the table; an empty request may be refused for what it lacks."""
    if expected(method, role):
        assert status not in REFUSALS | {"UNAVAILABLE"}, said
    else:
        assert status == "PERMISSION_DENIED"
        assert ROLE_OF[CONTROL.full_name, method].label in said


OPEN_TO_AGENTS = {"costd.v1.Admission", "costd.envoy.v1.RateLimitService"}
"""Services that have no roles."""


def test_every_method_of_every_service_is_in_a_table_and_none_is_left_over():
    modules = [
        importlib.import_module(f"{wire_pb.__name__}.{module.name}")
        for module in pkgutil.iter_modules(wire_pb.__path__)
        if module.name.endswith("_pb2")
    ]
    services = {
        service.full_name: service
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    declared = {
        (name, method.name)
        for name in services.keys() - OPEN_TO_AGENTS
        for method in services[name].methods
    }
    assert ("costd.v1.Control", "EngageKill") in declared
    tabled = {key for key in (*ROLE_OF, *KIND_OF) if key[0] in services}
    assert declared == tabled
    assert not set(ROLE_OF) & set(KIND_OF)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("method", METHODS)
def test_a_certificate_lets_its_role_pass_and_no_more(mutual, shown, method, role):
    status, said = call(remote(mutual), method, shown(Kind.OPERATOR, "ann", role))
    check(status, said, method, role)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("method", METHODS)
def test_a_token_lets_its_role_pass_and_no_more(tokens_only, shown, method, role):
    status, said = call(remote(tokens_only), method, shown(), bearer(token(role)))
    check(status, said, method, role)


@pytest.mark.parametrize("method", METHODS)
def test_whoever_may_open_the_socket_may_do_everything(mutual, method):
    check(*call(mutual.control_address, method), method, Role.ADMIN)


@pytest.mark.parametrize("method", METHODS)
def test_nobody_calls_without_saying_who_they_are(tokens_only, shown, method):
    status, said = call(remote(tokens_only), method, shown())
    assert status == "UNAUTHENTICATED"
    assert "costctl token issue" in said


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Kind.DAEMON, Kind.COORDINATOR, Kind.AGENT])
def test_certificates_of_machines_have_no_role(mutual, shown, method, kind):
    status, said = call(remote(mutual), method, shown(kind, "machine"))
    assert status == "PERMISSION_DENIED"
    assert f"{kind}/machine has none" in said


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: bearer(token(age_s=601)), "has expired"),
        (lambda: bearer(token(age_s=-120)), "not yet valid"),
        (lambda: bearer(token(aud=("host-8",))), "is for host-8, and this is host-7"),
        (lambda: bearer(token(key="stranger")), "signature"),
        (lambda: bearer(token(key="stranger", key_id="stranger")), "not known here"),
        (lambda: bearer("garbled"), "cannot be read"),
        (lambda: bearer(""), "cannot be read"),
        (lambda: (("authorization", "Basic YTpi"),), "Bearer TOKEN"),
        (lambda: bearer(token()) * 2, "one `Bearer TOKEN`"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_token_is_refused_whatever_else_is_shown(mutual, tokens_only, shown, made, said):
    admin = shown(Kind.OPERATOR, "ann", Role.ADMIN)
    for target, credentials in (
        (remote(tokens_only), shown()),
        (remote(mutual), admin),
        (mutual.control_address, None),
    ):
        status, details = call(target, "GetStatus", credentials, made())
        assert status == "UNAUTHENTICATED"
        assert said in details


def test_alg_none_is_refused(tokens_only, shown):
    header, claims = token().split(".")[:2]
    none = {"alg": "none", "typ": "costd-role+jwt", "kid": "ops"}
    forged = base64.urlsafe_b64encode(json.dumps(none).encode()).rstrip(b"=").decode()
    for text in (f"{forged}.{claims}.", f"{forged}.{claims}.AAAA", f"{header}.{claims}."):
        status, _ = call(remote(tokens_only), "GetStatus", shown(), bearer(text))
        assert status == "UNAUTHENTICATED"


def test_a_token_decides_before_the_certificate_it_comes_with(mutual, shown):
    admin = shown(Kind.OPERATOR, "ann", Role.ADMIN)
    viewer = bearer(token(Role.VIEWER))
    assert call(remote(mutual), "ReloadPolicy", admin, viewer)[0] == "PERMISSION_DENIED"
    machine = shown(Kind.DAEMON, "machine")
    assert call(remote(mutual), "ReloadPolicy", machine, bearer(token()))[0] == "OK"


def test_a_call_is_refused_before_its_request_is_read(tokens_only, shown):
    with (
        grpc.secure_channel(remote(tokens_only), shown()) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(f"/{CONTROL.full_name}/EngageKill")(b"\xff\xff", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_method_nobody_declared_is_not_served(mutual, shown):
    admin = shown(Kind.OPERATOR, "ann", Role.ADMIN)
    with (
        grpc.secure_channel(remote(mutual), admin) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(f"/{CONTROL.full_name}/DropEverything")(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# ---- the audit ----


def audit(daemon):
    with grpc.insecure_channel(daemon.control_address) as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        return stub.ListAudit(control_pb2.ListAuditRequest(limit_count=1_000)).records


@pytest.mark.parametrize(
    ("credentials", "metadata", "actor"),
    [
        (lambda shown: shown(Kind.OPERATOR, "otto", Role.ADMIN), (), "otto-admin"),
        (lambda shown: shown(Kind.DAEMON, "machine"), "token", "tess"),
        (None, (), "mallory"),
    ],
    ids=["certificate", "token", "socket"],
)
def test_the_audit_names_who_proved_to_be_the_actor_not_who_is_said_to_be(
    mutual, shown, credentials, metadata, actor
):
    """On the socket nobody proves a name, and what the request says is all there is."""
    kill_id = f"kill-{actor}"
    metadata = bearer(token()) if metadata else ()
    target = mutual.control_address if credentials is None else remote(mutual)
    shows = credentials and credentials(shown)
    for method, request in (
        ("EngageKill", control_pb2.EngageKillRequest(kill_id=kill_id, scope={"team": actor})),
        ("ReleaseKill", control_pb2.ReleaseKillRequest(kill_id=kill_id)),
        ("Drill", control_pb2.DrillRequest(scope={"team": actor})),
    ):
        request.reason, request.actor = "trying it out", "mallory"
        assert call(target, method, shows, metadata, request)[0] == "OK"
    named = {record.action for record in audit(mutual) if record.actor == actor}
    assert {"kill_engaged", "kill_released", "kill_drill_begun", "kill_drilled"} <= named
    if credentials is not None:
        assert not [r for r in audit(mutual) if r.subject == kill_id and r.actor == "mallory"]


def test_refused_calls_are_audited_as_counts(pair, shown):
    with DaemonProcess(POLICY, *flags(pair)) as daemon:
        target = remote(daemon)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: call(target, "EngageKill", shown()), range(20)))
        for _ in range(3):
            call(target, "EngageKill", shown(), bearer(token(Role.VIEWER)))
        found = [record for record in audit(daemon) if record.action == "call_refused"]
    # The hour may turn between two calls.
    assert len(found) <= 4
    by_actor = {}
    for record in found:
        assert record.subject == "EngageKill"
        assert "(from ipv4:127.0.0.1:" in record.detail
        by_actor[record.actor] = by_actor.get(record.actor, 0) + record.count
    assert by_actor == {"": 20, "tess": 3}
