"""One agent's process: calls admitted in it, beside what else could be asked instead."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from costd_client import Client, Source

from bench.daemon import measured_daemon
from bench.figures import Figure, p50_us, p99_us, ratios, timed
from bench.rivals import (
    Ask,
    limits_absence,
    limits_asking,
    limits_version,
    redis_absence,
    redis_asking,
    redis_version,
)
from bench.workload import MATCHED_BUDGETS, RULE_AMOUNTS, Asks, unhurried_policy_text

PROMPT_TOKENS: Final = 1_200
OUTPUT_TOKENS: Final = 400
USED: Final = {"prompt_tokens": 1_150, "cached_tokens": 600, "output_tokens": 180}
RIVAL_SHARE: Final = 10
"""A rival's ask takes so many times longer that a tenth of the calls is enough for a median."""

WARM_S_MAX: Final = 10.0
HEARD_S_MAX: Final = 60.0
_WARM_RUN_COUNT: Final = 1_000


@dataclass(slots=True)
class Drawing:
    """Durations of one kind of admit, in ns: in the process, and all of them."""

    drawn: list[int] = field(default_factory=list)
    everything: list[int] = field(default_factory=list)

    def add(self, duration_ns: int, source: str) -> None:
        """Count one; only what was decided in the process counts as drawn."""
        self.everything.append(duration_ns)
        if source == Source.ALLOWANCE:
            self.drawn.append(duration_ns)

    @property
    def asked_share(self) -> float:
        """The share that the daemon decided, in percent."""
        return 100 * (1 - len(self.drawn) / len(self.everything))


class AllowanceAndRivals:
    """One round: a bound scope, a client with labels, whole calls, Redis, `limits`.

    One process, one call at a time, the daemon another process. Rounds are interleaved: each
    measures every one of them, beginning with another.
    """

    def __init__(self, directory: Path, stack: ExitStack, *, calls_count: int) -> None:
        self._count = calls_count
        directory = directory / "allowance"
        daemon = measured_daemon(directory, unhurried_policy_text())
        stack.callback(daemon.close)
        daemon.start()
        self._client = allowance_client(daemon.address)
        stack.callback(self._client.close)
        self._labels = [ask.labels for ask in Asks(6, users_count=1).model(50)]
        self._scope = bound_scope(self._client, self._labels[0])
        self.rival_absence = {"redis": redis_absence(), "limits": limits_absence()}
        self._rivals = self._open_rivals(directory, stack)
        self.scope_p50: list[float] = []
        self.scope_p99: list[float] = []
        self.scope_all_p99: list[float] = []
        self.asked_share: list[float] = []
        self.client_p50: list[float] = []
        self.call_p50: list[float] = []
        self.block_p50: list[float] = []
        self.rival_p50: dict[str, list[float]] = {name: [] for name in self._rivals}
        gc.collect()
        gc.freeze()

    def round(self) -> None:
        """Measure once."""
        parts: list[Callable[[], None]] = [
            *(self._bound, self._labelled, self._whole, self._block),
            *(lambda name=name: self._rival(name) for name in self._rivals),
        ]
        first = len(self.scope_p50) % len(parts)
        for part in parts[first:] + parts[:first]:
            part()

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            _figure(
                "allowance_scope_us_p50", "admit on a bound scope, p50", self.scope_p50, target=2
            ),
            _figure("allowance_scope_us_p99", "the same, p99", self.scope_p99, target=15),
            _figure(
                "allowance_client_us_p50",
                "client.admit with labels, p50",
                self.client_p50,
                target=4,
            ),
            _figure(
                "allowance_call_us_p50",
                "admit, then settle with usage queued for the daemon, p50",
                self.call_p50,
                target=15,
            ),
            self._ratio(
                *("redis", "redis_lua_over_allowance", 100),
                lambda: (
                    f"Redis {redis_version()}, Lua over {len(RULE_AMOUNTS)} counters, redis-py and "
                    "hiredis ÷ bound scope, p50"
                ),
            ),
            self._ratio(
                *("limits", "limits_memory_over_allowance", 3),
                lambda: (
                    f"limits {limits_version()}, {len(MATCHED_BUDGETS)} fixed windows in memory ÷ "
                    "bound scope, p50"
                ),
            ),
            _figure("allowance_block_us_p50", "a with block of client.call, p50", self.block_p50),
            _figure(
                "allowance_scope_all_us_p99",
                "admit on a bound scope, those asked of the daemon too, p99",
                self.scope_all_p99,
            ),
            Figure(
                key="allowance_asked_percent",
                what="of these, asked of the daemon",
                unit="%",
                samples=tuple(self.asked_share),
                decimals=3,
            ),
            *(
                _figure(f"{name}_us_p50", f"the same ask of {name}, p50", p50)
                for name, p50 in self.rival_p50.items()
            ),
        ]

    def _bound(self) -> None:
        warm_up(self._scope)
        admit, read, drawing = self._scope.admit, time.perf_counter_ns, Drawing()
        for _ in range(self._count):
            started_ns = read()
            decision = admit(prompt_tokens=PROMPT_TOKENS, max_output_tokens=OUTPUT_TOKENS)
            drawing.add(read() - started_ns, decision.source)
        self.scope_p50.append(p50_us(drawing.drawn))
        self.scope_p99.append(p99_us(drawing.drawn))
        self.scope_all_p99.append(p99_us(drawing.everything))
        self.asked_share.append(drawing.asked_share)

    def _labelled(self) -> None:
        warm_up(self._scope)
        admit, read, drawing = self._client.admit, time.perf_counter_ns, Drawing()
        for labels in self._drawn_labels():
            started_ns = read()
            decision = admit(
                task_class="draft",
                provider="openai",
                model="gpt-4o",
                prompt_tokens=PROMPT_TOKENS,
                max_output_tokens=OUTPUT_TOKENS,
                labels=labels,
            )
            drawing.add(read() - started_ns, decision.source)
        self.client_p50.append(p50_us(drawing.drawn))

    def _whole(self) -> None:
        warm_up(self._scope)
        admit, settle = self._scope.admit, self._client.settle
        read, drawing = time.perf_counter_ns, Drawing()
        for _ in range(self._count):
            started_ns = read()
            decision = admit(prompt_tokens=PROMPT_TOKENS, max_output_tokens=OUTPUT_TOKENS)
            settle(decision, **USED)
            drawing.add(read() - started_ns, decision.source)
        self.call_p50.append(p50_us(drawing.drawn))
        await_heard(self._client)

    def _block(self) -> None:
        warm_up(self._scope)
        begin, read, drawing = self._client.call, time.perf_counter_ns, Drawing()
        for labels in self._drawn_labels():
            started_ns = read()
            with begin(
                task_class="draft",
                provider="openai",
                model="gpt-4o",
                prompt_tokens=PROMPT_TOKENS,
                max_output_tokens=OUTPUT_TOKENS,
                labels=labels,
            ) as call:
                call.settle(**USED)
            drawing.add(read() - started_ns, call.decision.source)
        self.block_p50.append(p50_us(drawing.drawn))
        await_heard(self._client)

    def _rival(self, name: str) -> None:
        ask = self._rivals[name]
        durations = timed(lambda _: ask(), range(max(1, self._count // RIVAL_SHARE)))
        self.rival_p50[name].append(p50_us(durations))

    def _ratio(self, rival: str, key: str, target: float, what: Callable[[], str]) -> Figure:
        shape: dict[str, Any] = {"unit": "×", "target": target, "more_is_better": True}
        if rival not in self._rivals:
            skipped = self.rival_absence[rival]
            return Figure(key=key, what=f"{rival} ÷ bound scope", skipped=skipped, **shape)
        samples = ratios(self.rival_p50[rival], self.scope_p50)
        return Figure(key=key, what=what(), samples=samples, decimals=1, **shape)

    def _open_rivals(self, directory: Path, stack: ExitStack) -> dict[str, Ask]:
        rivals: dict[str, Ask] = {}
        if not self.rival_absence["redis"]:
            rivals["redis"] = stack.enter_context(redis_asking(directory, RULE_AMOUNTS))
        if not self.rival_absence["limits"]:
            rivals["limits"] = limits_asking(len(MATCHED_BUDGETS))
        return rivals

    def _drawn_labels(self) -> Sequence[Mapping[str, str]]:
        """As many labels as calls; every fiftieth call is the same run's."""
        times = self._count // len(self._labels) + 1
        return list(islice((labels for _ in range(times) for labels in self._labels), self._count))


def allowance_client(address: str) -> Client:
    """Connect as a program does that admits by itself."""
    return Client(address, caller="bench", allowances=True)


def bound_scope(client: Client, labels: Mapping[str, str]) -> Any:
    """Bind the measured kind of ask."""
    return client.scope(task_class="draft", provider="openai", model="gpt-4o", labels=labels)


def warm_up(scope: Any) -> list[Any]:
    """Admit until a thousand calls in a row were decided in the process; return all decisions.

    Shape:   a first allowance is small and grows eightfold each time; a pause lets one expire.
    Errors:  RuntimeError if that does not come to pass.
    """
    decisions, in_a_row = [], 0
    give_up = time.monotonic() + WARM_S_MAX
    while in_a_row < _WARM_RUN_COUNT:
        decision = scope.admit(prompt_tokens=PROMPT_TOKENS, max_output_tokens=OUTPUT_TOKENS)
        decisions.append(decision)
        in_a_row = in_a_row + 1 if decision.source == Source.ALLOWANCE else 0
        if time.monotonic() > give_up:
            raise RuntimeError(f"no allowance keeps up; the last decision was {decision!r}")
    return decisions


def await_heard(client: Client, *, most_unheard: int = 0) -> None:
    """Wait until the daemon has heard how calls ended, but for so many.

    Errors:  RuntimeError if that takes a minute.
    """
    assert client.attached is not None
    give_up = time.monotonic() + HEARD_S_MAX
    while (unheard := client.attached.session.unheard_count) > most_unheard:
        if time.monotonic() > give_up:
            raise RuntimeError(f"the daemon did not hear how {unheard:,} calls ended")
        time.sleep(0.001)


def _figure(key: str, what: str, samples: list[float], *, target: float | None = None) -> Figure:
    return Figure(key=key, what=what, unit="µs", samples=tuple(samples), target=target)
