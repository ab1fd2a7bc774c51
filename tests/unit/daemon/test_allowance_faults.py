"""What a review of allowances found, each as the sentence that was not true."""

import pytest
from allowance_world import (
    CALL_NUSD,
    CALL_TTL_S,
    HEAD,
    LIFETIME_S,
    MARGIN_S,
    PLAIN,
    World,
)

from costd.daemon.books.asking import Trust
from costd.daemon.clients.pages import FilePages, NoPages
from costd.engine.changes import Family
from costd.errors import InvalidAsk, StoreUnavailable
from costd.model.allowance import Sums
from costd.model.ask import Ask
from costd.model.money import AMOUNT_MAX
from costd.testing import MemoryStore
from costd.wire.pb import admission_pb2 as pb


@pytest.fixture
def world():
    made = World()
    yield made
    made.check()


def held(world, allowance):
    return world.ledger.find_reservation(bytes.fromhex(allowance.allowance_id))


def ask(world, number, amount, **fields):
    return world.ledger.admit(
        Ask(ask_id=f"ask-{number:016}", model="gpt-4o", estimated_cost_nusd=amount, **fields)
    ).decision


# ---- what is closed ------------------------------------------------------------------------------


def test_a_counter_under_pressure_forgets_allowances_that_were_returned(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(returned=[allowance])
    assert not ask(world, 1, 101 * 10**9).reservation_id
    assert client.revocations() == []


def test_nothing_is_remembered_of_allowances_that_are_closed(world):
    client = world.client().hello()
    for _ in range(20):
        client.report(returned=[client.granted(10)])
    desk = world.desk
    assert not desk.books.out
    assert not desk.books.closed
    assert not desk.revoked
    assert len(desk._holdings) == 0


# ---- reports that are wrong in part --------------------------------------------------------------


BAD = [
    {"retry_count": -1},
    {"outcome": 99},
    {"labels_index": 7},
    {"labels_index": -1},
    {"hold_nusd": -1},
    {"model": "m" * 300},
    {"usage": pb.Usage(prompt_tokens=-5)},
    {"cost": -5},
    {"cost": AMOUNT_MAX},
]


@pytest.mark.parametrize("wrong", BAD, ids=str)
def test_one_settlement_that_is_wrong_keeps_no_other_from_being_booked(world, wrong):
    client = world.client().hello()
    allowance = client.granted(10)
    report = [
        client.settled(allowance, 1, cost=5),
        client.settled(allowance, 2, **wrong),
        client.settled(allowance, 3, cost=7),
    ]
    answer = client.report(*report, drawn=[(allowance, client.sums(3))])
    assert answer.sequence == 1
    (problem,) = answer.problems
    assert "call-0000000000000002" in problem
    in_flight = wrong.get("hold_nusd") == -1  # what it drew cannot be read, and stays in flight
    assert world.counter.settled == 12 + (0 if in_flight else CALL_NUSD)
    assert world.counter.reserved == (8 if in_flight else 7) * CALL_NUSD
    assert [event.cost_nusd for event in world.usage()][:: 1 if in_flight else 2] == [5, 7]
    assert client.report(client.settled(allowance, 4, cost=0)).sequence == 2


def test_ids_that_are_none_are_told_and_the_rest_is_booked(world):
    client = world.client().hello()
    allowance, nobody = client.granted(10), pb.Allowance(allowance_id="../daemon")
    answer = client.report(
        client.settled(nobody),
        client.settled(allowance, 2, cost=5),
        drawn=[(nobody, client.sums(1)), (allowance, client.sums(1))],
        returned=[nobody, allowance],
    )
    assert len(answer.problems) == 3
    assert (world.counter.settled, world.counter.reserved) == (5, 0)


def test_a_negative_draw_is_told_and_the_rest_is_booked(world):
    client = world.client().hello()
    first, second = client.granted(10), client.granted(10)
    answer = client.report(drawn=[(first, Sums(-1, 0, 0)), (second, client.sums(2))])
    assert len(answer.problems) == 1
    assert world.desk.books.out[bytes.fromhex(second.allowance_id)].drawn == client.sums(2)


def test_spend_beyond_what_can_be_counted_is_told(world):
    client = world.client().hello()
    allowance = client.granted(4)
    client.report(returned=[allowance])
    answer = client.report(client.settled(allowance, 1, cost=AMOUNT_MAX - 1))
    assert world.counter.settled == AMOUNT_MAX - 1
    answer = client.report(
        client.settled(allowance, 2, cost=AMOUNT_MAX - 1), client.settled(allowance, 3, cost=1)
    )
    assert any("call-0000000000000002" in problem for problem in answer.problems)
    assert world.counter.settled == AMOUNT_MAX
    assert answer.sequence == 3


def test_absurd_costs_without_a_budget_are_booked(world):
    world = World(HEAD + "unmatched: allow\n")
    client = world.client().hello()
    allowance = client.granted(10)
    calls = [client.settled(allowance, number, cost=AMOUNT_MAX) for number in range(5)]
    assert client.report(*calls, drawn=[(allowance, client.sums(5))]).sequence == 1
    client.report(returned=[allowance])
    assert held(world, allowance).cost_nusd == AMOUNT_MAX


def test_a_report_that_would_hold_up_the_others_is_refused(world):
    client = world.client().hello()
    allowance = client.granted(10)
    with pytest.raises(InvalidAsk, match="at most 1000 settlements"):
        client.report(*(client.settled(allowance, number) for number in range(1_001)))


class BrittleStore(MemoryStore):
    """Fails when told to."""

    fails = False

    def commit(self, puts):
        if self.fails:
            raise StoreUnavailable("the disk is full; make room")
        super().commit(puts)


def test_a_report_that_could_not_be_written_is_booked_once_when_it_can():
    world = World(store=BrittleStore())
    client = world.client().hello()
    allowance = client.granted(10)
    calls = [client.settled(allowance, number, cost=5) for number in range(3)]
    drawn = [(allowance, client.sums(4))]
    world.store.fails = True
    with pytest.raises(StoreUnavailable):
        client.report(*calls, drawn=drawn, returned=[allowance])
    world.store.fails = False
    world.check()
    assert world.ledger.totals.reserved_nusd == 10 * CALL_NUSD
    client.report(*calls, drawn=drawn, returned=[allowance], sequence=1)
    assert (world.counter.settled, world.counter.reserved) == (15, CALL_NUSD)
    assert world.ledger.totals.reserved_nusd == CALL_NUSD
    world.check()


def test_a_client_that_keeps_overdrawing_is_told_of_once(world):
    client = world.client().hello()
    allowance = client.granted(10)
    for _ in range(5):
        client.report(drawn=[(allowance, client.sums(50))])
    client.report(*(client.settled(allowance, number, cost=1) for number in range(50)))
    assert world.alerts().count("allowance_overdrawn") == 2
    assert world.counter.unadmitted == 40


# ---- how much and how long -----------------------------------------------------------------------


def test_a_session_without_pages_holds_no_more_allowances_than_one_with():
    world = World(pages=NoPages())
    client = world.client().hello()
    for _ in range(256):
        client.granted(4)
    assert not client.ask(4).HasField("allowance")


def test_an_allowance_may_not_be_drawn_longer_than_it_is_held():
    world = World(PLAIN + "expiry: {ttl: 3s, ttl_max: 3s}\n")
    client = world.client().hello()
    allowance = client.granted(10)
    ends_s = allowance.lifetime.seconds + allowance.lifetime.nanos / 1e9
    world.advance(ends_s)
    client.draw(allowance, 10)  # at the last moment
    world.advance(60)
    assert world.counter.settled == 10 * CALL_NUSD


def test_where_nothing_may_be_held_for_long_there_are_no_allowances():
    world = World(PLAIN + "expiry: {ttl: 2s, ttl_max: 2s}\n")
    assert not world.client().hello().ask(10).HasField("allowance")


def test_an_allowance_ends_with_its_window():
    policy = HEAD + "budgets:\n  - {id: all, window: minute, limit: $100}\n"
    world = World(policy)
    wall_s = world.clock.now().wall_ns / 1e9
    world.clock.advance(60 - wall_s % 60 + 57)
    client = world.client().hello()
    lifetime = client.granted(10).lifetime
    assert lifetime.seconds + lifetime.nanos / 1e9 == 3
    world.clock.advance(2.95)
    assert not client.ask(10).HasField("allowance")


def test_a_reserve_that_was_larger_once_does_not_let_allowances_pass_the_limit():
    reserving = "budgets:\n  - {id: all, window: total, limit: $%d, reserve: 50%%}\n"
    block = "allowance: {share: 50%, single_below: 0%}\n"
    world = World(HEAD + reserving % 100 + block)
    world.ledger.trust = world.ledger.trust._replace(claims=frozenset({"*"}))
    general = [ask(world, number, 9_900_000_000).reservation_id for number in range(5)]
    for number in range(5, 10):
        assert ask(world, number, 9_900_000_000, task_class="review").reservation_id
    for reservation_id in general:
        world.ledger.void(reservation_id)
    world.swap(HEAD + reserving % 60 + block)
    client = world.client().hello()
    while client.ask(10**6).HasField("allowance"):
        client.heard.clear()
    assert 59 * 10**9 < world.counter.used <= 60 * 10**9
    world.check()


def test_large_calls_do_not_revoke_what_others_hold_of_a_budget_that_has_enough(world):
    small, large = world.client("ann").hello(), world.client("bob").hello()
    small.granted(10)
    fields = {"prompt_tokens": None, "max_output_tokens": None}
    answer = large.ask(10, estimated_cost_nusd=2_000_000_000, **fields)
    assert not answer.HasField("allowance")
    assert small.revocations() == []


# ---- the truth, late -----------------------------------------------------------------------------


def test_the_truth_gives_back_what_was_presumed_spent():
    world = World(pages=NoPages())
    client = world.client().hello()
    allowance = client.granted(10)
    client.connection.close()
    world.advance(LIFETIME_S + MARGIN_S + 1)
    assert world.counter.reserved == 10 * CALL_NUSD
    back = world.client(maps_pages=False).hello(allowance.allowance_id)
    back.report(back.settled(allowance, cost=1), drawn=[(allowance, back.sums(3))])
    assert world.counter.reserved == 9 * CALL_NUSD  # it may have drawn more since
    back.report(returned=[allowance])
    assert (world.counter.settled, world.counter.reserved) == (1, 2 * CALL_NUSD)
    world.advance(CALL_TTL_S + 1)
    assert (world.counter.settled, world.counter.reserved) == (1 + 2 * CALL_NUSD, 0)
    world.check()


# ---- figures -------------------------------------------------------------------------------------


def test_calls_that_ended_are_counted_as_closed(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(
        client.settled(allowance, 1, cost=CALL_NUSD + 1),
        client.settled(allowance, 2, cost=1),
        client.settled(allowance, 3, voided=True),
        drawn=[(allowance, client.sums(6))],
        returned=[allowance],
    )
    events = world.ledger.events
    assert events == {"settled": 2, "voided": 1, "overrun": 1}
    world.advance(LIFETIME_S + CALL_TTL_S + 1)
    assert events["expired"] == 3
    client.report(client.settled(allowance, 4, cost=1))
    assert events["settled_late"] == 1


def test_draws_that_only_the_page_tells_of_are_counted_as_decisions(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.draw(allowance, 4)
    client.report(drawn=[(allowance, client.sums(3))])
    client.draw(allowance, 7)
    world.advance(LIFETIME_S + MARGIN_S + 1)
    assert sum(world.ledger.tally.values()) == 7


# ---- streams and pages ---------------------------------------------------------------------------


def test_a_session_has_one_stream(world):
    first = world.client().hello()
    second = world.client().hello()
    with pytest.raises(InvalidAsk, match="another stream"):
        first.report()
    second.granted()


def test_the_pages_of_sessions_that_hold_nothing_are_forgotten_before_the_sessions(world):
    client = world.client().hello()
    idle = world.client("idle").hello()
    client.granted(10)
    for each in (client, idle):
        each.connection.close()
    opened = world.pages.opened
    assert len(opened) == 2
    world.desk.tidy()
    assert opened == {world.desk.books.sessions[client.session].page}
    back = world.client("idle").hello()
    assert back.welcome.client_page
    assert len(opened) == 2
    assert back.granted().slot == 0


def test_a_page_that_is_no_longer_there_is_asked_for_again_soon(tmp_path):
    world = World(pages=FilePages(tmp_path / "costd.sock", mode=0o660))
    client = world.client().hello()
    world.pages.close_client(world.desk.books.sessions[client.session].page)
    answer = client.ask()
    assert not answer.HasField("allowance")
    assert answer.retry_after.seconds == 1
    client.connection.close()
    assert world.client().hello().granted().slot == 0
    world.pages.close()


def test_a_client_that_can_map_pages_no_more_leaves_none_behind(world):
    world.client().hello()
    back = world.client(maps_pages=False).hello()
    assert back.welcome.client_page == ""
    assert world.pages.opened == set()


def test_what_calls_may_cost_beyond_their_holds_goes_with_them(world):
    client = world.client().hello()
    allowance = client.granted(10, estimated_cost_nusd=1_000_000)
    exposed = CALL_NUSD - 1_000_000
    assert world.ledger.totals.exposure_nusd == 10 * exposed
    drawn = [(allowance, client.sums(3, amount=3_000_000))]
    client.report(client.settled(allowance, hold_nusd=1_000_000), drawn=drawn)
    assert world.ledger.totals.exposure_nusd == 9 * exposed
    client.report(returned=[allowance])
    assert world.ledger.totals.exposure_nusd == 2 * exposed


def test_a_call_without_a_known_ceiling_stays_without_one(world):
    client = world.client().hello()
    allowance = client.granted(10, max_output_tokens=None)
    assert world.ledger.totals.unknown_ceiling_count == 1
    client.report(client.settled(allowance, cost=1), returned=[allowance])
    assert world.ledger.totals.unknown_ceiling_count == 0
    world.check()


# ---- what callers may claim ----------------------------------------------------------------------


def test_an_allowance_is_only_for_classes_and_labels_that_an_ask_may_claim():
    world = World(HEAD + "budgets:\n  - {id: all, per: team, window: total, limit: $100}\n")
    world.ledger.trust = Trust(labels_fixed={"team": "core"})
    client = world.client().hello()
    for typical in ({"task_class": "review"}, {"labels": {"team": "finance"}}):
        answer = client.ask(**typical)
        assert not answer.HasField("allowance")
        assert answer.retry_after.seconds == 30
        client.heard.clear()
    allowance = client.granted(10)
    assert held(world, allowance).ask.labels == {"team": "core"}
    labels = [{"team": "finance", "run": "r1"}]
    client.report(client.settled(allowance, labels_index=1), labels=labels)
    assert world.usage()[0].ask.labels == {"team": "core", "run": "r1"}
    world.ledger.trust = Trust(claims=frozenset({"review"}))
    assert client.ask(task_class="review").HasField("allowance")


def test_where_a_grant_cannot_be_written_its_client_may_ask_again_soon():
    world = World(store=BrittleStore())
    client = world.client().hello()
    world.store.fails = True
    answer = client.ask()
    assert not answer.HasField("allowance")
    assert answer.retry_after.seconds == 1
    world.store.fails = False
    assert world.ledger.totals.reserved_nusd == 0
    client.heard.clear()
    assert client.granted(10).calls_count == 10
    world.check()


# ---- policies that change ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "budgets",
    ["[]", "[{id: every, was: all, window: total, limit: $100}]"],
    ids=["removed", "renamed"],
)
def test_a_budget_may_go_or_be_renamed_while_an_allowance_is_out(budgets):
    world = World(PLAIN + "unmatched: allow\n")
    client = world.client().hello()
    allowance = client.granted(10)
    world.swap(HEAD + f"budgets: {budgets}\nunmatched: allow\n")
    assert client.revocations() == [allowance.allowance_id]
    client.heard.clear()
    client.report(client.settled(allowance, cost=5), drawn=[(allowance, client.sums(2))])
    client.report(returned=[allowance])
    assert (world.counter.settled, world.counter.reserved) == (5, CALL_NUSD)
    world.check()
    world.swap(PLAIN)
    assert not ask(world, 1, 100 * 10**9).reservation_id
    assert ask(world, 2, 90 * 10**9).reservation_id


def test_a_settlement_that_names_another_model_keeps_its_price(world):
    client = world.client().hello()
    allowance = client.granted(10)
    usage = pb.Usage(prompt_tokens=1_000_000, output_tokens=0)
    calls = [client.settled(allowance, n, model="gpt-4o-mini", usage=usage) for n in range(2)]
    client.report(*calls)
    events = world.usage()
    assert [event.cost_nusd for event in events] == [150_000_000] * 2
    stored = world.store.get(Family.PRICES, events[0].price_id.encode())
    assert stored.source.model == "gpt-4o-mini"


def test_an_event_whose_labels_are_too_many_goes_without_them(world):
    client = world.client().hello()
    allowance = client.granted(10)
    labels = [{f"label-{n}": "x" for n in range(200)}]
    answer = client.report(client.settled(allowance, labels_index=1), labels=labels)
    assert "goes without" in answer.problems[0]
    assert world.usage()[0].ask.labels == {}
