"""What of a fleet fades: daemons that came once, counters of runs that are over."""

from collections.abc import Callable
from typing import Final

import msgspec

from costd.coordinator.store import CoordinatorStore
from costd.engine import keys, shares
from costd.engine.rules import Rules
from costd.model.lease import Pool
from costd.model.policy import WindowKind
from costd.model.time import NEVER_NS, NS_PER_S

PAGE_COUNT: Final = 1_000
HEARD_LATELY_NS: Final = 600 * NS_PER_S
"""A daemon that was not heard for so long does not ask for more, and leases grow by its part."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """How long what fades is kept."""

    daemons_ns: int
    """After a daemon was last heard."""
    runs_ns: int
    """After a counter whose window never ends was last changed."""
    counted_ns: int = HEARD_LATELY_NS
    """After a daemon was last heard, among those that share a counter."""


class Fading:
    """Looks at all daemons and counters again and again, a page at a time."""

    def __init__(self, store: CoordinatorStore, rules: Callable[[], Rules], kept: Kept) -> None:
        self._store = store
        self._rules = rules
        self._kept = kept
        self._after_id = ""
        self._after_key = b""

    async def daemons(self, now_ns: int) -> list[str]:
        """Forget daemons of the next page that hold nothing; returns who went."""
        self._after_id, gone = await self._store.old.daemons(
            heard_before_ns=now_ns - self._kept.daemons_ns, at_ns=now_ns, after_id=self._after_id
        )
        return gone

    @property
    def has_more_daemons(self) -> bool:
        """Whether there are pages of daemons left to look at."""
        return bool(self._after_id)

    async def counters(self, now_ns: int) -> list[bytes]:
        """Forget counters of the next page that are over, and count who shares the others.

        Shape:   returns those that were over when they were read.
        """
        rules, old = self._rules(), self._store.old
        changed_before_ns = now_ns - self._kept.runs_ns
        after = max(self._after_key, now_ns.to_bytes(8, "big"))
        page = await self._store.list_pools(after_key=after, limit_count=PAGE_COUNT)
        over = [
            key
            for key, pool in page
            if is_over(key, pool, rules, now_ns=now_ns, changed_before_ns=changed_before_ns)
        ]
        shared = [key for key, _ in page if is_shared(key, rules) and key not in over]
        if over:
            await old.counters(over, changed_before_ns=changed_before_ns)
        if shared:
            await old.recount(shared, heard_after_ns=now_ns - self._kept.counted_ns)
        self._after_key = page[-1][0] if len(page) == PAGE_COUNT else b""
        return over

    @property
    def has_more_counters(self) -> bool:
        """Whether there are pages of counters left to look at."""
        return bool(self._after_key)


def is_over(key: bytes, pool: Pool, rules: Rules, *, now_ns: int, changed_before_ns: int) -> bool:
    """Tell whether a counter can be forgotten whose window never ends.

    Shape:   that of a run, or of a rate, which nobody may use more of and nobody has for long.
             What a budget without an end has used counts for ever, and so does what the policy
             does not know: an earlier one may come back.
    Ensures: of a rate nothing is forgotten but that it is full.
    """
    end_ns, tag, _ = keys.split_counter_key(key)
    is_idle = 0 < pool.changed_ns < changed_before_ns
    is_used_up = pool.taken == pool.used and pool.reserve_taken == pool.reserve_used
    if end_ns < NEVER_NS or not is_idle or not is_used_up:
        return False
    rule, rated = rules.budgets.get(tag), rules.shared_rates.get(tag)
    if rule is not None:
        return rule.budget.window.kind is WindowKind.RUN
    return rated is not None and shares.unclaimed_ns(pool, now_ns) >= shares.burst_ns(rated.rate)


def is_shared(key: bytes, rules: Rules) -> bool:
    """Tell whether it matters how many daemons share a counter.

    Rates count by themselves who holds some, and a run lies with one daemon. How many were counted
    last says nothing: after an outage that was nobody, and all of them have come back since.
    """
    rule = rules.budgets.get(keys.tag_of(key))
    return rule is not None and rule.budget.window.kind is not WindowKind.RUN
