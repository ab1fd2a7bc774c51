import msgspec
import pytest

from costd.model.ask import Ask
from costd.model.decision import Decision, Reason, Verdict
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import Match, Selector
from costd.model.money import AMOUNT_MAX
from costd.model.policy import ModelRef
from costd.model.reservation import (
    RESERVATION_MOVES,
    Move,
    Reservation,
    ReservationState,
)
from costd.model.usage import Usage


def test_a_decision_has_no_truth_value():
    decision = Decision(verdict=Verdict.DENY, reason=Reason.NO_BUDGET, ask_id="a")
    with pytest.raises(TypeError, match="compare its verdict"):
        bool(decision)


def test_a_model_is_written_with_its_provider_where_it_has_one():
    assert str(ModelRef("acme", "big")) == "acme/big"
    assert str(ModelRef("", "big")) == "big"


@pytest.mark.parametrize(
    ("match", "facts", "holds"),
    [
        (Match("team", frozenset({"a", "b"})), {"team": "b"}, True),
        (Match("team", frozenset({"a"})), {"team": "b"}, False),
        (Match("team", frozenset({"a"})), {}, False),
        (Match("team"), {"team": "x"}, True),
        (Match("team"), {}, False),
        (Match("team", frozenset({"a"}), negated=True), {"team": "a"}, False),
        (Match("team", frozenset({"a"}), negated=True), {"team": "b"}, True),
        (Match("team", frozenset({"a"}), negated=True), {}, True),
        (Match("team", negated=True), {"team": "x"}, False),
        (Match("team", negated=True), {}, True),
    ],
)
def test_a_match_holds_for_its_values(match: Match, facts: dict, holds: bool):
    assert match.holds(facts) is holds


def test_a_selector_needs_every_match_and_the_empty_one_none():
    both = Selector((Match("a", frozenset({"1"})), Match("b")))
    assert both.holds({"a": "1", "b": "2"})
    assert not both.holds({"a": "1"})
    assert Selector().holds({})


def test_a_selector_on_provider_model_or_tier_names_a_candidate():
    assert Selector((Match("team"), Match("model"))).names_candidate
    assert not Selector((Match("team"), Match("task_class"))).names_candidate


def test_a_selector_reads_like_a_policy():
    selector = Selector((Match("a", frozenset({"2", "1"})), Match("b", negated=True)))
    assert str(selector) == "a=1|2, b!=*"
    assert str(Selector()) == "everything"


def test_a_kill_switch_is_engaged_until_released_or_its_time_is_up():
    switch = KillSwitch(
        kill_id="k",
        scope=Selector(),
        mode=KillMode.DENY_ALL,
        reason="r",
        actor="a",
        engaged_ns=1,
        releases_steady_ns=10,
    )
    assert switch.engaged(9)
    assert not switch.engaged(10)
    assert not msgspec.structs.replace(switch, released_ns=5).engaged(9)


def test_every_state_says_where_each_move_leads():
    assert set(RESERVATION_MOVES) == set(ReservationState)
    assert RESERVATION_MOVES[ReservationState.HELD][Move.EXTEND] is ReservationState.HELD
    assert RESERVATION_MOVES[ReservationState.EXPIRED] == {Move.SETTLE: ReservationState.SETTLED}
    assert not RESERVATION_MOVES[ReservationState.SETTLED]
    assert not RESERVATION_MOVES[ReservationState.VOIDED]


def test_a_reservations_expiry_follows_the_steady_clock_and_is_told_on_the_walls():
    held = Reservation(
        reservation_id=b"",
        caller="",
        ask=Ask(ask_id="a"),
        decision=Decision(
            verdict=Verdict.ALLOW, reason=Reason.OK, ask_id="a", expires_ns=1_000 + 60
        ),
        state=ReservationState.HELD,
        counters=(),
        rates=(),
        hold_nusd=0,
        ceiling_nusd=None,
        admitted_ns=1_000,
        admitted_steady_ns=5,
        due_ns=5 + 90,
    )
    assert held.expires_ns == 1_090
    assert held.admitted_as_ask


def test_usage_counts_what_is_known_under_the_catalogues_names():
    usage = Usage(
        prompt_tokens=10,
        cached_tokens=4,
        cache_write_tokens=2,
        output_tokens=0,
        reasoning_tokens=0,
        units={"images": 3},
    )
    assert usage.problem() is None
    assert usage.total_tokens == 10
    assert usage.counts() == {
        "input_tokens": 10,
        "cache_read_tokens": 4,
        "cache_write_tokens": 2,
        "output_tokens": 0,
        "output_reasoning_tokens": 0,
        "images": 3,
    }
    assert Usage().counts() == {}
    assert Usage(output_tokens=3).total_tokens == 3


@pytest.mark.parametrize(
    ("usage", "says"),
    [
        (Usage(prompt_tokens=-1), "prompt_tokens is -1"),
        (Usage(output_tokens=AMOUNT_MAX + 1), "output_tokens is"),
        (Usage(units={"images": -1}), "[images] is -1"),
        (Usage(prompt_tokens=5, cached_tokens=3, cache_write_tokens=3), "exceed prompt_tokens"),
        (Usage(output_tokens=5, reasoning_tokens=6), "exceed output_tokens"),
        (Usage(cached_tokens=1), "exceed prompt_tokens"),
    ],
)
def test_usage_that_contradicts_itself_is_told_so(usage: Usage, says: str):
    problem = usage.problem()
    assert problem is not None
    assert says in problem
