"""What a daemon asks the coordinator for: room on counters that have too little of it.

No I/O: requests go out by the function given, replies come in by `replied`, time by `now_ns`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from costd.daemon.fleet.not_lent import NotLent
from costd.engine import keys
from costd.model.lease import Lease, Stand, Want
from costd.model.money import AMOUNT_MAX
from costd.model.time import NS_PER_S
from costd.model.trace import NO_TRACE, Trace
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb

STEP_AHEAD: Final = 4
"""The first lease of a counter lets so many calls like the first one pass."""
GROW_WITHIN_NS: Final = 5 * NS_PER_S
"""A lease of which half is used up faster than this is followed by one twice as large: so a lease
comes to last ten to twenty seconds, where there is enough."""
SHRINK_AFTER_NS: Final = 30 * NS_PER_S
"""Of a counter that is asked for less often the next lease begins small again."""
WANTS_COUNT_MAX: Final = 500
"""In one request ahead of need."""

STEP_MAX: Final = AMOUNT_MAX // 4
"""More than any budget has; so that doubling ends."""

RECALLS_COUNT_MAX: Final = 8
"""So often a request is sent again while others are asked to give back what it needs."""
SATED_NS: Final = NS_PER_S // 2
"""How long nothing is asked for ahead of need where there was nothing to be had."""

Done = Callable[[], None]


class Short(Protocol):
    """A counter that has too little; implemented by the engine's shortages."""

    @property
    def key(self) -> bytes:
        """Which counter."""
        ...

    @property
    def amount_min(self) -> int:
        """What must be able to be used of it in all."""
        ...

    @property
    def critical(self) -> bool:
        """Whether the protected reserve may be drawn."""
        ...


class Ahead(NamedTuple):
    """A counter of which more would be welcome; none is needed now."""

    key: bytes
    step: int = 0
    """How much would be welcome where nothing was asked for before."""

    @property
    def amount_min(self) -> int:
        """Nothing is needed."""
        return 0

    @property
    def critical(self) -> bool:
        """The protected reserve is for calls that are there."""
        return False


class Counters(Protocol):
    """The counters that leases are kept in; implemented by the ledger."""

    def stand(self, key: bytes) -> Stand:
        """Return how this daemon stands on a counter."""
        ...

    def lease(self, key: bytes) -> Lease | None:
        """Return what this daemon holds of a counter."""
        ...

    def set_leases(
        self, leases: Mapping[bytes, Lease], unused_ns: Mapping[bytes, int] | None = None
    ) -> None:
        """Keep leases, in one batch; of rates, with how long what is granted was nobody's."""
        ...


class _Pace:
    """How fast a counter's leases are used up, and so how large the next should be."""

    __slots__ = ("asked_ns", "step", "used")

    def __init__(self, step: int, asked_ns: int) -> None:
        self.step = step
        self.asked_ns = asked_ns
        self.used = 0
        """How much of the counter was used when that was asked for."""


class _Request:
    """One request that is out, or waits to be sent again."""

    __slots__ = (
        "again_ns", "ahead", "keys", "override_grant", "recalls_count", "request_id", "shorts",
        "trace", "waiters",
    )  # fmt: skip

    def __init__(
        self,
        shorts: Sequence[Short],
        *,
        override_grant: str = "",
        ahead: bool = False,
        trace: Trace = NO_TRACE,
    ) -> None:
        self.request_id = ""
        self.override_grant = override_grant
        self.trace = trace
        """Of whoever waited for it first; the spans of the others link to that one's."""
        self.ahead = ahead
        """Whether nobody waited for it when it was made."""
        self.shorts = {short.key: short for short in shorts}
        self.keys = frozenset(self.shorts)
        self.waiters: list[Done] = []
        self.again_ns = 0
        """When to send it again, 0 while its reply is awaited."""
        self.recalls_count = 0


class Borrowing:
    """Requests for leases: at most one for a counter at a time, others wait for its reply."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._out: dict[str, _Request] = {}
        self._by_key: dict[bytes, _Request] = {}
        self._pace: dict[bytes, _Pace] = {}
        self._refused_until_ns: dict[bytes, int] = {}
        self._sated_until_ns: dict[bytes, int] = {}
        """Counters of which there was no more to be had ahead of need."""
        self._serial = 0
        self._send: Callable[[pb.LeaseRequest], None] | None = None
        self.epoch = 0
        self.not_lent = NotLent()
        """Counters of which the coordinator said last that nothing is to be had."""

    @property
    def is_connected(self) -> bool:
        """Whether anybody can be asked."""
        return self._send is not None

    def connected(self, send: Callable[[pb.LeaseRequest], None], epoch: int) -> None:
        """Ask by this function from now on."""
        self._send, self.epoch = send, epoch
        self._refused_until_ns.clear()

    def disconnected(self) -> None:
        """Ask nobody; whoever waits is told that there is nothing to wait for."""
        self._send = None
        requests, self._out, self._by_key = list(self._out.values()), {}, {}
        for request in requests:
            for done in request.waiters:
                done()

    def ask(
        self,
        shorts: Sequence[Short],
        now_ns: int,
        done: Done | None = None,
        *,
        override_grant: str = "",
        trace: Trace = NO_TRACE,
    ) -> bool:
        """Ask for room on counters; `done` is called once there is more to know.

        Of an override grant's counters nothing is lent without its token, `override_grant`.
        The coordinator's span follows `trace`.

        Shape:   False where asking makes no sense now: nobody is there, or has just said no.
        """
        if self._send is None:
            return False
        if any(self._refused_until_ns.get(short.key, 0) > now_ns for short in shorts):
            return False
        request = next(
            (self._by_key[short.key] for short in shorts if short.key in self._by_key), None
        )
        if request is None:
            request = _Request(shorts, override_grant=override_grant, trace=trace)
            self._begin(request, now_ns)
        elif not request.trace:
            request.trace = trace  # so that it is told if this is sent again
        if done is not None:
            request.waiters.append(done)
        return True

    def trace_of(self, waiter: Done) -> Trace:
        """Tell in whose trace the request goes that somebody waits for."""
        traces = (each.trace for each in self._out.values() if waiter in each.waiters)
        return next(traces, NO_TRACE)

    def ask_ahead(self, wishes: Iterable[Ahead], now_ns: int) -> None:
        """Ask together for what is not needed yet; not for what was not to be had a moment ago."""
        if self._send is None:
            return
        due = [
            wish
            for wish in wishes
            if wish.key not in self._by_key
            and self._sated_until_ns.get(wish.key, 0) <= now_ns
            and self._refused_until_ns.get(wish.key, 0) <= now_ns
        ]
        for wish in due:
            if wish.step:
                self._pace.setdefault(wish.key, _Pace(wish.step, now_ns - GROW_WITHIN_NS))
        for start in range(0, len(due), WANTS_COUNT_MAX):
            self._begin(_Request(due[start : start + WANTS_COUNT_MAX], ahead=True), now_ns)

    def forget(self, waiter: Done) -> None:
        """Stop telling somebody who waits no longer."""
        for request in self._out.values():
            if waiter in request.waiters:
                request.waiters.remove(waiter)

    def replied(self, reply: pb.LeaseReply, now_ns: int) -> None:
        """Keep what was granted; wake or keep those who wait.

        Ensures: a reply of another epoch, or to no request that is out, changes nothing: what it
                 grants was not stated at the last Enrol, and so is nobody's.
        """
        request = self._out.get(reply.request_id)
        if reply.epoch != self.epoch or request is None:
            return
        leases: dict[bytes, Lease] = {}
        for grant in reply.grants:
            key, held = grant.counter_key, self._counters.lease(grant.counter_key)
            seen = held.version if held else 0
            if grant.outcome == pb.LEASE_OUTCOME_GRANTED and grant.version > seen:
                leases[key] = wire.lease_granted(grant)
                self._sated_until_ns.pop(key, None)
                self._follow(key, grant.amount)
            elif grant.HasField("level"):  # not the amount: some may have been given back since
                leases[key] = wire.lease_at(held, grant.level)
                self._sated_until_ns[key] = now_ns + SATED_NS
        self._counters.set_leases(
            leases, {grant.counter_key: grant.unused_ns for grant in reply.grants}
        )
        retry_ns = now_ns + reply.retry_after.ToNanoseconds()
        refused = {grant.counter_key: grant.grant_refusal for grant in reply.grants}
        outcomes = {grant.counter_key: grant.outcome for grant in reply.grants}
        for key, outcome in outcomes.items():
            self.not_lent.clear(key)
            if outcome == pb.LEASE_OUTCOME_EXHAUSTED:
                self.not_lent.exhaust([key])
            if outcome == pb.LEASE_OUTCOME_BAD_GRANT:
                self.not_lent.refuse(key, wire.grant_refusal(refused[key]))
            if outcome in _NOTHING_LEFT:
                self._pace.pop(key, None)  # the next one begins small again
            if outcome in _NO:
                self._refused_until_ns[key] = retry_ns
            else:
                self._refused_until_ns.pop(key, None)
        recalled = [key for key, told in outcomes.items() if told == pb.LEASE_OUTCOME_RECALLED]
        if recalled and request.waiters and not _NO & {*outcomes.values()}:
            request.recalls_count += 1
            if request.recalls_count < RECALLS_COUNT_MAX:
                request.again_ns = retry_ns
                return
            # Whoever holds it does not answer: it is as good as spent until somebody reports.
            self.not_lent.exhaust(recalled)
            self._refused_until_ns.update(dict.fromkeys(recalled, now_ns + SATED_NS))
        self._finish(request)

    def tick(self, now_ns: int) -> None:
        """Send again what others were asked to give back for."""
        for request in list(self._out.values()):
            if request.again_ns and request.again_ns <= now_ns:
                if request.waiters:
                    self._dispatch(request, now_ns)
                else:
                    self._finish(request)
        self._sated_until_ns = {k: t for k, t in self._sated_until_ns.items() if t > now_ns}
        self._refused_until_ns = {k: t for k, t in self._refused_until_ns.items() if t > now_ns}
        for key, pace in list(self._pace.items()):
            if now_ns - pace.asked_ns > SHRINK_AFTER_NS:
                del self._pace[key]

    def step_of(self, key: bytes) -> int:
        """How large the last lease of a counter was asked to be; 0 if it was long ago."""
        pace = self._pace.get(key)
        return pace.step if pace else 0

    def _begin(self, request: _Request, now_ns: int) -> None:
        for key in request.keys:
            self._by_key[key] = request
        self._dispatch(request, now_ns)

    def _dispatch(self, request: _Request, now_ns: int) -> None:
        assert self._send is not None
        request.again_ns = 0
        # Another name each time: an answer to what was sent before says nothing of this.
        self._out.pop(request.request_id, None)
        self._serial += 1
        request.request_id = f"{self.epoch}-{self._serial}"
        self._out[request.request_id] = request
        wants = [
            wire.want_to_pb(key, self._want(request.shorts[key], now_ns))
            for key in sorted(request.keys)
        ]
        self._send(
            pb.LeaseRequest(
                request_id=request.request_id,
                epoch=self.epoch,
                wants=wants,
                ahead=request.ahead,
                override_grant=request.override_grant,
                traceparent=request.trace.traceparent,
                tracestate=request.trace.tracestate,
            )
        )

    def _want(self, short: Short, now_ns: int) -> Want:
        stand = self._counters.stand(short.key)
        if keys.is_grants(short.key):  # uses that lie idle here are missed elsewhere
            return Want(stand=stand, amount_min=short.amount_min, amount_wanted=short.amount_min)
        needed = max(0, short.amount_min - stand.used)
        pace = self._pace.get(short.key)
        if pace is None:
            step = min(needed * STEP_AHEAD, STEP_MAX)
            pace = self._pace[short.key] = _Pace(step, now_ns)
        else:
            if now_ns - pace.asked_ns < GROW_WITHIN_NS:
                pace.step *= 2
            pace.step = min(max(pace.step, needed * STEP_AHEAD), STEP_MAX)
            pace.asked_ns = now_ns
        pace.used = stand.used
        return Want(
            stand=stand,
            amount_min=short.amount_min,
            amount_wanted=max(short.amount_min, min(stand.used + pace.step, AMOUNT_MAX)),
            critical=short.critical,
        )

    def _follow(self, key: bytes, amount: int) -> None:
        """Let the next lease grow from what was granted; where little is left, that is little."""
        pace = self._pace.get(key)
        if pace is not None:
            pace.step = min(pace.step, max(0, amount - pace.used))

    def _finish(self, request: _Request) -> None:
        self._out.pop(request.request_id, None)
        for key in request.keys:
            self._by_key.pop(key, None)
        for done in request.waiters:
            done()


_NOTHING_LEFT: Final = frozenset({pb.LEASE_OUTCOME_EXHAUSTED, pb.LEASE_OUTCOME_RECALLED})
_NO: Final = frozenset(
    {
        pb.LEASE_OUTCOME_EXHAUSTED,
        pb.LEASE_OUTCOME_NO_BUDGET,
        pb.LEASE_OUTCOME_WRONG_WINDOW,
        pb.LEASE_OUTCOME_NOT_NOW,
        pb.LEASE_OUTCOME_BAD_GRANT,
    }
)
