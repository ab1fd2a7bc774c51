"""The protocol of allowances without threads, sockets or time of its own.

Events come in as calls (`opened`, `received`, `broken`, `draw`, `end`, `close`), messages go out
of `opened` and `poll`. Only `end` may be called while another method runs.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING

from costd_client.allowance import NOTHING_MAX, Allowance, Gate
from costd_client.errors import ReservationClosed
from costd_client.facts import Facts, set_amounts
from costd_client.pages import base_of
from costd_client.pb import admission_pb2 as pb
from costd_client.reports import DRAWS_NS, REPORT_NS, Reports
from costd_client.stock import NS_PER_S, WANTED_NS, Request, Stated, Stock, Wish

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costd_client.drawn import Drawn, End
    from costd_client.pages import Pages
    from costd_client.surroundings import Surroundings

log = logging.getLogger("costd_client")

SETTLEMENTS_COUNT_MAX = 100_000
STOCKS_COUNT_MAX = 4_096
WAITING_COUNT_MAX = 256
REQUESTS_COUNT_MAX = 1_024
RETRY_NS = NS_PER_S
"""When to ask again for a scope that was granted nothing, if the daemon does not say."""

NO_STOCK = Stock()
"""What facts have whose scope is not known yet; nothing is ever in it."""


class Link(Enum):
    """How far a stream is."""

    DOWN = "down"
    GREETED = "greeted"
    WELCOMED = "welcomed"


class ProtocolBroken(Exception):
    """The daemon said what it must not say; the stream is to be opened anew."""


class Session:
    """One client process at one daemon, over as many streams as it takes."""

    def __init__(
        self, surroundings: Surroundings, *, settlements_count_max: int = SETTLEMENTS_COUNT_MAX
    ) -> None:
        self._around = surroundings
        self._settlements_count_max = settlements_count_max
        self._map_pages = surroundings.map_pages
        self._pages: Pages | None = None
        self._gate = Gate()
        self._generation = 0
        self._link = Link.DOWN
        self._scope_labels: frozenset[str] | None = None
        self._stocks: dict[tuple[object, ...], Stock] = {}
        self._wishing: dict[Stock, None] = {}
        self._waiting: dict[Facts, Wish] = {}
        self._requests: dict[str, Request] = {}
        self._held: dict[str, tuple[Allowance, Stock]] = {}
        self._over: list[Allowance] = []
        self._numbered = 0
        self._is_closed = False
        self._hurries = False
        self.session_id = surroundings.new_id()
        self.journal = surroundings.open_journal and surroundings.open_journal(self.session_id)
        self.reports = Reports(self.journal)
        self.home = object()
        """Whose an allowance is; a forked child has another."""
        self.epoch: object = None
        """Changes with the scope labels; None before they are known."""
        self.must_reopen = False
        """Whether this stream is of no use and another is to be opened at once."""

    @property
    def is_full(self) -> bool:
        """Whether so many settlements wait that no more calls may be drawn."""
        return self.reports.settlements_count >= self._settlements_count_max

    @property
    def is_quiet(self) -> bool:
        """Whether the daemon has heard everything, and is about to grant nothing."""
        return not (self._held or self._over or self._requests) and self.reports.is_quiet

    @property
    def unheard_count(self) -> int:
        """How many ended calls the daemon has not acknowledged."""
        return self.reports.settlements_count

    def hurry(self) -> None:
        """Have what waits reported with the next `poll`, without waiting for more to say."""
        self._hurries = True

    # ---- the stream

    def opened(self) -> list[pb.ClientMessage]:
        """Begin a stream."""
        self._link = Link.GREETED
        self.must_reopen = False
        hello = pb.Hello(
            session_id=self.session_id,
            maps_pages=self._map_pages is not None,
            held_allowance_ids=[*self._held, *(one.allowance_id for one in self._over)],
        )
        return [pb.ClientMessage(hello=hello)]

    def broken(self) -> None:
        """End a stream; what is held may be drawn until its lifetime ends."""
        self._link = Link.DOWN
        self._forget_requests()

    def received(self, message: pb.DaemonMessage) -> None:
        """Take in what the daemon says; `poll` afterwards.

        Errors:  ProtocolBroken.
        """
        kind = message.WhichOneof("message")
        awaited = self._link is not Link.DOWN
        if not awaited or (kind == "welcome") is not (self._link is Link.GREETED):
            raise ProtocolBroken(f"{kind} came while the stream was {self._link.value}")
        if kind == "welcome":
            self._welcomed(message.welcome)
        elif kind == "grant":
            self._granted(message.grant)
        elif kind == "acknowledgement":
            for problem in message.acknowledgement.problems:
                log.warning("costd: in report %d: %s", message.acknowledgement.sequence, problem)
            self.reports.acknowledge(message.acknowledgement.sequence)
        elif kind == "revocation":
            self._retire(message.revocation.allowance_id)
        elif kind == "generation":
            generation = self.reports.learn(message.generation)
            if generation >= self._generation:  # else the Welcome of this stream knew better
                self._learn_labels(message.generation.scope_labels)
                self._generation = generation
        self._set_gate()

    def poll(self) -> list[pb.ClientMessage]:
        """Do what the time has come for, and say what is to be said now."""
        now_ns = self._around.now_ns()
        for allowance, _ in list(self._held.values()):
            if now_ns >= allowance.ends_ns or allowance.is_stuck:
                self._retire(allowance.allowance_id)
        self._set_gate()
        if self._link is not Link.WELCOMED:
            return []
        messages = [pb.ClientMessage(request=request) for request in self._ask(now_ns)]
        held = [allowance for allowance, _ in self._held.values()]
        draws_ns = REPORT_NS if self._pages is None else DRAWS_NS
        self.reports.make(held, self._over, now_ns, draws_ns=draws_ns, at_once=self._hurries)
        self._hurries = self._is_closed or (self._hurries and bool(self.reports.queue))
        messages += [pb.ClientMessage(report=report) for report in self.reports.unsent()]
        return messages

    def wait_ns(self) -> int | None:
        """Say how long `poll` can wait; None: until something happens."""
        if self._link is Link.WELCOMED and self.reports.is_due(at_once=self._hurries):
            return 0
        if self._over or self.reports.queue or (self._held and self._pages is None):
            return REPORT_NS
        if not self._held:
            return None
        ends_ns = min(allowance.ends_ns for allowance, _ in self._held.values())
        return min(DRAWS_NS, max(0, ends_ns - self._around.now_ns()))

    # ---- calls

    def bind(self, facts: Facts) -> None:
        """Find the scope of facts that have none yet."""
        if self._scope_labels is None or facts.epoch is not None:
            return
        key = facts.key(sorted(self._scope_labels))
        stock = self._stocks.get(key)
        if stock is None:
            self._forget_idle()
            stock = self._stocks[key] = Stock()
        read = self._scope_labels
        facts.rest = tuple((k, v) for k, v in facts.labels.items() if k not in read)
        facts.stock = stock
        facts.epoch = self.epoch

    def draw(self, facts: Facts, stated: Stated) -> Drawn | None:
        """Admit a call that the quick draw did not; None: ask the daemon.

        Ensures: an allowance that runs low or is missing is asked for with the next `poll`.
        """
        if self._is_closed or self.is_full:
            return None
        now_ns = self._around.now_ns()
        wish = Wish(facts, stated, now_ns)
        if self.epoch is None and len(self._waiting) < WAITING_COUNT_MAX:
            self._waiting[facts] = wish
        if self.epoch is None or facts.epoch is not self.epoch:
            return None  # no scope labels yet, or others since
        stock = facts.stock
        drawn, over = stock.draw(facts, stated)
        if over is not None:
            self._retire(over.allowance_id)
        if drawn is None:
            stock.asked_count += 1
        if stock.needs(now_ns) and (drawn is None or (stock.current and stock.current.is_low)):
            stock.wish = wish
            self._wishing[stock] = None
        return drawn

    @property
    def is_wishing(self) -> bool:
        """Whether `poll` has something to ask for."""
        return bool(self._wishing) or bool(self._waiting)

    def end(self, drawn: Drawn, end: End) -> bool:
        """Close a drawn call; False where the same was said before.

        Shape:   may be called by any thread at any moment.
        Errors:  ReservationClosed if it was closed otherwise before.
        """
        first = drawn.allowance.close_draw(drawn, end)
        if first is False:
            raise ReservationClosed(f"the call {drawn.ask_id} was closed otherwise before")
        if not first:
            return False
        self.reports.say(drawn, end)
        if self.is_full:
            self._gate.generation = NOTHING_MAX
        return True

    def close(self) -> None:
        """Return everything; the last reports come with the next `poll`."""
        self._is_closed = self._hurries = True
        self._retire_all()

    def forget(self) -> None:
        """Let nothing be drawn any more, without a lock: for a forked child."""
        for stock in (*self._stocks.values(), *(one for _, one in self._held.values())):
            stock.current = stock.next = None
        if self.journal is not None:
            self.journal.abandon()

    # ---- inside

    def _welcomed(self, welcome: pb.Welcome) -> None:
        if not self.reports.resume(welcome.report_sequence, welcome.unnamed_allowance_ids):
            log.warning("costd: the daemon does not know this session's reports as they were")
        if not self._map(welcome):
            self.must_reopen = True
            return
        self._learn_labels(welcome.scope_labels)
        good = set(welcome.good_allowance_ids)
        for allowance, _ in list(self._held.values()):
            if allowance.allowance_id not in good or not self._count(allowance):
                self._retire(allowance.allowance_id)
        self._link = Link.WELCOMED
        self._generation = welcome.generation
        # Only now, with nothing left that must not be drawn, does the gate open.
        self._gate.words = self._pages.heard if self._pages else [0, welcome.generation]
        waiting, self._waiting = self._waiting, {}
        for facts, wish in waiting.items():
            self.bind(facts)
            facts.stock.wish = wish
            self._wishing[facts.stock] = None

    def _map(self, welcome: pb.Welcome) -> bool:
        """Map the pages named; False where that fails, so that the daemon must hear of it."""
        self._pages = None
        if self._map_pages is None or not welcome.client_page:
            return True
        try:
            self._pages = self._map_pages(welcome.daemon_page, welcome.client_page)
        except (OSError, ValueError) as error:
            log.info("costd: goes on without mapped pages: %s", error)
            self._map_pages = None
            self._retire_all()
        return self._pages is not None

    def _count(self, allowance: Allowance) -> bool:
        """Have an allowance's sums written where the daemon looks for them."""
        if self._pages is None or allowance.slot < 0:
            return allowance.count_in([allowance.serial, 0, 0, 0], 0)
        if allowance.slot >= self._pages.slots_count:
            return False
        return allowance.count_in(self._pages.slots, base_of(allowance.slot))

    def _learn_labels(self, scope_labels: Iterable[str]) -> None:
        """Begin anew where other labels are read: what is held was granted for other scopes."""
        labels = frozenset(scope_labels)
        if labels == self._scope_labels:
            return
        self._retire_all()
        self._stocks.clear()
        self._wishing.clear()
        self._forget_requests()
        self._scope_labels = labels
        self.epoch = object()

    def _forget_requests(self) -> None:
        for request in self._requests.values():
            request.stock.is_waiting = False
        self._requests.clear()

    def _granted(self, grant: pb.AllowanceGrant) -> None:
        now_ns = self._around.now_ns()
        request = self._requests.pop(grant.request_id, None)
        if request is not None and request.stock.last is request:
            request.stock.is_waiting = False
        if not grant.HasField("allowance"):
            if request is not None:
                stated = grant.HasField("retry_after")
                wait_ns = grant.retry_after.ToNanoseconds() if stated else RETRY_NS
                request.stock.retry_ns = now_ns + wait_ns
            return
        if grant.allowance.allowance_id in self._held:
            raise ProtocolBroken(f"{grant.allowance.allowance_id} was granted twice")
        self._numbered += 1
        allowance = Allowance(
            grant.allowance,
            home=self.home,
            gate=self._gate,
            clock=self._around.now_ns,
            sent_ns=request.sent_ns if request else 0,
            wall_offset_ns=self._around.wall_ns() - now_ns,
            prefix=f"{self.session_id}.{self._numbered:x}.",
        )
        stock = request.stock if request else NO_STOCK
        self._held[allowance.allowance_id] = (allowance, stock)
        usable = (
            request is not None
            and not self._is_closed
            and now_ns < allowance.ends_ns
            and allowance.decision.verdict in (pb.VERDICT_ALLOW, pb.VERDICT_DEGRADE)
            and self._count(allowance)
            and stock.put(allowance)
        )
        if not usable:
            self._retire(allowance.allowance_id)

    def _ask(self, now_ns: int) -> list[pb.AllowanceRequest]:
        """Write a request for each scope that wishes one."""
        requests = []
        for stock in self._wishing:
            wish, stock.wish = stock.wish, None
            late = wish is None or now_ns - wish.wished_ns >= WANTED_NS
            if wish is None or late or not stock.needs(now_ns) or self._is_closed:
                continue
            typical = wish.facts.scoped(self._scope_labels or frozenset())
            set_amounts(typical, *wish.stated)
            request = Request(
                self._around.new_id(), stock, stock.expected_calls(wish.stated, now_ns), now_ns
            )
            stock.last, stock.is_waiting, stock.asked_count = request, True, 0
            self._requests[request.request_id] = request
            while len(self._requests) > REQUESTS_COUNT_MAX:
                del self._requests[next(iter(self._requests))]
            requests.append(
                pb.AllowanceRequest(
                    request_id=request.request_id, typical=typical, calls_count=request.calls_count
                )
            )
        self._wishing.clear()
        return requests

    def _retire(self, allowance_id: str) -> None:
        """Draw no more from an allowance, and have it returned; nothing for an unknown one."""
        allowance, stock = self._held.pop(allowance_id, (None, NO_STOCK))
        if allowance is not None:
            allowance.close()
            stock.remove(allowance)
            self._over.append(allowance)

    def _retire_all(self) -> None:
        for allowance_id in list(self._held):
            self._retire(allowance_id)

    def _set_gate(self) -> None:
        words = self._gate.words
        if self._pages is None and self._link is Link.WELCOMED and words[1] != self._generation:
            self._gate.words = [0, self._generation]
        self._gate.generation = NOTHING_MAX if self.is_full else self._generation

    def _forget_idle(self) -> None:
        if len(self._stocks) >= STOCKS_COUNT_MAX:
            self._stocks = {key: one for key, one in self._stocks.items() if not one.is_idle}
