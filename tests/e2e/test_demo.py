"""`make demo`, as a user runs it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_demo_shows_everything_and_its_ledger_adds_up(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "costd.cli.demo", "--json", "--seed", "7", "--keep", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    outcome = json.loads(run.stdout)
    assert outcome["passed"]
    assert outcome["seed"] == 7
    assert [fact["name"] for fact in outcome["facts"] if not fact["seen"]] == []
    acts = {fact["part"] for fact in outcome["facts"]}
    assert acts == {
        "Business as usual",
        "A budget runs dry",
        "The kill switch",
        "Released",
        "A budget stops itself",
        "A tight loop",
    }
    assert {check["name"]: check["differences"] for check in outcome["checks"]} == {
        "price of each call": [],
        "usage events": [],
        "grand total": [],
        "cost per project": [],
        "cost per user": [],
        "cost per model": [],
        "cost per task_class": [],
        "budgets, per key": [],
        "limits kept": [],
        "nothing left reserved": [],
        "verdicts per class": [],
        "override grants": [],
        "decided in the process": [],
    }
    assert 1_000 < outcome["drawn_count"] <= 2_000
    journals = sorted(tmp_path.glob("journal-*.jsonl"))
    entries = [json.loads(line) for path in journals for line in path.read_text().splitlines()]
    assert len(entries) == outcome["calls_count"] == sum(outcome["verdicts"].values())
    assert len({entry["labels"]["agent"] for entry in entries}) >= 200
    assert sum(entry.get("cost_nusd", 0) for entry in entries) == outcome["total_nusd"]


@pytest.mark.slow
def test_a_fleet_is_killed_and_cut_off_and_its_ledger_adds_up(tmp_path):
    run = subprocess.run(
        [
            sys.executable, "-m", "costd.cli.demo", "--fleet", "3", "--json", "--seed", "7",
            "--keep", tmp_path,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    outcome = json.loads(run.stdout)
    assert outcome["passed"]
    assert [fact["name"] for fact in outcome["facts"] if not fact["seen"]] == []
    assert [fact["part"] for fact in outcome["facts"]].count("A partition") == 4
    assert {check["name"]: check["differences"] for check in outcome["checks"]} == {
        "settled at each daemon": [],
        "settled at the coordinator": [],
        "the limit is kept": [],
        "nothing left reserved": [],
        "usage events, each once": [],
        "hourly sums": [],
    }
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    costs = [json.loads(line).get("cost_nusd", 0) for line in lines]
    assert sum(costs) == outcome["total_nusd"] <= outcome["limit_nusd"]
    assert len(lines) == outcome["settled_count"] + outcome["refused_count"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_demo_that_is_stopped_takes_its_daemon_and_workers_along(number):
    with subprocess.Popen(
        [sys.executable, "-m", "costd.cli.demo"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        for line in demo.stdout:
            if "Business as usual" in line:
                break
        started = children(demo.pid)
        demo.send_signal(number)
        demo.stdout.read()
    assert demo.returncode == 128 + number
    assert len(started) >= 3
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def children(pid):
    """List the processes that this one started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.parametrize("options", [("--fleet", "1"), ("--fleet", "4", "--trace", "calls.csv")])
def test_a_fleet_has_two_daemons_and_no_trace(options):
    run = subprocess.run(
        [sys.executable, "-m", "costd.cli.demo", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert "two daemons or more" in run.stderr


def test_options_of_traces_need_a_trace():
    run = subprocess.run(
        [sys.executable, "-m", "costd.cli.demo", "--serial"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert "--trace" in run.stderr
