"""`ca`, `token`, and the options of a connection over TCP."""

import socket
import stat
import threading
from concurrent import futures

import grpc
import pytest

from costd.testing.certifier import Certifier
from costd.trust import Kind, Role
from costd.wire.pb import control_pb2, control_pb2_grpc


@pytest.fixture
def ca(costctl, tmp_path):
    assert costctl("ca", "init", "--out", tmp_path / "ca").code == 0
    return tmp_path / "ca"


@pytest.fixture
def certifier(tmp_path):
    return Certifier(tmp_path / "test-ca")


# ---- ca ----


def test_a_ca_is_made_once(costctl, ca):
    assert stat.S_IMODE((ca / "ca.key").stat().st_mode) == 0o600
    again = costctl("ca", "init", "--out", ca)
    assert again.code == 1
    assert "exists already" in again.err
    shown = costctl("ca", "show", ca / "ca.crt", "--json").json()
    assert shown["problem"] is None
    assert shown["certificates"][0]["kind"] == "ca"


@pytest.mark.parametrize(
    ("arguments", "uri"),
    [
        (("host-7", "--kind", "daemon", "--dns", "host-7.lan", "--ip", "::1"), "daemon/host-7"),
        (("c", "--kind", "coordinator"), "coordinator/c"),
        (("ann", "--kind", "operator", "--role", "viewer"), "operator/ann?role=viewer"),
        (("ci", "--kind", "agent", "--days", "1"), "agent/ci"),
    ],
)
def test_a_certificate_is_issued_and_shown(costctl, ca, tmp_path, arguments, uri):
    issued = costctl("ca", "issue", *arguments, "--ca", ca, "--out", tmp_path / "out", "--json")
    assert issued.json()["name"] == f"costd://{uri}"
    file = issued.json()["certificate_file"]
    shown = costctl("ca", "show", file, "--ca", ca / "ca.crt")
    assert shown.code == 0
    kind, _, name = uri.partition("?")[0].partition("/")
    said = [line.split(maxsplit=1) for line in shown.out.splitlines()]
    assert said[0] == ["VALID"]
    assert {"kind": kind, "name": name}.items() <= {k: v.strip() for k, v in said[1:]}.items()
    text = costctl("ca", "issue", *arguments, "--ca", ca, "--out", tmp_path / "text").out
    assert f"certificate of costd://{uri} in " in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("ann", "--kind", "operator"), 1, "operators, and only they, have a role"),
        (("d", "--kind", "daemon", "--role", "admin"), 1, "operators, and only they, have a role"),
        (("d", "--kind", "emperor"), 2, "emperor"),
        (("ann", "--kind", "operator", "--role", "king"), 2, "viewer, operator, admin"),
        (("../d", "--kind", "daemon"), 1, "letters, digits"),
        (("d", "--kind", "daemon", "--ip", "host"), 1, "no IP address"),
        (("d", "--kind", "daemon", "--dns", "coordinator.costd.internal"), 1, "say what kind"),
        (("d", "--kind", "daemon", "--days", "900"), 1, "1 to 825"),
    ],
)
def test_what_cannot_be_certified_says_why(costctl, ca, tmp_path, arguments, code, said):
    ended = costctl("ca", "issue", *arguments, "--ca", ca, "--out", tmp_path / "out")
    assert ended.code == code
    assert said in ended.err
    assert not (tmp_path / "out").exists()


def test_without_a_ca_nothing_is_issued(costctl, tmp_path):
    ended = costctl("ca", "issue", "d", "--kind", "daemon", "--ca", tmp_path)
    assert ended.code == 1
    assert "costctl ca init" in ended.err


def test_a_certificate_that_does_not_hold_is_shown_as_such(costctl, certifier, ca):
    expired = certifier.pair(Kind.DAEMON, "old", age_days=8)
    shown = costctl("ca", "show", expired.certificate)
    assert shown.code == 1
    assert shown.out.startswith("NOT VALID: expired at")
    early = certifier.pair(Kind.DAEMON, "early", age_days=-2)
    assert "not valid before" in costctl("ca", "show", early.certificate).out
    good = certifier.pair(Kind.DAEMON, "d")
    strange = costctl("ca", "show", good.certificate, "--ca", ca / "ca.crt")
    assert strange.code == 1
    assert "not issued by the trusted CA" in strange.out
    assert costctl("ca", "show", good.key).code == 1
    assert "cannot be read" in costctl("ca", "show", "/nowhere").err


# ---- token ----


@pytest.fixture
def key(costctl, tmp_path):
    made = costctl("token", "keygen", tmp_path / "ops.key", "--json").json()
    return tmp_path / "ops.key", made["public_key"]


def test_a_token_is_signed_and_looked_into(costctl, key):
    issued = costctl(
        *("token", "issue", "--key", key[0], "--role", "operator", "--subject", "ann"),
        *("--ttl", "8h", "--audience", "host-7", "--audience", "host-8"),
    )
    assert issued.code == 0
    seen = costctl("token", "inspect", issued.out.strip(), "--json").json()
    assert seen["header"] == {"alg": "EdDSA", "kid": "ops", "typ": "costd-role+jwt"}
    claims = seen["claims"]
    assert (claims["sub"], claims["role"], claims["aud"]) == (
        "ann",
        "operator",
        ["host-7", "host-8"],
    )
    assert claims["exp"] - claims["iat"] == 8 * 3_600
    text = costctl("token", "inspect", issued.out.strip()).out
    assert "NOT VERIFIED" in text
    assert "host-7, host-8" in text


def test_a_token_is_yours_for_eight_hours_unless_said_otherwise(costctl, key):
    claims = costctl("token", "issue", "--key", key[0], "--role", "viewer", "--json").json()[
        "claims"
    ]
    assert "@" in claims["sub"]
    assert claims["exp"] - claims["iat"] == 8 * 3_600
    assert claims["aud"] == [socket.gethostname()]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--role", "king"), 2, "viewer, operator, admin"),
        (("--role", "admin", "--ttl", "40d"), 1, "longer than 31 days"),
        (("--role", "admin", "--subject", "a\tb"), 1, "sub must be"),
    ],
)
def test_a_token_nobody_would_believe_is_not_signed(costctl, key, more, code, said):
    ended = costctl("token", "issue", "--key", key[0], *more)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


def test_a_key_that_others_can_read_signs_nothing(costctl, key):
    key[0].chmod(0o644)
    ended = costctl("token", "issue", "--key", key[0], "--role", "admin")
    assert ended.code == 1
    assert "chmod 600" in ended.err


def test_a_key_is_printed_as_daemons_are_told_it_and_never_overwritten(costctl, tmp_path):
    printed = costctl("token", "keygen", tmp_path / "k.pem", "--key-id", "lead").out
    assert "control_keys:\n  lead: " in printed
    assert costctl("token", "keygen", tmp_path / "k.pem").code == 1


def test_what_is_no_token_is_not_shown(costctl):
    ended = costctl("token", "inspect", "x.y.z")
    assert ended.code == 1
    assert "not a signed token" in ended.err


# ---- the connection ----


class Control(control_pb2_grpc.ControlServicer):
    """Answers one method, and keeps who asked."""

    def __init__(self):
        self.seen = []

    def ListKills(self, request, context):  # noqa: N802
        subjects = context.auth_context().get("x509_common_name", [])
        bearer = dict(context.invocation_metadata()).get("authorization", "")
        self.seen.append((subjects, bearer))
        return control_pb2.ListKillsResponse()


@pytest.fixture
def serve():
    servers = []

    def start(pair=None, *, mutual=True, address="127.0.0.1:0"):
        control = Control()
        server = grpc.server(futures.ThreadPoolExecutor(2))
        control_pb2_grpc.add_ControlServicer_to_server(control, server)
        if pair is None:
            port = server.add_insecure_port(address)
        else:
            both = pair.key.read_bytes(), pair.certificate.read_bytes()
            credentials = grpc.ssl_server_credentials(
                [both], pair.ca.read_bytes() if mutual else None, require_client_auth=mutual
            )
            port = server.add_secure_port(address, credentials)
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}", control

    yield start
    for server in servers:
        server.stop(None).wait()


def flags(pair, *names):
    files = {"--tls-ca": pair.ca, "--tls-cert": pair.certificate, "--tls-key": pair.key}
    return [each for name in names or files for each in (name, files[name])]


def test_a_certificate_is_shown_over_tls(costctl, certifier, serve):
    target, control = serve(certifier.pair(Kind.DAEMON, "d"))
    ann = certifier.pair(Kind.OPERATOR, "ann", Role.ADMIN)
    assert costctl("kills", "--control", target, *flags(ann)).code == 0
    variables = {
        "COSTCTL_TLS_CA": str(ann.ca),
        "COSTCTL_TLS_CERT": str(ann.certificate),
        "COSTCTL_TLS_KEY": str(ann.key),
        "COSTD_CONTROL_ADDRESS": target,
    }
    assert costctl("kills", env=variables).code == 0
    assert control.seen == [([b"ann"], "")] * 2


def test_a_token_is_sent_over_tls_and_not_to_a_socket(costctl, certifier, serve, tmp_path):
    target, control = serve(certifier.pair(Kind.DAEMON, "d"), mutual=False)
    token = tmp_path / "token"
    token.write_text("a.b.c\n")
    token.chmod(0o600)
    sent = ("--tls-ca", certifier.ca, "--token-file", token)
    assert costctl("kills", "--control", target, *sent).code == 0
    assert control.seen == [([], "Bearer a.b.c")]
    path = f"unix:{tmp_path}/c.sock"
    _, local = serve(address=path)
    assert costctl("kills", "--control", path, *sent).code == 0
    assert local.seen == [([], "")]


def test_nothing_secret_is_sent_in_the_clear(costctl, serve, tmp_path):
    target, control = serve()
    token = tmp_path / "token"
    token.write_text("a.b.c")
    token.chmod(0o600)
    ended = costctl("kills", "--control", target, "--token-file", token)
    assert ended.code == 1
    assert "--token-file is of no use without --tls-ca" in ended.err
    assert control.seen == []


def test_one_side_that_speaks_no_tls_is_told_so(costctl, certifier, serve):
    ann = certifier.pair(Kind.OPERATOR, "ann", Role.ADMIN)
    for mutual in (True, False):
        secured, _ = serve(certifier.pair(Kind.DAEMON, "d"), mutual=mutual)
        ended = costctl("kills", "--control", secured)
        assert ended.code == 5
        assert f"{secured}: it speaks TLS, and you do not; name the CA" in ended.err
    plain, _ = serve()
    ended = costctl("kills", "--control", plain, *flags(ann))
    assert ended.code == 5
    assert f"{plain}: you speak TLS, and it does not; leave --tls-ca" in ended.err


def test_a_certificate_that_is_not_accepted_is_told_so(costctl, certifier, serve, tmp_path):
    target, _ = serve(certifier.pair(Kind.DAEMON, "d"))
    other = Certifier(tmp_path / "other").pair(Kind.OPERATOR, "eve", Role.ADMIN)
    ann = certifier.pair(Kind.OPERATOR, "ann", Role.ADMIN)
    for shown, said in (
        (flags(other), "was not issued by the CA of --tls-ca"),
        (flags(ann, "--tls-ca"), "show one with --tls-cert and --tls-key"),
    ):
        ended = costctl("kills", "--control", target, *shown)
        assert ended.code == 5
        assert said in ended.err
    coordinator = certifier.directory / "elsewhere"
    issued = (
        *("ca", "issue", "e", "--kind", "daemon", "--dns", "elsewhere.lan"),
        *("--ca", certifier.directory, "--out", coordinator),
    )
    assert costctl(*issued).code == 0
    elsewhere, _ = serve(ann._replace(certificate=coordinator / "e.crt", key=coordinator / "e.key"))
    ended = costctl("kills", "--control", elsewhere, *flags(ann))
    assert "its certificate is not for this address" in ended.err


def test_nobody_there_is_told_as_before(costctl, certifier):
    ann = certifier.pair(Kind.OPERATOR, "ann", Role.ADMIN)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{reserved.getsockname()[1]}"
        for shown in ((), flags(ann)):
            ended = costctl("kills", "--control", target, *shown)
            assert ended.code == 5
            assert f"no daemon or coordinator answers at {target}" in ended.err


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda pair: pair.key.chmod(0o644), "chmod 600"),
        (lambda pair: pair.certificate.write_text("x"), "no certificate in PEM"),
        (lambda pair: pair.key.unlink(), "cannot be read"),
    ],
)
def test_files_that_cannot_be_shown_are_named(costctl, certifier, break_it, said):
    ann = certifier.pair(Kind.OPERATOR, "ann", Role.ADMIN)
    break_it(ann)
    ended = costctl("kills", "--control", "127.0.0.1:1", *flags(ann))
    assert ended.code == 1
    assert said in ended.err


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("a.b.c", 0o644, "chmod 600"),
        ("", 0o600, "holds no token"),
        ("two words", 0o600, "holds no token"),
        ("ä", 0o600, "holds no token"),
    ],
)
def test_a_token_file_that_is_none_is_named(costctl, certifier, tmp_path, text, mode, said):
    token = tmp_path / "token"
    token.write_text(text)
    token.chmod(mode)
    options = ("--tls-ca", certifier.ca, "--token-file", token)
    ended = costctl("kills", "--control", "127.0.0.1:1", *options)
    assert ended.code == 1
    assert said in ended.err


def test_every_command_that_reaches_a_daemon_takes_the_options_and_no_other(costctl):
    reaching = ("status", "admit", "kill", "policy reload", "allowance revoke", "top", "drill")
    for command in reaching:
        assert "--token-file" in costctl(*command.split(), "--help").out
    for command in ("prices", "policy check", "ca show", "token issue"):
        assert "--token-file" not in costctl(*command.split(), "--help").out


def test_what_is_no_grpc_server_is_no_misunderstanding_of_ours(costctl):
    """A probe that gets no TLS back says so, and does not hang."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        target = f"127.0.0.1:{listening.getsockname()[1]}"

        def hang_up():
            while True:
                try:
                    listening.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=hang_up)
        thread.start()
        ended = costctl("kills", "--control", target)
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert ended.code == 5
    assert "no daemon or coordinator answers" in ended.err
