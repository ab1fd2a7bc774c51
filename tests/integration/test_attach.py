"""`Admission.Attach` over a real socket, with real pages, spoken word by word."""

import mmap
import queue
import threading
import time
from pathlib import Path

import grpc
import pytest

from costd.daemon.clients.pages import HEADER_WORDS, MAGIC, SLOT_WORDS
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import admission_pb2_grpc, control_pb2_grpc
from costd.wire.pb import control_pb2 as cpb

POLICY = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes: {draft: {}}
default_task_class: draft
budgets:
  - {id: all, window: total, limit: $100}
allowance: {for: 1s}
"""
CALL_NUSD = 3_500_000
ANSWER_S = 10


class Stream:
    """A client process's stream, driven by hand."""

    def __init__(self, address, session="s" * 16):
        self._channel = grpc.insecure_channel(address)
        self._out = queue.Queue()
        stub = admission_pb2_grpc.AdmissionStub(self._channel)
        self._call = stub.Attach(
            iter(self._out.get, None), metadata=(("costd-caller", "test"),), timeout=60
        )
        self._in = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.session = session

    def _read(self):
        try:
            for message in self._call:
                self._in.put(message)
        except grpc.RpcError as error:
            self._in.put(error)

    def send(self, **message):
        self._out.put(pb.ClientMessage(**message))

    def hear(self, kind):
        """The next message, which must be of this kind."""
        message = self._in.get(timeout=ANSWER_S)
        if isinstance(message, grpc.RpcError):
            raise message
        assert message.WhichOneof("message") == kind
        return getattr(message, kind)

    def hello(self, *, maps_pages=True, held=()):
        self.send(
            hello=pb.Hello(
                session_id=self.session, maps_pages=maps_pages, held_allowance_ids=list(held)
            )
        )
        return self.hear("welcome")

    def granted(self, count=100):
        typical = pb.AdmitRequest(model="gpt-4o", prompt_tokens=1_000, max_output_tokens=100)
        self.send(request=pb.AllowanceRequest(request_id="r", typical=typical, calls_count=count))
        return self.hear("grant").allowance

    def close(self):
        self._call.cancel()
        self._channel.close()


class Page:
    """A page as a client maps it."""

    def __init__(self, path, *, writes=False):
        access = mmap.ACCESS_WRITE if writes else mmap.ACCESS_READ
        with Path(path).open("r+b" if writes else "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=access)
        self.words = memoryview(self._map).cast("q")

    def draw(self, allowance, count):
        at = HEADER_WORDS + allowance.slot * SLOT_WORDS
        assert self.words[at] == allowance.serial
        self.words[at + 1], self.words[at + 2] = count, count * CALL_NUSD


@pytest.fixture
def running(fresh_daemon):
    with fresh_daemon(POLICY) as daemon:
        yield daemon


@pytest.fixture
def attach(running):
    streams = []

    def make(**fields):
        stream = Stream(running.address, **fields)
        streams.append(stream)
        return stream

    yield make
    for stream in streams:
        stream.close()


def admin(daemon):
    return control_pb2_grpc.ControlStub(grpc.insecure_channel(daemon.control_address))


def budget(daemon):
    (entry,) = admin(daemon).ListBudgets(cpb.ListBudgetsRequest()).budgets
    return entry


def until(condition, timeout_s=ANSWER_S):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


def test_an_allowance_is_granted_drawn_settled_and_returned(running, attach):
    stream = attach()
    stream.hello()
    allowance = stream.granted()
    assert budget(running).reserved == 100 * CALL_NUSD
    settlement = pb.DrawSettlement(
        allowance_id=allowance.allowance_id, ask_id="a" * 16, hold_nusd=CALL_NUSD, cost_nusd=5
    )
    drawn = pb.Drawn(
        allowance_id=allowance.allowance_id,
        calls_count=1,
        amount_nusd=CALL_NUSD,
        tokens_count=1_100,
    )
    stream.send(
        report=pb.Report(
            sequence=1,
            drawn=[drawn],
            settlements=[settlement],
            returned_allowance_ids=[allowance.allowance_id],
        )
    )
    assert stream.hear("acknowledgement").sequence == 1
    assert (budget(running).settled, budget(running).reserved) == (5, 0)


def test_a_kill_switch_shows_on_the_page_before_the_answer_to_who_engaged_it(running, attach):
    stream = attach()
    page = Page(stream.hello().daemon_page)
    assert page.words[0] == MAGIC
    before = page.words[1]
    allowance = stream.granted()
    admin(running).EngageKill(cpb.EngageKillRequest(kill_id="stop", reason="test", actor="t"))
    assert page.words[1] == before + 1
    assert stream.hear("revocation").allowance_id == allowance.allowance_id
    assert stream.hear("generation").generation == before + 1


def test_a_daemon_killed_with_9_reads_what_its_clients_drew_meanwhile(running, attach):
    stream = attach()
    page = Page(stream.hello().client_page, writes=True)
    allowance = stream.granted()
    running.kill()
    page.draw(allowance, 7)
    running.restart()
    back = attach()
    welcome = back.hello(held=[allowance.allowance_id])
    assert list(welcome.good_allowance_ids) == []
    until(lambda: budget(running).reserved == 7 * CALL_NUSD)


def test_a_client_that_cuts_its_page_short_hurts_only_itself(running, attach):
    stream = attach()
    path = stream.hello().client_page
    stream.granted()
    with Path(path).open("r+b") as file:
        file.truncate(1)
    stream.close()
    until(lambda: "page_damaged" in running.log_text())
    assert budget(running).reserved == 100 * CALL_NUSD


def test_pages_are_for_whoever_may_use_the_socket(running, attach):
    welcome = attach().hello()
    assert Path(welcome.client_page).stat().st_mode & 0o777 == 0o660
    assert Path(welcome.daemon_page).stat().st_mode & 0o777 == 0o640
    assert Path(welcome.daemon_page).parent.stat().st_mode & 0o777 == 0o750


def test_what_is_out_of_order_ends_the_stream_with_a_word(attach):
    stream = attach()
    stream.send(report=pb.Report(sequence=1))
    with pytest.raises(grpc.RpcError) as refused:
        stream.hear("acknowledgement")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Hello comes first" in refused.value.details()


def test_a_daemon_stops_while_clients_are_attached(running, attach):
    attach().hello()
    assert running.stop() == 0


def test_an_operator_sees_what_is_drawn_on_the_page_and_revokes_it(running, attach):
    stream = attach()
    welcome = stream.hello()
    page, told = Page(welcome.client_page, writes=True), Page(welcome.daemon_page)
    allowance = stream.granted()
    page.draw(allowance, 7)
    (row,) = admin(running).ListAllowances(cpb.ListAllowancesRequest()).allowances
    assert (row.allowance_id, row.caller) == (allowance.allowance_id, "test")
    assert (row.attached, row.maps_pages) == (True, True)
    assert (row.drawn.calls_count, row.drawn.amount_nusd) == (7, 7 * CALL_NUSD)
    generation = told.words[1]
    request = cpb.RevokeAllowanceRequest(allowance_id=allowance.allowance_id, actor="ops")
    revoked = admin(running).RevokeAllowance(request).allowance
    assert revoked.state == cpb.ALLOWANCE_STATE_REVOKED
    assert told.words[1] == generation + 1
    assert stream.hear("revocation").reason == pb.REVOCATION_REASON_OPERATOR
    (record,) = [
        record
        for record in admin(running).ListAudit(cpb.ListAuditRequest()).records
        if record.action == "allowance_revoked"
    ]
    assert (record.actor, record.subject) == ("ops", allowance.allowance_id)


def test_an_allowance_that_nobody_was_granted_is_not_found(running):
    with pytest.raises(grpc.RpcError) as refused:
        admin(running).RevokeAllowance(cpb.RevokeAllowanceRequest(allowance_id="0" * 32))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
