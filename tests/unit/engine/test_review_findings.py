"""What a review of engine and daemon found, each as the sentence that was not true."""

from typing import Any

import pytest
from policy_parts import budget, model_rule, policy, price, rate, step
from scenario import World, ask_id, play

from costd.daemon.clients.allowances import AllowanceBooks
from costd.daemon.clients.desk import Desk
from costd.daemon.clients.pages import NoPages
from costd.daemon.control import ControlService
from costd.daemon.sweeper import Retention
from costd.engine import keys
from costd.engine.changes import Family
from costd.engine.resolve import Report
from costd.errors import IdReused, InvalidAsk
from costd.model.ask import NAME_LENGTH_MAX, Ask, ask_problem
from costd.model.money import AMOUNT_MAX
from costd.model.policy import ModelRef, Tier
from costd.model.reservation import ReservationState
from costd.model.time import NEVER_NS, NS_PER_S
from costd.model.usage import USAGE_FIELDS, Usage
from costd.wire.admission import decision_to_pb
from costd.wire.pb import control_pb2 as pb

YEAR_S = 31_536_000


def ask(name: str, **fields: Any) -> Ask:
    return Ask(ask_id=ask_id(name), **fields)


def record_tokens(world: World, output_tokens: int) -> None:
    usage = Usage(output_tokens=output_tokens)
    spent = ask("rec", provider="acme", model="big")
    world.ledger.record(spent, Report(cost_nusd=0, usage=usage), cost_known=True)


def control(world: World) -> ControlService:
    class Source:
        path = text = error = ""
        loaded_ns = 0

        def reload(self, actor: str) -> None:
            raise NotImplementedError(actor)

    desk = Desk(world.ledger, AllowanceBooks(world.ledger), NoPages())
    return ControlService(world.ledger, Source(), desk)


@pytest.mark.parametrize("limit", [1, 100, 6_000])
def test_an_absurd_record_does_not_keep_refusals_from_being_written(limit: int):
    world = World(policy(budget("t", limit, unit="tokens", steps=[step(80)])))
    record_tokens(world, AMOUNT_MAX)
    admitted = world.ledger.admit(ask("r1", prompt_tokens=1, max_output_tokens=1))
    message = decision_to_pb(admitted.decision, None, replayed=False)
    assert message.threshold_bp == 8_000
    assert message.utilisation_bp > 10_000
    assert len(control(world).ListAlerts(pb.ListAlertsRequest(), "").alerts) == 1
    rows = control(world).ListBudgets(pb.ListBudgetsRequest(), "").budgets
    assert [row.settled for row in rows] == [AMOUNT_MAX]


def test_a_bucket_in_endless_debt_still_refuses_in_words():
    world = World(policy(budget("b"), rate("r", 100 * NS_PER_S, "nusd", every_s=86_400)))
    held = world.ledger.admit(ask("r1", estimated_cost_nusd=NS_PER_S)).decision
    world.ledger.settle(held.reservation_id, cost_nusd=AMOUNT_MAX // 2)
    refused = world.ledger.admit(ask("r2", estimated_cost_nusd=NS_PER_S)).decision
    message = decision_to_pb(refused, None, replayed=False)
    assert message.binding.resets_ns == NEVER_NS


def test_a_raised_limit_arms_its_steps_again():
    halting = [step(50), step(80, halt=True)]
    play(
        """
        admit r1 9 -> allow
        alerts -> b@50,b@80,kill:b
        release halt -> 1
        policy p2 -> ok
        admit r2 30 -> allow
        kills -> none
        admit r3 15 -> allow
        alerts -> b@50
        admit r4 30 -> allow
        kills -> halt/b/-
        alerts -> b@80,kill:b
        """,
        policy(budget("b", "10", steps=halting)),
        policies={"p2": policy(budget("b", "100", steps=halting), revision="p2")},
    )


def test_a_slightly_raised_limit_does_not_repeat_what_is_still_reached():
    halting = [step(50), step(80, halt=True)]
    play(
        """
        admit r1 9 -> allow
        alerts -> b@50,b@80,kill:b
        release halt -> 1
        policy p2 -> ok
        admit r2 0.5 -> allow
        alerts -> none
        """,
        policy(budget("b", "10", steps=halting)),
        policies={"p2": policy(budget("b", "11", steps=halting), revision="p2")},
    )


def test_a_raised_limit_arms_its_burn_rate_steps_again():
    halting = [step(burn=2, halt=True), step(burn=9)]
    play(
        """
        t=2h admit r1 2 -> allow
        alerts -> b@x2,kill:b
        release halt -> 1
        admit r2 0.1 -> allow
        alerts -> none
        policy p2 -> ok
        admit r3 0.1 -> allow
        alerts -> none
        admit r4 2 -> allow
        alerts -> b@x2,kill:b
        release halt -> 1
        policy p1 -> ok
        admit r5 0.1 -> allow
        alerts -> none
        """,
        policy(budget("b", "10", steps=halting)),
        policies={
            "p1": policy(budget("b", "10", steps=halting)),
            "p2": policy(budget("b", "20", steps=halting), revision="p2"),
        },
    )


def test_a_repeated_settle_or_record_costs_what_it_cost_whatever_the_catalogue_says_by_then():
    used = "in=100 out=100 model=acme/mid"
    play(
        f"""
        admit r1 in=100 out=100 -> allow
        settle r1 {used} -> ok cost=0.2
        admit r2 in=100 out=100 ttl=60 -> allow
        t=60 sweep -> 1
        settle r2 {used} -> late cost=0.2
        record x1 {used} -> ok cost=0.2
        admit r3 in=100 out=100 -> allow
        record r3 {used} -> ok cost=0.2
        admit r4 in=100 out=100 -> allow
        settle r4 in=100 out=100 model=acme/new -> ok cost=2   # unknown yet: as admitted
        policy p2 -> ok
        restart -> ok
        settle r1 {used} -> replayed cost=0.2
        settle r1 in=100 out=101 model=acme/mid -> closed:settled
        settle r2 {used} -> replayed cost=0.2
        record x1 {used} -> replayed cost=0.2
        record r3 {used} -> replayed cost=0.2
        settle r4 in=100 out=100 model=acme/new -> replayed cost=2
        settle r4 2 -> replayed
        """,
        policy(budget("b")),
        policies={
            "p2": policy(
                budget("b"), prices=(price("acme/mid", 7), price("acme/new", 7)), revision="p2"
            )
        },
    )


def test_a_record_without_a_provider_counts_where_its_ask_would_have():
    play(
        """
        record r1 5 model=big -> ok
        show p -> settled=5 unadmitted=5
        show premium -> settled=5
        record r2 model=big in=1 out=1 -> ok cost=0.02
        """,
        policy(
            budget("p", "10", match={"provider": "acme"}),
            budget("premium", "10", match={"tier": "premium"}),
        ),
    )


def test_a_settle_cannot_name_a_model_at_length():
    world = play("admit r1 model=acme/big in=1 out=1 -> allow", policy(budget("b", "10")))
    report = Report(cost_nusd=0, model="m" * (NAME_LENGTH_MAX + 1))
    for stated in ({"cost_nusd": 1}, {"usage": Usage(prompt_tokens=1, output_tokens=1)}):
        with pytest.raises(InvalidAsk, match="more than 256 characters"):
            world.ledger.settle(world.ids["r1"], report=report, **stated)


def test_forbidding_a_model_forbids_its_other_spellings():
    rules = (budget("b", "10"), model_rule("m", forbid=("openai/gpt-4o",)))
    world = World(policy(*rules))
    for n, (provider, model) in enumerate(
        [("openai", "gpt-4o"), ("OpenAI", "gpt-4o"), ("openai", "GPT-4o"), ("", "GPT-4o")]
    ):
        decided = world.ledger.admit(
            ask(f"r{n}", provider=provider, model=model, prompt_tokens=1, max_output_tokens=1)
        )
        assert decided.decision.reason.name == "MODEL_FORBIDDEN", (provider, model)


@pytest.mark.parametrize(
    ("provider", "model"),
    [("OpenAI", "gpt-4o"), ("litellm", "openai/gpt-4o"), ("gemini", "gemini-2.5-pro")],
)
def test_another_spelling_of_a_provider_does_not_pass_by_its_budget(provider: str, model: str):
    matching = budget("closed", 0, match={"provider": "openai|google"})
    world = World(policy(matching, budget("all", "10")))
    fields = {"provider": provider, "model": model}
    decided = world.ledger.admit(ask("r1", prompt_tokens=1, max_output_tokens=1, **fields))
    assert decided.decision.reason.name == "BUDGET_EXHAUSTED"
    world.ledger.record(ask("r2", **fields), Report(cost_nusd=NS_PER_S, **fields), cost_known=True)
    world.play("show closed -> settled=1 unadmitted=1")


def test_a_provider_is_spelt_as_the_policy_spells_it():
    world = World(
        policy(
            budget("b", "10", match={"provider": "OpenAI"}),
            tiers=(Tier(name="premium", models=(ModelRef("OpenAI", "gpt-4o"),)),),
        )
    )
    world.play("admit r1 in=1 out=1 model=OpenAI/gpt-4o -> allow tightest=b")


def test_one_reservation_that_outlived_its_counter_does_not_stop_the_sweeper():
    world = World(policy(budget("b", "9", window="minute")), retention=Retention(counters_s=60))
    stuck = world.ledger.admit(ask("r1", estimated_cost_nusd=5, ttl_ns=3_600 * NS_PER_S)).decision
    for _ in range(2):
        world.clock.advance(300)
        world.sweeper.sweep()
    assert list(world.store.scan(Family.COUNTERS)) == []
    spent = ask("rec", provider="acme", model="big")
    report = Report(cost_nusd=1)
    world.ledger.record(spent, report, happened_ns=world.start_ns + 1, cost_known=True)
    world.clock.advance(3_600)
    world.sweeper.sweep()
    held = world.ledger.find_reservation(stuck.reservation_id)
    assert held is not None
    assert held.state is ReservationState.EXPIRED


@pytest.mark.parametrize("reopened", [False, True])
def test_a_late_settle_may_find_its_counter_gone_or_made_anew(reopened: bool):
    world = World(policy(budget("b", "9", window="minute")), retention=Retention(counters_s=60))
    world.play("admit r1 5 ttl=60 -> allow / t=70 sweep -> 1")
    for _ in range(2):
        world.clock.advance(300)
        world.sweeper.sweep()
    if reopened:
        world.play("record r2 1 model=acme/big at=1 -> ok")
    world.play("settle r1 2 -> late cost=2")
    settled = [counter.settled for _, counter in world.store.scan(Family.COUNTERS)]
    assert settled == ([NS_PER_S] if reopened else [])


def test_records_of_a_clock_that_was_ahead_do_not_keep_the_log_for_ever():
    world = World(policy(budget("b")), retention=Retention(usage_s=3_600))
    world.play(
        f"wall {YEAR_S} -> ok / admit r 1 -> allow / settle r 1 -> ok / wall -{YEAR_S} -> ok"
    )
    for n in range(12):
        world.clock.advance(3_600)
        world.play(f"admit r{n} 1 -> allow / settle r{n} 1 -> ok / sweep -> 0")
    times = [event.settled_ns for _, event in world.store.scan(Family.USAGE)]
    assert times == [world.clock.wall_ns - 3_600 * NS_PER_S, world.clock.wall_ns]


def test_a_log_that_is_all_old_is_trimmed_whole_and_goes_on():
    world = World(policy(budget("b")), retention=Retention(usage_s=60))
    for n in range(5):
        world.play(f"admit r{n} 1 -> allow / settle r{n} 1 -> ok")
    world.clock.advance(3_600)
    world.play("sweep -> 0")
    assert list(world.store.scan(Family.USAGE)) == []
    world.play("admit r5 1 -> allow / settle r5 1 -> ok")
    assert [key for key, _ in world.store.scan(Family.USAGE)] == [keys.sequence_key(6)]


@pytest.mark.parametrize(
    "other", [{"scope": {}}, {"mode": "critical_only"}, {"mode": "max_tier", "max_tier": "economy"}]
)
def test_engaging_another_switch_under_an_engaged_ones_id_is_refused(other: dict[str, Any]):
    world = World(policy(budget("b")))
    first: dict[str, Any] = {"kill_id": "stop", "scope": {"team": "a"}, "reason": "drill"}
    engaged = control(world).EngageKill(pb.EngageKillRequest(**first), "ops")
    assert control(world).EngageKill(pb.EngageKillRequest(**first), "ops") == engaged
    with pytest.raises(IdReused, match="engaged: deny_all for team=a; release it first"):
        control(world).EngageKill(pb.EngageKillRequest(**{**first, **other}), "ops")


def test_kill_switches_are_known_without_reading_all_that_ever_were():
    world = World(policy(budget("b")))
    world.play("kill k1 -> ok / release k1 -> 1 / kill k2 -> ok / kill k3 -> ok / kill k2 -> ok")
    assert sorted(kill.kill_id for kill in world.ledger.kills) == ["k2", "k3"]
    world.play("release k3 -> 1 / kills -> k2 / restart -> ok / kills -> k2")


def test_an_amount_of_zero_for_a_model_that_has_a_price_does_not_pass_an_empty_budget():
    play(
        """
        admit r1 10 -> allow
        admit r2 0 -> deny:BUDGET_EXHAUSTED
        admit r3 0 model=acme/gratis -> allow
        """,
        policy(budget("b", "10")),
    )


@pytest.mark.parametrize("unit", ["input_tokens", "output_tokens"])
def test_units_may_not_stand_for_fields_of_an_ask(unit):
    ask = Ask(ask_id="0123456789abcdef", prompt_tokens=9, max_output_tokens=9, units={unit: 0})
    assert "is its field" in (ask_problem(ask) or "")


@pytest.mark.parametrize("unit", sorted(USAGE_FIELDS))
def test_units_may_not_stand_for_fields_of_usage(unit):
    usage = Usage(prompt_tokens=9, output_tokens=9, units={unit: 0})
    assert "is the field for it" in (usage.problem() or "")


def test_an_ask_that_states_an_amount_and_tokens_is_exposed_by_what_the_tokens_may_cost():
    play("admit r1 1 in=100 out=100 -> allow hold=1 ceiling=2", policy(budget("b", "10")))


def test_a_label_may_not_say_that_it_is_missing():
    ask = Ask(ask_id="0123456789abcdef", labels={"user": "(none)"}, estimated_cost_nusd=1)
    assert "stands for no label" in (ask_problem(ask) or "")
