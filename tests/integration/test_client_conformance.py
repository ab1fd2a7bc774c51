"""The clients in Python and TypeScript are told the same, and leave the same books."""

import json
import random
import re
import shutil
import subprocess

import grpc
import pytest
from costd_client import Client, CostdError

from bench.typescript import PACKAGE, build
from costd.testing import DaemonProcess
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.control_pb2_grpc import ControlStub

POLICY = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes:
  draft: {max_output_tokens: 1000}
  review: {critical: true, min_tier: premium}
default_task_class: draft
default_tier: premium
budgets:
  - id: teams
    per: team
    window: total
    limit: $2
    steps:
      - {at: 40%, do: [tier_down, {max_output_tokens: 256}]}
      - {at: 90%, do: [deny]}
allowance: {for: 2s}
"""

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None, reason="Node is missing; install Node 20 or newer with npm"
)


def scenario(seed, count):
    """Calls of all kinds, malformed ones too, in the names of Python."""
    chance = random.Random(seed)
    for number in range(count):
        tokens = {"prompt_tokens": chance.randrange(20_000), "max_output_tokens": 400}
        cost = {"estimated_cost_nusd": chance.randrange(60_000_000)}
        ask = {
            "task_class": chance.choice(["draft", "draft", "draft", "review", "nonsense"]),
            "model": chance.choice(["gpt-4o", "gpt-4o", "gpt-4o-mini", "nobodys-model"]),
            "labels": {"run": f"r{number}"},
            **chance.choice([tokens, tokens, cost, {"max_output_tokens": 5}]),
        }
        if number % 20 == 19:
            ask["labels"] = {"model": "x"}
        usage = {"prompt_tokens": chance.randrange(20_000), "output_tokens": chance.randrange(400)}
        used = chance.choice([usage, {"cost_nusd": chance.randrange(40_000_000)}])
        end = chance.choice(["settle", "settle", "settle", "void", "record", "explain"])
        yield {"ask": ask, "end": end, "used": used}


def played_in_python(daemon, team, steps, *, allowances):
    said = []
    with Client(
        daemon.address, caller="conform", labels={"team": team}, allowances=allowances
    ) as client:
        for step in steps:
            try:
                said.append(played(client, **step))
            except CostdError as error:
                said.append(type(error).__name__)
        assert client.flush()
    return said


def played(client, ask, end, used):
    if end == "record":
        return str(client.record(ask=ask, **used).cost_nusd)
    if end == "explain":
        explained = client.explain(**ask)
        rows = [[one.model, one.outcome] for one in explained.candidates]
        return [str(explained.decision.hold_nusd), rows]
    decision = client.admit(**ask)
    told = [decision.verdict.name.lower(), decision.reason.name, decision.model, decision.tier]
    told += [str(decision.hold_nusd), decision.max_output_tokens]
    if not decision.allowed:
        return told
    settlement = client.void(decision) if end == "void" else client.settle(decision, **used)
    return [*told, None if settlement.cost_nusd is None else str(settlement.cost_nusd)]


def played_in_typescript(daemon, team, steps, *, allowances):
    def camel(value):
        if not isinstance(value, dict):
            return value
        return {
            re.sub(r"_(\w)", lambda found: found[1].upper(), key): (
                str(inner) if key.endswith("_nusd") else inner if key == "labels" else camel(inner)
            )
            for key, inner in value.items()
        }

    told = {
        "address": daemon.address,
        "team": team,
        "allowances": allowances,
        "steps": [camel(step) for step in steps],
    }
    done = subprocess.run(
        ["node", "build/test/conform.js"],
        cwd=PACKAGE,
        input=json.dumps(told),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def books(daemon, team):
    """The counter of a team, but for its own name."""
    with grpc.insecure_channel(daemon.control_address) as channel:
        listed = ControlStub(channel).ListBudgets(cpb.ListBudgetsRequest(budget="teams"))
    (row,) = [one for one in listed.budgets if one.key == f"team={team}"]
    return (row.settled, row.reserved, row.overrun, row.unadmitted, row.late)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    build()
    policy = tmp_path_factory.mktemp("conformance") / "policy.yaml"
    policy.write_text(POLICY)
    with DaemonProcess(policy, "--claims", "*") as daemon:
        yield daemon


def test_one_scenario_has_the_same_answers_and_the_same_books_in_both_languages(running):
    steps = list(scenario(7, 160))
    ours = played_in_python(running, "py", steps, allowances=False)
    theirs = played_in_typescript(running, "ts", steps, allowances=False)
    assert theirs == ours
    assert books(running, "ts") == books(running, "py")
    verdicts = {one[0] for one in ours if isinstance(one, list) and len(one) > 2}
    assert verdicts == {"allow", "degrade", "deny"}
    assert {"InvalidAsk"} < {one for one in ours if isinstance(one, str)}


def test_drawn_calls_leave_the_same_books_in_both_languages(running):
    ask = {"model": "gpt-4o", "prompt_tokens": 100, "max_output_tokens": 10}
    steps = [
        {"ask": ask, "end": "settle" if number % 3 else "void", "used": {"cost_nusd": number}}
        for number in range(600)
    ]
    played_in_python(running, "py-drawn", steps, allowances=True)
    played_in_typescript(running, "ts-drawn", steps, allowances=True)
    charged = sum(number for number in range(600) if number % 3)
    assert books(running, "ts-drawn") == books(running, "py-drawn") == (charged, 0, 0, 0, 0)
