"""A loop that admits its calls in its own process, from money that the daemon set aside."""

import msgspec
from costd_client import Client, Source

from costd.cli.demo.calls import TIMEOUT_S, PlannedCall, write_entry
from costd.cli.demo.journal import Entry, Usage
from costd.cli.times import wall_ns
from costd.clock import ticks_ns

CALLS_COUNT = 2_000
PROJECT = "loop"
CALL = PlannedCall(
    labels={"project": PROJECT, "agent": "loop-1"},
    task_class="chat",
    provider="openai",
    model="gpt-5-mini",
    prompt_tokens=1_000,
    max_output_tokens=100,
    usage=Usage(prompt_tokens=1_000, output_tokens=100),
)
"""Of no user, whose rate would end the loop. It uses what it asks for, so that its hold is its
cost, which a queued settlement does not state."""


class Unheard(Exception):
    """The daemon did not hear how the loop's calls ended."""


def spin(address: str) -> list[Entry]:
    """Admit and settle one call after the other, with nothing in between.

    Shape:   the first asks go to the daemon; once it has granted an allowance, none has to.
    Errors:  Unheard.
    """
    with Client(address, caller="demo", timeout_s=TIMEOUT_S, labels=CALL.labels) as client:
        scope = client.scope(task_class=CALL.task_class, provider=CALL.provider, model=CALL.model)
        entries = []
        for _ in range(CALLS_COUNT):
            asked_ns = ticks_ns()
            decision = scope.admit(
                prompt_tokens=CALL.prompt_tokens, max_output_tokens=CALL.max_output_tokens
            )
            asking_ns, at_ns = ticks_ns() - asked_ns, wall_ns()
            settlement = usage = None
            if decision.allowed:
                usage = CALL.usage
                settlement = client.settle(
                    decision, prompt_tokens=usage.prompt_tokens, output_tokens=usage.output_tokens
                )
            entry = write_entry(
                CALL, decision, at_ns, asking_ns, settlement=settlement, usage=usage
            )
            if settlement is not None and decision.source == Source.ALLOWANCE:
                entry = msgspec.structs.replace(entry, cost_nusd=decision.hold_nusd)
            entries.append(entry)
        if not client.flush(TIMEOUT_S):
            raise Unheard(f"the daemon did not hear of {client.unheard_count} calls in time")
    return entries
