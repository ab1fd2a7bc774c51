"""What the ledger keeps of leases: in counters, marked in the store, told of as changed."""

import msgspec
import pytest
from policy_parts import budget, policy, step
from scenario import World

from costd.daemon.sweeper import Retention
from costd.engine.changes import Family
from costd.errors import StoreUnavailable
from costd.model.lease import Lease, Stand
from costd.model.policy import Share
from costd.model.time import NS_PER_S
from costd.store.memory import MemoryStore

MADE = policy(
    budget("b", "100", steps=[step(50)]),
    budget("h", "100", share=Share.HOST),
    budget("t"),
)
USD = 10**9
TEN = Lease(amount=10 * USD, limit=100 * USD)


@pytest.fixture
def world():
    return World(MADE, in_fleet=True).play("tenure 1h -> ok")


def marks(world):
    return [key for key, _ in world.store.scan(Family.LEASES)]


def test_what_a_fleets_counter_holds_is_marked_and_told_of_in_one_batch(world):
    world.play("lease b 10 -> ok\nadmit r1 4 -> allow")
    key = world.key_of("b")
    assert marks(world) == [key]
    assert world.ledger.fleet_changed == {key}


def test_a_change_that_was_told_is_told_again_once_there_is_another(world):
    world.play("lease b 10 -> ok\nadmit r1 4 -> allow")
    world.ledger.fleet_changed.clear()
    world.play("settle r1 4 -> ok")
    assert world.ledger.fleet_changed == {world.key_of("b")}


def test_a_lease_is_marked_before_anything_is_used_and_is_no_news_to_the_coordinator(world):
    world.play("lease b 10 -> ok")
    assert marks(world) == [world.key_of("b")]
    assert not world.ledger.fleet_changed
    assert world.ledger.lease(world.key_of("b")) == TEN


def test_without_a_coordinator_nothing_is_marked():
    world = World(MADE).play("admit r1 4 -> allow")
    assert marks(world) == []
    assert not world.ledger.fleet_changed


def test_a_restart_knows_what_it_must_account_for(world):
    world.play("lease b 10 -> ok\nadmit r1 4 -> allow\nrestart -> ok")
    key = world.key_of("b")
    assert world.ledger.lent.held == world.ledger.fleet_changed == {key}
    assert world.ledger.lease(key) == TEN
    world.play("admit r2 1 -> deny:NO_LEASE\ntenure 60 -> ok\nadmit r2 1 -> allow")


def test_how_a_daemon_stands_is_what_its_counter_says(world):
    key = world.key_of("b")
    assert world.ledger.stand(key) == Stand()
    assert world.ledger.lease(key) is None
    world.play("lease b 10 -> ok\nadmit r1 4 -> allow\nadmit r2 1 -> allow\nsettle r2 3 -> ok")
    assert world.ledger.stand(key) == Stand(
        amount=10 * USD, settled=3 * USD, reserved=4 * USD, overrun=2 * USD
    )
    counter = world.store.get(Family.COUNTERS, key)
    world.ledger.set_leases({key: msgspec.structs.replace(counter.lease, version=7)})
    assert world.ledger.stand(key).version == 7


def test_a_lease_is_not_lowered_below_what_is_used_of_it(world):
    world.play(
        """
        lease b 10 -> ok
        admit r1 4 -> allow
        lease b 1 -> ok
        show b -> lent_amount=4 limit=4 lowered=0
        admit r2 1 wait -> wants lent=b=5
        settle r1 1 -> ok
        lease b 2 -> ok
        show b -> lent_amount=2
        """
    )


def test_a_counter_is_accounted_for_until_nothing_is_left_of_it(world):
    key = world.key_of("b")
    world.play("lease b 10 -> ok\nadmit r1 4 -> allow\nsettle r1 4 -> ok\nlease b 0 -> ok")
    world.ledger.account_no_longer([key])
    assert marks(world) == []
    assert not world.ledger.fleet_changed
    assert world.ledger.stand(key) == Stand(amount=4 * USD, settled=4 * USD)
    world.play("lease b 9 -> ok\nadmit r2 5 -> allow")
    assert marks(world) == [key]


def test_what_is_used_once_it_was_accounted_for_is_marked_anew(world):
    key = world.key_of("b")
    world.play("lease b 10 -> ok\nadmit r1 4 -> allow\nlease b 0 -> ok")
    world.ledger.account_no_longer([key])
    world.play("settle r1 4 -> ok")
    assert marks(world) == [key]
    assert world.ledger.fleet_changed == {key}


def test_what_comes_free_of_a_lease_that_is_accounted_for_no_longer_is_given_back(world):
    key = world.key_of("b")
    world.play("lease b 4 -> ok\nadmit r1 4 -> allow\nt=2h sweep -> 1")
    assert world.ledger.stand(key) == Stand(amount=4 * USD, settled=4 * USD)
    world.ledger.account_no_longer([key])
    world.play("settle r1 1 -> late")
    assert world.ledger.stand(key) == Stand(amount=USD, settled=USD)
    assert marks(world) == [key]
    assert world.ledger.fleet_changed == {key}


def expired(world, calls_count):
    """Let calls of 4 expire, on a counter that is accounted for no longer since."""
    world.play(f"lease b {4 * calls_count} -> ok")
    for call in range(calls_count):
        world.play(f"admit r{call} 4 -> allow")
    world.play(f"t=2h sweep -> {calls_count}")
    key = world.key_of("b")
    world.ledger.account_no_longer([key])
    return key


def test_all_that_comes_free_is_given_back_while_an_enrol_may_come_that_does_not_state_it(world):
    key = expired(world, 4)
    world.ledger.lent.may_enrol(3)
    world.play("settle r0 4 -> late")
    assert world.ledger.stand(key) == Stand(amount=16 * USD, settled=16 * USD)
    world.play("settle r1 1 -> late")
    assert world.ledger.stand(key) == Stand(amount=13 * USD, settled=13 * USD)
    world.play("restart -> ok\nsettle r2 1 -> late")
    assert world.ledger.stand(key) == Stand(amount=10 * USD, settled=10 * USD)
    world.ledger.lent.heard_in(3)  # an Enrol that names it may come yet
    world.play("settle r3 2 -> late")
    assert world.ledger.stand(key) == Stand(amount=8 * USD, settled=8 * USD)


def test_what_comes_free_is_kept_once_such_an_enrol_would_be_refused(world):
    key = expired(world, 2)
    world.ledger.lent.may_enrol(3)
    world.play("settle r0 4 -> late\nrestart -> ok")
    world.ledger.lent.heard_in(4)
    world.play("settle r1 1 -> late")
    assert world.ledger.stand(key) == Stand(amount=8 * USD, settled=5 * USD)


def test_accounting_no_longer_for_what_was_never_held_changes_nothing(world):
    before = {family: dict(world.store.scan(family)) for family in Family}
    world.ledger.account_no_longer([])
    world.ledger.account_no_longer([world.key_of("b")])
    assert before == {family: dict(world.store.scan(family)) for family in Family}


def test_leases_are_set_together_or_not_at_all():
    class Full(MemoryStore):
        """A disk that is full once it is told so."""

        is_full = False

        def commit(self, puts):
            if self.is_full:
                raise StoreUnavailable("no space left")
            super().commit(puts)

    world = World(MADE, in_fleet=True, store=Full()).play("tenure 1h -> ok\nlease b 10 -> ok")
    world.store.is_full = True
    key = world.key_of("b")
    with pytest.raises(StoreUnavailable):
        world.ledger.set_leases({key: Lease(), b"\xff" * 8 + b"elsewhere": TEN})
    with pytest.raises(StoreUnavailable):
        world.ledger.account_no_longer([key])
    assert world.ledger.lent.held == {key}
    world.play("admit r1 1 -> error:StoreUnavailable")
    assert not world.ledger.fleet_changed


def test_a_lease_that_is_as_it_was_is_not_written_again(world):
    world.play("lease b 10 -> ok")
    before = dict(world.store.scan(Family.COUNTERS))
    world.clock.advance(5)
    world.play("lease b 10 -> ok")
    assert before == dict(world.store.scan(Family.COUNTERS))


def test_a_lease_on_the_next_window_waits_for_it_to_begin(world):
    day_ns = 86_400 * NS_PER_S
    key = world.key_of("b")
    end_ns = int.from_bytes(key[:8], "big")
    following = (end_ns + day_ns).to_bytes(8, "big") + key[8:]
    world.ledger.set_leases({following: TEN})
    world.play(
        """
        admit r1 5 -> deny:NO_LEASE
        t=24h tenure 1h -> ok
        admit r1 5 -> allow
        show b -> reserved=5
        """
    )
    assert world.store.get(Family.COUNTERS, following).start_ns == end_ns


def test_a_lease_on_a_budget_that_the_policy_does_not_have_is_kept(world):
    key = b"\xff" * 8 + b"unknown!"
    world.ledger.set_leases({key: TEN})
    assert world.ledger.lease(key) == TEN
    assert marks(world) == [key]


def test_marks_leave_with_the_windows_they_belong_to():
    keep = Retention(counters_s=3600)
    world = World(MADE, in_fleet=True, retention=keep).play("tenure 1h -> ok\nlease b 10 -> ok")
    world.play("admit r1 1 -> allow\nsettle r1 1 -> ok")
    for hours in range(1, 200):
        world.play(f"t={hours}h sweep")
    assert marks(world) == []
    assert not world.ledger.lent.held
    assert not world.ledger.fleet_changed


def test_a_runs_counter_stays_while_the_coordinator_must_hear_of_it():
    made = policy(budget("r", "100", window="run", per=("run",)), budget("h", share=Share.HOST))
    keep = Retention(runs_idle_s=3600)
    world = World(made, in_fleet=True, retention=keep).play("tenure 1h -> ok")
    world.play("lease r/run=x 10 -> ok\nadmit r1 1 run=x -> allow\nsettle r1 1 -> ok")
    key = world.key_of("r/run=x")
    for hours in range(1, 30):
        world.play(f"t={hours}h sweep")
    assert world.store.get(Family.COUNTERS, key) is not None
    world.ledger.account_no_longer([key])
    for hours in range(30, 60):
        world.play(f"t={hours}h sweep")
    assert world.store.get(Family.COUNTERS, key) is None


def test_another_policy_leaves_a_daemon_in_its_fleet(world):
    world.ledger.swap_policy(policy(budget("b", "50")))
    world.play("admit r1 1 -> deny:NO_LEASE limit=50")
