"""A daemon that stops for good, as in a pod: what it knows reaches the coordinator before it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from desk import Desk, poll
from grpc_health.v1 import health_pb2, health_pb2_grpc

from costd.testing import DaemonProcess
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb import fleet_control_pb2 as fpb

HOLD_NUSD = 1_000_000
POLICY = """\
version: 1
tiers: {premium: {models: [openai/gpt-4o]}}
task_classes: {draft: {}}
default_task_class: draft
budgets: [{id: all, window: total, limit: $100}]
allowance: {for: 2s}
"""
DRAW = f"""
import sys
from costd_client import Client

client = Client(sys.argv[1], caller="app", allowances=True, timeout_s=10)
drawn = 0
while drawn < 5:
    decision = client.admit(model="gpt-4o", estimated_cost_nusd={HOLD_NUSD})
    drawn += decision.source == "allowance"
    if decision.source != "allowance":
        client.void(decision)
print("drawn", flush=True)
sys.stdin.read()
"""
PROGRAM = str(Path(sys.executable).with_name("costd"))


@pytest.fixture
def running(fleet):
    """A coordinator, and a daemon that may take its time to leave."""
    processes = fleet(POLICY).start(coordinators=1, daemons=0)
    processes.add_daemon("--leave-s", "60").wait_for("serving")
    return processes


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A daemon without a fleet."""
    policy = tmp_path_factory.mktemp("alone") / "policy.yaml"
    policy.write_text(POLICY)
    with DaemonProcess(policy) as daemon:
        yield daemon


def pool(coordinator):
    """What the coordinator has of the one budget: (settled, reserved)."""
    (row,) = coordinator.control.ListBudgets(cpb.ListBudgetsRequest(), wait_for_ready=True).budgets
    return row.settled, row.reserved


def held(coordinator):
    """What daemons may still use of it, by the coordinator's books."""
    rows = coordinator.fleet.ListLeases(fpb.ListLeasesRequest(), wait_for_ready=True).leases
    return sum(row.amount for row in rows)


def drain(daemon, *arguments):
    return subprocess.run(
        [PROGRAM, "drain", *arguments],
        env=os.environ | {"COSTD_CONTROL_ADDRESS": daemon.control_address},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_a_dead_client_drew_is_booked_and_told_and_the_rest_given_back(running):
    (coordinator,), (daemon,) = running.coordinators, running.daemons
    app = subprocess.Popen(
        [sys.executable, "-c", DRAW, daemon.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert app.stdout.readline() == "drawn\n"
    daemon.signal(signal.SIGSTOP)  # so that it hears of the end and of the death at once
    app.kill()
    app.communicate()
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGCONT)
    assert daemon.ended() == 0
    assert pool(coordinator) == (0, 5 * HOLD_NUSD)
    assert held(coordinator) == 5 * HOLD_NUSD
    assert not [line for line in daemon.lines if line["event"] == "left_untold"]


def test_a_daemon_whose_coordinator_comes_back_in_time_tells_it_all(running):
    (coordinator,), (daemon,) = running.coordinators, running.daemons
    desk = Desk(daemon)
    desk.hold(1)
    in_flight = desk.hold(1)
    coordinator.kill()
    daemon.wait_for("coordinator_lost", was_enrolled=True)
    desk.settle(in_flight, 0.5)
    desk.close()
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("draining")
    coordinator.start()
    assert daemon.ended() == 0
    assert not [line for line in daemon.lines if line["event"] == "left_untold"]
    assert pool(coordinator) == (500_000_000, 1_000_000_000)
    assert held(coordinator) == 1_500_000_000
    (event,) = coordinator.control.ListUsage(cpb.ListUsageRequest()).events
    assert event.cost_nusd == 500_000_000


def test_what_it_could_not_tell_it_says_and_tells_when_it_is_started_again(running):
    (coordinator,), (daemon,) = running.coordinators, running.daemons
    desk = Desk(daemon)
    in_flight = desk.hold(1)
    coordinator.kill()
    daemon.wait_for("coordinator_lost", was_enrolled=True)
    desk.settle(in_flight, 0.5)
    desk.close()
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("draining")
    daemon.signal(signal.SIGTERM)  # nobody waits for a minute
    assert daemon.ended() == 0
    (untold,) = [line for line in daemon.lines if line["event"] == "left_untold"]
    assert untold["usage_events_count"] == 1
    assert untold["counters_count"] == 1
    assert coordinator.listen in untold["problem"]
    coordinator.start()
    daemon.start()
    assert running.problems() == []


def test_a_drain_waits_for_reservations_and_serves_on_meanwhile(alone):
    desk = Desk(alone)
    in_flight = desk.hold(1)
    waited = drain(alone, "--timeout-s", "0.3")
    assert waited.returncode == 1
    assert waited.stderr == "costd: still used after 0.3 s: 1 open reservations\n"
    desk.settle(in_flight, 0.5)
    waited = drain(alone, "--timeout-s", "60", "--quiet-s", "0.3")
    assert (waited.returncode, waited.stderr) == (0, "")
    desk.close()


def test_a_drain_waits_for_clients_that_are_attached(alone):
    ask = "from costd_client import Client; import sys; c = Client(sys.argv[1], allowances=True)\n"
    ask += "c.void(c.admit(model='gpt-4o', estimated_cost_nusd=1)); sys.stdin.read(); c.close()"
    app = subprocess.Popen(
        [sys.executable, "-c", ask, alone.address], stdin=subprocess.PIPE, text=True
    )
    desk = Desk(alone)
    poll(lambda: desk.status().sessions_attached_count == 1)
    assert "1 attached client processes" in drain(alone, "--timeout-s", "0").stderr
    app.communicate("")
    assert drain(alone, "--quiet-s", "0").returncode == 0
    desk.close()


def test_a_drain_does_not_take_a_daemon_that_cannot_tell_for_one_that_nobody_uses(fresh_daemon):
    daemon = fresh_daemon(POLICY, "--rpcs-count-max", "1").start()
    with grpc.insecure_channel(daemon.control_address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        next(watching)
        waited = drain(daemon, "--timeout-s", "0.3")
        assert waited.returncode == 1
        assert waited.stderr == "costd: still used after 0.3 s: it takes no more calls now\n"
        watching.cancel()
    daemon.signal(signal.SIGSTOP)
    waited = drain(daemon, "--timeout-s", "0.3")
    assert waited.returncode == 1
    assert waited.stderr == "costd: still used after 0.3 s: it does not answer\n"


def test_a_drain_of_a_daemon_that_is_not_there_does_not_hold_up_the_end(fresh_daemon):
    waited = drain(fresh_daemon(POLICY))
    assert waited.returncode == 0
    assert "no daemon answers" in waited.stderr
