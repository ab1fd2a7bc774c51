"""A real daemon that comes back after its coordinator has forgotten it."""

import asyncio

import psycopg
from desk import Desk

from costd.clock import SystemClock
from costd.coordinator.database import Database
from costd.coordinator.old_rows import OldRows

POLICY = """\
version: 1
task_classes: {draft: {}}
default_task_class: draft
budgets:
  - {id: all, window: total, limit: $2}
  - {id: run, match: {run: "*"}, per: [run], window: run, limit: $1}
  - {id: day, window: day, limit: $2}
fleet: {lease_wait_ms: 5000}
"""


async def forget(url: str) -> list[str]:
    """Forget the daemons that are not heard, as a month later."""
    database, now_ns = Database(url), SystemClock().now().wall_ns
    await database.open()
    try:
        _, gone = await OldRows(database).daemons(heard_before_ns=2**62, at_ns=now_ns)
        return gone
    finally:
        await database.close()


def spend(daemon, dollars: float, **labels) -> None:
    """Make one call."""
    desk = Desk(daemon)
    held = desk.hold(dollars, labels=labels)
    desk.settle(held, dollars)
    desk.close()


def test_a_daemon_that_was_forgotten_goes_on_and_nothing_is_counted_twice(fleet):
    running = fleet(POLICY).start(daemons=2)
    [here, gone] = running.daemons
    spend(here, 0.25)
    spend(gone, 0.5, run="one")
    assert running.problems() == []
    gone.stop()
    with psycopg.connect(running.database_url) as connection:
        [told] = connection.execute("SELECT daemon_id FROM daemons WHERE name = 'd2'").fetchall()
    for each in running.coordinators:
        each.stop()
    here.stop()
    # The other one has given nothing back: nobody listened.
    assert asyncio.run(forget(running.database_url)) == [*told]
    with psycopg.connect(running.database_url) as connection:
        assert connection.execute("SELECT name FROM daemons").fetchall() == [("d1",)]
        assert connection.execute("SELECT count(*) FROM shares").fetchone() == (5,)
    for each in running.coordinators:
        each.start()
    for each in (here, gone):
        each.start()
        each.wait_for("serving")
    assert running.problems() == []
    spend(here, 0.25)
    spend(gone, 0.25, run="one")
    assert running.problems() == []
    with psycopg.connect(running.database_url) as connection:
        back = connection.execute("SELECT daemon_id FROM daemons WHERE name = 'd2'").fetchall()
        alerts = connection.execute("SELECT kind FROM alerts").fetchall()
        lends = connection.execute("SELECT * FROM versions WHERE name = 'restored'").fetchall()
    assert (back, alerts, lends) == ([told], [], [])
