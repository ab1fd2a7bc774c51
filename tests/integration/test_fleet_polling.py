"""Two coordinators on a database that carries no notifications: they ask it instead."""

from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from desk import Desk, poll

from costd.coordinator import listen
from costd.coordinator.listen import is_heard
from costd.errors import CoordinatorUnavailable
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb import fleet_control_pb2 as fpb

POLICY = """\
version: 1
unmatched: deny
tiers: {premium: {models: [openai/gpt-4o]}}
task_classes: {draft: {tier: premium, max_output_tokens: 1000}}
budgets: [{id: shared, window: total, limit: $100}]
"""


@pytest.fixture
def without_notices(make_database):
    """A database whose owner may not notify anybody; its address, as that owner."""
    url, role = make_database(empty=True), f"quiet_{uuid4().hex}"
    name = urlsplit(url).path[1:]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC")
        connection.execute(f"ALTER DATABASE {name} OWNER TO {role}")
        connection.execute(f"ALTER SCHEMA public OWNER TO {role}")
    yield url.replace("user=postgres", f"user={role}")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} OWNER TO postgres")
        connection.execute(f"REASSIGN OWNED BY {role} TO postgres")
        connection.execute(f"DROP OWNED BY {role}")
        connection.execute(f"DROP ROLE {role}")


def stopped(desk):
    return desk.admit(0.01).reason == pb.REASON_KILL_SWITCH


async def test_a_real_postgresql_is_heard_through(database):
    assert await is_heard(database)


async def test_a_database_that_may_not_notify_is_not(without_notices, open_database):
    async with open_database(without_notices) as database:
        assert not await is_heard(database)


async def test_a_pooler_that_loses_what_is_told_is_found_out(database, monkeypatch):
    """It takes LISTEN on whatever connection comes by."""
    monkeypatch.setattr(listen, "CHANNEL", "lost; UNLISTEN *; LISTEN other")
    assert not await is_heard(database, within_s=0.05)


async def test_a_database_that_is_gone_is_no_reason_to_poll(database, monkeypatch):
    monkeypatch.setattr(database, "url", "postgresql://ann@127.0.0.1:1/fleet")
    with pytest.raises(CoordinatorUnavailable):
        await is_heard(database)


def test_replicas_that_poll_tell_each_other_of_switches_policies_and_recalls(
    fleet, without_notices
):
    running = fleet(POLICY, "--tenure-s", "3", database_url=without_notices)
    running.start(coordinators=2, daemons=0)
    first, second = running.coordinators
    assert "carries no notifications" in first.wait_for("notices_polled")["problem"]
    for place in (first, second):
        running.add_daemon(coordinators=[place.listen])
    for daemon in running.daemons:
        daemon.wait_for("serving")
    one, other = (Desk(daemon) for daemon in running.daemons)

    switch = cpb.EngageKillRequest(kill_id="all", reason="a test", actor="ops")
    first.control.EngageKill(switch)
    for desk in (one, other):
        poll(lambda desk=desk: stopped(desk))
    second.control.ReleaseKill(cpb.ReleaseKillRequest(kill_id="all", actor="ops"))
    for desk in (one, other):
        poll(lambda desk=desk: not stopped(desk))

    revision = second.publish(f"# next\n{POLICY}").revision
    for desk in (one, other):
        poll(lambda desk=desk: desk.status().policy_revision == revision)

    # A drill is nothing that a database could be asked for.
    for place, name in ((first, "d1"), (second, "d2")):

        def drilled(place=place):
            found = place.fleet.DrillFleet(fpb.DrillFleetRequest())
            return [row.name for row in found.daemons], found.elsewhere_count

        poll(lambda drilled=drilled, name=name: drilled() == ([name], 1))

    # What one holds and does not use is recalled for the other, by the other's replica.
    one.settle(one.hold(40), 1)
    poll(lambda: other.admit(98).reservation_id)
