"""What the ledger adds to the rules: one batch or nothing, and the same books after a restart."""

import pytest
from policy_parts import budget, policy, price, rate, step
from scenario import GRANT_KEYS, World, ask_id, play, token, usd

from costd.daemon.books.asking import Trust
from costd.daemon.books.ledger import Ledger
from costd.daemon.books.totals import Totals
from costd.daemon.meters import meter_ledger
from costd.engine.changes import Changes, Family
from costd.engine.resolve import Report
from costd.errors import InvalidAsk, NotPermitted, StoreUnavailable
from costd.model.ask import Ask
from costd.model.policy import PolicyPrice
from costd.model.price import UnitPrice
from costd.model.reservation import ReservationState
from costd.model.usage import Usage
from costd.store.memory import MemoryStore
from costd.testing import FakeClock

TEAM = policy(
    budget("b", "20", steps=[step(50, halt=True, alert=True)]),
    budget("t", unit="tokens"),
    rate("r", 5),
    grant_keys=GRANT_KEYS,
)


class BrittleStore(MemoryStore):
    """A memory store whose next commits can be made to fail, as on a full disk."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False

    def commit(self, puts) -> None:
        if self.full:
            raise StoreUnavailable("no space left; free some")
        super().commit(puts)

    def everything(self):
        return {family: dict(self.scan(family)) for family in Family}


@pytest.fixture
def brittle():
    store = BrittleStore()
    grants = {"g": token("g", uses=9)}
    world = World(TEAM, store=store, grants=grants)
    world.play(
        """
        admit r1 in=100 out=100 -> allow
        admit r2 in=100 out=100 ttl=60 -> allow
        admit r3 in=100 out=100 -> allow
        settle r3 in=10 out=10 -> ok
        """
    )
    return world


@pytest.mark.parametrize(
    "line",
    [
        "admit r9 1 -> error:StoreUnavailable",
        "admit r9 9 -> error:StoreUnavailable",  # raises an alert and a kill switch
        "admit r9 99 class=review grant=g -> error:StoreUnavailable",
        "settle r1 in=5 out=5 -> error:StoreUnavailable",
        "settle r1 19 -> error:StoreUnavailable",
        "void r1 -> error:StoreUnavailable",
        "extend r1 1 -> error:StoreUnavailable",
        "extend r1 99 in=5 out=5 -> error:StoreUnavailable",
        "record x9 5 -> error:StoreUnavailable",
        "kill k9 -> error:StoreUnavailable",
        "policy p2 -> error:StoreUnavailable",
    ],
)
def test_where_the_store_fails_nothing_was_decided(brittle: World, line: str):
    store, ledger = brittle.store, brittle.ledger
    brittle.policies = {"p2": policy(budget("c", "1"), revision="p2")}
    before = store.everything(), Totals.load(store), ledger.kills, len(ledger.recent_alerts)
    tally, rules = dict(ledger.tally), ledger.rules
    store.full = True
    brittle.play(line)  # which also checks the books and the totals
    assert before == (
        store.everything(),
        ledger.totals,
        ledger.kills,
        len(ledger.recent_alerts),
    )
    assert (ledger.tally, ledger.rules) == (tally, rules)
    store.full = False
    brittle.policy = TEAM
    brittle.play("settle r1 in=5 out=5 -> ok / void r2 -> ok")


def test_a_denial_stands_where_it_cannot_be_counted(brittle: World):
    """An error in its place would let clients fail open, past a kill switch too."""
    brittle.play("kill k1 project=x -> ok")
    before = brittle.store.everything()
    brittle.store.full = True
    brittle.play(
        """
        admit r9 99 -> deny:BUDGET_EXHAUSTED
        admit r8 1 project=x -> deny:KILL_SWITCH by=k1
        """
    )
    assert brittle.store.everything() == before
    assert brittle.ledger.events["denials_uncounted"] == 2
    brittle.store.full = False
    brittle.play("kill k2 -> ok")
    brittle.store.full = True
    brittle.play("admit r1 in=100 out=100 -> deny:KILL_SWITCH by=k2 replayed=yes")
    brittle.store.full = False
    brittle.play("release k2 -> 1 / settle r1 in=5 out=5 -> ok")


def test_denials_that_could_not_be_counted_are_a_metric(brittle: World):
    read = {}

    class Metrics:
        def counter(self, name, _description, readings):
            read[name] = readings

        gauge = counter

    meter_ledger(Metrics(), brittle.ledger)
    assert read["costd.denials_uncounted"]() == [(0, {})]
    brittle.store.full = True
    brittle.play("admit r9 99 -> deny:BUDGET_EXHAUSTED")
    assert read["costd.denials_uncounted"]() == [(1, {})]


def test_a_price_is_written_again_if_its_first_write_failed():
    store = BrittleStore()
    world = World(TEAM, store=store)
    store.full = True
    world.play("admit r1 in=1 out=1 -> error:StoreUnavailable")
    store.full = False
    world.play("admit r1 in=1 out=1 -> allow / restart -> ok / settle r1 in=1 out=1 -> ok")


def test_an_expiry_that_cannot_be_written_is_tried_again(brittle: World):
    brittle.clock.advance(60)
    brittle.store.full = True
    with pytest.raises(StoreUnavailable):
        brittle.sweeper.sweep()
    brittle.check()
    brittle.store.full = False
    brittle.play("sweep -> 1 / settle r2 in=1 out=1 -> late")


def test_records_are_numbered_without_gaps_also_after_a_failure(brittle: World):
    brittle.store.full = True
    brittle.play("settle r1 19 -> error:StoreUnavailable")
    brittle.store.full = False
    brittle.play("settle r1 19 -> ok / settle r2 1 -> ok")
    for family in (Family.USAGE, Family.ALERTS):
        numbers = [int.from_bytes(key, "big") for key, _ in brittle.store.scan(family)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers


def test_a_restart_keeps_reservations_prices_grants_kills_and_totals():
    dearer = policy(*TEAM.budgets, revision="p2", prices=(), grant_keys=GRANT_KEYS)
    world = World(TEAM, grants={"g": token("g")})
    world.play(
        """
        admit r1 in=100 out=100 -> allow
        admit c1 class=review 30 grant=g -> allow:GRANT
        kill k1 team=x -> ok
        """
    )
    before = world.ledger.totals
    world.policy = dearer
    world.play(
        """
        restart -> ok
        kills -> halt/b/-,k1
        admit r1 in=100 out=100 -> deny:KILL_SWITCH replayed=yes
        release halt/b -> 1
        admit r1 in=100 out=100 -> allow replayed=yes state=held
        """
    )
    assert world.ledger.totals.reserved_nusd == before.reserved_nusd
    world.play(
        """
        settle r1 in=50 out=50 -> ok cost=1
        grant g -> uses=1 used=30
        admit c2 class=review 9 grant=g -> deny:BUDGET_EXHAUSTED grant=USED_UP
        """
    )


def test_a_settle_after_a_restart_is_priced_by_the_stored_price_whatever_the_policy_says_now():
    world = play("admit r1 in=100 out=100 -> allow hold=2", TEAM)
    world.policy = policy(*TEAM.budgets, revision="p2", prices=(price("acme/big", 1),))
    world.play(
        """
        restart -> ok
        settle r1 in=100 out=50 -> ok cost=1.5
        admit r2 in=100 out=100 -> allow hold=0.0000002
        """
    )


def test_settling_by_usage_needs_a_price():
    world = play("admit r1 5 -> allow", policy(*TEAM.budgets, tiers=()))
    world.play("settle r1 in=5 out=5 -> error:InvalidAsk says=send_cost_nusd / settle r1 4 -> ok")


def test_usage_with_unknown_units_or_contradicting_parts_is_refused():
    world = play("admit r1 in=5 out=5 -> allow", TEAM)
    with pytest.raises(InvalidAsk, match="imagess"):
        world.ledger.settle(world.ids["r1"], usage=Usage(prompt_tokens=1, units={"imagess": 1}))
    with pytest.raises(InvalidAsk, match="prompt_tokens"):
        world.ledger.settle(world.ids["r1"], usage=Usage(prompt_tokens=1, cached_tokens=2))


def test_what_was_decided_and_what_happened_is_counted_for_metrics():
    world = play(
        """
        admit r1 1 -> allow
        admit r1 1 -> allow replayed=yes
        admit r2 99 -> deny:BUDGET_EXHAUSTED
        admit r3 1 ttl=60 -> allow
        settle r1 2 -> ok
        admit r4 1 -> allow
        void r4 -> ok
        record x1 1 -> ok
        t=60 sweep -> 1
        settle r3 1 -> late
        """,
        TEAM,
    )
    assert {key[0].name: count for key, count in world.ledger.tally.items()} == {
        "ALLOW": 3,
        "DENY": 1,
    }
    assert world.ledger.events == {
        "settled": 1,
        "overrun": 1,
        "voided": 1,
        "recorded": 1,
        "expired": 1,
        "settled_late": 1,
    }


def test_denials_are_audited_as_counts_per_hour_rule_and_class():
    world = play(
        """
        admit r1 user=ann 99 -> deny:BUDGET_EXHAUSTED
        admit r2 user=bob 99 -> deny:BUDGET_EXHAUSTED
        admit r3 99 class=review -> deny:BUDGET_EXHAUSTED
        t=1h admit r4 99 -> deny:BUDGET_EXHAUSTED
        audit -> none
        """,
        TEAM,
    )
    rows = [(row.detail, row.count) for _, row in world.store.scan(Family.AUDIT)]
    assert sorted(rows) == [
        ("BUDGET_EXHAUSTED for draft", 1),
        ("BUDGET_EXHAUSTED for draft", 2),
        ("BUDGET_EXHAUSTED for review", 1),
    ]


def test_an_invalid_ask_is_refused_before_anything_is_read():
    ledger = Ledger(MemoryStore(), TEAM, FakeClock())
    with pytest.raises(InvalidAsk, match="ask_id"):
        ledger.admit(Ask(ask_id="short"))
    with pytest.raises(InvalidAsk, match="unit"):
        ledger.admit(Ask(ask_id=ask_id("a"), units={"nonsense": 1}))


def test_labels_that_are_fixed_are_added_to_records_and_explanations():
    world = World(
        policy(budget("b", "20", match={"host": "h1"})),
        trust=Trust(labels_fixed={"host": "h1"}, claims=frozenset()),
    )
    world.play("record x1 5 -> ok / show b -> settled=5 / explain r1 5 -> allow tightest=b")
    with pytest.raises(NotPermitted):
        world.ledger.record(
            Ask(ask_id=ask_id("x2"), labels={"host": "h2"}), Report(cost_nusd=1), cost_known=True
        )


def test_nothing_to_write_writes_nothing():
    store = BrittleStore()
    ledger = Ledger(store, TEAM, FakeClock())
    store.full = True
    ledger.commit(Changes())


def test_an_operators_note_is_audited():
    world = World(TEAM)
    world.ledger.audit("ann", "policy_refused", "p.yaml", "line 3")
    ((_, row),) = world.store.scan(Family.AUDIT)
    assert (row.actor, row.action, row.subject, row.detail) == (
        "ann",
        "policy_refused",
        "p.yaml",
        "line 3",
    )


def test_the_state_of_a_reservation_can_be_looked_up():
    world = play("admit r1 5 -> allow", TEAM)
    held = world.ledger.find_reservation(world.ids["r1"])
    assert held is not None
    assert (held.state, usd(held.hold_nusd)) == (ReservationState.HELD, "5")
    assert world.ledger.find_reservation(b"nobody") is None


def test_a_new_store_is_told_what_its_counters_stand_for_once():
    store = BrittleStore()
    Ledger(store, TEAM, FakeClock())
    store.full = True
    Ledger(store, TEAM, FakeClock())  # nothing new to write


def test_usage_whose_parts_exceed_the_whole_is_refused():
    units = (UnitPrice("input_tokens", 10, 1), UnitPrice("input_audio_tokens", 90, 1))
    own = PolicyPrice(models="acme/big", units=units)
    world = play("admit r1 in=5 out=5 -> allow", policy(*TEAM.budgets, prices=(own,)))
    usage = Usage(prompt_tokens=5, units={"input_audio_tokens": 6})
    with pytest.raises(InvalidAsk, match="less than its parts: input_audio_tokens 6"):
        world.ledger.settle(world.ids["r1"], usage=usage)
    world.play("settle r1 in=5 out=5 -> ok cost=0.00000005")
