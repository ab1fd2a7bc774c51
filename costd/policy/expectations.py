"""Expected decisions: what a policy must answer, in a file beside it.

`policies/NAME.expect.yaml` holds named scenarios; each is one timeline on a fresh engine.
Whoever plays them (`costctl policy test`, and pytest) feeds the steps in order and compares.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from costd.model.ask import Ask, ask_problem
from costd.model.decision import Directives, Reason, Verdict
from costd.model.kill import KillMode
from costd.model.labels import Selector
from costd.model.policy import ModelRef
from costd.model.usage import Usage
from costd.policy import problems
from costd.policy.build import build_selector
from costd.policy.problems import Problem, refuse
from costd.policy.reading import problem_at, read_spec
from costd.policy.scenario_schema import AskSpec, EntrySpec, ExpectSpec, ScenariosSpec, UsageSpec
from costd.policy.source import Source, read_file, read_source

if TYPE_CHECKING:
    from collections.abc import Callable

ACTIONS = ("ask", "spend", "settle", "void", "kill", "release")


class ExpectedDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision must say; None leaves a field open."""

    verdict: Verdict | None = None
    reason: Reason | None = None
    tier: str | None = None
    model: ModelRef | None = None
    directives: Directives | None = None
    hold_nusd: int | None = None
    rule: str | None = None
    """The id of the rule that binds."""
    tightest_budget: str | None = None
    threshold_bp: int | None = None
    upgrade_url: str | None = None
    shadow_verdict: Verdict | None = None


class AskStep(msgspec.Struct, frozen=True, kw_only=True):
    """Ask, and compare the decision. `name` lets a later step close the reservation."""

    line: int
    at_ns: int
    name: str
    ask: Ask
    expected: ExpectedDecision


class SpendStep(msgspec.Struct, frozen=True, kw_only=True):
    """Record spend that nobody asked for: either a cost or usage of a model."""

    line: int
    at_ns: int
    task_class: str
    labels: dict[str, str]
    model: ModelRef | None
    cost_nusd: int | None
    usage: Usage | None


class SettleStep(msgspec.Struct, frozen=True, kw_only=True):
    """Settle the reservation of the ask with this name."""

    line: int
    at_ns: int
    name: str
    cost_nusd: int | None
    usage: Usage | None


class VoidStep(msgspec.Struct, frozen=True, kw_only=True):
    """Void the reservation of the ask with this name."""

    line: int
    at_ns: int
    name: str


class KillStep(msgspec.Struct, frozen=True, kw_only=True):
    """Engage a kill switch."""

    line: int
    at_ns: int
    kill_id: str
    scope: Selector
    mode: KillMode
    max_tier: str


class ReleaseStep(msgspec.Struct, frozen=True, kw_only=True):
    """Release a kill switch; `*` releases every engaged one, those of halt steps included."""

    line: int
    at_ns: int
    kill_id: str


ScenarioStep = AskStep | SpendStep | SettleStep | VoidStep | KillStep | ReleaseStep


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One timeline, to be played on an engine whose books are empty."""

    name: str
    line: int
    steps: tuple[ScenarioStep, ...]


def expectations_path(policy_path: Path) -> Path:
    """Name the file of expected decisions that stands beside a policy."""
    return policy_path.with_name(f"{policy_path.stem}.expect.yaml")


def load_expectations(path: Path | str) -> list[Scenario]:
    """Read a file of expected decisions.

    Errors:  InvalidPolicy listing every problem, as `load_policy`.
    """
    return parse_expectations(read_file(Path(path)), str(path))


def parse_expectations(text: str, name: str) -> list[Scenario]:
    """Read expected decisions from their text; `name` stands for the file in messages."""
    source = read_source(text, name)
    spec = read_spec(source, ScenariosSpec)
    readers = [
        _ScenarioReader(source, scenario, entries) for scenario, entries in spec.scenarios.items()
    ]
    scenarios = [reader.read() for reader in readers]
    found = [problem for reader in readers for problem in reader.problems]
    if found:
        raise refuse(name, found)
    return scenarios


class _ScenarioReader:
    """Reads one scenario: carries the time on, and knows which asks were named so far."""

    def __init__(self, source: Source, name: str, entries: list[EntrySpec]) -> None:
        self.source = source
        self.name = name
        self.entries = entries
        self.problems: list[Problem] = []
        self.asks: set[str] = set()
        self.at_ns = -1
        self.path: problems.Path = ()
        self.line = 0

    def read(self) -> Scenario:
        """Read the scenario's steps; what is wrong is gathered in `problems`."""
        steps = []
        for number, entry in enumerate(self.entries):
            self.path = ("scenarios", self.name, number)
            self.line = self.source.line(self.path)
            self._read_time(entry)
            step = self._read_step(entry)
            if step is not None:
                steps.append(step)
        line = self.source.line(("scenarios", self.name))
        return Scenario(name=self.name, line=line, steps=tuple(steps))

    def _read_time(self, entry: EntrySpec) -> None:
        if entry.at is not None:
            if entry.at < self.at_ns:
                self._found(("at",), "is before the step above it; put steps in order of time")
            self.at_ns = entry.at
        elif self.at_ns < 0:
            self._found((), "says no time; begin the scenario with at: 2026-03-01T10:00:00Z")
            self.at_ns = 0

    def _read_step(self, entry: EntrySpec) -> ScenarioStep | None:
        stated = [action for action in ACTIONS if action in entry.model_fields_set]
        if len(stated) != 1:
            self._found((), f"must say exactly one of {', '.join(ACTIONS)}; split or complete it")
            return None
        if stated != ["ask"]:
            for name in ("expect", "as_"):
                if name in entry.model_fields_set:
                    self._found((name.rstrip("_"),), "belongs to an ask; remove it")
        readers: dict[str, Callable[[EntrySpec], ScenarioStep]] = {
            "ask": self._read_ask,
            "spend": self._read_spend,
            "settle": self._read_settle,
            "void": self._read_void,
            "kill": self._read_kill,
            "release": self._read_release,
        }
        return readers[stated[0]](entry)

    def _read_ask(self, entry: EntrySpec) -> AskStep:
        if "expect" not in entry.model_fields_set:
            self._found(("ask",), "expects nothing; add expect: {verdict: allow}")
        name = entry.as_ or f"line-{self.line}"
        if name in self.asks:
            self._found(("as",), f"{name!r} names an ask above; give each its own name")
        self.asks.add(name)
        ask = _ask(entry.ask, f"expected-at-line-{self.line}")
        problem = ask_problem(ask)
        if problem is not None:
            self._found(("ask",), f"{problem}; change it")
        expected = self._read_expected(entry.expect)
        return AskStep(line=self.line, at_ns=self.at_ns, name=name, ask=ask, expected=expected)

    def _read_expected(self, spec: ExpectSpec) -> ExpectedDecision:
        reason = None
        if spec.reason:
            reason = Reason.__members__.get(spec.reason)
            if reason is None:
                known = ", ".join(Reason.__members__)
                self._found(("expect", "reason"), f"there is no {spec.reason!r}; use {known}")
        directives = None
        if "directives" in spec.model_fields_set:
            directives = Directives(**dict(spec.directives))
        return ExpectedDecision(
            verdict=Verdict[spec.verdict.upper()] if spec.verdict else None,
            reason=reason,
            tier=spec.tier or None,
            model=spec.model,
            directives=directives,
            hold_nusd=spec.hold,
            rule=spec.rule or None,
            tightest_budget=spec.tightest or None,
            threshold_bp=spec.threshold,
            upgrade_url=spec.upgrade or None,
            shadow_verdict=Verdict[spec.shadow.upper()] if spec.shadow else None,
        )

    def _read_spend(self, entry: EntrySpec) -> SpendStep:
        spend = entry.spend
        usage = self._read_usage(spend, "spend")
        if usage is not None and spend.model is None:
            self._found(("spend",), "has tokens and no model to price them; add model: or cost:")
        return SpendStep(
            line=self.line,
            at_ns=self.at_ns,
            task_class=spend.task_class,
            labels=dict(spend.labels),
            model=spend.model,
            cost_nusd=spend.cost,
            usage=usage,
        )

    def _read_settle(self, entry: EntrySpec) -> SettleStep:
        self._known_ask(entry.settle.ask, ("settle", "ask"))
        return SettleStep(
            line=self.line,
            at_ns=self.at_ns,
            name=entry.settle.ask,
            cost_nusd=entry.settle.cost,
            usage=self._read_usage(entry.settle, "settle"),
        )

    def _read_void(self, entry: EntrySpec) -> VoidStep:
        self._known_ask(entry.void, ("void",))
        return VoidStep(line=self.line, at_ns=self.at_ns, name=entry.void)

    def _read_release(self, entry: EntrySpec) -> ReleaseStep:
        return ReleaseStep(line=self.line, at_ns=self.at_ns, kill_id=entry.release)

    def _read_usage(self, spec: UsageSpec, action: str) -> Usage | None:
        usage = Usage(
            prompt_tokens=spec.prompt_tokens,
            cached_tokens=spec.cached_tokens,
            cache_write_tokens=spec.cache_write_tokens,
            output_tokens=spec.output_tokens,
            reasoning_tokens=spec.reasoning_tokens,
            units=dict(spec.units),
        )
        measured = bool(usage.counts())
        if measured is (spec.cost is not None):
            self._found((action,), "must say either a cost or what was used; state one of them")
        problem = usage.problem()
        if problem is not None:
            self._found((action,), f"{problem}; change it")
        return usage if measured else None

    def _read_kill(self, entry: EntrySpec) -> KillStep:
        kill = entry.kill
        if (kill.mode == "max_tier") is not bool(kill.max_tier):
            self._found(("kill",), "mode: max_tier and max_tier: go together; add or remove one")
        return KillStep(
            line=self.line,
            at_ns=self.at_ns,
            kill_id=kill.id,
            scope=build_selector(kill.scope),
            mode=KillMode(kill.mode),
            max_tier=kill.max_tier,
        )

    def _known_ask(self, name: str, path: problems.Path) -> None:
        if name not in self.asks:
            self._found(path, f"no ask above is named {name!r}; name one with as: {name}")

    def _found(self, path: problems.Path, text: str) -> None:
        self.problems.append(problem_at(self.source, (*self.path, *path), text))


def _ask(spec: AskSpec, ask_id: str) -> Ask:
    return Ask(
        ask_id=ask_id,
        task_class=spec.task_class,
        labels=dict(spec.labels),
        estimated_cost_nusd=spec.estimated_cost,
        prompt_tokens=spec.prompt_tokens,
        max_output_tokens=spec.max_output_tokens,
        provider=spec.model.provider if spec.model else "",
        model=spec.model.model if spec.model else "",
        tier=spec.tier,
        acceptable_models=tuple(str(model) for model in spec.acceptable_models),
        ttl_ns=spec.ttl,
        batch=spec.batch,
        units=dict(spec.units),
    )
