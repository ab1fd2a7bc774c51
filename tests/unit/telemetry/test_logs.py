import io
import json
import logging
from pathlib import Path

import pytest
from opentelemetry._logs import SeverityNumber

from costd.telemetry import logs
from costd.telemetry.logs import adopt_library_logs, make_log


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


def test_a_line_is_json_that_begins_with_time_level_and_event():
    stream = io.StringIO()
    make_log(level="info", style="json", stream=stream).info("policy_loaded", revision="abc", n=2)
    line = json.loads(stream.getvalue())
    assert list(line)[:3] == ["time", "level", "event"]
    assert line["time"].endswith("Z")
    assert (line["level"], line["event"], line["revision"], line["n"]) == (
        "info",
        "policy_loaded",
        "abc",
        2,
    )


STRANGE = ["\x1b[2J\x1b[31m", "\x9b31m", "\u202eabc", "a\nb", "\x7f\0", "\U000e0041", "\ud800"]


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("said", STRANGE)
def test_nothing_that_a_stranger_says_moves_a_terminal(style, said):
    stream = io.StringIO()
    make_log(level="info", style=style, stream=stream).info("pod_reviewed", name=said, 日=said)
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert "日" in line
    if style == "json":
        assert json.loads(line)["name"] == said


class NobodyReads(io.StringIO):
    def flush(self):
        raise BrokenPipeError


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_whoever_logs_goes_on_where_nobody_reads(level):
    stream = NobodyReads()
    getattr(make_log(level="info", style="json", stream=stream), level)("draining")
    assert "draining" in stream.getvalue()


def test_lines_below_the_level_are_not_written():
    stream = io.StringIO()
    log = make_log(level="warning", style="json", stream=stream)
    log.info("quiet")
    log.debug("quieter")
    assert stream.getvalue() == ""
    log.error("loud")
    assert json.loads(stream.getvalue())["event"] == "loud"


def test_a_traceback_stays_on_one_line():
    stream = io.StringIO()
    log = make_log(level="info", style="json", stream=stream)
    try:
        int("broken")
    except ValueError:
        log.exception("rpc_failed", rpc="Admit")
    assert stream.getvalue().count("\n") == 1
    line = json.loads(stream.getvalue())
    assert "ValueError: invalid literal" in line["exception"]
    assert line["rpc"] == "Admit"


def test_values_json_does_not_know_are_written_as_text():
    stream = io.StringIO()
    make_log(level="info", style="json", stream=stream).info("odd", value=b"\xff", words="größer")
    assert json.loads(stream.getvalue())["words"] == "größer"


def test_people_get_columns():
    stream = io.StringIO()
    make_log(level="info", style="console", stream=stream).info("serving", socket="/run/x")
    assert "serving" in stream.getvalue()
    assert "socket" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_two_loggers_do_not_share_a_level():
    quiet, loud = io.StringIO(), io.StringIO()
    make_log(level="error", style="json", stream=quiet).info("x")
    make_log(level="debug", style="json", stream=loud).info("x")
    assert quiet.getvalue() == ""
    assert loud.getvalue()


def test_libraries_warnings_come_out_in_the_same_form(root_logger):
    stream = io.StringIO()
    adopt_library_logs(style="json", stream=stream)
    logging.getLogger("grpc._cython.cygrpc").warning("odd thing: %d", 7)
    logging.getLogger("grpc._cython.cygrpc").info("chatter")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"]) == ("odd thing: 7", "warning")
    assert line["logger"] == "grpc._cython.cygrpc"


def test_a_header_that_is_no_text_is_no_line_of_the_log(root_logger):
    stream = io.StringIO()
    adopt_library_logs(style="json", stream=stream)
    logging.getLogger("grpc._cython.cygrpc").error("Invalid encoding on %s", b"\xff")
    assert stream.getvalue() == ""


class Copies:
    """Takes down what a collector would be told."""

    def __init__(self):
        self.told = []

    def emit(self, **record):
        self.told.append(record)


def test_a_collector_is_told_what_is_written():
    stream, copies = io.StringIO(), Copies()
    log = make_log(level="info", style="json", stream=stream, copy=copies)
    log.debug("quiet")
    log.warning("policy_refused", path=Path("/p"), n=2, ok=True, nobody=None)
    (record,) = copies.told
    assert record["body"] == "policy_refused"
    assert record["severity_number"] is SeverityNumber.WARN
    assert record["attributes"] == {"path": "/p", "n": 2, "ok": True}
    assert record["timestamp"] > 0
    assert json.loads(stream.getvalue())["n"] == 2


def test_a_collector_is_told_of_the_exception_too():
    copies = Copies()
    log = make_log(level="info", style="json", stream=io.StringIO(), copy=copies)
    problem = ValueError("broken")
    log.error("call_failed", exc_info=problem)
    try:
        raise problem
    except ValueError:
        log.exception("call_failed")
    assert [record["exception"] for record in copies.told] == [problem, problem]
    assert all("exc_info" not in record["attributes"] for record in copies.told)


def test_opentelemetry_complains_once_a_while_and_others_whenever_they_want(root_logger):
    stream = io.StringIO()
    adopt_library_logs(style="json", stream=stream)
    for number in range(50):
        logging.getLogger("opentelemetry.exporter").error("cannot reach %s", number)
        logging.getLogger("asyncio").error("slow %s", number)
    logging.getLogger("opentelemetry.exporter").error("something else")
    lines = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert [line for line in lines if line.startswith("cannot")] == ["cannot reach 0"]
    assert sum(line.startswith("slow") for line in lines) == 50
    assert lines[-1] == "something else"


def test_what_a_library_repeats_passes_once_and_what_it_makes_up_is_not_kept():
    complaints = logs._Complaints("opentelemetry")

    def passes(text, name="opentelemetry.exporter"):
        return complaints.filter(logging.LogRecord(name, logging.ERROR, "", 0, text, (), None))

    assert passes("collector is away")
    assert not passes("collector is away")
    assert passes("collector is away", "elsewhere")
    for number in range(3 * logs.KINDS_COUNT_MAX):
        assert passes(f"batch {number} failed")
    assert len(complaints._seldom._passed_ns) <= logs.KINDS_COUNT_MAX
