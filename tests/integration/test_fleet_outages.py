"""What a fleet does while a part of it is gone, or has no room: nothing is lost, nobody overspends."""

import os
import resource
import signal

import pytest
from desk import USD, Desk, if_available, poll
from test_store_faults import fill, small_disk  # noqa: F401  a fixture

from costd.testing.fleet import CoordinatorProcess, FleetProcesses
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb

POLICY = """\
version: 1
unmatched: allow
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes: {draft: {tier: premium, max_output_tokens: 1000}}
budgets:
  - {id: shared, window: total, limit: $1000}
"""


# ---- coordinators -------------------------------------------------------------------------------


def test_a_daemon_moves_to_the_next_coordinator_of_its_list_and_back(fleet):
    running = fleet(POLICY, "--tenure-s", "3").start(coordinators=2, daemons=1)
    (first, second), (daemon,) = running.coordinators, running.daemons
    desk = Desk(daemon)
    daemon.wait_for("coordinator_joined", coordinator=first.listen)
    desk.settle(desk.hold(1), 1)
    first.kill()
    daemon.wait_for("coordinator_joined", coordinator=second.listen)
    poll(lambda: desk.admit(500).reservation_id)
    first.start()
    assert second.stop() == 0
    daemon.wait_for("coordinator_joined", at_least=2, coordinator=first.listen)
    desk.settle(desk.hold(1), 1)
    assert running.problems() == []


def test_a_coordinator_that_stands_still_is_left_for_the_next(fleet):
    running = fleet(POLICY, "--tenure-s", "3").start(coordinators=2, daemons=1)
    (first, second), (daemon,) = running.coordinators, running.daemons
    desk = Desk(daemon)
    desk.settle(desk.hold(1), 1)
    first.signal(signal.SIGSTOP)
    try:
        daemon.wait_for("coordinator_joined", coordinator=second.listen)
        poll(lambda: desk.admit(500).reservation_id)
    finally:
        first.signal(signal.SIGCONT)
    # What it said to the stream that is over changes nothing: the other one has the epoch.
    assert running.problems() == []


def test_a_tenure_of_a_minute_is_kept_though_little_is_said(fleet):
    running = fleet(POLICY, "--tenure-s", "90").start(coordinators=1, daemons=1)
    (daemon,) = running.daemons
    desk = Desk(daemon)
    desk.settle(desk.hold(1), 1)
    # The first report comes after nine seconds; until then nothing need be said.
    coordinator = running.coordinators[0]
    poll(lambda: coordinator.daemons()["d1"].outbox_count == 0 and _settled(coordinator) == USD)
    assert [line for line in daemon.lines if line.get("event") == "coordinator_lost"] == []


def _settled(coordinator):
    rows = coordinator.control.ListBudgets(cpb.ListBudgetsRequest()).budgets
    return sum(row.settled for row in rows)


def test_a_database_of_its_own_that_is_killed_is_started_again(tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    coordinator = CoordinatorProcess("--tenure-s", "3", policy=policy)
    fleet = FleetProcesses(database_url="", policy=None)
    fleet.coordinators.append(coordinator)
    try:
        coordinator.start()
        daemon = fleet.add_daemon()
        daemon.wait_for("serving")
        desk = Desk(daemon)
        desk.settle(desk.hold(1), 1)
        pid_file = coordinator.data / "postgres" / "postmaster.pid"
        os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGKILL)
        coordinator.wait_for("database_unavailable")
        coordinator.wait_for("database_back")
        poll(lambda: desk.admit(500).reservation_id)
        poll(lambda: _settled(coordinator) == USD)
    finally:
        fleet.close()


# ---- no room ------------------------------------------------------------------------------------


def test_a_daemon_with_a_full_disk_refuses_and_gives_its_fleet_no_wrong_figure(
    fleet,
    small_disk,  # noqa: F811
):
    running = fleet(POLICY, "--tenure-s", "3").start(coordinators=1, daemons=0)
    daemon = running.add_daemon()
    daemon.kill()
    daemon.data = small_disk / "data"
    desk = Desk(daemon.start())
    held = [desk.hold(0.01) for _ in range(20)]
    ballast = fill(small_disk)
    long = {f"label-{number}": "v" * 250 for number in range(60)}

    def refuses():
        decision = if_available(desk.admit, 0.01, labels=long)
        if decision is None:
            return True
        if decision.reservation_id:
            held.append(decision.reservation_id)
        return False

    poll(refuses, 60)
    ballast.unlink()

    for reservation_id in held:
        poll(lambda each=reservation_id: if_available(desk.settle, each, 0.01), 60)
    assert running.problems() == []
    assert _settled(running.coordinators[0]) == len(held) * USD // 100


def test_a_full_outbox_stops_asks_while_the_coordinator_is_gone_and_loses_nothing(fleet):
    running = fleet(POLICY, "--tenure-s", "3").start(daemons=0)
    (coordinator,) = running.coordinators
    daemon = running.add_daemon("--outbox-count-max", "1000")
    daemon.wait_for("serving")
    daemon.wait_for("coordinator_joined")
    desk = Desk(daemon)
    held = desk.hold(1)
    coordinator.kill()
    for _ in range(1_000):
        desk.record(0.01)
    refused = desk.refusal(desk.admit, 0.01)
    assert refused.code == "RESOURCE_EXHAUSTED"
    assert "usage events wait for the coordinator" in refused.details
    assert desk.settle(held, 1).cost_nusd == USD  # what was promised is settled, and kept
    desk.kill_9()
    assert desk.refusal(desk.admit, 0.01).code == "RESOURCE_EXHAUSTED"
    coordinator.start()
    daemon.wait_for("coordinator_joined")  # the log is that of its second run
    assert running.problems() == []
    desk.hold(0.01)


def test_a_journal_without_room_engages_nothing_and_says_so(fleet):
    running = fleet(POLICY).start(coordinators=1, daemons=1)
    (coordinator,), (daemon,) = running.coordinators, running.daemons
    desk = Desk(daemon)
    request = cpb.EngageKillRequest(kill_id="stop-all", reason="a test", actor="ops")
    before = resource.prlimit(coordinator.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(coordinator.pid, resource.RLIMIT_FSIZE, (16, before[1]))
    refusal = desk.refusal(coordinator.control.EngageKill, request)
    assert refusal.code == "UNAVAILABLE"
    assert "kills.journal" in refusal.details
    assert "the kill switch is not engaged" in refusal.details
    assert desk.admit(0.01).reservation_id
    resource.prlimit(coordinator.pid, resource.RLIMIT_FSIZE, before)
    coordinator.control.EngageKill(request)
    poll(lambda: desk.admit(0.01).reason == pb.REASON_KILL_SWITCH)
    assert running.problems() == []


# ---- databases that cannot be used ----------------------------------------------------------------


def test_a_database_that_is_read_only_for_a_while_costs_nothing_but_time(own_postgres, fleet):
    running = fleet(POLICY, "--tenure-s", "3", database_url=own_postgres.url).start(daemons=1)
    (coordinator,), (daemon,) = running.coordinators, running.daemons
    desk = Desk(daemon)
    desk.settle(desk.hold(1), 1)
    own_postgres.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    own_postgres.execute("SELECT pg_reload_conf()")
    line = coordinator.wait_for("database_unavailable")
    assert "read-only" in line["problem"]
    daemon.wait_for("coordinator_lost")
    poll(lambda: desk.admit(500).reason == pb.REASON_NO_LEASE)
    own_postgres.execute("ALTER SYSTEM RESET default_transaction_read_only")
    own_postgres.execute("SELECT pg_reload_conf()")
    poll(lambda: desk.admit(500).reservation_id)
    assert running.problems() == []


def test_a_coordinator_stops_though_its_database_stands_still(own_postgres):
    coordinator = CoordinatorProcess("--drain-s", "0.5", database_url=own_postgres.url)
    try:
        coordinator.start()
        own_postgres.freeze()
        coordinator.wait_for("database_unavailable")
        assert coordinator.stop() == 0
        assert "does not answer" in coordinator.wait_for("database_left")["problem"]
    finally:
        own_postgres.thaw()
        coordinator.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1", "cannot be reached"),
        ("postgresql://[", "cannot be read"),
    ],
)
def test_a_database_that_is_not_there_is_named(url, said, monkeypatch):
    coordinator = CoordinatorProcess(database_url=url)
    try:
        coordinator.launch()
        if "127.0.0.1:1/" in url:
            # It waits a minute for what may be on its way, as in a pod; nobody is served meanwhile.
            coordinator.signal(signal.SIGTERM)
            coordinator.ended()
        else:
            assert coordinator.ended() != 0
            assert said in coordinator.log_text()
        assert "Traceback" not in coordinator.log_text()
    finally:
        coordinator.close()


def test_a_schema_of_a_newer_release_is_refused_and_left_as_it_is(own_postgres):
    own_postgres.execute(
        "CREATE TABLE migrations (number integer, phase text, name text, release text,"
        " at timestamptz DEFAULT now(), PRIMARY KEY (number, phase))"
    )
    own_postgres.execute("INSERT INTO migrations VALUES (9, 'contract', 'of_tomorrow', '9.0')")
    coordinator = CoordinatorProcess(database_url=own_postgres.url)
    try:
        coordinator.launch()
        assert coordinator.ended() == 1
        assert "newer release" in coordinator.log_text()
        assert "0009_of_tomorrow.contract" in coordinator.log_text()
        assert "Traceback" not in coordinator.log_text()
    finally:
        coordinator.close()
