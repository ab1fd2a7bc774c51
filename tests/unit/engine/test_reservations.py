from policy_parts import budget, policy
from scenario import World, ask_id, play, usd

from costd.engine import keys
from costd.engine.changes import Family
from costd.model.money import usd_to_nusd
from costd.model.usage import CallOutcome, Usage

TEAM = policy(budget("team", "20", match={"team": "a"}))
TOKENS = policy(
    budget("money"), budget("tokens", 1000, unit="tokens"), budget("calls", 3, unit="calls")
)


def test_money_is_held_and_then_charged():
    play(
        """
        t=0 admit r1 team=a 15 -> allow hold=15 tightest=team
        show team -> settled=0 reserved=15
        t=1 settle r1 13 -> ok cost=13
        show team -> settled=13 reserved=0
        t=1 void r1 -> closed:settled
        admit r2 team=a 8 -> deny:BUDGET_EXHAUSTED by=team most=7
        admit r3 team=a 7 -> allow at=100
        """,
        TEAM,
    )


def test_a_void_gives_everything_back_once():
    play(
        """
        admit r1 team=a 20 -> allow
        void r1 -> ok
        void r1 -> replayed
        show team -> settled=0 reserved=0
        settle r1 1 -> closed:voided
        extend r1 1 -> closed:voided
        admit r2 team=a 20 -> allow
        """,
        TEAM,
    )


def test_settling_again_changes_nothing_and_at_another_cost_is_an_error():
    play(
        """
        admit r1 team=a 5 -> allow
        settle r1 4 -> ok
        settle r1 4 -> replayed cost=4
        settle r1 3 -> closed:settled says=was_settled_at_4000000000
        show team -> settled=4 overrun=0
        """,
        TEAM,
    )


def test_a_settle_above_the_hold_is_counted_as_overrun_and_alerted():
    play(
        """
        admit r1 team=a 15 -> allow
        settle r1 26 -> ok
        show team -> settled=26 reserved=0 overrun=11
        alerts -> overrun:11
        admit r2 team=a 1 -> deny:BUDGET_EXHAUSTED used=26 limit=20
        """,
        TEAM,
    )


def test_an_unclosed_reservation_expires_at_its_hold():
    world = play(
        """
        admit r1 team=a 15 ttl=60 -> allow
        t=59 sweep -> 0
        t=60 sweep -> 1
        show team -> settled=15 reserved=0
        void r1 -> closed:expired
        extend r1 1 -> closed:expired
        """,
        TEAM,
    )
    ((_, event),) = world.store.scan(Family.USAGE)
    assert (event.closed_as, event.outcome) == ("expired", CallOutcome.TIMEOUT)
    assert usd(event.cost_nusd) == "15"


def test_a_late_settle_replaces_the_charge_by_the_truth():
    play(
        """
        admit r1 team=a 15 ttl=60 -> allow
        t=1h sweep -> 1
        settle r1 4 -> late cost=4
        show team -> settled=4 late=0
        settle r1 4 -> replayed
        settle r1 5 -> closed:settled
        alerts -> none
        """,
        TEAM,
    )


def test_a_late_settle_reverses_the_event_of_the_expiry():
    world = play(
        """
        admit r1 in=10 out=10 ttl=60 -> allow
        extend r1 in=7 -> ok
        t=1h sweep -> 1
        settle r1 in=9 out=2 -> late
        settle r1 in=9 out=2 -> replayed
        """,
        TOKENS,
    )
    expired, taken, late = (event for _, event in world.store.scan(Family.USAGE))
    assert [each.closed_as for each in (expired, taken, late)] == ["expired", "reversed", "late"]
    assert taken.cost_nusd == -expired.cost_nusd < 0
    assert (taken.hold_nusd, taken.calls_count) == (-expired.hold_nusd, -1)
    assert (expired.usage, taken.usage) == (Usage(prompt_tokens=7), Usage(prompt_tokens=-7))
    same = ("reservation_id", "ask", "tier", "provider", "model", "outcome", "reason", "verdict")
    for name in same:
        assert getattr(taken, name) == getattr(expired, name), name
    assert (late.usage, late.calls_count) == (Usage(prompt_tokens=9, output_tokens=2), 1)


def test_negative_usage_takes_every_unit_out_of_a_sum_and_leaves_the_unknown_unknown():
    usage = Usage(prompt_tokens=5, output_tokens=0, units={"web_searches": 3})
    assert usage.negative() == Usage(prompt_tokens=-5, output_tokens=0, units={"web_searches": -3})


def test_a_late_settle_beyond_the_hold_counts_as_late():
    play(
        """
        admit r1 team=a 15 ttl=60 -> allow
        t=1h sweep -> 1
        settle r1 22 -> late
        show team -> settled=22 late=7 overrun=0
        alerts -> overrun:7
        """,
        TEAM,
    )


def test_a_reservation_that_reported_more_than_its_hold_expires_at_what_it_reported():
    play(
        """
        admit r1 team=a in=500 out=500 ttl=60 -> allow hold=10
        extend r1 in=500 out=800 -> ok reported=13
        t=60 sweep -> 1
        show team -> settled=13 overrun=3
        alerts -> overrun:3
        t=61 settle r1 12 -> late
        show team -> settled=12 overrun=0 late=2
        alerts -> none     # the overrun was told when it expired
        """,
        TEAM,
    )


def test_a_late_settle_below_what_was_reported_takes_the_overrun_back():
    play(
        """
        admit r1 team=a in=500 out=500 ttl=60 -> allow hold=10
        extend r1 in=500 out=1500 -> ok reported=20
        t=60 sweep -> 1
        show team -> settled=20 overrun=10
        settle r1 3 -> late
        show team -> settled=3 overrun=0 late=0
        """,
        TEAM,
    )


def test_a_late_settle_comes_too_late_once_the_reservation_is_forgotten():
    play(
        """
        admit r1 team=a 15 ttl=60 -> allow
        t=60 sweep -> 1
        t=8d sweep -> 1
        settle r1 4 -> error:ReservationNotFound says=forgotten
        """,
        TEAM,
    )


def test_a_settle_after_the_window_has_ended_touches_the_window_of_the_admit():
    play(
        """
        t=86390 admit r1 team=a 15 -> allow
        t=86410 admit r2 team=a 20 -> allow
        settle r1 18 -> ok
        show team@ended -> settled=18 overrun=3
        show team -> settled=0 reserved=20 overrun=0
        """,
        TEAM,
    )


def test_void_after_reported_usage_is_refused_even_when_it_was_zero():
    play(
        """
        admit r1 team=a in=10 out=10 -> allow
        extend r1 in=0 out=0 -> ok reported=0
        void r1 -> closed:held says=settle_it
        settle r1 0 -> ok
        """,
        TEAM,
    )


def test_an_explicit_zero_usage_stays_zero():
    play(
        """
        admit r1 in=100 out=100 -> allow hold=2
        settle r1 in=0 out=0 -> ok cost=0
        show tokens -> settled=0 reserved=0
        show calls -> settled=1
        """,
        TOKENS,
    )


def test_without_token_counts_a_settle_leaves_the_held_tokens():
    play(
        """
        admit r1 in=100 out=100 -> allow
        settle r1 1 -> ok
        show tokens -> settled=200
        """,
        TOKENS,
    )


def test_settles_are_priced_as_the_admit_was():
    play(
        """
        admit r1 in=100 out=100 -> allow hold=2
        settle r1 in=50 out=25 -> ok cost=0.75
        show tokens -> settled=75
        show money -> settled=0.75
        """,
        TOKENS,
    )


def test_a_settle_names_the_model_that_answered_and_is_priced_by_it():
    play(
        """
        admit r1 in=100 out=100 -> allow hold=2
        settle r1 in=100 out=100 model=acme/mid -> ok cost=0.2
        admit r2 in=100 out=100 -> allow
        settle r2 in=100 out=100 model=acme/nobody -> ok cost=2   # unknown: as admitted
        """,
        TOKENS,
    )


def test_a_settle_says_what_it_lacks():
    play(
        """
        admit r1 in=100 out=100 -> allow
        settle r1 -> error:InvalidAsk says=at_least_one_count
        settle r1 cached=5 in=4 out=1 -> error:InvalidAsk says=cached_tokens
        """,
        TOKENS,
    )


def test_nothing_closes_a_reservation_that_was_never_made():
    world = World(TEAM)
    world.ids["nobody"] = keys.reservation_id("", ask_id("nobody"))
    world.play(
        """
        settle nobody 1 -> error:ReservationNotFound
        void nobody -> error:ReservationNotFound
        extend nobody 1 -> error:ReservationNotFound
        """
    )


def test_an_extension_holds_more_where_it_fits():
    play(
        """
        admit r1 team=a 5 -> allow
        extend r1 10 -> ok hold=15
        show team -> reserved=15
        extend r1 6 -> stop:BUDGET_EXHAUSTED hold=15
        show team -> reserved=15
        settle r1 15 -> ok
        show team -> settled=15 overrun=0
        """,
        TEAM,
    )


def test_an_extension_in_tokens_is_priced_as_the_admit_was():
    play(
        """
        admit r1 in=100 out=100 -> allow hold=2 ceiling=2
        extend r1 tokens=50 -> ok hold=2.5 ceiling=2.5
        show tokens -> reserved=250
        extend r1 tokens=751 -> stop:BUDGET_EXHAUSTED hold=2.5
        show calls -> reserved=1
        """,
        TOKENS,
    )


def test_a_refused_extension_still_notes_what_was_used():
    play(
        """
        admit r1 team=a in=500 out=500 ttl=60 -> allow
        extend r1 50 in=500 out=700 -> stop:BUDGET_EXHAUSTED reported=12
        t=60 sweep -> 1
        show team -> settled=12
        """,
        TEAM,
    )


def test_an_extension_moves_the_expiry():
    play(
        """
        admit r1 team=a 5 ttl=60 -> allow
        t=50 extend r1 ttl=60 -> ok expires=110
        t=100 sweep -> 0
        t=110 sweep -> 1
        show team -> settled=5
        """,
        TEAM,
    )


def test_no_extension_outlives_the_longest_time_to_live():
    play(
        """
        admit r1 team=a 5 ttl=60 -> allow
        t=50 extend r1 ttl=30d -> ok expires=86400
        """,
        TEAM,
    )


def test_an_extension_may_not_be_negative_and_needs_a_price_for_tokens():
    world = play("admit r1 team=a 5 -> allow", policy(*TEAM.budgets, tiers=()))
    world.play("extend r1 tokens=5 -> error:InvalidAsk says=additional_cost_nusd")
    world.play("extend r1 ttl=-1 -> error:InvalidAsk says=negative")


def test_an_extension_touches_the_counters_of_its_own_window():
    play(
        """
        t=86390 admit r1 team=a 5 -> allow
        t=86410 admit r2 team=a 20 -> allow
        extend r1 5 -> ok
        show team@ended -> reserved=10
        show team -> reserved=20
        """,
        TEAM,
    )


def test_a_record_charges_past_the_limit_into_unadmitted():
    play(
        """
        admit r1 team=a 15 -> allow
        record x1 team=a 12 -> ok cost=12
        show team -> settled=12 reserved=15 unadmitted=12
        record x1 team=a 12 -> replayed
        record x1 team=a 13 -> error:IdReused says=recorded_before_at_12000000000
        show team -> settled=12
        """,
        TEAM,
    )


def test_a_record_is_repeated_only_with_the_same_fields():
    play(
        """
        record x1 team=a user=ann 12 -> ok
        record x1 team=a user=bob 12 -> error:IdReused says=labels
        record x1 team=a user=ann class=review 12 -> error:IdReused says=task_class
        """,
        TEAM,
    )


def test_a_record_counts_in_the_window_of_its_time():
    play(
        """
        t=2d admit r1 team=a 1 -> allow
        record x1 team=a 12 at=30h -> ok
        show team -> settled=0
        show team@ended -> settled=12 unadmitted=12
        """,
        TEAM,
    )


def test_a_record_from_the_future_counts_now():
    play("record x1 team=a 12 at=5d -> ok / show team -> settled=12", TEAM)


def test_a_record_is_priced_from_usage_and_counts_tokens_and_calls():
    play(
        """
        record x1 model=acme/mid in=100 out=100 -> ok cost=0.2
        show tokens -> settled=200 unadmitted=200
        show calls -> settled=1 unadmitted=1
        record x1 model=acme/mid in=100 out=100 -> replayed
        record x2 model=acme/none in=1 out=1 -> error:InvalidAsk says=price
        record x3 model=acme/mid -> error:InvalidAsk says=at_least_one_count
        """,
        TOKENS,
    )


def test_a_record_of_an_ask_that_was_admitted_after_all_settles_it():
    play(
        """
        admit r1 team=a 15 -> allow
        record r1 team=a 12 -> ok
        show team -> settled=12 reserved=0 unadmitted=0
        record r1 team=a 12 -> replayed
        """,
        TEAM,
    )


def test_a_record_cannot_be_settled_again_or_voided():
    play(
        "record x1 team=a 12 -> ok / settle x1 9 -> closed:settled / void x1 -> closed:settled",
        TEAM,
    )


def test_spend_without_a_budget_is_recorded_all_the_same():
    world = play("record x1 team=z 12 -> ok", TEAM)
    ((_, event),) = world.store.scan(Family.USAGE)
    assert (event.closed_as, usd(event.cost_nusd)) == ("recorded", "12")


def test_usage_events_say_when_why_and_at_what_price():
    world = play("admit r1 in=10 out=10 -> allow / t=5 settle r1 in=10 out=5 -> ok", TOKENS)
    ((_, event),) = world.store.scan(Family.USAGE)
    assert event.settled_ns - event.admitted_ns == 5_000_000_000
    assert event.usage == Usage(prompt_tokens=10, output_tokens=5)
    assert event.cost_nusd == usd_to_nusd("0.15")
    assert event.price.model == "big"
    assert event.closed_as == "settled"
