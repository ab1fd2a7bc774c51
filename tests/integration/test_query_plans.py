"""No query reads a large table from end to end, however it is asked."""

import json
import re
from datetime import date

import psycopg
import pytest

from costd.coordinator.columns import SHARE_COLUMNS
from costd.coordinator.database import Database
from costd.coordinator.postgres import PostgresStore, usage_sums
from costd.coordinator.queries import query, query_names
from costd.coordinator.store import DIMENSIONS
from costd.coordinator.usage_rows import DAY_NS, HOUR_NS, day_of

FIRST_DAY = 20_000
DAYS = 5
NOW_NS = (FIRST_DAY + DAYS) * DAY_NS
ROWS = 100_000
KEY = (7).to_bytes(8, "big") + b"b" * 8
LARGE = re.compile(
    r"usage_events(_\d+)?|usage_hourly|audit|alerts|shares|pools|daemons|top_ups|forgotten_daemons|outboxes"
)
NOT_PLANNED = {"begin", "commit", "copy_events"}
"""What EXPLAIN does not take."""
FILLED = {"is_reclaimed": "false", "amount": "(m % 50 = 0)::int"}
FILL = f"""
INSERT INTO daemons (daemon_id) SELECT 'd' || n FROM generate_series(1, 20000) AS n;
INSERT INTO outboxes (daemon_id) SELECT 'd' || n FROM generate_series(1, {ROWS}) AS n;
INSERT INTO forgotten_daemons SELECT 'f' || n, 'n', 1, 1, -1, 1, n FROM generate_series(1, 20000) AS n;
INSERT INTO pools (counter_key) SELECT int8send(n) || 'bbbbbbbb' FROM generate_series(1, 20000) AS n;
INSERT INTO shares (counter_key, daemon_id, {", ".join(SHARE_COLUMNS)})
    SELECT int8send(n), 'd' || m, {", ".join(FILLED.get(c, "0") for c in SHARE_COLUMNS)}
    FROM generate_series(1, 200) AS n, generate_series(1, 500) AS m;
INSERT INTO audit (at_ns, actor, action, subject, detail, count, task_class, reason)
    SELECT n, 'a', 'b', 'c', '', 1, '', 0 FROM generate_series(1, {ROWS}) AS n;
INSERT INTO alerts (raised_ns, kind, rule, message, key, threshold_bp, utilisation_bp, amount_nusd)
    SELECT n, 'a', 'b', 'c', '', 1, 1, 0 FROM generate_series(1, {ROWS}) AS n;
INSERT INTO top_ups SELECT 't' || n, int8send(n), 1, 'a', 'r', n FROM generate_series(1, 20000) AS n;
INSERT INTO usage_events
    SELECT date '1970-01-01' + {FIRST_DAY} + n % {DAYS}, 'd' || n % 100, n, 'r', 'a', 'c', '{{}}', 't',
        'p', 'm', 'k', 1, 0, 0, 1, 0, NULL, 1, 1, 1,
        ({FIRST_DAY}::bigint + n % {DAYS}) * {DAY_NS} + n, 1, 1, 0, 1, NULL, 's', 1, 1
    FROM generate_series(1, {ROWS}) AS n;
INSERT INTO usage_hourly
    SELECT {FIRST_DAY}::bigint * {DAY_NS} + (n % 120) * {HOUR_NS}, int8send(n), 'd' || n % 100, '', 'p',
        't' || n % 20, 'u' || n % 500, '', '', '', '', '', '', 'c', 'p', 'm', 't', 'k', 1, 1, 's', 1, 1,
        1, 0, 0, 1, 0, 0
    FROM generate_series(1, {ROWS}) AS n;
"""
ASKED = {
    "daemon_ids": ["d1", "d2"], "keys": [KEY, KEY + b"x"], "daemon_id": "d7", "counter_key": KEY,
    "after_id": "d5", "after_key": KEY, "limit_count": 1_000, "since_ns": ROWS - 50,
    "before_ns": 50, "before_key": KEY, "name": "kills", "include_released": False, "number": 1,
    "before_number": 9, "amount": 1, "within_s": 60.0, "older_s": 60.0, "instance_id": "i",
    "notices": ["kills 1"], "at_ns": 1, "actor": "a", "reason": "r", "top_up_id": "new",
    "heard_before_ns": 1, "heard_after_ns": 1, "changed_before_ns": 1,
    "ended_before_ns": 1, "tags": [b"b" * 8], "revision": "r", "yaml": "", "published_ns": 1, "note": "", "version": 1,
}  # fmt: skip
OF_QUERY = {
    "list_events": {
        "since_ns": NOW_NS - HOUR_NS, "until_ns": NOW_NS, "since_day": day_of(NOW_NS - HOUR_NS),
        "until_day": day_of(NOW_NS),
    },
    "forget_hours": {"before_ns": FIRST_DAY * DAY_NS + 1},
    "put_kill": {
        "kill_id": "k", "scope": "{}", "mode": "m", "engaged_ns": 1, "max_tier": "",
        "releases_ns": 0, "releases_steady_ns": 0, "released_ns": 0, "released_by": "",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def filled(postgres_url, template):
    name = f"{template}_filled"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    url = postgres_url.replace("/postgres?", f"/{name}?")
    with psycopg.connect(url, autocommit=True) as connection:
        for number in range(FIRST_DAY, FIRST_DAY + DAYS):
            first, after = day_of(number * DAY_NS), day_of((number + 1) * DAY_NS)
            connection.execute(
                f"CREATE TABLE usage_events_{first:%Y%m%d} PARTITION OF usage_events"
                f" FOR VALUES FROM ('{first}') TO ('{after}')"
            )
        connection.execute(FILL)
        connection.execute("VACUUM ANALYZE")
    yield url
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def parameters(name: str, text: str) -> dict[str, object]:
    given = {**ASKED, **OF_QUERY.get(name, {})}
    columns = {}
    for column, kind in re.findall(r"%\((\w+)\)s::(\w+)\[\]", text):
        one = {"bytea": KEY, "text": "a", "boolean": False}.get(kind, 1)
        columns[column] = given.get(column) if isinstance(given.get(column), list) else [one] * 2
    given["rows"] = json.dumps(
        [{"counter_key": "AAAA", "tag": "AAAA", "daemon_id": f"d{n}", "hour_ns": n} for n in (1, 2)]
    )
    names = set(re.findall(r"%\((\w+)\)s", text))
    return {each: columns.get(each, given.get(each)) for each in names}


def scanned(plan: dict) -> list[str]:
    """List the large tables that a plan reads from end to end."""
    found = [plan["Relation Name"]] if plan["Node Type"] == "Seq Scan" else []
    for below in plan.get("Plans", []):
        found += scanned(below)
    return [name for name in found if LARGE.fullmatch(name)]


async def explain(url: str, text, asked) -> list[str]:
    database = Database(url)
    async with database.connect() as connection:
        prefix = "EXPLAIN (FORMAT JSON) "
        told = await connection.execute(prefix + text, asked, prepare=False)
        [(plans,)] = await told.fetchall()
    plans = json.loads(plans) if isinstance(plans, str) else plans
    return [name for plan in plans for name in scanned(plan["Plan"])]


@pytest.mark.parametrize("name", sorted(set(query_names()) - NOT_PLANNED))
async def test_a_named_query_reads_no_large_table_from_end_to_end(filled, name):
    text = query(name)
    assert await explain(filled, text, parameters(name, text)) == []


@pytest.mark.parametrize("by", [(), ("team",), ("team", "user"), DIMENSIONS])
async def test_a_days_usage_is_summed_without_reading_all(filled, by):
    text, asked = usage_sums(
        since_ns=NOW_NS - DAY_NS // 4, until_ns=NOW_NS, by=by, where={"team": "t1"}, limit_count=9
    )
    assert await explain(filled, text.as_string(None), asked) == []


async def test_the_test_sees_a_scan_where_there_is_one(filled):
    assert await explain(filled, "SELECT * FROM audit WHERE detail = 'x'", None) == ["audit"]
    found = await explain(filled, "SELECT sum(cost_nusd) FROM usage_events", None)
    assert len(found) == DAYS


async def test_what_a_page_of_a_full_table_costs_is_read_in_order(filled, open_database):
    async with open_database(filled) as database:
        store = PostgresStore(database, wall_ns=lambda: NOW_NS)
        shares = await store.list_shares(daemon_id="d7", limit_count=50)
        assert len(shares) == 50
        events = await store.list_usage(since_ns=0, until_ns=NOW_NS, limit_count=10)
        assert [each.settled_ns for _, each in events] == sorted(
            (each.settled_ns for _, each in events), reverse=True
        )
        assert await store.days.present() == [
            date.fromordinal(day_of(FIRST_DAY * DAY_NS).toordinal() + n) for n in range(DAYS)
        ]
