"""Bodies that arrive at once: who is turned away, by what arrives, in which order."""

import asyncio

import pytest

from costd.injector.bodies import LARGE_BYTES, Bodies, TurnedAway


class Wire:
    """A body as it arrives: a part at a time, when the test says so."""

    def __init__(self):
        self._parts = asyncio.Queue()

    def send(self, size):
        self._parts.put_nowait(b"x" * size)

    def end(self):
        self._parts.put_nowait(None)

    async def __aiter__(self):
        while (part := await self._parts.get()) is not None:
            yield part


async def reading(bodies, address, size, wait_s=60):
    """A body of which so much has arrived."""
    wire = Wire()
    task = asyncio.create_task(bodies.read(wire, address, wait_s))
    wire.send(size)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return wire, task


async def test_the_largest_of_the_address_that_holds_the_most_is_turned_away():
    bodies = Bodies(10)
    _, small = await reading(bodies, "crowd", 9)
    _, large = await reading(bodies, "crowd", 10)
    _, other = await reading(bodies, "crowd", 10)
    _, api = await reading(bodies, "api", 10)
    wire, more = await reading(bodies, "api", 5)
    with pytest.raises(TurnedAway) as turned:
        await large
    assert turned.value.code == 429
    wire.end()
    assert await more == b"xxxxx"
    assert not any(each.done() for each in (small, other, api))
    for each in (small, other, api):
        each.cancel()


async def test_the_newest_is_turned_away_where_it_is_the_largest_of_the_most():
    bodies = Bodies(10)
    held = [await reading(bodies, "crowd", 9) for _ in range(4)]
    _, newest = await reading(bodies, "crowd", 10)
    with pytest.raises(TurnedAway):
        await newest
    assert not any(task.done() for _, task in held)
    for _, task in held:
        task.cancel()


async def test_one_that_is_late_already_is_in_nobodys_way():
    """Its time was over in the same moment, and it has not been told of it."""
    bodies = Bodies(10)
    held = [await reading(bodies, "crowd", 10) for _ in range(4)]
    late = next(iter(bodies._open))
    wire, newest = await reading(bodies, "api", 0)
    late.timeout.reschedule(asyncio.get_running_loop().time())
    wire.send(5)
    wire.end()
    assert await newest == b"xxxxx"
    with pytest.raises(TurnedAway):
        await held[0][1]
    for _, task in held[1:]:
        task.cancel()


async def test_of_large_bodies_that_are_here_at_once_others_come_between():
    bodies, read = Bodies(10 * LARGE_BYTES), []

    async def reviewed(name, size):
        wire = Wire()
        wire.send(size)
        wire.end()
        await bodies.read(wire, name, 60)
        read.append(name)

    large = [(name, LARGE_BYTES + 1) for name in ("first", "second", "third")]
    async with asyncio.TaskGroup() as group:
        for each in (*large, ("small", 10)):
            group.create_task(reviewed(*each))
    assert read.index("small") < read.index("second")
    assert [name for name in read if name != "small"] == ["first", "second", "third"]


async def test_a_body_that_waits_for_its_turn_is_held_and_makes_room():
    bodies = Bodies(2 * LARGE_BYTES)
    async with bodies._turns:
        waiting = []
        for _ in range(4):
            wire, task = await reading(bodies, "crowd", 2 * LARGE_BYTES)
            wire.end()
            waiting.append(task)
        wire, api = await reading(bodies, "api", 5)
        with pytest.raises(TurnedAway) as turned:
            await waiting[0]
        assert turned.value.code == 429
        wire.end()
        assert await api == b"xxxxx"
    assert [len(await task) for task in waiting[1:]] == [2 * LARGE_BYTES] * 3
