"""The five steps of every request: parse, read, decide, commit, reply.

Nothing here awaits between reading and committing, and one thread calls it, so two asks can
never both be promised the same money.
"""

from typing import Literal, NamedTuple, overload

import msgspec

from costd.daemon.books.asking import checked
from costd.daemon.books.bookkeeping import Bookkeeping
from costd.daemon.books.costs import cost_of, marginal_cost, stated_cost
from costd.daemon.books.refusals import audit_denial
from costd.daemon.books.replays import check_same_ask, check_same_record, check_same_settle
from costd.engine import candidates as offers
from costd.engine import keys, resolve
from costd.engine.admit import admit, refuse_replay
from costd.engine.changes import Family
from costd.engine.explain import Explanation, explain
from costd.engine.extend import Extended, More, extend
from costd.engine.question import Question
from costd.engine.record import record
from costd.engine.resolve import Report
from costd.errors import (
    InvalidAsk,
    Overloaded,
    ReservationNotFound,
)
from costd.model.ask import Ask, hold_problem
from costd.model.decision import Decision
from costd.model.grant import Grant, GrantRefusal
from costd.model.lease import Wanting
from costd.model.reservation import Reservation, ReservationState
from costd.model.time import Now
from costd.model.usage import Usage


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


class Ledger(Bookkeeping):
    """One daemon's books over one store, under one policy at a time.

    Shape:   sync, single-threaded; every method commits one batch before it returns.
    Errors:  those of `costd.errors`; after StoreUnavailable nothing was decided.
    """

    # ---- agents -----------------------------------------------------------------------------

    @overload
    def admit(self, ask: Ask, *, caller: str = "", grant: str = "") -> Admitted: ...

    @overload
    def admit(
        self,
        ask: Ask,
        *,
        caller: str = "",
        grant: str = "",
        may_wait: bool = False,
        grant_may_wait: bool = False,
    ) -> Admitted | Wanting: ...

    def admit(
        self,
        ask: Ask,
        *,
        caller: str = "",
        grant: str = "",
        may_wait: bool = False,
        grant_may_wait: bool = False,
    ) -> Admitted | Wanting:
        """Decide an ask and hold its money; the same ask twice gets the same answer.

        With `may_wait`, an ask that lacks nothing but leases is not decided: what it wants is
        returned, nothing is written, and the same ask is to be put again, finally. So it is with
        `grant_may_wait` for what an override grant lacks.

        Errors:  InvalidAsk, NotPermitted, IdReused, Overloaded.
        """
        if self.refuses:
            raise Overloaded(self.refuses)
        question = self.question(ask, caller)
        question.may_wait, question.grant_may_wait = may_wait, grant_may_wait
        stored = self.store.get(Family.RESERVATIONS, question.identity)
        verified = self._verify(grant, question.now) if grant else None
        if stored is not None:
            return self._replay(question, stored)
        answer = admit(question, grant=verified)
        if isinstance(answer, Wanting):
            return msgspec.structs.replace(answer, override_grant=grant)
        decision, changes = answer.decision, answer.changes
        if answer.reservation is None:
            self._denied(question, decision)
            if answer.counter_key:
                self._pressed(answer.counter_key)
            return Admitted(decision, None, False)
        self.totals.opened(answer.reservation)
        self.costs.save(changes, answer.price)
        self.commit(changes)
        self.costs.saved(answer.price)
        self.tallies.decided(question.task_class.name, decision)
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
        if problem := report.problem():
            raise InvalidAsk(problem)
        price = self.costs.settling_price(held, report, self.rules.prices)
        cost = stated_cost(cost_nusd, usage)
        if cost is None:
            cost = cost_of(price, usage)
        report = msgspec.structs.replace(report, cost_nusd=cost, usage=usage, price=price)
        if held.state is ReservationState.SETTLED:
            check_same_settle(held, cost)
            return Closed(held, replayed=True)
        late = held.state is ReservationState.EXPIRED
        closed, changes = resolve.settle(held, report, self.ledgered())
        self.costs.save(changes, price)
        if not late:
            self.totals.closed(held)
        self.commit(changes)
        self.costs.saved(price)
        self.tallies.happened("settled_late" if late else "settled")
        if cost > held.hold_nusd:
            self.tallies.happened("overrun")
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
        self.tallies.happened("voided")
        return Closed(closed, replayed=False)

    @overload
    def extend(
        self,
        reservation_id: bytes,
        *,
        additional_cost_nusd: int = 0,
        additional_output_tokens: int = 0,
        ttl_ns: int = 0,
        usage_so_far: Usage | None = None,
        may_wait: Literal[False] = False,
    ) -> Extended: ...

    @overload
    def extend(
        self,
        reservation_id: bytes,
        *,
        additional_cost_nusd: int = 0,
        additional_output_tokens: int = 0,
        ttl_ns: int = 0,
        usage_so_far: Usage | None = None,
        may_wait: bool,
    ) -> Extended | Wanting: ...

    def extend(
        self,
        reservation_id: bytes,
        *,
        additional_cost_nusd: int = 0,
        additional_output_tokens: int = 0,
        ttl_ns: int = 0,
        usage_so_far: Usage | None = None,
        may_wait: bool = False,
    ) -> Extended | Wanting:
        """Enlarge a running call's hold, or note what it used so far.

        With `may_wait`, one that lacks nothing but leases does nothing but tell what it wants.

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
        result = extend(held, more, self.ledgered(), self.switches.index, may_wait=may_wait)
        if isinstance(result, Wanting):
            return result
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
        self.tallies.happened("recorded")
        return Closed(recorded, replayed=False)

    def expire(self, held: Reservation) -> None:
        """Close a reservation that nobody closed."""
        _, changes = resolve.expire(held, self.ledgered())
        self.totals.closed(held)
        self.commit(changes)
        self.tallies.happened("expired")

    def question(
        self, ask: Ask, caller: str, *, id_field: str = "ask_id", is_allowance: bool = False
    ) -> Question:
        """Check an ask and gather what stays the same while it is decided.

        Errors:  InvalidAsk, NotPermitted.
        """
        ask, task_class = checked(
            ask,
            caller,
            trust=self.trust,
            rules=self.rules,
            find=self.find_reservation,
            id_field=id_field,
            is_allowance=is_allowance,
        )
        return Question(
            rules=self.rules,
            state=self.state,
            kills=self.switches.index,
            ask=ask,
            caller=caller,
            task_class=task_class,
            now=self.clock.now(),
        )

    def _replay(self, question: Question, stored: Reservation) -> Admitted:
        """Give the stored answer again, unless a kill switch has been engaged since."""
        check_same_ask(stored, question.ask)
        killed = refuse_replay(question, stored) if self.kills else None
        if killed is None:
            return Admitted(stored.decision, stored.state, True)
        self._denied(question, killed)
        return Admitted(killed, stored.state, True)

    def _verify(self, grant: str, now: Now) -> Grant | GrantRefusal:
        from costd.grants import verify  # noqa: PLC0415  daemons without grants do without

        return verify(
            grant,
            keys=self.rules.policy.grant_keys,
            audience=self.trust.name,
            wall_ns=now.wall_ns,
            in_fleet=self.rules.in_fleet,
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

    def _record_again(
        self, question: Question, stored: Reservation, report: Report, cost: int | None
    ) -> Closed:
        if stored.admitted_as_ask:
            return self.settle(
                stored.reservation_id, usage=report.usage, cost_nusd=cost, report=report
            )
        check_same_ask(stored, question.ask, id_field="record_id")
        again = cost if cost is not None else cost_of(self.costs.price_of(stored), report.usage)
        check_same_record(stored, again)
        return Closed(stored, replayed=True)

    # ---- bookkeeping ------------------------------------------------------------------------

    def _pressed(self, counter_key: bytes) -> None:
        """Tell of a counter that refused an ask."""
        self.fullest.stands(counter_key, self.state.counter(counter_key))
        rule = self.rules.budgets.get(keys.tag_of(counter_key))
        if rule is not None and rule.is_shared:
            self.fleet_changed.add(counter_key)  # the receipt tells how the fleet stands by now
        if self.watcher is not None:
            self.watcher.pressed((counter_key,))

    def _denied(self, question: Question, decision: Decision) -> None:
        audit_denial(self, question, decision)
        self.tallies.decided(question.task_class.name, decision)
