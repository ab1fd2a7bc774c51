import json

import pytest

from bench.figures import Figure, ratios
from bench.run import main

TARGETS = {
    "admit_inproc_us_p50": 100,
    "admit_over_batch": 5,
    "rpc_over_echo": 1.25,
    "keys_1m_over_100": 1.5,
    "budgets_1k_over_0": 1.5,
    "rss_mib_1m": 250,
    "start_s_1m": 3,
}
TOLD = {
    *("admit_rpc_us_p50", "admit_rpc_us_p99", "settle_rpc_us_p50", "settle_rpc_us_p99"),
    *("admits_per_s_1", "admits_per_s_8", "admits_per_s_32"),
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
    assert "keys_1m_over_100" in capsys.readouterr().out


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
