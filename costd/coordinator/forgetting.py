"""What a coordinator forgets, a slice at a time, so that nothing waits for what has grown."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from costd.clock import Clock
from costd.coordinator.fading import Fading, Kept
from costd.coordinator.postgres import PostgresStore
from costd.coordinator.settings import Settings
from costd.engine.rules import Rules
from costd.errors import CostdError
from costd.model.time import NS_PER_S
from costd.telemetry.logs import Log

PASS_EVERY_S: Final = 600.0
SLICE_EVERY_S: Final = 1.0
"""What one pass does not finish at once goes on so soon: leases come first."""
ALERTS_KEPT_NS: Final = 30 * 86_400 * NS_PER_S
AUDIT_KEPT_NS: Final = 400 * 86_400 * NS_PER_S
"""As daemons keep theirs; released kill switches as long as audit."""
HOURS_KEPT_NS: Final = 800 * 86_400 * NS_PER_S
"""So long it is also known who was forgotten: usage that came twice would be counted in no sum."""
REVIVES_FROM_SCHEMA: Final = 3
"""Coordinators of an older one do not know a daemon again that was forgotten."""

Task = Callable[[], Awaitable[bool]]
"""Forgets one slice; returns whether there may be more."""


class Passes:
    """Goes through tasks again and again, each a slice at a time.

    Ensures: one that fails waits for the next pass, and holds up no other.
    """

    def __init__(self, tasks: Mapping[str, Task], log: Log) -> None:
        self._tasks = tasks
        self._log = log
        self._due: list[str] = []
        self.problems: dict[str, str] = {}
        """Why a task could not be done when it was last tried, by its name."""

    @property
    def is_under_way(self) -> bool:
        """Whether a pass has begun and not ended."""
        return bool(self._due)

    def begin(self) -> None:
        """Begin a pass."""
        self._due = list(self._tasks)

    async def slice(self) -> bool:
        """Do a slice of every task that is not done; returns whether any may have more to do."""
        left = []
        for name in self._due:
            try:
                has_more = await self._tasks[name]()
            except CostdError as error:
                self._tell(name, str(error))
                continue
            except Exception as error:  # noqa: BLE001  a bug in one must not stop the others
                self._log.error("forgetting_failed", task=name, exc_info=error)
                continue
            self._tell(name, "")
            if has_more:
                left.append(name)
        self._due = left
        return bool(left)

    def _tell(self, name: str, problem: str) -> None:
        """Log what is wrong once, and once that it is over."""
        before = self.problems.pop(name, "")
        if problem:
            self.problems[name] = problem
            if not before:
                self._log.warning("not_forgotten", task=name, problem=problem)
        elif before:
            self._log.info("forgotten_again", task=name)


class Forgetting:
    """One replica's part of it; all of them do the same, and none is in the other's way."""

    def __init__(
        self,
        store: PostgresStore,
        rules: Callable[[], Rules],
        before: Mapping[str, Task],
        *,
        clock: Clock,
        log: Log,
        settings: Settings,
    ) -> None:
        """Forget by the settings and the policy in force; `before` is done first in each pass."""
        self._store = store
        self._old = store.old
        self._clock = clock
        self._settings = settings
        self._log = log
        kept = Kept(
            daemons_ns=settings.daemons_retention_s * NS_PER_S,
            runs_ns=settings.runs_retention_s * NS_PER_S,
        )
        self._fading = Fading(store, rules, kept)
        self.passes = Passes(
            {
                **before,
                "windows": self._windows,
                "daemons": self._daemons,
                "tombstones": self._tombstones,
                "counters": self._counters,
                "hours": self._hours,
                "alerts": self._alerts,
                "audit": self._audit,
                "recalls": self._recalls,
            },
            log,
        )

    async def run(self) -> None:
        """Forget until cancelled."""
        while True:
            if not self.passes.is_under_way:
                self.passes.begin()
            has_more = await self.passes.slice()
            await asyncio.sleep(SLICE_EVERY_S if has_more else PASS_EVERY_S)

    async def _windows(self) -> bool:
        kept_ns = self._settings.counters_retention_s * NS_PER_S
        return self._is_full(await self._old.windows(ended_before_ns=self._now_ns - kept_ns))

    async def _daemons(self) -> bool:
        live = await self._store.list_instances()
        if any(each.schema_number < REVIVES_FROM_SCHEMA for each in live):
            return False
        gone = await self._fading.daemons(self._now_ns)
        if gone:
            self._log.info("daemons_forgotten", count=len(gone), first=gone[0], last=gone[-1])
        return self._fading.has_more_daemons

    async def _tombstones(self) -> bool:
        # An event that came a second time would be refused, and all behind it.
        kept_ns = max(HOURS_KEPT_NS, self._settings.usage_retention_s * NS_PER_S)
        return self._is_full(await self._old.tombstones(before_ns=self._now_ns - kept_ns))

    async def _counters(self) -> bool:
        await self._fading.counters(self._now_ns)
        return self._fading.has_more_counters

    async def _hours(self) -> bool:
        return self._is_full(await self._old.hours(before_ns=self._now_ns - HOURS_KEPT_NS))

    async def _alerts(self) -> bool:
        return self._is_full(await self._old.alerts(before_ns=self._now_ns - ALERTS_KEPT_NS))

    async def _audit(self) -> bool:
        return self._is_full(await self._old.audit(before_ns=self._now_ns - AUDIT_KEPT_NS))

    async def _recalls(self) -> bool:
        return self._is_full(await self._old.recalls())

    def _is_full(self, count: int) -> bool:
        return count >= self._old.slice_count

    @property
    def _now_ns(self) -> int:
        return self._clock.now().wall_ns
