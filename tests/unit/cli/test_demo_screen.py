"""What the demo shows, for terminals of several sizes and for none."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from costd.cli.demo.journal import Entry
from costd.cli.demo.rulebook import read_rulebook
from costd.cli.demo.screen import PlainScreen, Show, draw, progress
from costd.cli.demo.story import View
from costd.cli.demo.tally import Ladder, Tally
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as pb

QUICKSTART = Path(__file__).resolve().parents[3] / "policies" / "quickstart.yaml"
CLASSES = ("chat", "code_review", "draft", "research", "security_review", "testing")


def entry(task_class="draft", verdict="allow", **fields):
    known = {
        "at_ns": 1,
        "ask_id": "x" * 16,
        "labels": {"project": "launch", "user": "ann"},
        "task_class": task_class,
        "asked_provider": "anthropic",
        "asked_model": "claude-opus-4-5",
        "prompt_tokens": 1,
        "max_output_tokens": 500,
        "verdict": verdict,
        "reason": "OK",
        "tier": "premium",
        "provider": "anthropic",
        "model": "claude-opus-4-5",
        "ending": "settled",
    }
    return Entry(**(known | fields))


@pytest.fixture
def show():
    rulebook = read_rulebook(QUICKSTART)
    budget = next(each for each in rulebook.budgets if each.name == "launch-day")
    tally = Tally(Ladder(budget, rulebook))
    for second in range(30):
        calls = [entry(name, verdict) for name in CLASSES for verdict in ("allow", "deny")]
        tally.take(calls * 1_000, second * NS_PER_S)
    view = View(
        budgets=tuple(
            pb.BudgetStatus(
                budget=name,
                key=f"user=somebody-with-a-long-name-{at}",
                unit="nusd",
                limit=10**10,
                settled=at * 10**8,
                utilisation_bp=at * 100,
            )
            for at, name in enumerate(["launch-day", "lab-day", *["user-day"] * 40])
        ),
        kills=tuple(
            pb.KillSwitch(kill_id=str(at), reason="an accident " * 9, actor="me", engaged=not at)
            for at in range(5)
        ),
    )
    shown = Show(tally=tally, view=view, title="A title", caption="A caption " * 20)
    shown.shows_grant, shown.grant_uses_count = True, 3
    for at in range(30):
        shown.tell(f"something happened, number {at} " * 5)
    return shown


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (120, 40), (200, 60)], ids=str)
def test_a_frame_fits_the_terminal(show, size):
    width, height = size
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    lines = console.render_lines(draw(show, width, height), pad=False)
    shown = ["".join(segment.text for segment in line) for line in lines]
    assert len(shown) <= height
    assert max(map(len, shown)) <= width
    text = "\n".join(shown)
    for part in ("A title", "task class", "deny", "security_review", "ladder of launch-day",
                 "other provider, output ≤ 256", "launch-day", "STOPPED", "released",
                 "0 of 3 redeemed", "number 29"):  # fmt: skip
        assert part in text


def test_plain_lines_tell_each_piece_of_news_once(show):
    console = Console(width=160, file=io.StringIO(), color_system=None)
    screen = PlainScreen(console)
    show.news.clear()
    show.tell("first")
    screen.show(show)
    show.tell("second")
    screen.show(show)
    printed = console.file.getvalue()
    assert printed.count("first") == printed.count("second") == 1
    assert printed.count("calls/s") == 1


def test_decisions_count_under_the_highest_step_they_show(show):
    ladder = show.tally.ladder
    assert ladder is not None
    step = {"verdict": "degrade", "reason": "STEP", "rule": "launch-day"}
    retries = {"max_retries": 1, "cache": 1}
    shorter = {**retries, "max_output_tokens": 384, "compression": 1}
    no_retries = {**shorter, "max_retries": 0}
    cheaper = {"tier": "standard", "model": "claude-haiku-4-5"}
    other = {"tier": "standard", "provider": "openai", "model": "gpt-5-mini"}
    economy = {"tier": "economy", "provider": "openai", "model": "gpt-5-nano"}
    last = {**no_retries, "max_output_tokens": 256}
    for fields in (
        {**step, "directives": retries},
        {**step, "directives": shorter},
        {**step, **cheaper, "directives": no_retries},
        {**step, **other, "directives": last},
        {**step, **economy, "directives": {**last, "batch": 1}},
        {"verdict": "deny", "reason": "STEP_DENY", "rule": "launch-day", "ending": "denied"},
        # Neither another budget's step nor a critical class is this ladder's doing.
        {**step, "directives": retries, "rule": "user-day"},
        {**step, "directives": retries, "task_class": "code_review"},
    ):
        ladder.take(entry(**fields))
    assert ladder.counts == [0, 1, 1, 1, 1, 1, 1]


def test_rates_are_those_of_the_last_moments(show):
    assert show.tally.calls_per_s == 12_000
    assert max(show.tally.rates()) == 24_000
    assert Tally().calls_per_s == 0
    assert Tally().rates() == []


def test_acts_count_only_what_was_answered_since_they_began():
    tally = Tally()
    tally.begin_act(100)
    tally.take([entry(at_ns=99), entry(at_ns=100), entry(at_ns=101, reason="GRANT")], 0)
    assert tally.answers(project="launch") == 2
    assert tally.answers(reason="GRANT") == 1
    tally.begin_act(200)
    assert tally.answers() == 0


def test_progress_is_drawn_from_nothing_to_all():
    assert progress(0, 10).startswith("╌")
    assert "╌" not in progress(10, 10)
    assert progress(10, 10).endswith("10 of 10 calls")
