"""What operators see of allowances, and how they revoke one."""

import urllib.request

import pytest
from allowance_world import CALL_NUSD, CALL_TOKENS, LIFETIME_S, MARGIN_S, S, World
from prometheus_client.parser import text_string_to_metric_families

from costd.daemon.clients.pages import FilePages, NoPages
from costd.daemon.control import ControlService
from costd.daemon.meters import meter_allowances
from costd.engine.changes import Family
from costd.errors import InvalidAsk, ReservationNotFound, StoreUnavailable
from costd.model.allowance import Sums
from costd.telemetry.metrics import Metrics
from costd.wire.pb import control_pb2 as pb


class Source:
    """A policy that came from nowhere."""

    path = text = error = ""
    loaded_ns = 0

    def reload(self, actor):
        raise NotImplementedError(actor)


class Operator:
    """Asks one world's Control service."""

    def __init__(self, world):
        self.service = ControlService(world.ledger, Source(), world.desk)
        self._store = world.store

    def list(self, limit_count=0):
        return self.service.ListAllowances(pb.ListAllowancesRequest(limit_count=limit_count), "")

    def only(self):
        (row,) = self.list().allowances
        return row

    def revoke(self, allowance_id, caller="", **fields):
        request = pb.RevokeAllowanceRequest(allowance_id=allowance_id, **fields)
        return self.service.RevokeAllowance(request, caller).allowance

    def status(self):
        return self.service.GetStatus(pb.GetStatusRequest(), "")

    def audited(self):
        return [
            (record.actor, record.subject, record.detail)
            for _, record in self._store.scan(Family.AUDIT)
            if record.action == "allowance_revoked"
        ]


@pytest.fixture
def world():
    made = World()
    yield made
    made.check()


@pytest.fixture
def operator(world):
    return Operator(world)


def amounts(sums):
    return sums.calls_count, sums.amount_nusd, sums.tokens_count


def of_calls(count):
    return count, count * CALL_NUSD, count * CALL_TOKENS


# ---- listing -------------------------------------------------------------------------------------


def test_an_allowance_is_shown_with_all_that_it_was_granted_for(world, operator):
    client = world.client("ann").hello()
    granted_ns = world.clock.now().wall_ns
    allowance = client.granted(100, labels={"team": "core"})
    row = operator.only()
    assert row.allowance_id == allowance.allowance_id
    assert (row.session_id, row.caller, row.attached) == (client.session, "ann", True)
    assert row.state == pb.ALLOWANCE_STATE_OPEN
    assert (row.task_class, row.provider, row.model, row.tier) == (
        "draft", "openai", "gpt-4o", "premium",
    )  # fmt: skip
    assert dict(row.labels) == {"team": "core"}
    assert amounts(row.granted) == of_calls(100)
    assert amounts(row.drawn) == amounts(row.settled) == (0, 0, 0)
    assert row.reserved_nusd == 100 * CALL_NUSD
    assert row.expires_ns == granted_ns + LIFETIME_S * S
    assert (row.maps_pages, row.presumed) == (True, False)


def test_when_it_ends_does_not_move_with_the_clock_that_people_set(world, operator):
    world.client().hello().granted()
    before_ns = operator.only().expires_ns
    world.clock.advance(1)
    world.clock.jump_wall(3_600)
    assert operator.only().expires_ns == before_ns


def test_what_is_drawn_is_read_from_the_page_before_it_is_reported(world, operator):
    client = world.client().hello()
    allowance = client.granted(100)
    client.draw(allowance, 7)
    assert amounts(operator.only().drawn) == of_calls(7)
    assert operator.status().allowances_drawn_nusd == 0


def test_what_is_settled_is_no_longer_reserved(world, operator):
    client = world.client().hello()
    allowance = client.granted(100)
    sums = client.draw(allowance, 3)
    client.report(client.settled(allowance), drawn=[(allowance, sums)])
    row = operator.only()
    assert (amounts(row.drawn), amounts(row.settled)) == (of_calls(3), of_calls(1))
    assert row.reserved_nusd == 99 * CALL_NUSD


@pytest.mark.parametrize(
    "sums",
    [
        pytest.param(Sums(-1, 0, 0), id="negative"),
        pytest.param(Sums(101, 101 * CALL_NUSD, 101 * CALL_TOKENS), id="beyond the grant"),
        pytest.param(Sums(1, CALL_NUSD, CALL_TOKENS), id="less than was reported"),
    ],
)
def test_a_page_that_makes_no_sense_is_neither_believed_nor_acted_upon(world, operator, sums):
    client = world.client().hello()
    allowance = client.granted(100)
    client.report(drawn=[(allowance, client.draw(allowance, 5))])
    client.draw(allowance, sums.calls_count, sums.amount_nusd, sums.tokens_count)
    before = {family: dict(world.store.scan(family)) for family in Family}
    row = operator.only()
    assert amounts(row.drawn) == of_calls(5)
    assert row.state == pb.ALLOWANCE_STATE_OPEN
    assert {family: dict(world.store.scan(family)) for family in Family} == before
    assert client.granted(1).slot >= 0  # its pages are still trusted


def test_without_pages_what_is_drawn_is_what_was_reported(operator, world):
    client = world.client(maps_pages=False).hello()
    allowance = client.granted(100)
    assert operator.only().maps_pages is False
    client.report(drawn=[(allowance, client.sums(4))])
    assert amounts(operator.only().drawn) == of_calls(4)


def test_a_client_whose_stream_broke_is_shown_as_not_attached(world, operator):
    client = world.client().hello()
    client.granted()
    assert operator.status().sessions_attached_count == 1
    client.connection.close()
    assert operator.only().attached is False
    assert operator.status().sessions_attached_count == 0


def test_a_returned_allowance_drains_until_its_calls_have_ended(world, operator):
    client = world.client().hello()
    allowance = client.granted(100)
    sums = client.draw(allowance, 2)
    client.report(client.settled(allowance), drawn=[(allowance, sums)], returned=[allowance])
    row = operator.only()
    assert row.state == pb.ALLOWANCE_STATE_DRAINING
    assert row.reserved_nusd == CALL_NUSD
    status = operator.status()
    assert (status.allowances_open_count, status.allowances_draining_count) == (0, 1)
    assert (status.allowances_granted_nusd, status.allowances_drawn_nusd) == (0, 0)
    client.report(client.settled(allowance, 2))
    assert list(operator.list().allowances) == []


def test_what_nobody_can_know_is_shown_as_presumed(world, operator):
    client = world.client(maps_pages=False).hello()
    client.granted(100)
    client.connection.close()
    world.advance(LIFETIME_S + MARGIN_S)
    row = operator.only()
    assert (row.state, row.presumed) == (pb.ALLOWANCE_STATE_DRAINING, True)
    assert amounts(row.drawn) == (0, 0, 0)
    assert row.reserved_nusd == 100 * CALL_NUSD


def test_the_largest_come_first_and_a_limit_cuts_the_rest(world, operator):
    client = world.client().hello()
    for count in (10, 30, 20):
        client.granted(count)
    answer = operator.list()
    assert [row.granted.calls_count for row in answer.allowances] == [30, 20, 10]
    assert answer.truncated is False
    answer = operator.list(limit_count=2)
    assert [row.granted.calls_count for row in answer.allowances] == [30, 20]
    assert answer.truncated is True
    assert operator.list(limit_count=3).truncated is False


def test_one_that_is_closed_while_the_list_is_made_is_left_out(world, operator):
    client = world.client().hello()
    kept, closed = client.granted(10), client.granted(20)
    out = dict(world.desk.books.out)
    client.report(returned=[closed])
    world.desk.books.out = out
    assert [row.allowance_id for row in operator.list().allowances] == [kept.allowance_id]


def test_the_status_sums_up_what_is_open_as_far_as_it_was_reported(world, operator):
    for name in ("ann", "bob"):
        client = world.client(name).hello()
        allowance = client.granted(100)
        client.report(drawn=[(allowance, client.draw(allowance, 10))])
    status = operator.status()
    assert (status.sessions_attached_count, status.allowances_open_count) == (2, 2)
    assert status.allowances_granted_nusd == 200 * CALL_NUSD
    assert status.allowances_drawn_nusd == 20 * CALL_NUSD


# ---- revoking ------------------------------------------------------------------------------------


def test_a_revoked_allowance_is_told_to_its_client_and_written_down(world, operator):
    client = world.client("ann").hello()
    revoked, kept = client.granted(20), client.granted(10)
    generation = world.pages.generation
    row = operator.revoke(revoked.allowance_id, actor="ops@host", reason="runaway")
    assert row.state == pb.ALLOWANCE_STATE_REVOKED
    assert client.revocations() == [revoked.allowance_id]
    assert world.pages.generation == generation + 1
    states = {row.allowance_id: row.state for row in operator.list().allowances}
    assert states == {
        revoked.allowance_id: pb.ALLOWANCE_STATE_REVOKED,
        kept.allowance_id: pb.ALLOWANCE_STATE_OPEN,
    }
    assert operator.audited() == [
        ("ops@host", revoked.allowance_id, "draft on openai/gpt-4o of ann: runaway")
    ]


def test_what_a_revoked_allowance_drew_is_still_read_from_its_page(world, operator):
    client = world.client().hello()
    allowance = client.granted(20)
    client.draw(allowance, 6)
    assert amounts(operator.revoke(allowance.allowance_id).drawn) == of_calls(6)
    assert amounts(operator.only().drawn) == of_calls(6)


def test_revoking_again_changes_nothing(world, operator):
    client = world.client().hello()
    allowance = client.granted(20)
    operator.revoke(allowance.allowance_id)
    generation = world.pages.generation
    assert operator.revoke(allowance.allowance_id).state == pb.ALLOWANCE_STATE_REVOKED
    assert world.pages.generation == generation
    assert client.revocations() == [allowance.allowance_id]
    assert len(operator.audited()) == 1


def test_one_that_drains_cannot_be_drawn_and_is_not_revoked(world, operator):
    client = world.client().hello()
    allowance = client.granted(20)
    client.report(drawn=[(allowance, client.draw(allowance, 1))], returned=[allowance])
    assert operator.revoke(allowance.allowance_id).state == pb.ALLOWANCE_STATE_DRAINING
    assert operator.audited() == []
    assert client.revocations() == []


def test_whoever_calls_is_the_actor_if_none_is_named(world, operator):
    client = world.client("ann").hello()
    for caller, actor in (("console", "console"), ("", "unknown")):
        allowance = client.granted(10)
        operator.revoke(
            allowance.allowance_id.upper() if caller else allowance.allowance_id, caller
        )
        assert operator.audited()[-1] == (
            actor, allowance.allowance_id, "draft on openai/gpt-4o of ann",
        )  # fmt: skip


def test_an_allowance_that_is_not_out_is_not_found(world, operator):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(returned=[allowance])
    for allowance_id in (allowance.allowance_id, "0" * 32):
        with pytest.raises(ReservationNotFound, match=f"no allowance {allowance_id} is out"):
            operator.revoke(allowance_id)
    assert operator.audited() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"allowance_id": "ann's"},
        {"allowance_id": ""},
        {"actor": "a" * 1_025},
        {"reason": "line\nbreak"},
    ],
)
def test_a_revocation_that_is_not_clear_revokes_nothing(world, operator, fields):
    client = world.client().hello()
    allowance = client.granted(10)
    (field,) = fields
    with pytest.raises(InvalidAsk, match=f"^{field}"):
        operator.revoke(**({"allowance_id": allowance.allowance_id} | fields))
    assert operator.only().state == pb.ALLOWANCE_STATE_OPEN


def test_nothing_is_revoked_that_cannot_be_written_down(world, operator):
    client = world.client().hello()
    allowance = client.granted(10)
    commit = world.store.commit

    def full(puts):
        raise StoreUnavailable("the disk is full")

    world.store.commit = full
    with pytest.raises(StoreUnavailable):
        operator.revoke(allowance.allowance_id)
    world.store.commit = commit
    assert operator.only().state == pb.ALLOWANCE_STATE_OPEN
    assert client.revocations() == []


def test_what_was_out_when_the_daemon_started_is_shown_as_revoked(world):
    world.client().hello().granted()
    again = Operator(world.restarted())
    assert again.only().state == pb.ALLOWANCE_STATE_REVOKED
    assert again.only().attached is False


# ---- pages ---------------------------------------------------------------------------------------


def test_a_file_is_peeked_at_without_being_made(tmp_path):
    pages = FilePages(tmp_path / "costd.sock", mode=0o660)
    folder = tmp_path / "costd.sock.pages"
    assert pages.drawn("session", 3, 41) is None
    assert [path.name for path in folder.iterdir()] == ["daemon"]
    pages.open_client("session")
    pages.arm("session", 3, 41)
    assert pages.drawn("session", 3, 41) == Sums() == pages.drawn("session", 3, 41)
    assert pages.drawn("session", 3, 42) is None
    (folder / "session").write_bytes(b"cut short")
    assert pages.drawn("session", 3, 41) is None
    assert (folder / "session").read_bytes() == b"cut short"
    pages.close()


def test_where_there_are_no_pages_nothing_is_seen():
    assert NoPages().drawn("session", 0, 1) is None


# ---- metrics -------------------------------------------------------------------------------------


def scrape(metrics):
    address = metrics.listen("127.0.0.1", 0)
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("costd_") and not sample.labels
    }


def test_metrics_say_what_is_out_whoever_and_however_many_hold_it(world):
    ann, bob = world.client("ann").hello(), world.client("bob").hello()
    allowance = ann.granted(100)
    sums = ann.draw(allowance, 10)
    ann.report(drawn=[(allowance, sums)])
    ann.report(drawn=[(allowance, sums)], sequence=1)  # known, and not booked again
    bob.granted(50)
    returned = bob.granted(20)
    bob.report(drawn=[(returned, bob.draw(returned, 1))], returned=[returned])
    bob.connection.close()
    metrics = Metrics(version="9.9", name="host-a")
    meter_allowances(metrics, world.desk)
    assert scrape(metrics) == {
        "costd_allowances_open": 2,
        "costd_allowances_undrawn_nusd": 140 * CALL_NUSD,
        "costd_sessions_attached": 1,
        "costd_reports_booked_total": 2,
    }
    metrics.close()
