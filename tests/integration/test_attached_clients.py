"""The Python client's allowances before a real daemon: threads, asyncio, forks, deaths."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest
from costd_client import AsyncClient, Client
from costd_client.pb import control_pb2 as cpb
from costd_client.pb.control_pb2_grpc import ControlStub

POLICY = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes: {draft: {}}
default_task_class: draft
budgets:
  - {id: all, window: total, limit: $100}
  - {id: teams, per: team, window: day, limit: $100}
allowance: {for: 2s}
"""
KIND = {"task_class": "draft", "model": "gpt-4o"}
ONE = {"prompt_tokens": 1_000, "max_output_tokens": 100}
HOLD_NUSD = 3_500_000
"""1,000 tokens at 2,500 nusd, and 100 at 10,000."""


@pytest.fixture
def running(fresh_daemon):
    with fresh_daemon(POLICY) as daemon:
        yield daemon


def control(daemon, method, request):
    with grpc.insecure_channel(daemon.control_address) as channel:
        return getattr(ControlStub(channel), method)(request, timeout=10)


def events(daemon):
    return control(daemon, "ListUsage", cpb.ListUsageRequest(limit_count=10_000)).events


def books(daemon, budget="all"):
    (found,) = control(daemon, "ListBudgets", cpb.ListBudgetsRequest(budget=budget)).budgets
    assert (found.unadmitted, found.late) == (0, 0)
    return found.settled, found.reserved


def drawn(ask, timeout_s=10):
    """Ask until the process decides by itself; what the daemon decided on the way is left."""
    deadline = time.monotonic() + timeout_s
    while (decision := ask()).source != "allowance":
        assert time.monotonic() < deadline, "no allowance came"
        time.sleep(0.002)
    return decision


def test_threads_draw_and_settle_and_the_books_are_exact(running):
    count, said, lock = 150, [], threading.Lock()
    with Client(running.address, caller="t", labels={"team": "a"}) as client:
        scope = client.scope(**KIND)

        def work(number):
            for step in range(count):
                decision = scope.admit(**ONE) if step % 2 else client.admit(**KIND, **ONE)
                client.settle(decision, cost_nusd=number)
                with lock:
                    said.append((decision.ask_id, number, decision.source))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.flush(20)
        assert client.unheard_count == 0
        assert books(running)[0] == sum(cost for _, cost, _ in said)
    assert sum(source == "allowance" for _, _, source in said) > len(said) // 2
    assert sorted((one.ask_id, one.cost_nusd) for one in events(running)) == sorted(
        (ask_id, cost) for ask_id, cost, _ in said
    )
    assert books(running) == (sum(cost for _, cost, _ in said), 0)


async def test_asyncio_tasks_draw_and_settle_and_the_books_are_exact(running):
    async with AsyncClient(running.address, caller="t", labels={"team": "a"}) as client:
        scope = client.scope(**KIND)
        sources = []

        async def work(number):
            for _ in range(60):
                async with client.call(**KIND, **ONE, labels={"run": f"r{number}"}) as call:
                    call.settle(prompt_tokens=10, output_tokens=1)
                decision = await scope.admit(**ONE)
                await client.settle(decision, cost_nusd=number)
                sources.append(decision.source)

        await asyncio.gather(*(work(number) for number in range(8)))
        assert await client.flush(20)
        expected = 60 * (sum(range(8)) + 8 * (10 * 2_500 + 10_000))
        assert books(running, "teams")[0] == expected
    assert sources.count("allowance") > len(sources) // 2
    assert books(running, "teams") == (expected, 0)
    runs = [dict(one.labels).get("run") for one in events(running)]
    assert {run: runs.count(run) for run in set(runs)} == {
        None: 480,
        **{f"r{number}": 60 for number in range(8)},
    }


FORK = """
import os, sys
from test_attached_clients import KIND, ONE, drawn
from costd_client import Client
client = Client(sys.argv[1], caller="t", labels={"team": "a"})
scope = client.scope(**KIND)
ask = lambda: scope.admit(**ONE)
def work(cost):
    for _ in range(20):
        decision = ask()
        client.settle(decision, cost_nusd=cost)
drawn(ask)
work(1)
children = []
for cost in (10, 100):
    child = os.fork()
    if child == 0:
        assert ask().source == "daemon"
        drawn(ask)
        work(cost)
        os._exit(0 if client.flush(20) and client.close() is None else 1)
    children.append(child)
work(1)
for child in children:
    _, status = os.waitpid(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(code)
sys.exit(0 if client.flush(20) else 1)
"""


def run(code, *arguments):
    """Run a program with this process's modules."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_forked_children_attach_anew_and_every_process_is_charged_its_own(running):
    assert run(FORK, running.address).returncode == 0
    costs = [one.cost_nusd for one in events(running)]
    assert {cost: costs.count(cost) for cost in (1, 10, 100)} == {1: 40, 10: 20, 100: 20}
    assert len({one.ask_id for one in events(running)}) == len(costs)


def test_calls_go_on_while_the_daemon_is_dead_and_are_booked_once_when_it_is_back(running):
    with Client(running.address, caller="t", labels={"team": "a"}) as client:
        scope = client.scope(**KIND)
        decision = drawn(lambda: scope.admit(**ONE))
        before = books(running)[0]
        running.kill()
        for cost in (1, 2, 3):
            client.settle(decision, cost_nusd=cost)
            decision = scope.admit(**ONE)
            assert decision.source == "allowance"
        client.void(decision)
        assert not client.flush(0.05)
        assert client.unheard_count == 4
        running.restart()
        assert client.flush(20)
        assert books(running)[0] == before + 6
        assert drawn(lambda: scope.admit(**ONE)).allowed
    assert sorted(one.cost_nusd for one in events(running)) == [1, 2, 3]


def test_a_daemon_that_hangs_holds_nobody_up_and_hears_everything_afterwards(running):
    with Client(running.address, caller="t", labels={"team": "a"}) as client:
        scope = client.scope(**KIND)
        drawn(lambda: scope.admit(**ONE))
        running.signal(signal.SIGSTOP)
        try:
            sources = set()
            for _ in range(5):
                decision = scope.admit(**ONE)
                sources.add(decision.source)
                client.settle(decision, cost_nusd=7)
        finally:
            running.signal(signal.SIGCONT)
        assert sources == {"allowance"}
        assert client.flush(20)
    assert [one.cost_nusd for one in events(running)] == [7] * 5


SETTLE_AND_DIE = """
import os, sys
from test_attached_clients import KIND, ONE, drawn
from costd_client import Client
client = Client(sys.argv[1], caller="t", labels={"team": "a"}, spool=sys.argv[2])
scope = client.scope(**KIND)
decision = drawn(lambda: scope.admit(**ONE))
os.kill(int(sys.argv[3]), 19)
count = 0
while decision.source == "allowance" and count < 5:
    client.settle(decision, cost_nusd=7)
    count += 1
    decision = scope.admit(**ONE)
print(count, flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_had_settled_is_booked_from_its_spool(running, tmp_path):
    spool = tmp_path / "spool"
    died = run(SETTLE_AND_DIE, running.address, str(spool), str(running.pid))
    running.signal(signal.SIGCONT)
    assert died.returncode == -9
    settled_count = int(died.stdout)
    assert settled_count == 5
    for _ in range(2):
        with Client(running.address, caller="another", spool=spool) as client:
            assert client.flush(20)
    assert [one.cost_nusd for one in events(running)] == [7] * settled_count
    assert books(running)[0] == 7 * settled_count
    assert not list(spool.glob("*.draws"))


def test_a_kill_switch_stops_a_loop_that_asks_nobody(running):
    with Client(running.address, caller="t", labels={"team": "a"}) as client:
        scope = client.scope(**KIND)
        drawn(lambda: scope.admit(**ONE))
        request = cpb.EngageKillRequest(kill_id="stop", reason="test", actor="t")
        control(running, "EngageKill", request)
        decision = scope.admit(**ONE)
        assert (decision.source, decision.allowed) == ("daemon", False)
