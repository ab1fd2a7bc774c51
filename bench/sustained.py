"""As many calls as one process can admit, for seconds on end; then the books are compared."""

import time
from collections import Counter
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from costd_client import Client, Source

from bench.allowance import (
    HEARD_S_MAX,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    allowance_client,
    await_heard,
    bound_scope,
    warm_up,
)
from bench.daemon import measured_daemon, operating
from bench.figures import Figure
from bench.tally import Spent, Tally, compare, held_in_books, spent_in_books
from bench.workload import Asks, unhurried_policy_text

PROMPTS: Final = tuple(range(PROMPT_TOKENS, 0, -1))
"""Calls of many sizes, so that equal sums mean something."""
USAGES: Final = tuple(
    {"prompt_tokens": prompt, "cached_tokens": prompt // 3, "output_tokens": prompt // 5}
    for prompt in range(PROMPT_TOKENS, PROMPT_TOKENS - 16, -1)
)
MONEY: Final = "all-month"
TOKENS: Final = "tokens-day"
UNHEARD_COUNT_MAX: Final = 20_000
"""A client lets this many ended calls wait before it pauses; so memory stays bounded."""
_RUN_COUNT: Final = 100


class SustainedAdmits:
    """One round: a new client admits for so long as fast as it can, and returns the rest.

    The client counts every call, hold and token; after every round the daemon's books must say
    the same of all rounds together.
    """

    def __init__(self, directory: Path, stack: ExitStack, *, for_s: float) -> None:
        self._for_s = for_s
        self.daemon = measured_daemon(directory / "sustained", unhurried_policy_text())
        stack.callback(self.daemon.close)
        self.daemon.start()
        self._control = stack.enter_context(operating(self.daemon))
        self._labels = Asks(7).model(1)[0].labels
        self._counted = Tally()
        self.per_s: list[float] = []

    def round(self) -> None:
        """Measure once.

        Errors:  BooksDiffer.
        """
        client = allowance_client(self.daemon.address)
        try:
            scope = bound_scope(client, self._labels)
            self._counted = self._counted.plus(_tally_of(warm_up(scope)))
            started = time.perf_counter()
            admitted = _admit_for(scope, self._for_s)
            elapsed_s = time.perf_counter() - started
            self._counted = self._counted.plus(admitted)
            self.per_s.append(admitted.drawn_count / elapsed_s)
        finally:
            client.close(HEARD_S_MAX)
        booked = held_in_books(self._control, money=MONEY, tokens=TOKENS)
        compare("sustained admits", self._counted, booked)

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            Figure(
                key="allowance_admits_per_s",
                what=f"admits a second in one process for {self._for_s:g} s; "
                f"{self._counted.drawn_count:,} calls and their sum equal in the ledger",
                unit="/s",
                samples=tuple(self.per_s),
                target=200_000,
                more_is_better=True,
                decimals=0,
            )
        ]


class SustainedCalls:
    """One round: a new client admits and settles for so long; done when the daemon has it all.

    What calls cost is computed from the daemon's own price of each kind of usage, asked before.
    """

    def __init__(self, directory: Path, stack: ExitStack, *, for_s: float) -> None:
        self._for_s = for_s
        self.daemon = measured_daemon(directory / "calls", unhurried_policy_text())
        stack.callback(self.daemon.close)
        self.daemon.start()
        self._control = stack.enter_context(operating(self.daemon))
        self._labels = Asks(8).model(1)[0].labels
        self._costs_nusd = self._price()
        self.stored_count = 0
        self.per_s: list[float] = []
        self.admitted_per_s: list[float] = []

    def round(self) -> None:
        """Measure once.

        Errors:  BooksDiffer.
        """
        run = f"round-{len(self.per_s)}"
        client = allowance_client(self.daemon.address)
        try:
            scope = bound_scope(client, {**self._labels, "run": run})
            started = time.perf_counter()
            ended = _call_for(client, scope, self._for_s)
            admitted_s = time.perf_counter() - started
            await_heard(client)
        finally:
            client.close(HEARD_S_MAX)
        elapsed_s = time.perf_counter() - started
        counted = Spent(
            calls_count=ended.total(),
            cost_nusd=sum(self._costs_nusd[at] * count for at, count in ended.items()),
        )
        compare(run, counted, spent_in_books(self._control, where={"run": run}))
        self.stored_count += counted.calls_count
        self.per_s.append(counted.calls_count / elapsed_s)
        self.admitted_per_s.append(counted.calls_count / admitted_s)

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            Figure(
                key="allowance_calls_per_s",
                what=f"whole calls a second in one process for {self._for_s:g} s, until the last "
                f"is stored; {self.stored_count:,} usage events and their cost equal",
                unit="/s",
                samples=tuple(self.per_s),
                target=10_000,
                more_is_better=True,
                decimals=0,
            ),
            Figure(
                key="allowance_calls_ended_per_s",
                what=f"the same as the process sees it, at most {UNHEARD_COUNT_MAX:,} unheard",
                unit="/s",
                samples=tuple(self.admitted_per_s),
                decimals=0,
            ),
        ]

    def _price(self) -> list[int]:
        """Have the daemon price one call of each usage, one by one."""
        costs_nusd = []
        with Client(self.daemon.address, caller="bench", allowances=False) as client:
            scope = bound_scope(client, {**self._labels, "run": "priced"})
            for usage in USAGES:
                decision = scope.admit(prompt_tokens=PROMPT_TOKENS, max_output_tokens=OUTPUT_TOKENS)
                cost_nusd = client.settle(decision, **usage).cost_nusd
                assert cost_nusd is not None, "the daemon is there, so nothing is queued"
                costs_nusd.append(cost_nusd)
        return costs_nusd


def _admit_for(scope: Any, for_s: float) -> Tally:
    """Admit calls of many sizes until so much time has passed, and count them."""
    admit, drawn = scope.admit, Source.ALLOWANCE
    drawn_count = asked_count = amount_nusd = tokens_count = 0
    sizes = cycle(PROMPTS)
    end = time.perf_counter() + for_s
    while time.perf_counter() < end:
        for prompt in islice(sizes, _RUN_COUNT):
            decision = admit(prompt_tokens=prompt, max_output_tokens=OUTPUT_TOKENS)
            amount_nusd += decision.hold_nusd
            tokens_count += prompt + OUTPUT_TOKENS
            if decision.source is drawn:
                drawn_count += 1
            else:
                asked_count += 1
                _require_held(decision)
    return Tally(
        drawn_count=drawn_count,
        asked_count=asked_count,
        amount_nusd=amount_nusd,
        tokens_count=tokens_count,
    )


def _call_for(client: Client, scope: Any, for_s: float) -> "Counter[int]":
    """Admit and settle until so much time has passed; count by which usage it was."""
    admit, settle = scope.admit, client.settle
    ended: Counter[int] = Counter()
    end = time.perf_counter() + for_s
    while time.perf_counter() < end:
        for at, usage in enumerate(USAGES):
            decision = admit(prompt_tokens=PROMPT_TOKENS, max_output_tokens=OUTPUT_TOKENS)
            _require_held(decision)
            settle(decision, **usage)
            ended[at] += 1
        await_heard(client, most_unheard=UNHEARD_COUNT_MAX)
    return ended


def _tally_of(decisions: list[Any]) -> Tally:
    """Count what was admitted before the clock started."""
    drawn_count = sum(decision.source == Source.ALLOWANCE for decision in decisions)
    for decision in decisions:
        _require_held(decision)
    return Tally(
        drawn_count=drawn_count,
        asked_count=len(decisions) - drawn_count,
        amount_nusd=sum(decision.hold_nusd for decision in decisions),
        tokens_count=len(decisions) * (PROMPT_TOKENS + OUTPUT_TOKENS),
    )


def _require_held(decision: Any) -> None:
    if not (decision.allowed and decision.decided):
        raise RuntimeError(f"a call was not admitted: {decision!r}")
