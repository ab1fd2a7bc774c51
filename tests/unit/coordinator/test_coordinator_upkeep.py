"""What a replica does where the database fails it for a moment."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from costd.coordinator import upkeep as upkeeping
from costd.coordinator.store import Notice, Topic
from costd.coordinator.upkeep import Upkeep
from costd.errors import CoordinatorUnavailable, InvalidPolicy
from costd.testing import FakeClock


class Log:
    def __init__(self):
        self.events = []

    def error(self, event, **_):
        self.events.append(event)

    info = error


class Told:
    """A database that tells of a kill switch, and cannot be read the first time."""

    old = None
    where = "PostgreSQL at nowhere"

    def __init__(self):
        self.fails_count = 1
        self.read = []

    async def notices(self):
        yield Notice(topic=Topic.KILLS, version=1)

    async def lends_from_ns(self):
        return 0

    async def refresh(self, *_now_ns):
        if self.fails_count:
            self.fails_count -= 1
            raise CoordinatorUnavailable("no connection within 5 s")
        self.read.append("kills" if _now_ns else "policy")


@pytest.fixture
def upkeep(monkeypatch):
    monkeypatch.setattr(upkeeping, "BEAT_S", 0)
    monkeypatch.setattr(upkeeping, "Forgetting", lambda *_, **__: None)
    store = Told()
    made = Upkeep(
        store,
        None,
        "one",
        clock=FakeClock(),
        log=Log(),
        reception=SimpleNamespace(learn=lambda _ns: None),
        publishing=store,
        kills=store,
        drills=None,
        settings=None,
    )
    return made, store


async def test_a_switch_that_could_not_be_read_when_it_was_told_of_is_read_later(upkeep):
    made, store = upkeep
    await made.listen()
    assert "kills" in store.read
    assert "policy" in store.read, "nobody knows what else was missed"


async def test_a_policy_that_cannot_be_read_keeps_nobody_from_hearing_of_kill_switches(upkeep):
    made, store = upkeep
    store.fails_count, learned = 0, []
    made._reception.learn = learned.append

    async def unreadable():
        raise InvalidPolicy("policy 7: version 2 is not known")

    async def notices():
        yield Notice(topic=Topic.ALL)
        yield Notice(topic=Topic.KILLS, version=1)

    made._publishing = SimpleNamespace(refresh=unreadable)
    store.notices = notices
    await made.listen()
    assert store.read == ["kills", "kills"]
    assert learned == [0]
    assert made._log.events == ["upkeep_failed"]


async def test_a_beat_during_its_leaving_does_not_register_a_replica_again(upkeep):
    made, store = upkeep
    known, registered = {"one"}, []

    async def beat(instance_id):
        return instance_id in known

    async def leave(instance_id):
        known.discard(instance_id)
        await made._beat()

    async def migrate(instance_id, *, address):
        registered.append(instance_id)

    async def nothing():
        pass

    store.beat, store.leave, store.store_all = beat, leave, nothing
    made._migrator, made._settings = SimpleNamespace(run=migrate), SimpleNamespace(listen="")
    await made.leave()
    assert (known, registered) == (set(), [])


async def test_what_waits_for_older_coordinators_is_looked_at_again_soon(upkeep, monkeypatch):
    monkeypatch.setattr(upkeeping, "OLDER_EVERY_S", 0)
    made, _ = upkeep
    plans = [
        SimpleNamespace(contractions=(), waiting=("0004_regions.contract",)),
        SimpleNamespace(contractions=("0004_regions.contract",), waiting=()),
    ]

    async def contract():
        return plans.pop(0)

    made._migrator = SimpleNamespace(contract=contract)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await made.contract()
    assert plans == []
    assert made._log.events == ["migrated"], "and then in ten minutes"
