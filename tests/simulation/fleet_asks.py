"""What the fleet's agents ask its daemons for, call by call, and what they wait for."""

from fleet_policies import CENT, RUNS, USERS
from fleet_world import World

from costd.engine import keys
from costd.engine.changes import Family
from costd.errors import CostdError
from costd.model.ask import Ask
from costd.model.decision import Verdict
from costd.model.lease import Wanting
from costd.model.time import NS_PER_S

WAIT_NS = NS_PER_S
STAGES = ({"may_wait": True}, {})
STAGES_OF_A_GRANT = ({"may_wait": True, "grant_may_wait": True}, {"grant_may_wait": True}, {})
"""What an ask may wait for, then what, and last for nothing: as `AdmissionService` has it."""


class Waiter:
    """An ask that waits for the coordinator."""

    def __init__(self, host, member, ask, token, stages, until_ns):
        self.host, self.member = host, member
        self.ask, self.token = ask, token
        self.stages = stages
        self.until_ns = until_ns
        self.is_told = False

    def wake(self):
        self.is_told = True


class Asks(World):
    """Agents that ask for every call."""

    def new_ask(self, *, cents=None, critical=None):
        """Make one up."""
        rng = self.rng
        labels = {"user": rng.choice(USERS)}
        if rng.random() < 0.3:
            labels["run"] = rng.choice(RUNS)
        odd = rng.choice((0, 0, 0, rng.randrange(CENT)))
        critical = rng.random() < 0.2 if critical is None else critical
        return Ask(
            ask_id=f"ask-{self.seed:08}-{next(self._ids):08}",
            task_class="review" if critical else "draft",
            labels=labels,
            estimated_cost_nusd=(cents or rng.choice((1, 1, 2, 3, 5, 9))) * CENT + odd,
        )

    def ask(self, host, ask, *, token="", stages=None):
        """Ask a daemon for a call; it may have to wait for the coordinator."""
        ledger = host.member.ledger
        stages = stages or (STAGES_OF_A_GRANT if token else STAGES)
        answer = self.at(host, ledger.admit, ask, grant=token, **stages[0])
        if host.member is None:  # only its disk knows whether that was decided
            held = host.disk.get(Family.RESERVATIONS, keys.reservation_id("", ask.ask_id))
            if held is not None:
                self.let_go(host, held)
        elif isinstance(answer, Wanting):
            self.wait(Waiter(host, host.member, ask, token, stages, self.true_ns + WAIT_NS), answer)
        elif not isinstance(answer, CostdError):
            if answer.decision.verdict is Verdict.DENY:
                self.saw(f"denied: {answer.decision.reason.name}")
            else:
                self.let_go(host, ledger.find_reservation(answer.decision.reservation_id))

    def wait(self, waiter, wanting):
        """Do what `Patience` does, without its loop."""
        host, tenancy = waiter.host, waiter.member.tenancy
        shorts, token = wanting.shortages, wanting.override_grant
        asked = self.at(host, tenancy.ask, shorts, waiter.wake, override_grant=token)
        if host.member is not waiter.member:
            return
        if asked is True:
            self.saw("asks that waited")
            self.waiters.append(waiter)
        else:
            self.ask(host, waiter.ask, token=waiter.token, stages=waiter.stages[1:])

    def wake(self):
        """Have those decide again who have waited long enough, or were told to look again."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            host, is_over = waiter.host, waiter.until_ns <= self.true_ns
            if host.member is not waiter.member:
                continue
            if not self.runs(host) or not (waiter.is_told or is_over):
                self.waiters.append(waiter)
                continue
            waiter.member.tenancy.borrowing.forget(waiter.wake)
            stages = waiter.stages[1:] if is_over else waiter.stages
            self.ask(host, waiter.ask, token=waiter.token, stages=stages)

    def let_go(self, host, held):
        """Note a call that was admitted, and hold it to F4."""
        call = self.truth.let_go(host, held, self.texts())
        self.saw("calls admitted")
        self.saw(
            "override grants redeemed", any(keys.is_grants(line.key) for line in held.counters)
        )
        self.note(f"{host.name} admits {held.hold_nusd} for {held.ask.labels}")
        excused = len([line for line in held.counters if line.excuse])
        self.saw("calls admitted without a lease", bool(excused))
        leased = len([line for line in held.counters if not line.excuse]) > 1
        ends_ns = self.database.renewed_ns.get(host.name, 0) + self.span.tenure_ns
        if leased and self.true_ns >= ends_ns:
            self.problems.append(
                f"F4: {host.name} spent a lease {(self.true_ns - ends_ns) / 1e9:.3f} s after its "
                "tenure"
            )
        return call
