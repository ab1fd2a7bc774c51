"""Logs of one line each: JSON for machines, columns for people."""

import contextlib
import json
import logging
import sys
from collections.abc import Hashable
from typing import Any, Final, Literal, TextIO, cast

import structlog
from opentelemetry._logs import Logger, SeverityNumber
from structlog.typing import FilteringBoundLogger, Processor

from costd.clock import SystemClock, ticks_ns
from costd.model.time import NS_PER_S

Level = Literal["debug", "info", "warning", "error"]
Style = Literal["json", "console"]
Log = FilteringBoundLogger

_LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_SEVERITIES: Final = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
}
_TOLD_APART: Final = frozenset({"time", "level", "event", "exc_info"})

COMPLAINT_EVERY_NS: Final = 60 * NS_PER_S
"""A collector that is away fails every batch; one line a minute tells as much as hundreds."""
KINDS_COUNT_MAX: Final = 1_000
"""Kinds that are remembered."""


def make_log(*, level: Level, style: Style, stream: TextIO, copy: Logger | None = None) -> Log:
    """Make a logger that writes `time`, `level`, `event` and fields to a stream.

    Shape:   `copy` is told the same, for a collector.
    Ensures: no process-wide settings change; whoever logs is handed this logger. A line that cannot
             be written is lost, and nobody else: whoever reads may be gone, or the disk full.
    """
    logger = structlog.wrap_logger(
        _Writer(stream),
        processors=[
            *_described(),
            *([_copied_to(copy)] if copy is not None else ()),
            *_rendered(style, stream),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    return cast("Log", logger)


def adopt_library_logs(*, style: Style, stream: TextIO) -> None:
    """Write what libraries log through `logging`, from warnings up, in the same form.

    Ensures: a header that is no UTF-8, of which gRPC would write a stack trace, is left out: it
             is refused with a reason, and whoever sends it must not fill the log. Nor must a
             collector that is away: each complaint of OpenTelemetry is written once a minute.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_bad_header)
    handler = logging.StreamHandler(stream)
    handler.addFilter(_Complaints("opentelemetry"))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_described()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendered(style, stream),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def _is_no_bad_header(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Invalid encoding on")


class Seldom:
    """Lets each kind of thing pass once in a while: one line tells as much as thousands."""

    def __init__(self, every_ns: int) -> None:
        self._every_ns = every_ns
        self._passed_ns: dict[Hashable, int] = {}

    def passes(self, kind: Hashable = None) -> bool:
        """Tell whether one of this kind may pass now; if so, the next may not for a while."""
        now_ns = ticks_ns()
        if now_ns - self._passed_ns.get(kind, now_ns - self._every_ns) < self._every_ns:
            return False
        if len(self._passed_ns) >= KINDS_COUNT_MAX:
            self._passed_ns.clear()  # a kind with figures in it is another every time
        self._passed_ns[kind] = now_ns
        return True


class _Complaints(logging.Filter):
    """Lets each thing that a library says pass once in a while, and all that others say."""

    def __init__(self, library: str) -> None:
        super().__init__()
        self._library = library
        self._seldom = Seldom(COMPLAINT_EVERY_NS)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] != self._library:
            return True
        return self._seldom.passes((record.name, str(record.msg)))  # without its figures


class _Writer(structlog.WriteLogger):
    """Writes lines, and goes on where one cannot be written."""

    def msg(self, message: str) -> None:
        """Write one line."""
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _copied_to(logger: Logger) -> Processor:
    """Make what tells a collector of each line: the event, and its fields as attributes."""
    clock = SystemClock()

    def copy(
        _logger: object, _method: str, fields: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        level, event = str(fields["level"]), str(fields["event"])
        logger.emit(
            timestamp=clock.now().wall_ns,
            severity_number=_SEVERITIES.get(level, SeverityNumber.UNSPECIFIED),
            severity_text=level,
            body=event,
            event_name=f"costd.{event}",
            attributes={
                name: value if isinstance(value, str | bool | int | float) else str(value)
                for name, value in fields.items()
                if name not in _TOLD_APART and value is not None
            },
            exception=_exception_in(fields.get("exc_info")),
        )
        return fields

    return copy


def _exception_in(told: object) -> BaseException | None:
    """Find the exception that goes with a line: `exc_info` is one, or true for the one at hand."""
    if isinstance(told, BaseException):
        return told
    return sys.exc_info()[1] if told else None


def _described() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]


def _rendered(style: Style, stream: TextIO) -> list[Processor]:
    if style == "console":
        colours = stream.isatty()
        return [
            _spelled,
            structlog.dev.ConsoleRenderer(colors=colours, timestamp_key="time"),
        ]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("event"),
        _ordered,
        structlog.processors.JSONRenderer(serializer=_as_json, default=str, ensure_ascii=False),
    ]


def _as_json(fields: object, **how: Any) -> str:
    return spelled_out(json.dumps(fields, **how))


def _spelled(
    _logger: object, _method: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {
        name: spelled_out(value) if isinstance(value, str) else value
        for name, value in fields.items()
    }


def spelled_out(text: str) -> str:
    """Write what would move, colour or reorder a terminal as JSON's escapes; lines stay lines.

    Strangers choose some of what is logged: pods' names come to the injector before anybody has
    looked at them.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else json.dumps(each)[1:-1] for each in text
    )


def _ordered(
    _logger: object, _method: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    first = {key: fields.pop(key) for key in ("time", "level", "event") if key in fields}
    return {**first, **fields}
