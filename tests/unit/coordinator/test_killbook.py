import asyncio

from costd.coordinator import killbook
from costd.coordinator.killbook import KEEP_NS, KillBook, stored_soon
from costd.errors import CoordinatorUnavailable
from costd.model.events import AuditRecord
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import Selector


class SlowStore:
    """Takes its time, so that others come meanwhile."""

    def __init__(self):
        self.kills, self.audit = [], []
        self.rows = {}

    async def put_kill(self, kill):
        await asyncio.sleep(0)
        self.kills.append(kill.kill_id)
        self.rows[kill.kill_id] = kill
        return len(self.kills)

    async def append_audit(self, records):
        await asyncio.sleep(0)
        self.audit += [record.subject for record in records]

    async def list_kills(self, *, include_released=False):
        return len(self.kills), list(self.rows.values())


async def put(book, kill_id, at_ns):
    switch = KillSwitch(
        kill_id=kill_id,
        scope=Selector(),
        mode=KillMode.DENY_ALL,
        reason="a test",
        actor="ops",
        engaged_ns=at_ns,
    )
    audit = AuditRecord(at_ns=at_ns, actor="ops", action="kill_engaged", subject=kill_id, detail="")
    return await book.put(switch, audit)


async def test_what_is_stored_by_several_at_once_is_stored_and_audited_once(tmp_path):
    store = SlowStore()
    book = KillBook(store, tmp_path / "kills.journal", lambda message: None)
    await asyncio.gather(put(book, "a", 1), book.store_all(), put(book, "b", 2), book.refresh(0))
    assert (store.kills, store.audit) == (["a", "b"], ["a", "b"])
    assert (tmp_path / "kills.journal").read_bytes() == b""


async def test_what_a_database_lacks_that_was_set_back_is_stored_there_again(tmp_path):
    store = SlowStore()
    book = KillBook(store, tmp_path / "kills.journal", lambda message: None)
    await put(book, "a", 1)
    early = store.rows["a"]
    await put(book, "a", 3)
    await put(book, "b", 2)
    store.rows = {"a": early}
    await book.refresh(0)
    assert {kill_id: kill.engaged_ns for kill_id, kill in store.rows.items()} == {"a": 3, "b": 2}
    assert store.audit == ["a", "a", "b"]
    stored = list(store.kills)
    await book.refresh(0)
    assert store.kills == stored


def test_what_was_released_long_ago_is_neither_learnt_nor_told_again(tmp_path):
    now_ns = 100 * KEEP_NS
    old, fresh = (
        KillSwitch(
            kill_id=kill_id,
            scope=Selector(),
            mode=KillMode.DENY_ALL,
            reason="a test",
            actor="ops",
            engaged_ns=released_ns - 1,
            released_ns=released_ns,
            released_by="ops",
        )
        for kill_id, released_ns in (("old", now_ns - KEEP_NS - 1), ("fresh", now_ns - 1))
    )

    class Kept(SlowStore):
        async def list_kills(self, *, include_released=False):
            return 2, [old, fresh]

    told = []
    book = KillBook(Kept(), tmp_path / "kills.journal", told.append)

    async def refresh_twice():
        await book.refresh(now_ns)
        await book.refresh(now_ns)

    asyncio.run(refresh_twice())
    assert [[each.kill.kill_id for each in message.kills] for message in told] == [["fresh"]]
    assert book.version == told[0].version


class HungStore(SlowStore):
    """Answers once it is let go on."""

    def __init__(self):
        super().__init__()
        self.goes_on = asyncio.Event()

    async def put_kill(self, kill):
        await self.goes_on.wait()
        return await super().put_kill(kill)


async def test_a_database_that_hangs_keeps_nobody_who_engages_a_switch(tmp_path, monkeypatch):
    monkeypatch.setattr(killbook, "STORED_WITHIN_S", 0.01)
    store, told = HungStore(), []
    book = KillBook(store, tmp_path / "kills.journal", told.append, storing=stored_soon)
    assert await put(book, "a", 1) is False
    assert len(told[-1].kills) == 1
    store.goes_on.set()
    await asyncio.gather(*killbook._under_way)
    assert (store.kills, store.audit) == (["a"], ["a"])


async def test_a_drill_is_audited_once_the_database_is_back_whoever_died_meanwhile(tmp_path):
    class Gone(SlowStore):
        async def append_audit(self, records):
            raise CoordinatorUnavailable("gone")

    record = AuditRecord(at_ns=1, actor="ops", action="kill_drilled", subject="drill-1", detail="")
    journal, told = tmp_path / "kills.journal", []
    assert await KillBook(Gone(), journal, told.append).note(record) is False
    store = SlowStore()
    assert await KillBook(store, journal, told.append).store_all() is True
    assert (store.kills, store.audit) == ([], ["drill-1"])
    assert told == [], "a drill is no switch"
