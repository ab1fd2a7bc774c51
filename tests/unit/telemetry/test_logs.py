import io
import json
import logging

import pytest

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
