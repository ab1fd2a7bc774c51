import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from costd_client import Client

from bench.figures import Figure, ratios
from bench.run import main
from bench.sustained import SustainedAdmits, SustainedCalls
from bench.tally import BooksDiffer

TARGETS = {
    "admit_inproc_us_p50": 100,
    "admit_over_batch": 5,
    "rpc_over_echo": 1.25,
    "otel_off_over_none": 1.05,
    "keys_1m_over_100": 1.5,
    "budgets_1k_over_0": 1.5,
    "rss_mib_1m": 250,
    "start_s_1m": 3,
    "allowance_scope_us_p50": 2,
    "allowance_scope_us_p99": 15,
    "allowance_client_us_p50": 4,
    "allowance_call_us_p50": 15,
    "allowance_admits_per_s": 200_000,
    "allowance_calls_per_s": 10_000,
    "kill_to_deny_ms_p99": 20,
    "lease_ms_p50": 5,
    "lease_ops_hot": 500,
    "lease_ops_spread": 1_000,
    "fleet_utilisation": 0.995,
    "fleet_kill_ms_p99": 150,
    "usage_events_per_s": 10_000,
    "fleet_over_single": 1.1,
    "tx_per_1k_admits": 5,
    "query_ms_p95": 50,
    "daemon_install_mib": 150,
    "daemon_rss_mib_idle": 90,
}
RIVALS = {
    "redis_lua_over_allowance": 100,
    "limits_memory_over_allowance": 3,
    "ts_allowance_us_p50": 5,
}
"""May be skipped, where the rival or Node is not installed."""
TOLD = {
    *("envoy_ask_us_p50", "envoy_ask_over_admit"),
    *("admit_rpc_us_p50", "admit_rpc_us_p99", "settle_rpc_us_p50", "settle_rpc_us_p99"),
    "otel_on_over_off",
    *("ts_allowance_us_p99", "ts_allowance_call_us_p50"),
    *("coordinator_install_mib", "coordinator_rss_mib_idle"),
    *("injector_install_mib", "injector_rss_mib_idle"),
    *("admits_per_s_1", "admits_per_s_8", "admits_per_s_32"),
    *("lease_requests_hot", "lease_requests_spread", "lease_request_bytes", "lease_reply_bytes"),
    *("usage_event_bytes", "usage_tx_per_1k", "tx_per_1k_calls", "daemon_idle_tx_per_s"),
    *("tx_per_1k_admits_1", "tx_per_1k_admits_8", "tx_per_1k_admits_32", "daemon_busy_tx_per_s"),
    *("reports_per_tx", "report_bytes", "receipt_bytes"),
    *("allowance_scope_all_us_p99", "kill_to_deny_nopages_ms_p99", "kill_to_deny_spinning_ms_p99"),
}


def figure(*samples, target=1.5):
    return Figure(key="k", what="w", unit="×", samples=samples, target=target)


@pytest.mark.slow
def test_a_run_writes_every_figure_with_its_rounds_quartiles_target_and_verdict(tmp_path, capsys):
    path = tmp_path / "build" / "bench.json"
    assert main(["--quick", "--output", str(path)]) == 0
    report = json.loads(path.read_text())
    assert {key: report[key]["target"] for key in TARGETS} == TARGETS
    assert report.keys() >= TOLD
    assert report["machine"]["cores"] >= 1
    for key in TARGETS.keys() | TOLD:
        row = report[key]
        assert row["rounds"] == len(row["samples"]) >= 1
        assert 0 < row["q1"] <= row["median"] <= row["q3"]
    printed = capsys.readouterr().out
    assert "keys_1m_over_100" in printed
    for key, target in RIVALS.items():
        assert report[key]["target"] == target
        skipped = report[key].get("skipped", "")
        assert (f"{key} was skipped: {skipped}" in printed) == bool(skipped)
        assert (report[key]["verdict"] == "skipped") == bool(skipped)


CALL = {
    "task_class": "draft",
    "provider": "openai",
    "model": "gpt-4o",
    "prompt_tokens": 100,
    "max_output_tokens": 100,
}


@pytest.fixture
def short_path():
    """Sockets want shorter paths than pytest's."""
    with tempfile.TemporaryDirectory(prefix="costd-bench-") as name:
        yield Path(name)


def test_admits_for_seconds_on_end_fail_at_a_call_that_the_client_did_not_count(short_path):
    with ExitStack() as stack:
        scenario = SustainedAdmits(short_path, stack, for_s=0.02)
        scenario.round()
        with Client(scenario.daemon.address, allowances=False) as stranger:
            assert stranger.admit(**CALL, labels={"project": "api", "user": "ann"}).allowed
        with pytest.raises(BooksDiffer, match="asked_count"):
            scenario.round()


def test_calls_for_seconds_on_end_fail_at_a_usage_event_that_the_client_did_not_count(short_path):
    with ExitStack() as stack:
        scenario = SustainedCalls(short_path, stack, for_s=0.02)
        scenario.round()
        with Client(scenario.daemon.address, allowances=False) as stranger:
            labels = {"project": "api", "user": "ann", "run": "round-1"}
            stranger.settle(stranger.admit(**CALL, labels=labels), cost_nusd=1)
        with pytest.raises(BooksDiffer, match="round-1"):
            scenario.round()


def test_a_target_is_met_when_both_quartiles_reach_it():
    assert figure(1.0, 1.2, 1.4).verdict == "met"


def test_a_target_is_missed_when_neither_quartile_reaches_it():
    assert figure(1.6, 1.7, 1.8).verdict == "missed"


def test_quartiles_on_both_sides_of_a_target_are_inconclusive():
    assert figure(1.0, 1.4, 2.5).verdict == "inconclusive"


def test_a_figure_without_a_target_is_only_told():
    assert figure(1.0, target=None).verdict == "told"


def test_a_ratio_is_formed_round_by_round():
    assert ratios([10, 30], [5, 10]) == (2, 3)


def test_ratios_of_unequal_rounds_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])
