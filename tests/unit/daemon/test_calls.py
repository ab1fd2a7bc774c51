import io
import json

import pytest

from costd.daemon.books.durable import GroupSync
from costd.daemon.servers import ADMISSION, CONTROL
from costd.errors import IdReused, InvalidAsk, NotPermitted, StoreUnavailable, Unauthenticated
from costd.serving.calls import CallFigures, Calls, caller_of
from costd.telemetry.logs import make_log
from costd.wire.pb import admission_pb2 as pb


class Context:
    """As much of gRPC's context as a handler touches."""

    def __init__(self, *metadata):
        self.code = None
        self.details = None
        self._metadata = metadata

    def invocation_metadata(self):
        return self._metadata

    def set_code(self, code):
        self.code = code.name

    def set_details(self, details):
        self.details = details


class Service:
    """Answers Admit with what a test wants; every other method is there and unused."""

    def __init__(self, answer):
        self.Admit = self.Explain = answer
        self.Settle = self.Void = self.Extend = self.Record = None


class Details:
    def __init__(self, method):
        self.method = f"/costd.v1.Admission/{method}"
        self.invocation_metadata = ()


@pytest.fixture
def figures():
    return CallFigures()


@pytest.fixture
def log():
    return io.StringIO()


@pytest.fixture
def call(figures, log):
    async def call(answer, raw=b"", *, metadata=(), durable=None, method="Admit"):
        calls = Calls(
            figures=figures,
            log=make_log(level="info", style="json", stream=log),
            durable=durable,
        )
        handler = calls.handlers(ADMISSION, Service(answer)).service(Details(method))
        context = Context(*metadata)
        return await handler.unary_unary(raw, context), context

    return call


def answering(message):
    def answer(request, caller):
        return message

    return answer


def raising(error):
    def answer(request, caller):
        raise error

    return answer


async def test_bytes_go_in_and_come_out(call, figures):
    def answer(request, caller):
        return pb.Decision(ask_id=request.ask_id, message=caller)

    raw = pb.AdmitRequest(ask_id="a").SerializeToString()
    reply, context = await call(answer, raw, metadata=[("x", "y"), ("costd-caller", "ann")])
    assert pb.Decision.FromString(reply) == pb.Decision(ask_id="a", message="ann")
    assert context.code is None
    assert figures.errors == {}
    assert figures.open_count == 0


async def test_an_error_becomes_its_status_and_message(call, figures, log):
    _, context = await call(raising(IdReused("labels differ; make a new id")))
    assert (context.code, context.details) == ("ALREADY_EXISTS", "labels differ; make a new id")
    assert figures.errors == {("Admit", "ALREADY_EXISTS"): 1}
    assert log.getvalue() == ""


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7f"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(call, raw):
    _, context = await call(raising(AssertionError("not reached")), raw)
    assert context.code == "INVALID_ARGUMENT"
    assert "no such message" in context.details


async def test_a_bug_is_internal_and_its_traceback_is_logged_not_sent(call, log):
    _, context = await call(raising(ZeroDivisionError("secret")))
    assert context.code == "INTERNAL"
    assert "ZeroDivisionError" in context.details
    assert "secret" not in context.details
    line = json.loads(log.getvalue())
    assert (line["event"], line["rpc"]) == ("call_failed", "Admit")
    assert "ZeroDivisionError: secret" in line["exception"]


async def test_the_daemon_s_own_failures_are_logged_once_a_second(figures, log):
    calls = Calls(figures=figures, log=make_log(level="info", style="json", stream=log))
    handler = calls.handlers(ADMISSION, Service(raising(StoreUnavailable("disk full"))))
    for _ in range(20):
        context = Context()
        await handler.service(Details("Admit")).unary_unary(b"", context)
        assert context.code == "UNAVAILABLE"
    assert figures.errors == {("Admit", "UNAVAILABLE"): 20}
    assert log.getvalue().count("\n") < 5


async def test_an_answer_waits_for_the_disk_where_it_must_survive_power_loss(call):
    flushed = []
    durable = GroupSync(lambda: flushed.append(1))
    await call(answering(pb.Decision()), durable=durable)
    assert flushed == [1]
    await call(answering(pb.Explanation()), durable=durable, method="Explain")
    assert flushed == [1]


async def test_an_answer_that_did_not_reach_the_disk_is_none(call):
    def sync():
        raise StoreUnavailable("disk full")

    reply, context = await call(answering(pb.Decision()), durable=GroupSync(sync))
    assert (reply, context.code) == (b"", "UNAVAILABLE")


async def test_every_call_is_timed(call, figures):
    await call(answering(pb.Decision()))
    await call(raising(InvalidAsk("no")))
    assert figures.durations["Admit"].point({}, started_ns=0, now_ns=1).count == 2


def test_a_service_that_lacks_a_method_of_the_proto_is_found_at_the_start(figures):
    calls = Calls(figures=figures, log=make_log(level="info", style="json", stream=io.StringIO()))
    with pytest.raises(AttributeError, match="GetStatus"):
        calls.handlers(CONTROL, Service(None))


@pytest.mark.parametrize(
    ("metadata", "caller"),
    [
        ((), ""),
        (None, ""),
        ((("costd-caller", "ann"),), "ann"),
        ((("a", "b"), ("costd-caller", b"ann")), "ann"),
    ],
)
def test_a_caller_is_who_its_metadata_says(metadata, caller):
    context = Context()
    context._metadata = metadata
    assert caller_of(context) == caller


@pytest.mark.parametrize("name", ["x" * 257, "a\nb", "a\0b", "é", b"\xff\xfe", "a\x7f"])
async def test_a_name_that_metadata_may_not_hold_is_refused(call, name):
    metadata = [("costd-caller", name)]
    _, context = await call(answering(pb.Decision()), metadata=metadata)
    assert context.code == "INVALID_ARGUMENT"
    assert context.details.startswith("costd-caller ")


class Guard:
    """Lets nobody pass."""

    def check(self, context, method):
        raise NotPermitted(f"{method} is not for you")


async def test_a_guard_is_asked_before_a_request_or_a_stream_is_read(figures, log):
    reached = []

    async def stream(raws, context):
        reached.append(context)
        yield b""

    calls = Calls(figures=figures, log=make_log(level="info", style="json", stream=log))
    handler = calls.handlers(
        ADMISSION,
        Service(lambda request, caller: reached.append(request)),
        streams={"Attach": stream},
        guard=Guard(),
    )
    context = Context()
    assert await handler.service(Details("Admit")).unary_unary(b"\xff", context) == b""
    assert (context.code, context.details) == ("PERMISSION_DENIED", "Admit is not for you")
    context = Context()
    assert [
        raw async for raw in handler.service(Details("Attach")).stream_stream(None, context)
    ] == []
    assert (context.code, context.details) == ("PERMISSION_DENIED", "Attach is not for you")
    assert reached == []


class Expiring:
    """Lets somebody pass so many times."""

    def __init__(self, passes_count):
        self.passes_count = passes_count

    def check(self, context, method):
        if not self.passes_count:
            raise Unauthenticated("the certificate has expired")
        self.passes_count -= 1


async def echoed(figures, log, guard, **options):
    """Say four things on a stream; return what came back, and how it ended."""

    async def said():
        for number in range(4):
            yield b"%d" % number

    async def echo(raws, context):
        async for raw in raws:
            yield raw

    calls = Calls(figures=figures, log=make_log(level="info", style="json", stream=log), **options)
    handler = calls.handlers(
        ADMISSION, Service(None), streams={"Attach": echo}, guard=guard
    ).service(Details("Attach"))
    context = Context()
    return [raw async for raw in handler.stream_stream(said(), context)], context


async def test_a_stream_ends_once_its_caller_would_not_be_let_in_any_more(figures, log):
    back, context = await echoed(figures, log, Expiring(3), recheck_ns=0)
    assert back == [b"0", b"1"]
    assert (context.code, context.details) == ("UNAUTHENTICATED", "the certificate has expired")


async def test_a_stream_is_not_held_against_its_guard_at_every_message(figures, log):
    back, _ = await echoed(figures, log, Expiring(1), recheck_ns=3_600 * 10**9)
    assert len(back) == 4
