"""The five steps of every request: parse, read, decide, commit, reply.

Nothing here awaits between reading and committing, and one thread calls it, so two asks can
never both be promised the same money.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec

from costd.clock import Clock
from costd.daemon.costs import Costs, cost_of, marginal_cost, stated_cost
from costd.daemon.totals import Totals
from costd.engine import candidates as offers
from costd.engine import keys, resolve
from costd.engine.admit import admit, differing_field, refuse_replay
from costd.engine.changes import Changes, Family
from costd.engine.evaluate import Question
from costd.engine.explain import Explanation, explain
from costd.engine.extend import Extended, More, extend
from costd.engine.record import record
from costd.engine.resolve import Ledgered, Report
from costd.engine.rules import Anchors, Kills, Rules
from costd.errors import (
    IdReused,
    InvalidAsk,
    NotPermitted,
    ReservationClosed,
    ReservationNotFound,
    StoreUnavailable,
)
from costd.grants import verify
from costd.model.ask import NAME_LENGTH_MAX, Ask, ask_problem, hold_problem
from costd.model.decision import Decision
from costd.model.events import AuditRecord
from costd.model.grant import Grant, GrantRefusal
from costd.model.kill import KillSwitch
from costd.model.policy import PolicySet
from costd.model.reservation import ALLOWANCE_PREFIX, Reservation, ReservationState
from costd.model.time import NS_PER_S, Now
from costd.model.usage import Usage
from costd.pricing import PriceBook, usage_problem
from costd.store.port import Put, Store

ANY_CLASS = "*"
HOUR_NS = 3600 * NS_PER_S


class Trust(NamedTuple):
    """What the daemon's own settings say of its callers."""

    name: str = "costd"
    """The daemon's name, an audience of override grants."""
    labels_fixed: dict[str, str] = {}  # noqa: RUF012 - never written
    claims: frozenset[str] = frozenset()
    """Critical task classes that callers may claim; `*` for any."""


class Watcher(Protocol):
    """Who must hear at once of what might make an allowance wrong; implemented by the desk."""

    def killed(self, switch: KillSwitch) -> None:
        """Hear of a kill switch that was engaged or released."""
        ...

    def policy_changed(self) -> None:
        """Hear that another policy is in force."""
        ...

    def pressed(self, counter_keys: Sequence[bytes]) -> None:
        """Hear of counters that reached a step, or refused an ask."""
        ...

    def admitted(self, held: Reservation) -> None:
        """Hear of an ask that took from its counters."""
        ...


class Admitted(NamedTuple):
    """A decision, and how the reservation behind it stands now."""

    decision: Decision
    state: ReservationState | None
    replayed: bool


class Closed(NamedTuple):
    """A reservation after a settle, void or record."""

    reservation: Reservation
    replayed: bool
    late: bool = False


class _State:
    """The books as the rules read them: straight from the store."""

    def __init__(self, store: Store) -> None:
        self.counter = partial(store.get, Family.COUNTERS)
        self.rate = partial(store.get, Family.RATES)
        self._store = store

    def grant(self, grant_id: str) -> Any:
        return self._store.get(Family.GRANTS, grant_id.encode())


class Ledger:
    """One daemon's books over one store, under one policy at a time.

    Shape:   sync, single-threaded; every method commits one batch before it returns.
    Errors:  those of `costd.errors`; after StoreUnavailable nothing was decided.
    """

    def __init__(
        self,
        store: Store,
        policy: PolicySet,
        clock: Clock,
        *,
        trust: Trust | None = None,
        closed_keep_s: int = 86_400,
    ) -> None:
        self.store = store
        self.clock = clock
        self.trust = trust or Trust()
        self.closed_keep_ns = closed_keep_s * NS_PER_S
        self.totals = Totals.load(store)
        self.tally: dict[tuple[int, str, int], int] = {}
        """Decisions since the start, by (verdict, task class, reason)."""
        self.events: dict[str, int] = {}
        """Other things that happened since the start, by name, for metrics."""
        self.kills: tuple[KillSwitch, ...] = self._unreleased_kills()
        self._kill_index: Kills = Anchors((kill.scope, kill) for kill in self.kills)
        self.watcher: Watcher | None = None
        self.recent_alerts: list[Any] = []
        """Alerts committed since somebody last took them away, for the log."""
        self.state = _State(store)
        self.costs = Costs(store)
        self.rules = self._compiled(policy)
        puts = self._unregistered(self.rules)
        if puts:
            store.commit(puts)

    # ---- agents -----------------------------------------------------------------------------

    def admit(self, ask: Ask, *, caller: str = "", grant: str = "") -> Admitted:
        """Decide an ask and hold its money; the same ask twice gets the same answer.

        Errors:  InvalidAsk, NotPermitted, IdReused.
        """
        question = self.question(ask, caller)
        stored = self.store.get(Family.RESERVATIONS, question.identity)
        verified = self._verify(grant, question.now) if grant else None
        if stored is not None:
            return self._replay(question, stored)
        answer = admit(question, grant=verified)
        decision, changes = answer.decision, answer.changes
        if answer.reservation is None:
            self._denied(question, decision)
            if answer.counter_key and self.watcher is not None:
                self.watcher.pressed((answer.counter_key,))
            return Admitted(decision, None, False)
        self.totals.opened(answer.reservation)
        self.costs.save(changes, answer.price)
        self.commit(changes)
        self.costs.saved(answer.price)
        self._count(question.task_class.name, decision)
        if self.watcher is not None:
            self.watcher.admitted(answer.reservation)
        return Admitted(decision, ReservationState.HELD, False)

    def explain(self, ask: Ask, *, caller: str = "", grant: str = "") -> Explanation:
        """Answer as admit would, with every candidate and rule looked at; writes nothing."""
        question = self.question(ask, caller)
        verified = self._verify(grant, question.now) if grant else None
        return explain(question, grant=verified)

    def settle(
        self,
        reservation_id: bytes,
        *,
        usage: Usage | None = None,
        cost_nusd: int | None = None,
        report: Report | None = None,
    ) -> Closed:
        """Close a reservation at what its call cost; idempotent.

        Units:   either `usage`, priced as the admit was, or `cost_nusd`; `report` carries
                 duration, outcome, retries and the model that answered.
        Errors:  ReservationNotFound, ReservationClosed, InvalidAsk.
        """
        held = self._reservation(reservation_id)
        report = report or Report(cost_nusd=0)
        if max(len(report.provider), len(report.model)) > NAME_LENGTH_MAX:
            raise InvalidAsk(f"provider or model has more than {NAME_LENGTH_MAX} characters")
        price = self.costs.settling_price(held, report, self.rules.prices)
        cost = stated_cost(cost_nusd, usage)
        if cost is None:
            cost = cost_of(price, usage)
        report = msgspec.structs.replace(report, cost_nusd=cost, usage=usage, price=price)
        if held.state is ReservationState.SETTLED:
            if cost == held.cost_nusd:
                return Closed(held, replayed=True)
            raise ReservationClosed(
                f"reservation {reservation_id.hex()} was settled at {held.cost_nusd} nano-USD; "
                f"this settle says {cost}"
            )
        late = held.state is ReservationState.EXPIRED
        closed, changes = resolve.settle(held, report, self.ledgered())
        self.costs.save(changes, price)
        if not late:
            self.totals.closed(held)
        self.commit(changes)
        self.costs.saved(price)
        self._event("settled_late" if late else "settled")
        if cost > held.hold_nusd:
            self._event("overrun")
        return Closed(closed, replayed=False, late=late)

    def void(self, reservation_id: bytes) -> Closed:
        """Close a reservation at zero; idempotent.

        Errors:  ReservationNotFound, ReservationClosed.
        """
        held = self._reservation(reservation_id)
        if held.state is ReservationState.VOIDED:
            return Closed(held, replayed=True)
        closed, changes = resolve.void(held, self.ledgered())
        self.totals.closed(held)
        self.commit(changes)
        self._event("voided")
        return Closed(closed, replayed=False)

    def extend(
        self,
        reservation_id: bytes,
        *,
        additional_cost_nusd: int = 0,
        additional_output_tokens: int = 0,
        ttl_ns: int = 0,
        usage_so_far: Usage | None = None,
    ) -> Extended:
        """Enlarge a running call's hold, or note what it used so far.

        Errors:  ReservationNotFound, ReservationClosed, InvalidAsk.
        """
        held = self._reservation(reservation_id)
        if min(additional_cost_nusd, additional_output_tokens, ttl_ns) < 0:
            raise InvalidAsk("additional amounts and ttl must not be negative")
        price = self.costs.price_of(held)
        cost = additional_cost_nusd
        if additional_output_tokens:
            cost += marginal_cost(held, price, additional_output_tokens)
        reported = cost_of(price, usage_so_far) if usage_so_far is not None else 0
        problem = hold_problem(held.hold_nusd + cost) if cost else None
        if problem:
            raise InvalidAsk(f"with this extension the call would hold {problem}")
        more = More(
            cost_nusd=cost,
            tokens=additional_output_tokens,
            ttl_ns=ttl_ns,
            reported=usage_so_far,
            reported_nusd=reported,
        )
        result = extend(held, more, self.ledgered(), self._kill_index)
        self.totals.changed(held, result.reservation)
        self.commit(result.changes)
        return result

    def record(
        self, ask: Ask, report: Report, *, caller: str = "", happened_ns: int = 0, cost_known: bool
    ) -> Closed:
        """Charge a call that was not admitted; `ask.ask_id` is the record id; idempotent.

        A record whose id is that of an ask that was admitted after all (its answer was lost)
        settles that reservation instead.

        Errors:  InvalidAsk, NotPermitted, IdReused, ReservationClosed.
        """
        question = self.question(ask, caller, id_field="record_id")
        cost = stated_cost(report.cost_nusd if cost_known else None, report.usage)
        stored = self.store.get(Family.RESERVATIONS, question.identity)
        if stored is not None:
            return self._record_again(question, stored, report, cost)
        # Nobody can have spent in the future: such a record comes from a clock that is ahead.
        happened_ns = min(happened_ns or question.now.wall_ns, question.now.wall_ns)
        then = Now(happened_ns, question.now.steady_ns)
        provider = report.provider or question.rules.provider_of(report.model)
        price = offers.find_price(question.rules, ask, provider, report.model, then)
        provider = offers.known_provider(question.rules, provider, report.model, price)
        if cost is None:
            cost = cost_of(price, report.usage)
        report = msgspec.structs.replace(report, cost_nusd=cost, provider=provider)
        recorded, changes = record(
            question,
            report,
            self.ledgered(),
            happened_ns=happened_ns,
            price=price,
        )
        self.costs.save(changes, price)
        self.commit(changes)
        self.costs.saved(price)
        self._event("recorded")
        return Closed(recorded, replayed=False)

    # ---- operators --------------------------------------------------------------------------

    def put_kill(self, switch: KillSwitch, *, action: str, actor: str, detail: str) -> None:
        """Store a kill switch as engaged or released, with its audit record."""
        changes = Changes()
        changes.put(Family.KILLS, switch.kill_id.encode(), switch)
        changes.audit.append(
            AuditRecord(
                at_ns=self.clock.now().wall_ns,
                actor=actor,
                action=action,
                subject=switch.kill_id,
                detail=detail,
            )
        )
        self.commit(changes)

    def swap_policy(self, policy: PolicySet, *, actor: str = "costd") -> None:
        """Put another policy in force; reservations that are out close on their own counters.

        Errors:  StoreUnavailable; then the old policy stays in force.
        """
        rules, changes = self._compiled(policy), Changes()
        changes.puts += self._unregistered(rules)
        changes.audit.append(
            AuditRecord(
                at_ns=self.clock.now().wall_ns,
                actor=actor,
                action="policy_loaded",
                subject=policy.revision,
            )
        )
        self.commit(changes)
        self.rules = rules
        if self.watcher is not None:
            self.watcher.policy_changed()

    def audit(self, actor: str, action: str, subject: str, detail: str = "") -> None:
        """Append one audit record."""
        changes = Changes()
        at_ns = self.clock.now().wall_ns
        changes.audit.append(
            AuditRecord(at_ns=at_ns, actor=actor, action=action, subject=subject, detail=detail)
        )
        self.commit(changes)

    def expire(self, held: Reservation) -> None:
        """Close a reservation that nobody closed."""
        _, changes = resolve.expire(held, self.ledgered())
        self.totals.closed(held)
        self.commit(changes)
        self._event("expired")

    # ---- the store --------------------------------------------------------------------------

    def commit(self, changes: Changes) -> None:
        """Number the appended records and write everything as one batch.

        Errors:  StoreUnavailable; then the totals are read again, so that they stay true.
        """
        puts, totals = changes.puts, self.totals
        if changes.usage:
            totals.number(puts, Family.USAGE, changes.usage)
        if changes.alerts:
            totals.number(puts, Family.ALERTS, changes.alerts)
        if changes.audit:
            totals.number(puts, Family.AUDIT, changes.audit)
        if not puts:
            return
        try:
            puts.append(totals.put())
            self.store.commit(puts)
        except BaseException:
            self.totals = Totals.load(self.store)
            raise
        if changes.alerts:
            self.recent_alerts += changes.alerts
        if changes.audit:  # nobody flips a kill switch without a record of it
            self._follow_kills(puts)
        if changes.crossed and self.watcher is not None:
            self.watcher.pressed(changes.crossed)

    def _follow_kills(self, puts: list[Put]) -> None:
        for family, _, switch in puts:
            if family is Family.KILLS:
                others = tuple(kill for kill in self.kills if kill.kill_id != switch.kill_id)
                self.kills = others if switch.released_ns else (*others, switch)
                self._kill_index = Anchors((kill.scope, kill) for kill in self.kills)
                if self.watcher is not None:
                    self.watcher.killed(switch)

    def find_reservation(self, reservation_id: bytes) -> Reservation | None:
        """Return a reservation, None if there is none."""
        found: Reservation | None = self.store.get(Family.RESERVATIONS, reservation_id)
        return found

    def question(
        self, ask: Ask, caller: str, *, id_field: str = "ask_id", is_allowance: bool = False
    ) -> Question:
        """Check an ask and gather what stays the same while it is decided.

        Errors:  InvalidAsk, NotPermitted.
        """
        problem = ask_problem(ask, id_field=id_field)
        if not problem and not is_allowance and ask.ask_id.startswith(ALLOWANCE_PREFIX):
            problem = f"{id_field} begins like an allowance's ({ALLOWANCE_PREFIX!r}); make a UUIDv7"
        if ask.units and not problem:
            problem = usage_problem({"input_tokens": 0, "output_tokens": 0, **ask.units})
        if problem:
            raise InvalidAsk(problem)
        trust = self.trust
        for key, value in trust.labels_fixed.items():
            if ask.labels.get(key, value) != value:
                raise NotPermitted(
                    f"labels[{key}] is fixed to {value!r} by this daemon; the ask claims "
                    f"{ask.labels[key]!r}"
                )
        if trust.labels_fixed:
            ask = msgspec.structs.replace(ask, labels={**ask.labels, **trust.labels_fixed})
        if not ask.task_class:
            # A repeated ask is of the class it had, whatever the policy's default is by now.
            stored = self.find_reservation(keys.reservation_id(caller, ask.ask_id))
            if stored is not None:
                ask = msgspec.structs.replace(ask, task_class=stored.ask.task_class)
        task_class = offers.task_class_of(self.rules, ask)
        if not ask.task_class:
            ask = msgspec.structs.replace(ask, task_class=task_class.name)
        if task_class.critical and not {ANY_CLASS, task_class.name} & trust.claims:
            raise NotPermitted(
                f"task class {task_class.name!r} is critical and this daemon's callers may not "
                "claim it; add it to the daemon's `claims` setting"
            )
        return Question(
            rules=self.rules,
            state=self.state,
            kills=self._kill_index,
            ask=ask,
            caller=caller,
            task_class=task_class,
            now=self.clock.now(),
        )

    def _replay(self, question: Question, stored: Reservation) -> Admitted:
        """Give the stored answer again, unless a kill switch has been engaged since."""
        field = differing_field(stored, question.ask)
        if field is not None:
            raise IdReused(
                f"ask_id {question.ask.ask_id!r} was used by this caller with another {field}; "
                "make a new id for every ask"
            )
        killed = refuse_replay(question, stored) if self.kills else None
        if killed is None:
            return Admitted(stored.decision, stored.state, True)
        self._denied(question, killed)
        return Admitted(killed, stored.state, True)

    def _verify(self, grant: str, now: Now) -> Grant | GrantRefusal:
        return verify(
            grant,
            keys=self.rules.policy.grant_keys,
            audience=self.trust.name,
            wall_ns=now.wall_ns,
        )

    def _reservation(self, reservation_id: bytes) -> Reservation:
        found = self.find_reservation(reservation_id)
        if found is None:
            raise ReservationNotFound(
                f"no reservation {reservation_id.hex() or '(empty)'}; it was never made, or was "
                "forgotten after its retention"
            )
        if found.is_allowance:
            raise InvalidAsk(
                f"reservation {reservation_id.hex()} is an allowance: its calls are settled by "
                "the reports of the client that holds it"
            )
        return found

    def ledgered(self) -> Ledgered:
        """Gather what closing a reservation reads, as of now."""
        return Ledgered(
            state=self.state,
            rules=self.rules,
            now=self.clock.now(),
            closed_keep_ns=self.closed_keep_ns,
        )

    def _record_again(
        self, question: Question, stored: Reservation, report: Report, cost: int | None
    ) -> Closed:
        if not stored.admitted_as_ask:
            field = differing_field(stored, question.ask)
            if field is not None:
                raise IdReused(
                    f"record_id {stored.ask.ask_id!r} was used by this caller with another "
                    f"{field}; make a new id for every record"
                )
            again = cost if cost is not None else cost_of(self.costs.price_of(stored), report.usage)
            if again != stored.cost_nusd:
                raise IdReused(
                    f"record_id {stored.ask.ask_id!r} was recorded before at {stored.cost_nusd} "
                    f"nano-USD; this record says {again}"
                )
            return Closed(stored, replayed=True)
        return self.settle(stored.reservation_id, usage=report.usage, cost_nusd=cost, report=report)

    # ---- bookkeeping ------------------------------------------------------------------------

    def _denied(self, question: Question, decision: Decision) -> None:
        """Count a denial, which stands where that cannot be written: it holds nothing.

        A client that got an error in its place would fail open, past a kill switch too.
        """
        changes = Changes()
        try:
            changes.puts.append(self._denial(question, decision))
            self.commit(changes)
        except StoreUnavailable:
            self._event("denials_uncounted")
        self._count(question.task_class.name, decision)

    def _denial(self, question: Question, decision: Decision) -> tuple[Family, bytes, Any]:
        """Count a denial; a storm of them cannot fill a disk."""
        at_ns = question.now.wall_ns
        hour_ns = at_ns - at_ns % HOUR_NS
        rule = decision.binding.rule if decision.binding else ""
        subject = f"{decision.reason.name} {rule} {question.task_class.name}"
        key = keys.sequence_key(hour_ns) + keys.digest(subject)
        before: AuditRecord | None = self.store.get(Family.AUDIT, key)
        count = before.count + 1 if before else 1
        audited = AuditRecord(
            at_ns=at_ns,
            actor="",
            action="denied",
            subject=rule,
            detail=f"{decision.reason.name} for {question.task_class.name}",
            count=count,
            task_class=question.task_class.name,
            reason=decision.reason,
        )
        return Family.AUDIT, key, audited

    def _count(self, task_class: str, decision: Decision) -> None:
        key = (decision.verdict, task_class, decision.reason)
        self.tally[key] = self.tally.get(key, 0) + 1

    def _event(self, name: str) -> None:
        self.events[name] = self.events.get(name, 0) + 1

    def _unreleased_kills(self) -> tuple[KillSwitch, ...]:
        """Find what may stop calls; the sweeper releases those whose time is up."""
        return tuple(
            switch for _, switch in self.store.scan(Family.KILLS) if not switch.released_ns
        )

    def _compiled(self, policy: PolicySet) -> Rules:
        """Compile a policy, its models' prices looked up once, so that no ask is the first."""
        prices, now = PriceBook(policy), self.clock.now()
        for tier in policy.tiers:
            for ref in tier.models:
                prices.find(ref.provider, ref.model, wall_ns=now.wall_ns)
        return Rules(policy, prices)

    def _unregistered(self, rules: Rules) -> list[tuple[Family, bytes, Any]]:
        """Write what each counter tag stands for, also after its budget has left the policy.

        A budget that was renamed keeps its tag and is known by its new name.
        """
        puts: list[tuple[Family, bytes, Any]] = []
        for tag, rule in rules.budgets.items():
            meta_key, budget = b"budget/" + tag, rule.budget
            name = msgspec.json.encode(
                {
                    "id": budget.budget_id,
                    "unit": budget.unit,
                    "window": budget.window.kind,
                    "per": budget.per,
                }
            )
            if self.store.get(Family.META, meta_key) != name:
                puts.append((Family.META, meta_key, name))
        return puts


def engaged(kills: Iterable[KillSwitch], now: Now) -> int:
    """Count the kill switches that stop calls now."""
    return sum(switch.engaged(now.steady_ns) for switch in kills)
