"""A drill with a real daemon and real clients, one of which hangs."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack

import grpc
import pytest

from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.control_pb2_grpc import ControlStub

POLICY = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes: {draft: {}}
default_task_class: draft
budgets:
  - {id: all, window: total, limit: $100}
allowance: {for: 60s}
expiry: {ttl: 120s}
"""

CLIENT = """
import sys, time
from costd_client import Client
client = Client(sys.argv[1], caller=sys.argv[2])
scope = client.scope(task_class="draft", model="gpt-4o")
ask = lambda: scope.admit(prompt_tokens=1_000, max_output_tokens=100)

def drawn():
    until = time.monotonic() + 30
    while (decision := ask()).source != "allowance":
        client.void(decision)
        assert time.monotonic() < until, "no allowance came"
        time.sleep(0.005)
    client.void(decision)

drawn()
print("holds", flush=True)
allowances = {id for id in client.attached.session._held}
sys.stdin.readline()
drawn()
same = allowances == {id for id in client.attached.session._held}
print("same" if same else "another", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=["process", "disk"])
def running(fresh_daemon, request):
    with fresh_daemon(POLICY, "--durability", request.param) as daemon:
        yield daemon


@pytest.fixture
def start(running):
    with ExitStack() as ending:

        def run(caller):
            process = subprocess.Popen(
                [sys.executable, "-c", CLIENT, running.address, caller],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            ending.callback(process.communicate)
            ending.callback(process.kill)
            assert process.stdout.readline() == "holds\n"
            return process

        yield run


def costctl(daemon, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "costd.cli.costctl", *arguments, "--control",
         daemon.control_address],
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip


def audited(daemon):
    with grpc.insecure_channel(daemon.control_address) as channel:
        records = ControlStub(channel).ListAudit(cpb.ListAuditRequest(), timeout=10).records
    return [(each.action, each.subject) for each in records if "drill" in each.action]


def test_everyone_confirms_and_goes_on_drawing_what_it_held(running, start):
    processes = [start("ann"), start("bob")]
    drilled = costctl(running, "drill", "--timeout", "30s", "--json")
    assert drilled.returncode == 0, drilled.stderr
    report = json.loads(drilled.stdout)
    assert (report["attached_count"], report["confirmed_count"]) == (2, 2)
    assert {row["caller"] for row in report["processes"]} == {"ann", "bob"}
    assert all(row["allowances_count"] == 1 for row in report["processes"])
    assert 0 < report["p50_ns"] <= report["max_ns"] < 30 * 10**9
    assert report["written_ns"] > 0
    for process in processes:
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == "same\n"
    assert audited(running) == [
        ("kill_drilled", report["drill_id"]), ("kill_drill_begun", report["drill_id"]),
    ]  # fmt: skip


def test_a_client_that_hangs_is_named_and_hears_once_it_goes_on(running, start):
    start("ann")
    hung = start("bob")
    os.kill(hung.pid, signal.SIGSTOP)
    drilled = costctl(running, "drill", "--timeout", "200ms", "--reason", "monthly")
    assert drilled.returncode == 7
    assert "bob" in drilled.stdout.splitlines()[2]
    assert "NOT CONFIRMED" in drilled.stdout.splitlines()[2]
    assert "1 confirmed" in drilled.stdout
    assert "1 did not confirm in time" in drilled.stdout
    os.kill(hung.pid, signal.SIGCONT)
    again = costctl(running, "drill", "--timeout", "30s")
    assert again.returncode == 0, again.stdout
    assert "everyone confirmed" in again.stdout
