"""What a daemon is beside its books when it belongs to a fleet: wires its parts together."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Final

import grpc

from costd.daemon.clients import drill as drills
from costd.daemon.clients.desk import Desk
from costd.daemon.fleet.kills import put_in_force
from costd.daemon.fleet.member import Member
from costd.daemon.fleet.patience import Patience
from costd.daemon.fleet.policy import FleetPolicy
from costd.daemon.fleet.tenancy import Situation, Tenancy
from costd.engine.changes import Family
from costd.model.labels import Selector
from costd.store.port import Store
from costd.telemetry.logs import Log
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb

_ID_KEY: Final = b"daemon_id"


def daemon_id_of(store: Store) -> str:
    """Return what a coordinator knows these books by; made once.

    Errors:  StoreUnavailable.
    """
    raw = store.get(Family.META, _ID_KEY)
    if raw is None:
        raw = f"daemon-{uuid.uuid4().hex}".encode()
        store.commit([(Family.META, _ID_KEY, raw)])
    return str(raw, "ascii")


class Fleet:
    """One daemon's membership: its tenancy, its stream, and what it hears."""

    def __init__(
        self,
        desk: Desk,
        *,
        policy: FleetPolicy,
        situation: Situation,
        log: Log,
        targets: Sequence[str],
        open_channel: Callable[[str], grpc.aio.Channel],
        lost_by_reboot: bool = False,
        outbox_count_max: int = 0,
    ) -> None:
        ledger = desk.ledger
        self._ledger = ledger
        self._desk = desk
        self._situation = situation
        self._log = log
        self.policy = policy
        policy.report_to(situation)
        self.tenancy = Tenancy(
            ledger,
            daemon_id=daemon_id_of(ledger.store),
            situation=situation,
            lost_by_reboot=lost_by_reboot,
            outbox_count_max=outbox_count_max,
        )
        self.tenancy.held.recalls = desk
        desk.borrow = self.tenancy.ask
        self.member = Member(self.tenancy, targets, open_channel, log)
        self.member.hears = {
            "policy": lambda message: self._policy(message.policy),
            "kills": lambda message: self._kills(message.kills),
            "drill": lambda message: self._drill(message.drill),
        }
        self.patience = Patience(self.tenancy, lambda: ledger.rules.policy.fleet.lease_wait_ns)
        self._drilling: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Belong to the fleet until cancelled."""
        await self.member.run()

    async def ready(self, stopped: asyncio.Event) -> bool:
        """Wait until a policy is in force; False if the daemon is stopped before."""
        in_force = self.policy.in_force
        if not in_force.is_set():
            self._log.warning("waiting_for_policy", coordinator=self.member.problem or "joined")
        waits = [asyncio.create_task(each.wait()) for each in (in_force, stopped)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        return in_force.is_set()

    async def _policy(self, message: pb.PublishedPolicy) -> None:
        """Follow the fleet's policy; what is held by a limit that was cut is given back at once."""
        await self.policy.heard(message)
        self.tenancy.policy_changed()

    def _kills(self, message: pb.KillList) -> None:
        put_in_force(self._ledger, message)
        self._situation.kills_version = message.version
        self._situation.clients_count = len(self._desk.attached)

    def _drill(self, message: pb.FleetDrill) -> None:
        self.member.push(_confirmation(pb.DrillConfirmation(drill_id=message.drill_id)))
        task = asyncio.create_task(self._drill_clients(message))
        self._drilling.add(task)
        task.add_done_callback(self._drilling.discard)

    async def _drill_clients(self, message: pb.FleetDrill) -> None:
        """Find how long this daemon's clients take to hear, and tell."""
        order = drills.Order(
            scope=Selector(),
            actor="coordinator",
            reason=message.drill_id,
            timeout_ns=message.timeout.ToNanoseconds(),
        )
        report = await drills.run(order, self._ledger, self._desk)
        awaited = sum(not row.left for row in report.processes)
        self.member.push(
            _confirmation(
                pb.DrillConfirmation(
                    drill_id=message.drill_id,
                    clients_count=report.confirmed_count,
                    unconfirmed_count=awaited - report.confirmed_count,
                    slowest=wire.duration(report.max_ns),
                    finished=True,
                )
            )
        )


def _confirmation(message: pb.DrillConfirmation) -> pb.ToCoordinator:
    return pb.ToCoordinator(drilled=message)
