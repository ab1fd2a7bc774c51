"""What the coordinator remembers, as one transaction reads and writes it."""

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol, TypeVar

import msgspec

from costd.model.events import Alert, AuditRecord
from costd.model.kill import KillSwitch
from costd.model.lease import EMPTY_POOL, NO_STAND, Pool, Stand
from costd.wire.pb import control_pb2

Result = TypeVar("Result")


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """One daemon, as it last told of itself; times are the coordinator's wall clock."""

    daemon_id: str
    name: str = ""
    version: str = ""
    boot_id: str = ""
    epoch: int = 0
    """Of its newest stream; what carries another one is refused."""
    enrolled_ns: int = 0
    seen_ns: int = 0
    tenure_ends_ns: int = 0
    """After this it spends nothing of what it holds; what is unreported is presumed spent."""
    spoken_epoch: int = 0
    """The newest epoch in which it has asked or reported: it has read that Admittance, so that an
    Enrol from before it is one that was late on its way."""
    sequence: int = 0
    """The newest request or report of this epoch. Below zero where no stream has this epoch, since
    the daemon was given up in the one before: -1 less the newest of that one."""
    policy_number: int = 0
    policy_problem: str = ""
    clock_offset_ns: int = 0
    """Its wall clock less the coordinator's."""
    outbox_count: int = 0
    overspend_bound_nusd: int = 0
    clients_count: int = 0
    kills_version: int = 0


def given_up(daemon: Daemon) -> Daemon:
    """End a daemon's stream, should it have one; it goes on only once it has enrolled.

    Shape:   pure; one that is given up already stays as it is.
    """
    if daemon.sequence < 0:
        return daemon
    return msgspec.structs.replace(daemon, epoch=daemon.epoch + 1, sequence=-1 - daemon.sequence)


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one daemon holds of one counter, as it last told.

    `lost` is what it may have spent and can no longer tell of; `late` what it used of a lease that
    was taken back from it.
    """

    stand: Stand = NO_STAND
    epoch: int = 0
    """Of the daemon when it was last granted some: in another one no grant can be on its way."""
    is_reclaimed: bool = False
    """Whether it was taken back, and the daemon has not spoken of it since it was told so."""
    lost: int = 0
    reserve_lost: int = 0
    late: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the daemon may yet use or report something of it, or must be told of it."""
        stand = self.stand
        return bool(
            stand.amount > stand.settled
            or stand.reserved
            or stand.reserve_amount > stand.reserve_settled
            or stand.reserve_reserved
            or self.is_reclaimed
        )


class Outbox(msgspec.Struct, frozen=True, kw_only=True):
    """How far one daemon's usage events are stored."""

    usage_sequence: int = 0
    """The newest that is stored; 0 before the first."""
    epoch: int = 0
    """Of the stream that sends them: after a power failure a daemon numbers others so again."""


class Rows:
    """The rows that one transaction has locked, and what it wants written.

    Shape:   `daemons` has an entry for each asked for that is known; `pools` and `shares` likewise.
             Change them through the methods only: they note what must be written.
    """

    def __init__(
        self,
        daemons: dict[str, Daemon] | None = None,
        pools: dict[bytes, Pool] | None = None,
        shares: dict[tuple[bytes, str], Share] | None = None,
        outboxes: dict[str, Outbox] | None = None,
    ) -> None:
        self.daemons = daemons or {}
        self.pools = pools or {}
        self.shares = shares or {}
        self.outboxes = outboxes or {}
        """By daemon."""
        self.written_daemons: set[str] = set()
        self.written_pools: set[bytes] = set()
        self.written_outboxes: set[str] = set()
        self.written_shares: set[tuple[bytes, str]] = set()
        self.usage: list[tuple[str, control_pb2.UsageEvent]] = []
        """Usage events to append, by daemon; their sequences are within."""
        self.alerts: list[Alert] = []
        self.audit: list[AuditRecord] = []
        self.kills: list[KillSwitch] = []
        self.lends_from_ns = 0
        """Set where a daemon has shown that these rows have forgotten what was granted: until then
        every replica learns, and grants nothing."""
        self.recalled: set[bytes] = set()
        """Counters that others must give back what they do not use of; told to every replica."""
        self.scarce_rates: set[bytes] = set()
        """Rates of which somebody wanted more than nobody holds."""

    def pool(self, key: bytes) -> Pool:
        """Return the fleet's counter; empty if nothing was ever held of it."""
        return self.pools.get(key, EMPTY_POOL)

    def share(self, key: bytes, daemon_id: str) -> Share | None:
        """Return what a daemon holds of it, None if it never did."""
        return self.shares.get((key, daemon_id))

    def put_daemon(self, daemon: Daemon) -> None:
        """Write a daemon."""
        self.daemons[daemon.daemon_id] = daemon
        self.written_daemons.add(daemon.daemon_id)

    def put_outbox(self, daemon_id: str, outbox: Outbox) -> None:
        """Write how far a daemon's usage events are stored."""
        self.outboxes[daemon_id] = outbox
        self.written_outboxes.add(daemon_id)

    def put(self, key: bytes, daemon_id: str, pool: Pool, share: Share) -> None:
        """Write a counter with one daemon's part of it."""
        self.put_pool(key, pool)
        self.shares[key, daemon_id] = share
        self.written_shares.add((key, daemon_id))

    def put_pool(self, key: bytes, pool: Pool) -> None:
        """Write a counter."""
        self.pools[key] = pool
        self.written_pools.add(key)


class FleetStore(Protocol):
    """Where the rows are; implemented over PostgreSQL, and in memory for simulations.

    Exists so that the coordinator's rules run in a simulator as they run in production.
    """

    def transact(
        self,
        work: Callable[[Rows], Result],
        *,
        daemon_ids: Collection[str] = (),
        keys: Collection[bytes] = (),
        with_all_shares_of: Collection[str] = (),
        outboxes_of: Collection[str] = (),
        with_closed_shares_of: Collection[str] = (),
    ) -> Awaitable[Result]:
        """Run `work` over locked rows and write what it wants written, all of it or nothing.

        Shape:   locks the daemons in order of their ids, then their outboxes likewise, then the
                 pools in order of their keys;
                 reads the shares of those daemons on those pools, and for `with_all_shares_of`
                 the daemon's open shares on any pool (whose pools are locked as well), for those
                 among them that are in `with_closed_shares_of` all that are kept. `work` is
                 pure and may run again where the database asks for it.
        Errors:  CoordinatorUnavailable where nothing was written; whatever `work` raises, and
                 then nothing is written either.
        """
        ...

    def overdue_holders(
        self, keys: Collection[bytes], *, ended_before_ns: int
    ) -> Awaitable[list[tuple[str, bytes]]]:
        """List (daemon, counter) where one holds some of these and its tenure ended before then.

        Shape:   reads without locking: look again under a lock before acting on it. The first
                 hundred, in order.
        Errors:  CoordinatorUnavailable.
        """
        ...
