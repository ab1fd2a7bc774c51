"""`make demo TRACE=FILE.csv`: a real daemon, every total recomputed, every verdict foretold."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from costd_client import Client

from costd.cli.demo.crew import Assignment
from costd.cli.demo.journal import Entry
from costd.cli.demo.recount import recount
from costd.cli.demo.rulebook import read_rulebook
from costd.cli.demo.stage import running, work_folder
from costd.cli.demo.verify import read_books, verify
from costd.cli.demo.workers import at_work

ROOT = Path(__file__).resolve().parents[2]
REAL_TRACE = ROOT.parent / "shared" / "data" / "azure_llm_conv_2023.csv"
POLICY = ROOT / "costd" / "cli" / "demo" / "trace.yaml"


def replay(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "costd.cli.demo", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def outcome_of(*arguments):
    run = replay("--json", *arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    outcome = json.loads(run.stdout)
    assert outcome["passed"]
    assert [check for check in outcome["checks"] if check["differences"]] == []
    return outcome


def written(path, count, *, tokens_max=3_000):
    draw = random.Random(count)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for each in range(count):
        minute, second = divmod(each, 60)
        stamp = f"2023-11-16 18:{minute:02}:{second:02}.6805900"
        lines.append(f"{stamp},{draw.randint(1, tokens_max)},{draw.randint(0, 1_000)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_replay_adds_up_to_the_nano_dollar(tmp_path):
    trace = written(tmp_path / "trace.csv", 400)
    outcome = outcome_of("--trace", trace, "--seconds", 2, "--seed", 3)
    assert outcome["calls_count"] == 400
    assert outcome["total_nusd"] > 0


def test_every_verdict_of_a_serial_replay_is_foretold(tmp_path):
    trace = written(tmp_path / "trace.csv", 2_000)
    outcome = outcome_of("--trace", trace, "--serial", "--seed", 5)
    assert min(outcome["verdicts"].values()) > 0
    foretold = next(c for c in outcome["checks"] if c["name"] == "verdicts foretold")
    assert foretold["compared_count"] == 2_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [("--limit", 3_000, "--serial"), ("--limit", 1_000, "--seconds", 3)],
    ids=["serial", "at once"],
)
def test_the_real_trace_adds_up(how):
    if not REAL_TRACE.exists():
        pytest.skip(f"{REAL_TRACE.name} is not here")
    outcome = outcome_of("--trace", REAL_TRACE, "--seed", 1, *how)
    assert outcome["calls_count"] == how[1]


def test_a_charge_the_callers_never_saw_is_found(tmp_path):
    trace = written(tmp_path / "trace.csv", 50)
    part = Assignment(seed=1, trace=str(trace), serial=True)
    with work_folder(None) as folder, running(folder, POLICY.read_text()) as stage:
        with at_work(stage, [part]) as workers:
            while workers.check():
                stage.pass_time(0.05)
            journal = list(workers.reader.new())
        rulebook = read_rulebook(POLICY)
        assert not found(journal, rulebook, stage)
        with Client(stage.address, caller="stranger") as client:
            client.record(
                ask={"task_class": "chat", "labels": {"project": "ops", "user": "ada"}},
                cost_nusd=1,
            )
        assert {"usage events", "grand total", "cost per project", "budgets, per key"} <= set(
            found(journal, rulebook, stage)
        )


def found(journal: list[Entry], rulebook, stage):
    checks = verify(recount(journal, rulebook), read_books(stage.control))
    return [check.name for check in checks if check.differences]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", ":1: no column TIMESTAMP, ContextTokens, GeneratedTokens"),
        ("TIMESTAMP,ContextTokens\n", ":1: no column GeneratedTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no rows after the header"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,2\nsoon,1,2\n",
            ":3: TIMESTAMP 'soon' is not a time",
        ),
    ],
)
def test_a_bad_trace_ends_the_demo_with_file_and_line(tmp_path, text, complaint):
    trace = tmp_path / "bad.csv"
    trace.write_text(text)
    run = replay("--trace", trace)
    assert run.returncode == 2
    assert complaint in run.stderr
    assert str(trace) in run.stderr
    assert "Traceback" not in run.stderr


def test_a_missing_trace_ends_the_demo_with_its_name(tmp_path):
    run = replay("--trace", tmp_path / "nowhere.csv")
    assert run.returncode == 2
    assert "nowhere.csv: No such file or directory" in run.stderr
