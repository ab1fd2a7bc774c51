"""What a stopping daemon still does for its fleet: tell all, give all back, say what it could not.

Where the books outlive the daemon, what is not delivered waits in them. In a pod they may end with
it: what was not told then is presumed spent, and the usage events are lost.
"""

import asyncio
from collections.abc import Collection
from typing import Final

from costd.daemon.clients.desk import Desk
from costd.daemon.fleet.fleet import Fleet
from costd.errors import StoreUnavailable
from costd.model.allowance import AllowanceState
from costd.telemetry.logs import Log

LOOK_EVERY_S: Final = 0.02


def left_behind(desk: Desk) -> frozenset[bytes]:
    """Name the allowances that client processes which are gone have not returned.

    A client that is attached may draw on while its daemon is away; one that died draws no more, and
    its page says how far it got. That is booked when the allowance's lifetime ends.
    """
    return frozenset(
        allowance_id
        for allowance_id, allowance in desk.books.out.items()
        if allowance.state is AllowanceState.OPEN and allowance.session_id not in desk.attached
    )


class Leaving:
    """One daemon's leave of its fleet, after the last call."""

    def __init__(self, fleet: Fleet, desk: Desk, left_behind: Collection[bytes]) -> None:
        self._fleet = fleet
        self._tenancy = fleet.tenancy
        self._desk = desk
        self._left_behind = left_behind
        self._problem = ""
        """Why what is held cannot be given back; empty where it can."""

    async def within(self, at_most_s: float, insisted: asyncio.Event, log: Log) -> None:
        """Wait until the coordinator has heard all, unless somebody insists.

        Shape:  what is to be told comes from elsewhere: from the sweeper, which books what dead
                clients drew, and the member, which may have to join again first.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + at_most_s
        while not self._is_over() and loop.time() < ends and not insisted.is_set():  # noqa: ASYNC110  receipts come to the tenancy, which knows no loop
            await asyncio.sleep(LOOK_EVERY_S)
        if not self._is_over():
            self._tell(log)

    def _is_over(self) -> bool:
        tenancy = self._tenancy
        if any(map(self._is_open, self._left_behind)):
            return False
        if tenancy.is_enrolled:
            return self._gives_back() and tenancy.is_settled
        return not (tenancy.outbox.waiting_count or tenancy.ledger.lent.held)

    def _gives_back(self) -> bool:
        """Give back what is not used, which a full disk forbids; usage can be told all the same."""
        try:
            self._tenancy.leave()
        except StoreUnavailable as error:
            self._problem = str(error)
            return False
        self._problem = ""
        return True

    def _is_open(self, allowance_id: bytes) -> bool:
        allowance = self._desk.books.out.get(allowance_id)
        return allowance is not None and allowance.state is AllowanceState.OPEN

    def _tell(self, log: Log) -> None:
        """Say what of these books nobody else knows."""
        tenancy = self._tenancy
        log.warning(
            "left_untold",
            problem=(
                self._problem or self._fleet.member.problem or "the coordinator took too long"
            ),
            usage_events_count=tenancy.outbox.waiting_count,
            counters_count=len(tenancy.ledger.lent.held | tenancy.ledger.fleet_changed),
            allowances_count=sum(map(self._is_open, self._left_behind)),
        )
