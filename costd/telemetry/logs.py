"""Logs of one line each: JSON for machines, columns for people."""

import contextlib
import logging
from typing import Literal, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

Level = Literal["debug", "info", "warning", "error"]
Style = Literal["json", "console"]
Log = FilteringBoundLogger

_LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def make_log(*, level: Level, style: Style, stream: TextIO) -> Log:
    """Make a logger that writes `time`, `level`, `event` and fields to a stream.

    Ensures: no process-wide settings change; whoever logs is handed this logger. A line that cannot
             be written is lost, and nobody else: whoever reads may be gone, or the disk full.
    """
    logger = structlog.wrap_logger(
        _Writer(stream),
        processors=[*_described(), *_rendered(style, stream)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    return cast("Log", logger)


def adopt_library_logs(*, style: Style, stream: TextIO) -> None:
    """Write what libraries log through `logging`, from warnings up, in the same form.

    Ensures: a header that is no UTF-8, of which gRPC would write a stack trace, is left out: it
             is refused with a reason, and whoever sends it must not fill the log.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_bad_header)
    handler = logging.StreamHandler(stream)
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


class _Writer(structlog.WriteLogger):
    """Writes lines, and goes on where one cannot be written."""

    def msg(self, message: str) -> None:
        """Write one line."""
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _described() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]


def _rendered(style: Style, stream: TextIO) -> list[Processor]:
    if style == "console":
        return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), timestamp_key="time")]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("event"),
        _ordered,
        structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
    ]


def _ordered(
    _logger: object, _method: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    first = {key: fields.pop(key) for key in ("time", "level", "event") if key in fields}
    return {**first, **fields}
