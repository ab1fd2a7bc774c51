"""The sessions of client processes: whose they are, and the pages that they draw by."""

from collections.abc import Collection
from typing import Final

import msgspec

from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.allowances import AllowanceBooks
from costd.daemon.clients.pages import SLOTS_COUNT, Pages
from costd.engine import keys
from costd.errors import InvalidAsk
from costd.model.allowance import Allowance, Session, Sums
from costd.model.ask import name_problem
from costd.wire.pb import admission_pb2 as pb

SESSION_ID_LENGTH_MIN: Final = 16
SESSION_ID_LENGTH_MAX: Final = 96


class Sessions:
    """One for each client process, attached or not, with a page where the client maps one."""

    def __init__(self, ledger: Ledger, books: AllowanceBooks, pages: Pages) -> None:
        self._ledger = ledger
        self._books = books
        self._pages = pages
        self._damaged: set[str] = set()
        """Sessions whose pages made no sense."""

    def begin(self, hello: pb.Hello, caller: str) -> tuple[Session, str]:
        """Begin a session, or go on with it; the path of its page goes with it, empty without one.

        Errors:  InvalidAsk for an id that is none, or another caller's; StoreUnavailable.
        """
        session_id = hello.session_id
        problem = name_problem("session_id", session_id)
        if problem or not SESSION_ID_LENGTH_MIN <= len(session_id) <= SESSION_ID_LENGTH_MAX:
            raise InvalidAsk(
                problem
                or f"session_id must have {SESSION_ID_LENGTH_MIN} to "
                f"{SESSION_ID_LENGTH_MAX} characters"
            )
        session = self._books.sessions.get(session_id)
        if session is not None and session.caller != caller:
            raise InvalidAsk(f"session {session_id!r} is another caller's; make a new id")
        page, path = self._page_of(session_id) if hello.maps_pages else ("", "")
        if session is not None and session.page not in {"", page}:
            self._pages.close_client(session.page)
        session = msgspec.structs.replace(
            session or Session(session_id=session_id, caller=caller),
            page=page,
            seen_steady_ns=self._ledger.clock.now().steady_ns,
        )
        self._books.remember(session)
        return session, path

    def free_slot(self, session: Session, taken: Collection[int]) -> int | None:
        """Find a slot of the page; -1 without a page, None if all are taken."""
        if len(taken) >= SLOTS_COUNT:
            return None
        if not session.page or session.session_id in self._damaged:
            return -1
        return next(slot for slot in range(SLOTS_COUNT) if slot not in taken)

    def drawn(self, allowance: Allowance) -> Sums | None:
        """How far a client drew that did not return its allowance; None if nobody knows."""
        session = self._books.sessions.get(allowance.session_id)
        if allowance.slot < 0 or session is None or not session.page:
            return None
        drawn = self._pages.drawn(session.page, allowance.slot, allowance.serial)
        sane = drawn is not None and allowance.drawn.within(drawn)
        if drawn is None or not sane or not drawn.within(allowance.granted):
            self._damaged.add(session.session_id)
            self._books.tell_damage(session)
            return None
        return drawn

    def tidy(self, busy: Collection[str]) -> None:
        """Forget the pages of sessions that hold nothing at once; much later, the sessions.

        Shape:   `busy` are those that hold something or are attached. A session that comes back
                 is made another page; its number of reports it must find again.
        Ensures: a session is remembered for longer than anything that its reports have booked,
                 so that a report which is sent again counts once however late that is.
        """
        ledger = self._ledger
        policy = ledger.rules.policy
        kept_ns = ledger.closed_keep_ns + policy.late_settle_ns + policy.ttl_ns_max
        forgotten_ns = ledger.clock.now().steady_ns - kept_ns
        for session in list(self._books.sessions.values()):
            if session.session_id in busy:
                continue
            if session.page:
                self._pages.close_client(session.page)
                self._books.remember(msgspec.structs.replace(session, page=""))
            if session.seen_steady_ns < forgotten_ns:
                self._books.forget_session(session)
                self._damaged.discard(session.session_id)

    def _page_of(self, session_id: str) -> tuple[str, str]:
        """Make a session's page: its file's name and its path; empty where there can be none."""
        if not self._pages.daemon_page or session_id in self._damaged:
            return "", ""
        name = keys.digest(session_id).hex()
        path = self._pages.open_client(name)
        return (name, path) if path else ("", "")
