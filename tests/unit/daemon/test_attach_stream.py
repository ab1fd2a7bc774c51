"""The stream around the desk: clients that do not read, and clients without number."""

import asyncio

import pytest
from allowance_world import World

from costd.daemon.clients.attach import READ_AHEAD_COUNT, WAITING_COUNT_MAX, Attach
from costd.errors import Overloaded
from costd.wire.pb import admission_pb2 as pb


class Context:
    """What the stream reads of a call's context."""

    def invocation_metadata(self):
        return (("costd-caller", "ann"),)


class Stream:
    """One client: sends when told to, and reads when told to."""

    def __init__(self, attach, number=0):
        self._sent = asyncio.Queue()
        self.read_count = 0
        self._messages = attach(self._raws(), Context())
        self.send(hello=pb.Hello(session_id=f"session-{number:016}"))

    async def _raws(self):
        while (raw := await self._sent.get()) is not None:
            self.read_count += 1
            yield raw

    def send(self, **message):
        self._sent.put_nowait(pb.ClientMessage(**message).SerializeToString())

    def end(self):
        self._sent.put_nowait(None)

    async def hear(self):
        return pb.DaemonMessage.FromString(await anext(self._messages))

    async def close(self):
        await self._messages.aclose()


async def turns(count=2_000):
    for _ in range(count):
        await asyncio.sleep(0)


def asking():
    return pb.AllowanceRequest(request_id="r", calls_count=0)


async def test_a_client_that_does_not_read_is_not_read_from():
    stream = Stream(Attach(World().desk))
    assert (await stream.hear()).HasField("welcome")
    for _ in range(500):
        stream.send(request=asking())
    await turns()
    assert stream.read_count <= READ_AHEAD_COUNT + 2
    for _ in range(500):
        assert (await stream.hear()).HasField("grant")
    stream.end()
    with pytest.raises(StopAsyncIteration):
        await stream.hear()


@pytest.mark.parametrize("sends", [False, True])
async def test_a_client_that_reads_nothing_is_told_so_much_and_no_more(sends):
    world = World()
    stream = Stream(Attach(world.desk))
    await stream.hear()
    if sends:
        for _ in range(500):
            stream.send(request=asking())
        await turns()
    for _ in range(WAITING_COUNT_MAX + 100):
        world.desk.policy_changed()
    for _ in range(WAITING_COUNT_MAX):
        await stream.hear()
    with pytest.raises(Overloaded, match="attach anew"):
        await stream.hear()
    assert world.desk.attached == {}


async def test_streams_leave_room_for_calls():
    attach = Attach(World().desk, streams_count_max=2)
    streams = [Stream(attach, number) for number in range(3)]
    for stream in streams[:2]:
        await stream.hear()
    with pytest.raises(Overloaded, match="rpcs_count_max"):
        await streams[2].hear()
    await streams[0].close()
    again = Stream(attach, 4)
    assert (await again.hear()).HasField("welcome")
    for stream in (streams[1], again):
        await stream.close()
