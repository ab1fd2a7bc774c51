"""Top-ups: each id once, and never something else under an id that was there."""

import pytest

from costd.coordinator.top_ups import top_up
from costd.daemon.books.enacting import compiled
from costd.errors import InvalidAsk
from costd.model.money import AMOUNT_MAX
from costd.model.time import NS_PER_S
from costd.policy import parse_policy
from costd.testing.fleet_store import MemoryFleetStore
from costd.wire.pb import fleet_control_pb2 as fpb

NOW_NS = 1_800_000_000 * NS_PER_S
DAY_NS = 86_400 * NS_PER_S
TEXT = """\
version: 1
task_classes: {draft: {}}
budgets:
  - {id: day, match: {user: "*"}, per: user, window: day, limit: 100 calls}
  - {id: all, window: total, limit: 100 calls}
"""
RULES = compiled(parse_policy(TEXT, "policy"), NOW_NS, in_fleet=True)
BUDGETS = {rule.budget.budget_id: rule for rule in RULES.budgets.values()}


class Operator:
    """Tops up at one coordinator."""

    def __init__(self):
        self.store = MemoryFleetStore()

    async def asks(self, amount=5, *, budget="day", user="ann", top_up_id="t", at_ns=NOW_NS):
        request = fpb.TopUpBudgetRequest(
            budget=budget,
            key=f"user={user}" if budget == "day" else "",
            amount=amount,
            top_up_id=top_up_id,
        )
        return await top_up(self.store, BUDGETS[budget], request, actor="ann", now_ns=at_ns)

    async def is_refused(self, *arguments, **options):
        before = dict(self.store.pools)
        with pytest.raises(InvalidAsk) as caught:
            await self.asks(*arguments, **options)
        assert self.store.pools == before
        return str(caught.value)


@pytest.fixture
def operator():
    return Operator()


async def test_the_same_again_changes_nothing(operator):
    first = await operator.asks()
    assert (first.limit, first.topped_up) == (105, 5)
    assert await operator.asks() == first
    assert [each.amount for each in operator.store.top_ups.values()] == [5]


async def test_another_amount_under_an_id_is_refused_and_says_both(operator):
    await operator.asks(5)
    said = await operator.is_refused(7)
    assert said == "top-up 't' was there already, and added 5, not 7; give another id to add more"


async def test_another_key_under_an_id_is_refused_and_says_both(operator):
    await operator.asks(user="ann")
    said = await operator.is_refused(user="bob")
    assert "added to 'user=ann' of 'day', not 'user=bob'" in said


async def test_another_budget_under_an_id_is_refused(operator):
    await operator.asks(budget="day")
    assert "to another budget than 'all'" in await operator.is_refused(budget="all")


async def test_who_was_slower_with_an_id_is_held_to_it_as_well(operator):
    class Raced(MemoryFleetStore):
        """Has a top-up that is stored between the look and the write."""

        looks_count = 0

        async def read_top_up(self, top_up_id):
            self.looks_count += 1
            return None if self.looks_count == 1 else await super().read_top_up(top_up_id)

    await operator.asks(5)
    store, operator.store = operator.store, Raced()
    operator.store.top_ups, operator.store.pools = store.top_ups, store.pools
    assert "added 5, not 7" in await operator.is_refused(7)


async def test_the_same_again_after_its_window_tells_of_that_window(operator):
    first = await operator.asks()
    again = await operator.asks(at_ns=NOW_NS + DAY_NS)
    assert again == first
    assert (await operator.asks(top_up_id="u", at_ns=NOW_NS + DAY_NS)).topped_up == 5
    assert len(operator.store.pools) == 2


async def test_the_same_again_is_done_also_where_there_is_no_room_for_it_twice(operator):
    first = await operator.asks(AMOUNT_MAX - 100)
    assert await operator.asks(AMOUNT_MAX - 100) == first
    said = await operator.is_refused(1, top_up_id="u")
    assert "it must stay between 0 and" in said


async def test_without_an_id_each_is_another(operator):
    for _ in range(2):
        await operator.asks(top_up_id="")
    assert sum(pool.topped_up for pool in operator.store.pools.values()) == 10
