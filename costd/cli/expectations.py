"""Play expected decisions through the real ledger, on a store in memory and a clock of its own."""

from enum import Enum
from pathlib import Path

import msgspec

from costd.cli import render
from costd.cli.exits import ExitCode, Failure
from costd.daemon.books.asking import ANY_CLASS, Trust
from costd.daemon.books.ledger import Admitted, Ledger
from costd.engine.changes import Family
from costd.engine.resolve import Report
from costd.errors import BudgetNotFound, CostdError, ReservationNotFound
from costd.model.ask import Ask
from costd.model.decision import NO_DIRECTIVES, Decision, Directives, Reason, Verdict
from costd.model.kill import KillSwitch
from costd.model.money import format_nusd
from costd.model.policy import ModelRef, PolicySet
from costd.model.reservation import ReservationState
from costd.model.time import Now
from costd.policy.expectations import (
    AskStep,
    ExpectedDecision,
    KillStep,
    ReleaseStep,
    Scenario,
    ScenarioStep,
    SettleStep,
    SpendStep,
    VoidStep,
    expectations_path,
    load_expectations,
)
from costd.store.memory import MemoryStore

__all__ = ["StepResult", "expectations_path", "play", "play_file"]

PLAYER = "costctl policy test"


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """One decision: what the policy said, and where that differs from what was expected."""

    scenario: str
    line: int
    said: str
    problems: tuple[str, ...] = ()


class _SetClock:
    """Stands where the scenario says; both clocks move together."""

    def __init__(self) -> None:
        self.at_ns = 0

    def now(self) -> Now:
        """Return the scenario's moment."""
        return Now(self.at_ns, self.at_ns)


def play_file(policy: PolicySet, path: Path) -> list[StepResult]:
    """Play a file of expected decisions.

    Errors: InvalidPolicy for a bad file; Failure where it expects nothing.
    """
    results = [result for scenario in load_expectations(path) for result in play(policy, scenario)]
    if not results:
        raise Failure(f"{path}: expects no decision at all", ExitCode.POLICY)
    return results


def play(policy: PolicySet, scenario: Scenario) -> list[StepResult]:
    """Play one scenario on empty books.

    Shape: one result for each ask, and one for each other step that could not be taken.
    """
    stage = _Stage(policy)
    results = []
    for step in scenario.steps:
        stage.clock.at_ns = step.at_ns
        stage.expire_due()
        try:
            said, problems = stage.take(step)
        except CostdError as error:
            said, problems = type(error).__name__, (str(error),)
        if said:
            results.append(
                StepResult(
                    scenario=scenario.name, line=step.line, said=said, problems=tuple(problems)
                )
            )
    return results


class _Stage:
    """A ledger on empty books, and the reservations that its scenario named."""

    def __init__(self, policy: PolicySet) -> None:
        self.clock = _SetClock()
        trust = Trust(claims=frozenset({ANY_CLASS}))
        self.ledger = Ledger(MemoryStore(), policy, self.clock, trust=trust)
        self.named: dict[str, bytes] = {}
        self.spent_count = 0

    def expire_due(self) -> None:
        """Close what nobody closed by now, as the daemon's sweeper would."""
        store = self.ledger.store
        for _, held in list(store.scan(Family.RESERVATIONS)):
            if held.state is ReservationState.HELD and held.due_ns <= self.clock.at_ns:
                self.ledger.expire(held)

    def take(self, step: ScenarioStep) -> tuple[str, tuple[str, ...]]:
        """Take one step; only asks have something to say."""
        match step:
            case AskStep():
                admitted = self.ledger.admit(step.ask)
                self.named[step.name] = admitted.decision.reservation_id
                return describe(admitted.decision), differences(step.expected, admitted)
            case SpendStep():
                self._spend(step)
            case SettleStep():
                self.ledger.settle(
                    self._held(step.name), usage=step.usage, cost_nusd=step.cost_nusd
                )
            case VoidStep():
                self.ledger.void(self._held(step.name))
            case KillStep():
                self._kill(step)
            case ReleaseStep():
                self._release(step.kill_id)
        return "", ()

    def _held(self, name: str) -> bytes:
        held = self.named.get(name)
        if not held:
            raise ReservationNotFound(f"the ask {name!r} was refused, so nothing is held for it")
        return held

    def _spend(self, step: SpendStep) -> None:
        self.spent_count += 1
        provider, model = (step.model.provider, step.model.model) if step.model else ("", "")
        ask = Ask(
            ask_id=f"expected-spend-{self.spent_count}",
            task_class=step.task_class,
            labels=step.labels,
            provider=provider,
            model=model,
        )
        report = Report(
            cost_nusd=step.cost_nusd or 0, usage=step.usage, provider=provider, model=model
        )
        self.ledger.record(ask, report, cost_known=step.cost_nusd is not None)

    def _kill(self, step: KillStep) -> None:
        switch = KillSwitch(
            kill_id=step.kill_id,
            scope=step.scope,
            mode=step.mode,
            max_tier=step.max_tier,
            reason=PLAYER,
            actor=PLAYER,
            engaged_ns=step.at_ns,
        )
        self.ledger.put_kill(switch, action="kill_engaged", actor=PLAYER, detail=PLAYER)

    def _release(self, kill_id: str) -> None:
        engaged = [switch for switch in self.ledger.kills if kill_id in {"*", switch.kill_id}]
        if not engaged:
            raise BudgetNotFound(f"no kill switch {kill_id!r} is engaged here")
        for switch in engaged:
            released = msgspec.structs.replace(
                switch, released_ns=self.clock.at_ns, released_by=PLAYER
            )
            self.ledger.put_kill(released, action="kill_released", actor=PLAYER, detail=PLAYER)


def describe(decision: Decision) -> str:
    """Say in a line what was decided."""
    said = f"{decision.verdict.name} {decision.reason.name}"
    name = f"{decision.provider}/{decision.model}".strip("/")
    if name or decision.tier:
        said += f", {name} ({decision.tier})" if name else f", tier {decision.tier}"
    if decision.directives != NO_DIRECTIVES:
        said += f", {_directives(decision.directives)}"
    return f"{said}, by {decision.binding.rule}" if decision.binding else said


def differences(expected: ExpectedDecision, admitted: Admitted) -> tuple[str, ...]:
    """Say field by field where a decision is not what was expected."""
    decision = admitted.decision
    seen: dict[str, object] = {
        "verdict": decision.verdict,
        "reason": decision.reason,
        "tier": decision.tier,
        "model": ModelRef(decision.provider, decision.model),
        "directives": decision.directives,
        "hold_nusd": decision.hold_nusd,
        "rule": decision.binding.rule if decision.binding else "",
        "tightest_budget": decision.tightest_budget,
        "threshold_bp": decision.threshold_bp,
        "upgrade_url": decision.upgrade_url,
        "shadow_verdict": Verdict(decision.shadow_verdict) if decision.shadow_verdict else None,
    }
    return tuple(
        f"{name.removesuffix('_nusd').removesuffix('_bp')}: expected {_shown(name, wanted)}, "
        f"got {_shown(name, seen[name])}"
        for name in ExpectedDecision.__struct_fields__
        if (wanted := getattr(expected, name)) is not None and wanted != seen[name]
    )


def _shown(name: str, value: object) -> str:
    """Write a field's value as the file of expectations has it."""
    if isinstance(value, Directives):
        return _directives(value) or "none"
    if isinstance(value, Enum):
        return value.name if isinstance(value, Reason) else value.name.lower()
    if name == "hold_nusd":
        return format_nusd(int(str(value)))
    if name == "threshold_bp":
        return render.percent(int(str(value)))
    return str(value) if value else "none"


def _directives(directives: Directives) -> str:
    stated = msgspec.structs.asdict(directives).items()
    return ", ".join(
        name if value is True else f"{name}={value}"
        for name, value in stated
        if value is not None and value is not False
    )
