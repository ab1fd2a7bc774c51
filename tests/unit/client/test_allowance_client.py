"""Allowances over a real socket: threads, asyncio, forks, broken streams, closing."""

import asyncio
import contextlib
import gc
import os
import pickle
import subprocess
import sys
import threading
import time

import grpc
import pytest
from attach_desk import NS, AttachScript, eventually, poke, write_pages
from costd_client import (
    AsyncClient,
    Client,
    InvalidAsk,
    OutboxFull,
    ReservationClosed,
    ReservationNotFound,
    labels,
)
from costd_client.attached import Attached
from costd_client.drawn import End
from costd_client.errors import CostdError
from costd_client.facts import Facts
from costd_client.pages import base_of, map_pages
from costd_client.pb import admission_pb2 as pb
from costd_client.session import NO_STOCK
from costd_client.stock import Stated
from costd_client.surroundings import now_ns, surroundings
from test_allowance import Held

ASK = {"task_class": "draft", "model": "m", "prompt_tokens": 100, "max_output_tokens": 50}
LARGE = {"calls_count": 10**6, "amount_nusd": 10**12, "lifetime": {"seconds": 60}}


@pytest.fixture
def attach(daemon):
    """A daemon that grants large allowances."""
    script = AttachScript(**LARGE)
    daemon.stop()
    daemon.admission.Attach = script.Attach
    daemon.start()
    return script


@pytest.fixture
def client(daemon, attach):
    with Client(daemon.address, caller="t", allowances=True, labels={"team": "a"}) as client:
        yield client


def test_the_first_ask_goes_to_the_daemon_and_the_next_are_decided_here(client, admission, attach):
    assert client.admit(**ASK).source == "daemon"
    decision = eventually(lambda: client.admit(**ASK))
    assert (decision.allowed, decision.hold_nusd, decision.model) == (True, 700, "m")
    asked = len(admission.of("Admit"))
    for _ in range(100):
        assert client.admit(**ASK).source == "allowance"
    assert len(admission.of("Admit")) == asked
    assert attach.hellos[0].maps_pages
    attach.wait(lambda heard: heard.drawn_calls() == 101)


def test_a_with_block_is_settled_in_the_next_report(client, admission, attach):
    eventually(lambda: client.admit(**ASK))
    with client.call(**ASK, labels={"run": "r7"}, cost_kind="image") as call:
        call.sent()
        assert call.progress(output_tokens=3) is None
        call.settle(prompt_tokens=90, output_tokens=40, retry_count=1)
    assert call.settlement.queued
    assert call.settlement.cost_nusd is None
    attach.wait(lambda heard: heard.settlements)
    [(end, riding)] = attach.settlements
    assert (end.ask_id, end.hold_nusd, end.cost_kind) == (call.decision.ask_id, 700, "image")
    assert (end.usage.output_tokens, end.retry_count, end.outcome) == (40, 1, pb.OUTCOME_OK)
    assert riding == {"run": "r7"}
    assert admission.of("Settle") == admission.of("Extend") == []
    assert 16 <= len(end.ask_id) <= 128
    assert abs(end.settled_ns - time.time_ns()) < 60 * NS


def test_settling_twice_is_harmless_and_otherwise_refused(client, admission, attach):
    decision = eventually(lambda: client.admit(**ASK))
    assert client.settle(decision, cost_nusd=5).queued
    assert client.settle(decision, cost_nusd=5).queued
    with pytest.raises(ReservationClosed):
        client.settle(decision, cost_nusd=6)
    with pytest.raises(ReservationClosed):
        client.void(decision)
    voided = client.admit(**ASK)
    assert client.void(voided).queued
    assert client.void(voided).queued
    with pytest.raises(ReservationClosed):
        client.settle(voided, cost_nusd=5)
    with pytest.raises(InvalidAsk, match="retry_count"):
        client.settle(client.admit(**ASK), cost_nusd=5, retry_count=2**40)
    attach.wait(lambda heard: len(heard.settlements) == 2)
    assert [end.voided for end, _ in attach.settlements] == [False, True]
    assert admission.of("Settle") == admission.of("Void") == []


def test_a_hold_grows_while_the_allowance_has_room(client, admission, attach):
    eventually(lambda: client.admit(**ASK))
    with client.call(**ASK) as call:
        assert call.extend(additional_output_tokens=10).hold_nusd == 800
        grown = call.extend(additional_cost_nusd=50, ttl_s=5)
        assert (grown.extended, grown.hold_nusd, grown.reason) == (True, 850, pb.REASON_OK)
        assert call.extend(ttl_s=5).extended
        refused = call.extend(additional_cost_nusd=10**13)
        assert (refused.extended, refused.directives.stop) == (False, True)
        assert (refused.reason, refused.hold_nusd) == (pb.REASON_BUDGET_EXHAUSTED, 850)
        with pytest.raises(CostdError, match="not made smaller"):
            call.extend(additional_cost_nusd=-1)
        call.settle(cost_nusd=840)
    attach.wait(lambda heard: heard.settlements)
    assert attach.settlements[0][0].hold_nusd == 850
    assert attach.settlements[0][0].tokens_count == 160
    assert admission.of("Extend") == []


def test_a_call_whose_end_nobody_knows_is_left_to_its_hold_unless_more_is_known(client, attach):
    eventually(lambda: client.admit(**ASK))
    for written in (40, 90):
        with contextlib.suppress(ConnectionError), client.call(**ASK) as call:
            call.progress(prompt_tokens=100, output_tokens=written)
            raise ConnectionError
    assert client.close() is None
    assert [end.usage.output_tokens for end, _ in attach.settlements] == [90]
    assert attach.settlements[0][0].outcome == pb.OUTCOME_ERROR
    assert attach.returned


def test_a_dropped_call_is_settled_in_the_background(client, attach):
    eventually(lambda: client.admit(**ASK))
    call = client.call(**ASK).__enter__()
    call.settle(cost_nusd=3)
    call.drop()
    attach.wait(lambda heard: heard.settlements)
    assert attach.settlements[0][0].outcome == pb.OUTCOME_CANCELLED


@pytest.mark.parametrize(
    "own",
    [
        {"override_grant": "jwt"},
        {"ttl_s": 5},
        {"units": {"requests": 1}},
        {"ask_id": "mine-0123456789abc"},
    ],
)
def test_what_only_the_daemon_can_heed_is_asked_of_it(client, admission, own):
    eventually(lambda: client.admit(**ASK))
    assert client.admit(**ASK, **own).source == "daemon"
    assert client.admit(**ASK, **dict.fromkeys(own)).source == "allowance", "None is not stated"


def test_an_override_grant_around_a_call_is_asked_of_the_daemon(client, admission):
    eventually(lambda: client.admit(**ASK))
    with labels(override_grant="jwt"):
        assert client.admit(**ASK).source == "daemon"
    assert admission.of("Admit")[-1].override_grant == "jwt"
    assert client.admit(**ASK).source == "allowance"


def test_labels_around_a_call_count_toward_its_scope_or_ride_along(client, attach):
    scope = client.scope(task_class="draft", model="m", feature="x")
    one = {"prompt_tokens": 100, "max_output_tokens": 50}
    eventually(lambda: scope.admit(**one))
    for team, run in (("a", "r1"), ("b", "r1"), ("a", "r2")):
        with labels(team=team, run=run):
            decision = eventually(lambda: scope.admit(**one))
            assert decision.ask.labels == {
                "team": team,
                "run": run,
                "feature": "x",
            }
            client.settle(decision, cost_nusd=1)
    attach.wait(lambda heard: len(heard.settlements) == 3)
    assert [riding["run"] for _, riding in attach.settlements] == ["r1", "r1", "r2"]
    assert len({end.allowance_id for end, _ in attach.settlements}) == 2


def test_labels_of_a_call_may_be_whatever_can_be_written(client):
    assert eventually(lambda: client.admit(**ASK, labels={"step": 3})).ask.labels["step"] == "3"
    for like in (1, True, 1.0, "1"):
        step = eventually(lambda like=like: client.admit(**ASK, labels={"step": like})).ask
        assert step.labels["step"] == str(like), "what is equal to Python is not the same text"
    with pytest.raises(InvalidAsk, match="labels"):
        client.admit(**ASK, labels={"model": "x"})
    with pytest.raises(InvalidAsk, match="prompt_tokens"):
        client.admit(**ASK | {"prompt_tokens": -1})
    with pytest.raises(InvalidAsk, match="prompt_tokens"):
        client.admit(**ASK | {"prompt_tokens": "many"})
    with pytest.raises(InvalidAsk, match="model"):
        client.admit(**ASK | {"model": ["m"]})
    with pytest.raises(InvalidAsk, match="labels"):
        client.scope(labels={"tier": "x"}, model="m")


def test_a_bound_scope_has_all_fields_of_its_kind(client, admission):
    scope = client.scope(
        task_class="draft",
        model="m",
        provider="p",
        tier="standard",
        batch=True,
        acceptable_models=["m"],
        cost_kind="image",
        labels={"run": "r"},
        step=3,
    )
    first = scope.admit(estimated_cost_nusd=5)
    assert first.source == "daemon"
    drawn = eventually(lambda: scope.admit(estimated_cost_nusd=5))
    expected = pb.AdmitRequest()
    expected.CopyFrom(admission.of("Admit")[0])
    expected.ask_id = drawn.ask_id
    assert drawn.ask == expected
    assert drawn.ask.labels == {"team": "a", "run": "r", "step": "3"}
    with pytest.raises(InvalidAsk, match="estimated_cost_nusd"):
        scope.admit(estimated_cost_nusd=-5)


def test_without_allowances_there_is_no_stream_and_no_thread(daemon, admission, attach):
    with Client(daemon.address, caller="t", allowances=False) as client:
        for _ in range(5):
            assert client.admit(**ASK).source == "daemon"
        assert client.scope(model="m").admit(estimated_cost_nusd=5).source == "daemon"
        assert "costd-attach" not in {thread.name for thread in threading.enumerate()}
    assert attach.hellos == []
    assert len(admission.of("Admit")) == 6


def test_a_daemon_without_allowances_is_left_in_peace(daemon, admission):
    attempts = []

    def refuse(_, context):
        attempts.append(1)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such thing")

    daemon.stop()
    admission.Attach = refuse
    daemon.start()
    with Client(daemon.address, caller="t", allowances=True) as client:
        client.admit(**ASK)
        thread = client.attached._thread
        if thread is not None:
            thread.join(10)
        for _ in range(20):
            assert client.admit(**ASK).source == "daemon"
        assert client.attached.is_resting
    assert len(attempts) == 1


def test_a_scope_that_is_granted_nothing_is_asked_call_by_call(daemon, admission, attach):
    attach.refuses_scopes = True
    with Client(daemon.address, caller="t", allowances=True) as client:
        client.admit(**ASK)
        attach.wait(lambda heard: heard.hellos)
        for _ in range(10):
            assert client.admit(**ASK).source == "daemon"


def test_sixteen_threads_draw_and_settle_and_every_sum_is_exact(client, attach):
    scope = client.scope(task_class="draft", model="m")
    eventually(lambda: client.admit(**ASK))
    made, lock = [], threading.Lock()

    def work(number):
        for step in range(150):
            if step % 2:
                decision = scope.admit(prompt_tokens=100, max_output_tokens=50)
            else:
                decision = client.admit(**ASK, labels={"run": f"r{number}"})
            if decision.source == "allowance":
                client.settle(decision, cost_nusd=number)
                with lock:
                    made.append(decision.ask_id)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close(10)
    assert len(made) > 1_000
    assert sorted(end.ask_id for end, _ in attach.settlements) == sorted(made)
    books = next(iter(attach.books.values()))
    assert set(books.settled.values()) == {1}
    assert sum(calls for calls, _, _ in books.drawn.values()) >= len(made)
    assert sum(amount for _, amount, _ in books.drawn.values()) == 700 * attach.drawn_calls()


async def test_asyncio_draws_without_waiting(daemon, admission, attach):
    async with AsyncClient(daemon.address, caller="t", allowances=True) as client:
        scope = client.scope(task_class="draft", model="m")
        one = {"prompt_tokens": 100, "max_output_tokens": 50}
        while (await client.admit(**ASK)).source != "allowance":
            await asyncio.to_thread(attach.wait, lambda heard: heard.hellos)
        asked = len(admission.of("Admit"))
        assert (await scope.admit(**one)).source == "allowance"
        with pytest.raises(StopIteration) as done:
            scope.admit(**one).send(None)
        assert done.value.value.source == "allowance", "nothing was awaited"
        async with client.call(**ASK) as call:
            await call.progress(output_tokens=1)
            assert (await call.extend(additional_cost_nusd=1)).hold_nusd == 701
            call.settle(cost_nusd=4)
        assert call.settlement.queued
        await client.void(await client.admit(**ASK))
        assert len(admission.of("Admit")) <= asked + 5
    assert [end.cost_nusd for end, _ in attach.settlements] == [4, 0]
    assert len(attach.returned) >= 1


def test_a_broken_stream_changes_nothing_and_what_was_unheard_is_sent_again(
    client, admission, attach
):
    decision = eventually(lambda: client.admit(**ASK))
    attach.acknowledges = False
    client.settle(decision, cost_nusd=5)
    attach.wait(lambda heard: any(report.settlements for report in heard.reports))
    attach.acknowledges = True
    attach.hang_up()
    asked = len(admission.of("Admit"))
    while len(attach.hellos) < 2:
        assert client.admit(**ASK).source == "allowance"
        time.sleep(0.001)
    assert len(admission.of("Admit")) == asked
    attach.wait(lambda heard: heard.settlements)
    first, second = attach.hellos
    assert first.session_id == second.session_id
    assert list(second.held_allowance_ids) == [decision.allowance.allowance_id]
    client.settle(client.admit(**ASK), cost_nusd=6)
    attach.wait(lambda heard: len(heard.settlements) == 2)
    assert client.attached.session.unheard_count == 0 or attach.settlements


def test_calls_go_on_while_the_daemon_is_down_and_are_told_of_when_it_is_back(
    daemon, client, attach
):
    eventually(lambda: client.admit(**ASK))
    daemon.stop()
    for _ in range(10):
        client.settle(client.admit(**ASK), cost_nusd=1)
    daemon.start()
    attach.wait(lambda heard: len(heard.settlements) == 10)


def test_flush_waits_until_the_daemon_has_heard_all_that_was_said(client, attach):
    assert client.flush(0), "nothing was said"
    decision = eventually(lambda: client.admit(**ASK))
    client.settle(decision, cost_nusd=5)
    assert client.unheard_count == 1
    assert client.flush(10)
    assert len(attach.settlements) == 1
    attach.acknowledges = False
    client.void(client.admit(**ASK))
    assert not client.flush(0.05)
    assert client.unheard_count == 1
    attach.acknowledges = True
    attach.hang_up()
    assert client.flush(10)
    assert client.unheard_count == 0


def test_what_ends_while_nobody_listens_is_told_of_all_the_same(daemon, attach):
    """The thread had ended, and the daemon was to be left alone for a while."""
    with Client(daemon.address, caller="t") as client:
        decision = eventually(lambda: client.admit(**ASK))
        thread = client.attached._thread
        attach.say(revocation=pb.Revocation(allowance_id=decision.allowance.allowance_id))
        attach.wait(lambda heard: heard.returned)
        assert client.flush(10)
        while not client.attached.session.is_quiet:
            time.sleep(0.001)
        daemon.stop()
        thread.join(10)
        assert client.attached._thread is None
        client.attached._rests_until_ns = now_ns() + 60 * NS
        client.settle(decision, cost_nusd=5)
        daemon.start()
        attach.wait(lambda heard: heard.settlements)


class EndedStream:
    """A stream that ended at once."""

    def __iter__(self):
        return iter(())

    def cancel(self):
        pass


def test_a_call_that_ends_just_as_the_thread_does_is_not_forgotten():
    attached = Attached(lambda _: EndedStream(), surroundings(maps_pages=False))
    drawn = Held().draw(1, 1)
    drawn.allowance.home = attached.session.home

    class Raced(type(attached.session)):
        """A call ends between the look at what is left and the end of the thread."""

        @property
        def is_quiet(self):
            quiet = super().is_quiet
            if threading.current_thread().name == "costd-attach" and drawn.end is None:
                another = threading.Thread(target=attached.end, args=(drawn, End(None, 1)))
                another.start()
                another.join(1)
            return quiet

    attached.session.__class__ = Raced
    attached.draw(Facts(pb.AdmitRequest(), NO_STOCK), Stated(1, 1, None))
    deadline = time.monotonic() + 10
    while not attached._pauses:
        assert time.monotonic() < deadline, "nobody is left to tell of it"
        time.sleep(0.001)
    assert attached.session.unheard_count == 1
    attached.close(0)


def test_a_revocation_stops_draws(client, attach):
    decision = eventually(lambda: client.admit(**ASK))
    attach.refuses_scopes = True
    attach.say(revocation=pb.Revocation(allowance_id=decision.allowance.allowance_id))
    eventually(lambda: client.admit(**ASK), source="daemon")
    attach.wait(lambda heard: heard.returned)


def test_pages_are_mapped_and_written_before_the_answer(daemon, attach, tmp_path):
    pages = attach.pages = write_pages(tmp_path)

    def slot(number):
        poke(pages[1], base_of(2), 1_000 + number)
        return 2

    attach.grant = LARGE | {"slot": slot}
    with Client(daemon.address, caller="t", allowances=True) as client:
        eventually(lambda: client.admit(**ASK))
        slots = map_pages(*map(str, pages)).slots
        for calls in range(2, 20):
            assert client.admit(**ASK).source == "allowance"
            assert [slots[base_of(2) + n] for n in (1, 2, 3)] == [calls, 700 * calls, 150 * calls]
        poke(pages[0], 1, 8)
        attach.refuses_scopes = True
        assert client.admit(**ASK).source == "daemon", "at once, without a word on the stream"
        attach.say(generation=pb.Generation(generation=8, scope_labels=["team"]))
        eventually(lambda: client.admit(**ASK))


def test_pages_that_cannot_be_mapped_are_done_without(daemon, attach, tmp_path):
    attach.pages = (tmp_path / "none", tmp_path / "none either")
    with Client(daemon.address, caller="t", allowances=True) as client:
        eventually(lambda: client.admit(**ASK))
    assert [hello.maps_pages for hello in attach.hellos] == [True, False]


def test_a_killed_process_is_charged_for_every_call_that_it_let_go(daemon, attach, tmp_path):
    pages = attach.pages = write_pages(tmp_path)

    def slot(number):
        poke(pages[1], base_of(0), 1_000 + number)
        return 0

    attach.grant = LARGE | {"slot": slot}
    ran = run(DRAW_AND_DIE, daemon.address)
    assert ran.returncode == -9
    let_go = int(ran.stdout)
    assert map_pages(*map(str, pages)).slots[base_of(0) + 1] == let_go >= 50


DRAW_AND_DIE = """
import os, sys
from attach_desk import eventually
from costd_client import Client
client = Client(sys.argv[1], caller="t", allowances=True)
scope = client.scope(model="m")
eventually(lambda: scope.admit(estimated_cost_nusd=5))
let_go = 1
for _ in range(50):
    let_go += scope.admit(estimated_cost_nusd=5).source == "allowance"
print(let_go, flush=True)
os.kill(os.getpid(), 9)
"""

FORK = """
import os, sys
from attach_desk import eventually
from costd_client import Client, ReservationNotFound
client = Client(sys.argv[1], caller="t", allowances=True)
scope = client.scope(model="m")
ask = lambda: scope.admit(estimated_cost_nusd=5)
drawn = eventually(ask)
call = client.call(model="m", estimated_cost_nusd=5).__enter__()
assert call.decision.source == "allowance"
for _ in range(int(sys.argv[2])):
    client.settle(ask(), cost_nusd=1)
    child = os.fork()
    if child == 0:
        try:
            client.settle(drawn, cost_nusd=1)
            os._exit(3)
        except ReservationNotFound:
            pass
        try:
            call.extend(additional_cost_nusd=1)
            os._exit(4)
        except ReservationNotFound:
            pass
        if ask().source != "daemon":
            os._exit(2)
        client.settle(eventually(ask), cost_nusd=2)
        client.close()
        os._exit(0)
    client.settle(eventually(ask), cost_nusd=1)
    _, status = os.waitpid(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(code)
client.settle(drawn, cost_nusd=1)
client.close()
"""

END_WITHOUT_CLOSING = """
import sys
from attach_desk import eventually
from costd_client import Client
client = Client(sys.argv[1], caller="t", allowances=True)
client.settle(eventually(lambda: client.admit(model="m", estimated_cost_nusd=5)), cost_nusd=1)
"""


def run(code, *arguments):
    """Run a program with this process's modules."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
        check=False,
        stdout=subprocess.PIPE,
    )


def test_a_forked_child_draws_nothing_of_its_parents_and_attaches_anew(daemon, attach):
    assert run(FORK, daemon.address, "4").returncode == 0
    assert len({hello.session_id for hello in attach.hellos}) == 5
    costs = [
        sorted(end.cost_nusd for end, _ in books.settlements) for books in attach.books.values()
    ]
    assert sorted(costs) == [[1] * 9, [2], [2], [2], [2]]


def test_the_end_of_a_program_reports_and_returns(daemon, attach):
    assert run(END_WITHOUT_CLOSING, daemon.address).returncode == 0
    assert len(attach.settlements) == 1
    assert len(attach.returned) == 1


def test_closing_reports_and_returns_everything(daemon, attach):
    client = Client(daemon.address, caller="t", allowances=True)
    decision = eventually(lambda: client.admit(**ASK))
    late = client.admit(**ASK)
    client.settle(decision, cost_nusd=5)
    client.close()
    assert len(attach.settlements) == 1
    assert attach.returned == [decision.allowance.allowance_id]
    assert client.admit(**ASK).source == "daemon"
    with pytest.raises(OutboxFull, match="after close"):
        client.settle(late, cost_nusd=5)
    client.close()
    assert not [one for one in threading.enumerate() if one.name == "costd-attach"]


def test_closing_says_what_the_daemon_did_not_hear(daemon, attach, caplog):
    client = Client(daemon.address, caller="t", allowances=True)
    decision = eventually(lambda: client.admit(**ASK))
    daemon.stop()
    client.settle(decision, cost_nusd=5)
    client.close(0.2)
    assert "did not hear how 1 calls ended" in caplog.text


def test_settling_waits_while_too_much_is_unheard_and_then_says_so(daemon, attach):
    with Client(daemon.address, caller="t", allowances=True, timeout_s=0.2) as client:
        decisions = [eventually(lambda: client.admit(**ASK)) for _ in range(4)]
        client.attached.session._settlements_count_max = 3
        attach.acknowledges = False
        for decision in decisions[:3]:
            client.settle(decision, cost_nusd=1)
        assert client.admit(**ASK).source == "daemon"
        with pytest.raises(OutboxFull, match="too many calls"):
            client.settle(decisions[3], cost_nusd=1)
        assert client.settle(decisions[0], cost_nusd=1).queued, "said before"
        attach.acknowledges = True
        attach.hang_up()
        eventually(lambda: client.admit(**ASK))
        assert client.settle(decisions[3], cost_nusd=1).queued
        attach.wait(lambda heard: len(heard.settlements) == 4)


def test_a_decision_that_crossed_a_process_boundary_is_not_settled_there(client):
    copy = pickle.loads(pickle.dumps(eventually(lambda: client.admit(**ASK))))
    with pytest.raises(ReservationNotFound, match="another process"):
        client.settle(copy, cost_nusd=1)


def test_a_finalizer_may_settle_at_any_moment(client, attach):
    eventually(lambda: client.admit(**ASK))

    class Stream:
        def __init__(self):
            self.me = self
            self.call = client.call(**ASK).__enter__()
            self.call.settle(cost_nusd=1)

        def __del__(self):
            self.call.drop()

    for _ in range(300):
        Stream()
    gc.collect()
    attach.wait(lambda heard: len(heard.settlements) >= 290)


def test_remembered_kinds_of_calls_are_bounded(client):
    eventually(lambda: client.admit(**ASK))
    for number in range(1_100):
        client.admit(**ASK, labels={"run": f"r{number}"})
    assert len(client.rules.scopes._facts) <= 1_024
    assert len(client.attached.session._stocks) == 1


def test_a_daemon_that_breaks_the_protocol_costs_nothing_but_the_stream(client, attach, caplog):
    eventually(lambda: client.admit(**ASK))
    attach.say(welcome=pb.Welcome())
    attach.wait(lambda heard: len(heard.hellos) == 2)
    assert "breaks the protocol" in caplog.text
    eventually(lambda: client.admit(**ASK))
