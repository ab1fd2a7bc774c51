"""What the daemon does by itself, over a memory store and a fake clock."""

from policy_parts import budget, policy, rate
from scenario import GRANT_KEYS, World, play, token

from costd.daemon.sweeper import Retention, Sweeper
from costd.engine import keys
from costd.engine.changes import Family
from costd.engine.horizon import CATCH_UP
from costd.model.time import NS_PER_S

DAY_S = 86_400
SHORT = Retention(counters_s=60, usage_s=60, alerts_s=60, audit_s=60, runs_idle_s=60, slice_count=4)
MINUTES = policy(budget("b", "10", window="minute"))


def count(world: World, family: Family) -> int:
    return sum(1 for _ in world.store.scan(family))


def test_what_nobody_closed_expires_in_slices():
    world = World(policy(budget("b", "100")), retention=SHORT)
    for n in range(10):
        world.play(f"admit r{n} 1 ttl=60 -> allow")
    world.play("t=59 sweep -> 0 / t=65 sweep -> 4")
    assert world.sweeper.lag_ns == 5 * NS_PER_S
    world.play("sweep -> 4 / sweep -> 2 / sweep -> 0 / show b -> settled=10 reserved=0")
    assert world.sweeper.lag_ns == 0


def test_closed_reservations_are_forgotten_a_day_later():
    world = play(
        """
        admit r1 1 -> allow
        settle r1 1 -> ok
        t=10 admit r2 1 -> allow
        void r2 -> ok
        t=1d sweep -> 1
        settle r1 1 -> error:ReservationNotFound
        void r2 -> replayed
        t=86411 sweep -> 1
        void r2 -> error:ReservationNotFound
        """,
        policy(budget("b", "100")),
    )
    assert count(world, Family.RESERVATIONS) == count(world, Family.DUE) == 0


def test_expired_reservations_wait_for_a_late_settle_and_are_then_kept_like_others():
    world = play(
        """
        admit r1 1 ttl=60 -> allow
        t=60 sweep -> 1
        t=6d sweep -> 0
        settle r1 1 -> late
        t=601200 sweep -> 0
        t=604860 sweep -> 1
        """,
        policy(budget("b", "100")),
    )
    assert count(world, Family.RESERVATIONS) == 0


def test_a_due_entry_that_its_reservation_has_left_is_dropped():
    world = play("admit r1 1 ttl=60 -> allow", policy(budget("b", "100")))
    stale = keys.due_key(5, world.ids["r1"])
    orphan = keys.due_key(6, b"nobody")
    world.store.commit([(Family.DUE, stale, b""), (Family.DUE, orphan, b"")])
    world.play("t=10 sweep -> 2")
    assert count(world, Family.DUE) == 1
    world.play("settle r1 1 -> ok")


def test_ended_windows_leave_after_their_retention():
    world = World(MINUTES, retention=SHORT)
    world.play(
        """
        admit r1 1 -> allow
        settle r1 1 -> ok
        t=2m admit r2 1 -> allow
        sweep -> 0
        """
    )
    assert count(world, Family.COUNTERS) == 2
    world.play("t=3m sweep -> 0")
    assert count(world, Family.COUNTERS) == 1


def test_a_hold_outlives_the_counter_of_its_window():
    world = World(MINUTES, retention=SHORT)
    world.play(
        """
        admit r1 1 ttl=1h -> allow
        admit r2 1 ttl=1h -> allow
        admit r3 1 ttl=1h -> allow
        """
    )
    world.store.delete_range(Family.COUNTERS, b"", b"\xff")
    world.check = lambda line="": None  # the books of that window are closed
    world.play(
        """
        settle r1 2 -> ok
        extend r2 1 -> ok
        t=1h sweep -> 2
        settle r2 3 -> late
        """
    )
    assert count(world, Family.COUNTERS) == 0
    assert world.ledger.totals.reserved_nusd == 0


def test_a_clock_a_year_ahead_does_not_make_the_horizon_believe_it():
    world = World(MINUTES, retention=SHORT)
    world.play("admit r1 1 -> allow / settle r1 1 -> ok / sweep -> 0 / wall 31536000 -> ok")
    world.play("t=1 sweep -> 0")
    assert world.sweeper.horizon.wall_ns == world.start_ns + CATCH_UP * NS_PER_S
    world.play("wall -31536000 -> ok / t=60 sweep -> 0 / show b@ended -> settled=1")
    assert world.sweeper.horizon.wall_ns == world.clock.wall_ns


def test_the_horizon_is_kept_over_a_restart_and_gains_nothing_by_it():
    world = World(MINUTES, retention=SHORT)
    world.play("sweep -> 0 / wall 31536000 -> ok / t=61 sweep -> 0")
    kept = world.sweeper.horizon.wall_ns
    world.clock.steady_ns += DAY_S * NS_PER_S
    again = Sweeper(world.ledger, SHORT)
    assert again.horizon.wall_ns == kept


def test_logs_lose_their_oldest_records_only():
    world = World(policy(budget("b", "10", window="total")), retention=SHORT)
    for n in range(5):
        world.play(f"t={n * 30} admit r{n} 1 -> allow / settle r{n} 2 -> ok")
    world.ledger.audit("ann", "note", "late")
    world.play("t=150 sweep -> 0")
    for family, kept in ((Family.USAGE, 2), (Family.ALERTS, 2), (Family.AUDIT, 1)):
        assert count(world, family) == kept
    world.play("t=10m sweep -> 0")
    assert count(world, Family.USAGE) == count(world, Family.ALERTS) == 0
    assert count(world, Family.AUDIT) == 0


def test_counted_denials_leave_after_the_audits_retention():
    world = World(policy(budget("b", "1", window="total")), retention=Retention(audit_s=7200))
    for n in range(50):
        world.play(f"t={n * 600} admit r{n} user=u{n} 5 -> deny:BUDGET_EXHAUSTED")
    assert count(world, Family.AUDIT) == 9  # one an hour, however many were denied
    world.play("t=29500 sweep -> 0")
    assert count(world, Family.AUDIT) == 2


def test_a_young_clock_trims_nothing():
    world = World(MINUTES)
    world.clock.wall_ns = 5 * NS_PER_S
    world.open()
    world.play("admit r1 99 -> deny:BUDGET_EXHAUSTED / sweep -> 0")
    assert count(world, Family.AUDIT) == 1


def test_buckets_that_refilled_a_minute_ago_are_forgotten_a_slice_at_a_time():
    world = World(policy(budget("b"), rate("r", 1, per=("user",))), retention=SHORT)
    for n in range(10):
        world.play(f"admit r{n} user=u{n} 1 -> allow")
    world.play("t=119 sweep -> 0 / sweep -> 0 / sweep -> 0 / sweep -> 0")
    assert count(world, Family.RATES) == 10
    world.play("t=120 sweep -> 0 / sweep -> 0 / sweep -> 0")
    assert count(world, Family.RATES) == 0
    world.play("sweep -> 0 / admit r99 user=u1 1 -> allow")


def test_counters_of_idle_runs_are_forgotten_but_not_those_in_use():
    runs = budget("runs", "10", window="run", per=("run",))
    kept = [budget("all", "99", window="total"), budget("day", "99")]
    world = World(policy(runs, *kept), retention=SHORT)
    world.play(
        """
        admit r1 run=old 1 -> allow
        settle r1 1 -> ok
        admit r2 run=busy 1 ttl=1h -> allow
        t=50 admit r3 run=new 1 -> allow
        settle r3 1 -> ok
        t=70 sweep -> 0
        sweep -> 0
        show runs/run=old -> none
        show runs/run=busy -> reserved=1
        show runs/run=new -> settled=1
        show all -> settled=2
        """
    )


def test_run_counters_of_a_budget_that_has_left_the_policy_are_forgotten_too():
    runs = budget("runs", "10", window="run", per=("run",))
    total = budget("gone", "10", window="total")
    world = World(
        policy(runs, total),
        policies={"p2": policy(budget("b"), revision="p2")},
        retention=SHORT,
    )
    world.play(
        "admit r1 run=old 1 -> allow / settle r1 1 -> ok / policy p2 -> ok / t=70 sweep -> 0"
    )
    assert count(world, Family.COUNTERS) == 1
    world.store.delete_range(Family.META, b"budget/", b"budget0")
    world.play("t=140 sweep -> 0 / sweep -> 0")
    assert count(world, Family.COUNTERS) == 1


def test_released_switches_and_expired_grants_are_forgotten_with_the_audit():
    world = World(
        policy(budget("b", "1"), grant_keys=GRANT_KEYS),
        grants={"g": token("g")},
        retention=SHORT,
    )
    world.play(
        """
        admit c1 class=review 5 grant=g -> allow:GRANT
        kill k1 -> ok
        kill k2 -> ok
        release k1 -> 1
        t=1d sweep -> 1
        """
    )
    assert [key for key, _ in world.store.scan(Family.KILLS)] == [b"k2"]
    world.play("grant g -> uses=1 / t=90000 sweep -> 0 / grant g -> unused / kills -> k2")


def test_a_switch_whose_time_was_up_while_the_daemon_was_down_is_released_with_a_record():
    world = play(
        """
        kill k1 for=60 -> ok
        t=2m restart -> ok
        kills -> none
        audit -> kill_engaged
        sweep -> 0
        audit -> kill_released
        """,
        policy(budget("b")),
    )
    ((_, switch),) = world.store.scan(Family.KILLS)
    assert (switch.released_by, switch.released_ns) == ("costd", world.clock.wall_ns)


def test_a_busy_day_leaves_the_store_bounded():
    world = World(
        policy(
            budget("b", "100", window="minute", per=("user",)),
            rate("r", 100, per=("user",)),
            ttl_ns=60 * NS_PER_S,
            late_settle_ns=60 * NS_PER_S,
        ),
        retention=Retention(counters_s=120, usage_s=120, alerts_s=120, audit_s=7200),
    )
    world.ledger.closed_keep_ns = 60 * NS_PER_S
    world.check = lambda line="": None  # a hold may outlive its window here
    sizes = []
    for minute in range(60):
        for n in range(5):
            name = f"m{minute}n{n}"
            world.play(f"t={minute * 60 + n} admit {name} user=u{n} 1 -> allow")
            if n < 4:
                world.play(f"settle {name} 1 -> ok")
        for _ in range(3):
            world.sweeper.sweep()
        sizes.append(sum(count(world, family) for family in Family))
    assert max(sizes[30:]) <= max(sizes[15:30])


def test_a_daemon_killed_before_its_first_trim_leaves_the_time_it_started_at():
    world = World(policy(budget("b", "100", window="day")), retention=SHORT)
    world.play("admit r1 1 ttl=600 -> allow")
    world.clock.jump_wall(365 * DAY_S)
    again = Sweeper(world.ledger, SHORT)
    again.sweep()
    assert count(world, Family.COUNTERS) == 1


def test_a_clock_that_was_set_back_is_followed_over_a_kill_too():
    world = World(policy(budget("b", "100", window="day")), retention=SHORT)
    world.play("sweep -> 0")
    world.clock.jump_wall(-365 * DAY_S)
    world.play("sweep -> 0 / admit r1 1 ttl=600 -> allow")
    world.clock.jump_wall(365 * DAY_S)
    Sweeper(world.ledger, SHORT).sweep()
    assert count(world, Family.COUNTERS) == 1
