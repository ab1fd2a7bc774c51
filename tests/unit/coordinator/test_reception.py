"""What a message of one daemon does to the streams and to what others hold."""

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration
from policy_parts import budget, policy, rate, step

from costd.coordinator.lendable import Span
from costd.coordinator.reception import Connection, Published, Received, Reception
from costd.daemon.books.enacting import compiled
from costd.engine import keys
from costd.engine.shares import WHOLE
from costd.errors import InvalidAsk
from costd.model.time import NS_PER_S
from costd.testing import FakeClock
from costd.testing.fleet_store import MemoryFleetStore
from costd.wire.pb import fleet_pb2 as pb

BUDGET = budget("b", "100", steps=[step(50, alert=True)])
RATE = rate("r", 10)
RATE_KEY = keys.share_key(keys.rate_tag(RATE))
SPAN = Span()


class Streams:
    """A replica, and what went out on streams to it."""

    def __init__(self):
        self.clock, self.store = FakeClock(), MemoryFleetStore()
        self.rules = compiled(policy(BUDGET, RATE), self.clock.wall_ns, in_fleet=True)
        published = Published(pb.PublishedPolicy(number=1), self.rules)
        self.reception = Reception(self.store, self.clock, published, SPAN)
        self.said = {}
        self.closed = []

    def open(self, name):
        """Enrol a daemon on a stream of its own; `name` is the stream's, its first letter whose."""

        def close(error):
            self.closed.append((name, error))

        self.said[name] = []
        connection = Connection(self.said[name].append, close)
        enrol = pb.Enrol(daemon_id=name[0], name=name[0], now_ns=self.clock.wall_ns)
        known = self.store.daemons.get(name[0])
        enrol.epoch = known.epoch if known else 0
        self.hear(connection, pb.ToCoordinator(enrol=enrol))
        return connection

    def hear(self, connection, message):
        asyncio.run(self.reception.receive([Received(connection, message)]))

    def request(self, connection, sequence, key, amount):
        stand = pb.Stand(counter_key=key)
        want = pb.Want(stand=stand, amount_min=amount, amount_wanted=amount)
        request = pb.LeaseRequest(
            request_id="1", epoch=connection.epoch, sequence=sequence, wants=[want]
        )
        self.hear(connection, pb.ToCoordinator(request=request))
        return self.said[connection.daemon_id][-1].reply.grants[0]


@pytest.fixture
def streams():
    return Streams()


def test_a_daemon_that_comes_on_another_stream_ends_the_first_and_goes_on_by_the_second(streams):
    first = streams.open("a1")
    second = streams.open("a2")
    [(name, error)] = streams.closed
    assert name == "a1"
    assert isinstance(error, InvalidAsk)
    assert streams.reception.attached == {"a": second}
    streams.reception.lost(first)
    assert streams.reception.attached == {"a": second}


def test_a_stream_of_another_daemon_ends_none(streams):
    streams.open("a")
    streams.open("b")
    assert streams.closed == []
    assert set(streams.reception.attached) == {"a", "b"}


def test_a_scarce_rate_is_taken_back_of_who_is_gone_and_of_nobody_else(streams):
    gone, other = streams.open("a"), streams.open("b")
    assert streams.request(gone, 1, RATE_KEY, WHOLE).amount == WHOLE
    streams.clock.advance((SPAN.tenure_ns + SPAN.skew_ns_max) / NS_PER_S)
    assert streams.request(other, 1, RATE_KEY, WHOLE).outcome == pb.LEASE_OUTCOME_RECALLED
    assert streams.store.shares[RATE_KEY, "a"].stand.amount == WHOLE
    streams.clock.advance(1.001)
    streams.request(other, 2, RATE_KEY, WHOLE)
    assert streams.store.shares[RATE_KEY, "a"].stand.amount == 0
    assert streams.request(other, 3, RATE_KEY, WHOLE).amount == WHOLE


def test_a_step_that_the_fleet_reaches_together_alerts_once(streams):
    [rule] = streams.rules.budgets.values()
    key = rule.counter_key({}, streams.clock.wall_ns)
    both = [streams.open("a"), streams.open("b")]
    alerts = []
    for sequence, usd in ((1, 20), (2, 26), (3, 27)):
        for connection in both:
            amount = usd * NS_PER_S
            stand = pb.Stand(counter_key=key, settled=amount)
            report = pb.LeaseReport(epoch=connection.epoch, sequence=sequence, stands=[stand])
            streams.hear(connection, pb.ToCoordinator(report=report))
        alerts.append(len(streams.store.alerts))
    assert alerts == [0, 1, 1]


def test_everybody_hears_of_kill_switches_also_who_is_not_enrolled_yet_and_nobody_who_is_gone(
    streams,
):
    streams.open("a")
    gone = streams.open("b")
    streams.reception.lost(gone)
    arriving, left = [], []
    for said, daemon_id in ((arriving, "c"), (left, "d")):
        connection = Connection(said.append, lambda error: None)
        streams.reception.arrive(connection, pb.Enrol(daemon_id=daemon_id, name=daemon_id))
    streams.reception.lost(connection)
    for said in streams.said.values():
        said.clear()
    streams.reception.kill(pb.KillList(version=7))
    told = [[message.kills.version for message in said] for said in streams.said.values()]
    assert told == [[7], []]
    assert [message.kills.version for message in arriving] == [7]
    assert left == []
    assert sorted(streams.reception.listening) == ["a", "c"]


@pytest.mark.parametrize(
    "figures",
    [
        {"clients_count": 2**63 - 1},
        {"unconfirmed_count": -1},
        {"slowest": Duration(seconds=3_601)},
        {"slowest": Duration(nanos=-1)},
    ],
)
def test_a_daemon_that_confirms_a_drill_with_nonsense_spoils_nobody_elses(streams, figures):
    heard = []
    streams.reception.drill_heard = lambda connection, message: heard.append(message)
    connection = streams.open("a")
    with pytest.raises(InvalidAsk, match="0 to 1000000 clients"):
        streams.reception.drilled(connection, pb.DrillConfirmation(drill_id="d", **figures))
    assert heard == []
    streams.reception.drilled(connection, pb.DrillConfirmation(drill_id="d", clients_count=3))
    assert len(heard) == 1
