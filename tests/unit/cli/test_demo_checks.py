"""What the demo checks the daemon with: its own reading, its own sums, its own verdicts."""

from pathlib import Path

import pytest

from costd.cli.demo.foretell import Foreteller
from costd.cli.demo.journal import Entry, JournalReader, JournalWriter, Usage
from costd.cli.demo.outcome import Outcome
from costd.cli.demo.recount import GROUPS, cost_nusd, recount
from costd.cli.demo.rulebook import NotUnderstood, read_rulebook
from costd.cli.demo.verify import Books, Check, verify
from costd.daemon.books.ledger import Ledger
from costd.model.ask import Ask
from costd.policy import load_policy
from costd.store.memory import MemoryStore
from costd.testing import FakeClock
from costd.wire.pb import control_pb2 as pb

ROOT = Path(__file__).resolve().parents[3]
POLICIES = (ROOT / "policies" / "quickstart.yaml", ROOT / "costd" / "cli" / "demo" / "trace.yaml")
SMALL = """\
version: 1
tiers:
  premium: {models: [anthropic/claude-opus-4-5]}
  standard: {models: [anthropic/claude-haiku-4-5]}
task_classes: {draft: {}, review: {critical: true}}
default_task_class: draft
budgets:
  - id: day
    match: {project: "*"}
    per: project
    window: total
    limit: $0.10
    reserve: 20%
    steps: [{at: 50%, do: [tier_down]}]
"""
AT_NS = 1_790_000_000_000_000_000


def call(*, project="api", task_class="draft", verdict="allow", **fields):
    """Make an entry for 1,000 tokens in and 500 out on claude-opus-4-5: $0.0175."""
    known = {
        "at_ns": AT_NS,
        "ask_id": "x" * 16,
        "labels": {"project": project, "user": "ann"},
        "task_class": task_class,
        "asked_provider": "anthropic",
        "asked_model": "claude-opus-4-5",
        "prompt_tokens": 1_000,
        "max_output_tokens": 500,
        "verdict": verdict,
        "reason": "OK",
        "tier": "premium",
        "provider": "anthropic",
        "model": "claude-opus-4-5",
        "ending": "settled",
        "hold_nusd": 17_500_000,
        "reservation_id": "r1",
        "usage": Usage(prompt_tokens=1_000, output_tokens=500),
        "cost_nusd": 17_500_000,
    }
    return Entry(**(known | fields))


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return read_rulebook(path)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_both_readers_of_a_policy_read_the_same(path):
    ours, theirs = read_rulebook(path), load_policy(path)
    assert list(ours.tiers) == [tier.name for tier in theirs.tiers]
    assert [(b.name, b.limit, b.unit, b.reserve, b.per) for b in ours.budgets] == [
        (b.budget_id, b.limit, b.unit, b.reserve, b.per) for b in theirs.budgets
    ]
    assert [[int(rung.at * 10_000) for rung in b.rungs] for b in ours.budgets] == [
        [step.at_bp for step in b.steps] for b in theirs.budgets
    ]
    assert {name: c.critical for name, c in ours.task_classes.items()} == {
        name: c.critical for name, c in theirs.task_classes.items()
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{at: 50%,", "{burn_rate: 2,"),
        ("tier_down", "sing"),
        ("    reserve: 20%", "    missing: deny"),
        ("default_task_class: draft", "default_task_class: draft\nshadow: true"),
    ],
)
def test_what_the_demo_does_not_check_is_refused(tmp_path, old, new):
    path = tmp_path / "odd.yaml"
    path.write_text(SMALL.replace(old, new))
    with pytest.raises(NotUnderstood):
        read_rulebook(path)


@pytest.mark.parametrize(
    ("provider", "model", "tokens", "nusd"),
    [
        ("anthropic", "claude-opus-4-5", (1_000, 500, 0), 17_500_000),
        ("openai", "gpt-5-nano", (1, 0, 0), 50),
        ("openai", "gpt-5-nano", (10, 0, 10), 50),
        ("groq", "openai/gpt-oss-20b", (1, 0, 1), 38),  # 37.5, rounded up
        ("groq", "openai/gpt-oss-20b", (2, 0, 2), 75),
    ],
)
def test_costs_are_list_prices_rounded_up_once(provider, model, tokens, nusd):
    prompt, output, cached = tokens
    usage = Usage(prompt_tokens=prompt, output_tokens=output, cached_tokens=cached)
    assert cost_nusd(provider, model, usage, AT_NS) == nusd


def test_the_journal_is_added_up_by_everything_that_is_compared(small):
    entries = [
        call(),
        call(ask_id="y" * 16, reservation_id="r2", hold_nusd=17_000_000),
        call(ask_id="z" * 16, verdict="deny", ending="denied", usage=None, reservation_id=""),
        call(ask_id="w" * 16, ending="voided", usage=None, reservation_id="r3"),
    ]
    sums = recount(entries, small)
    assert sums.by_call == {"x" * 16: 17_500_000, "y" * 16: 17_500_000}
    assert not sums.drawn
    assert sums.total_nusd == 35_000_000
    assert sums.by_group["user", "ann"] == (2, 35_000_000, 2_000, 1_000)
    assert sums.verdicts == {"allow/draft": 3, "deny/draft": 1}
    counter = sums.by_counter["day", "project=api"]
    assert (counter.settled, counter.overrun, counter.granted) == (35_000_000, 500_000, 0)
    assert not sums.mispriced


@pytest.mark.parametrize(("told", "differences_count"), [(17_500_000, 0), (17_500_001, 1)])
def test_calls_decided_in_the_process_are_held_against_the_books_too(
    small, told, differences_count
):
    drawn = [call(ask_id=f"session.1.{number}", source="allowance") for number in (1, 2)]
    sums = recount([call(), *drawn], small)
    assert sums.by_group["project", "api"][0] == 3
    costs = {"x" * 16: 17_500_000, "session.1.1": 17_500_000, "session.1.2": told}
    books = Books(
        status=pb.Status(),
        budgets=(),
        events=tuple(
            pb.UsageEvent(ask_id=ask_id, reservation_id="r1", cost_nusd=cost)
            for ask_id, cost in costs.items()
        ),
        groups=dict.fromkeys(GROUPS, ()),
        grants=(),
        truncated=False,
    )
    checks = {check.name: check for check in verify(sums, books)}
    for name, count in (("decided in the process", 2), ("usage events", 3)):
        assert checks[name].compared_count == count
        assert len(checks[name].differences) == differences_count


def test_a_loop_of_no_user_counts_where_the_daemon_counts_it(small):
    sums = recount([call(labels={"project": "loop"})], small)
    assert sums.by_group["user", "(none)"][0] == 1


def test_a_price_that_is_a_nano_dollar_off_is_noticed(small):
    assert recount([call(cost_nusd=17_500_001)], small).mispriced


def test_verdicts_are_foretold_down_the_ladder_and_up_to_the_limit(small):
    foreteller = Foreteller(small)
    answers = []
    for _ in range(12):
        told = foreteller.foretell(call())
        answers.append((told.verdict, told.reason, told.tier))
        if told.verdict == "deny":
            continue
        foreteller.follow(
            call(tier=told.tier, model=told.model, hold_nusd=told.hold_nusd, verdict=told.verdict)
        )
    # $0.08 outside the reserve: 3 × $0.0175 pass its half; after 3 × $0.0035 less is left than
    # the asked model may cost, but the step asks for the tier below, which fits 4 times more.
    assert answers == [
        *[("allow", "OK", "premium")] * 3,
        *[("degrade", "STEP", "standard")] * 3,
        *[("degrade", "BUDGET_EXHAUSTED", "standard")] * 4,
        *[("deny", "BUDGET_EXHAUSTED", "premium")] * 2,
    ]
    review = foreteller.foretell(call(task_class="review"))
    assert (review.verdict, review.tier) == ("allow", "premium")


THREE = """\
version: 1
tiers:
  premium: {models: [anthropic/claude-opus-4-5]}
  standard: {models: [anthropic/claude-haiku-4-5]}
  economy: {models: [openai/gpt-5-nano]}
task_classes: {draft: {}}
default_task_class: draft
budgets:
  - id: day
    window: total
    limit: $0.10
    steps: [{at: 10%, do: [STEP]}]
  - {id: low, match: {tier: economy}, window: total, limit: $0.000001}
"""


@pytest.mark.parametrize(
    ("asks", "tier"),
    [
        ("{tiers_down: 2}", "standard"),
        ("economy", "standard"),
        ("switch_provider", "premium"),
        ("{tiers_down: 2}, switch_provider", "standard"),
    ],
)
def test_where_the_lowest_tier_has_no_room_both_give_what_goes_furthest(tmp_path, asks, tier):
    path = tmp_path / "three.yaml"
    path.write_text(THREE.replace("STEP", asks))
    foreteller = Foreteller(read_rulebook(path))
    ledger = Ledger(MemoryStore(), load_policy(path), FakeClock())
    tiers = []
    for number in range(2):
        entry = call(at_ns=FakeClock().wall_ns)
        told = foreteller.foretell(entry)
        ask = Ask(
            ask_id=f"{number:016}",
            provider=entry.asked_provider,
            model=entry.asked_model,
            prompt_tokens=entry.prompt_tokens,
            max_output_tokens=entry.max_output_tokens,
        )
        given = ledger.admit(ask).decision
        assert (told.verdict, told.reason, told.tier, told.hold_nusd) == (
            given.verdict.name.lower(),
            given.reason.name,
            given.tier,
            given.hold_nusd,
        )
        tiers.append(told.tier)
        foreteller.follow(call(tier=told.tier, model=told.model, hold_nusd=told.hold_nusd))
    assert tiers == ["premium", tier]


def test_an_answer_other_than_foretold_is_named(small):
    told = Foreteller(small).foretell(call())
    assert not told.differs(call())
    assert told.differs(call(verdict="deny", hold_nusd=0)) == (
        "verdict should be 'allow' and is 'deny', hold_nusd should be 17500000 and is 0"
    )


def test_a_journal_is_read_while_it_grows(tmp_path):
    path = tmp_path / "journal.jsonl"
    reader = JournalReader([path])
    assert list(reader.new()) == []
    with JournalWriter(path) as writer:
        writer.write(call())
        writer.flush()
        assert list(reader.new()) == [call()]
        writer.write(call(project="web"))
    with path.open("ab") as file:
        file.write(b'{"at_ns": 1, "ask')
    assert list(reader.new()) == [call(project="web")]
    assert list(reader.new()) == []
    reader.close()


@pytest.mark.parametrize(
    ("seen", "differences", "passed"),
    [(True, (), True), (False, (), False), (True, ("one nusd is missing",), False)],
)
def test_a_run_passes_only_if_everything_was_seen_and_every_sum_is_equal(
    small, seen, differences, passed
):
    outcome = Outcome(
        seed=1,
        calls_count=1,
        sums=recount([call()], small),
        checks=[Check("grand total", 1, differences)],
        facts=[("act", "it happened", seen)],
        elapsed_s=1.0,
    )
    assert outcome.passed is passed
    assert outcome.document()["passed"] is passed
