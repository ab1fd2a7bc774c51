"""How an order of the fleet's events ends: everything heals, and everybody agrees."""

from fleet_checks import end_problems
from fleet_clients import Clients
from fleet_operators import control_of
from fleet_policies import compiled
from fleet_replicas import drive

from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as cpb

QUIET_ROUNDS_MAX = 900


class Ending(Clients):
    """The last part of an order."""

    # ---- the end -----------------------------------------------------------------------------------

    def finish(self):
        """Heal everything, close every call, and compare all books with the truth."""
        self.note("everything heals")
        self.heal()
        self.close_clients()
        if not self.quieten(lambda: True):
            self.problems.append(f"the fleet does not become quiet: {self.loud()}")
            return
        for call in self.open_calls():
            self.end_call(call)
        for _ in range(70):  # those that nobody can end expire; what is idle is given back
            self.pass_time(0.9)
            self.carry_all()
        if not self.quieten(lambda: True):
            self.problems.append(f"the fleet does not become quiet again: {self.loud()}")
            return
        self.check()
        self.problems += end_problems(self)
        self.problems += self.leftover_problems()
        if not self.problems:
            self.spend_the_rest()

    def heal(self):
        self.is_healed = True
        for host in self.hosts:
            host.fuse.moments_left, host.fuse.refuses = None, False
            host.stopped_until_ns = 0
            host.clock.off_ns = self.some_skew()
        self.database.answers_lost = 0
        if not self.database.is_up:
            self.database_returns()
        for link in self.links:
            link.stalled_until_ns = 0
        for index in range(len(self.replicas)):
            self.start_replica(index)
        for host in self.hosts:
            if host.member is None:
                self.start_member(host)

    def quieten(self, done):
        """Carry until nothing is left to say; whether that came to pass."""
        for _ in range(QUIET_ROUNDS_MAX):
            self.carry_all()
            self.pass_time(0.1)
            self.beat()
            if not self.loud() and done():
                return True
        return False

    def carry_all(self):
        """Have everybody join, and everything arrive."""
        for host in self.hosts:
            if host.link is None:
                self.join(host)
        for _ in range(1_000):
            ways = self.ways()
            if not ways or self.problems:
                break
            act, what = self.rng.choice(ways)
            act(what)
        self.forget_links()

    def loud(self):
        """Name what is still under way."""
        found = []
        for host in self.hosts:
            tenancy = host.member.tenancy
            if not tenancy.is_enrolled:
                found.append(f"{host.name} is not enrolled")
            if not tenancy.is_settled:
                found.append(f"{host.name} has something to report, or waits for a receipt")
            if tenancy.outbox.waiting_count:
                found.append(f"{host.name} has {tenancy.outbox.waiting_count} usage events")
            if host.member.situation.policy_number != len(self.database.policies):
                found.append(f"{host.name} has policy {host.member.situation.policy_number}")
        if self.waiters:
            found.append(f"{len(self.waiters)} asks wait")
        found += [f"{each.name} is busy" for each in self.replicas if each.is_busy or each.notices]
        return found

    def leftover_problems(self):
        """Kill switches are the same everywhere."""
        kept = {kill_id: kill.released_ns > 0 for kill_id, kill in self.database.kills.items()}
        found = []
        for replica in self.replicas:
            known = {each.kill_id: each.released_ns > 0 for each in replica.kills.switches.values()}
            if known != kept:
                found.append(f"{replica.name} knows kill switches {known}, the database {kept}")
        engaged = {kill_id for kill_id, is_released in kept.items() if not is_released}
        for host in self.hosts:
            known = {kill.kill_id for kill in host.member.ledger.kills}
            if known != engaged:
                found.append(f"{host.name} has {known} engaged, the database {engaged}")
        return found

    def release_all(self):
        """Release every kill switch: a restored database may engage a halt once more."""
        for kill_id in sorted(self.database.kills):
            request = cpb.ReleaseKillRequest(kill_id=kill_id, actor="ops")
            drive(control_of(self.replicas[0]).ReleaseKill(request, "ops"))
        self.quieten(lambda: True)

    def spend_the_rest(self):
        """One daemon gets all that is left: nothing of it is stuck where nobody needs it."""
        self.release_all()
        rules = compiled(self.policy)
        ask = self.new_ask(critical=True)
        rooms = []
        for rule in rules.matching({**ask.labels, "task_class": "review"}).budgets:
            if rule.limit is None or rule.budget.unit != "nusd":
                continue
            key = rule.counter_key({**ask.labels, "task_class": "review"}, self.true_ns)
            if key in self.database.over:
                return  # what its daemon used of it once counts for that daemon only
            pool = self.database.pools.get(key)
            lost = sum(
                share.lost for (each, _), share in self.database.shares.items() if each == key
            )
            left = rule.limit + (pool.topped_up - pool.used - lost if pool else 0)
            rooms.append(min(left, rule.limit))
        # A daemon without a lease knows nothing of top-ups, and asks for no more than the policy's limit.
        rest = min(rooms)
        if rest <= 0 or self.true_ns % (60 * NS_PER_S) > 40 * NS_PER_S:
            return
        ask = type(ask)(
            ask_id=ask.ask_id,
            task_class=ask.task_class,
            labels=ask.labels,
            estimated_cost_nusd=rest,
        )
        host, before = self.rng.choice(self.hosts), len(self.truth.calls)
        for host_ in self.hosts:
            host_.clock.off_ns = 0
        self.saw("asks for all that is left")
        self.note(f"{host.name} is asked for all that is left: {rest} for {ask.labels}")
        for _ in range(3):  # what it was told of the fleet may be old; a report sets that right
            if len(self.truth.calls) == before:
                self.release_all()
                self.ask(host, ask)
                self.quieten(lambda: not self.waiters)
                self.pass_time(1.1)
        if len(self.truth.calls) == before:
            self.problems.append(f"{rest} is left, and {host.name} does not get it")
        self.check()
