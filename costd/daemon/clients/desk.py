"""The daemon's side of the allowance protocol: who is attached, what they hold, what they hear.

No I/O: messages come in by `Connection.receive`, go out by the function each connection was
given, and pages are behind a port. docs/reference/allowances.md is the protocol.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.allowances import AllowanceBooks
from costd.daemon.clients.covered import covered
from costd.daemon.clients.drilling import Drills
from costd.daemon.clients.holdings import Holdings
from costd.daemon.clients.pages import Pages
from costd.daemon.clients.sessions import Sessions
from costd.engine import keys
from costd.engine.allot import Scarce, has_little_left
from costd.errors import InvalidAsk, NotPermitted, StoreUnavailable
from costd.model.allowance import Allowance, AllowanceState, Session
from costd.model.kill import KillSwitch
from costd.model.labels import RESERVED_KEYS
from costd.model.lease import Shortage
from costd.model.reservation import Reservation
from costd.wire.admission import ask_from_pb
from costd.wire.allowances import allowance_to_pb, read_report
from costd.wire.pb import admission_pb2 as pb

Push = Callable[[pb.DaemonMessage], None]

RETRY_SOON_S: Final = 1
RETRY_LATER_S: Final = 30
"""For a scope that can have no allowance until the policy changes."""


class Connection:
    """One stream of one client process."""

    def __init__(self, desk: "Desk", caller: str, push: Push) -> None:
        self._desk = desk
        self.caller = caller
        self.push = push
        self.session_id = ""

    def receive(self, message: pb.ClientMessage) -> None:
        """Act on one message; answers are pushed.

        Errors:  InvalidAsk for a message out of order; StoreUnavailable where the answer cannot
                 be written down. After either the stream ends, and the client attaches anew.
        """
        kind = message.WhichOneof("message")
        if self.session_id and self._desk.attached.get(self.session_id) is not self:
            raise InvalidAsk("this session has attached on another stream; this one is over")
        if (kind == "hello") == bool(self.session_id):
            raise InvalidAsk("Hello comes first on every stream, and only once")
        if kind == "hello":
            self._desk.hello(self, message.hello)
        elif kind == "request":
            self._desk.request(self, message.request)
        elif kind == "report":
            self._desk.report(self, message.report)
        else:
            raise InvalidAsk(
                "a client message is a hello, a request or a report, or a newer client's"
            )

    def close(self) -> None:
        """Forget the stream; what the client holds stays good until its lifetime ends."""
        self._desk.detach(self)


class Desk:
    """Implements `costd.daemon.books.bookkeeping.Watcher` for one daemon's clients."""

    def __init__(self, ledger: Ledger, books: AllowanceBooks, pages: Pages) -> None:
        self.ledger = ledger
        self.books = books
        self.pages = pages
        self.attached: dict[str, Connection] = {}
        """By session."""
        self.revoked: set[bytes] = set(books.out)
        """What was out when this daemon started was granted under rules that may have changed."""
        self.borrow: Callable[[Sequence[Shortage]], object] | None = None
        """Asks the coordinator for what allowances lack; their clients ask again a moment later."""
        self.drills = Drills(ledger.clock)
        self._sessions = Sessions(ledger, books, pages)
        self._holdings = Holdings()
        for allowance_id in books.out:
            self._index(allowance_id)
        ledger.watcher = self

    # ---- clients ----------------------------------------------------------------------------

    def attach(self, caller: str, push: Push) -> Connection:
        """Begin a stream."""
        return Connection(self, caller, push)

    def detach(self, connection: Connection) -> None:
        """End one."""
        if self.attached.get(connection.session_id) is connection:
            del self.attached[connection.session_id]
            holds = any(self._open_of(connection.session_id))
            self.drills.detached(connection.session_id, holds=holds)

    def hello(self, connection: Connection, hello: pb.Hello) -> None:
        """Welcome a client process, new or come back."""
        session, path = self._sessions.begin(hello, connection.caller)
        session_id = session.session_id
        connection.session_id = session_id
        self.attached[session_id] = connection
        found = {one.allowance_id.hex(): one.allowance_id for one in self._open_of(session_id)}
        unnamed = found.keys() - set(hello.held_allowance_ids)
        welcome = pb.Welcome(
            scope_labels=sorted(self.scope_labels()),
            report_sequence=session.report_sequence,
            daemon_page=self.pages.daemon_page if session.page else "",
            client_page=path,
            generation=self.pages.generation,
            good_allowance_ids=[
                text for text in sorted(found.keys() - unnamed) if found[text] not in self.revoked
            ],
            unnamed_allowance_ids=sorted(unnamed),
        )
        connection.push(pb.DaemonMessage(welcome=welcome))
        self.drills.ask_again(session_id, connection.push, welcome)

    def request(self, connection: Connection, request: pb.AllowanceRequest) -> None:
        """Grant an allowance, or say when to ask again."""
        session = self.books.sessions[connection.session_id]
        answer = pb.AllowanceGrant(request_id=request.request_id)
        retry_s = RETRY_LATER_S
        taken = [allowance.slot for allowance in self._open_of(session.session_id)]
        slot = self._sessions.free_slot(session, taken)
        if slot is not None and request.calls_count > 0 and not self.ledger.refuses:
            try:
                retry_s = self._grant(session, request, slot, answer)
            except StoreUnavailable:
                retry_s = RETRY_SOON_S
            except (InvalidAsk, NotPermitted):  # the ask itself will be told what is wrong with it
                retry_s = RETRY_LATER_S
        if not answer.HasField("allowance"):
            answer.retry_after.seconds = retry_s
        connection.push(pb.DaemonMessage(grant=answer))

    def report(self, connection: Connection, report: pb.Report) -> None:
        """Book a report, once."""
        session = self.books.sessions[connection.session_id]
        problems: list[str] = []
        if report.sequence > session.report_sequence + 1:
            raise InvalidAsk(
                f"report {report.sequence} came after {session.report_sequence}; send those between"
            )
        self.drills.confirmed(connection.session_id, report.generation)
        if report.sequence == session.report_sequence + 1:
            read = read_report(report)
            session, problems = self.books.book(
                session,
                report.sequence,
                drawn=read.drawn,
                ended=read.ended,
                returned=read.returned,
            )
            problems = read.problems + problems
            self._forget_closed()
        connection.push(
            pb.DaemonMessage(
                acknowledgement=pb.Acknowledgement(
                    sequence=session.report_sequence, problems=problems
                )
            )
        )

    # ---- what makes allowances wrong ----------------------------------------------------------

    def killed(self, switch: KillSwitch) -> None:
        """Revoke what a kill switch covers, or may."""
        if switch.released_ns:
            self._tell_generation()
            return
        ids = covered(switch.scope, self.ledger, self._open())
        self._revoke(ids, pb.REVOCATION_REASON_KILL_SWITCH, always_tell=True)

    def policy_changed(self) -> None:
        """Revoke everything: what was granted follows rules that are no longer in force."""
        ids = [allowance.allowance_id for allowance in self._open()]
        self._revoke(ids, pb.REVOCATION_REASON_POLICY, always_tell=True)

    def pressed(self, counter_keys: Sequence[bytes]) -> None:
        """Revoke what is drawn on counters that have little left, or have reached a step."""
        ids = {found for key in counter_keys for found in self._holdings.on(key)}
        if ids - self.revoked:
            self._revoke(sorted(ids), pb.REVOCATION_REASON_LIMIT)

    def admitted(self, held: Reservation) -> None:
        """Revoke what is drawn on counters that an ask has left little of.

        What others hold comes back then before anybody has to be denied.
        """
        rules, read = self.ledger.rules, self.ledger.state.counter
        scarce = []
        for line in held.counters if self._holdings else ():
            if self._holdings.on(line.key):
                rule, counter = rules.budgets.get(keys.tag_of(line.key)), read(line.key)
                if rule and counter and has_little_left(rule, counter, rules.policy.allowance):
                    scarce.append(line.key)
        self.pressed(scarce)

    def revoke(self, allowance_id: bytes) -> bool:
        """Revoke one by hand; False if it is not out."""
        if allowance_id not in self.books.out:
            return False
        self._revoke([allowance_id], pb.REVOCATION_REASON_OPERATOR)
        return True

    def scope_labels(self) -> frozenset[str]:
        """The labels that some rule or engaged kill switch reads."""
        read = {match.key for kill in self.ledger.kills for match in kill.scope.matches}
        return self.ledger.rules.scope_labels | (read - RESERVED_KEYS)

    # ---- time -------------------------------------------------------------------------------

    def due(self, held: Reservation) -> bool:
        """Drain an allowance whose lifetime is over, or charge what is in flight.

        Shape:   False if the reservation is no allowance's; the caller expires it then.
        """
        allowance = self.books.out.get(held.reservation_id) if held.is_allowance else None
        if allowance is None:
            return False
        if allowance.state is AllowanceState.OPEN:
            self.books.drain(allowance, self._sessions.drawn(allowance))
        else:
            self.books.expire(allowance, held)
        self._forget_closed()
        return True

    def tidy(self) -> None:
        """Forget what belongs to sessions that hold nothing and are not attached."""
        self._sessions.tidy(self._holdings.sessions() | {*self.attached})

    # ---- inside -----------------------------------------------------------------------------

    def _grant(
        self, session: Session, request: pb.AllowanceRequest, slot: int, answer: pb.AllowanceGrant
    ) -> int:
        """Fill the answer; where nothing is granted, return after how many seconds to ask again."""
        typical = ask_from_pb(request.typical)
        if typical.grant_digest or typical.units:
            return RETRY_LATER_S
        if slot >= 0 and not self.pages.arm(session.page, slot, self.books.next_serial):
            return RETRY_SOON_S
        granted = self.books.grant(session, typical, request.calls_count, slot=slot)
        if isinstance(granted, Scarce):
            self.pressed(granted.counter_keys)
            if granted.wanting is not None and self.borrow is not None:
                self.borrow(granted.wanting.shortages)
            return RETRY_SOON_S
        allowance, allotment = granted.allowance, granted.allotment
        self._index(allowance.allowance_id)
        policy = self.ledger.rules.policy
        task_class = policy.task_classes[granted.held.ask.task_class]
        answer.allowance.CopyFrom(
            allowance_to_pb(
                allowance,
                allotment,
                lifetime_ns=allotment.lifetime_ns,
                output_tokens_default=task_class.max_output_tokens,
            )
        )
        return 0

    def _revoke(
        self,
        allowance_ids: Sequence[bytes],
        reason: "pb.RevocationReason",
        *,
        always_tell: bool = False,
    ) -> None:
        """Stop draws: by the page at once, by the stream a moment later."""
        if allowance_ids or always_tell:
            self.pages.bump()
        for allowance_id in allowance_ids:
            if allowance_id in self.revoked:
                continue
            self.revoked.add(allowance_id)
            connection = self.attached.get(self.books.out[allowance_id].session_id)
            if connection is not None:
                revocation = pb.Revocation(allowance_id=allowance_id.hex(), reason=reason)
                connection.push(pb.DaemonMessage(revocation=revocation))
        if allowance_ids or always_tell:
            self._tell_generation()

    def _tell_generation(self) -> None:
        message = pb.DaemonMessage(
            generation=pb.Generation(
                generation=self.pages.generation, scope_labels=sorted(self.scope_labels())
            )
        )
        for connection in self.attached.values():
            connection.push(message)

    def _open(self) -> Iterator[Allowance]:
        for allowance in self.books.out.values():
            if allowance.state is AllowanceState.OPEN:
                yield allowance

    def _open_of(self, session_id: str) -> Iterator[Allowance]:
        for allowance_id in self._holdings.of(session_id):
            allowance = self.books.out[allowance_id]
            if allowance.state is AllowanceState.OPEN:
                yield allowance

    def _held(self, allowance_id: bytes) -> Reservation:
        held = self.ledger.find_reservation(allowance_id)
        assert held is not None
        return held

    def _index(self, allowance_id: bytes) -> None:
        lines = self._held(allowance_id).counters
        session_id = self.books.out[allowance_id].session_id
        self._holdings.add(allowance_id, session_id, (line.key for line in lines))

    def _forget_closed(self) -> None:
        """Drop from memory what is no longer out."""
        closed, self.books.closed = self.books.closed, []
        for allowance_id in closed:
            self._holdings.remove(allowance_id)
            self.revoked.discard(allowance_id)
