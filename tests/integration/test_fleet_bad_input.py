"""What a coordinator does with messages that make no sense, and a daemon with a coordinator that does
not; and policies that change what is lent."""

import itertools
import queue
import threading
import time
import uuid
from concurrent import futures

import grpc
import psycopg
import pytest
from desk import USD, Desk, poll

from costd.daemon.fleet.member import JOIN
from costd.engine import keys
from costd.engine.window import window_bounds
from costd.policy import parse_policy
from costd.testing.fleet import FleetProcesses
from costd.wire.pb import admission_pb2 as apb
from costd.wire.pb import control_pb2, fleet_control_pb2
from costd.wire.pb import fleet_pb2 as pb

POLICY = """\
version: 1
unmatched: allow
fleet: {lease_wait_ms: 5000}
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes: {draft: {tier: premium, max_output_tokens: 1000}}
budgets:
  - {id: shared, match: {team: "*"}, per: team, window: total, limit: $1000}
"""
HOUR_NS = 3_600 * 10**9


@pytest.fixture(scope="module")
def coordinator(shared_database, tmp_path_factory):
    """A coordinator that hand-made daemons talk to."""
    policy = tmp_path_factory.mktemp("bad") / "policy.yaml"
    policy.write_text(POLICY)
    fleet = FleetProcesses("--tenure-s", "3", database_url=shared_database, policy=policy)
    try:
        yield fleet.start(coordinators=1, daemons=0).coordinators[0]
    finally:
        fleet.close()


class Stream:
    """A daemon made by hand: says what it is told to say."""

    def __init__(self, address):
        self.daemon_id = f"daemon-{uuid.uuid4().hex}"
        self._channel = grpc.insecure_channel(address)
        self._says = queue.SimpleQueue()
        join = self._channel.stream_stream(
            JOIN,
            request_serializer=lambda message: (
                message if isinstance(message, bytes) else message.SerializeToString()
            ),
            response_deserializer=pb.ToDaemon.FromString,
        )
        self._hears = join(iter(self._says.get, None))

    def say(self, **message):
        self._says.put(pb.ToCoordinator(**message))

    def say_bytes(self, raw):
        self._says.put(raw)

    def hear(self, kind):
        return next(
            getattr(each, kind) for each in self._hears if each.WhichOneof("message") == kind
        )

    def enrol(self, *, now_ns=0, **fields):
        enrol = pb.Enrol(
            daemon_id=self.daemon_id, name="by hand", now_ns=now_ns or time.time_ns(), **fields
        )
        self.say(enrol=enrol)
        return self.hear("welcome")

    def ended(self):
        """Wait for the error that ends it."""
        with pytest.raises(grpc.RpcError) as caught:
            for _ in self._hears:
                pass
        return caught.value.code().name, caught.value.details()

    def close(self):
        self._says.put(None)
        self._channel.close()


@pytest.fixture
def stream(coordinator):
    made = Stream(coordinator.address)
    yield made
    made.close()


def key_of(team):
    budget = parse_policy(POLICY, "policy").budgets[0]
    end_ns = window_bounds(budget.window, time.time_ns())[1]
    return keys.window_prefix(end_ns, keys.budget_tag(budget)) + f"team={team}".encode()


def want(team, amount, **fields):
    stand = pb.Stand(counter_key=key_of(team), **fields)
    return pb.Want(stand=stand, amount_min=amount, amount_wanted=amount)


def report(epoch, sequence, team, **fields):
    stand = pb.Stand(counter_key=key_of(team), **fields)
    return pb.LeaseReport(epoch=epoch, sequence=sequence, stands=[stand], now_ns=time.time_ns())


# ---- messages over the real wire ----------------------------------------------------------------


def test_a_message_of_an_unknown_epoch_ends_the_stream(stream):
    epoch = stream.enrol().epoch
    stream.say(report=report(epoch + 7, 1, "epoch", settled=USD))
    code, details = stream.ended()
    assert code == "ABORTED"
    assert "enrol anew" in details


def test_a_report_that_comes_twice_is_receipted_and_counts_once(stream, coordinator):
    epoch = stream.enrol().epoch
    stream.say(
        request=pb.LeaseRequest(
            request_id="r", epoch=epoch, sequence=1, wants=[want("twice", 10 * USD)]
        )
    )
    (grant,) = stream.hear("reply").grants
    assert grant.outcome == pb.LEASE_OUTCOME_GRANTED
    first = report(epoch, 2, "twice", amount=grant.amount, settled=USD, version=grant.version)
    other = report(epoch, 2, "twice", amount=grant.amount, settled=5 * USD, version=grant.version)
    for each in (first, first, other):
        stream.say(report=each)
        assert stream.hear("receipt").sequence == 2
    assert _row(coordinator, "team=twice").settled == USD


def test_a_gap_between_reports_ends_the_stream_and_changes_nothing(stream, coordinator):
    epoch = stream.enrol().epoch
    stream.say(report=report(epoch, 1, "gap", settled=USD, amount=USD))
    stream.hear("receipt")
    stream.say(report=report(epoch, 3, "gap", settled=9 * USD, amount=9 * USD))
    code, details = stream.ended()
    assert code == "INVALID_ARGUMENT"
    assert "one between is lost" in details
    assert _row(coordinator, "team=gap").settled == USD


def test_a_gap_between_usage_events_ends_the_stream_and_stores_nothing(stream):
    epoch = stream.enrol().epoch
    event = pb.UsageBatch(epoch=epoch)
    event.events.add(sequence=5, reservation_id="x", settled_ns=time.time_ns())
    stream.say(usage=event)
    code, details = stream.ended()
    assert code == "INVALID_ARGUMENT"
    assert "send those between" in details


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "a daemon's message is"),
        (b"\xff\xff\xff", "the message is none of a daemon"),
        (pb.ToCoordinator(report=pb.LeaseReport()).SerializeToString(), "Enrol comes first"),
    ],
)
def test_a_first_message_that_is_no_enrol_ends_the_stream(stream, raw, said):
    stream.say_bytes(raw)
    code, details = stream.ended()
    assert code == "INVALID_ARGUMENT"
    assert said in details


def test_bytes_that_are_no_message_in_mid_stream_end_it(stream):
    stream.enrol()
    stream.say_bytes(b"\x0a\xff\xff\xff\xff")
    assert stream.ended()[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("key", [b"", b"short", b"\xff" * 400])
def test_a_counter_key_that_is_none_harms_nobody(stream, coordinator, key):
    epoch = stream.enrol().epoch
    odd = pb.Want(stand=pb.Stand(counter_key=key), amount_min=1, amount_wanted=1)
    stream.say(request=pb.LeaseRequest(request_id="r", epoch=epoch, sequence=1, wants=[odd]))
    (grant,) = stream.hear("reply").grants
    assert grant.outcome == pb.LEASE_OUTCOME_NO_BUDGET
    assert coordinator.daemons()["by hand"].epoch


def test_a_daemon_whose_clock_is_an_hour_off_is_lent_nothing_and_operators_see_why(
    stream, coordinator
):
    epoch = stream.enrol(now_ns=time.time_ns() + HOUR_NS).epoch
    stream.say(
        request=pb.LeaseRequest(request_id="r", epoch=epoch, sequence=1, wants=[want("clock", USD)])
    )
    (grant,) = stream.hear("reply").grants
    assert grant.outcome == pb.LEASE_OUTCOME_NOT_NOW
    assert grant.amount == 0
    rows = coordinator.fleet.ListDaemons(fleet_control_pb2.ListDaemonsRequest()).daemons
    (row,) = (row for row in rows if row.daemon_id == stream.daemon_id)
    assert abs(row.clock_offset_ns - HOUR_NS) < 60 * 10**9


def test_a_daemon_that_nobody_knows_is_none_that_operators_can_name(coordinator):
    for ask, request in (
        (coordinator.fleet.ReclaimLeases, fleet_control_pb2.ReclaimLeasesRequest),
        (coordinator.fleet.ListLeases, fleet_control_pb2.ListLeasesRequest),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            ask(request(daemon="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert "no daemon 'nobody' is known" in caught.value.details()


def granted(stream, epoch, sequence, team, amount):
    asked = pb.LeaseRequest(
        request_id=f"r{sequence}", epoch=epoch, sequence=sequence, wants=[want(team, amount)]
    )
    stream.say(request=asked)
    (grant,) = stream.hear("reply").grants
    return grant.outcome == pb.LEASE_OUTCOME_GRANTED


def test_what_an_unknown_daemon_says_that_it_was_lent_is_lent_to_nobody_else(fleet):
    """Its coordinator's database may have been restored; money that may be spent stays taken."""
    (place,) = fleet(POLICY, "--tenure-s", "1").start(daemons=0).coordinators
    unknown, other, third = streams = [Stream(place.address) for _ in range(3)]
    try:
        stand = pb.Stand(
            counter_key=key_of("claimed"), amount=400 * USD, settled=300 * USD, version=2
        )
        welcome = unknown.enrol(epoch=7, heard_epoch=7, heard_sequence=9, stands=[stand])
        assert welcome.epoch == 8, "what was said in its old epochs is void"
        assert welcome.has_forgotten
        assert _row(place, "team=claimed").settled == 300 * USD
        epoch, sequences = other.enrol().epoch, itertools.count(1)
        assert not granted(other, epoch, next(sequences), "claimed", 600 * USD), "it learns first"
        poll(lambda: granted(other, epoch, next(sequences), "claimed", 600 * USD))
        assert not granted(third, third.enrol().epoch, 1, "claimed", 1)
    finally:
        for each in streams:
            each.close()


def _row(coordinator, key):
    rows = coordinator.control.ListBudgets(control_pb2.ListBudgetsRequest()).budgets
    (row,) = (row for row in rows if row.key == key)
    return row


# ---- a coordinator made by hand -----------------------------------------------------------------


def test_a_daemon_says_that_its_clock_is_off_and_then_that_it_is_right():
    offset_ns = [HOUR_NS]
    done = threading.Event()

    def join(says, _context):
        for message in says:
            now_ns = time.time_ns() + offset_ns[0]
            if message.HasField("enrol"):
                welcome = pb.Admittance(epoch=1, now_ns=now_ns)
                welcome.tenure.FromSeconds(3)
                yield pb.ToDaemon(welcome=welcome)
                yield pb.ToDaemon(policy=pb.PublishedPolicy(number=1, revision="r", yaml=POLICY))
            elif message.HasField("report"):
                receipt = pb.ReportReceipt(epoch=1, sequence=message.report.sequence, now_ns=now_ns)
                receipt.tenure.FromSeconds(3)
                yield pb.ToDaemon(receipt=receipt)
            elif message.HasField("request"):
                reply = pb.LeaseReply(request_id=message.request.request_id, epoch=1, now_ns=now_ns)
                for each in message.request.wants:
                    reply.grants.add(
                        counter_key=each.stand.counter_key, outcome=pb.LEASE_OUTCOME_NOT_NOW
                    )
                reply.retry_after.FromMilliseconds(500)
                yield pb.ToDaemon(reply=reply)
            if done.is_set():
                return

    server = grpc.server(futures.ThreadPoolExecutor(4))
    handler = grpc.stream_stream_rpc_method_handler(
        join,
        request_deserializer=pb.ToCoordinator.FromString,
        response_serializer=pb.ToDaemon.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("costd.v1.Fleet", {"Join": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    fleet = FleetProcesses(database_url="", policy=None)
    try:
        daemon = fleet.add_daemon(coordinators=[f"127.0.0.1:{port}"])
        line = daemon.wait_for("clock_off")
        assert line["offset_s"] == pytest.approx(-3600, abs=60)
        assert "set the clock" in line["problem"]
        daemon.wait_for("serving")
        desk = Desk(daemon)
        refused = desk.admit(1, labels={"team": "a"})
        assert refused.reason == apb.REASON_NO_LEASE
        desk.close()
        offset_ns[0] = 0
        daemon.wait_for("clock_right")
    finally:
        done.set()
        fleet.close()
        server.stop(0)


# ---- asks and policies --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(coordinator, tmp_path_factory):
    """A fleet of two daemons at the same coordinator."""
    fleet = FleetProcesses(database_url=coordinator.database_url, policy=None)
    try:
        for _ in range(2):
            fleet.add_daemon(coordinators=[coordinator.listen])
        for daemon in fleet.daemons:
            daemon.wait_for("serving")
        yield [Desk(daemon) for daemon in fleet.daemons]
    finally:
        fleet.close()


@pytest.mark.parametrize("dollars", [1_001, 1_000_000])
def test_an_ask_for_more_than_any_budget_has_is_refused_as_too_large(pair, dollars):
    first, _ = pair
    first.settle(first.hold(1, labels={"team": "huge"}), 1)
    decision = first.admit(dollars, labels={"team": "huge"})
    assert not decision.reservation_id
    assert decision.reason == apb.REASON_BUDGET_EXHAUSTED, decision


def _settled(coordinator, team):
    """What was ever settled of a team, by whatever budget."""
    with psycopg.connect(coordinator.database_url) as connection:
        (settled,) = connection.execute(
            "SELECT coalesce(sum(settled), 0)::bigint FROM pools WHERE position(%s IN counter_key) > 0",
            (team.encode(),),
        ).fetchone()
    return settled


@pytest.mark.parametrize(
    ("change", "keeps"),
    [
        (lambda text: text.replace("id: shared", "id: common, was: shared"), True),
        (lambda text: text.replace("id: shared", "id: renamed"), False),
        (lambda text: text.replace("window: total", "window: year"), False),
        (lambda text: text.replace("limit: $1000", "limit: $5"), True),
    ],
    ids=["renamed", "renamed without was", "another window", "lower limit"],
)
def test_a_policy_that_changes_a_budget_that_is_lent_loses_nothing(
    pair, coordinator, change, keeps
):
    team = f"team-{uuid.uuid4().hex[:8]}"
    labels = {"team": team}
    held = [desk.hold(5, labels=labels) for desk in pair for _ in range(2)]
    try:
        published = coordinator.publish(f"# {team}\n{change(POLICY)}")
        for desk in pair:
            poll(lambda desk=desk: desk.status().policy_revision == published.revision)
        if keeps:
            limit = 5 if "$5}" in change(POLICY) else 1000
            refused = pair[0].admit(max(0.01, limit - 19), labels=labels)
            assert not refused.reservation_id, "what was held before counts"
        else:
            # It begins anew.
            poll(lambda: pair[0].admit(900, labels=labels).reservation_id)
        for desk, reservation_id in zip([pair[0], pair[0], pair[1], pair[1]], held, strict=True):
            desk.settle(reservation_id, 4)
        poll(lambda: _settled(coordinator, team) == 16 * USD)
    finally:
        published = coordinator.publish(f"# after {team}\n{POLICY}")
        for desk in pair:
            poll(lambda desk=desk: desk.status().policy_revision == published.revision)
