"""What a daemon reads from ConfigMaps and Secrets: each change is followed, as the kubelet makes it."""

import socket
import ssl

import pytest
from desk import Desk, poll
from mounted import Mounted

from costd.testing import DaemonProcess
from costd.testing.certifier import Certifier
from costd.trust import Kind

POLICY = """\
version: 1
unmatched: allow
tiers: {premium: {models: [openai/gpt-4o]}}
task_classes: {draft: {tier: premium, max_output_tokens: 1000}}
budgets: [{id: all, window: total, limit: $%s}]
"""
STOP_RESEARCH = "- {id: research, scope: {team: research}, reason: runaway}\n"
STOP_SALES = "- {id: sales, scope: {team: sales}, reason: runaway}\n"


def pair(certifier, name):
    """A certificate as files of a Secret."""
    issued = certifier.pair(Kind.DAEMON, name)
    return {
        "tls_crt": issued.certificate.read_bytes(),
        "tls_key": issued.key.read_bytes(),
        "ca_crt": issued.ca.read_bytes(),
    }


@pytest.fixture(scope="module")
def mounts(tmp_path_factory):
    """A policy, kill switches that are optional and not there yet, and a certificate."""
    folder = tmp_path_factory.mktemp("mounts")
    certifier = Certifier(folder / "ca")
    policy = Mounted(folder / "policy", policy_yaml=POLICY % 100)
    kills = Mounted(folder / "kills")
    tls = Mounted(folder / "tls", **pair(certifier, "first"))
    flags = (
        *("--kill-file", str(kills.path("kills.yaml")), "--listen", "127.0.0.1:0"),
        *("--tls-cert", str(tls.path("tls.crt")), "--tls-key", str(tls.path("tls.key"))),
    )
    with DaemonProcess(policy.path("policy.yaml"), *flags) as daemon:
        desk = Desk(daemon)
        desk.policy, desk.kills, desk.tls, desk.certifier = policy, kills, tls, certifier
        desk.settle(desk.hold(0.01), 0.01)
        yield desk
        desk.close()


def presented(desk):
    """The certificate that whoever connects now is shown."""
    context = ssl.create_default_context(cafile=desk.tls.path("ca.crt"))
    host, port = desk.daemon.listen_address.rsplit(":", 1)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as peer,
    ):
        return peer.getpeercert(binary_form=True)


def test_a_policy_is_followed_when_its_map_changes_and_a_bad_one_is_not(mounts):
    assert mounts.budget("all").limit == 100 * 10**9
    mounts.policy.write(policy_yaml=POLICY % 200)
    poll(lambda: mounts.budget("all").limit == 200 * 10**9)
    mounts.policy.write(policy_yaml="version: 1\nbudgets: nonsense\n", other_yaml="")
    poll(lambda: mounts.status().policy_error)
    assert "policy.yaml:2" in mounts.status().policy_error
    assert mounts.budget("all").limit == 200 * 10**9
    mounts.policy.write(other_yaml="")  # its key is gone
    poll(lambda: "policy.yaml" in mounts.status().policy_error)
    assert mounts.budget("all").limit == 200 * 10**9
    mounts.policy.write(policy_yaml=POLICY % 300)
    poll(lambda: mounts.budget("all").limit == 300 * 10**9)
    assert not mounts.status().policy_error


def test_kill_switches_come_and_go_with_an_optional_map(mounts):
    assert not mounts.status().kill_file_error
    for content, engaged in (
        ({"kills_yaml": STOP_RESEARCH}, 1),
        ({"kills_yaml": STOP_RESEARCH + STOP_SALES}, 2),
        ({"kills_yaml": STOP_SALES}, 1),
        ({"other_yaml": ""}, 0),
        ({"kills_yaml": STOP_SALES}, 1),
        ({}, 0),  # the map was deleted: what is mounted is empty then
    ):
        mounts.kills.write(**content)
        poll(lambda engaged=engaged: mounts.status().kills_engaged_count == engaged)
    mounts.kills.write(kills_yaml=STOP_SALES)
    poll(lambda: not mounts.admit(0.01, labels={"team": "sales"}).reservation_id)
    mounts.void(mounts.hold(0.01, labels={"team": "research"}))
    mounts.kills.write()
    poll(lambda: not mounts.status().kills_engaged_count)


def test_a_certificate_is_used_when_its_secret_changes(mounts):
    first = presented(mounts)
    mounts.tls.write(**pair(mounts.certifier, "second"))
    second = presented(mounts)
    assert second != first
    good = pair(mounts.certifier, "third")
    mounts.tls.write(**good | {"tls_key": pair(mounts.certifier, "fourth")["tls_key"]})
    assert presented(mounts) == second
    mounts.daemon.wait_for("tls_files_refused")
    mounts.tls.write(**good)
    assert presented(mounts) not in {first, second}
