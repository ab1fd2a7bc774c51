"""Every named query of the coordinator against a database that has grown."""

import json
import re
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper

from bench.figures import Figure
from bench.fleet.processes import Coordinator, Server
from bench.fleet.workload import POLICY
from costd.clock import SystemClock
from costd.coordinator.postgres import UNUSED_COUNT, usage_sums
from costd.coordinator.queries import query, query_names
from costd.coordinator.usage_rows import DAY_NS, HOUR_NS, day_of

DAYS_COUNT: Final = 10
DAEMONS_COUNT: Final = 1_000
COUNTERS_COUNT: Final = 20_000
LOGS_COUNT: Final = 100_000
"""Audit records, and as many alerts."""
HOURLY_SHARE: Final = 5
"""A row of sums for so many events."""
BATCH_COUNT: Final = 50
"""Counters and daemons in one transaction, where a query takes many."""
RETURNING_COUNT: Final = 10
"""Daemons that enrol in one transaction, each with 200 counters that it holds something of."""
COPY_COUNT: Final = 5_000
NOT_ALONE: Final = {"begin", "commit", "copy_events"}
"""Not queries by themselves; what they cost is in the other figures."""
NS_PER_MS: Final = 1_000_000
P95: Final = 95


class NamedQueries:
    """One round: each query some times, its answer read; what writes is rolled back."""

    def __init__(
        self,
        directory: Path,
        stack: ExitStack,
        server: Server,
        *,
        events_count: int,
        times_count: int,
    ) -> None:
        coordinator = Coordinator(directory / "queries", stack, server, POLICY)
        self._times_count = times_count
        self._events_count = events_count
        self._now_ns = SystemClock().now().wall_ns
        self._connection = stack.enter_context(psycopg.connect(coordinator.database_url))
        for dumper in (Int8Dumper, Int8BinaryDumper):  # as the coordinator's connections have it
            self._connection.adapters.register_dumper(int, dumper)
        self._fill()
        self._asked = {
            name: (query(name), self._parameters(name))
            for name in query_names()
            if name not in NOT_ALONE
        }
        self.durations_ms: dict[str, list[float]] = {name: [] for name in self._asked}
        self.sums_ms: dict[int, list[float]] = {1: [], DAYS_COUNT: []}
        for text, parameters in self._asked.values():
            self._timed(text, parameters)  # the first time reads what was just filled

    def round(self) -> None:
        """Measure once."""
        for _ in range(self._times_count):
            for name, (text, parameters) in self._asked.items():
                self.durations_ms[name].append(self._timed(text, parameters))
            for days_count, durations in self.sums_ms.items():
                text, values = usage_sums(
                    since_ns=self._now_ns - days_count * DAY_NS,
                    until_ns=self._now_ns,
                    by=("team", "model"),
                    where=None,
                    limit_count=100,
                )
                durations.append(self._timed(text, values))

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        p95s = {name: _p95(durations) for name, durations in self.durations_ms.items()}
        slowest = max(p95s, key=p95s.__getitem__)
        return [
            Figure(
                key="query_ms_p95",
                what=f"the slowest of {len(p95s)} named queries ({slowest}) at "
                f"{self._events_count:,} usage events, p95",
                unit="ms",
                samples=(p95s[slowest],),
                target=50,
            ),
            Figure(
                key="query_ms_p95_each",
                what="the same of each query",
                unit="ms",
                samples=tuple(p95s.values()),
            ),
            Figure(
                key="usage_event_disk_bytes",
                what="one of these events on the database's disk, with its index",
                unit="B",
                samples=(self.disk_bytes / self._events_count,),
                decimals=0,
            ),
            *(
                Figure(
                    key=f"usage_sum_{days_count}d_ms_p95",
                    what=f"usage of {days_count} days summed by team and model, p95",
                    unit="ms",
                    samples=(_p95(durations),),
                )
                for days_count, durations in self.sums_ms.items()
            ),
        ]

    def _timed(self, text: Any, parameters: Any) -> float:
        connection = self._connection
        started_ns = time.perf_counter_ns()
        cursor = connection.execute(text, parameters)
        if cursor.description is not None:
            cursor.fetchall()
        took_ms = (time.perf_counter_ns() - started_ns) / NS_PER_MS
        connection.rollback()
        return took_ms

    # ---- what is asked ---------------------------------------------------------------------------

    def _parameters(self, name: str) -> dict[str, Any]:
        """Ask as a coordinator does; arrays have a row for each of a batch."""
        text = query(name)
        keys = [_key(self._now_ns, n * 17) for n in range(BATCH_COUNT)]
        daemon_ids = [_daemon(n * 7) for n in range(BATCH_COUNT)]
        given: dict[str, Any] = {
            "daemon_ids": daemon_ids,
            "keys": keys,
            "counter_key": keys[0],
            "daemon_id": _daemon(7),
            "after_id": _daemon(5),
            "after_key": keys[1],
            "limit_count": 1_000,
            "since_ns": self._now_ns - HOUR_NS,
            "until_ns": self._now_ns,
            "since_day": day_of(self._now_ns - HOUR_NS),
            "until_day": day_of(self._now_ns),
            "before_ns": 0,
            "before_key": (1).to_bytes(8, "big"),
            "name": "kills",
            "include_released": True,
            "number": 1,
            "before_number": 9,
            "amount": 1,
            "within_s": 60.0,
            "older_s": 60.0,
            "instance_id": "i",
            "notices": ["kills 1"],
            "actor": "a",
            "reason": "r",
            "top_up_id": "new",
            "revision": "r",
            "yaml": "",
            "at_ns": self._now_ns,
            "published_ns": 1,
            "note": "",
            "version": 1,
            "kill_id": "k",
            "scope": "{}",
            "mode": "m",
            "engaged_ns": 1,
            "max_tier": "",
            "releases_ns": 0,
            "releases_steady_ns": 0,
            "released_ns": 0,
            "released_by": "",
            "closed_of": [],
            "ended_before_ns": 0,
            "heard_before_ns": self._now_ns,
            "heard_after_ns": 0,
            "changed_before_ns": self._now_ns,
            "was_counts": [0] * len(keys),
            "is_counts": [0] * len(keys),
            "tags": sorted({key[8:16] for key in keys}),
        }
        if name == "open_share_keys":
            given["daemon_ids"] = daemon_ids[:RETURNING_COUNT]
        if name == "sum_unused":
            given |= {"after_key": self._now_ns.to_bytes(8, "big"), "limit_count": UNUSED_COUNT}
        if name == "add_policy":
            given["number"] = 1_000
        given["rows"] = self._rows(text, keys, daemon_ids)
        names = set(re.findall(r"%\((\w+)\)s", text))
        missing = names - given.keys()
        assert not missing, f"{name}: say what {missing} are here"
        return {each: given[each] for each in names}

    def _rows(self, text: str, keys: list[bytes], daemon_ids: list[str]) -> str:
        """Write a batch of rows of whatever columns a query reads."""
        found = re.search(r"AS new \((.*?)\n\)", text, re.DOTALL)
        if found is None:
            return "[]"
        columns = re.findall(r'"?(\w+)"? (text|bigint|smallint|boolean)', found[1])
        made: dict[str, list[Any]] = {
            "counter_key": [b64encode(key).decode() for key in keys],
            "daemon_id": daemon_ids,
            "tag": [b64encode(n.to_bytes(8, "big")).decode() for n in range(BATCH_COUNT)],
            "hour_ns": [self._now_ns // HOUR_NS * HOUR_NS] * BATCH_COUNT,
        }
        ordinary = {"text": "a", "boolean": False}
        return json.dumps(
            [
                {
                    name: made[name][n] if name in made else ordinary.get(kind, 1)
                    for name, kind in columns
                }
                for n in range(BATCH_COUNT)
            ]
        )

    # ---- what there is ---------------------------------------------------------------------------

    def _fill(self) -> None:
        """Fill every table: usage events by COPY, and what a fleet of a thousand leaves."""
        connection = self._connection
        today = self._now_ns // DAY_NS
        for number in range(today - DAYS_COUNT + 1, today + 1):
            first, after = day_of(number * DAY_NS), day_of((number + 1) * DAY_NS)
            name = f"usage_events_{first:%Y%m%d}"
            found = connection.execute("SELECT to_regclass(%s)", (name,)).fetchone()
            if found == (None,):
                connection.execute(
                    f"CREATE TABLE {name} PARTITION OF usage_events"
                    f" FOR VALUES FROM ('{first}') TO ('{after}')".encode()
                )
        copying = query("copy_events")
        with connection.cursor().copy(copying) as copy:
            for rows in self._events(today):
                copy.write("".join(rows))
        psycopg.ClientCursor(connection).execute(
            _FILL,
            {
                "daemons": DAEMONS_COUNT,
                "counters": min(COUNTERS_COUNT, self._events_count),
                "logs": min(LOGS_COUNT, self._events_count),
                "sums": self._events_count // HOURLY_SHARE,
                "now_ns": self._now_ns,
                "hour_ns": self._now_ns // HOUR_NS * HOUR_NS,
                "hours": DAYS_COUNT * 24,
                "end": _window_end(self._now_ns),
            },
        )
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")
        connection.autocommit = False
        row = connection.execute(
            "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits"
            " WHERE inhparent = 'usage_events'::regclass"
        ).fetchone()
        assert row is not None
        self.disk_bytes = int(row[0])

    def _events(self, today: int) -> Iterator[list[str]]:
        """Write rows of usage events, spread evenly over the days, as COPY takes them."""
        for first in range(0, self._events_count, COPY_COUNT):
            yield [
                _row(today - n % DAYS_COUNT, n, self._now_ns)
                for n in range(first, min(first + COPY_COUNT, self._events_count))
            ]


def _row(day: int, n: int, now_ns: int) -> str:
    # Today's events lie before now, all others at the same times of their day.
    settled_ns = day * DAY_NS + n * 7_919_000_000 % max(1, now_ns % DAY_NS)
    labels = (
        f'{{"project":"api","team":"t{n % 20}","user":"u{n % 500}","agent_type":"coder",'
        f'"run":"run-{n % 997}"}}'
    )
    return (
        f"{day_of(day * DAY_NS)}\t{_daemon(n)}\t{n}\t{n:032x}\t7d444840-9dc0-{n:012x}\tdraft\t"
        f"{labels}\tpremium\topenai\tgpt-4o\tpriced\t1150\t600\t\\N\t180\t\\N\t{{}}\t3141593\t"
        f"7000000\t{settled_ns - 2_000_000_000}\t{settled_ns}\t1900000000\t1\t0\t0\t\\N\tsettled\t"
        "1\t1\n"
    )


def _daemon(n: int) -> str:
    return f"daemon-{n % DAEMONS_COUNT:08d}"


def _window_end(now_ns: int) -> int:
    return (now_ns // DAY_NS + 1) * DAY_NS


def _key(now_ns: int, n: int) -> bytes:
    return _window_end(now_ns).to_bytes(8, "big") + b"budgetXX" + f"{n % COUNTERS_COUNT}".encode()


def _p95(durations: list[float]) -> float:
    ordered = sorted(durations)
    return ordered[min(len(ordered) - 1, len(ordered) * P95 // 100)]


_FILL: Final = """
INSERT INTO daemons (daemon_id, name)
    SELECT 'daemon-' || lpad(n::text, 8, '0'), 'n' || n
    FROM generate_series(0, %(daemons)s::int - 1) AS n;
INSERT INTO pools (counter_key, settled, taken, "limit")
    SELECT int8send(%(end)s::bigint) || convert_to('budgetXX' || n, 'UTF8'), 5, 9, 1000
    FROM generate_series(0, %(counters)s::int - 1) AS n;
INSERT INTO shares
    SELECT int8send(%(end)s::bigint) || convert_to('budgetXX' || n, 'UTF8'),
        'daemon-' || lpad(((n * 13 + m) %% %(daemons)s::int)::text, 8, '0'),
        9, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, false, 0, 0, 0
    FROM generate_series(0, %(counters)s::int - 1) AS n, generate_series(1, 10) AS m
    ON CONFLICT DO NOTHING;
INSERT INTO top_ups
    SELECT 't' || n, int8send(%(end)s::bigint) || convert_to('budgetXX' || n, 'UTF8'), 1, 'a', 'r',
        n
    FROM generate_series(0, 999) AS n;
INSERT INTO audit (at_ns, actor, action, subject, detail, count, task_class, reason)
    SELECT %(now_ns)s::bigint - n * 1000000000::bigint, 'a', 'b', 'c', '', 1, '', 0
    FROM generate_series(1, %(logs)s::int) AS n;
INSERT INTO alerts (raised_ns, kind, rule, message, key, threshold_bp, utilisation_bp, amount_nusd)
    SELECT %(now_ns)s::bigint - n * 1000000000::bigint, 'a', 'b', 'c', '', 1, 1, 0
    FROM generate_series(1, %(logs)s::int) AS n;
INSERT INTO usage_hourly
    SELECT %(hour_ns)s::bigint - (n %% %(hours)s::int) * 3600000000000::bigint,
        int8send(n), 'daemon-' || lpad((n %% %(daemons)s::int)::text, 8, '0'), '', 'api',
        't' || n %% 20, 'u' || n %% 500, '', 'coder', 'run-' || n %% 997, '', '', '', 'draft',
        'openai', 'gpt-4o', 'premium', 'priced', 1, 1, 'settled', 5, 15707965, 5750, 3000, 0, 900,
        0, 0
    FROM generate_series(1, %(sums)s::int) AS n;
"""
