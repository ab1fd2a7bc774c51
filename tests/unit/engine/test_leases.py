"""A fleet's budget at one daemon: bounded by what it is lent, judged by how the fleet stands."""

from fractions import Fraction

import msgspec
from policy_parts import budget, policy, step
from scenario import GRANT_KEYS, World, token

from costd.engine import leases
from costd.engine.changes import Family
from costd.model.counter import Counter
from costd.model.lease import Lease
from costd.model.policy import FailMode, FleetTerms, Share

HUNDRED = policy(budget("b", "100"))


def fleet(table, made=HUNDRED, **options):
    """Play a table at a daemon that has a coordinator and a tenure of an hour."""
    return World(made, in_fleet=True, **options).play(f"tenure 1h -> ok\n{table}")


def failing(mode, *rules, **terms):
    return policy(*rules, fleet=FleetTerms(fail_mode=FailMode(mode), **terms))


# ---- room ---------------------------------------------------------------------------------------


def test_without_a_lease_nothing_of_a_fleets_budget_is_held():
    fleet("admit r1 1 -> deny:NO_LEASE by=b limit=100 used=0 resets=never\nshow b -> none")


def test_a_lease_bounds_what_is_settled_and_reserved_together():
    fleet(
        """
        lease b 10 -> ok
        admit r1 6 -> allow at=6
        admit r2 5 -> deny:NO_LEASE by=b most=4
        settle r1 3 -> ok
        admit r2 7 -> allow
        admit r3 0.01 -> deny:NO_LEASE
        show b -> settled=3 reserved=7 lent_amount=10 limit=10
        """
    )


def test_a_daemon_without_a_coordinator_is_a_fleet_of_one():
    World(HUNDRED).play("admit r1 100 -> allow\nadmit r2 1 -> deny:BUDGET_EXHAUSTED")


def test_a_budget_of_the_host_needs_no_lease():
    fleet(
        "admit r1 100 -> allow\nadmit r2 1 -> deny:BUDGET_EXHAUSTED",
        policy(budget("b", "100", share=Share.HOST)),
    )


def test_a_budget_that_only_tracks_or_is_suspended_needs_no_lease():
    tracks = policy(budget("b"), budget("c", "5", active=False), unmatched_allow=True)
    fleet("admit r1 100 -> allow", tracks)


def test_a_free_call_needs_no_lease():
    fleet("admit r1 model=acme/gratis in=5 out=5 -> allow hold=0")


def test_after_the_tenure_nothing_that_is_lent_may_be_spent():
    fleet(
        """
        lease b 10 -> ok
        tenure 60 -> ok
        t=59 admit r1 1 -> allow
        t=60 admit r2 1 -> deny:NO_LEASE most=-
        admit r2 1 wait -> wants lent=b=2
        tenure 1 -> ok
        admit r2 1 -> allow
        """
    )


def test_a_cost_beyond_the_hold_takes_from_the_lease_and_is_explained():
    fleet(
        """
        lease b 10 -> ok
        admit r1 8 -> allow
        settle r1 14 -> ok
        show b -> settled=14 overrun=6 lowered=0
        admit r2 1 wait -> wants lent=b=15
        lease b 15 -> ok
        admit r2 1 -> allow
        """
    )


def test_a_recorded_spend_is_unadmitted_also_without_a_lease():
    fleet("record x1 5 -> ok\nshow b -> settled=5 unadmitted=5 lowered=0 limit=0")


def test_counts_of_calls_and_tokens_are_lent_too():
    made = policy(budget("calls", 10, unit="calls"), budget("tok", 5000, unit="tokens"))
    fleet(
        """
        admit r1 1 in=100 out=50 wait -> wants lent=calls=1,tok=150
        lease calls 1 -> ok
        lease tok 200 -> ok
        admit r1 1 in=100 out=50 -> allow
        admit r2 1 in=20 out=30 wait -> wants lent=calls=2
        """,
        made,
    )


# ---- the reserve --------------------------------------------------------------------------------

KEPT = policy(budget("b", "100", reserve="20"))


def test_the_reserve_that_is_lent_is_for_critical_classes_only():
    fleet(
        """
        lease b 15 reserve=5 -> ok
        admit r1 11 wait -> wants lent=b=16
        admit r1 10 -> allow
        admit r2 1 wait -> wants lent=b=16
        admit c1 class=review 4 -> allow
        show b -> reserved=14 reserve_reserved=4
        admit c2 class=review 2 wait -> wants lent=b=16!
        """,
        KEPT,
    )


def test_what_is_wanted_keeps_the_reserve_that_is_lent_apart():
    """A lease of 16 of which 5 are reserve holds 11 of the general part."""
    fleet(
        """
        lease b 15 reserve=5 -> ok
        admit r1 11 wait -> wants lent=b=16
        lease b 16 reserve=5 -> ok
        admit r1 11 wait -> allow
        """,
        KEPT,
    )


def test_a_critical_class_draws_the_general_part_of_a_lease_first():
    fleet(
        """
        lease b 15 reserve=5 -> ok
        admit c1 class=review 12 -> allow
        show b -> reserved=12 reserve_reserved=2
        settle c1 11 -> ok
        show b -> settled=11 reserve_settled=1
        """,
        KEPT,
    )


# ---- how the fleet stands -----------------------------------------------------------------------

LADDER = policy(budget("b", "100", steps=[step(50, cache=True), step(80, deny=True)]))


def test_steps_go_by_what_the_whole_fleet_used():
    fleet(
        """
        lease b 10 others=40 -> ok
        admit r1 9 -> allow at=49 crossed=0
        admit r2 1 -> allow at=50
        lease b 20 others=40 -> ok
        admit r3 1 -> degrade:STEP do=cache at=51 crossed=50
        lease b 20 others=69 -> ok
        admit r4 1 -> deny:STEP_DENY used=80 limit=100
        """,
        LADDER,
    )


def test_a_daemon_alerts_and_halts_for_no_budget_of_the_fleet():
    made = policy(budget("b", "100", steps=[step(10), step(50, halt=True)]))
    fleet(
        """
        lease b 60 -> ok
        admit r1 55 -> allow
        alerts -> none
        kills -> none
        lease b 5 -> ok
        lease b 70 -> ok
        admit r2 5 -> allow
        alerts -> none
        """,
        made,
    )


def test_a_step_of_the_fleet_takes_back_what_was_granted_below_it():
    world = fleet("lease b 60 -> ok", LADDER)
    told = []
    world.ledger.watcher = Watcher(told)
    world.play("admit r1 50 -> allow")
    assert told == ["b"]
    world.play("admit r2 1 -> degrade:STEP do=cache")
    assert told == ["b"]
    world.play("void r2 -> ok\nvoid r1 -> ok\nlease b 60 others=55 -> ok")
    assert told == ["b", "b"]


class Watcher:
    """Hears of counters that reached a step."""

    def __init__(self, told):
        self._told = told

    def pressed(self, counter_keys):
        self._told += ["b" for _ in counter_keys]

    def admitted(self, held):
        pass


def test_steps_with_a_reserve_are_shares_of_what_the_class_can_draw_of_the_fleet():
    made = policy(budget("b", "100", reserve="20", steps=[step(50, cache=True)]))
    fleet(
        """
        lease b 30 kept=20 others=50 others_reserve=15 -> ok
        admit r1 5 -> allow at=50
        admit r2 1 -> degrade:STEP at=51.25
        admit c1 class=review 1 -> allow at=57
        """,
        made,
    )


def test_what_the_fleet_is_known_to_lack_is_not_asked_for():
    fleet(
        """
        lease b 3 others=95 -> ok
        admit r1 6 wait -> deny:BUDGET_EXHAUSTED limit=100 used=95 most=3
        admit r1 5 wait -> wants lent=b=5
        """
    )


def test_what_was_lent_may_be_spent_though_others_have_used_more_than_they_should():
    fleet("lease b 10 others=95 -> ok\nadmit r1 10 -> allow at=105")


def test_a_counter_that_refused_is_reported_so_that_it_does_not_refuse_for_ever():
    world = fleet("lease b 3 others=95 -> ok")
    assert not world.ledger.fleet_changed
    world.play("admit r1 6 wait -> deny:BUDGET_EXHAUSTED")
    assert world.ledger.fleet_changed == {world.key_of("b")}


def test_a_limit_that_nothing_can_meet_is_exhausted_without_asking_anybody():
    fleet("admit r1 101 wait -> deny:BUDGET_EXHAUSTED resets=never")


# ---- wanting ------------------------------------------------------------------------------------

TWO = policy(
    budget("b", "100"), budget("u", "20", per=("user",)), budget("h", "9", share=Share.HOST)
)


def test_all_that_is_short_is_wanted_together_and_nothing_is_written():
    world = World(TWO, in_fleet=True)
    before = {family: dict(world.store.scan(family)) for family in Family}
    world.play("admit r1 5 user=ann wait -> wants lent=b=5,u/user=ann=5")
    assert before == {family: dict(world.store.scan(family)) for family in Family}


def test_only_what_is_short_is_wanted():
    fleet(
        """
        lease u/user=ann 8 -> ok
        admit r1 5 user=ann wait -> wants lent=b=5
        lease b 5 -> ok
        admit r1 5 user=ann wait -> allow
        admit r2 5 user=ann wait -> deny:BUDGET_EXHAUSTED by=h
        """,
        TWO,
    )


def test_what_another_budget_refuses_wants_no_lease():
    fleet("admit r1 10 user=ann wait -> deny:BUDGET_EXHAUSTED by=h", TWO)


def test_more_is_waited_for_before_something_cheaper_is_given():
    made = policy(budget("b", "100", match={"tier": "premium"}), budget("e", "9", share=Share.HOST))
    fleet(
        """
        admit r1 in=10 out=10 wait -> wants lent=b=0.2
        admit r1 in=10 out=10 -> degrade:NO_LEASE tier=premium
        """.replace("tier=premium", "tier=standard"),
        made,
    )


def test_only_the_first_candidate_that_lacks_nothing_else_is_asked_for():
    made = policy(
        budget("big", "0.1", match={"model": "big"}, share=Share.HOST),
        budget("b", "100", match={"tier": "premium|standard"}),
        budget("all", "100"),
    )
    fleet("admit r1 in=10 out=10 wait -> wants lent=all=0.16,b=0.16", made)


def test_a_candidate_is_passed_over_only_where_all_that_it_lacks_names_it():
    made = policy(budget("b", "100", match={"tier": "premium"}), budget("all", "100"))
    fleet(
        """
        admit r1 in=10 out=10 -> deny:NO_LEASE by=b
        lease all 9 -> ok
        admit r2 in=10 out=10 -> degrade:NO_LEASE tier=standard by=b
        """,
        made,
    )


def test_what_was_waited_for_in_vain_is_refused_for_its_reason():
    fleet(
        """
        admit r1 5 wait -> wants lent=b=5
        admit r1 5 -> deny:NO_LEASE
        exhausted b -> ok
        admit r2 5 wait -> wants lent=b=5
        admit r2 5 -> deny:BUDGET_EXHAUSTED resets=86400
        """
    )


def test_a_grant_overrides_the_lack_of_a_lease():
    world = fleet(
        """
        lease b 2 -> ok
        admit c1 class=review 5 grant=g wait -> wants lent=b=5!
        admit c1 class=review 5 grant=g -> allow:GRANT by=b
        show b -> reserved=5 granted=5 lowered=0
        """,
        policy(budget("b", "100"), grant_keys=GRANT_KEYS),
        grants={"g": token("g")},
    )
    assert world.ledger.stand(world.key_of("b")).granted == 5 * 10**9


def test_explain_tells_what_is_lent_and_what_the_fleet_has():
    world = fleet("lease b 4 others=30 -> ok\nexplain r1 5 -> deny:NO_LEASE")
    (report,) = world.explanation.candidates[0].rules
    assert (report.passed, report.reason.name) == (False, "NO_LEASE")
    assert report.note == "holds $5.00, $4.00 left of the lease, $70.00 in the fleet"
    world.play("lease b 4 others=99 -> ok\nexplain r1 5 -> deny:BUDGET_EXHAUSTED")
    assert world.explanation.candidates[0].rules[0].reason.name == "BUDGET_EXHAUSTED"


# ---- extending ----------------------------------------------------------------------------------


def test_an_extension_needs_room_in_the_lease_as_an_ask_does():
    fleet(
        """
        lease b 10 others=20 -> ok
        admit r1 8 -> allow
        extend r1 3 wait -> wants lent=b=11
        extend r1 3 -> stop:NO_LEASE hold=8
        extend r1 2 wait -> ok hold=10
        extend r1 71 wait -> stop:BUDGET_EXHAUSTED hold=10
        exhausted b -> ok
        extend r1 1 wait -> wants lent=b=11
        extend r1 1 -> stop:BUDGET_EXHAUSTED
        lease b 11 -> ok
        extend r1 1 -> ok hold=11
        show b -> reserved=11 unadmitted=0
        """
    )


def test_an_extension_that_waits_writes_nothing_of_what_was_reported():
    world = fleet("lease b 10 -> ok\nadmit r1 8 in=100 out=100 -> allow")
    before = {family: dict(world.store.scan(family)) for family in Family}
    world.play("extend r1 9 in=100 wait -> wants lent=b=17")
    assert before == {family: dict(world.store.scan(family)) for family in Family}
    world.play("extend r1 9 in=100 -> stop:NO_LEASE reported=1")


def test_all_that_an_extension_lacks_is_wanted_together():
    fleet(
        """
        lease b 5 -> ok
        lease u/user=ann 5 -> ok
        admit r1 5 user=ann -> allow
        extend r1 2 wait -> wants lent=b=7,u/user=ann=7
        lease b 9 -> ok
        extend r1 2 wait -> wants lent=u/user=ann=7
        """,
        TWO,
    )


def test_an_extension_of_time_alone_needs_no_lease():
    fleet("lease b 5 -> ok\nadmit r1 5 -> allow\ntenure 0 -> ok\nextend r1 ttl=2h wait -> ok")


def test_a_critical_extension_draws_the_reserve_that_is_lent():
    fleet(
        """
        lease b 15 reserve=5 -> ok
        admit c1 class=review 9 -> allow
        extend c1 4 -> ok
        show b -> reserved=13 reserve_reserved=3
        """,
        KEPT,
    )


# ---- nobody to ask ------------------------------------------------------------------------------


def test_failing_open_admits_without_a_lease_and_counts_it_as_unadmitted():
    fleet(
        """
        admit r1 5 wait -> wants lent=b=5
        admit r1 5 -> allow
        show b -> reserved=5 unadmitted=5 lowered=0 limit=0
        settle r1 7 -> ok
        show b -> settled=7 unadmitted=7 overrun=0
        admit r2 4 -> allow
        void r2 -> ok
        show b -> settled=7 unadmitted=7
        admit r3 60 ttl=60 -> allow
        t=61 sweep
        show b -> settled=67 unadmitted=67
        settle r3 50 -> late
        show b -> settled=57 unadmitted=57 late=0
        """,
        failing("open", budget("b", "100")),
    )


def test_failing_open_does_not_pass_what_the_fleet_is_known_to_lack():
    fleet(
        """
        lease b 1 others=97 -> ok
        admit r1 4 -> deny:BUDGET_EXHAUSTED
        admit r2 3 -> allow
        exhausted b -> ok
        admit r3 0.5 -> deny:BUDGET_EXHAUSTED
        """.replace("admit r2 3", "admit r2 2"),
        failing("open", budget("b", "100")),
    )


def test_failing_safe_admits_a_small_share_of_the_limit_in_each_window():
    fleet(
        """
        admit r1 1.5 -> allow
        admit r2 1 -> deny:NO_LEASE
        admit r2 0.5 -> allow
        show b -> unadmitted=2
        void r1 -> ok
        admit r3 1.5 -> allow
        lease b 10 -> ok
        admit r4 8 -> allow
        show b -> reserved=10 unadmitted=2
        lease b 10 limit=300 -> ok
        admit r5 3 -> allow
        admit r6 2 -> deny:NO_LEASE
        t=24h tenure 60 -> ok
        admit r7 2 -> allow
        """,
        failing("safe", budget("b", "100"), safe_share=Fraction(1, 50)),
    )


def test_an_extension_without_a_lease_is_excused_whole_where_the_policy_lets_it_pass():
    fleet(
        """
        lease b 5 -> ok
        admit r1 5 -> allow
        extend r1 2 wait -> wants lent=b=7
        extend r1 2 -> ok hold=7
        show b -> reserved=7 unadmitted=7
        extend r1 1 -> ok hold=8
        show b -> reserved=8 unadmitted=8
        void r1 -> ok
        show b -> reserved=0 unadmitted=0
        """,
        failing("open", budget("b", "100")),
    )


def test_an_extension_passes_the_safe_share_no_more_than_an_ask():
    fleet(
        """
        lease b 1 -> ok
        admit r1 1 -> allow
        extend r1 2 -> stop:NO_LEASE
        extend r1 1 -> ok
        show b -> unadmitted=2
        extend r1 0.5 -> stop:NO_LEASE
        """,
        failing("safe", budget("b", "100"), safe_share=Fraction(1, 50)),
    )


# ---- shadow -------------------------------------------------------------------------------------

SHADOWED = policy(budget("b", "100", shadow=True))


def test_a_budget_in_shadow_waits_for_nobody_and_is_judged_by_the_fleet():
    fleet(
        """
        admit r1 6 wait -> allow
        show b -> reserved=6 shadow=6 lowered=0
        lease b 0 others=90 -> ok
        admit r2 4 wait -> allow
        admit r3 1 wait -> allow:SHADOW shadow=deny:BUDGET_EXHAUSTED
        void r3 -> ok
        lease b 20 others=90 -> ok
        admit r4 1 -> allow
        show b -> reserved=11 shadow=10
        """,
        SHADOWED,
    )


def test_what_a_rule_in_shadow_ended_first_still_wants_its_leases():
    made = policy(budget("s", "1", shadow=True, share=Share.HOST), budget("b", "100"))
    fleet("admit r1 5 wait -> wants lent=b=5", made)


def test_an_extension_past_the_lease_of_a_budget_in_shadow_is_excused():
    fleet(
        """
        lease b 5 -> ok
        admit r1 5 wait -> allow
        extend r1 2 wait -> ok
        show b -> reserved=7 shadow=7
        """,
        SHADOWED,
    )


# ---- policies that change -----------------------------------------------------------------------


def test_a_budget_that_becomes_the_hosts_goes_on_with_all_of_its_limit():
    fleet(
        """
        lease b 5 -> ok
        admit r1 5 -> allow
        policy host
        admit r2 95 -> allow
        admit r3 1 -> deny:BUDGET_EXHAUSTED
        policy fleet
        show b -> reserved=100 lent_amount=5
        admit r4 1 wait -> deny:BUDGET_EXHAUSTED
        void r2 -> ok
        admit r4 1 wait -> wants lent=b=6
        """,
        policies={"host": policy(budget("b", "100", share=Share.HOST)), "fleet": HUNDRED},
    )


def test_a_budget_that_is_gone_closes_what_it_held_and_keeps_its_lease():
    fleet(
        """
        lease b 5 -> ok
        admit r1 5 -> allow
        policy none
        extend r1 9 wait -> ok
        settle r1 20 -> ok
        policy fleet
        show b -> settled=20 lent_amount=5
        """,
        policies={"none": policy(unmatched_allow=True), "fleet": HUNDRED},
    )


def test_of_a_revoked_lease_nothing_more_is_used_and_how_the_fleet_stands_is_kept():
    told = Lease(limit=100, reserve=20, others_used=30, others_reserve_used=4, version=6)
    lent = msgspec.structs.replace(told, amount=50, reserve_amount=5)
    counter = Counter(settled=20, reserved=10, lease=lent)
    assert leases.revoked(counter) == Counter(settled=20, reserved=10, lease=told)
    assert leases.revoked(Counter(settled=20)) == Counter(settled=20, lease=Lease())


def test_a_lease_is_not_lowered_below_what_calls_in_flight_hold():
    held = Counter(settled=20, reserved=10, lease=Lease(amount=50))
    assert leases.relent(held, Lease(amount=40, version=2)).lease == Lease(amount=40, version=2)
    assert leases.relent(held, Lease(amount=10, version=2)).lease == Lease(amount=30, version=2)
    assert leases.relent(held, Lease(amount=60, version=2)).lease == Lease(amount=60, version=2)


def test_a_lease_that_is_passed_already_is_not_raised_by_lowering_it():
    passed = Counter(settled=80, lease=Lease(amount=50))
    assert leases.relent(passed, Lease(amount=10)).lease == Lease(amount=50)


def test_neither_part_of_a_lease_is_lowered_below_what_is_used_of_it():
    lent = Lease(amount=50, reserve_amount=20)
    of_reserve = Counter(settled=15, reserve_settled=15, lease=lent)
    assert leases.relent(of_reserve, Lease()).lease == Lease(amount=15, reserve_amount=15)
    of_both = Counter(settled=25, reserve_settled=5, lease=lent)
    assert leases.relent(of_both, Lease()).lease == Lease(amount=25, reserve_amount=5)
    of_general = Counter(settled=25, lease=lent)
    # What is left of the whole is all held by the general part.
    assert leases.relent(of_general, Lease(reserve_amount=20)).lease == Lease(amount=25)
