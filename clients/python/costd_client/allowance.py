"""The hot path: a call is admitted in the process, from money that the daemon set aside."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from costd_client.drawn import Drawn, same_end
from costd_client.price import PriceLine
from costd_client.requests import COUNT_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from costd_client.drawn import End
    from costd_client.facts import Facts
    from costd_client.pages import Words
    from costd_client.pb import admission_pb2 as pb
    from costd_client.stock import Stated

WORD_MAX = 2**63 - 1
NOTHING_MAX = -1
"""A bound that every draw passes, so that a closed allowance needs no check of its own."""

TURN_WAIT_S = 1.0
"""How long to wait for a turn; whoever has it holds it for about a microsecond."""

_new = object.__new__


class Sums(NamedTuple):
    """How far an allowance was drawn: words 1 to 3 of its slot in the client's page."""

    calls_count: int
    amount_nusd: int
    tokens_count: int


class Gate:
    """Where every draw of a session looks whether anything changed since it last heard.

    Shape:   draws pass while `words[1]` is `generation`. `words` is the daemon's page, or
             without pages a list that the session writes.
    """

    __slots__ = ("generation", "words")

    def __init__(self) -> None:
        self.generation = 0
        self.words: Words = [0, NOTHING_MAX]


class Allowance:
    """Money, calls and tokens for one scope, drawn by any thread of the process.

    Shape:   the bounds are at first half of what was granted, and about half the lifetime: the draw
             that passes one fails, and the session `stretch`es the allowance to all of it and
             asks for the next. So asking ahead of need costs the other draws nothing.
             Sums change by turns: there is one token, and who has it has the turn.
    Ensures: sums only rise, never pass what was granted, and stand in the page before the draw is
             answered. `list.pop` and `list.append` are atomic, so that two threads never have the
             token; both cost a quarter of what a lock costs. During a turn nothing is called, so
             that CPython neither switches threads nor runs a signal handler or a finalizer then.
             An exception from a signal handler just before a turn loses the token: then nothing
             more is drawn from this allowance.
    """

    __slots__ = (
        "_amount_most",
        "_base",
        "_calls_most",
        "_clock",
        "_end_turn",
        "_ends",
        "_gate",
        "_per_input",
        "_per_output",
        "_per_request",
        "_priced_below",
        "_scale",
        "_slots",
        "_take_turn",
        "_tokens_most",
        "_until_ns",
        "allowance_id",
        "amount_nusd",
        "calls_count",
        "context_window",
        "counts_tokens",
        "decision",
        "ends_ns",
        "expiry_ns",
        "granted",
        "home",
        "is_closed",
        "is_low",
        "is_stuck",
        "output_tokens_default",
        "output_tokens_max",
        "prefix",
        "price",
        "reported",
        "serial",
        "slot",
        "tokens_count",
    )

    def __init__(
        self,
        granted: pb.Allowance,
        *,
        home: object,
        gate: Gate,
        clock: Callable[[], int],
        sent_ns: int,
        wall_offset_ns: int,
        prefix: str,
    ) -> None:
        self.home = home
        self._gate = gate
        self._clock = clock
        turns = ["token"]
        self._take_turn, self._end_turn = turns.pop, turns.append
        # Reentrant, because a finalizer may settle a call at any moment.
        self._ends = threading.RLock()
        self.prefix = prefix
        self.allowance_id = granted.allowance_id
        self.decision = granted.decision
        self.counts_tokens = granted.HasField("tokens_count")
        self.granted = Sums(
            granted.calls_count,
            granted.amount_nusd,
            granted.tokens_count if self.counts_tokens else WORD_MAX,
        )
        price = self.price = PriceLine.read(granted)
        self._scale, self._per_request, self._per_input, self._per_output = price[:4]
        self._priced_below = price.first_below
        self.context_window = _or_most(granted, "context_window")
        self.output_tokens_max = _or_most(granted, "output_tokens_max")
        self.output_tokens_default = (
            granted.output_tokens_default if granted.HasField("output_tokens_default") else None
        )
        self.serial = granted.serial
        self.slot = granted.slot
        self._slots: Words = [self.serial, 0, 0, 0]
        self._base = 0
        self.calls_count = self.amount_nusd = self.tokens_count = 0
        self.reported = Sums(0, 0, 0)
        lifetime_ns = granted.lifetime.ToNanoseconds()
        self.ends_ns = sent_ns + lifetime_ns
        self.expiry_ns = granted.call_ttl.ToNanoseconds() + wall_offset_ns
        self.is_closed = False
        self.is_low = False
        self.is_stuck = False
        """Whether the token is lost, and with it the rest of the allowance until it is returned."""
        # Clients that began together would else renew together, and keep the daemon busy in
        # bursts: each asks at a moment of its own, an eighth before or behind half the lifetime.
        eighths_ns = lifetime_ns // 8 * (sum(map(ord, self.allowance_id)) % 256) // 128
        self._until_ns = sent_ns + lifetime_ns * 3 // 8 + eighths_ns
        self._calls_most = self.granted.calls_count // 2
        self._amount_most = self.granted.amount_nusd // 2
        self._tokens_most = self.granted.tokens_count // (2 if self.counts_tokens else 1)

    def draw(  # noqa: PLR0912 - in one piece, because every call pays for every call
        self, facts: Facts, prompt: int | None, output: int | None, cost: int | None
    ) -> Drawn | None:
        """Admit one call; None where the daemon has to be asked.

        Shape:   thread-safe; the checks of docs/reference/allowances.md, "A draw".
        """
        if cost is None:
            written = self.output_tokens_default if output is None else output
            # Whatever is no plain whole number is the daemon's to refuse, or to understand.
            if type(prompt) is not int or type(written) is not int or prompt < 0 or written < 0:
                return None
            if prompt + written > self.context_window:
                return None
            if written > self.output_tokens_max:  # noqa: PLR1730 - a third of `min`'s time
                written = self.output_tokens_max
            tokens = prompt + written
            if prompt <= self._priced_below:
                hold = self._per_request + prompt * self._per_input + written * self._per_output
                if self._scale != 1:
                    hold = -(-hold // self._scale)
            elif self._scale < 0:
                return None
            else:
                hold = self.price.cost_nusd(prompt, written)
        else:
            hold, tokens = cost, self._tokens_beside(cost, prompt, output)
            if tokens < 0:
                return None
        now_ns = self._clock()
        gate = self._gate
        try:
            turn = self._take_turn()
        except IndexError:
            turn = self._wait_for_turn()
            if not turn:
                return None
        try:
            slots, base = self._slots, self._base
            number = self.calls_count + 1
            amount = self.amount_nusd + hold
            total = self.tokens_count + tokens
            if (
                now_ns >= self._until_ns
                or number > self._calls_most
                or amount > self._amount_most
                or total > self._tokens_most
                or gate.words[1] != gate.generation
                or slots[base] != self.serial
            ):
                return None
            # All checks passed; only writes below.
            self.calls_count = slots[base + 1] = number
            self.amount_nusd = slots[base + 2] = amount
            self.tokens_count = slots[base + 3] = total
        finally:
            self._end_turn(turn)
        drawn: Drawn = _new(Drawn)
        drawn.allowance = self
        drawn.facts = facts
        drawn.number = number
        drawn.hold_nusd = hold
        drawn.tokens_count = tokens
        drawn.prompt_tokens = prompt
        drawn.output_tokens = output
        drawn.cost_nusd = cost
        drawn.drawn_ns = now_ns
        drawn.end = None
        return drawn

    def _tokens_beside(self, cost: int, prompt: int | None, output: int | None) -> int:
        """Return the tokens of a call that states its cost; negative to refuse."""
        if output is None:
            output = self.output_tokens_default
        if self.counts_tokens and (prompt is None or output is None):
            return NOTHING_MAX
        prompt = 0 if prompt is None else prompt
        output = 0 if output is None else output
        if type(cost) is not int or type(prompt) is not int or type(output) is not int:
            return NOTHING_MAX
        if cost < 0 or prompt < 0 or output < 0 or prompt + output > self.context_window:
            return NOTHING_MAX
        return prompt + min(output, self.output_tokens_max)

    def _wait_for_turn(self) -> str:
        """Wait while another thread has the turn; empty where it never comes back."""
        until_ns = time.monotonic_ns() + round(TURN_WAIT_S * 1_000_000_000)
        while not self.is_stuck:
            try:
                return self._take_turn()
            except IndexError:
                self.is_stuck = time.monotonic_ns() >= until_ns
                time.sleep(0)  # lets the other thread go on
        return ""

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Have the turn for a block, or do without where it is lost: then nobody draws."""
        turn = self._wait_for_turn()
        try:
            yield
        finally:
            if turn:
                self._end_turn(turn)

    def draw_more(self, drawn: Drawn, amount_nusd: int, tokens_count: int) -> bool:
        """Enlarge the hold of a call that runs; False where there is no room for it."""
        gate = self._gate
        now_ns = self._clock()
        with self._ends, self._turn():
            slots, base = self._slots, self._base
            amount = self.amount_nusd + amount_nusd
            total = self.tokens_count + tokens_count
            if (
                self.is_closed
                or drawn.end is not None
                or now_ns >= self.ends_ns
                or amount > self.granted.amount_nusd
                or total > self.granted.tokens_count
                or gate.words[1] != gate.generation
                or slots[base] != self.serial
            ):
                return False
            # All checks passed; only writes below.
            self.amount_nusd = slots[base + 2] = amount
            self.tokens_count = slots[base + 3] = total
            drawn.hold_nusd += amount_nusd
            drawn.tokens_count += tokens_count
        return True

    def hold_of(self, stated: Stated) -> int:
        """Price a call as `draw` would; 0 where that is not known."""
        prompt, output, cost = stated
        if cost is not None:
            return cost if type(cost) is int else 0
        output = self.output_tokens_default if output is None else output
        if prompt is None or output is None or self.price.scale < 0:
            return 0
        return self.price.cost_nusd(prompt, min(output, self.output_tokens_max))

    def stretch(self) -> bool:
        """Let the second half be drawn; False if it was so before, or nothing may be drawn."""
        granted = self.granted
        with self._turn():
            if self.is_low or self.is_closed:
                return False
            self.is_low = True
            self._until_ns = self.ends_ns
            self._calls_most = granted.calls_count
            self._amount_most = granted.amount_nusd
            self._tokens_most = granted.tokens_count
        return True

    def close(self) -> None:
        """Let nothing more be drawn, whoever tries."""
        with self._turn():
            self.is_closed = True
            self._calls_most = NOTHING_MAX

    def sums(self) -> Sums:
        """Say how far it was drawn, all three at one moment."""
        with self._turn():
            calls, amount, tokens = self.calls_count, self.amount_nusd, self.tokens_count
        return Sums(calls, amount, tokens)

    def count_in(self, slots: Words, base: int) -> bool:
        """Write the sums to this slot from now on; False if the slot is not the allowance's."""
        with self._turn():
            if slots[base] != self.serial:
                return False
            slots[base + 1] = self.calls_count
            slots[base + 2] = self.amount_nusd
            slots[base + 3] = self.tokens_count
            self._slots, self._base = slots, base
        return True

    def close_draw(self, drawn: Drawn, end: End) -> bool | None:
        """Take the first end of a call: True; None if it was the same before, False if another."""
        with self._ends:
            known = drawn.end
            if known is None:
                drawn.end = end
                return True
        return None if same_end(known, end) else False


def _or_most(granted: pb.Allowance, name: str) -> int:
    """Read a bound; without one, no ask may state more than `COUNT_MAX` anyway."""
    bound: int = getattr(granted, name)
    return bound if granted.HasField(name) else COUNT_MAX
