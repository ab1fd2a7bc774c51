"""The trace a request belongs to, where the program traces with OpenTelemetry.

The package is not imported here: a program without it pays for one look into `sys.modules`.
Calls drawn from allowances cost a microsecond and no request, so nothing is done of itself there;
`trace_attributes` is for whoever wants them in a trace.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costd_client.decision import Decision

Metadata = tuple[tuple[str, str], ...]


def with_trace(metadata: Metadata) -> Metadata:
    """Add the current span's context, as W3C Trace Context writes it; unchanged without one."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    current = getattr(trace, "get_current_span", None)  # absent while it is being imported
    if current is None:
        return metadata
    context = current().get_span_context()
    if not context.is_valid:
        return metadata
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    state = context.trace_state.to_header() if context.trace_state else ""
    return (*metadata, ("traceparent", parent), *((("tracestate", state),) if state else ()))


def trace_attributes(decision: Decision) -> dict[str, str | int]:
    """Say of a decision what costd's own span of it says, for a span of the program.

    Shape:   `span.set_attributes(trace_attributes(decision))`; `costd.source` says where it was
             made. No label, no text and no counter's key is in it, since those may name people.
    """
    wire, binding = decision.wire, decision.wire.binding
    told: dict[str, str | int] = {
        "costd.verdict": decision.verdict.name.lower(),
        "costd.reason": decision.reason.name.lower(),
        "costd.source": str(decision.source),
        "costd.task_class": decision.ask.task_class,
        "costd.tier": wire.tier,
        "costd.tier.asked": wire.asked_tier,
        "costd.provider": decision.provider,
        "costd.model": decision.model,
        "costd.ask.id": decision.ask_id,
        "costd.reservation.id": wire.reservation_id,
        "costd.budget": wire.tightest_budget,
        "costd.utilisation_bp": wire.utilisation_bp,
        "costd.binding.rule": binding.rule,
        "costd.binding.kind": binding.kind,
        "costd.policy.revision": wire.policy_revision,
    }
    return {"costd.hold_nusd": wire.hold_nusd} | {
        key: value for key, value in told.items() if value
    }
