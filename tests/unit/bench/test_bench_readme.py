import json

import pytest

from bench.figures import Figure
from bench.readme import ASKED, DECIDED, DRAWN, FLEET, Unfit, fill, fleet_section, main, section

DOCUMENT = "before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n"
FLEET_DOCUMENT = "<!-- fleet figures -->\nold\n<!-- /fleet figures -->\n"


def report(**changed):
    rows = {
        key: Figure(key=key, what="", unit="µs", samples=(1.0, 2.0, 3.0), target=2.5)
        for _, key in (*DRAWN, *DECIDED, *ASKED, *FLEET)
    }
    rows |= changed
    return {key: row.as_json() for key, row in rows.items()} | {
        "machine": {"cores": 2, "quick": False}
    }


def row(key, **fields):
    return Figure(**{"key": key, "what": "", "unit": "×", **fields})


def test_the_headline_holds_the_medians_of_the_run():
    scope = row("allowance_scope_us_p50", samples=(1.81,))
    asked = row("admit_rpc_us_p50", samples=(691.0,))
    text = section(report(allowance_scope_us_p50=scope, admit_rpc_us_p50=asked))
    assert "**1.81 µs to admit a call in the agent's process**" in text
    assert "0.7 ms to ask over gRPC" in text


def test_what_was_missed_is_named_below_the_tables():
    redis = row("r", samples=(60.0, 61.0), target=100, more_is_better=True)
    text = section(report(redis_lua_over_allowance=redis))
    assert "≥ 100 × | 60.5 (60.2 … 60.8) × | missed |" in text
    assert "Not where we want it: Redis and a Lua script" in text


def test_a_skipped_rival_stands_in_the_table_and_says_how_to_get_it():
    text = section(report(redis_lua_over_allowance=row("r", target=100, skipped="no redis here")))
    assert "| – | skipped |" in text
    assert "no redis here" in text


def test_rates_and_single_samples_are_written_without_quartiles_or_gaps():
    rate = row("a", samples=(254_960.7,), unit="/s", target=200_000, more_is_better=True)
    assert "| ≥ 200,000/s | 254,961/s | met |" in section(report(allowance_admits_per_s=rate))


def test_only_what_stands_between_the_markers_is_replaced():
    assert fill(DOCUMENT, "new\n") == DOCUMENT.replace("old", "new")


@pytest.mark.parametrize("text", ["", "<!-- figures -->\n", DOCUMENT + DOCUMENT])
def test_a_document_without_one_pair_of_markers_is_refused(text):
    with pytest.raises(Unfit, match="one pair"):
        fill(text, "new")


def test_a_report_of_a_part_leaves_the_document_alone(tmp_path, capsys):
    part = report()
    del part["start_s_1m"]
    paths = write(tmp_path, part)
    assert main(paths) == 1
    assert (tmp_path / "doc.md").read_text() == DOCUMENT + FLEET_DOCUMENT
    assert "no start_s_1m" in capsys.readouterr().err


def test_a_quick_report_is_refused(tmp_path, capsys):
    quick = report() | {"machine": {"cores": 2, "quick": True}}
    assert main(write(tmp_path, quick)) == 1
    assert "quick" in capsys.readouterr().err


def test_a_whole_report_fills_the_document(tmp_path):
    assert main(write(tmp_path, report())) == 0
    filled = (tmp_path / "doc.md").read_text()
    assert filled.startswith("before\n<!-- figures -->\nMeasured by `make bench`")
    assert "<!-- /figures -->\nafter\n<!-- fleet figures -->\nMeasured in the same run" in filled
    assert filled.endswith("<!-- /fleet figures -->\n")
    assert "old" not in filled


def test_a_share_of_one_is_written_as_exactly_as_it_was_measured():
    used = row("u", samples=(0.9987,), unit="", target=0.995, more_is_better=True, decimals=4)
    assert "| ≥ 0.995 | 0.9987 | met |" in fleet_section(report(fleet_utilisation=used))


def test_what_a_fleet_missed_is_named_below_its_table():
    text = fleet_section(report(query_ms_p95=row("q", samples=(70.0,), target=50, unit="ms")))
    assert "Not where we want it: slowest named query" in text


def test_a_quick_report_of_a_fleet_is_refused():
    with pytest.raises(Unfit, match="quick"):
        fleet_section(report() | {"machine": {"cores": 2, "quick": True}})


def write(tmp_path, content):
    (tmp_path / "report.json").write_text(json.dumps(content))
    (tmp_path / "doc.md").write_text(DOCUMENT + FLEET_DOCUMENT)
    return ["--report", str(tmp_path / "report.json"), "--document", str(tmp_path / "doc.md")]
