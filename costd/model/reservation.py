"""Money held for somebody until it is settled, voided or expired, exactly once."""

from enum import IntEnum

import msgspec

from costd.model.ask import Ask
from costd.model.decision import Decision
from costd.model.usage import Usage

ALLOWANCE_PREFIX = "allowance "
"""Begins the ask ids of allowances, which the daemon makes; callers may not use it."""


class ReservationState(IntEnum):
    """Numbers are those of `costd.v1.ReservationState`."""

    HELD = 1
    SETTLED = 2
    VOIDED = 3
    EXPIRED = 4


class Move(IntEnum):
    """What can be done to a reservation."""

    SETTLE = 1
    VOID = 2
    EXPIRE = 3
    EXTEND = 4


RESERVATION_MOVES: dict[ReservationState, dict[Move, ReservationState]] = {
    ReservationState.HELD: {
        Move.SETTLE: ReservationState.SETTLED,
        Move.VOID: ReservationState.VOIDED,
        Move.EXPIRE: ReservationState.EXPIRED,
        Move.EXTEND: ReservationState.HELD,
    },
    ReservationState.SETTLED: {},
    ReservationState.VOIDED: {},
    # A settle that comes late replaces the charge with the truth.
    ReservationState.EXPIRED: {Move.SETTLE: ReservationState.SETTLED},
}


class Excuse(IntEnum):
    """Why a hold was allowed to pass a limit."""

    NONE = 0
    GRANTED = 1
    SHADOW = 2
    UNLEASED = 3
    """No lease, nobody to ask for one, and a policy that lets calls pass then."""


class CounterLine(msgspec.Struct, frozen=True, array_like=True):
    """What a reservation holds on one budget's counter."""

    key: bytes
    unit: str
    hold: int
    reserve_hold: int = 0
    excuse: Excuse = Excuse.NONE


class RateLine(msgspec.Struct, frozen=True, array_like=True):
    """What a reservation took from one token bucket; `ns_num / ns_den` is the refill per unit."""

    key: bytes
    unit: str
    taken: int
    ns_num: int
    ns_den: int


class Reservation(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One call's hold, open or closed, with the ask and the decision it came from.

    `due_ns`, on the steady clock, is when the sweeper will look at it next: while it is open, to
    expire it; once it is closed, to forget it. `settled_price_id` is of the price a settle was
    computed from, so that the same settle costs the same whatever the catalogue says by then.
    """

    reservation_id: bytes
    caller: str
    ask: Ask
    decision: Decision
    state: ReservationState
    counters: tuple[CounterLine, ...]
    rates: tuple[RateLine, ...]
    hold_nusd: int
    ceiling_nusd: int | None
    admitted_ns: int
    admitted_steady_ns: int
    due_ns: int
    reported: Usage | None = None
    reported_nusd: int = 0
    cost_nusd: int = 0
    closed_ns: int = 0
    settled_price_id: str = ""

    @property
    def admitted_as_ask(self) -> bool:
        """Whether an ask made it; a record, which cannot expire, did otherwise."""
        return self.decision.expires_ns > 0

    @property
    def is_allowance(self) -> bool:
        """Whether it is an allowance's, and so settled by reports, draw by draw."""
        return self.ask.ask_id.startswith(ALLOWANCE_PREFIX)

    @property
    def facts(self) -> dict[str, str]:
        """What selectors read of the call it is for."""
        decision = self.decision
        return {
            **self.ask.labels,
            "task_class": self.ask.task_class,
            "provider": decision.provider,
            "model": decision.model,
            "tier": decision.tier,
        }

    @property
    def expires_ns(self) -> int:
        """When it expires by the wall clock of its admit; follows extensions."""
        return self.admitted_ns + self.due_ns - self.admitted_steady_ns
