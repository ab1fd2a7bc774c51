import asyncio

from costd.coordinator.killbook import KillBook
from costd.model.events import AuditRecord
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import Selector


class SlowStore:
    """Takes its time, so that others come meanwhile."""

    def __init__(self):
        self.kills, self.audit = [], []

    async def put_kill(self, kill):
        await asyncio.sleep(0)
        self.kills.append(kill.kill_id)
        return len(self.kills)

    async def append_audit(self, records):
        await asyncio.sleep(0)
        self.audit += [record.subject for record in records]

    async def list_kills(self, *, include_released=False):
        return len(self.kills), []


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
