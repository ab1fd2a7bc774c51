"""Write the figures of one run of `make bench` into the README.

python -m bench.readme [--report build/bench.json] [--document README.md]
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.run import OUTPUT

BEGIN: Final = "<!-- figures -->\n"
END: Final = "<!-- /figures -->\n"
FLEET_BEGIN: Final = "<!-- fleet figures -->\n"
FLEET_END: Final = "<!-- /fleet figures -->\n"

Row = tuple[str, str]
"""What it is called, and its key."""

DRAWN: Final[tuple[Row, ...]] = (
    ("admit on a bound scope, p50", "allowance_scope_us_p50"),
    ("admit on a bound scope, p99", "allowance_scope_us_p99"),
    ("`client.admit(...)` with labels, p50", "allowance_client_us_p50"),
    ("admit, then settle with usage queued for the daemon, p50", "allowance_call_us_p50"),
    ("Redis and a Lua script over as many rules ÷ bound scope", "redis_lua_over_allowance"),
    ("`limits`, a fixed window in memory per budget ÷ bound scope", "limits_memory_over_allowance"),
    (
        "admits a second in one process; count and sum equal in the ledger",
        "allowance_admits_per_s",
    ),
    ("whole calls a second in one process, every usage event stored", "allowance_calls_per_s"),
    ("the TypeScript client: admit on a bound scope, p50", "ts_allowance_us_p50"),
    ("kill switch engaged to refusal in 32 busy processes, p99", "kill_to_deny_ms_p99"),
    ("the same without mapped pages, p99", "kill_to_deny_nopages_ms_p99"),
    ("the same with pages and all 32 spinning, p99", "kill_to_deny_spinning_ms_p99"),
)
DECIDED: Final[tuple[Row, ...]] = (
    ("engine + RocksDB commit, 4 budgets and 2 rates, p50", "admit_inproc_us_p50"),
    ("÷ a bare RocksDB batch of the same bytes", "admit_over_batch"),
    ("1,000,000 counters drawn uniformly ÷ 100", "keys_1m_over_100"),
    ("1,000 budgets that do not match ÷ none", "budgets_1k_over_0"),
    ("daemon memory with 1,000,000 counters", "rss_mib_1m"),
    ("start to first answer, after `kill -9`", "start_s_1m"),
    ("a daemon installed, with all it needs", "daemon_install_mib"),
    ("memory of an idle daemon", "daemon_rss_mib_idle"),
)
ASKED: Final[tuple[Row, ...]] = (
    ("durable Admit over the socket ÷ the fastest empty echo", "rpc_over_echo"),
    ("Admit over the socket, p50", "admit_rpc_us_p50"),
    ("Admit over the socket, p99", "admit_rpc_us_p99"),
    ("Settle over the socket, p50", "settle_rpc_us_p50"),
    ("Settle over the socket, p99", "settle_rpc_us_p99"),
    ("Admits a second, 1 caller", "admits_per_s_1"),
    ("Admits a second, 8 callers", "admits_per_s_8"),
    ("Admits a second, 32 callers", "admits_per_s_32"),
    ("Envoy's ShouldRateLimit ÷ Admit of the same ask", "envoy_ask_over_admit"),
    ("deciding without OTEL_* ÷ by a handler that knows no tracing", "otel_off_over_none"),
    ("Admit with every call traced and exported ÷ without OTEL_*", "otel_on_over_off"),
)
FLEET: Final[tuple[Row, ...]] = (
    ("lease asked for to lease granted, written down in PostgreSQL, p50", "lease_ms_p50"),
    ("leases granted a second, one hot budget", "lease_ops_hot"),
    ("leases granted a second, 1,000 budgets", "lease_ops_spread"),
    ("budget used at the first refusal, 8 daemons of unequal demand", "fleet_utilisation"),
    ("kill engaged to the last of 500 daemons having heard, p99", "fleet_kill_ms_p99"),
    ("usage events stored a second", "usage_events_per_s"),
    ("Admit at a daemon with a coordinator ÷ without, p50", "fleet_over_single"),
    (
        "the coordinator's transactions for 1,000 admits at one daemon, 4 callers without a pause",
        "tx_per_1k_admits",
    ),
    (
        "transactions a second then: the fewer for each admit, the more are asked for",
        "daemon_busy_tx_per_s",
    ),
    ("transactions a second for an idle daemon and the coordinator", "daemon_idle_tx_per_s"),
    ("slowest named query at 1,000,000 usage events, p95", "query_ms_p95"),
    ("coordinator memory for each attached daemon", "coordinator_kib_per_daemon"),
    ("the coordinator's processor time for a daemon's report", "report_cpu_ms"),
)


class Unfit(Exception):
    """The report or the document is not what this needs; says what to do."""


def section(report: Mapping[str, Any]) -> str:
    """Write everything between the markers from one report.

    Errors:  Unfit for a report of a part, or of a quick run.
    """
    machine = report["machine"]
    if machine["quick"]:
        raise Unfit("the report is of a quick run, which measures nothing; run `make bench`")
    measured = (
        f"Measured by `make bench` in one run on a shared {machine['cores']}-core machine, side by "
        "side, medians of 9 to 15 interleaved rounds with quartiles; what else was measured, and "
        "how, is in [ADR 0011](docs/adr/0011-what-was-measured.md)."
    )
    drawn = (
        "In the agent's process, from an [allowance](docs/reference/allowances.md); the daemon "
        "hears of each call a moment later:"
    )
    decided = "The decision itself, in the daemon's process:"
    asked = "Over the Unix socket, gRPC and the Python client included:"
    parts = [
        measured,
        _headline(report),
        drawn,
        _table(report, DRAWN),
        decided,
        _table(report, DECIDED),
        asked,
        _table(report, ASKED),
        *_shortfalls(report),
    ]
    return "\n\n".join(parts)


def fleet_section(report: Mapping[str, Any]) -> str:
    """Write the fleet's figures from one report.

    Errors:  Unfit for a report without them, or of a quick run.
    """
    if report["machine"]["quick"]:
        raise Unfit("the report is of a quick run, which measures nothing; run `make bench`")
    measured = (
        "Measured in the same run: real coordinator, PostgreSQL and daemons on loopback, all on "
        "those cores; what a larger fleet costs is in [scale](docs/operating/scale.md)."
    )
    parts = [measured, _table(report, FLEET)]
    short = _short(report, FLEET)
    if short:
        parts.append(f"Not where we want it: {'; '.join(short)}.")
    return "\n\n".join(parts)


def fill(text: str, between: str, begins: str = BEGIN, ends: str = END) -> str:
    """Put a section between its markers in the document.

    Errors:  Unfit for a document that has not one pair of them.
    """
    before, begin, rest = text.partition(begins)
    _, end, after = rest.partition(ends)
    if not begin or not end or begins in after or ends in after:
        raise Unfit(f"the document has not one pair of {begins.strip()} and {ends.strip()}")
    return f"{before}{begin}{between.rstrip()}\n{end}{after}"


def _headline(report: Mapping[str, Any]) -> str:
    """Say in one sentence what the figures come to."""
    scope, call = (
        _value(_of(report, key)["median"])
        for key in ("allowance_scope_us_p50", "allowance_call_us_p50")
    )
    decided = _value(_of(report, "admit_inproc_us_p50")["median"])
    p50, p99 = (
        f"{_of(report, key)['median'] / 1_000:.1f}"
        for key in ("admit_rpc_us_p50", "admit_rpc_us_p99")
    )
    return (
        f"So, at the median: **{scope} µs to admit a call in the agent's process** and {call} µs "
        f"for a whole one; {decided} µs for the daemon to decide and commit; and {p50} ms to ask "
        f"over gRPC in Python ({p99} ms at the 99th percentile)."
    )


def _table(report: Mapping[str, Any], rows: Sequence[Row]) -> str:
    lines = ["| figure | to reach | measured | |", "|---|---|---|---|"]
    for label, key in rows:
        figure = _of(report, key)
        verdict = "" if figure["verdict"] == "told" else figure["verdict"]
        lines.append(f"| {label} | {_target(figure)} | {_measured(figure)} | {verdict} |")
    return "\n".join(lines)


def _shortfalls(report: Mapping[str, Any]) -> list[str]:
    """Name what was not reached, or not compared."""
    rows = (*DRAWN, *DECIDED, *ASKED)
    short = _short(report, rows)
    skipped = [
        f"{label}: {_of(report, key)['skipped']}"
        for label, key in rows
        if _of(report, key)["verdict"] == "skipped"
    ]
    lines = []
    if short:
        lines.append(f"Not where we want it: {'; '.join(short)}. The ADR says where the time goes.")
    if skipped:
        lines.append(f"Not compared in this run: {'; '.join(skipped)}.")
    return lines


def _short(report: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    return [label for label, key in rows if _of(report, key)["verdict"] == "missed"]


def _of(report: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = report.get(key)
    if found is None:
        raise Unfit(f"the report has no {key}; run `make bench` without --only")
    return found


def _target(figure: Mapping[str, Any]) -> str:
    if figure["target"] is None:
        return "–"
    sign = "≥" if figure["more_is_better"] else "≤"
    return _with_unit(f"{sign} {figure['target']:,g}", figure["unit"])


def _measured(figure: Mapping[str, Any]) -> str:
    if figure["verdict"] == "skipped":
        return "–"
    places = figure.get("decimals", 0)
    fixed = places if places > 2 else None
    low, middle, high = (_value(figure[name], fixed) for name in ("q1", "median", "q3"))
    spread = f" ({low} … {high})" if figure["rounds"] > 1 else ""
    return _with_unit(f"{middle}{spread}", figure["unit"])


def _with_unit(text: str, unit: str) -> str:
    return f"{text}{unit}" if unit in {"", "/s"} else f"{text} {unit}"


def _value(value: float, fixed: int | None = None) -> str:
    """Write three figures that count, or so many places."""
    places = fixed if fixed is not None else 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{places}f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the document in place."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--report", type=Path, default=OUTPUT)
    parser.add_argument("--document", type=Path, default=Path("README.md"))
    chosen = parser.parse_args(arguments)
    try:
        report = json.loads(chosen.report.read_text())
        filled = fill(chosen.document.read_text(), section(report))
        filled = fill(filled, fleet_section(report), FLEET_BEGIN, FLEET_END)
    except (OSError, ValueError, Unfit) as error:
        print(f"nothing was written: {error}", file=sys.stderr)
        return 1
    chosen.document.write_text(filled)
    print(f"{chosen.document} has the figures of {chosen.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
