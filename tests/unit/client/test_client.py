"""The client over a real socket: restarts, failing open, spools, forks, threads."""

import asyncio
import os
import signal
import subprocess
import sys
import threading

import grpc
import grpc_testing
import pytest
from costd_client import AsyncClient, Client, Unavailable
from costd_client.ids import new_ask_id
from costd_client.pb import admission_pb2 as pb

ASK = {"model": "m", "prompt_tokens": 10, "max_output_tokens": 20}


def test_a_daemon_that_restarts_is_asked_again_with_the_same_id(daemon, admission):
    with Client(daemon.address, caller="t", timeout_s=10) as client:
        client.admit(**ASK)
        daemon.stop()
        back = threading.Timer(0.2, daemon.start)
        back.start()
        try:
            assert client.admit(**ASK).source == "daemon"
        finally:
            back.join()
    assert len(admission.of("Admit")) == 2


def test_an_answer_that_got_lost_is_given_again(client, admission):
    admission.then("Admit", grpc.StatusCode.UNAVAILABLE)
    decision = client.admit(**ASK)
    first, second = admission.of("Admit")
    assert first == second
    assert decision.reservation_id == f"res-{first.ask_id}"


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_daemon_that_stops_with_an_ask_in_its_hands_is_asked_again(daemon, admission, kind):
    def stop(request):
        threading.Thread(target=lambda: (daemon.stop(), daemon.start())).start()
        assert not threading.Event().wait(2), "longer than it takes to be cancelled"
        return pb.Decision()

    admission.then("Admit", stop)
    if kind == "blocking":
        with Client(daemon.address, caller="t", timeout_s=20) as client:
            decision = client.admit(**ASK)
    else:
        decision = asyncio.run(asked(daemon.address))
    assert decision.source == "daemon"
    first, second = admission.of("Admit")
    assert first == second


async def asked(address):
    async with AsyncClient(address, caller="t", timeout_s=20) as client:
        return await client.admit(**ASK)


def test_a_daemon_that_cancels_every_ask_is_one_that_cannot_be_reached(daemon, admission):
    admission.then("Admit", *[grpc.StatusCode.CANCELLED] * 100)
    with (
        Client(daemon.address, caller="t", timeout_s=0.2) as client,
        pytest.raises(Unavailable, match="CANCELLED") as caught,
    ):
        client.admit(**ASK)
    assert caught.value.code is grpc.StatusCode.CANCELLED
    with Client(daemon.address, caller="t", timeout_s=0.2, fail_mode="open") as client:
        assert client.admit(**ASK).source == "fail_open"


def test_calls_made_while_failing_open_are_recorded_once_the_daemon_answers(daemon, admission):
    daemon.stop()
    with Client(daemon.address, caller="t", timeout_s=0.3, fail_mode="open") as client:
        ids = []
        for tokens in range(3):
            with client.call(**ASK, labels={"run": "r1"}) as call:
                assert call.decision.source == "fail_open"
                assert call.model == "m"
                assert call.extend(ttl_s=5).extended
                call.settle(prompt_tokens=tokens, output_tokens=1)
            assert call.settlement.queued
            ids.append(call.decision.ask_id)
        assert client.outbox.pending == (3, 0, 0)
        daemon.start()
        assert client.outbox.flush(10)
        assert client.admit(**ASK).source == "daemon"
    assert [record.record_id for record in admission.of("Record")] == ids
    assert [record.usage.prompt_tokens for record in admission.of("Record")] == [0, 1, 2]
    assert dict(admission.of("Record")[0].labels) == {"run": "r1"}


async def test_asyncio_calls_made_while_failing_open_are_recorded_too(daemon, admission):
    daemon.stop()
    async with AsyncClient(daemon.address, caller="t", timeout_s=1, fail_mode="open") as client:
        async with client.call(**ASK) as call:
            call.settle(cost_nusd=6)
        daemon.start()
        assert await asyncio.to_thread(client.outbox.flush, 10)
        assert (await client.admit(**ASK)).source == "daemon"
    assert [record.cost_nusd for record in admission.of("Record")] == [6]


def test_a_settlement_survives_an_outage(daemon, admission):
    with Client(daemon.address, caller="t", timeout_s=0.3) as client:
        with client.call(**ASK) as call:
            daemon.stop()
            call.settle(cost_nusd=42)
        assert call.settlement.queued
        daemon.start()
        assert client.outbox.flush(10)
    assert admission.of("Settle")[0].cost_nusd == 42


def test_a_record_the_daemon_refuses_is_kept_and_logged(daemon, admission, caplog):
    daemon.stop()
    with Client(daemon.address, caller="t", timeout_s=0.3, fail_mode="open") as client:
        with client.call(**ASK) as call:
            call.settle(cost_nusd=1)
        admission.then("Record", grpc.StatusCode.PERMISSION_DENIED)
        daemon.start()
        assert client.outbox.flush(10)
        assert client.outbox.pending.rejected_count == 1
    assert "scripted PERMISSION_DENIED" in caplog.text


def test_an_ask_that_timed_out_and_was_not_made_is_undone(daemon, admission):
    gone = threading.Event()

    def answer_too_late(request):
        gone.wait(5)
        return admission._admit(request)

    admission.then("Admit", answer_too_late)
    with Client(daemon.address, caller="t", timeout_s=0.2) as client:
        with pytest.raises(Unavailable):
            client.admit(**ASK)
        gone.set()
        assert client.outbox.flush(10)
    assert list(admission.states.values()) == ["voided"]


FAIL_OPEN_AND_DIE = """
import os, sys
from costd_client import Client
client = Client(sys.argv[1], caller="t", timeout_s=0.2, fail_mode="open", spool=sys.argv[2])
with client.call(model="m", prompt_tokens=1, max_output_tokens=2, ask_id="settled-0123456789") as c:
    c.settle(prompt_tokens=1, output_tokens=1)
client.admit(model="m", prompt_tokens=10, max_output_tokens=20, ask_id="running-0123456789")
with client.call(model="m", prompt_tokens=1, max_output_tokens=2, ask_id="voided-00123456789") as c:
    c.void()
os.kill(os.getpid(), 9)
"""


def test_a_spool_records_what_a_killed_process_left_behind(daemon, admission, tmp_path):
    daemon.stop()
    spool = tmp_path / "spool"
    died = subprocess.run(
        [sys.executable, "-c", FAIL_OPEN_AND_DIE, daemon.address, str(spool)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=30,
        check=False,
    )
    assert died.returncode == -9
    daemon.start()
    with Client(daemon.address, caller="t", spool=spool) as client:
        assert client.outbox.flush(10)
    records = {record.record_id: record.usage for record in admission.of("Record")}
    assert records == {
        "settled-0123456789": pb.Usage(prompt_tokens=1, output_tokens=1),
        "running-0123456789": pb.Usage(prompt_tokens=10, output_tokens=20),
    }
    assert list(spool.iterdir()) == []


FAIL_OPEN_AND_END = """
import sys
from costd_client import Client
client = Client(sys.argv[1], caller="t", timeout_s=0.2, fail_mode="open")
with client.call(model="m", ask_id="waiting-0123456789") as call:
    call.settle(cost_nusd=3)
client.admit(model="m", estimated_cost_nusd=4, ask_id="running-0123456789")
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_end_of_a_program_delivers_what_waits(daemon, admission):
    daemon.stop()
    with subprocess.Popen(
        [sys.executable, "-c", FAIL_OPEN_AND_END, daemon.address],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        daemon.start()
        process.stdin.close()
        assert process.wait(30) == 0
    costs = {record.record_id: record.cost_nusd for record in admission.of("Record")}
    assert costs == {"waiting-0123456789": 3, "running-0123456789": 4}


FORK = """
import os, sys
from costd_client import Client
client = Client(sys.argv[1], caller="t", timeout_s=5, fail_mode="closed")
client.admit(model="m", ask_id="parent-before-fork")
child = os.fork()
if child == 0:
    decision = client.admit(model="m", ask_id="child-after-the-fork")
    client.settle(decision, cost_nusd=1)
    os._exit(0 if decision.allowed else 1)
_, status = os.waitpid(child, 0)
client.admit(model="m", ask_id="parent-after-fork")
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_connects_anew_and_the_parent_goes_on(daemon, admission):
    ran = subprocess.run(
        [sys.executable, "-c", FORK, daemon.address],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0
    ids = {request.ask_id for request in admission.of("Admit")}
    assert ids == {"parent-before-fork", "child-after-the-fork", "parent-after-fork"}


FORK_WHILE_OTHERS_CALL = """
import os, sys, threading
from costd_client import Client
client = Client(sys.argv[1], caller="t", timeout_s=30)
ends = threading.Event()
def work():
    while not ends.is_set():
        client.settle(client.admit(model="m"), cost_nusd=1)
workers = [threading.Thread(target=work) for _ in range(3)]
for worker in workers:
    worker.start()
codes = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        client.settle(client.admit(model="m"), cost_nusd=1)
        os._exit(0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
ends.set()
for worker in workers:
    worker.join()
client.close()
sys.exit(any(codes))
"""


def test_children_forked_while_other_threads_are_mid_call_are_answered(daemon, admission):
    assert ran_to_its_end(FORK_WHILE_OTHERS_CALL, daemon.address) == 0
    assert len(admission.of("Settle")) == len(admission.of("Admit"))


def ran_to_its_end(code, *arguments):
    """Run a program and return its exit code; its children end with it."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    ) as process:
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


FORK_WITH_A_FULL_OUTBOX = """
import os, sys
from pathlib import Path
from costd_client.outbox import Delivery, Outbox
from costd_client.spool import Entry
outbox = Outbox(lambda entry: Delivery.UNREACHABLE, capacity_count=1, folder=Path(sys.argv[1]))
assert outbox.put(Entry("a", "Record", b""))
assert not outbox.hold(Entry("b", "Record", b""))
child = os.fork()
if child == 0:
    assert outbox.hold(Entry("c", "Record", b"")), "the parent's entry is not the child's"
    assert outbox.pending == (0, 1, 0)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert outbox.pending == (1, 0, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_what_waits_in_the_parent_is_not_delivered_by_a_forked_child(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", FORK_WITH_A_FULL_OUTBOX, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0


def test_threads_share_a_client(client, admission):
    def work():
        for _ in range(20):
            with client.call(**ASK) as call:
                call.settle(cost_nusd=1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(admission.states)) == 160
    assert set(admission.states.values()) == {"settled"}


def test_address_and_caller_come_from_the_environment(daemon, admission, monkeypatch):
    monkeypatch.setenv("COSTD_ADDRESS", daemon.address)
    monkeypatch.setenv("COSTD_CALLER", "from-environment")
    with Client() as client:
        client.admit(**ASK)
        assert client.estimate("two words") >= 2
    assert admission.callers == ["from-environment"]


def test_the_requests_on_a_given_channel_are_the_ones_of_the_contract():
    service = pb.DESCRIPTOR.services_by_name["Admission"]
    channel = grpc_testing.channel([service], grpc_testing.strict_real_time())
    client = Client("unused", caller="contract", channel=channel)
    ask_id = new_ask_id()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.admit(**ASK, ask_id=ask_id)))
    thread.start()
    metadata, request, rpc = channel.take_unary_unary(service.methods_by_name["Admit"])
    assert ("costd-caller", "contract") in [tuple(pair) for pair in metadata]
    assert request == pb.AdmitRequest(ask_id=ask_id, **ASK)
    rpc.terminate(pb.Decision(verdict=pb.VERDICT_ALLOW), (), grpc.StatusCode.OK, "")
    thread.join(5)
    assert answers[0].allowed
    client.close()
