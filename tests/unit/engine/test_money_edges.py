"""Zero, one nano-dollar, and amounts at the end of 64 bits."""

import msgspec
import pytest
from policy_parts import budget, policy, price, relative
from scenario import GRANT_KEYS, World, ask_id, play, token, usd

from costd.engine import books
from costd.engine.resolve import Report
from costd.engine.rules import BudgetRule
from costd.errors import InvalidAsk, InvariantBroken
from costd.model.ask import Ask
from costd.model.counter import Counter
from costd.model.money import AMOUNT_MAX, HOLD_MAX_NUSD
from costd.model.policy import PolicyPrice, PolicySet
from costd.model.price import UnitPrice
from costd.model.usage import Usage

MOST = "9223372036.854775807"
NANO = "0.000000001"
LARGEST = "1000000"
"""What one call can hold."""
MOST_BUT_ONE_HOLD = "9222372036.854775807"


def test_one_nano_dollar_is_counted():
    play(
        f"""
        admit r1 {NANO} -> allow
        admit r2 {NANO} -> allow
        admit r3 {NANO} -> deny:BUDGET_EXHAUSTED most=-
        settle r1 {NANO} -> ok
        show b -> settled={NANO} reserved={NANO}
        """,
        policy(budget("b", "0.000000002")),
    )


def test_zero_is_an_amount():
    play(
        """
        admit r1 0 model=acme/gratis -> allow
        settle r1 0 -> ok
        show b -> settled=0
        record x1 0 -> ok
        """,
        policy(budget("b", 0)),
    )


def filled(rules: PolicySet, **labels: str) -> World:
    """A world in which holds reach the largest amount exactly; the last is called `last`."""
    world = World(rules)
    count, rest = divmod(AMOUNT_MAX, HOLD_MAX_NUSD)
    for number in range(count):
        ask = Ask(ask_id=f"{number:016}", labels=labels, estimated_cost_nusd=HOLD_MAX_NUSD)
        assert world.ledger.admit(ask).decision.hold_nusd == HOLD_MAX_NUSD
    words = [f"{key}={value}" for key, value in labels.items()]
    world.play(f"admit last {usd(rest)} {' '.join(words)} -> allow")
    assert world.ledger.totals.reserved_nusd == AMOUNT_MAX
    return world


def test_one_call_holds_a_million_dollars_at_most():
    """More could fill a counter by itself, and stop everybody else until it expires."""
    play(
        f"""
        admit r1 {LARGEST}.000000001 -> error:InvalidAsk says=at_most_1000000000000000_
        admit r1 {MOST} -> error:InvalidAsk says=($1,000,000.00)
        admit r2 {LARGEST} -> allow
        admit r3 in=100000000 out=0 -> allow hold={LARGEST}
        admit r4 in=100000001 out=0 -> error:InvalidAsk says=tokens_and_units_stated_cost
        admit r5 {NANO} -> allow
        """,
        policy(budget("b")),
    )


def test_an_extension_counts_with_what_is_held_already():
    play(
        f"""
        admit r1 999999.99 -> allow
        extend r1 0.01 -> ok hold={LARGEST}
        extend r1 {NANO} -> error:InvalidAsk says=with_this_extension
        extend r1 tokens=1 -> error:InvalidAsk says=at_most_1000000000000000_
        extend r1 ttl=60 in=5 out=5 -> ok hold={LARGEST}
        settle r1 {LARGEST}.5 -> ok
        """,
        policy(budget("b")),
    )


def test_the_largest_hold_fits_the_largest_limit_once():
    play(
        f"""
        record x1 {MOST_BUT_ONE_HOLD} -> ok
        admit r1 {LARGEST} -> allow at=100
        admit r2 {NANO} -> deny:BUDGET_EXHAUSTED used={MOST}
        settle r1 {LARGEST} -> ok
        show b -> settled={MOST}
        admit r3 0 model=acme/gratis -> allow
        """,
        policy(budget("b", AMOUNT_MAX)),
    )


def test_a_budget_without_a_limit_counts_no_further_than_can_be_written():
    play(
        f"""
        record x1 {MOST_BUT_ONE_HOLD} -> ok
        admit r1 {LARGEST} -> allow
        admit r2 {NANO} -> deny:BUDGET_EXHAUSTED by=b
        admit r3 0 model=acme/gratis -> allow
        void r1 -> ok
        admit r2 {NANO} -> allow
        admit r4 {LARGEST} -> deny:BUDGET_EXHAUSTED most=999999.999999999
        """,
        policy(budget("b")),
    )


def test_what_all_hold_together_stays_countable_too():
    filled(policy(budget("b", AMOUNT_MAX, per=("user",))), user="ann").play(
        f"""
        admit r2 user=bob {NANO} -> error:InvalidAsk says=held_already
        extend last {NANO} -> stop:BUDGET_EXHAUSTED
        settle last 1 -> ok
        admit r2 user=bob {NANO} -> allow
        """
    )


def test_without_any_budget_holds_stay_countable():
    filled(policy(unmatched_allow=True)).play(
        f"""
        extend last {NANO} -> error:InvalidAsk says=held_already
        admit r2 {LARGEST} -> error:InvalidAsk says=held_already
        """
    )


def test_a_settle_that_cannot_be_counted_is_refused_and_the_hold_expires():
    play(
        f"""
        admit r1 5 -> allow
        settle r1 5 -> ok
        admit r2 5 ttl=60 -> allow
        settle r2 {MOST} -> error:InvalidAsk says=most_that_can_be_counted
        record x1 {MOST} -> error:InvalidAsk
        t=60 sweep -> 1
        show b -> settled=10
        """,
        policy(budget("b", "10")),
    )


def test_a_report_past_counting_cannot_keep_a_call_from_expiring():
    play(
        f"""
        admit r1 user=a in=1 out=1 ttl=60 -> allow
        extend r1 in=900000000000 out=1 -> ok
        record x1 user=a 9000000000 -> ok
        t=60 sweep -> 1
        show b/user=a -> settled={MOST}
        """,
        policy(budget("b", per=("user",))),
    )


def test_a_grant_or_the_shadow_cannot_pass_what_can_be_counted():
    play(
        f"""
        record x1 {MOST} -> ok
        admit c1 class=review 1 grant=g -> error:InvalidAsk says=most_that_can_be_counted
        """,
        policy(budget("b", AMOUNT_MAX), grant_keys=GRANT_KEYS),
        grants={"g": token("g")},
    )
    play(
        f"record x1 {MOST} -> ok / admit r2 1 -> error:InvalidAsk says=most_that_can_be_counted",
        policy(budget("b", AMOUNT_MAX, shadow=True)),
    )


def test_tokens_and_units_whose_cost_cannot_be_held_are_refused():
    dear = PolicyPrice(models="acme/big", units=(UnitPrice("requests", HOLD_MAX_NUSD, 1),))
    world = World(policy(budget("b"), prices=(dear,)))
    world.play("admit r1 units=2 -> error:InvalidAsk says=at_most")
    world.play("admit r2 in=1 out=1 units=1 -> allow / extend r2 tokens=0 -> ok")
    world.play("settle r2 in=1 -> ok")


def test_an_extension_whose_cost_cannot_be_written_is_refused():
    world = play("admit r1 in=1 out=1 -> allow", policy(budget("b")))
    held = world.ids["r1"]
    with pytest.raises(InvalidAsk, match="with this extension the call would hold 92233"):
        world.ledger.extend(held, additional_output_tokens=AMOUNT_MAX)
    with pytest.raises(InvalidAsk, match="would hold 9223372036874775807 nano-USD; one call"):
        world.ledger.extend(held, additional_cost_nusd=AMOUNT_MAX)
    world.play(f"record x1 {MOST_BUT_ONE_HOLD} -> ok / admit r2 999999.98 -> allow")
    with pytest.raises(InvalidAsk, match="most that can be counted"):
        world.ledger.extend(held, additional_cost_nusd=1)
    world.check()


def test_usage_whose_cost_cannot_be_written_is_refused():
    world = play("admit r1 in=1 out=1 -> allow", policy(budget("b")))
    usage = Usage(prompt_tokens=AMOUNT_MAX, output_tokens=1)
    with pytest.raises(InvalidAsk, match="at most 9223372036854775807 can be charged"):
        world.ledger.settle(world.ids["r1"], usage=usage)
    with pytest.raises(InvalidAsk, match="can be charged"):
        world.ledger.extend(world.ids["r1"], usage_so_far=usage)
    world.check()


@pytest.mark.parametrize("cost_nusd", [-1, AMOUNT_MAX + 1])
def test_costs_outside_what_can_be_written_are_refused(cost_nusd: int):
    world = play("admit r1 1 -> allow", policy(budget("b")))
    with pytest.raises(InvalidAsk, match="cost_nusd is"):
        world.ledger.settle(world.ids["r1"], cost_nusd=cost_nusd)
    with pytest.raises(InvalidAsk, match="cost_nusd is"):
        world.ledger.record(Ask(ask_id=ask_id("x1")), Report(cost_nusd=cost_nusd), cost_known=True)
    world.check()


def test_negative_counts_are_refused_beside_an_explicit_cost_too():
    world = play("admit r1 1 -> allow", policy(budget("t", unit="tokens")))
    usage = Usage(prompt_tokens=-5)
    with pytest.raises(InvalidAsk, match="prompt_tokens is -5"):
        world.ledger.settle(world.ids["r1"], usage=usage, cost_nusd=1)
    with pytest.raises(InvalidAsk, match="prompt_tokens is -5"):
        world.ledger.record(
            Ask(ask_id=ask_id("x1")), Report(cost_nusd=1, usage=usage), cost_known=True
        )
    world.check()


def test_a_relative_cost_stops_at_the_largest_hold():
    play(
        f"kill k1 mode=max_tier:standard -> ok / admit r1 {LARGEST} -> deny:KILL_SWITCH",
        policy(budget("b"), tiers=relative("1", "9/1")),
    )


def test_fractions_of_a_nano_dollar_round_up_once():
    third = PolicyPrice(
        models="acme/big",
        units=(UnitPrice("input_tokens", 1, 3), UnitPrice("output_tokens", 1, 3)),
    )
    play(
        f"""
        admit r1 in=1 out=1 -> allow hold={NANO}
        admit r2 in=2 out=2 -> allow hold=0.000000002
        settle r2 in=1 out=2 -> ok cost={NANO}
        """,
        policy(budget("b", "1"), prices=(third,)),
    )


def test_a_price_of_nothing_holds_nothing():
    play(
        "admit r1 in=5 out=5 -> allow hold=0 / settle r1 in=5 out=5 -> ok cost=0",
        policy(budget("b", 0), prices=(price("acme/big", 0),)),
    )


def test_a_counter_never_gives_back_more_than_it_holds():
    with pytest.raises(InvariantBroken, match="reserved -1"):
        books.post(Counter(settled=5), None, reserved=-1)
    with pytest.raises(InvariantBroken, match="settled -1"):
        books.post(Counter(reserved=5), None, settled=-1)


def test_post_keeps_what_it_is_not_told_to_change():
    before = Counter(
        settled=5, reserved=3, limit=9, alerted_bp=7, burn_alerted_bp=8, start_ns=1, changed_ns=2
    )
    rule = BudgetRule(budget("b", 9))
    assert books.post(before, rule) == before
    after = books.post(before, rule, reserved=1, start_ns=4, wall_ns=6)
    assert after == msgspec.structs.replace(before, reserved=4, start_ns=4, changed_ns=6)


def test_a_budget_of_nothing_never_resets_into_room():
    play("admit r1 0 -> deny:BUDGET_EXHAUSTED resets=never", policy(budget("b", 0)))


def test_absurd_token_counts_beside_a_small_amount_do_not_fill_what_can_be_counted():
    world = World(policy(budget("b"), prices=(price("acme/big", 10**6),)))
    ledger, tokens = world.ledger, {"prompt_tokens": 10**12, "max_output_tokens": 10**12}
    fields = {"provider": "acme", "model": "big", "estimated_cost_nusd": 1} | tokens
    for number in range(40):
        decision = ledger.admit(Ask(ask_id=f"{number:016}", **fields)).decision
        assert decision.ceiling_nusd == HOLD_MAX_NUSD
    assert ledger.totals.exposure_nusd == 40 * (HOLD_MAX_NUSD - 1)


def test_what_all_are_exposed_to_stays_countable_too():
    world = World(policy(budget("b"), prices=(price("acme/big", 10**6),)))
    ledger, tokens = world.ledger, {"prompt_tokens": 10**12, "max_output_tokens": 10**12}
    fields = {"provider": "acme", "model": "big", "estimated_cost_nusd": 1} | tokens
    ledger.totals.exposure_nusd = AMOUNT_MAX - HOLD_MAX_NUSD
    assert ledger.admit(Ask(ask_id="a" * 16, **fields)).decision.reservation_id
    with pytest.raises(InvalidAsk, match="settle or void what is open"):
        ledger.admit(Ask(ask_id="b" * 16, **fields))
    assert ledger.admit(Ask(ask_id="c" * 16, estimated_cost_nusd=1)).decision.reservation_id
