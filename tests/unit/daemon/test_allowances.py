"""The daemon's side of allowances: granted, drawn, settled in part, drained, charged."""

import pytest
from allowance_world import (
    CALL_NUSD,
    CALL_TOKENS,
    CALL_TTL_S,
    HEAD,
    LIFETIME_S,
    MARGIN_S,
    PLAIN,
    World,
)

from costd.daemon.clients.pages import SLOTS_COUNT, NoPages
from costd.engine.changes import Family
from costd.errors import InvalidAsk
from costd.model.allowance import Sums
from costd.model.ask import Ask
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import Match, Selector
from costd.model.price import Price, PriceSource, UnitPrice
from costd.model.reservation import ReservationState
from costd.testing.pages import MemoryPages
from costd.wire.pb import admission_pb2 as pb


@pytest.fixture
def world():
    made = World()
    yield made
    made.check()


def held(world, allowance):
    return world.ledger.find_reservation(bytes.fromhex(allowance.allowance_id))


# ---- granting ------------------------------------------------------------------------------------


def test_an_allowance_is_a_reservation_of_all_its_calls(world):
    allowance = world.client().hello().granted(100)
    assert allowance.calls_count == 100
    assert allowance.amount_nusd == 100 * CALL_NUSD
    assert world.counter.reserved == 100 * CALL_NUSD
    assert world.ledger.totals.reserved_nusd == 100 * CALL_NUSD
    assert held(world, allowance).state is ReservationState.HELD


def test_a_grant_says_what_every_draw_is_answered(world):
    allowance = world.client().hello().granted()
    decision = allowance.decision
    assert (decision.verdict, decision.reason) == (pb.VERDICT_ALLOW, pb.REASON_OK)
    assert (decision.model, decision.tier, decision.source) == ("gpt-4o", "premium", "allowance")
    assert not decision.ask_id
    assert not decision.hold_nusd
    assert allowance.lifetime.seconds == LIFETIME_S
    assert allowance.call_ttl.seconds == CALL_TTL_S
    assert allowance.output_tokens_default == 1_000
    assert not allowance.HasField("tokens_count")


def test_the_price_table_prices_as_the_daemon_does(world):
    table = world.client().hello().granted().price_table
    (band,) = table.bands
    assert -(-(1_000 * band.input + 100 * band.output) // table.scale) == CALL_NUSD


def test_at_most_a_twentieth_of_what_is_left_is_granted_at_once(world):
    client = world.client().hello()
    first = client.granted(10**6)
    assert first.amount_nusd == 5 * 10**9 // CALL_NUSD * CALL_NUSD
    second = client.granted(10**6)
    assert second.amount_nusd == (100 * 10**9 - first.amount_nusd) // 20 // CALL_NUSD * CALL_NUSD


NARROW = """\
prices:
  - {models: openai/gpt-4o, input: $2.5, output: $10, context_window: 2000}
"""


def test_a_call_too_long_for_its_model_sets_nothing_aside_for_shorter_ones():
    world = World(PLAIN + NARROW)
    client = world.client().hello()
    long = {"prompt_tokens": 1_901, "acceptable_models": ["gpt-4o-mini"]}
    told = world.ledger.admit(
        Ask(
            ask_id="a" * 16,
            model="gpt-4o",
            prompt_tokens=1_901,
            max_output_tokens=100,
            acceptable_models=("gpt-4o-mini",),
        )
    )
    assert told.decision.model == "gpt-4o-mini"
    assert not client.ask(**long).HasField("allowance")
    client.heard.clear()
    fitting = client.granted(**long | {"prompt_tokens": 1_900})
    assert fitting.decision.model == "gpt-4o"
    world.check()


def test_near_the_limit_calls_are_asked_one_by_one(world):
    client = world.client().hello()
    drained = 0
    while (answer := client.ask(10**6)).HasField("allowance"):
        drained += answer.allowance.amount_nusd
        client.heard.clear()
    assert 0.97 * 100e9 < drained < 0.99 * 100e9
    assert answer.retry_after.seconds == 1


def test_what_nears_its_limit_is_revoked_so_that_the_last_cents_are_spent_exactly(world):
    client, other = world.client("ann").hello(), world.client("bob").hello()
    theirs = other.granted(10)
    while client.ask(10**6).HasField("allowance"):
        client.heard.clear()
    assert other.revocations() == [theirs.allowance_id]


def test_asks_that_leave_little_of_a_budget_recall_what_others_hold_of_it_before_any_deny(world):
    client = world.client().hello()
    mine = client.granted(10)
    world.asked(97 * 10**9)
    assert client.revocations() == []
    world.asked(1.5 * 10**9)
    assert client.revocations() == [mine.allowance_id]
    world.asked(10**6)
    assert len(client.revocations()) == 1


def test_a_budget_that_only_tracks_recalls_nothing():
    world = World(HEAD + "budgets:\n  - {id: b, window: total}\n")
    client = world.client().hello()
    client.granted(10)
    world.asked(10**15)
    assert client.revocations() == []


def test_asks_of_another_budget_recall_nothing():
    world = World(HEAD + "budgets:\n  - {id: b, per: user, window: total, limit: $100}\n")
    client = world.client().hello()
    client.granted(10, labels={"user": "ann"})
    world.asked(99 * 10**9, labels={"user": "bob"})
    assert client.revocations() == []


def test_an_allowance_stays_below_the_next_step():
    policy = HEAD + (
        "budgets:\n  - {id: all, window: total, limit: $1, steps: [{at: 50%, do: [alert]}]}\n"
        "allowance: {share: 50%}\n"
    )
    world = World(policy)
    client = world.client().hello()
    for _ in range(100):
        if not client.ask(10**6).HasField("allowance"):
            break
        client.heard.clear()
    assert 0.45e9 < world.counter.used < 0.5e9
    assert world.alerts() == []


def test_a_step_that_is_reached_revokes_what_was_granted_before_it():
    policy = HEAD + (
        "budgets:\n  - {id: all, window: total, limit: $1, steps: [{at: 50%, do: [tier_down]}]}\n"
    )
    world = World(policy)
    client = world.client().hello()
    allowance = client.granted(10)
    world.ledger.admit(Ask(ask_id="a" * 16, model="gpt-4o", estimated_cost_nusd=480_000_000))
    assert client.revocations() == [allowance.allowance_id]


def test_a_protected_reserve_is_left_alone():
    policy = HEAD + (
        "budgets:\n  - {id: all, window: total, limit: $1, reserve: 90%}\nallowance: {share: 50%}\n"
    )
    world = World(policy)
    allowance = world.client().hello().granted(10**6)
    assert allowance.amount_nusd <= 0.05e9


def test_a_budget_in_tokens_is_counted_in_tokens():
    policy = HEAD + "budgets:\n  - {id: all, window: total, limit: 1M tokens}\n"
    allowance = World(policy).client().hello().granted(10)
    assert allowance.tokens_count == 10 * CALL_TOKENS


def test_a_rate_bounds_an_allowance_to_a_second_and_a_quarter_of_the_burst():
    policy = PLAIN + 'rates:\n  - {id: calls, limit: "600 requests per minute", burst: 100}\n'
    allowance = World(policy).client().hello().granted(1_000)
    assert allowance.calls_count == 10  # a second of ten a second, less than 25
    assert allowance.lifetime.seconds == 1


def test_rates_are_consumed_at_the_grant_and_given_back_at_the_return():
    policy = PLAIN + 'rates:\n  - {id: calls, limit: "6000 requests per minute"}\n'
    world = World(policy)
    client = world.client().hello()
    allowance = client.granted(100)
    ((key, full_ns),) = world.store.scan(Family.RATES)
    assert full_ns - world.clock.now().steady_ns == 1_000_000_000
    client.draw(allowance, 10)
    client.report(drawn=[(allowance, client.sums(10))], returned=[allowance])
    full_ns = world.store.get(Family.RATES, key)
    assert full_ns - world.clock.now().steady_ns == 100_000_000


def test_a_rate_in_prompt_tokens_is_asked_call_by_call():
    policy = PLAIN + 'rates:\n  - {id: in, limit: "1M prompt tokens per minute"}\n'
    assert not World(policy).client().hello().ask().HasField("allowance")


@pytest.mark.parametrize(
    "block",
    ["allowance: {active: false}", "allowance: {match: {team: research}}", "allowance: {for: 1s}"],
)
def test_the_policy_says_who_gets_allowances_and_for_how_long(block):
    answer = World(PLAIN + block + "\n").client().hello().ask()
    if "1s" in block:
        assert answer.allowance.lifetime.seconds == 1
    else:
        assert not answer.HasField("allowance")
    if "match" in block:
        allowed = World(PLAIN + block + "\n").client().hello().ask(labels={"team": "research"})
        assert allowed.HasField("allowance")


def test_what_would_be_refused_or_cannot_be_understood_gets_no_allowance(world):
    client = world.client().hello()
    for typical in ({"model": "nobody-knows"}, {"task_class": "unknown"}, {"units": {"images": 1}}):
        assert not client.ask(**typical).HasField("allowance")
        client.heard.clear()
    assert world.counters() == {}


def test_a_scope_s_labels_are_those_that_rules_read():
    policy = HEAD + (
        "budgets:\n  - {id: a, window: day, per: user, match: {team: x}, limit: $1}\n"
        'rates:\n  - {id: r, per: agent, limit: "1 requests per minute"}\n'
    )
    welcome = World(policy).client().hello().welcome
    assert list(welcome.scope_labels) == ["agent", "team", "user"]


# ---- draws and settlements -----------------------------------------------------------------------


def test_a_settled_draw_turns_its_hold_into_its_cost_and_leaves_the_rest(world):
    client = world.client().hello()
    allowance = client.granted(10)
    half = pb.Usage(prompt_tokens=500, output_tokens=50)
    assert client.report(client.settled(allowance, usage=half)).sequence == 1
    counter = world.counter
    assert (counter.settled, counter.reserved) == (CALL_NUSD // 2, 9 * CALL_NUSD)
    (event,) = world.usage()
    assert (event.cost_nusd, event.hold_nusd) == (CALL_NUSD // 2, CALL_NUSD)
    assert event.ask.ask_id == "call-0000000000000001"


def test_labels_that_no_rule_reads_ride_along():
    policy = HEAD + "budgets:\n  - {id: all, per: user, window: total, limit: $100}\n"
    world = World(policy)
    client = world.client().hello()
    allowance = client.granted(labels={"user": "ann"})
    client.report(
        client.settled(allowance, labels_index=1), labels=[{"run": "r7", "user": "mallory"}]
    )
    assert world.usage()[0].ask.labels == {"run": "r7", "user": "ann"}


def test_a_cost_beyond_the_hold_is_an_overrun(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(client.settled(allowance, cost=CALL_NUSD + 7))
    assert world.counter.overrun == 7


def test_a_voided_draw_costs_nothing_and_leaves_no_event(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(client.settled(allowance, voided=True))
    assert (world.counter.settled, world.counter.reserved) == (0, 9 * CALL_NUSD)
    assert world.usage() == []


def test_usage_that_makes_no_sense_is_charged_at_the_hold_and_told(world):
    client = world.client().hello()
    allowance = client.granted(10)
    usage = pb.Usage(prompt_tokens=5, cached_tokens=9)
    acknowledged = client.report(client.settled(allowance, usage=usage))
    assert "charged at its hold" in acknowledged.problems[0]
    assert world.counter.settled == CALL_NUSD


def test_a_report_is_booked_once(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(client.settled(allowance))
    assert client.report(client.settled(allowance), sequence=1).sequence == 1
    assert len(world.usage()) == 1


def test_reports_may_not_leave_a_gap(world):
    client = world.client().hello()
    with pytest.raises(InvalidAsk, match="report 2 came after 0"):
        client.report(sequence=2)


def test_a_draw_beyond_what_was_granted_is_charged_as_unadmitted_and_told(world):
    client = world.client().hello()
    allowance = client.granted(10)
    calls = [client.settled(allowance, number) for number in range(12)]
    acknowledged = client.report(*calls, drawn=[(allowance, client.sums(12))])
    assert len(acknowledged.problems) == 3
    assert world.counter.unadmitted == 2 * CALL_NUSD
    assert world.counter.settled == 12 * CALL_NUSD
    assert "allowance_overdrawn" in world.alerts()


def test_sums_that_fall_are_told_and_the_larger_stand(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(drawn=[(allowance, client.sums(5))])
    acknowledged = client.report(drawn=[(allowance, client.sums(3))], returned=[allowance])
    assert "fell" in acknowledged.problems[0]
    assert world.counter.reserved == 5 * CALL_NUSD


def test_draws_are_counted_as_decisions(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(drawn=[(allowance, client.sums(7))])
    assert sum(world.ledger.tally.values()) == 7


def test_another_session_s_allowance_is_nobody_s_to_settle(world):
    ann, bob = world.client("ann").hello(), world.client("bob").hello()
    allowance = ann.granted(10)
    acknowledged = bob.report(bob.settled(allowance), drawn=[(allowance, bob.sums(9))])
    assert "no allowance" in acknowledged.problems[0]
    assert world.counter.reserved == 10 * CALL_NUSD


# ---- the end of an allowance ---------------------------------------------------------------------


def test_a_return_gives_back_what_was_not_drawn(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(drawn=[(allowance, client.sums(4))], returned=[allowance])
    assert world.counter.reserved == 4 * CALL_NUSD
    assert held(world, allowance).hold_nusd == 4 * CALL_NUSD


def test_an_allowance_of_which_nothing_is_in_flight_is_closed(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(
        client.settled(allowance), drawn=[(allowance, client.sums(1))], returned=[allowance]
    )
    assert held(world, allowance).state is ReservationState.SETTLED
    assert held(world, allowance).cost_nusd == CALL_NUSD
    assert world.counter.reserved == 0
    assert world.ledger.totals.open_count == 0
    assert world.desk.books.out == {}


def test_what_was_settled_was_drawn_whatever_a_client_says(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(client.settled(allowance), returned=[allowance])
    assert held(world, allowance).state is ReservationState.SETTLED
    assert world.counter.reserved == 0


def test_calls_in_flight_settle_after_the_return(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(drawn=[(allowance, client.sums(2))], returned=[allowance])
    client.report(client.settled(allowance, 1))
    client.report(client.settled(allowance, 2))
    assert held(world, allowance).state is ReservationState.SETTLED
    assert world.counter.settled == 2 * CALL_NUSD


def test_a_killed_client_is_charged_exactly_what_its_page_says(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.draw(allowance, 3)
    client.connection.close()
    world.advance(LIFETIME_S + MARGIN_S + 1)
    assert world.counter.reserved == 3 * CALL_NUSD
    world.advance(CALL_TTL_S)
    assert (world.counter.settled, world.counter.reserved) == (3 * CALL_NUSD, 0)
    assert [event.closed_as for event in world.usage()] == ["expired"]
    assert world.spent() == (3 * CALL_NUSD, 3)


def test_a_killed_client_that_drew_nothing_is_charged_nothing(world):
    client = world.client().hello()
    client.granted(10)
    client.connection.close()
    world.advance(LIFETIME_S + MARGIN_S + 1)
    assert world.counter.used == 0
    assert world.usage() == []


def test_without_pages_the_rest_is_presumed_spent_until_the_truth_arrives():
    world = World(pages=NoPages())
    client = world.client().hello()
    allowance = client.granted(10)
    client.connection.close()
    world.advance(LIFETIME_S + MARGIN_S + 1)
    assert world.counter.reserved == 10 * CALL_NUSD
    world.advance(CALL_TTL_S)
    assert world.counter.settled == 10 * CALL_NUSD
    assert world.spent() == (10 * CALL_NUSD, 10)
    back = world.client().hello(allowance.allowance_id)
    assert list(back.welcome.good_allowance_ids) == []
    back.report(back.settled(allowance, cost=1))
    assert world.counter.settled == 9 * CALL_NUSD + 1
    assert world.spent() == (9 * CALL_NUSD + 1, 10)
    back.report(back.settled(allowance, 2, cost=CALL_NUSD + 5))
    assert (world.counter.settled, world.counter.late) == (9 * CALL_NUSD + 6, 5)
    assert world.spent() == (9 * CALL_NUSD + 6, 10)
    world.check()


def test_what_was_presumed_spent_is_given_back_once_the_client_says_how_far_it_drew():
    world = World(pages=NoPages())
    client = world.client().hello()
    allowance = client.granted(10)
    client.connection.close()
    world.advance(LIFETIME_S + MARGIN_S + 1)
    assert world.counter.reserved == 10 * CALL_NUSD
    back = world.client().hello(allowance.allowance_id)
    back.report(drawn=[(allowance, client.sums(3))], returned=[allowance])
    assert world.counter.reserved == 3 * CALL_NUSD
    assert held(world, allowance).hold_nusd == 3 * CALL_NUSD
    world.check()
    back.report(*[back.settled(allowance, number, cost=1) for number in (1, 2, 3)])
    assert (world.counter.settled, world.counter.reserved) == (3, 0)
    assert world.desk.books.out == {}


def test_what_was_presumed_spent_and_charged_is_given_back_too():
    world = World(pages=NoPages())
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(client.settled(allowance, 1, cost=1), drawn=[(allowance, client.sums(1))])
    client.connection.close()
    world.advance(LIFETIME_S + MARGIN_S + 1)
    world.advance(CALL_TTL_S)
    assert world.counter.settled == 9 * CALL_NUSD + 1
    back = world.client().hello(allowance.allowance_id)
    back.report(drawn=[(allowance, client.sums(3))], returned=[allowance])
    assert world.counter.settled == 2 * CALL_NUSD + 1
    assert held(world, allowance).cost_nusd == 2 * CALL_NUSD + 1
    back.report(back.settled(allowance, 2, cost=2), returned=[allowance])
    assert world.counter.settled == CALL_NUSD + 3
    back.report(back.settled(allowance, 3, cost=3), back.settled(allowance, 4, cost=4))
    assert (world.counter.settled, world.counter.unadmitted) == (10, 4)
    world.check()


@pytest.mark.parametrize(
    "scribble",
    [Sums(-1, 0, 0), Sums(11, 0, 0), Sums(1, 11 * CALL_NUSD, 0)],
)
def test_a_page_that_makes_no_sense_is_presumed_spent_and_told(world, scribble):
    client = world.client().hello()
    allowance = client.granted(10)
    name = world.desk.books.sessions[client.session].page
    world.pages.draw(name, allowance.slot, scribble)
    world.advance(LIFETIME_S + MARGIN_S + 1)
    assert world.counter.reserved == 10 * CALL_NUSD
    assert world.alerts() == ["page_damaged"]
    assert client.granted(10).slot == -1


def test_a_slot_that_fell_behind_a_report_makes_no_sense(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(drawn=[(allowance, client.sums(5))])
    world.advance(LIFETIME_S + MARGIN_S + 1)
    assert world.alerts() == ["page_damaged"]


def test_a_settlement_after_everything_was_closed_is_charged_all_the_same(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(drawn=[(allowance, client.sums(0))], returned=[allowance])
    client.report(client.settled(allowance))
    assert world.counter.unadmitted == CALL_NUSD


def test_closed_allowances_are_forgotten_with_their_reservations(world):
    client = world.client().hello()
    client.granted(10)
    world.pages.slots.clear()
    world.advance(CALL_TTL_S + 10)
    assert len(list(world.store.scan(Family.ALLOWANCES))) == 1
    client.connection.close()
    world.advance(8 * 86_400)
    world.advance(61)
    assert list(world.store.scan(Family.ALLOWANCES)) == []
    world.advance(86_400)
    assert list(world.store.scan(Family.SESSIONS)) == []


def test_a_session_outlives_its_page_and_all_that_its_reports_have_booked(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.draw(allowance, 1)
    client.connection.close()
    world.advance(LIFETIME_S + MARGIN_S + 1)
    world.advance(CALL_TTL_S)
    assert world.counter.settled == CALL_NUSD
    world.advance(86_400 + 61)
    (session,) = world.desk.books.sessions.values()
    assert session.page == ""
    assert world.pages.slots == {}
    world.advance(5 * 86_400)
    back = world.client().hello()
    back.report(back.settled(allowance, cost=5))
    assert world.counter.settled == 5


def test_a_report_sent_again_after_the_clock_was_set_a_year_ahead_counts_once(world):
    client = world.client().hello()
    allowance = client.granted(10)
    settled = client.settled(allowance)
    client.report(settled, drawn=[(allowance, client.sums(1))], returned=[allowance])
    client.connection.close()
    world.clock.jump_wall(365 * 86_400)
    world.advance(61)
    back = world.client().hello()
    assert back.welcome.report_sequence == 1
    back.report(settled, sequence=1)
    assert (world.counter.settled, world.counter.unadmitted) == (CALL_NUSD, 0)


def test_an_allowance_that_was_closed_by_a_report_is_not_revoked_later(world):
    client = world.client("ann").hello()
    allowance = client.granted(10)
    client.report(drawn=[(allowance, client.sums(0))], returned=[allowance])
    other = world.client("bob").hello()
    theirs = other.granted(10)
    while world.client("cat").hello().ask(10**6).HasField("allowance"):
        pass
    assert client.revocations() == []
    assert other.revocations() == [theirs.allowance_id]


# ---- a daemon that stands still, clocks that step, policies that tighten -------------------------


@pytest.mark.parametrize("pages", [MemoryPages, NoPages])
@pytest.mark.parametrize("sweeps_first", [True, False])
def test_what_was_drawn_while_the_daemon_stood_still_for_a_minute_is_booked(pages, sweeps_first):
    world = World(pages=pages())
    client = world.client().hello()
    allowance = client.granted(10)
    sums = client.sums(3)
    if pages is MemoryPages:
        client.draw(allowance, 3)
    world.clock.advance(60)
    if sweeps_first:
        world.advance(0)
    client.report(
        client.settled(allowance, 1, cost=1), drawn=[(allowance, sums)], returned=[allowance]
    )
    world.check()
    assert (world.counter.settled, world.counter.reserved) == (1, 2 * CALL_NUSD)
    client.report(client.settled(allowance, 2, cost=2), client.settled(allowance, 3, cost=3))
    assert (world.counter.settled, world.counter.reserved) == (6, 0)
    assert world.counter.unadmitted == 0


@pytest.mark.parametrize("seconds", [-86_400, 3_600, 365 * 86_400])
def test_clock_steps_neither_end_an_allowance_nor_lose_it(world, seconds):
    client = world.client().hello()
    allowance = client.granted(10)
    client.draw(allowance, 2)
    world.clock.jump_wall(seconds)
    world.advance(LIFETIME_S + MARGIN_S - 1)
    assert world.counter.reserved == 10 * CALL_NUSD
    world.advance(2)
    assert world.counter.reserved == 2 * CALL_NUSD
    client.report(client.settled(allowance, 1), client.settled(allowance, 2))
    assert (world.counter.settled, world.counter.reserved) == (2 * CALL_NUSD, 0)
    world.check()


def test_a_limit_lowered_while_allowances_are_out_lets_nothing_more_through_than_was_out(world):
    client = world.client().hello()
    allowance = client.granted(1_000)
    world.swap(PLAIN.replace("$100", "$1"))
    assert client.revocations() == [allowance.allowance_id]
    client.report(
        client.settled(allowance),
        drawn=[(allowance, client.sums(400))],
        returned=[allowance],
    )
    counter = world.counter
    assert (counter.settled, counter.reserved) == (CALL_NUSD, 399 * CALL_NUSD)
    assert counter.lowered == counter.used - 10**9
    assert not client.ask(10).HasField("allowance")
    assert not world.asked(1)
    world.check()


def test_draws_that_are_told_after_everything_was_charged_replace_the_charge(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.draw(allowance, 2)
    world.advance(LIFETIME_S + MARGIN_S + 1)
    world.advance(CALL_TTL_S)
    assert world.counter.settled == 2 * CALL_NUSD
    late = client.settled(allowance, 1, cost=5)
    client.report(late, drawn=[(allowance, client.sums(2))], returned=[allowance])
    client.report(late, sequence=1)
    assert world.counter.settled == CALL_NUSD + 5
    client.report(client.settled(allowance, 2, cost=CALL_NUSD + 7), sequence=2)
    assert (world.counter.settled, world.counter.late) == (CALL_NUSD + 12, 7)
    assert world.spent() == (CALL_NUSD + 12, 2)
    said = [(each.closed_as, each.cost_nusd, each.calls_count) for each in world.usage()]
    assert said == [
        ("expired", 2 * CALL_NUSD, 2),
        ("reversed", -CALL_NUSD, -1),
        ("late", 5, 1),
        ("reversed", -CALL_NUSD, -1),
        ("late", CALL_NUSD + 7, 1),
    ]
    world.check()


def test_what_an_expiry_charged_for_calls_that_never_were_leaves_the_sums_of_usage():
    world = World(pages=NoPages())
    client = world.client().hello()
    allowance = client.granted(10)
    client.connection.close()
    world.advance(LIFETIME_S + MARGIN_S + 1)
    world.advance(CALL_TTL_S)
    assert world.spent() == (10 * CALL_NUSD, 10)
    back = world.client().hello(allowance.allowance_id)
    back.report(back.settled(allowance, voided=True))
    assert world.spent() == (world.counter.settled, 9) == (9 * CALL_NUSD, 9)
    back.report(drawn=[(allowance, back.sums(3))], returned=[allowance])
    assert world.spent() == (world.counter.settled, 2) == (2 * CALL_NUSD, 2)
    assert {each.closed_as for each in world.usage()} == {"expired", "reversed"}
    world.check()


# ---- what makes allowances wrong -----------------------------------------------------------------


def kill(world, **labels):
    matches = tuple(Match(key, frozenset({value})) for key, value in labels.items())
    switch = KillSwitch(
        kill_id="k",
        scope=Selector(matches),
        mode=KillMode.DENY_ALL,
        reason="test",
        actor="t",
        engaged_ns=1,
    )
    world.ledger.put_kill(switch, action="kill_engaged", actor="t", detail="")


def test_a_kill_switch_changes_the_page_at_once_and_revokes_what_it_covers(world):
    client = world.client().hello()
    allowance = client.granted()
    before = world.pages.generation
    kill(world)
    assert world.pages.generation == before + 1
    assert client.revocations() == [allowance.allowance_id]
    assert client.heard[-1].generation.generation == before + 1


def test_a_kill_switch_on_another_scope_leaves_an_allowance_good():
    policy = HEAD + "budgets:\n  - {id: all, per: team, window: total, limit: $100}\n"
    world = World(policy)
    client = world.client().hello()
    client.granted(labels={"team": "a"})
    kill(world, team="b")
    assert client.revocations() == []
    assert client.heard[-1].generation.generation == world.pages.generation


def test_a_kill_switch_on_a_label_no_rule_reads_revokes_and_becomes_part_of_scopes(world):
    client = world.client().hello()
    allowance = client.granted()
    kill(world, run="r7")
    assert client.revocations() == [allowance.allowance_id]
    assert list(client.heard[-1].generation.scope_labels) == ["run"]


def test_a_changed_policy_revokes_everything(world):
    client = world.client().hello()
    allowance = client.granted()
    world.swap(PLAIN.replace("$100", "$50"))
    assert client.revocations() == [allowance.allowance_id]


def test_an_operator_revokes_one(world):
    client = world.client().hello()
    allowance = client.granted()
    assert world.desk.revoke(bytes.fromhex(allowance.allowance_id))
    assert client.revocations() == [allowance.allowance_id]
    assert not world.desk.revoke(b"nothing")


def test_a_denied_ask_revokes_what_others_hold_of_the_budget_that_refused_it(world):
    client = world.client().hello()
    allowance = client.granted()
    world.ledger.admit(Ask(ask_id="a" * 16, model="gpt-4o", estimated_cost_nusd=100 * 10**9))
    assert client.revocations() == [allowance.allowance_id]


# ---- streams -------------------------------------------------------------------------------------


def test_a_client_that_comes_back_learns_what_is_still_good(world):
    client = world.client().hello()
    first, second = client.granted(), client.granted()
    client.connection.close()
    world.desk.revoke(bytes.fromhex(first.allowance_id))
    back = world.client().hello(first.allowance_id, second.allowance_id)
    assert list(back.welcome.good_allowance_ids) == [second.allowance_id]


@pytest.mark.parametrize("maps_pages", [True, False])
def test_a_grant_that_was_lost_with_its_stream_is_named_and_can_be_returned(world, maps_pages):
    client = world.client(maps_pages=maps_pages).hello()
    held, lost = client.granted(), client.granted()
    client.connection.close()
    back = world.client(maps_pages=maps_pages).hello(held.allowance_id)
    assert list(back.welcome.good_allowance_ids) == [held.allowance_id]
    assert list(back.welcome.unnamed_allowance_ids) == [lost.allowance_id]
    back.report(returned=[lost])
    assert world.counter.reserved == held.amount_nusd
    back.report(returned=[held])
    world.advance(3_600)
    assert (world.counter.reserved, world.counter.settled) == (0, 0)


def test_after_a_restart_of_the_daemon_nothing_is_good_and_reports_go_on(world):
    client = world.client().hello()
    allowance = client.granted(10)
    client.report(client.settled(allowance))
    again = world.restarted()
    back = again.client().hello(allowance.allowance_id)
    assert back.welcome.report_sequence == 1
    assert list(back.welcome.good_allowance_ids) == []
    back.report(back.settled(allowance, 2), drawn=[(allowance, back.sums(2))], returned=[allowance])
    assert again.counter.settled == 2 * CALL_NUSD
    assert again.counter.reserved == 0


def test_a_daemon_that_died_reads_its_clients_pages_when_it_is_back(world):
    client = world.client().hello()
    client.draw(client.granted(10), 4)
    again = world.restarted()
    again.advance(60)
    assert again.counter.reserved == 4 * CALL_NUSD


@pytest.mark.parametrize("session", ["short", "x" * 97, "line\nline-line-line"])
def test_a_session_s_name_is_checked(world, session):
    with pytest.raises(InvalidAsk, match="session_id"):
        world.client(session=session).hello()


def test_a_session_is_its_caller_s(world):
    world.client("ann", session="s" * 16).hello()
    with pytest.raises(InvalidAsk, match="another caller's"):
        world.client("bob", session="s" * 16).hello()


def test_hello_comes_first_and_once(world):
    client = world.client()
    with pytest.raises(InvalidAsk, match="Hello comes first"):
        client.connection.receive(pb.ClientMessage(report=pb.Report(sequence=1)))
    client.hello()
    with pytest.raises(InvalidAsk, match="Hello comes first"):
        client.hello()
    with pytest.raises(InvalidAsk, match="a hello, a request or a report"):
        client.connection.receive(pb.ClientMessage())


def test_a_client_that_cannot_map_pages_gets_none(world):
    client = world.client(maps_pages=False).hello()
    assert client.welcome.client_page == client.welcome.daemon_page == ""
    assert client.granted().slot == -1


def test_a_session_without_pages_holds_no_more_allowances_than_one_with_them():
    world = World(pages=NoPages())
    client = world.client().hello()
    granted_count = 0
    while client.ask(4).HasField("allowance"):
        client.heard.clear()
        granted_count += 1
        assert granted_count <= SLOTS_COUNT
    assert granted_count == SLOTS_COUNT


def test_a_session_holds_as_many_allowances_as_its_page_has_slots(world):
    client = world.client().hello()
    slots = [client.granted(4).slot for _ in range(256)]
    assert sorted(slots) == list(range(256))
    assert not client.ask(4).HasField("allowance")


# ---- how large -----------------------------------------------------------------------------------


def test_a_budget_that_only_tracks_bounds_nothing():
    policy = HEAD + "budgets:\n  - {id: all, window: total}\n"
    assert World(policy).client().hello().granted(1_000).calls_count == 1_000


def test_calls_that_cost_nothing_are_bounded_by_budgets_in_other_units_only():
    policy = HEAD + (
        "budgets:\n  - {id: all, window: total, limit: $1}\n"
        "  - {id: calls, window: total, limit: 1000 calls}\n"
        "rates:\n  - {id: d, limit: $1 per minute}\n"
        "prices:\n  - {models: acme/gratis, input: $0, output: $0}\n"
    )
    allowance = World(policy).client().hello().granted(1_000, model="gratis", provider="acme")
    assert (allowance.calls_count, allowance.amount_nusd) == (50, 0)


def test_an_amount_of_zero_for_a_priced_model_gets_no_allowance(world):
    fields = {"prompt_tokens": None, "max_output_tokens": None, "estimated_cost_nusd": 0}
    assert not world.client().hello().ask(**fields).HasField("allowance")


def test_what_only_shadow_lets_pass_gets_no_allowance():
    policy = PLAIN + "model_rules:\n  - {id: m, forbid: ['*/*'], shadow: true}\n"
    assert not World(policy).client().hello().ask().HasField("allowance")


def test_a_shadow_rule_that_would_let_a_call_pass_is_no_hindrance():
    policy = PLAIN + "model_rules:\n  - {id: m, forbid: [acme/*], shadow: true}\n"
    assert World(policy).client().hello().ask().HasField("allowance")


def test_a_degraded_scope_has_allowances_with_its_directives():
    policy = HEAD + (
        "budgets:\n  - {id: all, window: total, limit: $1, "
        "steps: [{at: 10%, do: [tier_down, {max_output_tokens: 50}]}]}\n"
    )
    world = World(policy)
    world.ledger.admit(Ask(ask_id="a" * 16, model="gpt-4o", estimated_cost_nusd=100_000_000))
    allowance = world.client().hello().granted(10)
    assert allowance.decision.verdict == pb.VERDICT_DEGRADE
    assert allowance.decision.model == "gpt-4o-mini"
    assert allowance.output_tokens_max == 50
    world.check()


def test_an_allowance_stays_below_the_pace_of_a_burn_step():
    policy = HEAD + (
        "budgets:\n  - {id: all, window: day, limit: $1, steps: [{burn_rate: 2, do: [alert]}]}\n"
        "allowance: {share: 50%, single_below: 0%}\n"
    )
    world = World(policy)
    world.clock.advance(6 * 3_600)  # a quarter of the day: twice the pace is half of the budget
    client = world.client().hello()
    while client.ask(10**6).HasField("allowance"):
        client.heard.clear()
    assert 0.4e9 < world.counter.used < 0.5e9
    assert world.alerts() == []


def test_rates_in_tokens_and_dollars_bound_allowances_too():
    policy = PLAIN + (
        'rates:\n  - {id: t, limit: "6M tokens per minute"}\n  - {id: d, limit: "$21 per minute"}\n'
    )
    allowance = World(policy).client().hello().granted(1_000)
    assert allowance.calls_count == min(100_000 // CALL_TOKENS, 350_000_000 // CALL_NUSD)
    assert allowance.HasField("tokens_count")


def test_settled_draws_refund_what_a_rate_gave_too_much():
    policy = PLAIN + 'rates:\n  - {id: t, limit: "6M tokens per minute"}\n'
    world = World(policy)
    client = world.client().hello()
    allowance = client.granted(10)
    ((key, before),) = world.store.scan(Family.RATES)
    client.report(client.settled(allowance, usage=pb.Usage(prompt_tokens=100, output_tokens=0)))
    assert before - world.store.get(Family.RATES, key) == 1_000 * 10_000


def test_an_allowance_whose_window_was_forgotten_settles_all_the_same(world):
    client = world.client().hello()
    allowance = client.granted(10)
    ((key, _),) = world.counters().items()
    world.store.commit([(Family.COUNTERS, key, None)])
    client.report(
        client.settled(allowance), drawn=[(allowance, client.sums(1))], returned=[allowance]
    )
    assert len(world.usage()) == 1


def test_two_allowances_of_one_budget_settle_in_one_report(world):
    client = world.client().hello()
    first, second = client.granted(10), client.granted(10)
    client.report(client.settled(first, 1), client.settled(second, 2))
    assert world.counter.settled == 2 * CALL_NUSD
    assert world.counter.reserved == 18 * CALL_NUSD


def test_a_banded_price_is_stated_band_by_band():
    policy = PLAIN + (
        "prices:\n  - models: acme/big\n    input: $1\n    output: $2\n    request: $0.001\n"
        "    tiers: [{above: 1000, input: $3}]\n"
    )
    allowance = World(policy).client().hello().granted(10, provider="acme", model="big")
    table = allowance.price_table
    assert [band.above_tokens for band in table.bands] == [0, 1_000]
    assert table.bands[1].input == 3 * table.bands[0].input
    assert table.per_request * 1_000 == table.scale * 10**9


def test_a_price_with_a_least_amount_is_drawn_by_stated_amounts_only(world):
    source = PriceSource("policy", "1", "acme", "m")
    price = Price("id", (UnitPrice("input_tokens", 1, 1, at_least=5),), source)
    assert price.linear() is None
