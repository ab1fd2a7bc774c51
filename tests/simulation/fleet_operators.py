"""What operators of the fleet do."""

from fleet_policies import CENT, USERS
from fleet_replicas import drive
from fleet_world import World

from costd.coordinator.operators import ControlService
from costd.engine import keys
from costd.errors import CostdError
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb import fleet_control_pb2 as fpb
from costd.wire.pb import fleet_pb2 as pb


class Operators(World):
    """Whoever uses `costctl` against a coordinator."""

    # ---- operators -------------------------------------------------------------------------------

    def operate(self, coroutine):
        """Have a replica do what an operator says; its answer, or its error."""
        try:
            return drive(coroutine)
        except CostdError as error:
            return error

    def publish_policy(self):
        """Raise or cut the limits."""
        replica = self.replica()
        if replica is None or not self.database.is_up:
            return
        before, self.limit_cents = self.limit_cents, self.rng.choice(self.limits_cents)
        way = "cut" if self.limit_cents < before else "raised"
        self.saw(f"limits {way}", self.limit_cents != before)
        self.note(f"limits are {way} to {self.limit_cents} cents")
        drive(self.store_policy(self.policy))
        for key in self.truth.limits:
            self.truth.limit_in_force(key, self.texts())
        replica.refresh_policy()

    def top_up(self):
        replica = self.replica()
        if replica is None:
            return
        user = self.rng.choice(USERS)
        budget, key = self.rng.choice((("all", ""), ("user", f"user={user}")))
        request = fpb.TopUpBudgetRequest(
            budget=budget, key=key, amount=10 * CENT, actor="ops", reason="more is needed"
        )
        rule = next(
            rule
            for rule in replica.reception.published.rules.budgets.values()
            if rule.budget.budget_id == budget
        )
        end_ns = rule.window(replica.clock.now().wall_ns)[1]
        answer = self.operate(replica.operators.TopUpBudget(request, "ops"))
        if not isinstance(answer, CostdError):
            self.saw("budgets topped up")
        # One that failed may be written all the same.
        counter_key = keys.window_prefix(end_ns, rule.tag) + key.encode()
        pool = self.database.pools.get(counter_key)
        topped_up = pool.topped_up if pool is not None else 0
        self.truth.topped_up[counter_key] = max(topped_up, self.truth.topped_up[counter_key])

    def reclaim(self):
        """Give a daemon up, which may come back all the same."""
        replica = self.replica()
        if replica is None:
            return
        host = self.rng.choice(self.hosts)
        request = fpb.ReclaimLeasesRequest(daemon=host.name, actor="ops", reason="it burned")
        before = dict(self.database.shares)
        answer = self.operate(replica.operators.ReclaimLeases(request, "ops"))
        if isinstance(answer, CostdError) or not answer.leases:
            return
        self.saw("leases reclaimed", len(answer.leases))
        self.note(f"{replica.name} reclaims what {host.name} holds")
        for (key, owner), share in self.database.shares.items():
            if owner == host.name and share.is_reclaimed and before[key, owner] is not share:
                self.truth.gave_up(host, key, share.stand.used)

    def give_up(self):
        """Stop a daemon for longer than its tenure, and reclaim what it held."""
        host = self.host()
        if host is None:
            return
        host.stopped_until_ns = self.true_ns + 25 * NS_PER_S
        self.note(f"{host.name} is stopped, and will be given up")
        if self.rng.random() < 0.5 and host.link is not None:
            self.leave(host)
        for seconds in (6, 6, 6):
            self.pass_time(seconds)
            self.deliver(40)
        self.reclaim()

    def engage(self):
        """Engage a kill switch, with a database or without."""
        replica = self.replica()
        if replica is None:
            return
        request = cpb.EngageKillRequest(
            kill_id=f"kill-{self.rng.randrange(3)}",
            scope=self.rng.choice(({"user": "ann"}, {"user": "bob"}, {"run": "one"})),
            reason="a drill",
            actor="ops",
        )
        answer = self.operate(control_of(replica).EngageKill(request, "ops"))
        if not isinstance(answer, CostdError):
            self.saw("kill switches engaged")
            self.saw("kill switches engaged without a database", not self.database.is_up)
            self.note(f"{replica.name} engages {request.kill_id}")

    def release(self):
        replica = self.replica()
        if replica is None or not replica.kills.switches:
            return
        kill_id = self.rng.choice(sorted(replica.kills.switches))
        request = cpb.ReleaseKillRequest(kill_id=kill_id, actor="ops")
        answer = self.operate(control_of(replica).ReleaseKill(request, "ops"))
        if not isinstance(answer, CostdError):
            self.saw("kill switches released")
            self.note(f"{replica.name} releases {kill_id}")

    def drill(self):
        """Ask all who are attached to confirm that they hear."""
        replica = self.replica()
        if replica is not None:
            self.saw("drills")
            self.drill_id = f"drill-{self.saw and self.seen['drills']}"
            message = pb.ToDaemon(drill=pb.FleetDrill(drill_id=self.drill_id))
            for connection in replica.reception.attached.values():
                connection.push(message)


def control_of(replica):
    """The operators' service of one replica."""
    return ControlService(
        replica.database, replica.reception, replica.kills, replica.clock, replica.name
    )
