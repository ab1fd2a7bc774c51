"""The trace a request belongs to, where the program traces with OpenTelemetry.

The package is not imported here: a program without it pays for one look into `sys.modules`.
"""

from __future__ import annotations

import sys
from typing import Any

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
