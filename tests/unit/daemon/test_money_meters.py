"""What metrics say of money, from the books of one daemon."""

import pytest
from policy_parts import budget, policy
from scenario import World

from costd.daemon.books.fullest import WALK_COUNT, WINDOWS_MAX, Fullest
from costd.daemon.money_meters import meter_budgets, meter_spending
from costd.daemon.standings import BUDGETS_MAX, Standings
from costd.engine import keys
from costd.engine.changes import Family
from costd.engine.resolve import Report
from costd.errors import StoreCorrupt
from costd.model.ask import Ask
from costd.model.counter import Counter
from costd.model.lease import Lease

USD = 10**9


class Scraped:
    """Takes down what instruments read, as a scrape would."""

    def __init__(self, ledger):
        self._reads = {}
        meter_spending(self, ledger)
        meter_budgets(self, ledger)

    def counter(self, name, _description, read):
        self._reads[name] = read

    def gauge(self, name, _description, read):
        self._reads[name] = read

    def __call__(self, wanted, by="budget"):
        """One metric's readings, by one label; all are read, in their order."""
        found = {name: read() for name, read in self._reads.items()}
        return {labels.get(by, ""): value for value, labels in found[f"costd.{wanted}"]}


def scraped(world):
    return Scraped(world.ledger)


def test_what_was_charged_less_what_was_reversed_is_what_the_books_say():
    world = World(policy(budget("b", "100")))
    world.play(
        """
        admit r1 4 -> allow
        settle r1 3 -> ok
        admit r2 5 ttl=60 -> allow
        t=2m sweep -> 1
        settle r2 1 -> late
        record x1 2 -> ok
        """
    )
    charged, reversed_ = (
        sum(scraped(world)(name, "verdict").values()) for name in ("charged_nusd", "reversed_nusd")
    )
    assert (charged, reversed_) == ((3 + 5 + 1 + 2) * USD, 5 * USD)
    world.play("show b -> settled=6")
    assert sum(scraped(world)("measured_nusd", "tier").values()) == (3 + 1 + 2) * USD


def test_money_is_told_by_class_tier_and_verdict():
    world = World(policy(budget("b", "100")))
    world.play(
        """
        admit r1 4 class=review tier=standard -> allow
        settle r1 3 -> ok
        admit r2 4 class=draft -> allow
        settle r2 2 -> ok
        """
    )
    assert scraped(world)("charged_nusd", "task_class") == {"review": 3 * USD, "draft": 2 * USD}
    assert scraped(world)("charged_nusd", "tier") == {"standard": 3 * USD, "premium": 2 * USD}
    assert scraped(world)("charged_nusd", "verdict") == {"allow": 2 * USD}


def test_tokens_are_told_by_kind_and_each_once():
    world = World(policy(budget("b", "100")))
    world.play(
        """
        admit r1 model=acme/mid in=100 out=50 -> allow
        settle r1 in=90 cached=60 out=40 -> ok
        admit r2 1 -> allow
        settle r2 1 -> ok
        """
    )
    kinds = {"prompt_uncached": 30, "prompt_cached": 60, "output": 40}
    tokens = [reading for reading in world.ledger.tallies.measures.items() if reading[0][1]]
    assert [key for key, measures in tokens if measures.output_tokens] == [("standard", "acme")]
    told = {}
    for name, read in Scraped(world.ledger)._reads.items():
        if name == "costd.measured_tokens":
            told = {
                labels["kind"]: count for count, labels in read() if labels["tier"] == "standard"
            }
    assert told == kinds


@pytest.mark.parametrize("field", ["provider", "tier"])
def test_names_that_callers_make_up_make_no_series(field):
    world = World(policy(budget("b", "100")))
    for number in range(50):
        made_up = {field: f"made-up-{number}"}
        ask = Ask(ask_id=f"record-number-{number:04}", labels={"user": f"u{number}"}, **made_up)
        report = {"provider": f"made-up-{number}", "model": f"m{number}"}
        world.ledger.record(ask, report_of(**report), cost_known=True)
    assert set(scraped(world)("measured_nusd", field)) <= {"(other)", "(none)"}
    assert len(world.ledger.tallies.charges) == len(world.ledger.tallies.measures) == 1


def report_of(**fields):
    return Report(cost_nusd=1, **fields)


def test_a_failed_write_counts_nothing():
    world = World(policy(budget("b", "100")))
    world.play("admit r1 4 -> allow")
    world.store.commit = broken
    with pytest.raises(OSError, match="no room"):
        world.play("settle r1 3 -> ok")
    assert not world.ledger.tallies.charges


def broken(_puts):
    raise OSError("no room")


# ---- budgets ------------------------------------------------------------------------------------


def test_a_budget_is_told_with_its_limit_its_use_and_its_window():
    world = World(policy(budget("b", "10"), budget("t", 100, unit="calls"), budget("all")))
    world.play("admit r1 4 -> allow\nsettle r1 3 -> ok\nadmit r2 2 -> allow")
    read = scraped(world)
    assert read("budget_utilisation_ratio") == {"b": 0.5, "t": 0.02}
    assert read("budget_used_nusd") == {"b": 5 * USD, "all": 5 * USD}
    assert read("budget_limit_nusd") == {"b": 10 * USD}
    start_s = world.start_ns // USD
    assert read("budget_window_start_timestamp_seconds") == dict.fromkeys(
        ("b", "t", "all"), start_s
    )
    ends = read("budget_window_end_timestamp_seconds")
    assert ends == dict.fromkeys(("b", "t", "all"), start_s + 86_400)


def test_a_new_window_begins_at_nothing_and_a_total_has_none():
    world = World(policy(budget("b", "10"), budget("ever", "10", window="total")))
    world.play("admit r1 4 -> allow\nsettle r1 4 -> ok\nt=1d show ever -> settled=4")
    read = scraped(world)
    assert read("budget_utilisation_ratio") == {"b": 0.0, "ever": 0.4}
    assert set(read("budget_window_end_timestamp_seconds")) == {"b"}


def test_of_a_budget_per_user_the_fullest_is_told():
    world = World(policy(budget("b", "10", per=("user",))))
    assert scraped(world)("budget_utilisation_ratio") == {"b": 0.0}
    read = scraped(world)
    world.play(
        """
        admit r1 4 user=ann -> allow
        settle r1 4 -> ok
        admit r2 1 user=bob -> allow
        admit r3 5 user=bob -> allow
        settle r2 1 -> ok
        admit r4 1 user=eve -> allow
        settle r4 1 -> ok
        """
    )
    assert read("budget_utilisation_ratio") == {"b": 0.6}
    world.play("void r3 -> ok")
    assert read("budget_utilisation_ratio") == {"b": 0.1}  # bob's, who was the fullest
    world.play("admit r5 1 user=ann -> allow\nsettle r5 1 -> ok")
    assert read("budget_used_nusd") == {"b": 5 * USD}


def test_a_counter_that_refuses_is_told_of_though_none_of_its_calls_ends():
    world = World(policy(budget("b", "10", per=("user",))))
    world.play(
        """
        admit r1 2 user=bob -> allow
        settle r1 2 -> ok
        admit r2 9 user=ann -> allow
        """
    )
    read = scraped(world)
    assert read("budget_utilisation_ratio") == {"b": 0.9}  # found by looking through the store
    world.play("admit r3 10 user=eve -> allow\nadmit r4 1 user=eve -> deny:BUDGET_EXHAUSTED")
    assert read("budget_utilisation_ratio") == {"b": 1.0}


def test_after_a_restart_the_fullest_is_found_among_thousands_a_slice_at_a_time():
    world = World(policy(budget("b", "10", per=("user",))))
    (rule,) = world.ledger.rules.budgets.values()
    for number in range(2 * WALK_COUNT + 1):
        key = rule.counter_key({"user": f"u{number:06}"}, world.start_ns)
        used = 9 * USD if number == 2 * WALK_COUNT - 1 else USD
        world.store.commit([(Family.COUNTERS, key, Counter(settled=used, limit=10 * USD))])
    world.open()
    read = scraped(world)
    assert [read("budget_utilisation_ratio")["b"] for _ in range(4)] == [0.1, 0.9, 0.9, 0.9]


def test_a_counter_that_was_deleted_makes_room_for_another():
    world = World(policy(budget("b", "10", per=("run",), window="run")))
    world.play("admit r1 6 run=a -> allow\nadmit r2 2 run=b -> allow\nsettle r1 6 -> ok")
    (rule,) = world.ledger.rules.budgets.values()
    read = scraped(world)
    assert read("budget_utilisation_ratio") == {"b": 0.6}
    world.store.commit([(Family.COUNTERS, rule.counter_key({"run": "a"}, 0), None)])
    assert read("budget_utilisation_ratio") == {"b": 0.0}
    world.ledger.settle(world.ids["r2"], cost_nusd=3 * USD)
    assert read("budget_utilisation_ratio") == {"b": 0.3}


def test_a_lease_on_the_next_window_hides_nothing_of_this_one():
    fullest, tag = Fullest(), b"t" * keys.TAG_BYTES
    now, following = (keys.window_prefix(end_ns, tag) for end_ns in (100, 200))
    fullest.written([(Family.COUNTERS, now + b"user=ann", Counter(settled=5))])
    fullest.written([(Family.COUNTERS, following + b"user=ann", Counter(lease=Lease(amount=9)))])
    assert fullest.keys_of(now) == {now + b"user=ann"}
    assert fullest.keys_of(following) == {following + b"user=ann"}


def test_what_is_remembered_is_bounded_though_nobody_reads():
    fullest, tag = Fullest(), b"t" * keys.TAG_BYTES
    prefixes = [keys.window_prefix(end_ns, tag) for end_ns in range(3 * WINDOWS_MAX)]
    for prefix in prefixes:
        fullest.written([(Family.COUNTERS, prefix + b"user=ann", Counter(settled=1))])
    assert len(fullest._written) <= WINDOWS_MAX
    assert fullest.keys_of(prefixes[-1])
    assert not fullest.keys_of(prefixes[0])


def test_a_store_that_cannot_be_read_shows_nothing_rather_than_what_was():
    world = World(policy(budget("b", "10")))
    read = Standings(world.ledger)
    assert read.read()
    world.store.scan = unreadable
    with pytest.raises(StoreCorrupt):
        read.read()
    assert read.rows == []


def unreadable(*_range, **_how):
    raise StoreCorrupt("a table cannot be read; put the last copy back")


def test_two_hundred_budgets_are_told_and_how_many_are_not():
    budgets = [budget(f"b{number:03}", "10") for number in range(BUDGETS_MAX + 3)]
    world = World(policy(*budgets, budget("off", "10", active=False)))
    read = scraped(world)
    assert list(read("budget_utilisation_ratio")) == [
        f"b{number:03}" for number in range(BUDGETS_MAX)
    ]
    assert read("budgets_unshown") == {"": 3}


def test_of_a_fleets_budget_the_whole_fleet_is_told():
    world = World(policy(budget("b", "10")), in_fleet=True)
    (rule,) = world.ledger.rules.budgets.values()
    lease = Lease(amount=2 * USD, limit=20 * USD, others_used=9 * USD)
    world.ledger.set_leases({rule.counter_key({}, world.start_ns): lease})
    read = scraped(world)
    assert read("budget_limit_nusd") == {"b": 20 * USD}
    assert read("budget_utilisation_ratio") == {"b": 0.45}


def test_a_policy_without_budgets_per_label_remembers_nothing():
    world = World(policy(budget("b", "10")))
    world.play("admit r1 4 user=ann -> allow")
    assert not world.ledger.fullest._written
