"""Client processes that admit calls in a loop until a kill switch stops them.

    python -m bench.agents --address unix:/… --board FILE --count 32 --pace-ms 1

One process forks the agents before it connects anywhere; each agent then is a client of its own.
What they see stands on the board, a mapped file, in times of the clock that all processes share.
"""

import argparse
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from costd_client import Client, Reason, Source
from costd_client.scope import Scope, scope_fields

WORD_BYTES: Final = 8
_HEAD_WORDS: Final = 8
_AGENT_WORDS: Final = 8
_ROUND: Final = 0
STOPPED: Final = -1
BUSY_COUNT: Final = 50
"""Calls in a row that an agent draws before it counts as busy."""

_DENIED_PAUSE_S: Final = 0.002
_ASKED_PAUSE_S: Final = 0.05
"""After a call that the daemon decided: as an agent that makes it; so that 32 agents without an
allowance do not bury the daemon."""
_END_S: Final = 20.0

BUSY_ROUND, REFUSED_ROUND, REFUSED_NS, DENIED_NS, LAST_BEGUN_NS, LAST_DRAWN_NS, DRAWN_COUNT = range(
    7
)
"""Words of one agent.

Which round it is busy in; which round it was stopped in, and when: a draw was refused in the
process, the daemon's denial was there; when the last draw that was admitted began and ended; how
many it drew. All times are of the monotonic clock.
"""


class Board:
    """The mapped file: one word from the benchmark to all, a few from each agent back."""

    def __init__(self, path: Path, agents_count: int) -> None:
        """Open the file, making it if there is none."""
        size = WORD_BYTES * (_HEAD_WORDS + agents_count * _AGENT_WORDS)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(file, size)
            self.words = memoryview(mmap.mmap(file, size)).cast("q")
        finally:
            os.close(file)

    @property
    def number(self) -> int:
        """The round that agents work in; STOPPED ends them."""
        return self.words[_ROUND]

    @number.setter
    def number(self, number: int) -> None:
        self.words[_ROUND] = number

    def base(self, agent: int) -> int:
        """Return the index of an agent's first word."""
        return _HEAD_WORDS + agent * _AGENT_WORDS

    def read(self, agent: int, word: int) -> int:
        """Read one word of an agent."""
        return self.words[self.base(agent) + word]


class _Agent:
    """One agent: draws, and notes when it was refused and told why."""

    def __init__(self, board: Board, number: int, address: str, pace_s: float) -> None:
        self._words = board.words
        self._base = board.base(number)
        self._pace_s = pace_s
        self._client = Client(address, caller=f"agent-{number:02d}", allowances=True, timeout_s=10)
        self._turned_ns = 0
        send = self._client.send

        def noting(rpc: Any) -> Any:
            """Note when a call turned to the daemon: nothing could be drawn for it."""
            self._turned_ns = self._turned_ns or time.monotonic_ns()
            return send(rpc)

        labels = {"project": "api", "user": f"u{number:07d}", "agent_type": "coder"}
        fields = {"task_class": "draft", "provider": "openai", "model": "gpt-4o"}
        self._scope = Scope(self._client.rules, scope_fields(labels, fields), noting)

    def work(self) -> None:
        """Draw round after round until stopped."""
        words, base = self._words, self._base
        while (number := words[_ROUND]) != STOPPED:
            if words[base + REFUSED_ROUND] == number:
                time.sleep(_DENIED_PAUSE_S)
            else:
                self._draw_until_denied(number)
        self._client.close()

    def _draw_until_denied(self, number: int) -> None:
        words, base, admit = self._words, self._base, self._scope.admit
        read, pace_s, in_a_row = time.monotonic_ns, self._pace_s, 0
        while words[_ROUND] == number:
            self._turned_ns = 0
            begun_ns = read()
            decision = admit(prompt_tokens=1_200, max_output_tokens=400)
            ended_ns = read()
            if decision.source is Source.ALLOWANCE:
                words[base + LAST_BEGUN_NS] = begun_ns
                words[base + LAST_DRAWN_NS] = ended_ns
                words[base + DRAWN_COUNT] += 1
                in_a_row += 1
                if in_a_row == BUSY_COUNT:
                    words[base + BUSY_ROUND] = number
                if pace_s:
                    time.sleep(pace_s)
            elif decision.reason is Reason.KILL_SWITCH:
                words[base + REFUSED_NS] = self._turned_ns
                words[base + DENIED_NS] = ended_ns
                words[base + REFUSED_ROUND] = number
                return
            else:
                in_a_row = 0
                time.sleep(_ASKED_PAUSE_S)


@contextmanager
def agents(board_path: Path, address: str, *, count: int, pace_ms: float) -> Iterator[Board]:
    """Run so many agents in processes of their own; yields their board."""
    board = Board(board_path, count)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "bench.agents", "--address", address),
            *("--board", str(board_path), "--count", str(count), "--pace-ms", str(pace_ms)),
        ],
        stdin=subprocess.PIPE,
    )
    try:
        yield board
    finally:
        board.number = STOPPED
        try:
            process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _stop_with_owner(board: Board) -> None:
    """Stop all agents once whoever started them is gone, however it ended."""
    sys.stdin.buffer.read()
    board.number = STOPPED


def _run_child(arguments: argparse.Namespace, number: int) -> None:
    """Be one agent, and end without the parent's clean-up."""
    status = 1
    try:
        board = Board(arguments.board, arguments.count)
        _Agent(board, number, arguments.address, arguments.pace_ms / 1_000).work()
        status = 0
    except BaseException as error:
        with suppress(OSError):
            os.write(2, f"agent {number} ended: {error!r}\n".encode())
        raise
    finally:
        os._exit(status)


def main() -> int:
    """Fork the agents, and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", required=True)
    parser.add_argument("--board", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--pace-ms", type=float, required=True, help="0: without a pause")
    arguments = parser.parse_args()
    children = []
    for number in range(arguments.count):
        child = os.fork()
        if not child:
            _run_child(arguments, number)
        children.append(child)
    board = Board(arguments.board, arguments.count)
    threading.Thread(target=_stop_with_owner, args=(board,), daemon=True).start()
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
