"""The webhook over real TLS: what an API server sends, what it must refuse, and its certificate."""

import contextlib
import json
import signal
import socket
import ssl
import time
import urllib.request
import warnings

import pytest
from injecting import POD, InjectorProcess, review_of
from typer.testing import CliRunner

from costd.cli.costd import app
from costd.testing.certifier import Certifier, replace
from costd.trust import Kind

BODY_BYTES_MAX = 4 * 1024 * 1024


@pytest.fixture(scope="module")
def certifier(tmp_path_factory):
    return Certifier(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(certifier):
    return certifier.pair(Kind.DAEMON, "webhook")


def made(pair, *flags):
    process = InjectorProcess("--tls-cert", pair.certificate, "--tls-key", pair.key, *flags)
    process.ca = pair.ca.read_text()
    return process


@pytest.fixture(scope="module")
def injector(pair):
    limits = ("--body-bytes-max", BODY_BYTES_MAX)
    with made(pair, "--deadline-s", 20, "--drain-s", 0, *limits) as running:
        yield running


@pytest.fixture(scope="module")
def hurried(pair):
    """One that waits for nobody."""
    flags = ("--deadline-s", "0.2", "--drain-s", "0", "--connections-count-max", "4")
    with made(pair, *flags) as running:
        yield running


# ---- what an API server sends -------------------------------------------------------------------


def test_pods_are_patched_over_one_connection(injector):
    connection = injector.connect()
    for _ in range(3):
        answer = injector.ask(review_of(), over=connection)
        assert answer.response["uid"] == review_of()["request"]["uid"]
        assert answer.response["allowed"] is True
        assert [each["op"] for each in answer.patch] == ["add"] * len(answer.patch)
    connection.close()


def test_where_pods_ask_themselves_others_pass(injector):
    assert "patch" not in injector.ask(review_of(), "/inject/asked").response
    asking = POD | {"metadata": {"annotations": {"costd.dev/inject": "true"}}}
    assert injector.ask(review_of(asking), "/inject/asked").patch


def test_dry_runs_updates_and_other_kinds_are_answered(injector):
    assert injector.ask(review_of(dryRun=True)).patch
    for change, outcome in (
        ({"operation": "UPDATE", "oldObject": POD}, "not_created"),
        ({"operation": "UPDATE", "subResource": "ephemeralcontainers"}, "not_created"),
        ({"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}}, "not_a_pod"),
        ({"namespace": "kube-system"}, "namespace_excluded"),
    ):
        response = injector.ask(review_of(**change)).response
        assert (response["allowed"], response["auditAnnotations"]["outcome"]) == (True, outcome)


def test_a_pod_with_a_wrong_annotation_is_kept_out_and_logged(injector):
    wrong = POD | {"metadata": {"name": "a", "annotations": {"costd.dev/cpu": "fast"}}}
    response = injector.ask(review_of(wrong)).response
    assert response["allowed"] is False
    assert "costd.dev/cpu: 'fast' is no amount" in response["status"]["message"]
    injector.wait_for("pod_denied", reason="bad_annotation", namespace="research")


def test_a_review_of_three_megabytes_is_answered(injector):
    """As large as a request may be that an API server takes."""
    large = json.loads(json.dumps(POD))
    env = [{"name": f"V{n}", "value": "x" * 1000} for n in range(2_800)]
    large["spec"]["containers"][0]["env"] = env
    assert injector.ask(review_of(large)).patch


def test_the_kubelet_is_served_which_names_no_server(injector):
    """It probes a pod's address, so that there is no name in its handshake, and checks no CA."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(injector.address(), timeout=30) as plain,
        context.wrap_socket(plain) as wire,
    ):
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert wire.recv(1000).startswith(b"HTTP/1.1 200")


def test_probes_are_answered(injector):
    for path in ("/healthz", "/readyz"):
        assert injector.ask(None, path, method="GET").status == 200


# ---- what it must refuse ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"{}", {}, 415, "content-type is missing; send application/json"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "content-type is text/plain"),
        (b"{}", {"Content-Type": "application/yaml"}, 415, "application/yaml"),
        (b"", None, 400, "no AdmissionReview in JSON"),
        (b"\x00\xff", None, 400, "no AdmissionReview in JSON"),
        (b"[" * 100_000, None, 400, "no AdmissionReview in JSON"),
        (b"[" * 1_000_000, None, 400, "has 1000000 values, and at most"),
        ({"apiVersion": "v1", "kind": "Pod"}, None, 400, "is Pod of v1, and this webhook takes"),
        (
            review_of() | {"apiVersion": "admission.k8s.io/v1beta1"},
            None,
            400,
            'list only "v1" in admissionReviewVersions',
        ),
        (review_of(uid=""), None, 400, "uid has 0 characters"),
        (
            json.dumps(review_of()).encode().replace(b"agents-", b"\xff"),
            None,
            400,
            "not well formed",
        ),
        (b" " * (BODY_BYTES_MAX + 1), None, 413, f"more than {BODY_BYTES_MAX} bytes"),
    ],
)
def test_what_is_no_review_gets_a_status_that_says_so(injector, body, headers, status, says):
    answer = injector.ask(body, headers=headers)
    assert (answer.status, answer.said["kind"], answer.said["code"]) == (status, "Status", status)
    assert says in answer.said["message"]


@pytest.mark.parametrize(
    "head",
    ["Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", "X: y\r\n" * 4_000 + "\r\n", "x" * 20_000],
    ids=["in chunks", "headers", "header"],
)
def test_what_takes_long_to_read_is_not_read(injector, head):
    """Bodies without a length, and long headers: API servers send neither."""
    with injector.open() as wire:
        wire.sendall(f"POST /inject HTTP/1.1\r\nHost: a\r\n{head}".encode())
        assert wire.recv(1000).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/inject", 405),
        ("PUT", "/inject", 405),
        ("POST", "/", 404),
        ("GET", "/metrics", 404),
    ],
)
def test_other_paths_and_methods_are_not_served(injector, method, path, status):
    assert injector.ask(None, path, method=method, headers={}).status == status


def test_nothing_is_served_without_tls(injector):
    with socket.create_connection(injector.address(), timeout=30) as wire:
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"200" not in wire.recv(1000)


def test_old_tls_is_refused(injector):
    context = injector.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(injector.address(), timeout=30) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_an_api_server_with_another_ca_does_not_trust_it(injector, tmp_path):
    stranger = InjectorProcess()
    stranger.ca = Certifier(tmp_path).ca.read_text()
    with (
        socket.create_connection(injector.address(), timeout=30) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        stranger.context().wrap_socket(plain, server_hostname="localhost")
    stranger.close()


# ---- nobody is left waiting ---------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?timeout=10s", "?timeout=0.1s", "?timeout=nonsense"])
def test_a_body_that_does_not_arrive_is_not_waited_for(hurried, query):
    with hurried.open() as wire:
        wire.sendall(
            f"POST /inject{query} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            "Content-Length: 1000\r\n\r\n{".encode()
        )
        assert wire.recv(1000).startswith(b"HTTP/1.1 408")


def test_the_time_that_the_api_server_names_is_heeded(injector):
    with injector.open() as wire:
        wire.sendall(
            b"POST /inject?timeout=0.2s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9\r\n\r\n"
        )
        begun = time.monotonic()
        assert wire.recv(1000).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - begun < 15  # without it: deadline_s, 20


def test_a_connection_that_says_nothing_ends(hurried):
    with hurried.open() as wire:
        assert wire.recv(1) == b""


@pytest.mark.parametrize(
    ("length", "rest"), [("", b"G"), ("Content-Length: 9\r\n", b"{")], ids=["headers", "body"]
)
def test_a_second_request_that_is_only_begun_ends_the_connection(hurried, length, rest):
    with hurried.open() as wire:
        wire.sendall(f"GET /healthz HTTP/1.1\r\nHost: a\r\n{length}\r\n".encode())
        assert wire.recv(1000).startswith(b"HTTP/1.1 200")
        with contextlib.suppress(OSError):  # of one with a body it may be over by now
            wire.sendall(rest)
        begun, said = time.monotonic(), b"ok"
        while said:
            with contextlib.suppress(ConnectionResetError):
                said = b""
                said = wire.recv(1000)
        assert time.monotonic() - begun < 20, (
            "an API server that says nothing is let go after 120 s"
        )


# ---- certificates -------------------------------------------------------------------------------


def serial_of(process):
    with process.open() as wire:
        return int(wire.getpeercert()["serialNumber"], 16)


def test_a_new_certificate_is_served_from_the_next_handshake_on(certifier):
    pair = certifier.pair(Kind.DAEMON, "renewed")
    with made(pair, "--drain-s", "0") as running:
        kept = running.connect()
        assert running.ask(review_of(), over=kept).patch
        before = serial_of(running)
        replace(pair, certifier.issued(Kind.DAEMON, "renewed"))
        after = serial_of(running)
        assert after != before

        pair.key.write_text("half a k")
        assert serial_of(running) == after
        running.wait_for("tls_files_refused")
        pair.certificate.unlink()
        assert serial_of(running) == after
        # What was open before goes on.
        assert running.ask(review_of(), over=kept).patch
        kept.close()


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        ((), 2, "the webhook is served over HTTPS only"),
        (("--tls-cert", "none.crt", "--tls-key", "none.key"), 2, "none.crt cannot be read"),
        (("--bootstrap",), 2, "so this is no pod"),
        (("--sidecar-cpu", "fast"), 2, "--sidecar-cpu: 'fast' is no amount"),
        (("--config", "none.yaml"), 2, "none.yaml"),
    ],
)
def test_an_injector_that_cannot_serve_does_not_start(flags, code, says):
    env = {"KUBERNETES_SERVICE_HOST": ""}
    done = CliRunner().invoke(app, ["injector", "--metrics-listen", "off", *flags], env=env)
    assert done.exit_code == code
    assert says in done.output


def test_an_address_that_is_taken_is_named(injector, pair):
    host, port = injector.address()
    process = made(pair, "--listen", f"{host}:{port}")
    process.launch()
    assert process.ended() == 1
    assert f"listen: {host}:{port} cannot be bound" in process.log_text()
    process.close()


# ---- the way down, and what is counted ----------------------------------------------------------


def test_a_stopping_injector_answers_until_the_api_server_has_heard(pair):
    with made(pair, "--drain-s", "600") as running:
        running.signal(signal.SIGTERM)
        running.wait_for("draining")
        assert running.ask(None, "/readyz", method="GET").status == 503
        assert running.ask(review_of()).patch
        running.signal(signal.SIGTERM)
        assert running.ended() == 0
        running_log = running.log_text()
        assert '"stopped"' in running_log
        assert "Traceback" not in running_log


def test_reviews_are_counted(pair):
    with made(pair, "--drain-s", "0") as running:
        running.ask(review_of())
        running.ask(b"")
        host, port = running.address("metrics_listening")
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as page:
            text = page.read().decode()
        assert 'costd_injector_reviews_total{reason="injected",verdict="allowed"} 1.0' in text
        assert 'costd_injector_refused_total{reason="BadRequest"} 1.0' in text
        assert "costd_injector_review_duration_seconds_count 1.0" in text
        assert "costd_tls_certificate_expiry_timestamp_seconds" in text
        assert running.stop() == 0
