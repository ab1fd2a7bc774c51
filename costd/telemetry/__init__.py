"""Metrics and logs: what operators see of a daemon.

structlog colours tracebacks with rich and Pygments where they are installed, as they are for
costctl. A log has no use for that, and a daemon none for the 3 MiB: so it is not told of them.
"""

import sys
from typing import Final

_RICH: Final = "rich"

if _RICH not in sys.modules:
    sys.modules[_RICH] = None  # type: ignore[assignment]  # how an import is made to find nothing
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules[_RICH]
