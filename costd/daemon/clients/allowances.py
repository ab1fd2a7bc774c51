"""The books of allowances: granted, drawn, settled in part, drained, charged."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.entry import Entry
from costd.engine.allot import Allotment, Scarce, allot
from costd.engine.changes import Changes, Family
from costd.engine.draws import Ended
from costd.model.allowance import Allowance, AllowanceState, Session, Sums
from costd.model.ask import Ask
from costd.model.events import Alert
from costd.model.reservation import ALLOWANCE_PREFIX, Reservation

_SERIAL_KEY = b"allowance_serial"


class Granted(NamedTuple):
    """An allowance, with what its client must be told."""

    allowance: Allowance
    held: Reservation
    allotment: Allotment


class AllowanceBooks:
    """What one daemon knows of every allowance that is out.

    Shape:   sync, single-threaded, like the ledger, whose store and totals it shares.
    Ensures: a report is booked whole, in one batch with its number, or not at all.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        store = ledger.store
        self.out: dict[bytes, Allowance] = {
            key: allowance
            for key, allowance in store.scan(Family.ALLOWANCES)
            if allowance.state is not AllowanceState.EXPIRED
        }
        self.sessions: dict[str, Session] = {
            session.session_id: session for _, session in store.scan(Family.SESSIONS)
        }
        raw = store.get(Family.META, _SERIAL_KEY)
        self.next_serial = 1 if raw is None else int.from_bytes(raw, "big")
        """What the next allowance's slot must begin with; never used twice, so that a report that
        comes late cannot be taken for another allowance's."""
        self.closed: list[bytes] = []
        """Allowances that went out of `out` since somebody last took them away."""
        self.booked_count = 0
        """Reports booked since the start."""

    # ---- granting ---------------------------------------------------------------------------

    def remember(self, session: Session) -> None:
        """Keep a session over a restart."""
        changes = Changes()
        changes.put(Family.SESSIONS, session.session_id.encode(), session)
        self._ledger.commit(changes)
        self.sessions[session.session_id] = session

    def grant(
        self, session: Session, typical: Ask, calls_count: int, *, slot: int
    ) -> Granted | Scarce:
        """Set an allowance aside for calls like this one, or say why they are asked one by one.

        Errors:  InvalidAsk, NotPermitted, StoreUnavailable.
        """
        ledger = self._ledger
        serial = self.next_serial
        policy = ledger.rules.policy
        ask = msgspec.structs.replace(
            typical,
            ask_id=f"{ALLOWANCE_PREFIX}{serial:016x} of {session.session_id}",
            grant_digest="",
        )
        question = ledger.question(ask, session.caller, is_allowance=True)
        allotment = allot(question, calls_count)
        if isinstance(allotment, Scarce):
            return allotment
        answer = allotment.answer
        held = answer.reservation
        assert held is not None
        task_class = question.task_class
        allowance = Allowance(
            allowance_id=held.reservation_id,
            session_id=session.session_id,
            caller=session.caller,
            granted=allotment.granted,
            expires_steady_ns=question.now.steady_ns + allotment.lifetime_ns,
            call_ttl_ns=min(task_class.ttl_ns or policy.ttl_ns, policy.ttl_ns_max),
            serial=serial,
            slot=slot,
        )
        changes = answer.changes
        changes.put(Family.ALLOWANCES, allowance.allowance_id, allowance)
        changes.put(Family.META, _SERIAL_KEY, (serial + 1).to_bytes(8, "big"))
        ledger.totals.opened(held)
        ledger.costs.save(changes, answer.price)
        ledger.commit(changes)
        ledger.costs.saved(answer.price)
        self.next_serial = serial + 1
        self.out[allowance.allowance_id] = allowance
        return Granted(allowance, held, allotment)

    # ---- reports ----------------------------------------------------------------------------

    def book(
        self,
        session: Session,
        sequence: int,
        *,
        drawn: Iterable[tuple[bytes, Sums]],
        ended: Iterable[Ended],
        returned: Iterable[bytes],
    ) -> tuple[Session, list[str]]:
        """Book one report: draws, then settlements, then returns; (session, problems).

        Errors:  StoreUnavailable; then nothing of it is booked.
        """
        entry = Entry(self._ledger, self.out)
        for allowance_id, sums in drawn:
            entry.draw(session, allowance_id, sums)
        groups: dict[bytes, list[Ended]] = {}
        for call in ended:
            groups.setdefault(call.allowance_id, []).append(call)
        for allowance_id, calls in groups.items():
            entry.settle(session, allowance_id, calls)
        for allowance_id in returned:
            entry.give_back(session, allowance_id)
        booked = msgspec.structs.replace(
            session, report_sequence=sequence, seen_steady_ns=entry.now.steady_ns
        )
        entry.changes.put(Family.SESSIONS, session.session_id.encode(), booked)
        self.closed += entry.commit()
        self.sessions[session.session_id] = booked
        self.booked_count += 1
        return booked, entry.problems

    # ---- time -------------------------------------------------------------------------------

    def drain(self, allowance: Allowance, drawn: Sums | None) -> None:
        """Stop an allowance that was drawn so far; None: nobody knows, presume all of it."""
        entry = Entry(self._ledger, self.out)
        entry.drain(allowance, drawn)
        self.closed += entry.commit()

    def expire(self, allowance: Allowance, held: Reservation) -> None:
        """Charge what is still in flight at its hold."""
        entry = Entry(self._ledger, self.out)
        entry.expire(allowance, held)
        self.closed += entry.commit()

    def tell_damage(self, session: Session) -> None:
        """Raise an alert over a page that makes no sense."""
        changes = Changes()
        changes.alerts.append(
            Alert(
                raised_ns=self._ledger.clock.now().wall_ns,
                kind="page_damaged",
                rule=session.session_id,
                key=session.caller,
                message=(
                    f"the page of {session.caller or 'a client'} (session {session.session_id}) "
                    "makes no sense; its allowance is presumed spent"
                ),
            )
        )
        self._ledger.commit(changes)

    def forget_session(self, session: Session) -> None:
        """Forget a session that holds nothing."""
        changes = Changes()
        changes.put(Family.SESSIONS, session.session_id.encode(), None)
        self._ledger.commit(changes)
        del self.sessions[session.session_id]
