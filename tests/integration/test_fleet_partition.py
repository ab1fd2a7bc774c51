"""A real network between a daemon and its coordinator, cut in the middle."""

import os
import shutil
import subprocess

import pytest
from desk import USD, Desk, poll

from costd.testing.fleet import CoordinatorProcess, FleetProcesses, settled_problems
from costd.wire.pb import admission_pb2 as pb

TENURE_S = 3
POLICY = """\
version: 1
unmatched: deny
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes: {draft: {tier: premium, max_output_tokens: 1000}}
budgets:
  - {id: shared, match: {team: "*"}, window: total, limit: $1000}
  - {id: here, match: {local: "*"}, window: total, limit: $1000, share: host}
"""
TEAM = {"team": "a"}


def ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def wire():
    """A host of its own for one daemon, and the cable to it: (name, our address, how to cut it)."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("cutting a network needs root and iproute2")
    name, ours = f"costd-{os.getpid()}", f"cv{os.getpid() % 10**6}"
    subnet = f"10.213.{os.getpid() % 250}"
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces may not be made here: {error.stderr.strip()}")
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{subnet}.1/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", f"{subnet}.2/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name, f"{subnet}.1", lambda state: ip("link", "set", ours, state)
    finally:
        ip("netns", "del", name)


@pytest.fixture
def across(wire, make_database, tmp_path):
    """A coordinator here, one daemon here and one behind the cable."""
    name, address, set_cable = wire
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    fleet = FleetProcesses(database_url=make_database(), policy=policy)
    coordinator = CoordinatorProcess(
        *("--listen-insecure", "--tenure-s", str(TENURE_S)),
        database_url=fleet.database_url,
        policy=policy,
    )
    coordinator.listen = f"{address}:0"
    fleet.coordinators.append(coordinator)
    try:
        coordinator.start()
        far = fleet.add_daemon(prefix=("ip", "netns", "exec", name))
        near = fleet.add_daemon()
        for daemon in (far, near):
            daemon.wait_for("serving")
        yield fleet, Desk(far), Desk(near), set_cable
    finally:
        fleet.close()


def test_a_daemon_that_is_cut_off_spends_what_it_holds_until_its_tenure_ends(across):
    fleet, far, near, set_cable = across
    (coordinator,) = fleet.coordinators
    spent = 0
    for _ in range(5):
        spent += far.settle(far.hold(1, labels=TEAM), 1).cost_nusd
    set_cable("down")
    try:
        # What it holds it may spend: nobody else is promised that.
        outcomes = []

        def refused():
            decision = far.admit(0.01, labels=TEAM)
            outcomes.append(decision.reason)
            if decision.reservation_id:
                outcomes.append(far.settle(decision.reservation_id, 0.01).cost_nusd)
                return False
            return True

        poll(refused)
        assert outcomes[0] != pb.REASON_NO_LEASE, "it held something when the cable was cut"
        spent += sum(cost for cost in outcomes if cost == USD // 100)
        assert outcomes[-1] == pb.REASON_NO_LEASE
        # Host budgets are its own, whatever the network does.
        assert far.admit(1, labels={"local": "x"}).reservation_id
        # The one that is still there goes on, and is never lent what the other may have spent.
        lent = 0
        while near.admit(100, labels=TEAM).reservation_id:
            lent += 100 * USD
        assert lent + spent <= 1_000 * USD
        told = coordinator.daemons()["d1"]
        assert told.presumed_nusd >= 0
        poll(lambda: coordinator.daemons()["d1"].tenure_ends_ns <= near.status().now_ns)
        assert far.admit(0.01, labels=TEAM).reason == pb.REASON_NO_LEASE
    finally:
        set_cable("up")
    poll(lambda: far.admit(0.01, labels=TEAM).reservation_id, 40)
    assert settled_problems(coordinator, fleet.daemons, fleet.database_url) == []
    poll(lambda: coordinator.daemons()["d1"].outbox_count == 0)
    rows = coordinator.daemons()
    assert rows["d1"].epoch > rows["d2"].epoch, "it came back on a stream of its own"
