from policy_parts import budget, policy, step
from scenario import World, play

from costd.engine.changes import Family
from costd.model.money import usd_to_nusd
from costd.model.usage import CallOutcome


def stepped(*steps, **fields):
    return policy(budget("b", "10", steps=steps, **fields))


def test_an_alert_is_raised_once_per_crossing_and_window():
    play(
        """
        admit r1 8 -> allow
        alerts -> b@80
        settle r1 5 -> ok
        admit r2 4 -> allow
        alerts -> none
        admit r3 1 -> allow
        alerts -> b@100
        t=1d admit r4 8 -> allow
        alerts -> b@80
        """,
        stepped(step(80), step(100)),
    )


def test_one_ask_may_cross_several_thresholds():
    play("admit r1 10 -> allow / alerts -> b@50,b@80,b@100", stepped(step(50), step(80), step(100)))


def test_each_value_of_a_label_alerts_by_itself():
    world = play(
        """
        admit r1 user=ann 8 -> allow
        admit r2 user=bob 8 -> allow
        alerts -> b@80,b@80
        """,
        stepped(step(80), per=("user",)),
    )
    messages = [alert.message for _, alert in world.store.scan(Family.ALERTS)]
    assert messages == [
        "budget b (user=ann) is 80 % used, past 80 %",
        "budget b (user=bob) is 80 % used, past 80 %",
    ]


def test_a_step_may_be_silent():
    play("admit r1 8 -> allow / alerts -> none", stepped(step(80, alert=False)))


def test_a_burn_rate_alerts_once():
    world = play(
        """
        t=2h admit r1 2 -> allow
        alerts -> b@x2
        admit r2 1 -> allow
        alerts -> none
        """,
        stepped(step(burn=2), step(burn=9)),
    )
    ((_, alert),) = world.store.scan(Family.ALERTS)
    assert alert.kind == "burn_rate"
    assert "2 times as fast" in alert.message


def test_a_settle_in_a_window_that_has_ended_is_paced_by_its_own_window():
    play(
        """
        t=23h admit r1 5 -> allow
        t=25h admit r2 1 -> allow
        t=26h settle r1 5 -> ok
        alerts -> none        # 5 in a day that is over is no double pace of the day that began
        """,
        stepped(step(burn=2)),
    )


def test_a_suspended_budget_raises_nothing():
    play(
        """
        admit r1 7 -> allow
        policy off -> ok
        settle r1 9 -> ok
        alerts -> overrun:2
        kills -> none
        """,
        stepped(step(80, halt=True)),
        policies={"off": stepped(step(80, halt=True), active=False)},
    )


def test_a_record_alerts_too():
    play("record x1 8 -> ok / alerts -> b@80", stepped(step(80)))


def test_the_newest_alerts_wait_for_the_log():
    world = play("admit r1 8 -> allow", stepped(step(80)))
    assert [alert.rule for alert in world.ledger.recent_alerts] == ["b"]


def test_an_overrun_names_the_call_and_the_budget():
    world = play("admit r1 8 -> allow / settle r1 9 -> ok", stepped(step(100)))
    ((_, alert),) = world.store.scan(Family.ALERTS)
    assert (alert.kind, alert.rule, alert.amount_nusd) == ("overrun", "b", usd_to_nusd("1"))
    assert alert.message == "call r1.............. cost $1.00 more than the $8.00 held for it"


def test_an_expired_call_is_told_of_as_timed_out():
    world = World(stepped(step(100)))
    world.play("admit r1 8 ttl=60 -> allow / t=60 sweep -> 1")
    ((_, event),) = world.store.scan(Family.USAGE)
    assert event.outcome is CallOutcome.TIMEOUT
