"""`costd injector --bootstrap` against a server that refuses as Kubernetes' API does."""

import asyncio
import base64
import io

import pytest
from cryptography import x509
from injecting import InjectorProcess, review_of
from kubernetes_api import SECRET, SECRETS, WEBHOOK, KubernetesApi

from costd.injector import bootstrap
from costd.injector.bootstrap import Bootstrap, Names
from costd.injector.cluster import ApiRefused, Cluster
from costd.injector.made import read_made
from costd.serving.background import background
from costd.telemetry.logs import make_log
from costd.testing.certifier import Certifier
from costd.testing.process import wait_until
from costd.trust.certificates import chain_problem, read_certificates

NAMES = Names("costd-injector", "costd-system", "costd-injector-tls", "costd-injector")
SERVICE = "costd-injector.costd-system.svc"
DAY_NS = 86_400 * 10**9
NOW_NS = 1_800_000_000 * 10**9


@pytest.fixture
def api(tmp_path):
    server = KubernetesApi(tmp_path)
    server.now_ns = NOW_NS
    yield server
    server.close()


class Replica(Bootstrap):
    """One replica, whose own clock is wrong, with its log."""

    def __init__(self, api):
        self.written = io.StringIO()
        log = make_log(level="info", style="json", stream=self.written)
        cluster = Cluster("127.0.0.1", api.port, api.account)
        super().__init__(cluster, NAMES, log, wall_ns=lambda: NOW_NS + 700 * DAY_NS)

    @property
    def leaf(self):
        """The certificate that it serves."""
        return read_certificates(self.pair().certificate_pem, "served")[0]


def trusted(api, replica):
    """Whether an API server trusts what a replica serves, by what it was told."""
    bundles = api.bundles()
    assert bundles
    for each in bundles:
        if not each:
            return False
        roots = read_certificates(base64.b64decode(each), "caBundle")
        if chain_problem([replica.leaf], roots, api.now_ns):
            return False
    return True


async def test_the_first_replica_makes_what_the_second_finds(api):
    api.apply_webhook()
    first, second = Replica(api), Replica(api)
    await first.look()
    await second.look()
    assert first.pair() == second.pair()
    assert first.is_ready
    assert trusted(api, second)
    names = first.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [SERVICE, f"{SERVICE}.cluster.local"]
    assert first.ends_s == NOW_NS // 10**9 + 90 * 86_400
    assert [verb for verb, _ in api.asked].count("create") == 1


async def test_nothing_is_written_while_all_is_well(api):
    api.apply_webhook()
    replica = Replica(api)
    await replica.look()
    before, version = replica.pair(), api.version
    api.now_ns += 50 * DAY_NS
    await replica.look()
    assert replica.pair() is before  # no handshake has to begin anew
    assert api.version == version


async def test_a_certificate_is_made_anew_when_a_third_is_left(api):
    api.apply_webhook()
    replica, other = Replica(api), Replica(api)
    await replica.look()
    await other.look()
    before = replica.leaf
    api.now_ns += 61 * DAY_NS
    await replica.look()
    assert replica.leaf.not_valid_after_utc > before.not_valid_after_utc
    # One that has not looked yet serves the old one, and is trusted.
    assert trusted(api, replica)
    assert trusted(api, other)
    assert '"new_ca": false' in replica.written.getvalue().splitlines()[-1]


async def test_a_new_ca_stands_beside_the_old_one(api):
    api.apply_webhook()
    replica, other = Replica(api), Replica(api)
    await replica.look()
    api.now_ns += 3_280 * DAY_NS
    await replica.look()
    await other.look()
    api.now_ns += 20 * DAY_NS
    bundle = api.bundles()[0]
    await replica.look()
    assert api.bundles()[0] != bundle
    assert len(read_certificates(base64.b64decode(api.bundles()[0]), "caBundle")) == 2
    assert trusted(api, replica)
    assert trusted(api, other)
    await other.look()
    assert other.pair() == replica.pair()


async def test_a_new_ca_is_not_served_under_before_the_api_server_knows_it(api):
    api.apply_webhook()
    replica = Replica(api)
    await replica.look()
    api.now_ns += 3_300 * DAY_NS
    before = replica.leaf
    api.refused["patch", WEBHOOK] = 500
    with pytest.raises(ApiRefused):
        await replica.look()
    assert replica.leaf == before
    api.refused.clear()
    await replica.look()
    assert replica.leaf != before
    assert trusted(api, replica)


async def test_the_ca_before_stays_where_the_secret_is_lost(api):
    """Another replica serves under it until it has looked."""
    api.apply_webhook()
    first, second = Replica(api), Replica(api)
    await first.look()
    await second.look()
    del api.objects[SECRET]
    await first.look()
    assert first.pair() != second.pair()
    assert trusted(api, first)
    assert trusted(api, second)
    await second.look()
    assert first.pair() == second.pair()


async def test_what_a_clock_made_that_was_years_ahead_is_made_anew(api):
    api.apply_webhook()
    api.now_ns += 700 * DAY_NS
    first, second = Replica(api), Replica(api)
    await first.look()
    api.now_ns -= 700 * DAY_NS
    assert not trusted(api, first)
    await second.look()
    assert trusted(api, second)
    await first.look()
    assert first.pair() == second.pair()
    assert trusted(api, first)


async def test_an_api_that_does_not_say_the_time_is_believed_to_have_ours(api):
    api.apply_webhook()
    api.now_ns = "never"
    replica = Replica(api)
    await replica.look()
    api.now_ns = NOW_NS + 700 * DAY_NS
    assert trusted(api, replica)


async def test_a_configuration_that_is_applied_anew_is_filled_again(api):
    api.apply_webhook()
    replica = Replica(api)
    await replica.look()
    api.apply_webhook(count=3)
    assert api.bundles() == [None] * 3
    await replica.look()
    assert trusted(api, replica)


async def test_of_two_that_make_a_secret_at_once_one_gives_way(api):
    api.apply_webhook()
    first, second = Replica(api), Replica(api)
    await first.look()
    theirs = dict(api.objects[SECRET])
    del api.objects[SECRET]
    api.before["create", SECRETS] = lambda: api.apply(SECRET, **theirs)
    with pytest.raises(ApiRefused) as crossed:
        await second.look()
    assert crossed.value.status == 409
    assert second.pair() is None
    await second.look()
    assert second.pair() == first.pair()


async def test_of_two_that_renew_at_once_one_gives_way(api):
    api.apply_webhook()
    first, second = Replica(api), Replica(api)
    await first.look()
    await second.look()
    api.now_ns += 61 * DAY_NS
    secret = dict(api.objects[SECRET])
    api.before["update", SECRET] = lambda: api.apply(SECRET, **secret)
    with pytest.raises(ApiRefused) as crossed:
        await first.look()
    assert crossed.value.status == 409
    await second.look()
    await first.look()
    assert first.pair() == second.pair()
    assert trusted(api, first)


async def test_a_configuration_that_changes_meanwhile_is_not_overwritten(api):
    api.apply_webhook()
    api.before["patch", WEBHOOK] = lambda: api.apply_webhook(count=3)
    replica = Replica(api)
    with pytest.raises(ApiRefused) as crossed:
        await replica.look()
    assert crossed.value.status == 422
    await replica.look()
    assert len(api.bundles()) == 3
    assert trusted(api, replica)


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"data": None},
        {"data": {"ca.crt": "!"}},
        {"data": {"tls.crt": base64.b64encode(b"not PEM").decode()}},
        {"data": {"ca.key": base64.b64encode(b"not PEM").decode()}},
        {"swap": True},
    ],
    ids=str,
)
async def test_a_damaged_secret_is_made_anew(api, damage):
    api.apply_webhook()
    replica = Replica(api)
    await replica.look()
    secret = dict(api.objects[SECRET])
    data = dict(secret["data"])
    if "swap" in damage:
        data["tls.key"] = data["ca.key"]
    elif damage.get("data"):
        data |= damage["data"]
    else:
        data = damage.get("data", {})
    api.apply(SECRET, **secret | {"data": data})
    assert read_made(api.objects[SECRET]) is None
    fresh = Replica(api)
    await fresh.look()
    assert read_made(api.objects[SECRET]) is not None
    assert trusted(api, fresh)


async def test_a_certificate_for_another_service_is_made_anew(api):
    api.apply_webhook()
    replica = Replica(api)
    replica._names = NAMES._replace(service="renamed")
    await replica.look()
    other = Replica(api)
    await other.look()
    names = other.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert SERVICE in names.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize(
    ("verb", "path", "status", "says"),
    [
        ("get", SECRET, 403, "403 system:serviceaccount:x cannot get this; give the injector's"),
        ("create", SECRETS, 403, "cannot create this"),
        ("get", WEBHOOK, 403, "cannot get this"),
        ("patch", WEBHOOK, 403, "cannot patch this"),
        ("get", SECRET, 500, f"get {SECRET}: 500"),
    ],
)
async def test_what_the_api_refuses_is_named_with_what_to_do(api, verb, path, status, says):
    api.apply_webhook()
    api.refused[verb, path] = status
    replica = Replica(api)
    with pytest.raises(ApiRefused) as refused:
        await replica.look()
    assert says in str(refused.value)
    assert not replica.is_ready


@pytest.mark.parametrize("status", [409, 422])
async def test_what_is_refused_again_and_again_is_told_of(api, monkeypatch, status):
    """Another replica may be quicker once; a Secret that is immutable refuses for ever."""
    monkeypatch.setattr(bootstrap, "AGAIN_S", 0)
    api.apply_webhook()
    api.refused["create", SECRETS] = status
    replica = Replica(api)
    async with asyncio.timeout(30), background(replica._log, replica.run()):
        told = replica.written.getvalue
        await asyncio.to_thread(wait_until, lambda: "bootstrap_failed" in told(), "it is told")
    assert str(status) in replica.written.getvalue()


async def test_a_bug_does_not_end_the_care_for_the_certificate(api, monkeypatch):
    monkeypatch.setattr(bootstrap, "AGAIN_S", 0)
    api.apply_webhook()
    replica = Replica(api)
    looks = [RuntimeError("a bug")]
    look = replica.look

    async def fails_once():
        if looks:
            raise looks.pop()
        await look()

    replica.look = fails_once
    async with asyncio.timeout(30), background(replica._log, replica.run()):
        await asyncio.to_thread(wait_until, lambda: replica.is_ready, "it looks again")
    assert "a bug" in replica.written.getvalue()


async def test_a_configuration_that_is_not_there_is_named(api):
    replica = Replica(api)
    with pytest.raises(ApiRefused, match="no MutatingWebhookConfiguration costd-injector; apply"):
        await replica.look()
    # Probes come over TLS, too, and must find somebody meanwhile.
    assert replica.pair() is not None
    assert not replica.is_ready


async def test_a_wrong_token_and_a_server_of_another_ca_are_told_apart(api, tmp_path):
    api.apply_webhook()
    (api.account / "token").write_text("stale")
    with pytest.raises(ApiRefused) as refused:
        await Replica(api).look()
    assert refused.value.status == 401
    other = Certifier(tmp_path / "other")
    (api.account / "ca.crt").write_bytes(other.ca.read_bytes())
    with pytest.raises(ApiRefused, match=r"cannot be asked: .*CERTIFICATE_VERIFY_FAILED"):
        await Replica(api).look()


def test_an_injector_that_is_alone_serves_what_the_api_server_trusts(api):
    """From nothing: first without its role and configuration, then with both."""
    api.now_ns = None
    api.refused["get", SECRET] = 403
    process = InjectorProcess(
        "--bootstrap", "--service-account", api.account, "--namespace", "costd-system",
        "--drain-s", "0",
    )  # fmt: skip
    process.environment = api.environment
    with process as running:
        running.wait_for("bootstrap_failed")
        api.refused.clear()
        wait_until(lambda: SECRET in api.objects, "the Secret is made")
        running.wait_for("bootstrap_failed", at_least=2)
        api.apply_webhook()
        running.wait_for("webhook_filled")
        running.ca = base64.b64decode(api.bundles()[0]).decode()
        running.host = SERVICE
        assert running.ask(review_of()).patch
        assert running.ask(None, "/readyz", method="GET").status == 200
        assert running.stop() == 0
        assert "Traceback" not in running.log_text()
