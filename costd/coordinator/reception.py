"""Where daemons arrive: their messages become transactions, and what others must hear goes out.

No I/O of its own: rows are behind `FleetStore`, streams behind the function each connection was
given, time behind a clock.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

from costd.clock import Clock
from costd.coordinator.exchange import Exchange
from costd.coordinator.lease_spans import LeaseSpan
from costd.coordinator.lendable import Span
from costd.coordinator.rows import FleetStore, Rows
from costd.engine.rules import Rules
from costd.errors import CostdError, InvalidAsk, LateEnrol, StillSpending
from costd.model.kill import KillSwitch
from costd.model.time import NS_PER_S
from costd.wire.pb import fleet_pb2 as pb

Push = Callable[[pb.ToDaemon], None]
Result = TypeVar("Result")

RECALL_EVERY_NS: Final = 10_000_000
"""At most so often is a counter recalled from everybody who holds it."""
RETAKE_EVERY_NS: Final = 1_000_000_000
"""At most so often is it looked whether who holds some of a scarce rate is gone."""
PRESSED_NS: Final = NS_PER_S
"""So long after a recall, reports may give back what others wait for."""


class Connection:
    """One stream of one daemon; `close` ends it with an error for the daemon to read."""

    def __init__(self, push: Push, close: Callable[[CostdError], None], peer: str = "") -> None:
        self.push = push
        self.close = close
        self.peer = peer
        """The name its certificate says; empty where nothing certifies it."""
        self.daemon_id = ""
        self.claimed_id = ""
        """Who it says it is while its Enrol waits; only switches and drills are told by it."""
        self.name = ""
        self.epoch = 0
        self.is_over = False
        self.holds: set[bytes] = set()
        """Counters that it may hold something of, as far as this replica knows."""


class Published(NamedTuple):
    """The policy of the fleet, compiled."""

    message: pb.PublishedPolicy
    rules: Rules


class Received(NamedTuple):
    """One message and whom it is from."""

    connection: Connection
    message: pb.ToCoordinator
    span: LeaseSpan | None = None
    """Where the ask that it is for is traced."""


CLIENTS_COUNT_MAX: Final = 1_000_000
SLOWEST_S_MAX: Final = 3_600
"""What a daemon may confirm in a drill, which lasts a minute at most."""

_Done = tuple[list[pb.ToDaemon], Rows]


class Reception:
    """Serves every daemon that is attached to this replica."""

    rules_of_exchange: type[Exchange] = Exchange
    """What a message does; a test puts one with a bug in its place, to see that it is caught."""

    def __init__(self, store: FleetStore, clock: Clock, published: Published, span: Span) -> None:
        self._store = store
        self._clock = clock
        self.published = published
        self.span = span
        self.attached: dict[str, Connection] = {}
        """By daemon."""
        self.arriving: dict[str, Connection] = {}
        """Those whose Enrol waits for the database, or for its return: they are told of kill
        switches all the same."""
        self.kills = pb.KillList()
        self.heard_from_ns = clock.now().wall_ns
        """Since when this replica listens to daemons."""
        self.lends_from_ns = 0
        """Until then it learns what daemons hold, and grants nothing."""
        self._recalled_ns: dict[bytes, int] = {}
        self._retaken_ns: dict[bytes, int] = {}
        self._pressed_until_ns = 0
        self.halted: Callable[[Sequence[KillSwitch]], None] | None = None
        """Who hears of kill switches that budgets engaged."""
        self.drill_heard: Callable[[Connection, pb.DrillConfirmation], None] | None = None

    @property
    def listening(self) -> dict[str, Connection]:
        """Everybody who hears of kill switches, by daemon."""
        return {**self.attached, **self.arriving}

    @property
    def awaits_reports(self) -> bool:
        """Whether somebody may wait for what a report gives back."""
        return self._clock.now().wall_ns < self._pressed_until_ns

    # ---- daemons -----------------------------------------------------------------------------

    def arrive(self, connection: Connection, enrol: pb.Enrol) -> None:
        """Let a daemon hear of kill switches before the database has taken it in."""
        connection.claimed_id = enrol.daemon_id
        connection.name = connection.peer or enrol.name
        self.arriving[enrol.daemon_id] = connection
        if self.kills.kills:
            connection.push(pb.ToDaemon(kills=self.kills))

    async def receive(self, batch: Sequence[Received]) -> None:
        """Act on messages in one transaction, in order; a bad one among them spoils no other.

        Shape:   usage comes apart from everything else: it has transactions of its own.

        Errors:  CoordinatorUnavailable; then nothing is known of what was written, and every
                 stream of the batch must end: at the next Enrol its daemon tells the truth.
        """
        now_ns = self._clock.now().wall_ns
        try:
            answers, rows = await self._transact(batch, now_ns)
        except CostdError as error:
            if error.retryable:
                raise
            if len(batch) == 1:
                self._refuse(batch[0].connection, error)
            else:
                for received in batch:
                    await self.receive([received])
            return
        self.learn(rows.lends_from_ns)
        for received, answer in zip(batch, answers, strict=True):
            self._answer(received, answer)
        self.recall(sorted(rows.recalled), now_ns)
        if rows.kills and self.halted is not None:
            self.halted(rows.kills)
        if rows.scarce_rates:
            await self._retake_rates(sorted(rows.scarce_rates), now_ns)

    def lost(self, connection: Connection) -> None:
        """Forget a stream; what its daemon holds stays good until its tenure ends."""
        connection.is_over = True
        self._arrived(connection)
        if self.attached.get(connection.daemon_id) is connection:
            del self.attached[connection.daemon_id]

    def drilled(self, connection: Connection, message: pb.DrillConfirmation) -> None:
        """Pass on what a daemon found in a drill.

        Errors:  InvalidAsk for figures that no host can have: they would spoil the sums of all.
        """
        counts = (message.clients_count, message.unconfirmed_count)
        is_sound = 0 <= message.slowest.seconds <= SLOWEST_S_MAX and message.slowest.nanos >= 0
        if not (is_sound and 0 <= min(counts) <= max(counts) <= CLIENTS_COUNT_MAX):
            raise InvalidAsk(
                f"a daemon has 0 to {CLIENTS_COUNT_MAX} clients, which take 0 to {SLOWEST_S_MAX} s"
            )
        if self.drill_heard is not None:
            self.drill_heard(connection, message)

    # ---- what all must hear ------------------------------------------------------------------

    def publish(self, published: Published) -> None:
        """Put a policy in force here, and tell everybody."""
        if published.message.number <= self.published.message.number:
            return
        self.published = published
        self._tell(pb.ToDaemon(policy=published.message))

    def kill(self, kills: pb.KillList) -> None:
        """Tell everybody which kill switches are engaged."""
        self.kills = kills
        message = pb.ToDaemon(kills=kills)
        self._tell(message)
        for connection in self.arriving.values():
            connection.push(message)

    def learn(self, lends_from_ns: int) -> None:
        """Grant nothing before then: a restored database must hear first what all hold."""
        self.lends_from_ns = max(self.lends_from_ns, lends_from_ns)

    def recall(self, counter_keys: Iterable[bytes], now_ns: int) -> None:
        """Ask everybody here who may hold something of these counters to give back."""
        due = [
            key for key in counter_keys if now_ns - self._recalled_ns.get(key, 0) >= RECALL_EVERY_NS
        ]
        if not due:
            return
        self._pressed_until_ns = now_ns + PRESSED_NS
        self._recalled_ns = {
            key: at for key, at in self._recalled_ns.items() if now_ns - at < RECALL_EVERY_NS
        }
        self._recalled_ns.update(dict.fromkeys(due, now_ns))
        for connection in self.attached.values():
            held = [key for key in due if key in connection.holds]
            if held:
                recall = pb.Recall(epoch=connection.epoch, counter_keys=held)
                connection.push(pb.ToDaemon(recall=recall))

    def exchange(self, rows: Rows, now_ns: int) -> Exchange:
        """Make what decides over rows by the policy in force, for one transaction."""
        return self.rules_of_exchange(
            rows,
            self.published.rules,
            now_ns=now_ns,
            span=self.span,
            lends_from_ns=self.lends_from_ns,
            reclaims_from_ns=self.heard_from_ns + self.span.outlived_ns,
        )

    # ---- inside ------------------------------------------------------------------------------

    async def _transact(self, batch: Sequence[Received], now_ns: int) -> _Done:
        def work(rows: Rows) -> _Done:
            exchange = self.exchange(rows, now_ns)
            answers = [_act(exchange, received) for received in batch]
            return answers, rows

        return await self._store.transact(
            work,
            daemon_ids=sorted(
                {_daemon_of(each) for each in batch if not each.message.HasField("usage")}
            ),
            outboxes_of=sorted(
                {
                    _daemon_of(each)
                    for each in batch
                    if each.message.HasField("usage") or each.message.HasField("enrol")
                }
            ),
            keys=sorted({key for received in batch for key in _keys_of(received.message)}),
            with_all_shares_of=[
                received.message.enrol.daemon_id
                for received in batch
                if received.message.HasField("enrol")
            ],
            # Books that lack something may lack what was used up, too.
            with_closed_shares_of=[
                received.message.enrol.daemon_id
                for received in batch
                if received.message.enrol.books_are_old
            ],
        )

    async def _retake_rates(self, scarce: Iterable[bytes], now_ns: int) -> None:
        """Take back shares of rates whose daemons are gone: time bounds them, no money is lost."""
        due = [key for key in scarce if now_ns - self._retaken_ns.get(key, 0) >= RETAKE_EVERY_NS]
        if not due:
            return
        self._retaken_ns = {
            key: at for key, at in self._retaken_ns.items() if now_ns - at < RETAKE_EVERY_NS
        }
        self._retaken_ns.update(dict.fromkeys(due, now_ns))
        ended_ns = now_ns - self.span.skew_ns_max
        for daemon_id, key in await self._store.overdue_holders(due, ended_before_ns=ended_ns):

            def work(rows: Rows, daemon_id: str = daemon_id, key: bytes = key) -> None:
                self.exchange(rows, now_ns).reclaim(daemon_id, [key])

            with suppress(StillSpending):  # it has come back since
                await self._store.transact(work, daemon_ids=[daemon_id], keys=[key])

    def _answer(self, received: Received, answer: pb.ToDaemon) -> None:
        connection, message = received.connection, received.message
        if received.span is not None:
            received.span.answered(answer.reply)
        if message.HasField("enrol"):
            older = self.attached.get(message.enrol.daemon_id)
            if older is not None and older is not connection:
                older.close(InvalidAsk("this daemon has enrolled on another stream"))
            if connection.is_over:
                return  # it ended while the transaction ran
            self._arrived(connection)
            connection.daemon_id = message.enrol.daemon_id
            connection.name = connection.peer or message.enrol.name
            connection.epoch = answer.welcome.epoch
            connection.holds = {*_keys_of(message)}
            self.attached[connection.daemon_id] = connection
            connection.push(answer)
            connection.push(pb.ToDaemon(policy=self.published.message))
            connection.push(pb.ToDaemon(kills=self.kills))
            return
        connection.holds.update(grant.counter_key for grant in answer.reply.grants if grant.amount)
        for stand in message.report.stands:
            if stand.amount <= stand.settled + stand.reserved:
                connection.holds.discard(stand.counter_key)
        connection.push(answer)

    def _refuse(self, connection: Connection, error: CostdError) -> None:
        self.lost(connection)
        if isinstance(error, LateEnrol):
            connection.push(pb.ToDaemon(late=pb.LateEnrol(epoch=error.epoch)))
        connection.close(error)

    def _arrived(self, connection: Connection) -> None:
        if self.arriving.get(connection.claimed_id) is connection:
            del self.arriving[connection.claimed_id]

    def _tell(self, message: pb.ToDaemon) -> None:
        for connection in self.attached.values():
            connection.push(message)


def check_order(connection: Connection, message: pb.ToCoordinator) -> None:
    """Refuse a message that comes out of turn.

    Errors:  InvalidAsk.
    """
    kind = message.WhichOneof("message")
    if kind is None:
        raise InvalidAsk("a daemon's message is an enrol, a request, a report, usage or drilled")
    if (kind == "enrol") == bool(connection.daemon_id):
        raise InvalidAsk("Enrol comes first on every stream, and only once")


def _act(exchange: Exchange, received: Received) -> pb.ToDaemon:
    connection, message = received.connection, received.message
    kind = message.WhichOneof("message")
    if kind == "enrol":
        return pb.ToDaemon(welcome=exchange.enrol(message.enrol, connection.peer))
    daemon_id = connection.daemon_id
    if kind == "request":
        return pb.ToDaemon(reply=exchange.request(daemon_id, message.request))
    if kind == "report":
        return pb.ToDaemon(receipt=exchange.report(daemon_id, message.report))
    return pb.ToDaemon(stored=exchange.usage(daemon_id, message.usage))


def _daemon_of(received: Received) -> str:
    return received.connection.daemon_id or received.message.enrol.daemon_id


def _keys_of(message: pb.ToCoordinator) -> list[bytes]:
    """The counters that a message names."""
    kind = message.WhichOneof("message")
    if kind == "request":
        return [want.stand.counter_key for want in message.request.wants]
    if kind == "report":
        return [stand.counter_key for stand in message.report.stands]
    if kind == "enrol":
        return [stand.counter_key for stand in message.enrol.stands]
    return []
