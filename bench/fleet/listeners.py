"""Streams that are attached, report as daemons do, and note when they hear of a kill switch.

    python -m bench.fleet.listeners --address HOST:PORT --name a --count 125 --report-s 1

Says `ready` once all are enrolled; then, each time the last of them has heard of a list of kill
switches, a line of JSON: its version, and when the first and the last heard, of the clock that all
processes share. Ends when its standard input does.
"""

import argparse
import asyncio
import json
import sys
import time
from typing import Final

from bench.fleet.streams import Stream, open_channel
from costd.wire.pb import fleet_pb2 as pb

JOINED_AT_ONCE: Final = 25


class Listeners:
    """The streams of one process."""

    def __init__(self, address: str, name: str, count: int, report_s: float) -> None:
        self._address = address
        self._name = name
        self._count = count
        self._report_s = report_s
        self._heard: dict[int, list[int]] = {}

    async def run(self) -> None:
        """Attach all, then listen until there is no more standard input."""
        joining = asyncio.Semaphore(JOINED_AT_ONCE)

        async def join(number: int) -> Stream:
            async with joining:
                channel = open_channel(self._address)
                return await Stream(channel, f"{self._name}-{number}").enrol()

        streams = await asyncio.gather(*(join(number) for number in range(self._count)))
        _say("ready")
        work = [asyncio.create_task(self._listen(stream)) for stream in streams]
        if self._report_s:
            work += [
                asyncio.create_task(self._report(stream, number))
                for number, stream in enumerate(streams)
            ]
        await asyncio.to_thread(sys.stdin.buffer.read)
        for each in work:
            each.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        for stream in streams:
            stream.close()

    async def _listen(self, stream: Stream) -> None:
        while True:
            kills: pb.KillList = await stream.read("kills")
            now_ns = time.monotonic_ns()
            heard = self._heard.setdefault(kills.version, [])
            heard.append(now_ns)
            if len(heard) == self._count:
                line = {"version": kills.version, "first_ns": min(heard), "last_ns": max(heard)}
                _say(json.dumps(line))

    async def _report(self, stream: Stream, number: int) -> None:
        """Report that nothing has changed; each at another moment."""
        await asyncio.sleep(self._report_s * number / self._count)
        while True:
            await stream.report()
            await asyncio.sleep(self._report_s)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Run until told to end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--report-s", type=float, required=True, help="0: they do not")
    chosen = parser.parse_args()
    asyncio.run(Listeners(chosen.address, chosen.name, chosen.count, chosen.report_s).run())


if __name__ == "__main__":
    main()
