"""Which trace something belongs to."""

from typing import NamedTuple


class Trace(NamedTuple):
    """A span elsewhere, as W3C Trace Context writes it; the default is none."""

    traceparent: str = ""
    tracestate: str = ""

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self.traceparent)


NO_TRACE = Trace()
