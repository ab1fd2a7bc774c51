"""One pretended call, from ask to settle, through the Python client; and its journal entry."""

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from costd_client import AskFields, AsyncClient, Client, Decision, Denied, Settlement
from costd_client.ids import new_ask_id

from costd.cli.demo.journal import Entry, Usage
from costd.cli.times import wall_ns
from costd.clock import ticks_ns

TIMEOUT_S = 30.0
"""A busy machine may make the daemon slow; a demo must not fail for that."""
CACHED_BP = 3_000
"""Share of calls that a cache can answer, where the daemon asks for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """What an agent is about to do, and what its provider will measure if nothing shortens it."""

    labels: dict[str, str]
    task_class: str
    provider: str
    model: str
    prompt_tokens: int
    max_output_tokens: int
    usage: Usage
    override_grant: str = ""
    index: int = -1
    lasts_s: float = 0.0
    attempts_failed: int = 0
    """How often the provider fails before it answers; each costs a retry where one is left."""
    cache_hit: bool = False

    def fields(self, ask_id: str) -> AskFields:
        """State the ask as the client takes it."""
        return {
            "ask_id": ask_id,
            "task_class": self.task_class,
            "labels": self.labels,
            "provider": self.provider,
            "model": self.model,
            "prompt_tokens": self.prompt_tokens,
            "max_output_tokens": self.max_output_tokens,
            "override_grant": self.override_grant,
        }

    def measured(self, decision: Decision) -> Usage:
        """What the provider measures once the decision's shorter output is heeded."""
        most = decision.max_output_tokens
        if most is None or most >= self.usage.output_tokens:
            return self.usage
        return Usage(
            prompt_tokens=self.usage.prompt_tokens,
            output_tokens=most,
            cached_tokens=self.usage.cached_tokens,
        )


def drawn(seed: int, *parts: object) -> random.Random:
    """Make a generator of its own for one agent or call, the same in every run of a seed."""
    return random.Random("/".join(map(str, (seed, *parts))))  # noqa: S311  a draw, not a secret


async def make(client: AsyncClient, planned: PlannedCall) -> Entry:
    """Ask, pretend to call, settle or void; the directives are obeyed."""
    ask_id, asked_ns = new_ask_id(), ticks_ns()
    call = client.call(**planned.fields(ask_id))
    try:
        async with call:
            asking_ns, at_ns = ticks_ns() - asked_ns, wall_ns()
            if planned.cache_hit and call.directives.cache:
                call.void()
                usage, retries = None, 0
            else:
                call.sent()
                await asyncio.sleep(planned.lasts_s)
                most = call.max_retries
                retries = min(planned.attempts_failed, 3 if most is None else most)
                usage = planned.measured(call.decision)
                call.settle(
                    prompt_tokens=usage.prompt_tokens,
                    output_tokens=usage.output_tokens,
                    cached_tokens=usage.cached_tokens or None,
                    retry_count=retries,
                )
    except Denied as denied:
        return write_entry(planned, denied.decision, wall_ns(), ticks_ns() - asked_ns)
    return write_entry(
        planned, call.decision, at_ns, asking_ns,
        settlement=call.settlement, usage=usage, retry_count=retries,
    )  # fmt: skip


def make_at_once(client: Client, planned: PlannedCall) -> Entry:
    """Ask and settle, with nothing in between."""
    asked_ns = ticks_ns()
    decision = client.admit(**planned.fields(new_ask_id()))
    asking_ns, at_ns = ticks_ns() - asked_ns, wall_ns()
    if not decision.allowed:
        return write_entry(planned, decision, at_ns, asking_ns)
    usage = planned.measured(decision)
    settlement = client.settle(
        decision,
        prompt_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens or None,
    )
    return write_entry(planned, decision, at_ns, asking_ns, settlement=settlement, usage=usage)


def write_entry(
    planned: PlannedCall,
    decision: Decision,
    at_ns: int,
    asking_ns: int,
    *,
    settlement: Settlement | None = None,
    usage: Usage | None = None,
    retry_count: int = 0,
) -> Entry:
    """Note a call and how it was closed; usage counts only where it was."""
    wire = decision.wire
    closed = {"usage": usage, "cost_nusd": 0, "overrun_nusd": 0}
    if settlement is not None and usage is not None:
        closed |= {"cost_nusd": settlement.wire.cost_nusd, "overrun_nusd": settlement.overrun_nusd}
    ending = "denied" if settlement is None else "settled" if usage else "voided"
    return Entry(
        at_ns=at_ns,
        ask_id=decision.ask_id,
        labels=planned.labels,
        task_class=planned.task_class,
        asked_provider=planned.provider,
        asked_model=planned.model,
        prompt_tokens=planned.prompt_tokens,
        max_output_tokens=planned.max_output_tokens,
        verdict=decision.verdict.name.lower(),
        reason=decision.reason.name,
        tier=decision.tier,
        provider=decision.provider,
        model=decision.model,
        ending=ending,
        index=planned.index,
        hold_nusd=decision.hold_nusd,
        directives=_directives(wire.directives),
        rule=wire.binding.rule,
        upgrade_text=decision.upgrade_text,
        grant_id=wire.grant_id,
        grant_refusal=wire.grant_refusal,
        reservation_id=decision.reservation_id,
        source=decision.source,
        retry_count=retry_count,
        asking_ns=asking_ns,
        **closed,  # type: ignore[arg-type]  # each is its field's type
    )


def _directives(directives: Any) -> dict[str, int]:
    return {field.name: int(value) for field, value in directives.ListFields()}
