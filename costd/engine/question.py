"""An ask while it is decided: what stays the same, and what becomes of each candidate."""

from costd.engine import keys
from costd.engine.candidates import Candidate, Estimate
from costd.engine.degrade import Demands
from costd.engine.ports import State
from costd.engine.rules import BudgetRule, Kills, Matching, RateRule, Rules
from costd.model.ask import Ask
from costd.model.counter import Counter
from costd.model.decision import NO_DIRECTIVES, Directives, Reason
from costd.model.kill import KillSwitch
from costd.model.lease import Shortage, Wanting
from costd.model.policy import ModelRule, TaskClass
from costd.model.reservation import CounterLine, RateLine
from costd.model.time import Now


class Evaluation:
    """What became of one candidate; mutable while it is being evaluated, read-only after.

    `reason` OK means that it fits. Otherwise `rejects_candidate` tells whether the next candidate
    may be tried or the search ends here. `lines` and `rates` are what to hold if it wins.
    """

    __slots__ = (
        "binding_rule", "candidate", "counter_key", "demands", "directives", "estimate", "lines",
        "matching", "rates", "reason", "rejects_candidate", "threshold_bp", "tightest",
        "tightest_bp", "tightest_key",
    )  # fmt: skip

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.reason = Reason.OK
        self.rejects_candidate = False
        self.binding_rule: BudgetRule | RateRule | ModelRule | KillSwitch | None = None
        self.counter_key = b""
        self.demands: Demands | None = None
        self.directives: Directives = NO_DIRECTIVES
        self.estimate = Estimate(0, None, None, None)
        self.matching: Matching | None = None
        self.lines: list[tuple[BudgetRule, CounterLine, Counter]] = []
        self.rates: list[tuple[RateLine, int]] = []
        self.tightest: BudgetRule | None = None
        self.tightest_key = b""
        self.tightest_bp = 0
        self.threshold_bp = 0

    def fail(
        self,
        reason: Reason,
        rule: BudgetRule | RateRule | ModelRule | KillSwitch | None,
        *,
        rejects_candidate: bool = False,
        key: bytes = b"",
    ) -> "Evaluation":
        """Note why the candidate does not fit."""
        self.reason = reason
        self.binding_rule = rule
        self.rejects_candidate = rejects_candidate
        self.counter_key = key
        return self


Shorts = list[tuple[BudgetRule | RateRule, Shortage]]
"""What a candidate lacks, if that is nothing but leases, with the rules that say so."""


class Question:
    """Everything that stays the same while an ask's candidates are evaluated."""

    __slots__ = (
        "ask",
        "caller",
        "enforce_shadow",
        "grant_may_wait",
        "identity",
        "in_tenure",
        "kills",
        "may_wait",
        "now",
        "rules",
        "state",
        "takes_steps",
        "task_class",
        "wanting",
    )

    def __init__(
        self,
        *,
        rules: Rules,
        state: State,
        kills: Kills,
        ask: Ask,
        caller: str,
        task_class: TaskClass,
        now: Now,
    ) -> None:
        self.caller = caller
        self.identity = keys.reservation_id(caller, ask.ask_id)
        """The reservation's id, if there is to be one: a repeated ask finds it by this."""
        self.rules = rules
        self.state = state
        self.kills = kills
        self.ask = ask
        self.task_class = task_class
        self.now = now
        self.takes_steps = not task_class.critical or task_class.takes_steps
        self.enforce_shadow = True
        """Whether rules in shadow refuse; off when the real answer is found."""
        self.in_tenure = rules.in_fleet and now.steady_ns < state.leases_until_ns
        """Whether what the coordinator has lent may be spent now."""
        self.may_wait = False
        """Whether the coordinator may be asked for more before this is decided."""
        self.grant_may_wait = False
        """Whether it may be asked for what an override grant lacks."""
        self.wanting: Wanting | None = None
        """What it must lend for the first candidate that lacks nothing else."""


def note_tightest(result: Evaluation, rule: BudgetRule, key: bytes, share: int) -> None:
    """Note the tightest budget so far, and the highest threshold it has crossed."""
    result.tightest, result.tightest_key, result.tightest_bp = rule, key, share
    if share >= rule.first_step_bp:
        result.threshold_bp = max(
            step.at_bp
            for step in rule.budget.steps
            if step.at_bp is not None and step.at_bp <= share
        )
    else:
        result.threshold_bp = 0
