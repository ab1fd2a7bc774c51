"""Guards of the fleet's protocol, switched off one at a time: the simulation must notice each."""

import msgspec
import pytest
from fleet_events import STEPS_COUNT, run_fleet_order
from fleet_world import Parts

from costd.coordinator.exchange import Exchange
from costd.coordinator.reception import Reception
from costd.coordinator.rows import Outbox
from costd.daemon.fleet.tenancy import Tenancy
from costd.engine import allot, keys, lend
from costd.testing.fleet_old_rows import MemoryOldRows

SEEDS_MAX = 200


class NoEpochs(Exchange):
    """Takes messages of streams that are over."""

    def _current(self, daemon_id, epoch):
        return self._rows.daemons[daemon_id]


class NoVersions(Exchange):
    """Takes what a report gives back, also where it crossed a grant."""

    def _hear(self, daemon, key, stand, *, unused_ns=0):
        self._restate(daemon, key, stand)


class NoWindows(Exchange):
    """Lends of any window, whenever."""

    def _in_force(self, rule, key, want):
        return True


class NeverLearns(Exchange):
    """Goes on lending where the database has forgotten what it lent."""

    def _outcome(self, daemon, key, want, refused):
        self._lends_from_ns = 0
        return super()._outcome(daemon, key, want, refused)


class LendsGrantsTwice(Exchange):
    """Lends twice what the token of an override grant says."""

    def _terms(self, key):
        terms = super()._terms(key)
        if terms is not None and keys.is_grants(key):
            return msgspec.structs.replace(terms, limit=2 * terms.limit)
        return terms


class UsageAgain(Exchange):
    """Stores usage events as often as they come."""

    def usage(self, daemon_id, message):
        receipt = super().usage(daemon_id, message)
        stored = {id(event) for _, event in self._rows.usage}
        self._rows.usage += [
            (daemon_id, event) for event in message.events if id(event) not in stored
        ]
        return receipt


class Frees(Reception):
    """Frees what a daemon holds whose tenure is over."""

    async def _transact(self, batch, now_ns):
        absent = [
            daemon_id
            for daemon_id, daemon in self._store.daemons.items()
            if daemon.tenure_ends_ns < now_ns
        ]

        def free(rows):
            exchange = Exchange(rows, self.published.rules, now_ns=now_ns, span=self.span)
            for key, daemon_id in list(rows.shares):
                stand = lend.reclaimed(rows.shares[key, daemon_id].stand)
                exchange._restate(rows.daemons[daemon_id], key, stand)

        await self._store.transact(free, daemon_ids=absent, with_all_shares_of=absent)
        return await super()._transact(batch, now_ns)


class WholeTenure(Tenancy):
    """Spends to the end of its tenure, as if all clocks ran alike."""

    def _until(self, sent_ns):
        return sent_ns + self._tenure_ns


class OutlivesBoots(Tenancy):
    """Goes on with what it held before its host was rebooted."""

    def _give_up(self, boot_id, *, lost):
        if self._saved.boot_id in {"", boot_id}:
            super()._give_up(boot_id, lost=lost)
        else:
            self._remember(boot_id=boot_id)


class LowersLater(Tenancy):
    """Tells what it gives back, and gives it back once that is receipted."""

    def connected(self, push):
        self._later = set()

        def pretend(message):
            for stand in message.report.stands:
                if stand.counter_key in self._later:
                    stand.amount = min(stand.amount, stand.settled + stand.reserved)
            push(message)

        super().connected(pretend)

    def _give_back(self, counter_keys):
        held = [key for key in counter_keys if self.ledger.lease(key) is not None]
        self._later.update(held)
        self.ledger.fleet_changed.update(held)
        self.report()

    def _receipted(self, receipt):
        super()._receipted(receipt)
        self.held.lower(sorted(self._later))
        self._later.clear()


class NeverKnewThem(MemoryOldRows):
    """Knows nothing of a daemon that was forgotten."""

    def revive(self, daemon_ids):
        pass


class StoresUsageAgain(MemoryOldRows):
    """Forgets how far the usage of a daemon is stored."""

    def revive(self, daemon_ids):
        self.tombstones = {
            each: (daemon, Outbox()) for each, (daemon, _) in self.tombstones.items()
        }
        super().revive(daemon_ids)


class ForgetsShares(MemoryOldRows):
    """Forgets what a daemon used together with it."""

    async def daemons(self, **named):
        after_id, gone = await super().daemons(**named)
        shares = self._store.shares
        self._store.shares = {each: share for each, share in shares.items() if each[1] not in gone}
        return after_id, gone


class ForgetsHolders(MemoryOldRows):
    """Forgets daemons that may still spend, and what they hold."""

    async def daemons(self, **named):
        store, told = self._store, dict(self._store.shares)
        store.shares = {
            each: msgspec.structs.replace(share, stand=lend.reclaimed(share.stand))
            for each, share in told.items()
        }
        after_id, gone = await super().daemons(**named)
        store.shares |= {each: told[each] for each in store.shares if each[1] not in gone}
        return after_id, gone


def with_exchange(kind):
    return Parts(reception=type("Bugged", (Reception,), {"rules_of_exchange": kind}))


GUARDS = {
    "epoch check": with_exchange(NoEpochs),
    "margin": Parts(tenancy=WholeTenure),
    "presumption": Parts(reception=Frees),
    "idempotence": with_exchange(UsageAgain),
    "window of the lease": with_exchange(NoWindows),
    "boot id": Parts(tenancy=OutlivesBoots),
    "learning": with_exchange(NeverLearns),
    "version of the lease": with_exchange(NoVersions),
    "what a grant says": with_exchange(LendsGrantsTwice),
    "lower first, tell then": Parts(tenancy=LowersLater),
    "memory of the forgotten": Parts(old_rows=NeverKnewThem),
    "how far forgotten usage is stored": Parts(old_rows=StoresUsageAgain),
    "shares of the forgotten": Parts(old_rows=ForgetsShares),
    "keeping who holds something": Parts(old_rows=ForgetsHolders),
}
"""By the guard, the classes that lack it and nothing else."""


def whole_lifetime(question, larger, terms):
    """Let an allowance be drawn for as long as the policy says, whatever stands behind it."""
    return terms.lifetime_ns


def caught_by(parts, seeds):
    """Run orders until one notices: (its seed, what it says); None if none does."""
    for seed in seeds:
        outcome = run_fleet_order(seed, STEPS_COUNT, parts)
        if outcome.problems:
            return seed, outcome.problems[0]
    return None


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS)
def test_the_simulation_misses_the_guard(guard):
    assert caught_by(GUARDS[guard], range(SEEDS_MAX)) is not None


@pytest.mark.slow
def test_the_simulation_misses_the_end_of_an_allowance_with_its_leases(monkeypatch):
    monkeypatch.setattr(allot, "_lifetime_ns", whole_lifetime)
    assert caught_by(Parts(), range(SEEDS_MAX)) is not None
