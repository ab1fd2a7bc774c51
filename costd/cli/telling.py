"""What a program tells of itself while it runs: its log, and what collectors are sent."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from costd import __version__
from costd.telemetry.exports import Exports, exporting
from costd.telemetry.logs import Level, Log, Style, adopt_library_logs, make_log


class Told(Protocol):
    """The settings that say how; implemented by every program's."""

    @property
    def log_level(self) -> Level:
        """The least that is logged."""
        ...

    @property
    def log_format(self) -> Style:
        """For machines or for people."""
        ...


@contextmanager
def telling(program: str, name: str, settings: Told) -> Iterator[tuple[Log, Exports]]:
    """Log to standard error and export what `OTEL_*` says, while the block runs.

    Shape:   `name` says which of its kind the program is.
    Errors:  SettingsError for a variable that asks for what cannot be had.
    """
    adopt_library_logs(style=settings.log_format, stream=sys.stderr)
    with exporting(program, version=__version__, name=name) as exports:
        log = make_log(
            level=settings.log_level,
            style=settings.log_format,
            stream=sys.stderr,
            copy=exports.logger,
        )
        yield log, exports
