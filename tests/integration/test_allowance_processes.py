"""Allowances between real processes that are killed, forked, stopped, and many."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import grpc
import pytest

from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb import control_pb2_grpc

HOLD_NUSD = 1_000_000
POLICY = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes: {draft: {}}
default_task_class: draft
budgets:
  - {id: all, window: total, limit: $%s}
  - {id: user, per: user, window: total}
expiry: {ttl: 1s}
allowance: {for: 1s}
"""
PLENTY = POLICY % 100
WAIT_S = 120

CLIENT = f"""
import json, os, signal, sys, time
from costd_client import Client, ReservationNotFound
from costd_client.errors import CostdError

HOLD = {HOLD_NUSD}
ASK = {{"model": "gpt-4o", "estimated_cost_nusd": HOLD}}

def client_of(user):
    return Client(sys.argv[1], caller=user, allowances=True, timeout_s=10,
                  labels={{"user": user}})

def until(condition):
    end = time.monotonic() + {WAIT_S}
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)

def drawn_call(client):
    "Admit until a call is drawn; the others are voided. Returns the decision."
    found = []
    def draws():
        decision = client.admit(**ASK)
        if decision.source == "allowance":
            found.append(decision)
        elif decision.reservation_id:
            client.void(decision)
        return found
    until(draws)
    return found[0]

def heard(client):
    until(lambda: not client.attached.session.unheard_count)

def say(**what):
    os.write(1, json.dumps(what).encode() + b"\\n")
"""


@pytest.fixture
def running(fresh_daemon):
    with fresh_daemon(PLENTY) as daemon:
        yield daemon


@pytest.fixture
def start():
    """Start programs of clients, each a process of its own."""
    started = []

    def run(daemon, code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT + code, daemon.address, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def said(process):
    """All that a program said, once it has ended in good order."""
    out, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


def operator(daemon):
    return control_pb2_grpc.ControlStub(grpc.insecure_channel(daemon.control_address))


def spent(daemon, budget="all"):
    """What the books say by key: (settled, reserved)."""
    rows = operator(daemon).ListBudgets(cpb.ListBudgetsRequest(budget=budget)).budgets
    return {row.key.removeprefix("user="): (row.settled, row.reserved) for row in rows}


def all_spent(daemon):
    (sums,) = spent(daemon).values()
    return sums


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


DRAW_SETTLE_DIE = """
client = client_of("ann")
for _ in range(20):
    client.settle(drawn_call(client), cost_nusd=7)
heard(client)
in_flight = [drawn_call(client) for _ in range(30)]
for decision in in_flight[:10]:
    client.settle(decision, cost_nusd=7) if sys.argv[2] == "settling" else None
say(let_go=30)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_client_killed_with_9_is_charged_for_exactly_what_it_let_go(running, start):
    process = start(running, DRAW_SETTLE_DIE, "drawing")
    assert process.wait(WAIT_S) == -signal.SIGKILL
    until(lambda: all_spent(running) == (20 * 7, 30 * HOLD_NUSD))
    until(lambda: all_spent(running) == (20 * 7 + 30 * HOLD_NUSD, 0))


def test_what_a_killed_client_had_not_told_is_charged_at_its_hold_and_nothing_twice(running, start):
    process = start(running, DRAW_SETTLE_DIE, "settling")
    assert process.wait(WAIT_S) == -signal.SIGKILL
    until(lambda: not all_spent(running)[1])
    settled, _ = all_spent(running)
    told = (20 * 7 + 30 * HOLD_NUSD - settled) // (HOLD_NUSD - 7)
    assert settled == 20 * 7 + told * 7 + (30 - told) * HOLD_NUSD
    assert 0 <= told <= 10


DRAW_UNTIL_TOLD = """
client, spent, drawn, go_on = client_of(sys.argv[2]), 0, 0, True
signal.signal(signal.SIGTERM, lambda *_: globals().update(go_on=False))
say(ready=True)
number = 0
while go_on:
    try:
        decision = client.admit(**ASK)
    except CostdError:
        continue  # nobody decided; the client undoes what may have arrived
    number += 1
    drawn += decision.source == "allowance"
    spent += number % 11
    client.settle(decision, cost_nusd=number % 11)
    time.sleep(0.005)
client.close(timeout_s=20)
say(spent=spent, drawn=drawn, unheard=client.attached.session.unheard_count)
"""


def test_a_daemon_killed_with_9_under_drawing_clients_loses_and_invents_nothing(running, start):
    processes = [start(running, DRAW_UNTIL_TOLD, f"user-{number}") for number in range(3)]
    for process in processes:
        assert json.loads(process.stdout.readline()) == {"ready": True}
    for round_number in range(4):
        before = booked_count(running)
        until(lambda before=before: booked_count(running) > before)
        if round_number < 3:
            running.kill()
            running.start()
    for process in processes:
        process.terminate()
    told = [said(process)[-1] for process in processes]
    assert [one["unheard"] for one in told] == [0, 0, 0]
    assert sum(one["drawn"] for one in told) > 0
    until(lambda: not all_spent(running)[1])
    # An ask whose answer was lost is undone by its client, if that comes before its time is up.
    request = cpb.ListReservationsRequest(include_closed=True, limit_count=100_000)
    expired = [
        row.cost_nusd
        for row in operator(running).ListReservations(request).reservations
        if row.state == pb.RESERVATION_STATE_EXPIRED and not row.ask_id.startswith("allowance ")
    ]
    assert all_spent(running)[0] == sum(one["spent"] for one in told) + sum(expired)


def booked_count(daemon):
    """How many usage events there are; unlike what was spent, it never falls."""
    events = operator(daemon).ListUsage(cpb.ListUsageRequest(limit_count=100_000)).events
    return max((event.sequence for event in events), default=0)


FORK_WHILE_ATTACHED = """
client = client_of("parent")
mine = drawn_call(client)
children = []
for number in range(4):
    child = os.fork()
    if not child:
        try:
            client.settle(mine, cost_nusd=1)
        except ReservationNotFound:
            pass
        else:
            os._exit(3)
        for _ in range(10):
            client.settle(drawn_call(client), cost_nusd=100)
        client.close(timeout_s=10)
        os._exit(1 if client.attached.session.unheard_count else 0)
    children.append(child)
    client.settle(drawn_call(client), cost_nusd=1)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
client.settle(mine, cost_nusd=1)
client.close(timeout_s=10)
say(codes=codes)
"""


def test_children_forked_while_attached_draw_their_own_and_all_of_it_adds_up(running, start):
    assert said(start(running, FORK_WHILE_ATTACHED)) == [{"codes": [0] * 4}]
    until(lambda: all_spent(running) == (5 * 1 + 4 * 10 * 100, 0))


MANY = """
count, calls_count = int(sys.argv[2]), int(sys.argv[3])
ready, told = os.pipe(), os.pipe()
children = []
for number in range(count):
    child = os.fork()
    if not child:
        os.close(ready[1])
        client = client_of(f"user-{number:02}")
        got = asked = 0
        first = client.admit(**ASK)
        until(lambda: client.attached.session.epoch is not None)
        os.write(told[1], b".")
        os.read(ready[0], 1)  # all of them are attached, and stay so
        decisions = [first] + [client.admit(**ASK) for _ in range(calls_count)]
        held = [one for one in decisions if one.allowed]
        for one in held:
            client.settle(one, cost_nusd=HOLD)
        drawn = sum(one.source == "allowance" for one in held)
        client.close(timeout_s=20)
        say(user=number, got=len(held), drawn=drawn, denied=len(decisions) - len(held),
            unheard=client.attached.session.unheard_count)
        os._exit(0)
    children.append(child)
attached = 0
while attached < count:
    attached += len(os.read(told[0], count))
say(attached=attached)
sys.stdin.readline()
os.close(ready[1])
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.slow
def test_64_processes_attached_at_once_share_one_budget_to_the_nano_dollar(fresh_daemon, start):
    count, calls_count = 64, 100
    limit_calls = 4_000
    with fresh_daemon(POLICY % (limit_calls * HOLD_NUSD / 10**9)) as daemon:
        many = start(daemon, MANY, str(count), str(calls_count))
        assert json.loads(many.stdout.readline()) == {"attached": count}
        assert operator(daemon).GetStatus(cpb.GetStatusRequest()).sessions_attached_count == count
        many.stdin.write("\n")
        many.stdin.flush()
        rows = said(many)
        assert len(rows) == count
        until(lambda: not all_spent(daemon)[1])
        told = Counter({f"user-{row['user']:02}": row["got"] * HOLD_NUSD for row in rows})
        assert {user: settled for user, (settled, _) in spent(daemon, "user").items()} == told
        assert all_spent(daemon)[0] == told.total() <= limit_calls * HOLD_NUSD
        assert sum(row["drawn"] for row in rows) > 0
        assert sum(row["denied"] for row in rows) > 0
        assert not any(row["unheard"] for row in rows)
