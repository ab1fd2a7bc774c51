"""Kill switches and policies of a fleet with two coordinators: who hears of them, and when."""

import itertools
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from costd_client import Client
from desk import Desk, if_available, poll

from costd.testing.fleet import FleetProcesses
from costd.testing.postgres import PostgresServer
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb import fleet_control_pb2 as fpb

POLICY = """\
version: 1
unmatched: allow
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes: {draft: {tier: premium, max_output_tokens: 1000}}
budgets:
  - {id: shared, match: {team: "*"}, window: total, limit: $1000}
"""
TEAMS = (f"team-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def parted(made_cluster, tmp_path_factory):
    """Two coordinators on one PostgreSQL; each daemon knows one of them only."""
    folder = tmp_path_factory.mktemp("switches")
    policy, file = folder / "policy.yaml", folder / "kills.yaml"
    policy.write_text(POLICY)
    postgres = PostgresServer(like=made_cluster).start()
    fleet = FleetProcesses("--tenure-s", "3", database_url=postgres.url, policy=policy)
    try:
        fleet.start(coordinators=2, daemons=0)
        for coordinator in fleet.coordinators:
            fleet.add_daemon("--kill-file", str(file), coordinators=[coordinator.listen])
        for daemon in fleet.daemons:
            daemon.wait_for("serving")
        desks = [Desk(daemon) for daemon in fleet.daemons]
        yield SimpleNamespace(
            fleet=fleet,
            postgres=postgres,
            coordinators=fleet.coordinators,
            daemons=fleet.daemons,
            desks=desks,
            file=file,
        )
    finally:
        fleet.close()
        postgres.close()


@pytest.fixture
def team():
    """A team that nothing stops yet."""
    return next(TEAMS)


def engage(coordinator, team):
    return coordinator.control.EngageKill(
        cpb.EngageKillRequest(
            kill_id=f"stop-{team}", scope={"team": team}, reason="a test", actor="ops"
        ),
        wait_for_ready=True,
    )


def release(coordinator, team):
    request = cpb.ReleaseKillRequest(kill_id=f"stop-{team}", actor="ops")
    return coordinator.control.ReleaseKill(request, wait_for_ready=True)


def stopped(desk, team):
    return desk.admit(0.01, labels={"team": team}).reason == pb.REASON_KILL_SWITCH


def drill(coordinator):
    """Drill from one coordinator, in a second and one more for whom nobody hears."""
    request = fpb.DrillFleetRequest(reason="a drill")
    request.timeout.FromSeconds(1)
    return coordinator.fleet.DrillFleet(request, wait_for_ready=True)


def count(process, event):
    return sum(line.get("event") == event for line in process.lines)


# ---- kill switches ------------------------------------------------------------------------------


def test_a_switch_reaches_the_daemons_of_the_other_coordinator(parted, team):
    first, second = parted.coordinators
    engage(first, team)
    for desk in parted.desks:
        poll(lambda desk=desk: stopped(desk, team))
    release(second, team)
    for desk in parted.desks:
        poll(lambda desk=desk: not stopped(desk, team))
    for desk in parted.desks:
        rows = desk.audit_of(f"stop-{team}")
        actions = [row.action for row in rows if row.action != "denied"]
        assert actions == ["kill_released", "kill_engaged"]


def test_a_switch_reaches_a_coordinators_daemons_while_postgresql_is_down(parted, team):
    first, second = parted.coordinators
    told = count(parted.daemons[0], "coordinator_lost")
    parted.postgres.kill()
    try:
        # By now it is a member nowhere, and cannot become one.
        parted.daemons[0].wait_for("coordinator_lost", at_least=told + 1)
        engage(first, team)
        poll(lambda: stopped(parted.desks[0], team))
        assert not stopped(parted.desks[1], team), "nothing leads there now"
        # It is in the journal: a coordinator that is killed has not forgotten it.
        first.kill()
        first.launch()
    finally:
        parted.postgres.start()
    first.served()
    poll(lambda: stopped(parted.desks[1], team))
    release(second, team)
    for desk in parted.desks:
        poll(lambda desk=desk: not stopped(desk, team))
    audit = first.control.ListAudit(cpb.ListAuditRequest(), wait_for_ready=True).records
    actions = [row.action for row in audit if row.subject == f"stop-{team}"]
    assert sorted(actions) == ["kill_engaged", "kill_released"], "each once, whatever was down"


@pytest.mark.parametrize("asked", [0, 1])
def test_a_drill_reaches_the_daemons_and_clients_of_every_coordinator(parted, asked):
    coordinator = parted.coordinators[asked]

    def drilled():
        found = drill(coordinator)
        drills.append(found)
        return (
            sorted(row.name for row in found.daemons if row.HasField("heard_ns")),
            [row.clients_count for row in found.daemons],
            found.elsewhere_count,
        )

    drills = []
    with ExitStack() as attached:
        for daemon in parted.daemons:
            client = attached.enter_context(Client(daemon.address, caller="t"))
            # Its first ask opens the stream; of no budget, since its daemon may be joining anew.
            assert client.admit(task_class="draft", estimated_cost_nusd=1_000).allowed
        poll(lambda: drilled() == (["d1", "d2"], [1, 1], 0))
    report = drills[-1]
    assert report.HasField("elsewhere_count")
    assert (report.clients_count, report.unconfirmed_clients_count) == (2, 0)
    for desk in parted.desks:
        assert any(report.drill_id in row.detail for row in desk.audit("kill_drilled"))


def test_a_drill_counts_the_daemons_of_a_coordinator_that_does_not_answer(parted):
    first, second = parted.coordinators
    poll(lambda: drill(first).daemons_count == 2)
    second.kill()
    try:
        report = drill(first)
        assert [row.name for row in report.daemons if row.HasField("heard_ns")] == ["d1"]
        assert (report.daemons_count, report.elsewhere_count) == (1, 1)
    finally:
        second.start()
    poll(lambda: drill(first).confirmed_count == 2)


def test_switches_and_drills_are_answered_while_postgresql_stands_still(parted, team):
    first, second = parted.coordinators
    told = count(first, "database_unavailable")
    parted.postgres.freeze()
    try:
        line = first.wait_for("database_unavailable", at_least=told + 1)
        assert "PostgreSQL at " in line["problem"]
        engage(first, team)
        poll(lambda: stopped(parted.desks[0], team))
        drilled = first.fleet.DrillFleet(fpb.DrillFleetRequest(actor=team, reason="a drill"))
        assert [row.name for row in drilled.daemons] == ["d1"]
        assert drilled.confirmed_count == 1
        assert not drilled.HasField("elsewhere_count")
    finally:
        parted.postgres.thaw()
    poll(lambda: stopped(parted.desks[1], team))
    release(second, team)
    poll(lambda: not stopped(parted.desks[0], team))

    def drills():
        audit = first.control.ListAudit(cpb.ListAuditRequest(), wait_for_ready=True).records
        return [row.subject for row in audit if (row.actor, row.action) == (team, "kill_drilled")]

    poll(lambda: drills() == [drilled.drill_id])


def test_a_daemon_is_stopped_at_its_own_socket_and_by_its_file_without_a_coordinator(parted, team):
    coordinator, desk, other = parted.coordinators[0], parted.desks[0], next(TEAMS)
    coordinator.kill()
    try:
        desk.engage(f"here-{team}", scope={"team": team})
        assert stopped(desk, team)
        parted.file.write_text(f"- {{id: {other}, scope: {{team: {other}}}}}\n")
        poll(lambda: stopped(desk, other))
        desk.kill_9()
        assert stopped(desk, team)
        assert stopped(desk, other)
    finally:
        coordinator.start()
    poll(lambda: not coordinator.daemons()["d1"].tenure_ends_ns <= desk.status().now_ns)
    assert stopped(desk, team), "what was engaged here stays, whatever the coordinator knows"
    assert stopped(desk, other)
    parted.file.unlink()
    desk.release(f"here-{team}")
    poll(lambda: not stopped(desk, other))
    assert not stopped(desk, team)


# ---- policies -----------------------------------------------------------------------------------


def test_a_policy_reaches_every_daemon_and_every_decision_names_it(parted, team):
    first, second = parted.coordinators
    published = first.publish(f"# {team}\n{POLICY}")
    for desk in parted.desks:
        poll(
            lambda desk=desk: (
                desk.admit(0.01, labels={"team": team}).policy_revision == published.revision
            )
        )
        assert desk.status().policy_revision == published.revision
    for coordinator in (first, second):
        poll(
            lambda coordinator=coordinator: (
                {row.policy_number for row in coordinator.daemons().values()} == {published.number}
            )
        )


def test_a_bad_policy_is_refused_at_publishing_and_changes_nothing(parted):
    before = [desk.status().policy_revision for desk in parted.desks]
    bad = POLICY.replace("window: total", "window: fortnight")
    refusal = parted.desks[0].refusal(parted.coordinators[0].publish, bad)
    assert refusal.code == "INVALID_ARGUMENT"
    assert "fortnight" in refusal.details
    assert [desk.status().policy_revision for desk in parted.desks] == before
    assert parted.coordinators[1].control.GetPolicy(cpb.GetPolicyRequest()).revision == before[1]


def test_a_policy_cannot_be_published_while_postgresql_is_down_and_can_afterwards(parted, team):
    before = [desk.status().policy_revision for desk in parted.desks]
    parted.postgres.kill()
    try:
        refusal = parted.desks[0].refusal(parted.coordinators[0].publish, f"# {team}\n{POLICY}")
        assert refusal.code == "UNAVAILABLE"
        assert "PostgreSQL" in refusal.details
    finally:
        parted.postgres.start()
    assert [desk.status().policy_revision for desk in parted.desks] == before

    poll(lambda: if_available(parted.coordinators[0].publish, f"# {team}\n{POLICY}"))
    revision = parted.coordinators[0].control.GetPolicy(cpb.GetPolicyRequest()).revision
    for desk in parted.desks:
        poll(lambda desk=desk: desk.status().policy_revision == revision)


def test_a_daemon_starts_from_its_last_good_policy_without_a_coordinator(parted, team):
    coordinator, desk = parted.coordinators[0], parted.desks[0]
    revision = desk.status().policy_revision
    coordinator.kill()
    try:
        desk.kill_9()
        assert desk.status().policy_revision == revision
        assert desk.admit(0.01).policy_revision == revision
        # Its tenure outlives a restart on the same boot; after that it holds nothing.
        poll(lambda: desk.admit(1, labels={"team": team}).reason == pb.REASON_NO_LEASE)
    finally:
        coordinator.start()
    poll(lambda: desk.admit(1, labels={"team": team}).reservation_id)
