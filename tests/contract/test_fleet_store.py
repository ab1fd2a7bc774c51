"""What every store of a coordinator does, each behaviour once, over memory and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from costd.coordinator.drill_words import DrillCall, DrillHeard, DrillRoll
from costd.coordinator.postgres import PostgresStore
from costd.coordinator.rows import Daemon, Outbox, Rows, Share
from costd.coordinator.store import (
    DIMENSIONS,
    MEASURES,
    CoordinatorStore,
    Notice,
    PolicyText,
    Topic,
    TopUp,
    UsageSum,
)
from costd.coordinator.usage_rows import DAY_NS, HOUR_NS
from costd.errors import InvalidAsk, InvariantBroken
from costd.model.events import Alert, AuditRecord
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import Match, Selector
from costd.model.lease import Pool, Stand
from costd.model.money import AMOUNT_MAX
from costd.testing.fleet_store import MemoryFleetStore
from costd.wire.pb import admission_pb2, control_pb2

NOW_NS = 20_000 * DAY_NS + 5 * HOUR_NS + 7
DAEMON = Daemon(
    daemon_id="d1", name="zürich", version="1", boot_id="b", epoch=3, enrolled_ns=1, seen_ns=2,
    tenure_ends_ns=3, sequence=4, policy_number=5, policy_problem="no", clock_offset_ns=-6,
    outbox_count=7, overspend_bound_nusd=AMOUNT_MAX, clients_count=8, kills_version=9,
)  # fmt: skip
POOL = Pool(**{name: number for number, name in enumerate(Pool.__struct_fields__, start=1)})
SHARE = Share(
    stand=Stand(*range(1, 13)), epoch=20, is_reclaimed=True, lost=21, reserve_lost=22, late=23
)
CLOSED = Share(stand=Stand(amount=5, settled=5))
KILL = KillSwitch(
    kill_id="k1", scope=Selector((Match("team", frozenset({"a", "b"}), negated=True), Match("x"))),
    mode=KillMode.MAX_TIER, reason="drill", actor="uid:0", engaged_ns=7, max_tier="economy",
    releases_ns=8, releases_steady_ns=9,
)  # fmt: skip
ALERT = Alert(raised_ns=1, kind="step", rule="team", message="80 %", key="a", threshold_bp=8_000)
AUDIT = AuditRecord(at_ns=1, actor="ann", action="did", subject="it", detail="why", count=2)


def key_of(end_ns: int, name: str = "a") -> bytes:
    return end_ns.to_bytes(8, "big") + b"\x00\xff" * 4 + f"team={name}".encode()


KEY, OTHER = key_of(NOW_NS + 1), key_of(NOW_NS + 2)


@pytest.fixture(params=["memory", "postgres", "polling"])
async def store(request) -> AsyncIterator[CoordinatorStore]:
    if request.param == "memory":
        yield MemoryFleetStore(wall_ns=lambda: NOW_NS)
    else:
        open_database = request.getfixturevalue("open_database")
        async with open_database() as database:
            yield PostgresStore(database, wall_ns=lambda: NOW_NS, polls=request.param == "polling")


def event(sequence: int, **fields) -> control_pb2.UsageEvent:
    told = {
        "ask_id": f"ask-{sequence}", "reservation_id": "r", "cost_nusd": 10, "calls_count": 1,
        "settled_ns": NOW_NS, "closed_as": "settled", "labels": {"team": "a"},
    }  # fmt: skip
    return control_pb2.UsageEvent(sequence=sequence, **{**told, **fields})


def put(*, daemon=DAEMON, pool=POOL, share=SHARE, key=KEY):
    def work(rows: Rows) -> str:
        rows.put_daemon(daemon)
        rows.put(key, daemon.daemon_id, pool, share)
        return "done"

    return work


async def read(store, daemon_ids=(), keys=(), with_all=()) -> Rows:
    return await store.transact(
        lambda rows: rows, daemon_ids=daemon_ids, keys=keys, with_all_shares_of=with_all
    )


# ---- rows ---------------------------------------------------------------------------------------


async def test_what_is_written_is_read_again_field_by_field(store):
    assert await store.transact(put(), daemon_ids=["d1"], keys=[KEY]) == "done"
    rows = await read(store, ["d1"], [KEY])
    assert rows.daemons == {"d1": DAEMON}
    assert rows.pools == {KEY: POOL}
    assert rows.shares == {(KEY, "d1"): SHARE}


async def test_amounts_up_to_the_largest_are_kept_exactly(store):
    huge = Pool(**dict.fromkeys(Pool.__struct_fields__, AMOUNT_MAX))
    share = Share(stand=Stand(*[AMOUNT_MAX] * 12), epoch=AMOUNT_MAX)
    await store.transact(put(pool=huge, share=share), daemon_ids=["d1"], keys=[KEY])
    await store.transact(put(pool=huge, share=share), daemon_ids=["d1"], keys=[KEY])
    rows = await read(store, ["d1"], [KEY])
    assert rows.pools[KEY] == huge
    assert rows.shares[KEY, "d1"] == share


async def test_what_nobody_wrote_is_not_there(store):
    rows = await read(store, ["d1"], [KEY], ["d2"])
    assert (rows.daemons, rows.pools, rows.shares) == ({}, {}, {})
    assert rows.pool(KEY) == Pool()
    assert await store.list_daemons() == []
    assert await store.list_pools() == []


async def test_a_transaction_that_asks_for_nothing_runs_all_the_same(store):
    assert await store.transact(lambda rows: len(rows.pools)) == 0


async def test_only_what_was_asked_for_is_read(store):
    await store.transact(put(), daemon_ids=["d1"], keys=[KEY])
    second = replace(DAEMON, daemon_id="d2")
    await store.transact(put(daemon=second, key=OTHER), daemon_ids=["d2"], keys=[OTHER])
    rows = await read(store, ["d1"], [OTHER])
    assert set(rows.daemons) == {"d1"}
    assert set(rows.pools) == {OTHER}
    assert rows.shares == {}


async def test_asking_for_the_same_twice_is_asking_once(store):
    await store.transact(put(), daemon_ids=["d1", "d1"], keys=[KEY, KEY])
    rows = await read(store, ["d1", "d1"], [KEY, KEY], ["d1"])
    assert set(rows.pools) == {KEY}


async def test_all_open_shares_of_a_daemon_come_with_their_pools(store):
    both = [KEY, OTHER]

    def work(rows: Rows) -> None:
        rows.put_daemon(DAEMON)
        rows.put(KEY, "d1", POOL, SHARE)
        rows.put(OTHER, "d1", POOL, CLOSED)

    await store.transact(work, daemon_ids=["d1"], keys=both)
    rows = await read(store, with_all=["d1"])
    assert set(rows.daemons) == {"d1"}
    assert rows.pools == {KEY: POOL}
    assert rows.shares == {(KEY, "d1"): SHARE}
    asked = await read(store, keys=[OTHER], with_all=["d1"])
    assert set(asked.shares) == {(KEY, "d1"), (OTHER, "d1")}


@pytest.mark.parametrize(
    ("share", "is_open"),
    [
        (Share(stand=Stand(amount=5)), True),
        (Share(stand=Stand(amount=5, settled=5)), False),
        (Share(stand=Stand(amount=5, settled=4, reserved=1)), True),
        (Share(stand=Stand(amount=5, settled=9)), False),
        (Share(stand=Stand(settled=9, reserved=1)), True),
        (Share(stand=Stand(amount=5, settled=5, reserve_amount=2, reserve_settled=1)), True),
        (Share(stand=Stand(reserve_reserved=1)), True),
        (Share(is_reclaimed=True), True),
        (Share(lost=5, late=3), False),
    ],
)
async def test_a_share_is_open_while_its_daemon_may_use_or_report_it(store, share, is_open):
    await store.transact(put(share=share), daemon_ids=["d1"], keys=[KEY])
    rows = await read(store, with_all=["d1"])
    assert share.is_open is is_open
    assert set(rows.shares) == ({(KEY, "d1")} if is_open else set())


async def test_what_work_raises_comes_out_and_nothing_is_written(store):
    await store.transact(put(), daemon_ids=["d1"], keys=[KEY])

    def work(rows: Rows) -> None:
        rows.put_daemon(replace(DAEMON, epoch=99))
        rows.put(KEY, "d1", Pool(), Share())
        rows.alerts.append(ALERT)
        rows.audit.append(AUDIT)
        rows.kills.append(KILL)
        rows.usage.append(("d1", event(1)))
        raise InvalidAsk("no")

    with pytest.raises(InvalidAsk, match="no"):
        await store.transact(work, daemon_ids=["d1"], keys=[KEY])
    rows = await read(store, ["d1"], [KEY])
    assert rows.daemons == {"d1": DAEMON}
    assert rows.pools == {KEY: POOL}
    assert await store.list_alerts() == []
    assert await store.list_audit() == []
    assert await store.list_kills() == (0, [])
    assert await store.list_usage(since_ns=0, until_ns=2 * NOW_NS) == []


@pytest.mark.parametrize("what", ["daemon", "pool", "share of another daemon", "share of a key"])
async def test_what_was_not_locked_is_not_written(store, what):
    def work(rows: Rows) -> None:
        if what == "daemon":
            rows.put_daemon(replace(DAEMON, daemon_id="d2"))
        elif what == "pool":
            rows.put_pool(OTHER, POOL)
        elif what == "share of another daemon":
            rows.put(KEY, "d2", POOL, SHARE)
        else:
            rows.put(OTHER, "d1", POOL, SHARE)

    with pytest.raises(InvariantBroken, match="not locked"):
        await store.transact(work, daemon_ids=["d1"], keys=[KEY])
    rows = await read(store, ["d1", "d2"], [KEY, OTHER])
    assert (rows.daemons, rows.pools, rows.shares) == ({}, {}, {})


async def test_a_row_that_was_changed_without_a_word_is_not_written(store):
    await store.transact(put(), daemon_ids=["d1"], keys=[KEY])

    def work(rows: Rows) -> None:
        rows.pools[KEY] = Pool()

    await store.transact(work, daemon_ids=["d1"], keys=[KEY])
    assert (await read(store, keys=[KEY])).pools == {KEY: POOL}


# ---- lists --------------------------------------------------------------------------------------


async def test_lists_come_in_order_and_in_pages(store):
    keys = [key_of(end_ns, name) for end_ns in (1, 2) for name in ("a", "b")]
    names = ["D", "a", "d", "ä", "z"]

    def work(rows: Rows) -> None:
        for name in names:
            rows.put_daemon(Daemon(daemon_id=name))
            for key in keys:
                rows.put(key, name, POOL, SHARE)

    await store.transact(work, daemon_ids=names, keys=keys)
    listed = await store.list_daemons(limit_count=3)
    assert [each.daemon_id for each in listed] == ["D", "a", "d"]
    listed = await store.list_daemons(after_id="d")
    assert [each.daemon_id for each in listed] == ["z", "ä"]
    assert [key for key, _ in await store.list_pools()] == sorted(keys)
    assert await store.list_pools(after_key=keys[2]) == [(keys[3], POOL)]
    held = await store.list_shares(daemon_id="d", limit_count=2)
    assert [(key, name) for key, name, _ in held] == [(keys[0], "d"), (keys[1], "d")]
    held = await store.list_shares(daemon_id="d", after=(keys[1], "d"))
    assert [key for key, _, _ in held] == [keys[2], keys[3]]
    held = await store.list_shares(counter_key=keys[0], after=(keys[0], "d"))
    assert held == [(keys[0], "z", SHARE), (keys[0], "ä", SHARE)]
    assert len(await store.list_shares()) == len(keys) * len(names)
    held = await store.list_shares(after=(keys[3], "d"))
    assert [name for _, name, _ in held] == ["z", "ä"]


async def test_who_holds_something_after_its_tenure_is_found_by_counter(store):
    holds, used_up = (Share(stand=Stand(amount=5, settled=used)) for used in (4, 5))
    for name, key, share, ends_ns in (
        ("d2", KEY, holds, 9), ("d1", KEY, holds, 9), ("d3", KEY, holds, 10),
        ("d4", KEY, used_up, 9), ("d1", OTHER, holds, 9),
    ):  # fmt: skip
        daemon = replace(DAEMON, daemon_id=name, tenure_ends_ns=ends_ns)
        await store.transact(
            put(daemon=daemon, share=share, key=key), daemon_ids=[name], keys=[key]
        )
    found = await store.overdue_holders([KEY, key_of(5)], ended_before_ns=10)
    assert found == [("d1", KEY), ("d2", KEY)]
    assert await store.overdue_holders([OTHER], ended_before_ns=9) == []


async def test_what_daemons_may_still_use_is_summed_by_daemon(store):
    def work(rows: Rows) -> None:
        for key, daemon_id, share in held:
            rows.put(key, daemon_id, POOL, share)

    holds = Share(stand=Stand(amount=9, settled=3, reserved=2))
    key, same, ended = key_of(NOW_NS + 1), key_of(NOW_NS + 2, "b"), key_of(NOW_NS)
    other = key[:8] + b"another."
    passed = replace(CLOSED, stand=Stand(amount=5, settled=4, reserved=2))
    held = [
        *((key, "d1", holds), (same, "d1", holds), (key, "d2", CLOSED), (same, "d2", holds)),
        *((ended, "d1", holds), (other, "d1", holds), (key, "d3", passed)),
    ]
    await store.transact(work, daemon_ids=["d1", "d2", "d3"], keys=[key, same, ended, other])
    assert await store.sum_unused([key[8:16]], after_ns=NOW_NS) == {"d1": 8, "d2": 4}
    found = await store.sum_unused([key[8:16], b"another."], after_ns=NOW_NS)
    assert found == {"d1": 12, "d2": 4}
    assert await store.sum_unused([], after_ns=NOW_NS) == {}


async def test_ended_windows_are_forgotten_with_all_that_was_held_of_them(store):
    old = key_of(NOW_NS - 1)
    for key in (old, KEY):
        await store.transact(put(key=key), daemon_ids=["d1"], keys=[key])
    await store.top_up(TopUp(
        top_up_id="t", counter_key=old, amount=1, actor="ann", reason="", at_ns=1
    ))  # fmt: skip
    assert await store.old.windows(ended_before_ns=NOW_NS) == 3
    assert [key for key, _ in await store.list_pools()] == [KEY]
    assert [key for key, _, _ in await store.list_shares()] == [KEY]
    assert await store.list_top_ups(old) == []
    assert await store.old.windows(ended_before_ns=NOW_NS) == 0


# ---- logs ---------------------------------------------------------------------------------------


async def test_alerts_and_audit_are_appended_and_listed_newest_first(store):
    def work(rows: Rows) -> None:
        rows.alerts += [replace(ALERT, raised_ns=5), replace(ALERT, raised_ns=7)]
        rows.audit += [replace(AUDIT, at_ns=5), replace(AUDIT, at_ns=5, actor="bob")]

    await store.transact(work)
    await store.append_audit([replace(AUDIT, at_ns=9)])
    await store.append_audit([])
    alerts = await store.list_alerts()
    assert [each for _, each in alerts] == [
        replace(ALERT, raised_ns=7),
        replace(ALERT, raised_ns=5),
    ]
    assert alerts[0][0] > alerts[1][0]
    assert [each.raised_ns for _, each in await store.list_alerts(since_ns=6)] == [7]
    records = [each for _, each in await store.list_audit()]
    assert [(each.at_ns, each.actor) for each in records] == [(9, "ann"), (5, "bob"), (5, "ann")]
    assert len(await store.list_audit(limit_count=1)) == 1


# ---- policy -------------------------------------------------------------------------------------


async def test_policies_are_numbered_kept_and_audited(store):
    assert await store.current_policy() is None
    assert await store.read_policy(1) is None
    first = await store.publish_policy(revision="r1", yaml="a: 1\n", actor="ann", at_ns=5, note="n")
    second = await store.publish_policy(revision="r2", yaml="a: 2\n", actor="bob", at_ns=6)
    assert (first.number, second.number) == (1, 2)
    assert await store.current_policy() == second
    assert await store.read_policy(1) == first
    assert await store.policy_history() == [replace(second, yaml=""), replace(first, yaml="")]
    assert [each.number for each in await store.policy_history(before_number=2)] == [1]
    assert len(await store.policy_history(limit_count=1)) == 1
    record = (await store.list_audit())[-1][1]
    assert (record.actor, record.action, record.subject) == ("ann", "policy_published", "1 r1")


# ---- kill switches ------------------------------------------------------------------------------


async def test_kill_switches_come_back_as_they_were_and_each_change_raises_the_version(store):
    assert await store.list_kills() == (0, [])
    later = replace(KILL, kill_id="k2", engaged_ns=8, scope=Selector(), mode=KillMode.DENY_ALL)
    assert await store.put_kill(KILL) == 1
    assert await store.put_kill(later) == 2
    assert await store.list_kills() == (2, [later, KILL])
    released = replace(later, released_ns=9, released_by="bob")
    assert await store.put_kill(released) == 3
    assert await store.list_kills() == (3, [KILL])
    assert await store.list_kills(include_released=True) == (3, [released, KILL])


async def test_of_two_states_of_a_switch_the_later_one_is_kept(store):
    released = replace(KILL, released_ns=9, released_by="bob")
    await store.put_kill(released)
    await store.put_kill(KILL)
    assert await store.list_kills(include_released=True) == (2, [released])
    again = replace(KILL, engaged_ns=10)
    await store.put_kill(again)
    assert await store.list_kills(include_released=True) == (3, [again])


async def test_a_transaction_engages_kill_switches_with_the_rest(store):
    def work(rows: Rows) -> None:
        rows.put_daemon(DAEMON)
        rows.kills += [KILL, replace(KILL, kill_id="k2")]

    await store.transact(work, daemon_ids=["d1"])
    version, kills = await store.list_kills()
    assert version == 1
    assert [each.kill_id for each in kills] == ["k1", "k2"]


# ---- top-ups ------------------------------------------------------------------------------------


async def test_a_top_up_counts_once_and_is_audited(store):
    top_up = TopUp(
        top_up_id="t1", counter_key=KEY, amount=500, actor="ann", reason="launch", at_ns=3
    )
    assert await store.top_up(top_up) is True
    assert await store.top_up(top_up) is False
    more = replace(top_up, top_up_id="t2", amount=1, at_ns=4)
    assert await store.top_up(more) is True
    assert (await read(store, keys=[KEY])).pools == {KEY: Pool(topped_up=501, changed_ns=4)}
    assert await store.list_top_ups(KEY) == [more, top_up]
    assert await store.list_top_ups(OTHER) == []
    assert [await store.read_top_up(each) for each in ("t1", "t2", "t\0")] == [top_up, more, None]
    record = (await store.list_audit())[-1][1]
    assert (record.actor, record.subject, record.detail) == ("ann", KEY.hex(), "500: launch")


async def test_a_top_up_leaves_the_rest_of_a_counter_alone(store):
    await store.transact(put(), daemon_ids=["d1"], keys=[KEY])
    await store.top_up(TopUp(
        top_up_id="t", counter_key=KEY, amount=5, actor="ann", reason="", at_ns=1
    ))  # fmt: skip
    pool = (await read(store, keys=[KEY])).pools[KEY]
    assert pool == replace(POOL, topped_up=POOL.topped_up + 5)


# ---- usage --------------------------------------------------------------------------------------


async def keep(store, *events, daemon_id="d1"):
    def work(rows: Rows) -> None:
        rows.usage += [(daemon_id, each) for each in events]

    await store.transact(work, daemon_ids=[daemon_id])


FULL = event(
    7, task_class="draft", tier="premium", provider="openai", model="gpt-5", cost_kind="llm_call",
    labels={"team": "zürich", "user": 'o"\\ann', "odd": "x"}, hold_nusd=11, admitted_ns=3,
    duration_ns=4, outcome=1, retry_count=2, reason=1, verdict=2,
    usage=admission_pb2.Usage(prompt_tokens=0, output_tokens=5, units={"images": 2}),
    price=admission_pb2.PriceSource(source="catalogue", version="v", price_id="p", assumed=True),
)  # fmt: skip


@pytest.mark.parametrize("told", [FULL, event(1), event(1, usage=admission_pb2.Usage())])
async def test_usage_events_come_back_as_they_were(store, told):
    await keep(store, told)
    assert await store.list_usage(since_ns=NOW_NS, until_ns=NOW_NS + 1) == [("d1", told)]


async def test_usage_events_are_listed_newest_first_by_when_they_settled(store):
    await keep(
        store, event(1), event(2, settled_ns=NOW_NS - DAY_NS), event(3, settled_ns=NOW_NS + 1)
    )
    found = await store.list_usage(since_ns=0, until_ns=NOW_NS + 2)
    assert [each.sequence for _, each in found] == [3, 1, 2]
    found = await store.list_usage(since_ns=0, until_ns=NOW_NS + 1, limit_count=1)
    assert [each.sequence for _, each in found] == [1]


async def test_usage_is_summed_by_whole_hours_and_by_any_dimension(store):
    usage = admission_pb2.Usage(
        prompt_tokens=100, cached_tokens=10, cache_write_tokens=5, output_tokens=7,
        reasoning_tokens=3,
    )  # fmt: skip
    await keep(
        store,
        event(1, usage=usage, retry_count=1, model="m1"),
        event(2, usage=usage, cost_nusd=30, model="m2", labels={"team": "b"}),
        event(3, settled_ns=NOW_NS - HOUR_NS, labels={}),
    )
    await keep(store, event(1, usage=usage, model="m1"), daemon_id="d2")
    hour_ns = NOW_NS // HOUR_NS * HOUR_NS
    now = {"since_ns": hour_ns, "until_ns": hour_ns + HOUR_NS}
    total = UsageSum(
        by={}, calls_count=3, cost_nusd=50, prompt_tokens=300, cached_tokens=30,
        cache_write_tokens=15, output_tokens=21, reasoning_tokens=9, retry_count=1,
    )  # fmt: skip
    assert await store.sum_usage(**now) == [total]
    found = await store.sum_usage(**now, by=["team", "model"])
    assert [(each.by, each.cost_nusd) for each in found] == [
        ({"team": "b", "model": "m2"}, 30),
        ({"team": "a", "model": "m1"}, 20),
    ]
    found = await store.sum_usage(**now, by=["daemon_id"], where={"team": "a"})
    assert [(each.by["daemon_id"], each.calls_count) for each in found] == [("d1", 1), ("d2", 1)]
    found = await store.sum_usage(since_ns=0, until_ns=hour_ns, by=["team"])
    assert [each.by for each in found] == [{"team": ""}]
    # An hour that began before the range is not in it.
    assert await store.sum_usage(since_ns=hour_ns + 1, until_ns=hour_ns + 2) == []
    assert len(await store.sum_usage(**now, by=["team"], limit_count=1)) == 1


async def test_usage_adds_up_over_batches_and_a_reversal_takes_out_what_it_reverses(store):
    await keep(store, event(1, closed_as="expired"))
    await keep(store, event(2, closed_as="expired"))
    await keep(store, event(3, cost_nusd=-10, calls_count=-1, closed_as="reversed"))
    [found] = await store.sum_usage(since_ns=0, until_ns=2 * NOW_NS)
    assert (found.cost_nusd, found.calls_count) == (10, 1)


async def test_usage_can_be_summed_by_every_dimension_and_by_nothing_else(store):
    await keep(store, FULL)
    [found] = await store.sum_usage(since_ns=0, until_ns=2 * NOW_NS, by=DIMENSIONS)
    assert set(found.by) == set(DIMENSIONS)
    assert found.by["user"] == 'o"\\ann'
    assert {name: getattr(found, name) for name in MEASURES}["output_tokens"] == 5
    with pytest.raises(InvalidAsk, match="odd"):
        await store.sum_usage(since_ns=0, until_ns=1, by=["odd"])
    with pytest.raises(InvalidAsk, match="hour_ns; drop"):
        await store.sum_usage(since_ns=0, until_ns=1, where={"hour_ns; drop": 1})


async def test_no_usage_is_no_group(store):
    assert await store.sum_usage(since_ns=0, until_ns=NOW_NS) == []


async def test_absurd_figures_do_not_block_what_comes_after(store):
    usage = admission_pb2.Usage(prompt_tokens=AMOUNT_MAX)
    for sequence in (1, 2, 3):
        await keep(store, event(sequence, usage=usage))
    [found] = await store.sum_usage(since_ns=0, until_ns=2 * NOW_NS)
    assert found.calls_count == 3
    assert found.prompt_tokens >= AMOUNT_MAX // 2


@pytest.mark.parametrize("settled_ns", [0, NOW_NS - 399 * DAY_NS, NOW_NS + DAY_NS, AMOUNT_MAX])
async def test_events_of_any_time_are_kept(store, settled_ns):
    await keep(store, event(1, settled_ns=settled_ns), event(2))
    [found] = await store.sum_usage(since_ns=0, until_ns=2 * NOW_NS)
    assert found.calls_count == 2


async def test_a_label_may_hold_what_text_in_the_database_may_not(store):
    odd = "a\0b"
    await keep(store, event(1, labels={"team": odd, odd: odd}, model=odd, ask_id=odd))
    [found] = await store.sum_usage(since_ns=0, until_ns=2 * NOW_NS, by=["team", "model"])
    assert found.by == {"team": "a\ufffdb", "model": "a\ufffdb"}


# ---- notices ------------------------------------------------------------------------------------


async def test_replicas_hear_of_recalls_policies_and_kill_switches(store):
    heard = store.notices()
    try:
        async with asyncio.timeout(10):
            assert await anext(heard) == Notice(topic=Topic.ALL)
            await store.put_kill(KILL)
            assert await anext(heard) == Notice(topic=Topic.KILLS, version=1)
            published = await store.publish_policy(revision="r", yaml="", actor="ann", at_ns=1)
            assert isinstance(published, PolicyText)
            assert await anext(heard) == Notice(topic=Topic.POLICY, version=1)
            await store.transact(lambda rows: rows.recalled.update([KEY, OTHER]), keys=[KEY, OTHER])
            assert await anext(heard) == Notice(topic=Topic.RECALL, keys=(KEY, OTHER))
            await store.transact(lambda rows: rows.kills.append(replace(KILL, kill_id="k2")))
            assert await anext(heard) == Notice(topic=Topic.KILLS, version=2)
            assert await store.lends_from_ns() == 0
            await store.transact(lambda rows: setattr(rows, "lends_from_ns", NOW_NS))
            assert await anext(heard) == Notice(topic=Topic.RESTORED, version=NOW_NS)
            await store.transact(lambda rows: setattr(rows, "lends_from_ns", 7))
            assert await store.lends_from_ns() == NOW_NS
    finally:
        await heard.aclose()


async def test_replicas_hear_of_drills_word_by_word(store):
    odd = 'Zürich "1"\0\n'
    words = [
        DrillCall(drill_id="d", from_id="a", timeout_ns=NOW_NS),
        DrillRoll(
            drill_id="d", to_id="a", from_id="b", slice_number=1, slices_count=2, names={odd: odd}
        ),
        DrillHeard(drill_id="d", to_id="a", daemon_id=odd, slowest_ns=7, finished=True),
    ]
    heard = store.notices()
    try:
        async with asyncio.timeout(10):
            assert await anext(heard) == Notice(topic=Topic.ALL)
            tells = not getattr(store, "_polls", False)
            assert await store.tell_drill(words) is tells, "nobody listens where all poll"
            for word in words if tells else ():
                assert await anext(heard) == Notice(topic=Topic.DRILL, word=word)
    finally:
        await heard.aclose()


async def test_nobody_hears_of_what_was_not_committed(store):
    heard = store.notices()

    def work(rows: Rows) -> None:
        rows.recalled.add(KEY)
        rows.kills.append(KILL)
        raise InvalidAsk("no")

    try:
        async with asyncio.timeout(10):
            assert await anext(heard) == Notice(topic=Topic.ALL)
            with pytest.raises(InvalidAsk):
                await store.transact(work, keys=[KEY])
            await store.publish_policy(revision="r", yaml="", actor="ann", at_ns=1)
            assert (await anext(heard)).topic == Topic.POLICY
    finally:
        await heard.aclose()


async def test_an_outbox_is_at_nothing_until_it_is_written_and_then_where_it_was_left(store):
    assert await store.transact(lambda rows: rows.outboxes["d1"], outboxes_of=["d1"]) == Outbox()
    moved = Outbox(usage_sequence=7, epoch=2)
    await store.transact(lambda rows: rows.put_outbox("d1", moved), outboxes_of=["d1"])
    read = await store.transact(lambda rows: dict(rows.outboxes), outboxes_of=["d1", "d2"])
    assert read == {"d1": moved, "d2": Outbox()}


async def test_an_outbox_that_was_not_locked_is_not_written(store):
    with pytest.raises(InvariantBroken):
        await store.transact(lambda rows: rows.put_outbox("d1", Outbox()), daemon_ids=["d1"])
