"""From engaging a kill switch to the last process that stops drawing."""

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.agents import (
    BUSY_ROUND,
    DENIED_NS,
    DRAWN_COUNT,
    LAST_BEGUN_NS,
    LAST_DRAWN_NS,
    REFUSED_NS,
    REFUSED_ROUND,
    Board,
    agents,
)
from bench.daemon import measured_daemon, operating
from bench.figures import Figure, p99
from bench.workload import unhurried_policy_text
from costd.wire.pb import control_pb2 as pb

NS_PER_MS: Final = 1_000_000
PACE_MS: Final = 5.0
"""200 admits a second in each of 32 processes: what two cores carry with room to spare, so that
what is measured is the kill and not the queue for a core."""
_BUSY_S_MAX: Final = 60.0
_DENIED_S_MAX: Final = 30.0
_SETTLED_S: Final = 0.6
"""So long agents go on before the kill: allowances grow to what they draw in a lifetime first."""
_MOMENT_S_MAX: Final = 0.3
_POLL_S: Final = 0.005


class KillCameLate(Exception):
    """A call was drawn in a process after the operator had the answer that all is stopped."""


@dataclass(slots=True)
class Seen:
    """What the agents saw of every kill, in ms; one value for each process and round."""

    refused: list[float] = field(default_factory=list)
    """From the moment the call was made to the first draw that was refused in the process."""
    refused_after_answer: list[float] = field(default_factory=list)
    """The same from its answer; negative where the process was sooner."""
    denied: list[float] = field(default_factory=list)
    """From the moment the call was made to the daemon's denial of that call."""
    last_drawn: list[float] = field(default_factory=list)
    """From the moment the call was made to the last draw admitted; 0 if that was before."""
    worst: list[float] = field(default_factory=list)
    """The largest of `refused`, one value a round."""
    answered: list[float] = field(default_factory=list)
    """How long the operator waited for the answer, one value a round."""
    draws_per_s: list[float] = field(default_factory=list)
    """How often all agents together drew while they were busy, one value a round."""
    late_draws_count: int = 0
    """Processes that began an admitted draw after the operator had the answer."""


class KillToDeny:
    """One round: agents are busy, everything is killed, everyone is denied, it is released.

    Shape:   with pages, agents and daemon share a Unix socket; without, agents come over TCP and
             hear of the kill on their streams.
    """

    def __init__(
        self,
        directory: Path,
        stack: ExitStack,
        *,
        agents_count: int,
        with_pages: bool,
        pace_ms: float = PACE_MS,
    ) -> None:
        kind = f"kill-{'pages' if with_pages else 'stream'}-{pace_ms:g}"
        directory = directory / kind
        flags = () if with_pages else ("--listen", "127.0.0.1:0")
        daemon = measured_daemon(directory, unhurried_policy_text(), flags)
        stack.callback(daemon.close)
        daemon.start()
        address = daemon.address if with_pages else daemon.listen_address
        self._with_pages = with_pages
        self._pace_ms = pace_ms
        self._agents_count = agents_count
        self._control = stack.enter_context(operating(daemon))
        self._board: Board = stack.enter_context(
            agents(directory / "board", address, count=agents_count, pace_ms=pace_ms)
        )
        self._random = random.Random(9)
        self.seen = Seen()

    def round(self) -> None:
        """Measure once.

        Errors:  KillCameLate, where pages promise that it does not; RuntimeError if the agents
                 do not become busy or are not denied.
        """
        board, seen = self._board, self.seen
        number = board.number + 1
        board.number = number
        self._await(BUSY_ROUND, number, "draws from an allowance", _BUSY_S_MAX)
        drawn_before, busy_ns = self._drawn_count(), time.monotonic_ns()
        time.sleep(_SETTLED_S + self._random.uniform(0, _MOMENT_S_MAX))
        drawn, until_ns = self._drawn_count() - drawn_before, time.monotonic_ns()
        seen.draws_per_s.append(drawn / (until_ns - busy_ns) * 1e9)
        engage = pb.EngageKillRequest(kill_id=f"bench-{number}", reason="measured")
        called_ns = time.monotonic_ns()
        self._control.EngageKill(engage)
        answered_ns = time.monotonic_ns()
        self._await(REFUSED_ROUND, number, "was denied", _DENIED_S_MAX)
        self._read(called_ns, answered_ns)
        release = pb.ReleaseKillRequest(kill_id=f"bench-{number}", reason="measured")
        self._control.ReleaseKill(release)

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        if not self._pace_ms:
            return [
                self._told("kill_to_deny_spinning_ms_p99", "with pages, all spinning", "refused"),
                self._told(
                    "kill_to_last_draw_spinning_ms_p99",
                    "to the last draw admitted, all spinning",
                    "last_drawn",
                ),
            ]
        if not self._with_pages:
            return [
                self._told("kill_to_deny_nopages_ms_p99", "without pages", "refused"),
                self._told(
                    "kill_to_last_draw_nopages_ms_p99",
                    "to the last draw admitted, without pages",
                    "last_drawn",
                ),
            ]
        every = f"every {self._pace_ms:g} ms"
        return [
            Figure(
                key="kill_to_deny_ms_p99",
                what=f"kill switch engaged to the first draw refused, p99 over "
                f"{self._agents_count} processes that draw {every}, and rounds",
                unit="ms",
                samples=(p99(self.seen.refused),),
                target=20,
            ),
            self._told("kill_answer_to_deny_ms_p99", "from its answer", "refused_after_answer"),
            self._told("kill_to_last_draw_ms_p99", "to the last draw admitted", "last_drawn"),
            self._told("kill_to_denied_ms_p99", "to the daemon's denial", "denied"),
            self._by_round("kill_to_deny_ms_worst", "the slowest process of a round", "worst"),
            self._by_round("kill_engage_ms", "until the operator has the answer", "answered"),
            Figure(
                key="kill_agents_draws_per_s",
                what="draws a second of all agents together while they are busy",
                unit="/s",
                samples=tuple(self.seen.draws_per_s),
                decimals=0,
            ),
        ]

    def _read(self, called_ns: int, answered_ns: int) -> None:
        seen, board, worst = self.seen, self._board, 0.0
        for agent in range(self._agents_count):
            refused_ns = board.read(agent, REFUSED_NS)
            refused_ms = (refused_ns - called_ns) / NS_PER_MS
            worst = max(worst, refused_ms)
            seen.refused.append(refused_ms)
            seen.refused_after_answer.append((refused_ns - answered_ns) / NS_PER_MS)
            seen.denied.append((board.read(agent, DENIED_NS) - called_ns) / NS_PER_MS)
            last_ns = board.read(agent, LAST_DRAWN_NS)
            seen.last_drawn.append(max(0, last_ns - called_ns) / NS_PER_MS)
            seen.late_draws_count += board.read(agent, LAST_BEGUN_NS) > answered_ns
        seen.worst.append(worst)
        seen.answered.append((answered_ns - called_ns) / NS_PER_MS)
        if self._with_pages and seen.late_draws_count:
            raise KillCameLate("a call was drawn in a process after the kill had been answered")

    def _await(self, word: int, number: int, what: str, at_most_s: float) -> None:
        give_up = time.monotonic() + at_most_s
        everyone = range(self._agents_count)
        while left := [agent for agent in everyone if self._board.read(agent, word) != number]:
            if time.monotonic() > give_up:
                raise RuntimeError(f"none of the agents {left} {what} within {at_most_s:g} s")
            time.sleep(_POLL_S)

    def _drawn_count(self) -> int:
        return sum(self._board.read(agent, DRAWN_COUNT) for agent in range(self._agents_count))

    def _told(self, key: str, what: str, name: str) -> Figure:
        samples: list[float] = getattr(self.seen, name)
        return Figure(key=key, what=f"the same {what}, p99", unit="ms", samples=(p99(samples),))

    def _by_round(self, key: str, what: str, name: str) -> Figure:
        samples: list[float] = getattr(self.seen, name)
        return Figure(key=key, what=what, unit="ms", samples=tuple(samples))
