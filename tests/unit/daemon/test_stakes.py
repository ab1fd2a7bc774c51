"""The index from counters to the allowances that hold money of them."""

from policy_parts import budget, policy
from scenario import World

from costd.daemon.stakes import Stakes
from costd.engine.changes import Family


def held_by(world):
    return [held for _, held in world.store.scan(Family.RESERVATIONS)]


def test_a_counter_finds_what_is_held_of_it_until_that_is_dropped():
    world = World(policy(budget("b", "100"), budget("c", "100", per=("team",))))
    world.play("admit r1 1 team=x -> allow / admit r2 1 team=y -> allow")
    stakes, (one, two) = Stakes(), held_by(world)
    stakes.add(one)
    stakes.add(two)
    keys = {line.key: {one.reservation_id, two.reservation_id} for line in one.counters}
    everything = next(key for key in keys if not key[16:])
    its_own = next(key for key in keys if key[16:])
    assert stakes.of([everything]) == {one.reservation_id, two.reservation_id}
    assert stakes.of([its_own]) == {one.reservation_id}
    stakes.drop(one.reservation_id)
    stakes.drop(one.reservation_id)
    assert stakes.of([everything, its_own, b"unknown"]) == {two.reservation_id}
