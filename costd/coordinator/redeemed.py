"""What a fleet has used of its override grants, and who."""

from collections.abc import AsyncIterator
from typing import Final

from costd.coordinator.rows import Share
from costd.coordinator.store import CoordinatorStore
from costd.engine import keys, lend
from costd.model.lease import Pool
from costd.model.policy import Unit
from costd.wire.pb import control_pb2 as pb

PAGE_COUNT: Final = 1_000

Named = tuple[int, str]
"""When a grant expires, and its id."""


async def redeemed_grants(store: CoordinatorStore, *, after_ns: int) -> list[pb.GrantStatus]:
    """List the grants of which somebody holds or used some, those that expire first first.

    Shape:   of those that expire after `after_ns`. Who signed one, and for whom, is in the audit.
    """
    rows: dict[Named, pb.GrantStatus] = {}
    holders: dict[tuple[Named, str], pb.GrantHolder] = {}
    names = {daemon_id: name async for daemon_id, name in _names(store)}
    async for key, pool in _pools(store, after_ns.to_bytes(8, "big")):
        counter = keys.grant_counter(key)
        if counter is None:
            continue
        expires_ns = keys.split_counter_key(key)[0]
        named = expires_ns, counter.grant_id
        row = rows.setdefault(
            named, pb.GrantStatus(grant_id=counter.grant_id, expires_ns=expires_ns)
        )
        if counter.unit is Unit.CALLS:
            row.uses_max_count, row.uses_count = counter.limit, pool.used
        else:
            row.amount_nusd, row.used_nusd = counter.limit, pool.used
        async for daemon_id, share in _shares(store, key):
            holder = holders.setdefault(
                (named, daemon_id), pb.GrantHolder(daemon=names.get(daemon_id) or daemon_id)
            )
            if counter.unit is Unit.CALLS:
                holder.uses_count = share.stand.used
                holder.unleased_count = share.stand.unadmitted
            else:
                holder.used_nusd = share.stand.used
                holder.unused_nusd = lend.presumed(share.stand)
    for (named, _), holder in sorted(holders.items(), key=lambda item: item[1].daemon):
        rows[named].holders.append(holder)
    return list(rows.values())


async def _pools(store: CoordinatorStore, after: bytes) -> AsyncIterator[tuple[bytes, Pool]]:
    while True:
        page = await store.list_pools(after_key=after, limit_count=PAGE_COUNT)
        for row in page:
            yield row
        if len(page) < PAGE_COUNT:
            return
        after = page[-1][0]


async def _shares(store: CoordinatorStore, key: bytes) -> AsyncIterator[tuple[str, Share]]:
    after = (b"", "")
    while True:
        page = await store.list_shares(counter_key=key, after=after, limit_count=PAGE_COUNT)
        for _, daemon_id, share in page:
            yield daemon_id, share
        if len(page) < PAGE_COUNT:
            return
        after = page[-1][0], page[-1][1]


async def _names(store: CoordinatorStore) -> AsyncIterator[tuple[str, str]]:
    after = ""
    while True:
        page = await store.list_daemons(after_id=after, limit_count=PAGE_COUNT)
        for daemon in page:
            yield daemon.daemon_id, daemon.name
        if len(page) < PAGE_COUNT:
            return
        after = page[-1].daemon_id
