"""What a coordinator does by itself: live, listen to its replicas, make days, migrate."""

import asyncio
from collections.abc import Callable
from typing import Final

from costd.clock import Clock
from costd.coordinator.drills import Drills
from costd.coordinator.forgetting import PASS_EVERY_S, Forgetting, Passes
from costd.coordinator.killbook import KillBook
from costd.coordinator.migrate import Migrator
from costd.coordinator.postgres import PostgresStore
from costd.coordinator.publishing import Publishing
from costd.coordinator.reception import Reception
from costd.coordinator.settings import Settings
from costd.coordinator.store import Notice, Topic
from costd.coordinator.usage_rows import day_of
from costd.errors import CoordinatorUnavailable, CostdError
from costd.model.time import NS_PER_S
from costd.telemetry.logs import Log

BEAT_S: Final = 1.0
"""How often a replica says that it lives, and tries to store what the database has not got yet."""
OLDER_EVERY_S: Final = 15.0
"""How often it looks whether those of an older release are gone."""
BEAT_S_MAX: Final = 5.0
"""A beat is one small statement; a database that takes longer for it stands still."""


class Upkeep:
    """One replica's work beside its daemons."""

    def __init__(
        self,
        store: PostgresStore,
        migrator: Migrator,
        instance_id: str,
        *,
        clock: Clock,
        log: Log,
        reception: Reception,
        publishing: Publishing,
        kills: KillBook,
        drills: Drills,
        settings: Settings,
        revive: Callable[[], str] | None = None,
    ) -> None:
        """Take care of one replica; `revive` starts a database of its own that died."""
        self._store = store
        self._migrator = migrator
        self._instance_id = instance_id
        self._clock = clock
        self._log = log
        self._reception = reception
        self._publishing = publishing
        self._kills = kills
        self._drills = drills
        self._settings = settings
        self._revive = revive
        self._forgetting = Forgetting(
            store,
            lambda: reception.published.rules,
            {"days": self._turn_days},
            clock=clock,
            log=log,
            settings=settings,
        )
        self.database_problem = ""
        """Why the database cannot be used now; empty if it can."""
        self._is_leaving = False

    async def run(self) -> None:
        """Beat until cancelled; whatever goes wrong is logged once, and tried again."""
        while True:
            try:
                await self._beat_watched()
                self._tell("")
            except CoordinatorUnavailable as error:
                self._tell(str(error))
                await self._start_again()
            except Exception as error:  # noqa: BLE001  this must go on, whatever that was
                self._log.error("upkeep_failed", exc_info=error)
            await asyncio.sleep(BEAT_S)

    async def leave(self) -> None:
        """Tell the database that this replica is gone; no beat registers it again.

        Errors:  CoordinatorUnavailable.
        """
        self._is_leaving = True
        await self._store.leave(self._instance_id)

    async def forget(self) -> None:
        """Forget what is old, until cancelled."""
        await self._forgetting.run()

    async def listen(self) -> None:
        """Hear what other replicas tell, until cancelled.

        Ensures: what could not be read when it was told of is read once the database is back; what
                 cannot be acted upon, such as a policy of a newer release, is logged and passed by.
        """
        async for told in self._store.notices():
            notice = told
            while True:
                try:
                    await self._heard(notice)
                    break
                except CoordinatorUnavailable as error:
                    self._tell(str(error))
                    notice = Notice(topic=Topic.ALL)
                except Exception as error:  # noqa: BLE001  the next kill switch must be heard of
                    self._log.error("upkeep_failed", exc_info=error)
                    break
                await asyncio.sleep(BEAT_S)

    async def _heard(self, notice: Notice) -> None:
        if notice.topic is Topic.RECALL:
            self._reception.recall(notice.keys, self._clock.now().wall_ns)
        if notice.word is not None:
            self._drills.heard(notice.word)
        if notice.topic in {Topic.KILLS, Topic.ALL}:
            await self._kills.refresh(self._clock.now().wall_ns)
        if notice.topic in {Topic.RESTORED, Topic.ALL}:
            self._reception.learn(await self._store.lends_from_ns())
        # Last: one that this release cannot read must not keep the others from being heard.
        if notice.topic in {Topic.POLICY, Topic.ALL}:
            await self._publishing.refresh()

    async def _beat_watched(self) -> None:
        """Beat; a database that stands still breaks nothing and answers nothing, and is told of."""
        beat = asyncio.create_task(self._beat())
        try:
            await asyncio.wait({beat}, timeout=BEAT_S_MAX)
            if not beat.done():
                self._tell(f"{self._store.where} has not answered for {BEAT_S_MAX:g} s")
            await beat
        finally:
            beat.cancel()

    async def _beat(self) -> None:
        is_known = await self._store.beat(self._instance_id)
        if not is_known and not self._is_leaving:
            await self._migrator.run(self._instance_id, address=self._settings.listen)
        await self._kills.store_all()

    async def contract(self) -> None:
        """Take away what only coordinators of an older release needed, until cancelled.

        Shape:   looks more often while some of them live: one that was killed says no word of it.
        """
        passes = Passes({"contract": self._contract}, self._log)
        while True:
            passes.begin()
            is_waiting = await passes.slice()
            await asyncio.sleep(OLDER_EVERY_S if is_waiting else PASS_EVERY_S)

    async def _contract(self) -> bool:
        plan = await self._migrator.contract()
        for each in plan.contractions:
            self._log.info("migrated", migration=str(each))
        return bool(plan.waiting)

    async def _turn_days(self) -> bool:
        """Make the partitions of the next days, and drop those that are old."""
        kept_ns = self._settings.usage_retention_s * NS_PER_S
        await self._store.days.add_ahead()
        await self._store.days.drop_before(day_of(self._clock.now().wall_ns - kept_ns))
        return False

    async def _start_again(self) -> None:
        if self._revive is None:
            return
        try:
            await asyncio.to_thread(self._revive)
        except CostdError as error:
            self._log.error("database_not_started", problem=str(error))

    def _tell(self, problem: str) -> None:
        if problem and not self.database_problem:
            self._log.error("database_unavailable", problem=problem)
        elif self.database_problem and not problem:
            self._log.info("database_back")
        self.database_problem = problem
