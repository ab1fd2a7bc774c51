"""What the daemon does a few times a second, between requests."""

import asyncio
from collections import Counter
from typing import Final

from costd.clock import ticks_ns
from costd.daemon.sweeper import Sweeper
from costd.daemon.timekeeping import Timekeeper
from costd.errors import CostdError
from costd.model.time import NS_PER_S
from costd.telemetry.logs import Log, Seldom

TICK_S: Final = 0.2
"""How late an expiry or an automatic release may be noticed."""
SAVE_EVERY_NS: Final = NS_PER_S
LOG_EVERY_NS: Final = 60 * NS_PER_S
"""A store that refuses writes refuses every tick's; one line a minute is enough."""


class Upkeep:
    """Sweeps, saves the clock, and tells the log what alerts were raised."""

    def __init__(
        self, sweeper: Sweeper, timekeeper: Timekeeper, log: Log, *, tick_s: float = TICK_S
    ) -> None:
        self._sweeper = sweeper
        self._tick_s = tick_s
        self._timekeeper = timekeeper
        self._log = log
        self._saved_ns = 0
        self._complaints = Seldom(LOG_EVERY_NS)
        self.alerts: Counter[str] = Counter()
        """Alerts since the start, by kind."""

    async def run(self) -> None:
        """Tick until cancelled; whatever goes wrong is logged, and the next tick tries again."""
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                while self.tick():  # noqa: ASYNC110  waits for nothing: lets asks in between
                    await asyncio.sleep(0)
            except Exception as error:  # noqa: BLE001  expiries must go on, whatever this was
                self._complain(error)

    def tick(self) -> bool:
        """Do one slice; return whether more is due at once.

        Errors: StoreUnavailable, StoreCorrupt.
        """
        self.tell_alerts()
        looked_at = self._sweeper.sweep()
        if ticks_ns() - self._saved_ns >= SAVE_EVERY_NS:
            self._timekeeper.save()
            self._saved_ns = ticks_ns()
        return looked_at >= self._sweeper.retention.slice_count

    def tell_alerts(self) -> None:
        """Log the alerts that were committed since the last time."""
        ledger = self._sweeper.ledger
        raised, ledger.recent_alerts = ledger.recent_alerts, []
        for alert in raised:
            self.alerts[alert.kind] += 1
            self._log.warning(
                "alert",
                kind=alert.kind,
                rule=alert.rule,
                key=alert.key,
                threshold_bp=alert.threshold_bp,
                utilisation_bp=alert.utilisation_bp,
                amount_nusd=alert.amount_nusd,
                message=alert.message,
            )

    def _complain(self, error: Exception) -> None:
        if not self._complaints.passes():
            return
        if isinstance(error, CostdError):
            self._log.error("upkeep_failed", problem=str(error))
        else:
            self._log.error("upkeep_failed", exc_info=error)
