"""What one report or one tick changes in the books of allowances, gathered into one batch."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from costd.daemon.books.costs import cost_of, stated_cost
from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.pending import Pending
from costd.engine import keys, resolve
from costd.engine.changes import Changes, Family
from costd.engine.draws import (
    Draw,
    Ended,
    bound_of,
    charge_unadmitted,
    is_open_ended,
    release,
    settle_draws,
)
from costd.engine.resolve import Ledgered, Report, usage_event
from costd.errors import InvalidAsk
from costd.model.allowance import NOTHING, Allowance, AllowanceState, Session, Sums
from costd.model.ask import ask_problem
from costd.model.events import Alert, UsageEvent
from costd.model.money import AMOUNT_MAX
from costd.model.price import Price
from costd.model.reservation import ALLOWANCE_PREFIX, Reservation, ReservationState


class Entry:
    """Everything one report or one tick changes, gathered into one batch."""

    def __init__(self, ledger: Ledger, out: dict[bytes, Allowance]) -> None:
        self._ledger = ledger
        self._out = out
        self._pending = Pending(ledger)
        self.now = ledger.clock.now()
        self._books_of = Ledgered(
            state=self._pending,
            rules=ledger.rules,
            now=self.now,
            closed_keep_ns=ledger.closed_keep_ns,
        )
        self.changes = Changes()
        self.problems: list[str] = []
        self._allowances: dict[bytes, Allowance] = {}
        self._held: dict[bytes, tuple[Reservation, Reservation]] = {}
        """Reservations as stored, and as they will be."""
        self._done: set[bytes] = set()
        """Allowances of which nothing is left, not even in flight."""
        self._prices: dict[str, Price] = {}
        """Written with this batch."""
        self._decided: dict[tuple[int, str, int], int] = {}
        self._happened: dict[str, int] = {}

    def find(self, session: Session, allowance_id: bytes) -> Allowance | None:
        """Find an allowance of this session, as it will be; None for one that is closed."""
        found = self._allowances.get(allowance_id) or self._out.get(allowance_id)
        if found is None:  # expired ones are kept in the store only
            found = self._ledger.store.get(Family.ALLOWANCES, allowance_id)
        return found if found is not None and found.session_id == session.session_id else None

    def draw(self, session: Session, allowance_id: bytes, sums: Sums) -> None:
        """Note how far an allowance is drawn."""
        allowance = self.find(session, allowance_id)
        if allowance is None or not is_open_ended(allowance):
            return  # how far it was drawn is settled already
        if not allowance.drawn.within(sums):
            self.problems.append(f"draws of allowance {allowance_id.hex()} fell; the larger stand")
            return
        beyond = sums.less(allowance.granted)
        sums = sums.less(beyond)
        if beyond != NOTHING:
            problem = (
                f"allowance {allowance_id.hex()} was drawn beyond what was granted; "
                "the rest is charged as spend that nobody admitted"
            )
            self.problems.append(problem)
            if sums != allowance.drawn:  # else it was told of before
                self._alert(self._reservation(allowance_id), problem)
        self._allowances[allowance_id] = self._drawn_to(allowance, sums)

    def settle(self, session: Session, allowance_id: bytes, calls: list[Ended]) -> None:
        """Close calls drawn from one allowance at what they cost."""
        allowance = self.find(session, allowance_id)
        held = self._reservation(allowance_id) if allowance else self._closed(session, allowance_id)
        if held is None:
            self.problems.append(
                f"no allowance {allowance_id.hex()} in this session; {len(calls)} calls that are "
                "said to be drawn from it were not booked: record them"
            )
            return
        bound = bound_of(allowance) if allowance else NOTHING
        settled = allowance.settled if allowance else NOTHING
        within: list[_Closing] = []
        beyond: list[_Closing] = []
        for call in calls:
            closing = self._closing(held, call)
            with_it = settled.plus(call.held)
            if with_it.within(bound):
                settled = with_it
                within.append(closing)
            elif closing.used != NOTHING:
                beyond.append(closing)
        spent = self._settle_within(held, within) if within else 0
        if beyond:
            self._settle_beyond(held, beyond)
        if allowance is not None:
            allowance = msgspec.structs.replace(
                allowance,
                settled=settled,
                spent_nusd=min(allowance.spent_nusd + spent, AMOUNT_MAX),
            )
            self._allowances[allowance_id] = allowance
            self._close_if_done(allowance)

    def drain(self, allowance: Allowance, drawn: Sums | None) -> None:
        """Give back what was not drawn; None: nobody knows."""
        held = self._reservation(allowance.allowance_id)
        if drawn is not None:  # whatever a client says, what was settled was drawn
            drawn = drawn.plus(allowance.settled.less(drawn))
        known = allowance.granted if drawn is None else drawn
        after, changes = release(
            held,
            allowance.granted.less(known),
            self._books_of,
            due_ns=allowance.expires_steady_ns + allowance.call_ttl_ns,
        )
        self._absorb(changes)
        self._keep(held, after)
        if drawn is not None:
            allowance = self._drawn_to(allowance, drawn)
        allowance = msgspec.structs.replace(
            allowance, state=AllowanceState.DRAINING, presumed=drawn is None
        )
        self._allowances[allowance.allowance_id] = allowance
        self._close_if_done(allowance)

    def give_back(self, session: Session, allowance_id: bytes) -> None:
        """Take an allowance back, drawn as far as is known by now; also one presumed spent."""
        allowance = self.find(session, allowance_id)
        if allowance is None or not is_open_ended(allowance):
            return
        if allowance.state is not AllowanceState.EXPIRED:
            self.drain(allowance, allowance.drawn)
            return
        drawn = allowance.drawn.plus(allowance.settled.less(allowance.drawn))
        undrawn = allowance.granted.less(drawn)
        held = self._reservation(allowance_id)
        after, changes = settle_draws(held, [Draw(undrawn, NOTHING)], self._books_of)
        self._absorb(changes)
        cost_nusd = held.cost_nusd - undrawn.amount_nusd
        self._keep(held, msgspec.structs.replace(after, cost_nusd=cost_nusd))
        self._allowances[allowance_id] = msgspec.structs.replace(
            allowance, drawn=drawn, presumed=False
        )

    def expire(self, allowance: Allowance, held: Reservation) -> None:
        """Charge what is in flight at its hold; the truth may still replace it."""
        in_flight = bound_of(allowance).less(allowance.settled)
        closed, changes = resolve.expire(held, self._books_of, calls_count=in_flight.calls_count)
        total = min(allowance.spent_nusd + closed.cost_nusd, AMOUNT_MAX)
        self._count("expired", in_flight.calls_count)
        self._absorb(changes)
        self._keep(held, msgspec.structs.replace(closed, cost_nusd=total))
        expired = msgspec.structs.replace(allowance, state=AllowanceState.EXPIRED)
        self._allowances[allowance.allowance_id] = expired

    def commit(self) -> list[bytes]:
        """Write it all as one batch; returns the allowances that are out no longer."""
        changes, ledger = self.changes, self._ledger
        for identity, (before, after) in self._held.items():
            changes.puts.append((Family.RESERVATIONS, identity, after))
            if before.state is not ReservationState.HELD:
                continue
            if after.state is ReservationState.HELD:
                ledger.totals.changed(before, after)
            else:
                ledger.totals.closed(before)
        for allowance_id, allowance in self._allowances.items():
            kept = None if allowance_id in self._done else allowance
            changes.puts.append((Family.ALLOWANCES, allowance_id, kept))
        ledger.commit(changes)
        for allowance_id, allowance in self._allowances.items():
            if allowance_id in self._done or allowance.state is AllowanceState.EXPIRED:
                self._out.pop(allowance_id, None)
            else:
                self._out[allowance_id] = allowance
        for price in self._prices.values():
            ledger.costs.saved(price)
        for key, count in self._decided.items():
            ledger.tally[key] = ledger.tally.get(key, 0) + count
        for name, count in self._happened.items():
            ledger.events[name] = ledger.events.get(name, 0) + count
        return [allowance_id for allowance_id in self._allowances if allowance_id not in self._out]

    def _drawn_to(self, allowance: Allowance, sums: Sums) -> Allowance:
        """Note how far an allowance is drawn, and count its draws as decisions."""
        held = self._reservation(allowance.allowance_id)
        decision = held.decision
        key = (decision.verdict, held.ask.task_class, decision.reason)
        more = sums.calls_count - allowance.drawn.calls_count
        self._decided[key] = self._decided.get(key, 0) + more
        return msgspec.structs.replace(allowance, drawn=sums)

    def _settle_within(self, held: Reservation, calls: Sequence["_Closing"]) -> int:
        """Close calls that were drawn as granted; returns what they cost."""
        try:
            after, changes = settle_draws(held, [each.draw for each in calls], self._books_of)
        except InvalidAsk as error:
            if len(calls) > 1:
                # One by one, so that only what cannot be counted is charged at its hold.
                return sum(
                    self._settle_within(self._reservation(held.reservation_id), [each])
                    for each in calls
                )
            return self._settle_within(held, [self._at_hold(calls[0].call, str(error))])
        self._absorb(changes)
        late = held.state is ReservationState.EXPIRED
        cost = sum(each.used.amount_nusd for each in calls)
        if late:
            more = cost - sum(each.call.held.amount_nusd for each in calls)
            total = min(held.cost_nusd + more, AMOUNT_MAX)
            after = msgspec.structs.replace(after, cost_nusd=total)
        self._keep(held, after)
        for each in calls:
            if each.call.voided:
                self._count("voided")
                continue
            self._count("settled_late" if late else "settled")
            if each.used.amount_nusd > each.call.held.amount_nusd:
                self._count("overrun")
            self.changes.usage.append(self._event(held, each, "late" if late else "settled"))
        return cost

    def _settle_beyond(self, held: Reservation, calls: Sequence["_Closing"]) -> None:
        """Charge calls that were drawn beyond what was granted."""
        charged: list[str] = []
        for each in calls:
            try:
                self._absorb(charge_unadmitted(held, each.used, self._books_of))
            except InvalidAsk as error:
                self.problems.append(f"{_name(each.call)}: {error}; it was not booked")
                continue
            charged.append(
                f"{_name(each.call)} was drawn beyond allowance {held.reservation_id.hex()}; "
                "it is charged as spend that nobody admitted"
            )
            self._count("recorded")
            self.changes.usage.append(self._event(held, each, "recorded"))
        self.problems += charged
        if charged:  # one alert tells of all
            more = f" ({len(charged) - 1} more calls like it)" if len(charged) > 1 else ""
            self._alert(held, charged[0] + more)

    def _closed(self, session: Session, identity: bytes) -> Reservation | None:
        """Find the reservation of an allowance that is closed, if it was this session's."""
        found = self._ledger.find_reservation(identity)
        if found is None or not found.is_allowance or found.caller != session.caller:
            return None
        _, _, session_id = found.ask.ask_id.removeprefix(ALLOWANCE_PREFIX).partition(" of ")
        return found if session_id == session.session_id else None

    def _reservation(self, identity: bytes) -> Reservation:
        if identity in self._held:
            return self._held[identity][1]
        found: Reservation = self._ledger.find_reservation(identity)  # type: ignore[assignment]
        return found

    def _keep(self, before: Reservation, after: Reservation) -> None:
        stored = (
            self._held[after.reservation_id][0] if after.reservation_id in self._held else before
        )
        self._held[after.reservation_id] = (stored, after)

    def _absorb(self, changes: Changes) -> None:
        self._pending.absorb(changes.puts)
        self.changes.puts += changes.puts
        self.changes.usage += changes.usage
        self.changes.alerts += changes.alerts
        self.changes.audit += changes.audit
        self.changes.crossed += changes.crossed

    def _close_if_done(self, allowance: Allowance) -> None:
        """Close the reservation of a draining allowance once nothing is in flight."""
        if allowance.state is not AllowanceState.DRAINING or allowance.presumed:
            return
        held = self._reservation(allowance.allowance_id)
        if held.state is not ReservationState.HELD or allowance.settled != allowance.drawn:
            return
        due_ns = self.now.steady_ns + self._ledger.closed_keep_ns
        closed = msgspec.structs.replace(
            held,
            state=ReservationState.SETTLED,
            cost_nusd=allowance.spent_nusd,
            closed_ns=self.now.wall_ns,
            due_ns=due_ns,
        )
        identity = held.reservation_id
        self.changes.puts.append((Family.DUE, keys.due_key(held.due_ns, identity), None))
        self.changes.puts.append((Family.DUE, keys.due_key(due_ns, identity), b""))
        self._keep(held, closed)
        self._done.add(identity)

    def _closing(self, held: Reservation, call: Ended) -> "_Closing":
        """Reckon what a call really used; its hold where what was sent makes no sense."""
        report = call.report
        if call.voided:
            return _Closing(call, NOTHING, report)
        if call.problem:
            return self._at_hold(call, call.problem)
        ledger, usage = self._ledger, report.usage
        price = ledger.costs.settling_price(held, report, ledger.rules.prices)
        try:
            cost = stated_cost(report.cost_nusd if call.cost_known else None, usage)
            if cost is None:
                cost = cost_of(price, usage)
        except InvalidAsk as error:
            return self._at_hold(call, str(error))
        if price is not None and price.price_id not in self._prices:
            ledger.costs.save(self.changes, price)
            self._prices[price.price_id] = price
        tokens = call.held.tokens_count
        if usage is not None and (usage.prompt_tokens, usage.output_tokens) != (None, None):
            tokens = usage.total_tokens
        report = msgspec.structs.replace(report, cost_nusd=cost, price=price)
        return _Closing(call, Sums(1, cost, tokens), report)

    def _at_hold(self, call: Ended, problem: str) -> "_Closing":
        self.problems.append(f"{_name(call)}: {problem}; charged at its hold")
        report, usage = call.report, call.report.usage
        if usage is not None and usage.problem():
            usage = None  # nobody could add it up
        report = msgspec.structs.replace(
            report, cost_nusd=call.held.amount_nusd, usage=usage, price=None
        )
        return _Closing(call, call.held, report)

    def _event(self, held: Reservation, closing: "_Closing", closed_as: str) -> UsageEvent:
        call = closing.call
        # A label that rules read belongs to the scope: what rides along may not add one.
        read = self._ledger.rules.scope_labels
        labels = {key: value for key, value in call.labels.items() if key not in read}
        ask = msgspec.structs.replace(
            held.ask,
            ask_id=call.ask_id,
            labels={**labels, **held.ask.labels},
            cost_kind=call.cost_kind or held.ask.cost_kind,
            prompt_tokens=call.prompt_tokens,
            max_output_tokens=call.max_output_tokens,
            estimated_cost_nusd=call.held.amount_nusd if call.prompt_tokens is None else None,
            ttl_ns=0,
        )
        problem = ask_problem(ask)
        if problem:
            self.problems.append(f"{_name(call)}: {problem}; its event goes without")
            ask = msgspec.structs.replace(held.ask, ttl_ns=0)
        event = usage_event(held, closing.report, self.now, closed_as=closed_as)
        return msgspec.structs.replace(event, ask=ask, hold_nusd=call.held.amount_nusd)

    def _count(self, name: str, count: int = 1) -> None:
        self._happened[name] = self._happened.get(name, 0) + count

    def _alert(self, held: Reservation, problem: str) -> None:
        self.changes.alerts.append(
            Alert(
                raised_ns=self.now.wall_ns,
                kind="allowance_overdrawn",
                rule=held.reservation_id.hex(),
                key=held.caller,
                message=problem,
            )
        )


class _Closing(NamedTuple):
    """One call that ended, what it is charged, and what its event says."""

    call: Ended
    used: Sums
    report: Report

    @property
    def draw(self) -> Draw:
        return Draw(self.call.held, self.used)


def _name(call: Ended) -> str:
    return f"call {call.ask_id[:80]!r}"
