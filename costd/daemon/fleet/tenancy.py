"""The daemon's side of the fleet protocol: enrol, report, keep the tenure, give back.

No I/O: messages come in by `receive`, go out by the function given at `connected`; time comes from
the ledger's clock when `tick` or `receive` is called. docs/reference/fleet.md is the protocol.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from costd.daemon.books.ledger import Ledger
from costd.daemon.fleet.borrow import Borrowing, Done, Short
from costd.daemon.fleet.held import Held
from costd.daemon.fleet.outbox import Outbox
from costd.daemon.fleet.rated import FAIR_NEWS_NS
from costd.daemon.fleet.remembered import Remembered
from costd.daemon.fleet.reports import Reports
from costd.daemon.fleet.worst import WorstCase
from costd.errors import StoreUnavailable
from costd.model.time import NS_PER_S
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb

REPORTS_IN_TENURE: Final = 10
"""So often a tenure is renewed: several reports may be lost before it ends."""
MARGIN_SHARE: Final = 10
"""A tenth of the tenure is not used: clocks of two hosts do not run equally fast."""
AHEAD_EVERY_NS: Final = NS_PER_S
"""What runs low is looked for so often, and with each report: all that does is asked for together,
and shares the report's transaction. A lease that lasts is for more than ten seconds."""
TIDY_EVERY_NS: Final = 60 * NS_PER_S
"""So often what is known of windows that are over is forgotten."""

Push = Callable[[pb.ToCoordinator], None]


class Situation(msgspec.Struct, kw_only=True):
    """What a daemon tells of itself with each report; the host keeps it true."""

    name: str = ""
    version: str = ""
    boot_id: str = ""
    policy_number: int = 0
    policy_problem: str = ""
    clients_count: int = 0
    kills_version: int = 0


class Tenancy:
    """One daemon's membership in a fleet."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        daemon_id: str,
        situation: Situation,
        lost_by_reboot: bool = False,
        outbox_count_max: int = 0,
    ) -> None:
        """Take up what the last run left; after a reboot of the host what it held is dead.

        Shape:   `lost_by_reboot` says that a reboot, if there was one, may have lost what was
                 promised last: nothing makes commits durable, and the last run did not end well.
        """
        self.ledger = ledger
        self.situation = situation
        self.borrowing = Borrowing(ledger)
        ledger.state.exhausted = self.borrowing.not_lent.exhausted
        ledger.state.refused_grants = self.borrowing.not_lent.refused_grants
        self.outbox = Outbox(ledger, count_max=outbox_count_max)
        self.held = Held(ledger, self.borrowing)
        self._worst_case = WorstCase(ledger)
        saved = Remembered.read(ledger.store)
        self._saved = saved or Remembered(daemon_id=daemon_id)
        ledger.state.leases_until_ns = self._saved.until_steady_ns
        ledger.lent.may_enrol(self._saved.epoch)  # what the last run sent may be late on its way
        ledger.lent.heard_in(self._saved.heard_epoch)
        self._push: Push | None = None
        self._enrolled_at_ns = 0
        self.reports = Reports(ledger)
        self._looked_ahead_ns = 0
        self._tidied_ns = 0
        self._tenure_ns = 0
        self.clock_offset_ns = 0
        """The coordinator's wall clock less ours, when it last told."""
        boot_id = situation.boot_id
        if saved is None or not boot_id or saved.boot_id != boot_id:
            self._give_up(boot_id, lost=lost_by_reboot)

    @property
    def daemon_id(self) -> str:
        """What the coordinator knows this daemon by."""
        return self._saved.daemon_id

    @property
    def epoch(self) -> int:
        """Of the newest Admittance."""
        return self._saved.epoch

    @property
    def is_enrolled(self) -> bool:
        """Whether the coordinator listens."""
        return self.borrowing.is_connected

    # ---- the stream --------------------------------------------------------------------------

    def connected(self, push: Push) -> None:
        """Begin a stream: tell the whole truth."""
        ledger, now = self.ledger, self.ledger.clock.now()
        self._push = push
        self.held.rated.forget()
        self._enrolled_at_ns = now.steady_ns
        held = sorted(ledger.lent.held)
        ledger.lent.may_enrol(self.epoch)
        self.reports.begin_stream()
        self.held.know(held, now.steady_ns)
        push(
            pb.ToCoordinator(
                enrol=pb.Enrol(
                    daemon_id=self.daemon_id,
                    name=self.situation.name,
                    version=self.situation.version,
                    boot_id=self.situation.boot_id,
                    epoch=self.epoch,
                    now_ns=now.wall_ns,
                    policy_number=self.situation.policy_number,
                    stands=[wire.stand_to_pb(key, ledger.stand(key)) for key in held],
                    books_are_old=self._saved.books_are_old,
                    usage_sequence=ledger.totals.usage_seq,
                    usage_first_sequence=self.outbox.first_sequence(),
                    heard_epoch=self._saved.heard_epoch,
                    heard_sequence=self._saved.heard_sequence,
                )
            )
        )

    def disconnected(self) -> None:
        """End a stream; what is held may be spent until the tenure ends."""
        self._push = None
        self.reports.end_stream()
        self.borrowing.disconnected()
        self.outbox.disconnected()

    def receive(self, message: pb.ToDaemon) -> None:
        """Act on what the coordinator says; what is of another epoch changes nothing."""
        kind = message.WhichOneof("message")
        if kind == "welcome":
            self._admitted(message.welcome)
        elif kind == "reply":
            now_ns = self.ledger.clock.now().steady_ns
            self._granted(message.reply, now_ns)
        elif kind == "receipt":
            self._receipted(message.receipt)
        elif kind == "late" and not self.is_enrolled:
            self._refused_as_late(message.late.epoch)
        elif kind == "stored":
            self.outbox.receipted(message.stored)
        elif kind == "recall" and message.recall.epoch == self.epoch:
            self._give_back(message.recall.counter_keys)

    def policy_changed(self) -> None:
        """Give back at once what is not used and was lent by a limit that was cut."""
        if self.is_enrolled:
            self._give_back(self.held.cut())

    # ---- asks --------------------------------------------------------------------------------

    def ask(
        self, shorts: Sequence[Short], done: Done | None = None, *, override_grant: str = ""
    ) -> bool:
        """Ask for room; False where that makes no sense now. `done` says when to look again."""
        now_ns = self.ledger.clock.now().steady_ns
        return self.borrowing.ask(shorts, now_ns, done, override_grant=override_grant)

    # ---- time --------------------------------------------------------------------------------

    def tick(self) -> None:
        """Report what is due, ask ahead, give back what is idle; call it some times a second.

        Ensures: what a full disk forbids to give back stays held, and all else is told.
        """
        now = self.ledger.clock.now()
        if self._push is None or not self.is_enrolled:
            return
        changed = sorted(self.ledger.fleet_changed)
        self.held.touch(changed, now.steady_ns)
        with suppress(StoreUnavailable):
            if self.held.give_back_freed(now.steady_ns):
                self.report()
        is_due = now.steady_ns - self.reports.sent_ns >= self.report_every_ns
        if is_due or now.steady_ns - self._looked_ahead_ns >= AHEAD_EVERY_NS:
            self._looked_ahead_ns = now.steady_ns
            self.held.ask_ahead(changed, now.wall_ns, now.steady_ns)
            with suppress(StoreUnavailable):
                self.held.give_back_idle(now.wall_ns, now.steady_ns)
        if now.steady_ns - self._tidied_ns >= TIDY_EVERY_NS:
            self._tidied_ns = now.steady_ns
            self.borrowing.not_lent.forget_ended(now.wall_ns)
        if is_due:
            self.report()
        self.borrowing.tick(now.steady_ns)
        self.outbox.tick()

    def report(self) -> None:
        """Tell what changed, and so renew the tenure."""
        assert self._push is not None
        now = self.ledger.clock.now()
        stands = self.reports.next_stands()
        self.held.watch(stands, now.steady_ns)
        told = self.held.rated.told
        sequence = self.reports.send(stands, now.steady_ns)
        situation = self.situation
        self._push(
            pb.ToCoordinator(
                report=pb.LeaseReport(
                    epoch=self.epoch,
                    sequence=sequence,
                    stands=[
                        wire.stand_to_pb(key, stand, unused_ns=told(key)) for key, stand in stands
                    ],
                    policy_number=situation.policy_number,
                    policy_problem=situation.policy_problem,
                    now_ns=now.wall_ns,
                    outbox_count=self.outbox.waiting_count,
                    overspend_bound_nusd=self.overspend_bound_nusd,
                    clients_count=situation.clients_count,
                    kills_version=situation.kills_version,
                )
            )
        )

    def leave(self) -> None:
        """Give back what is not used, and tell what changed; to be said until all is settled."""
        if self.held.leave() or (self.ledger.fleet_changed and not self.reports.has_unreceipted):
            self.report()

    @property
    def report_every_ns(self) -> int:
        """How often a report is sent, and so a receipt comes, though there is nothing to tell."""
        return self._tenure_ns // REPORTS_IN_TENURE

    @property
    def overspend_bound_nusd(self) -> int:
        """How far this daemon may pass its budgets at worst; docs/INVARIANTS.md."""
        return self._worst_case.bound_nusd()

    @property
    def is_settled(self) -> bool:
        """Whether all that was told is receipted."""
        return not (
            self.reports.has_unreceipted or self.ledger.fleet_changed or self.outbox.waiting_count
        )

    # ---- inside ------------------------------------------------------------------------------

    def _admitted(self, welcome: pb.Admittance) -> None:
        """Begin an epoch, unless this is told a second time."""
        push, ledger = self._push, self.ledger
        if push is None or welcome.epoch <= self.epoch:
            return
        self._tenure_ns = welcome.tenure.ToNanoseconds()
        # What was taken away must be gone before the tenure begins: a kill may come in between.
        ledger.revoke_leases(welcome.reclaimed_keys)
        if welcome.has_forgotten:
            known = (level.counter_key for level in welcome.levels)
            ledger.account_anew({*ledger.fleet_counters(), *known})
        if self._saved.books_are_old:
            self.outbox.renumber(self._saved.usage_kept, welcome.usage_sequence)
        self.outbox.close_gap(welcome.usage_sequence)
        self._remember(
            epoch=welcome.epoch,
            until_steady_ns=self._until(self._enrolled_at_ns),
            books_are_old=False,
        )
        self._heard(welcome.now_ns)
        self._levels(welcome.levels)
        self.reports.begin_epoch()
        self.borrowing.connected(self._send_request, welcome.epoch)
        self.outbox.connected(
            lambda batch: push(pb.ToCoordinator(usage=batch)), welcome.epoch, welcome.usage_sequence
        )
        while welcome.has_forgotten and ledger.fleet_changed:
            self.report()

    def _send_request(self, request: pb.LeaseRequest) -> None:
        assert self._push is not None
        request.sequence = self.reports.next_sequence()
        self._push(pb.ToCoordinator(request=request))

    def _granted(self, reply: pb.LeaseReply, now_ns: int) -> None:
        if reply.epoch != self.epoch:
            return
        self._heard(reply.now_ns)
        self.ledger.lent.heard_in(reply.epoch)
        self.held.touch([grant.counter_key for grant in reply.grants], now_ns)
        self.borrowing.replied(reply, now_ns)

    def _receipted(self, receipt: pb.ReportReceipt) -> None:
        """Renew the tenure from when that report was sent, and forget what is over.

        Errors:  StoreUnavailable; the next receipt does what this one could not.
        """
        if receipt.epoch != self.epoch:
            return
        sent_ns = self.reports.receipt(receipt.sequence)
        if sent_ns is None:
            return
        self._heard(receipt.now_ns)
        self.ledger.lent.heard_in(receipt.epoch)
        self._tenure_ns = receipt.tenure.ToNanoseconds()
        until_ns = max(self._until(sent_ns), self._saved.until_steady_ns)
        self._remember(
            heard_epoch=receipt.epoch, heard_sequence=receipt.sequence, until_steady_ns=until_ns
        )
        self._levels(receipt.levels)
        self.held.forget(self.reports.told)
        self.reports.told.clear()

    def _until(self, sent_ns: int) -> int:
        return sent_ns + self._tenure_ns - self._tenure_ns // MARGIN_SHARE

    def _remember(self, **changed: Any) -> None:
        self._saved = msgspec.structs.replace(self._saved, **changed)
        self._saved.write(self.ledger.store)
        self.ledger.state.leases_until_ns = self._saved.until_steady_ns

    def _give_up(self, boot_id: str, *, lost: bool) -> None:
        """Hold nothing any more; the boot is noted last, so that a kill on the way begins anew."""
        ledger, saved = self.ledger, self._saved
        is_old, kept = saved.books_are_old, saved.usage_kept
        if lost and not is_old:
            is_old, kept = True, ledger.totals.usage_seq
        self._remember(until_steady_ns=0, books_are_old=is_old, usage_kept=kept)
        if is_old:
            # All are accounted for anew: what is not stated then is unknown to these books.
            ledger.revoke_leases(ledger.fleet_counters())
        else:
            self.held.lower(sorted(ledger.lent.held))
        self._remember(boot_id=boot_id)

    def _refused_as_late(self, epoch: int) -> None:
        """Believe the coordinator that it has heard later news: these books were restored.

        Ensures: what they do not know of stays taken, and nothing of what they hold is used; the
                 next Enrol names the epoch, so that it is told from this one and any before.
        """
        self._give_up(self.situation.boot_id, lost=True)
        self._remember(epoch=max(self.epoch, epoch))

    def _heard(self, now_ns: int) -> None:
        self.clock_offset_ns = now_ns - self.ledger.clock.now().wall_ns

    def _levels(self, levels: Iterable[pb.Level]) -> None:
        ledger = self.ledger
        told = {
            level.counter_key: wire.lease_at(held, level)
            for level in levels
            if level.counter_key in ledger.lent.held
            and (held := ledger.lease(level.counter_key)) is not None
        }
        ledger.set_leases(told)

    def _give_back(self, counter_keys: Iterable[bytes]) -> None:
        """Give back at once what others need, unless a full disk forbids it: they ask again."""
        now_ns = self.ledger.clock.now().steady_ns
        lowered = rated = False
        with suppress(StoreUnavailable):
            lowered, rated = self.held.recalled(counter_keys, now_ns)
        if lowered or (rated and now_ns - self.reports.sent_ns >= FAIR_NEWS_NS):
            self.report()
