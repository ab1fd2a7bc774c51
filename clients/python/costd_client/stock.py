"""What one scope has: the allowance that is drawn, the one held beside it, and what to ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from costd_client.allowance import Allowance
    from costd_client.drawn import Drawn
    from costd_client.facts import Facts

NS_PER_S = 1_000_000_000
CALLS_COUNT_FIRST = 16
"""Asked for before anybody knows how often a scope calls; a burst grows eightfold each time."""

GROWTH_MAX = 8
CALLS_COUNT_MAX = 1_000_000
LIFETIME_NS = 5 * NS_PER_S
"""What lifetimes are taken to be when calls are counted ahead."""

REPEAT_NS = 5 * NS_PER_S
"""A request that is not answered for so long may be made again."""

WANTED_NS = 5 * NS_PER_S
"""A wish that could not be sent for so long is forgotten: nobody may call any more."""


class Stated(NamedTuple):
    """The amounts of one call."""

    prompt_tokens: int | None
    max_output_tokens: int | None
    estimated_cost_nusd: int | None


class Wish(NamedTuple):
    """A call that found nothing to draw, or the first half drawn."""

    facts: Facts
    stated: Stated
    wished_ns: int


class Request(NamedTuple):
    """A request on its way; lifetimes count from `sent_ns`."""

    request_id: str
    stock: Stock
    calls_count: int
    sent_ns: int


class Stock:
    """The allowances of one scope.

    Shape:   `current` is read by every draw without a lock; everything is changed by the session
             alone. An allowance that leaves the stock is handed to the session's `over`.
    """

    __slots__ = ("asked_count", "current", "is_waiting", "last", "next", "retry_ns", "wish")

    def __init__(self) -> None:
        self.current: Allowance | None = None
        self.next: Allowance | None = None
        self.last: Request | None = None
        """The last request; `is_waiting` while it is not answered."""
        self.is_waiting = False
        self.wish: Wish | None = None
        self.retry_ns = 0
        self.asked_count = 0
        """Asks since the last request that were not drawn."""

    def draw(self, facts: Facts, stated: Stated) -> tuple[Drawn | None, Allowance | None]:
        """Draw where the quick draw failed; also return the allowance that is over by it."""
        current = self.current
        if current is None:
            return None, None
        drawn = current.draw(facts, *stated)
        if drawn is None and current.stretch():
            drawn = current.draw(facts, *stated)
        if drawn is not None or self.next is None:
            return drawn, None
        drawn = self.next.draw(facts, *stated)
        if drawn is None and self.next.stretch():
            drawn = self.next.draw(facts, *stated)
        if drawn is None:
            return None, None
        self.current, self.next = self.next, None
        return drawn, current

    def put(self, allowance: Allowance) -> bool:
        """Keep what was granted; False if there is enough already."""
        if self.current is None:
            self.current = allowance
        elif self.next is None:
            self.next = allowance
        else:
            return False
        return True

    def remove(self, allowance: Allowance) -> None:
        """Take out an allowance that may not be drawn any more."""
        if self.next is allowance:
            self.next = None
        if self.current is allowance:
            self.current, self.next = self.next, None

    def needs(self, now_ns: int) -> bool:
        """Tell whether another allowance is to be asked for now."""
        waits = self.is_waiting and self.last and now_ns - self.last.sent_ns < REPEAT_NS
        return self.next is None and not waits and now_ns >= self.retry_ns

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost by forgetting this scope."""
        return self.current is None and not self.is_waiting and self.wish is None

    def expected_calls(self, stated: Stated, now_ns: int) -> int:
        """Guess how many calls like this one will be made in one lifetime.

        Ensures: between `CALLS_COUNT_FIRST` and eight times the last request, and as much more
                 as this call is smaller than the ones before it.
        """
        last, current = self.last, self.current
        if last is None:
            return CALLS_COUNT_FIRST
        drawn = current.sums() if current is not None else None
        count = self.asked_count + (drawn.calls_count if drawn else 0)
        elapsed_ns = max(now_ns - last.sent_ns, 1)
        expected = 2 * count * LIFETIME_NS // elapsed_ns
        if drawn is not None and current is not None:
            hold = current.hold_of(stated)
            if hold and drawn.calls_count:
                expected = expected * max(drawn.amount_nusd // drawn.calls_count, hold) // hold
        most = min(CALLS_COUNT_MAX, GROWTH_MAX * last.calls_count)
        return max(CALLS_COUNT_FIRST, min(expected, most))
